//! What is counted, per route, per upstream and for the whole process. Every label set is bounded by construction:
//! routes and upstreams come from the configuration, methods and statuses from lists, reasons, outcomes and phases
//! from the code. A plan holds `Arc`s to these, resolved when it is compiled; they are adopted by name and never reset.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::record::{AttemptRecord, Fate, PHASES, RequestRecord};
use super::shard::{Buckets, Cells, Counter, Labelled};

/// The counters of one route; one shard per worker.
#[derive(Debug)]
pub struct RouteMetrics {
    pub(super) name: String,
    pub(super) shards: Box<[RouteShard]>,
}

/// Aligned so that two workers never write to one cache line (two lines: the prefetcher fetches pairs).
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct RouteShard {
    pub methods: [OnceLock<Box<MethodShard>>; METHODS.len()],
    pub fates: [Counter; Fate::ALL.len()],
    pub latency: Cells,
    pub bytes_in: Counter,
    pub bytes_out: Counter,
    pub reasons: OnceLock<Box<Labelled<Counter, REASONS_MAX, (Fate, &'static str)>>>,
}

#[derive(Debug)]
pub(super) struct MethodShard {
    /// Those of `STATUSES`, then the others by class.
    pub statuses: [Counter; STATUSES.len() + CLASSES.len()],
    pub classes: [OnceLock<Box<Buckets>>; CLASSES.len()],
}

impl Default for MethodShard {
    fn default() -> Self {
        MethodShard {
            statuses: std::array::from_fn(|_| Counter::default()),
            classes: std::array::from_fn(|_| OnceLock::new()),
        }
    }
}

impl RouteMetrics {
    fn new(name: &str, workers: usize) -> Self {
        RouteMetrics { name: name.to_owned(), shards: shards(workers) }
    }

    /// The route's name; empty for requests that no route took.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn settle(&self, worker: usize, record: &RequestRecord<'_>) {
        // Only a handle of another process-wide `Telemetry` could have fewer shards.
        let Some(shard) = self.shards.get(worker) else { return };
        let method = shard.methods[method_place(record.method)].get_or_init(Box::default);
        method.statuses[status_place(record.status)].add(1);
        // How long a tunnel was open says nothing of how fast the app is.
        if record.fate != Fate::Upgraded {
            method.classes[class_place(record.status)].get_or_init(Box::default).record(record.duration);
            shard.latency.record(record.duration);
        }
        shard.fates[record.fate as usize].add(1);
        if !record.reason.is_empty() {
            shard.reasons.get_or_init(Box::default).of((record.fate, record.reason)).add(1);
        }
        shard.bytes_in.add(record.bytes_in);
        shard.bytes_out.add(record.bytes_out);
    }
}

/// The counters of one upstream; one shard per worker.
#[derive(Debug)]
pub struct UpstreamMetrics {
    pub(super) name: String,
    pub(super) shards: Box<[UpstreamShard]>,
}

#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct UpstreamShard {
    pub outcomes: Labelled<Counter, OUTCOMES_MAX>,
    pub retries: Counter,
    pub reused: Counter,
    pub buckets: Buckets,
    pub latency: Cells,
}

impl UpstreamMetrics {
    fn new(name: &str, workers: usize) -> Self {
        UpstreamMetrics { name: name.to_owned(), shards: shards(workers) }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn settle(&self, worker: usize, attempts: &[AttemptRecord]) {
        let Some(shard) = self.shards.get(worker) else { return };
        for attempt in attempts {
            shard.outcomes.of(attempt.outcome).add(1);
            shard.reused.add(u64::from(attempt.reused));
            if attempt.status != 0 {
                shard.buckets.record(attempt.duration);
                shard.latency.record(attempt.duration);
            }
        }
        shard.retries.add(attempts.len().saturating_sub(1) as u64);
    }
}

/// What is counted for the process as a whole, on one worker.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct WorkerShard {
    pub probes: Counter,
    /// One for each of the [`PHASES`].
    pub phases: [Cells; PHASES.len()],
    pub log_dropped: Counter,
    pub spans_dropped: Counter,
}

impl WorkerShard {
    pub fn settle(&self, record: &RequestRecord<'_>) {
        for (cells, duration) in self.phases.iter().zip(record.phases()) {
            cells.record(duration);
        }
    }
}

/// Entries by name.
#[derive(Debug)]
struct Named<T> {
    by_name: BTreeMap<String, Arc<T>>,
    /// So many entries before those that no plan holds are looked for: adopting many costs as many steps.
    sweep_at: usize,
}

impl<T> Default for Named<T> {
    fn default() -> Self {
        Named { by_name: BTreeMap::new(), sweep_at: NAMES_MAX }
    }
}

/// All metrics by name, and the shards of the process.
#[derive(Debug)]
pub(super) struct Registry {
    pub workers: Box<[WorkerShard]>,
    routes: Mutex<Named<RouteMetrics>>,
    upstreams: Mutex<Named<UpstreamMetrics>>,
}

impl Registry {
    pub fn new(workers: usize) -> Self {
        Registry { workers: shards(workers), routes: Mutex::default(), upstreams: Mutex::default() }
    }

    pub fn route(&self, name: &str) -> Arc<RouteMetrics> {
        // Two series of one name would spoil the whole exposition.
        let name = if name == NO_ROUTE { "" } else { name };
        adopt(&self.routes, name, |name| RouteMetrics::new(name, self.workers.len()))
    }

    pub fn upstream(&self, name: &str) -> Arc<UpstreamMetrics> {
        adopt(&self.upstreams, name, |name| UpstreamMetrics::new(name, self.workers.len()))
    }

    /// By name.
    pub fn routes(&self) -> Vec<Arc<RouteMetrics>> {
        all(&self.routes)
    }

    /// By name.
    pub fn upstreams(&self) -> Vec<Arc<UpstreamMetrics>> {
        all(&self.upstreams)
    }

    /// The sum of one counter over the workers.
    pub fn total(&self, counter: impl Fn(&WorkerShard) -> &Counter) -> u64 {
        self.workers.iter().map(|shard| counter(shard).value()).sum()
    }
}

/// All entries, without those that no plan holds any more where these are more than the limit: a reload may leave
/// thousands behind and never need a new one.
fn all<T>(named: &Mutex<Named<T>>) -> Vec<Arc<T>> {
    let mut named = lock(named);
    let held = |entry: &Arc<T>| Arc::strong_count(entry) > 1;
    if named.by_name.values().filter(|entry| !held(entry)).count() > NAMES_MAX {
        named.by_name.retain(|_, entry| held(entry));
    }
    named.by_name.values().cloned().collect()
}

/// The living entry of this name, or a fresh one. Names come from the configuration, but a process may be given any
/// number of configurations: beyond the limit, or twice what plans hold, those that no plan holds any more make room.
fn adopt<T>(named: &Mutex<Named<T>>, name: &str, make: impl Fn(&str) -> T) -> Arc<T> {
    let mut named = lock(named);
    if let Some(living) = named.by_name.get(name) {
        return living.clone();
    }
    if named.by_name.len() >= named.sweep_at {
        named.by_name.retain(|_, entry| Arc::strong_count(entry) > 1);
        named.sweep_at = NAMES_MAX.max(named.by_name.len() * 2);
    }
    let fresh = Arc::new(make(name));
    named.by_name.insert(name.to_owned(), fresh.clone());
    fresh
}

/// Nothing here leaves a half-made value behind when it panics, so a poisoned lock is as good as any.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn shards<T: Default>(workers: usize) -> Box<[T]> {
    (0..workers).map(|_| T::default()).collect()
}

/// The place of a method; what is not in the list is `_OTHER`, as OpenTelemetry asks for.
fn method_place(method: &str) -> usize {
    METHODS.iter().position(|known| *known == method).unwrap_or(METHODS.len() - 1)
}

/// The place of a status; what is not in the list is counted with its class.
fn status_place(status: u16) -> usize {
    // The commonest first: it is most requests.
    if status == 200 {
        return STATUS_OK;
    }
    STATUSES.binary_search(&status).unwrap_or_else(|_| STATUSES.len() + class_place(status))
}

/// The place of a status' class.
fn class_place(status: u16) -> usize {
    match status / 100 {
        class @ 1..=5 => usize::from(class),
        _ => 0,
    }
}

/// How requests that no route took are labelled; an empty label value would be no label.
pub(super) const NO_ROUTE: &str = "(none)";
pub(super) const METHODS: [&str; 10] =
    ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "CONNECT", "_OTHER"];
/// `none` is a request that got no answer.
pub(super) const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];
/// The statuses that are counted one by one, in order: the IANA registry and the unregistered ones that CDNs and load
/// balancers use.
pub(super) const STATUSES: [u16; 75] = [
    100, 101, 102, 103, 104, 200, 201, 202, 203, 204, 205, 206, 207, 208, 226, 300, 301, 302, 303, 304, 305, 307, 308,
    400, 401, 402, 403, 404, 405, 406, 407, 408, 409, 410, 411, 412, 413, 414, 415, 416, 417, 418, 421, 422, 423, 424,
    425, 426, 428, 429, 431, 444, 451, 460, 463, 499, 500, 501, 502, 503, 504, 505, 506, 507, 508, 509, 510, 511, 520,
    521, 522, 523, 524, 525, 530,
];
const STATUS_OK: usize = 5;
/// Different outcomes of an attempt.
const OUTCOMES_MAX: usize = 32;
/// Different reasons, with their fates, that one route counts; the proxy has some forty.
const REASONS_MAX: usize = 96;
/// Routes, and upstreams, that are remembered although no plan names them.
const NAMES_MAX: usize = 2048;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::record::tests::record;
    use super::*;

    #[test]
    fn the_same_name_gives_the_same_counters() {
        // Goal: a reload does not reset anything.
        let registry = Registry::new(2);
        let before = registry.route("api");
        before.settle(1, &record());
        assert!(Arc::ptr_eq(&before, &registry.route("api")));
        assert_eq!(registry.route("api").shards[1].fates[Fate::Ok as usize].value(), 1);
    }

    #[test]
    fn names_that_no_plan_holds_make_room() {
        let registry = Registry::new(1);
        let held = registry.upstream("held");
        for number in 0..2 * NAMES_MAX {
            registry.upstream(&number.to_string());
        }
        assert!(registry.upstreams().len() <= NAMES_MAX);
        assert!(Arc::ptr_eq(&held, &registry.upstream("held")));
    }

    #[test]
    fn what_a_reload_leaves_behind_is_gone_when_it_is_next_looked_at() {
        let registry = Registry::new(1);
        let adopt = |count: usize| (0..count).map(|number| registry.upstream(&number.to_string())).collect::<Vec<_>>();
        let plan = adopt(3 * NAMES_MAX);
        let kept = plan[..5].to_vec();
        drop(plan);
        assert_eq!(registry.upstreams().len(), kept.len());
        // As many as the limit are still told: what was counted just before a reload is not lost at once.
        drop(adopt(NAMES_MAX));
        assert_eq!(registry.upstreams().len(), NAMES_MAX);
    }

    #[test]
    fn statuses_and_methods_have_a_place_each() {
        assert!(STATUSES.is_sorted());
        assert_eq!(STATUSES[STATUS_OK], 200);
        for (place, status) in STATUSES.iter().enumerate() {
            assert_eq!(status_place(*status), place);
        }
        assert_eq!(status_place(299), STATUSES.len() + 2);
        assert_eq!(status_place(0), STATUSES.len());
        assert_eq!(class_place(0), 0);
        for (status, class) in [(99, "none"), (100, "1xx"), (200, "2xx"), (599, "5xx"), (600, "none")] {
            assert_eq!(CLASSES[class_place(status)], class);
        }
        assert_eq!(METHODS[method_place("GET")], "GET");
        assert_eq!(METHODS[method_place("BREW")], "_OTHER");
    }

    #[test]
    fn a_tunnel_is_counted_and_not_timed() {
        let registry = Registry::new(1);
        let route = registry.route("api");
        route.settle(0, &RequestRecord { fate: Fate::Upgraded, status: 101, ..record() });
        assert_eq!(route.shards[0].fates[Fate::Upgraded as usize].value(), 1);
        assert_eq!(route.shards[0].latency.counts().count(), 0);
    }

    #[test]
    fn only_attempts_that_were_answered_are_timed() {
        let attempt = |status, outcome| AttemptRecord {
            endpoint: Arc::from("127.0.0.1:3000"),
            started_after: Duration::ZERO,
            duration: Duration::from_millis(3),
            status,
            outcome,
            reused: true,
            span: 0,
        };
        let registry = Registry::new(1);
        let upstream = registry.upstream("app");
        upstream.settle(0, &[attempt(0, "reset"), attempt(500, "answered")]);
        let shard = &upstream.shards[0];
        assert_eq!((shard.retries.value(), shard.reused.value()), (1, 2));
        assert_eq!(shard.latency.counts().map(|(_, count)| count).sum::<u64>(), 1);
    }
}
