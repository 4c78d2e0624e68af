//! The counters added up over the workers, for people and for the admin port: exact totals, and quantiles from the
//! cells of HdrHistograms (right to one part in a hundred). Making one takes tens of microseconds per histogram, on
//! the thread of whoever asks.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use super::metrics::{CLASSES, METHODS, RouteMetrics, RouteShard, STATUSES, UpstreamMetrics, WorkerShard};
use super::record::{Fate, PHASES};
use super::shard::{BucketTotals, Cells, Counter, Label, Labelled};
use crate::core::histogram;

/// A route's counts at one moment.
#[derive(Clone, Debug, Default)]
pub struct RouteSnapshot {
    /// Empty for requests that no route took.
    pub name: String,
    /// By method and class (`2xx` and so on; `none` is no answer), only what is not zero.
    pub requests: Vec<(&'static str, &'static str, u64)>,
    /// Of whole requests, tunnels left out.
    pub latency: Merged,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub fates: BTreeMap<Fate, u64>,
    pub reasons: BTreeMap<(Fate, &'static str), u64>,
}

/// An upstream's counts at one moment.
#[derive(Clone, Debug, Default)]
pub struct UpstreamSnapshot {
    pub name: String,
    /// Time to the head of the answer, of attempts that had one.
    pub latency: Merged,
    pub attempts: BTreeMap<&'static str, u64>,
    /// Attempts after the first.
    pub retries: u64,
    /// Attempts on a connection that had served before.
    pub reused: u64,
}

/// A latency distribution, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct Quantiles {
    pub count: u64,
    pub mean: f64,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p999: f64,
    pub p9999: f64,
    /// Exact.
    pub max: f64,
}

impl Quantiles {
    pub fn of(merged: &Merged) -> Quantiles {
        let Some(histogram) = merged.histogram.as_ref().filter(|histogram| !histogram.is_empty()) else {
            return Quantiles::default();
        };
        let seconds = |micros: u64| micros as f64 / 1e6;
        // A cell stands for its highest value; the slowest request was no slower than it was.
        let at = |quantile| seconds(histogram.value_at_quantile(quantile).min(merged.max_micros));
        Quantiles {
            count: histogram.len(),
            mean: merged.sum_nanos as f64 / histogram.len() as f64 / 1e9,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            p9999: at(0.9999),
            max: seconds(merged.max_micros),
        }
    }
}

/// The cells of several workers as one histogram, in microseconds.
#[derive(Clone, Debug, Default)]
pub struct Merged {
    /// `None` is empty.
    histogram: Option<Histogram<u64>>,
    sum_nanos: u64,
    max_micros: u64,
}

impl Merged {
    pub(super) fn of<'a>(cells: impl Iterator<Item = &'a Cells>) -> Merged {
        // The bounds and the precision that the constructor refuses are not these.
        let mut histogram = Histogram::new_with_bounds(1, LARGEST, DIGITS).ok();
        let (mut sum_nanos, mut max_micros) = (0u64, 0);
        for cells in cells {
            for (index, count) in cells.counts() {
                if let Some(histogram) = &mut histogram {
                    histogram.saturating_record_n(histogram::lower_bound(index), count);
                }
            }
            sum_nanos = sum_nanos.wrapping_add(cells.sum_nanos());
            max_micros = max_micros.max(cells.max_micros());
        }
        Merged { histogram, sum_nanos, max_micros }
    }

    pub fn count(&self) -> u64 {
        self.histogram.as_ref().map_or(0, Histogram::len)
    }
}

/// One route, added up over the workers, as the exposition needs it.
pub(super) struct RouteTotals {
    /// By method and place among the statuses that are counted.
    pub statuses: Vec<(&'static str, usize, u64)>,
    /// By method and class.
    pub buckets: Vec<(&'static str, &'static str, BucketTotals)>,
    pub fates: BTreeMap<Fate, u64>,
    pub reasons: BTreeMap<(Fate, &'static str), u64>,
    pub bytes_in: u64,
    pub bytes_out: u64,
}

impl RouteTotals {
    pub fn of(route: &RouteMetrics) -> Self {
        let sum = |counter: &dyn Fn(&RouteShard) -> &Counter| -> u64 {
            route.shards.iter().map(|shard| counter(shard).value()).sum()
        };
        let fates = Fate::ALL.into_iter().map(|fate| (fate, sum(&|shard| &shard.fates[fate as usize])));
        let mut totals = RouteTotals {
            statuses: Vec::new(),
            buckets: Vec::new(),
            fates: fates.filter(|(_, count)| *count > 0).collect(),
            reasons: labelled(route.shards.iter().filter_map(|shard| shard.reasons.get().map(|table| &**table))),
            bytes_in: sum(&|shard| &shard.bytes_in),
            bytes_out: sum(&|shard| &shard.bytes_out),
        };
        for (place, method) in METHODS.iter().enumerate() {
            let used: Vec<_> = route.shards.iter().filter_map(|shard| shard.methods[place].get()).collect();
            for status in 0..STATUSES.len() + CLASSES.len() {
                let count = used.iter().map(|shard| shard.statuses[status].value()).sum();
                if count > 0 {
                    totals.statuses.push((method, status, count));
                }
            }
            for (class, label) in CLASSES.iter().enumerate() {
                let mut buckets = BucketTotals::default();
                for counted in used.iter().filter_map(|shard| shard.classes[class].get()) {
                    buckets.add(counted);
                }
                if buckets.count() > 0 {
                    totals.buckets.push((method, label, buckets));
                }
            }
        }
        totals
    }

    /// The statuses by their classes.
    fn classes(&self) -> Vec<(&'static str, &'static str, u64)> {
        let mut classes: Vec<(&str, &str, u64)> = Vec::new();
        for (method, status, count) in &self.statuses {
            let class = match STATUSES.get(*status) {
                Some(status) => usize::from(status / 100),
                None => status - STATUSES.len(),
            };
            let class = CLASSES.get(class).copied().unwrap_or_default();
            match classes.iter_mut().find(|known| (known.0, known.1) == (*method, class)) {
                Some(known) => known.2 += count,
                None => classes.push((method, class, *count)),
            }
        }
        classes
    }
}

/// A labelled counter, added up over workers.
pub(super) fn labelled<'a, const N: usize, L: Label + Ord + 'a>(
    tables: impl Iterator<Item = &'a Labelled<Counter, N, L>>,
) -> BTreeMap<L, u64> {
    let mut totals = BTreeMap::new();
    for (label, counter) in tables.flat_map(Labelled::iter) {
        *totals.entry(label).or_default() += counter.value();
    }
    totals
}

/// How long the phases of requests took.
pub(super) fn phases(workers: &[WorkerShard]) -> BTreeMap<&'static str, Quantiles> {
    let of = |place: usize| Quantiles::of(&Merged::of(workers.iter().map(|shard| &shard.phases[place])));
    PHASES.into_iter().enumerate().map(|(place, phase)| (phase, of(place))).collect()
}

impl RouteMetrics {
    pub fn snapshot(&self) -> RouteSnapshot {
        let totals = RouteTotals::of(self);
        RouteSnapshot {
            name: self.name.clone(),
            requests: totals.classes(),
            latency: Merged::of(self.shards.iter().map(|shard| &shard.latency)),
            bytes_in: totals.bytes_in,
            bytes_out: totals.bytes_out,
            fates: totals.fates,
            reasons: totals.reasons,
        }
    }
}

impl UpstreamMetrics {
    pub fn snapshot(&self) -> UpstreamSnapshot {
        UpstreamSnapshot {
            name: self.name.clone(),
            latency: Merged::of(self.shards.iter().map(|shard| &shard.latency)),
            attempts: labelled(self.shards.iter().map(|shard| &shard.outcomes)),
            retries: self.shards.iter().map(|shard| shard.retries.value()).sum(),
            reused: self.shards.iter().map(|shard| shard.reused.value()).sum(),
        }
    }
}

/// The largest value of `core::histogram`'s last cell, in microseconds.
const LARGEST: u64 = (1 << 32) - 1;
/// Significant digits of `core::histogram`.
const DIGITS: u8 = 2;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::metrics::Registry;
    use super::super::record::RequestRecord;
    use super::super::record::tests::record;
    use super::*;

    #[test]
    fn quantiles_agree_with_a_sorted_list_over_all_workers() {
        // Goal: sharding changes nothing. Method: a seeded heavy-tailed sample, dealt to three workers.
        let cells = [Cells::default(), Cells::default(), Cells::default()];
        let mut all = Vec::new();
        let mut seed = 42u64;
        for number in 0..30_000usize {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let unit = (seed >> 11) as f64 / (1u64 << 53) as f64;
            let micros = (200.0 / (1.0 - unit).powf(0.7)) as u64;
            cells[number % 3].record(Duration::from_micros(micros));
            all.push(micros);
        }
        all.sort_unstable();
        let times = Quantiles::of(&Merged::of(cells.iter()));
        assert_eq!(times.count, 30_000);
        assert_eq!(times.max, all[29_999] as f64 / 1e6);
        let mean = all.iter().sum::<u64>() as f64 / 30_000.0 / 1e6;
        assert!((times.mean - mean).abs() < mean / 1e6, "{} for {mean}", times.mean);
        let near = |found: f64, quantile: f64| {
            let exact = all[((quantile * 30_000.0).ceil() as usize).max(1) - 1] as f64 / 1e6;
            assert!(found >= exact * 0.999 && found <= exact * 1.01, "{quantile}: {found} for {exact}");
        };
        near(times.p50, 0.5);
        near(times.p90, 0.9);
        near(times.p99, 0.99);
        near(times.p999, 0.999);
        near(times.p9999, 0.9999);
    }

    #[test]
    fn nothing_recorded_is_zero_and_one_value_is_itself() {
        assert_eq!(Quantiles::of(&Merged::of([].into_iter())), Quantiles::default());
        assert_eq!(Quantiles::of(&Merged::default()), Quantiles::default());
        let cells = Cells::default();
        cells.record(Duration::from_micros(100_003));
        let times = Quantiles::of(&Merged::of([&cells].into_iter()));
        assert_eq!((times.p50, times.p9999, times.max), (0.100003, 0.100003, 0.100003));
    }

    #[test]
    fn a_snapshot_adds_up_the_workers() {
        let registry = Registry::new(2);
        let route = registry.route("api");
        let broken = RequestRecord { status: 502, fate: Fate::Unreachable, reason: "reset", ..record() };
        for (worker, record) in [
            (0, record()),
            (1, record()),
            (1, RequestRecord { status: 299, ..record() }),
            (0, RequestRecord { method: "BREW", ..broken }),
            (1, RequestRecord { method: "BREW", ..broken }),
        ] {
            route.settle(worker, &record);
        }
        let snapshot = route.snapshot();
        assert_eq!((snapshot.latency.count(), snapshot.bytes_out), (5, 5 * 1024));
        assert_eq!(snapshot.requests, [("GET", "2xx", 3), ("_OTHER", "5xx", 2)]);
        assert_eq!(snapshot.fates, BTreeMap::from([(Fate::Ok, 3), (Fate::Unreachable, 2)]));
        assert_eq!(snapshot.reasons, BTreeMap::from([((Fate::Unreachable, "reset"), 2)]));
    }
}
