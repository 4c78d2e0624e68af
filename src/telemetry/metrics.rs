//! What is counted per route and per upstream. The label sets are bounded by construction: routes and upstreams of
//! the configuration, known methods, status classes, and our own words.

use std::collections::BTreeMap;
use std::sync::Mutex;

use super::cells::{Counter, Histogram, Merged};
use super::record::{AttemptRecord, Fate, RequestRecord};

pub const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "OTHER"];
/// By the status' first digit; 0 is a client that left before there was one.
pub const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];
/// Distinct refusal words one route may count; our own list is shorter.
const REASONS_MAX: usize = 64;

/// One worker's counts of a route.
#[derive(Debug, Default)]
struct RouteShard {
    requests: [[Counter; CLASSES.len()]; METHODS.len()],
    latency: Histogram,
    bytes_in: Counter,
    bytes_out: Counter,
    /// Rare, so they need no shard of their own kind.
    reasons: Mutex<BTreeMap<(Fate, &'static str), u64>>,
}

/// All workers' counts of a route. They are never reset.
#[derive(Debug)]
pub struct RouteMetrics {
    pub name: String,
    shards: Vec<RouteShard>,
}

/// A route's counts at one moment.
#[derive(Clone, Debug, Default)]
pub struct RouteSnapshot {
    pub name: String,
    /// By method and class, only what is not zero.
    pub requests: Vec<(&'static str, &'static str, u64)>,
    pub latency: Merged,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub reasons: BTreeMap<(Fate, &'static str), u64>,
}

/// Latencies in seconds.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub struct Quantiles {
    pub count: u64,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p999: f64,
    pub p9999: f64,
    pub max: f64,
}

impl Quantiles {
    pub fn of(merged: &Merged) -> Quantiles {
        let Some(hdr) = merged.to_hdr() else { return Quantiles::default() };
        let at = |quantile| hdr.value_at_quantile(quantile) as f64 / 1e6;
        Quantiles {
            count: hdr.len(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            p9999: at(0.9999),
            max: hdr.max() as f64 / 1e6,
        }
    }
}

impl RouteMetrics {
    pub(super) fn new(name: &str, workers: usize) -> Self {
        RouteMetrics { name: name.to_owned(), shards: (0..workers).map(|_| RouteShard::default()).collect() }
    }

    pub(super) fn record(&self, worker: usize, record: &RequestRecord<'_>) {
        let Some(shard) = self.shards.get(worker) else { return };
        let method = METHODS.iter().position(|method| *method == record.method).unwrap_or(METHODS.len() - 1);
        let class = usize::from(record.status / 100).min(CLASSES.len() - 1);
        shard.requests[method][class].add(1);
        if record.fate != Fate::Upgraded {
            shard.latency.record(record.duration);
        }
        shard.bytes_in.add(record.bytes_in);
        shard.bytes_out.add(record.bytes_out);
        if !record.reason.is_empty() {
            let mut reasons = shard.reasons.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if reasons.len() < REASONS_MAX {
                *reasons.entry((record.fate, record.reason)).or_default() += 1;
            }
        }
    }

    pub fn snapshot(&self) -> RouteSnapshot {
        let mut snapshot = RouteSnapshot { name: self.name.clone(), ..RouteSnapshot::default() };
        for (m, method) in METHODS.iter().enumerate() {
            for (c, class) in CLASSES.iter().enumerate() {
                let count: u64 = self.shards.iter().map(|shard| shard.requests[m][c].value()).sum();
                if count > 0 {
                    snapshot.requests.push((method, class, count));
                }
            }
        }
        for shard in &self.shards {
            shard.latency.merge_into(&mut snapshot.latency);
            snapshot.bytes_in += shard.bytes_in.value();
            snapshot.bytes_out += shard.bytes_out.value();
            for (key, count) in &*shard.reasons.lock().unwrap_or_else(std::sync::PoisonError::into_inner) {
                *snapshot.reasons.entry(*key).or_default() += count;
            }
        }
        snapshot
    }
}

#[derive(Debug, Default)]
struct UpstreamShard {
    latency: Histogram,
    reused: Counter,
    outcomes: Mutex<BTreeMap<&'static str, u64>>,
    answered: Counter,
    retries: Counter,
}

/// All workers' counts of an upstream. They are never reset.
#[derive(Debug)]
pub struct UpstreamMetrics {
    pub name: String,
    shards: Vec<UpstreamShard>,
}

/// An upstream's counts at one moment.
#[derive(Clone, Debug, Default)]
pub struct UpstreamSnapshot {
    pub name: String,
    /// Time to the head of the answer, of attempts that had one.
    pub latency: Merged,
    pub attempts: BTreeMap<&'static str, u64>,
    pub retries: u64,
    pub reused: u64,
}

impl UpstreamMetrics {
    pub(super) fn new(name: &str, workers: usize) -> Self {
        UpstreamMetrics { name: name.to_owned(), shards: (0..workers).map(|_| UpstreamShard::default()).collect() }
    }

    pub(super) fn record(&self, worker: usize, attempts: &[AttemptRecord]) {
        let Some(shard) = self.shards.get(worker) else { return };
        for attempt in attempts {
            if attempt.outcome == "answered" {
                shard.answered.add(1);
                shard.latency.record(attempt.duration);
            } else {
                let mut outcomes = shard.outcomes.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                *outcomes.entry(attempt.outcome).or_default() += 1;
            }
            shard.reused.add(u64::from(attempt.reused));
        }
        shard.retries.add(attempts.len().saturating_sub(1) as u64);
    }

    pub fn snapshot(&self) -> UpstreamSnapshot {
        let mut snapshot = UpstreamSnapshot { name: self.name.clone(), ..UpstreamSnapshot::default() };
        for shard in &self.shards {
            shard.latency.merge_into(&mut snapshot.latency);
            snapshot.reused += shard.reused.value();
            snapshot.retries += shard.retries.value();
            let answered = shard.answered.value();
            if answered > 0 {
                *snapshot.attempts.entry("answered").or_default() += answered;
            }
            for (outcome, count) in &*shard.outcomes.lock().unwrap_or_else(std::sync::PoisonError::into_inner) {
                *snapshot.attempts.entry(outcome).or_default() += count;
            }
        }
        snapshot
    }
}
