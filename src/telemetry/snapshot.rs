//! The counters added up over the workers, for people and for the admin port: exact totals, and quantiles from the
//! cells of HdrHistograms (right to one part in a hundred). Making one takes tens of microseconds per histogram, on
//! the thread of whoever asks.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use super::metrics::{CLASSES, METHODS, Registry, RouteMetrics, STATUSES, UpstreamMetrics};
use super::record::Fate;
use super::shard::{BucketTotals, Cells, Counter, Labelled};
use crate::core::histogram;

/// Everything that is counted.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Snapshot {
    /// Requests in progress; `None` if the proxy does not tell when they begin.
    pub in_flight: Option<u64>,
    pub refusals: BTreeMap<&'static str, u64>,
    pub routes: Vec<RouteSnapshot>,
    pub upstreams: Vec<UpstreamSnapshot>,
    pub phases: BTreeMap<&'static str, Latency>,
    pub access_log_dropped: u64,
    pub spans_dropped: u64,
}

#[derive(Clone, Debug, serde::Serialize)]
pub struct RouteSnapshot {
    pub name: String,
    pub requests: u64,
    /// By `2xx` and so on; `none` is no answer.
    pub classes: BTreeMap<&'static str, u64>,
    pub fates: BTreeMap<&'static str, u64>,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub latency: Latency,
}

#[derive(Clone, Debug, serde::Serialize)]
pub struct UpstreamSnapshot {
    pub name: String,
    pub attempts: u64,
    pub outcomes: BTreeMap<&'static str, u64>,
    /// Attempts that went over a connection used before.
    pub reused: u64,
    pub latency: Latency,
}

/// A latency distribution, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct Latency {
    pub count: u64,
    pub mean_ms: f64,
    pub p50_ms: f64,
    pub p90_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
    pub p9999_ms: f64,
    /// Exact.
    pub max_ms: f64,
}

/// The cells of several workers as one histogram, in microseconds.
pub(super) struct Merged {
    histogram: Histogram<u64>,
    sum_nanos: u64,
    max_micros: u64,
}

impl Merged {
    pub fn of<'a>(cells: impl Iterator<Item = &'a Cells>) -> Option<Merged> {
        // The bounds and the precision that the constructor refuses are not these.
        let histogram = Histogram::new_with_bounds(1, LARGEST, DIGITS).ok()?;
        let mut merged = Merged { histogram, sum_nanos: 0, max_micros: 0 };
        for cells in cells {
            for (index, count) in cells.counts() {
                merged.histogram.saturating_record_n(histogram::lower_bound(index), count);
            }
            merged.sum_nanos = merged.sum_nanos.wrapping_add(cells.sum_nanos());
            merged.max_micros = merged.max_micros.max(cells.max_micros());
        }
        Some(merged)
    }

    pub fn latency(&self) -> Latency {
        let count = self.histogram.len();
        if count == 0 {
            return Latency::default();
        }
        // A cell stands for its highest value; the slowest request was no slower than it was.
        let at = |quantile| self.histogram.value_at_quantile(quantile).min(self.max_micros) as f64 / 1000.0;
        Latency {
            count,
            mean_ms: self.sum_nanos as f64 / count as f64 / 1e6,
            p50_ms: at(0.5),
            p90_ms: at(0.9),
            p99_ms: at(0.99),
            p999_ms: at(0.999),
            p9999_ms: at(0.9999),
            max_ms: self.max_micros as f64 / 1000.0,
        }
    }
}

/// One route, added up over the workers.
pub(super) struct RouteTotals {
    /// By method and place among the statuses that are counted.
    pub statuses: Vec<(&'static str, usize, u64)>,
    /// By method and class.
    pub buckets: Vec<(&'static str, &'static str, BucketTotals)>,
    pub fates: [u64; Fate::ALL.len()],
    pub bytes_in: u64,
    pub bytes_out: u64,
}

impl RouteTotals {
    pub fn of(route: &RouteMetrics) -> Self {
        let sum = |counter: &dyn Fn(&super::metrics::RouteShard) -> &Counter| {
            route.shards.iter().map(|shard| counter(shard).value()).sum()
        };
        let mut totals = RouteTotals {
            statuses: Vec::new(),
            buckets: Vec::new(),
            fates: std::array::from_fn(|place| sum(&|shard| &shard.fates[place])),
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

    pub fn fates(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        Fate::ALL.iter().zip(self.fates).filter(|(_, count)| *count > 0).map(|(fate, count)| (fate.label(), count))
    }
}

/// A labelled counter, added up over workers.
pub(super) fn labelled<'a, const N: usize>(
    tables: impl Iterator<Item = &'a Labelled<Counter, N>>,
) -> BTreeMap<&'static str, u64> {
    let mut totals = BTreeMap::new();
    for (label, counter) in tables.flat_map(Labelled::iter) {
        *totals.entry(label).or_default() += counter.value();
    }
    totals
}

impl Snapshot {
    pub(super) fn of(registry: &Registry, access_log_dropped: u64, spans_dropped: u64) -> Self {
        let mut phases: BTreeMap<&'static str, Vec<&Cells>> = BTreeMap::new();
        for (phase, cells) in registry.workers.iter().flat_map(|shard| shard.phases.iter()) {
            phases.entry(phase).or_default().push(cells);
        }
        let latency = |cells: Vec<&Cells>| Merged::of(cells.into_iter()).map(|merged| merged.latency());
        Snapshot {
            in_flight: in_flight(registry),
            refusals: labelled(registry.workers.iter().map(|shard| &shard.refusals)),
            routes: registry.routes().iter().map(|route| RouteSnapshot::of(route)).collect(),
            upstreams: registry.upstreams().iter().map(|upstream| UpstreamSnapshot::of(upstream)).collect(),
            phases: phases.into_iter().map(|(phase, cells)| (phase, latency(cells).unwrap_or_default())).collect(),
            access_log_dropped,
            spans_dropped,
        }
    }
}

impl RouteSnapshot {
    fn of(route: &RouteMetrics) -> Self {
        let totals = RouteTotals::of(route);
        let mut classes = BTreeMap::new();
        for (_, class, buckets) in &totals.buckets {
            *classes.entry(*class).or_default() += buckets.count();
        }
        RouteSnapshot {
            name: route.name.clone(),
            requests: totals.fates.iter().sum(),
            classes,
            fates: totals.fates().collect(),
            bytes_in: totals.bytes_in,
            bytes_out: totals.bytes_out,
            latency: route.latency(),
        }
    }
}

impl UpstreamSnapshot {
    fn of(upstream: &UpstreamMetrics) -> Self {
        let outcomes = labelled(upstream.shards.iter().map(|shard| &shard.outcomes));
        UpstreamSnapshot {
            name: upstream.name.clone(),
            attempts: outcomes.values().sum(),
            outcomes,
            reused: upstream.shards.iter().map(|shard| shard.reused.value()).sum(),
            latency: upstream.latency(),
        }
    }
}

impl RouteMetrics {
    /// Of whole requests, over all workers.
    pub fn latency(&self) -> Latency {
        let merged = Merged::of(self.shards.iter().map(|shard| &shard.latency));
        merged.map_or_else(Latency::default, |merged| merged.latency())
    }
}

impl UpstreamMetrics {
    /// Of single attempts, over all workers.
    pub fn latency(&self) -> Latency {
        let merged = Merged::of(self.shards.iter().map(|shard| &shard.latency));
        merged.map_or_else(Latency::default, |merged| merged.latency())
    }
}

/// Requests that began and did not end. Each worker counts both, so the difference needs no counter that goes down;
/// the ends are read first, so that it is never too small by what happens meanwhile.
pub(super) fn in_flight(registry: &Registry) -> Option<u64> {
    let ended = registry.total(|shard| &shard.ended);
    let begun = registry.total(|shard| &shard.begun);
    (begun > 0).then(|| begun.saturating_sub(ended))
}

/// The largest value of `core::histogram`'s last cell, in microseconds.
const LARGEST: u64 = (1 << 32) - 1;
/// Significant digits of `core::histogram`.
const DIGITS: u8 = 2;

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
        let latency = Merged::of(cells.iter()).unwrap().latency();
        assert_eq!(latency.count, 30_000);
        assert_eq!(latency.max_ms, all[29_999] as f64 / 1000.0);
        let near = |found: f64, quantile: f64| {
            let exact = all[((quantile * 30_000.0).ceil() as usize).max(1) - 1] as f64 / 1000.0;
            assert!(found >= exact * 0.999 && found <= exact * 1.01, "{quantile}: {found} for {exact}");
        };
        near(latency.p50_ms, 0.5);
        near(latency.p90_ms, 0.9);
        near(latency.p99_ms, 0.99);
        near(latency.p999_ms, 0.999);
        near(latency.p9999_ms, 0.9999);
    }

    #[test]
    fn nothing_recorded_is_zero_and_one_value_is_itself() {
        assert_eq!(Merged::of([].into_iter()).unwrap().latency(), Latency::default());
        let cells = Cells::default();
        cells.record(Duration::from_micros(100_003));
        let latency = Merged::of([&cells].into_iter()).unwrap().latency();
        assert_eq!((latency.p50_ms, latency.p9999_ms, latency.max_ms), (100.003, 100.003, 100.003));
    }

    #[test]
    fn in_flight_is_what_began_and_did_not_end_anywhere() {
        let registry = Registry::new(2);
        assert_eq!(in_flight(&registry), None);
        registry.workers[0].begun.add(3);
        registry.workers[1].begun.add(2);
        registry.workers[1].ended.add(2);
        registry.workers[0].ended.add(1);
        assert_eq!(in_flight(&registry), Some(2));
    }

    #[test]
    fn a_snapshot_adds_up_the_workers() {
        let registry = Registry::new(2);
        let route = registry.route("api");
        route.settle(0, &record());
        route.settle(1, &RequestRecord { status: 502, fate: Fate::Unreachable, method: "BREW", ..record() });
        let snapshot = Snapshot::of(&registry, 3, 4);
        let route = &snapshot.routes[0];
        assert_eq!((route.requests, route.bytes_out), (2, 2048));
        assert_eq!(route.classes, BTreeMap::from([("2xx", 1), ("5xx", 1)]));
        assert_eq!(route.fates, BTreeMap::from([("ok", 1), ("unreachable", 1)]));
        assert_eq!(serde_json::to_value(&snapshot).unwrap()["access_log_dropped"], 3);
    }
}
