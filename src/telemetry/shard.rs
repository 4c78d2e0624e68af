//! Counters that one worker writes and anybody reads. A worker adds with a relaxed load and a relaxed store: no locked
//! instruction, no shared cache line; a reader may be one event behind, never wrong by more. What is rarely used
//! (the cells of a histogram, a method, a status class) is allocated at its first use.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::record::Fate;
use super::text;
use crate::core::histogram;

/// A number that only its owning worker changes.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, amount: u64) {
        // Not `fetch_add`: there is one writer, so nothing can come between the load and the store.
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
    }

    pub fn raise(&self, value: u64) {
        if value > self.0.load(Ordering::Relaxed) {
            self.0.store(value, Ordering::Relaxed);
        }
    }

    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The cells of an HdrHistogram, in blocks of one doubling each; a worker's route uses a handful of the 26.
#[derive(Debug)]
pub struct Cells {
    blocks: [OnceLock<Box<[Counter; BLOCK]>>; BLOCKS],
    sum_nanos: Counter,
    max_micros: Counter,
}

impl Default for Cells {
    fn default() -> Self {
        Cells {
            blocks: std::array::from_fn(|_| OnceLock::new()),
            sum_nanos: Counter::default(),
            max_micros: Counter::default(),
        }
    }
}

impl Cells {
    pub fn record(&self, duration: Duration) {
        let micros = text::micros(duration);
        let index = histogram::index(micros);
        let block = self.blocks[index / BLOCK].get_or_init(|| Box::new(std::array::from_fn(|_| Counter::default())));
        block[index % BLOCK].add(1);
        self.sum_nanos.add(text::nanos(duration));
        self.max_micros.raise(micros);
    }

    /// The cells that hold something: index and count.
    pub fn counts(&self) -> impl Iterator<Item = (usize, u64)> + '_ {
        let used = self.blocks.iter().enumerate().filter_map(|(place, block)| Some((place, block.get()?)));
        used.flat_map(|(place, block)| {
            block.iter().enumerate().map(move |(at, cell)| (place * BLOCK + at, cell.value()))
        })
        .filter(|(_, count)| *count > 0)
    }

    pub fn sum_nanos(&self) -> u64 {
        self.sum_nanos.value()
    }

    pub fn max_micros(&self) -> u64 {
        self.max_micros.value()
    }
}

/// The classic buckets of one series, counted as they happen, so that their bounds are exact: `le` of a service level
/// objective must not be off by the width of a histogram's cell.
#[derive(Debug, Default)]
pub struct Buckets {
    counts: [Counter; BOUNDS.len() + 1],
    sum_nanos: Counter,
}

impl Buckets {
    pub fn record(&self, duration: Duration) {
        let nanos = text::nanos(duration);
        let place = BOUNDS.partition_point(|bound| bound.nanos < nanos);
        self.counts[place].add(1);
        self.sum_nanos.add(nanos);
    }
}

/// An upper bound of a classic bucket.
#[derive(Debug)]
pub struct Bound {
    nanos: u64,
    /// As Prometheus' `le` has it, in seconds.
    pub seconds: &'static str,
}

const fn bound(micros: u64, seconds: &'static str) -> Bound {
    Bound { nanos: micros * 1000, seconds }
}

/// OpenTelemetry's advice for `http.server.request.duration`, and what it lacks for services behind a sidecar: 1 ms,
/// 2.5 ms, 300 ms (a common objective), 15 s and 30 s (our default timers).
pub const BOUNDS: [Bound; 19] = [
    bound(1_000, "0.001"),
    bound(2_500, "0.0025"),
    bound(5_000, "0.005"),
    bound(10_000, "0.01"),
    bound(25_000, "0.025"),
    bound(50_000, "0.05"),
    bound(75_000, "0.075"),
    bound(100_000, "0.1"),
    bound(250_000, "0.25"),
    bound(300_000, "0.3"),
    bound(500_000, "0.5"),
    bound(750_000, "0.75"),
    bound(1_000_000, "1"),
    bound(2_500_000, "2.5"),
    bound(5_000_000, "5"),
    bound(7_500_000, "7.5"),
    bound(10_000_000, "10"),
    bound(15_000_000, "15"),
    bound(30_000_000, "30"),
];

/// Classic buckets added up over workers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BucketTotals {
    /// Not cumulative; the last is what lies above every bound.
    pub counts: [u64; BOUNDS.len() + 1],
    pub sum_nanos: u64,
}

impl BucketTotals {
    pub fn add(&mut self, buckets: &Buckets) {
        for (total, count) in self.counts.iter_mut().zip(&buckets.counts) {
            *total += count.value();
        }
        self.sum_nanos = self.sum_nanos.wrapping_add(buckets.sum_nanos.value());
    }

    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// Things with a label that only the code names (a reason, an outcome, a phase): at most `N` of them, what comes
/// later shares the last place. A label is found by comparing: there are few, and they are the same statics.
#[derive(Debug)]
pub struct Labelled<T, const N: usize, L = &'static str> {
    places: [OnceLock<(L, T)>; N],
}

/// What a table can be labelled with.
pub trait Label: Copy + PartialEq {
    /// The label of everything beyond a table's size.
    const OVERFLOW: Self;
}

impl Label for &'static str {
    const OVERFLOW: Self = "other";
}

/// A reason, of requests that came to this fate.
impl Label for (Fate, &'static str) {
    const OVERFLOW: Self = (Fate::Refused, "other");
}

impl<T: Default, const N: usize, L: Label> Default for Labelled<T, N, L> {
    fn default() -> Self {
        Labelled { places: std::array::from_fn(|_| OnceLock::new()) }
    }
}

impl<T: Default, const N: usize, L: Label> Labelled<T, N, L> {
    pub fn of(&self, label: L) -> &T {
        // The last place is for everything the others have no room for.
        for place in &self.places[..N - 1] {
            let (found, value) = place.get_or_init(|| (label, T::default()));
            if *found == label {
                return value;
            }
        }
        &self.places[N - 1].get_or_init(|| (L::OVERFLOW, T::default())).1
    }

    pub fn iter(&self) -> impl Iterator<Item = (L, &T)> {
        self.places.iter().map_while(|place| place.get().map(|(label, value)| (*label, value)))
    }
}

/// Cells per block: one doubling of the histogram.
const BLOCK: usize = 128;
const BLOCKS: usize = histogram::BUCKETS.div_ceil(BLOCK);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_counts_what_is_exactly_on_it() {
        // Goal: `le` means less or equal, to the nanosecond. Method: t−1, t, t+1 at every bound.
        for (place, bound) in BOUNDS.iter().enumerate() {
            let at = |nanos| {
                let buckets = Buckets::default();
                buckets.record(Duration::from_nanos(nanos));
                let mut totals = BucketTotals::default();
                totals.add(&buckets);
                totals.counts.iter().position(|count| *count == 1).unwrap()
            };
            assert_eq!([at(bound.nanos - 1), at(bound.nanos), at(bound.nanos + 1)], [place, place, place + 1]);
            let seconds: f64 = bound.seconds.parse().unwrap();
            assert_eq!((seconds * 1e9).round() as u64, bound.nanos);
        }
    }

    #[test]
    fn cells_hold_what_was_recorded_and_allocate_only_what_they_use() {
        let cells = Cells::default();
        for micros in [0, 1, 1, 5_000, u64::MAX / 1000] {
            cells.record(Duration::from_micros(micros));
        }
        let counts: Vec<_> = cells.counts().collect();
        assert_eq!(counts, [(0, 1), (1, 2), (histogram::index(5_000), 1), (histogram::BUCKETS - 1, 1)]);
        assert_eq!(cells.max_micros(), u64::MAX / 1000);
        assert_eq!(cells.blocks.iter().filter(|block| block.get().is_some()).count(), 3);
    }

    #[test]
    fn labels_beyond_the_table_share_the_last_place() {
        let table = Labelled::<Counter, 3>::default();
        for label in ["a", "b", "a", "c", "d"] {
            table.of(label).add(1);
        }
        let counts: Vec<_> = table.iter().map(|(label, count)| (label, count.value())).collect();
        assert_eq!(counts, [("a", 2), ("b", 1), ("other", 2)]);
    }
}
