//! Counters that one worker writes and everybody reads. A single writer needs no locked instruction: it loads, adds
//! and stores. Readers add the workers' shards up.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::core::histogram;

/// A counter with one writer.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, amount: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
    }

    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A latency histogram with one writer; its cells (26 KiB) are allocated when the first value comes.
#[derive(Debug, Default)]
pub struct Histogram {
    cells: OnceLock<Box<[Counter]>>,
    sum_micros: Counter,
}

impl Histogram {
    pub fn record(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let cells = self.cells.get_or_init(|| (0..histogram::BUCKETS).map(|_| Counter::default()).collect());
        cells[histogram::index(micros)].add(1);
        self.sum_micros.add(micros);
    }

    /// Adds this shard to `total`.
    pub fn merge_into(&self, total: &mut Merged) {
        total.sum_micros += self.sum_micros.value();
        for (index, cell) in self.cells.get().into_iter().flatten().enumerate() {
            total.cells[index] += cell.value();
        }
    }
}

/// The shards of a histogram added up.
#[derive(Clone, Debug)]
pub struct Merged {
    cells: Vec<u64>,
    pub sum_micros: u64,
}

impl Default for Merged {
    fn default() -> Self {
        Merged { cells: vec![0; histogram::BUCKETS], sum_micros: 0 }
    }
}

impl Merged {
    pub fn count(&self) -> u64 {
        self.cells.iter().sum()
    }

    /// Values of at most `micros`. A value within the cell of `micros` (1 % wide) counts as below it.
    pub fn count_up_to(&self, micros: u64) -> u64 {
        self.cells[..=histogram::index(micros)].iter().sum()
    }

    /// As an HdrHistogram, for quantiles; `None` cannot be, since its bounds are constants that are valid.
    pub fn to_hdr(&self) -> Option<hdrhistogram::Histogram<u64>> {
        let highest = histogram::upper_bound(histogram::BUCKETS - 1);
        let mut hdr = hdrhistogram::Histogram::new_with_bounds(1, highest, 2).ok()?;
        for (index, count) in self.cells.iter().enumerate().filter(|(_, count)| **count > 0) {
            let middle = (histogram::lower_bound(index) + histogram::upper_bound(index)) / 2;
            hdr.saturating_record_n(middle.max(1), *count);
        }
        Some(hdr)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_within_two_digits() {
        let shards = [Histogram::default(), Histogram::default()];
        for micros in 1..=100_000u64 {
            shards[(micros % 2) as usize].record(Duration::from_micros(micros));
        }
        let mut merged = Merged::default();
        shards.iter().for_each(|shard| shard.merge_into(&mut merged));
        assert_eq!(merged.count(), 100_000);
        assert_eq!(merged.sum_micros, 100_000 * 100_001 / 2);
        let hdr = merged.to_hdr().unwrap();
        for quantile in [0.5, 0.9, 0.99, 0.999] {
            let (found, exact) = (hdr.value_at_quantile(quantile) as f64, quantile * 100_000.0);
            assert!((found - exact).abs() / exact < 0.02, "{quantile}: {found}");
        }
        assert!(merged.count_up_to(50_000).abs_diff(50_000) < 500);
    }
}
