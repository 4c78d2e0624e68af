//! What happened, told: metrics, access log, spans, and the last requests for `why`.
//!
//! Each worker owns a [`WorkerTelemetry`] and calls [`WorkerTelemetry::settle`] once per request, at its end. That call
//! adds to counters nobody else writes, copies an entry into a ring and appends a line to a buffer: no system call, no
//! clock, no allocation once things are warm, and no lock but one that is only ever tried. Everything slow (pipes,
//! disks, collectors) happens on threads of its own behind bounded channels; what does not fit is dropped and counted.
//!
//! It decides nothing about requests, draws no trace ids and reads no clock. Reading order: [`record`] is what goes in;
//! `metrics` and `shard` count it, `snapshot` and `exposition` add it up; `access_log`, `spans` and `ring` write it.

mod access_log;
mod collector;
mod exporter;
mod exposition;
mod log_writer;
mod metrics;
mod options;
mod process;
mod prometheus;
mod record;
mod ring;
mod shard;
mod snapshot;
mod spans;
mod text;
mod waiter;
mod why;
mod words;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;

pub use exporter::try_collector;
pub use metrics::{RouteMetrics, UpstreamMetrics};
pub use options::{Format, LogOptions, Options, Target, TelemetryError, TraceOptions};
pub use prometheus::PrometheusWriter;
pub use record::{ABANDONED, AttemptRecord, Fate, PHASES, RequestRecord};
pub use snapshot::{Merged, Quantiles, RouteSnapshot, UpstreamSnapshot};

use access_log::Lines;
use exporter::Exporter;
use log_writer::LogWriter;
use metrics::{Registry, lock};
use ring::{Ring, RingWriter};
use spans::Spans;
use waiter::Waiter;

/// Somebody else's metrics, written at each scrape.
type Source = Box<dyn Fn(&mut PrometheusWriter) + Send + Sync>;

/// The process's telemetry.
pub struct Telemetry {
    options: Arc<ArcSwap<Options>>,
    registry: Registry,
    rings: Box<[Arc<Mutex<Ring>>]>,
    log: LogWriter,
    exporter: Option<Exporter>,
    sources: Mutex<Vec<Source>>,
}

impl Telemetry {
    /// For so many workers. Opens the log's target and checks the collector's address; connects to nothing yet.
    pub fn start(options: Options, workers: usize) -> Result<Arc<Telemetry>, TelemetryError> {
        let workers = workers.max(1);
        let log = LogWriter::start(&options.log.target)?;
        let exporter = match options.traces.otlp.as_deref() {
            Some(base) if !base.is_empty() => Some(Exporter::start(base, &options.traces)?),
            Some(_) | None => None,
        };
        Ok(Arc::new(Telemetry {
            options: Arc::new(ArcSwap::from_pointee(options)),
            registry: Registry::new(workers),
            rings: (0..workers).map(|_| Arc::default()).collect(),
            log,
            exporter,
            sources: Mutex::default(),
        }))
    }

    /// The part of worker `index`, from 0. Each worker takes its own once: two owners of one index would lose counts.
    pub fn worker(self: &Arc<Self>, index: usize) -> WorkerTelemetry {
        let index = index % self.rings.len();
        let ring = RingWriter::new(self.rings[index].clone(), (RINGS_BYTES / self.rings.len()).max(RING_BYTES_MIN));
        let state = WorkerState {
            options: arc_swap::Cache::new(self.options.clone()),
            lines: Lines::new(),
            spans: Spans::new(),
            ring,
        };
        WorkerTelemetry { shared: self.clone(), index, state: RefCell::new(state) }
    }

    /// The counters of a route, adopted by name; the empty name is for requests that no route took.
    pub fn route_metrics(&self, route: &str) -> Arc<RouteMetrics> {
        self.registry.route(route)
    }

    /// The counters of an upstream, adopted by name.
    pub fn upstream_metrics(&self, upstream: &str) -> Arc<UpstreamMetrics> {
        self.registry.upstream(upstream)
    }

    /// Adds families of others to what is scraped.
    pub fn register(&self, source: impl Fn(&mut PrometheusWriter) + Send + Sync + 'static) {
        lock(&self.sources).push(Box::new(source));
    }

    /// Everything, in the Prometheus text format 0.0.4.
    pub fn render_prometheus(&self) -> String {
        let mut writer = PrometheusWriter::default();
        let options = self.options.load();
        let outside = exposition::Outside {
            service: &options.traces,
            access_log_dropped: self.access_log_dropped(),
            spans_dropped: self.spans_dropped(),
        };
        exposition::write(&mut writer, &self.registry, &outside);
        for source in lock(&self.sources).iter() {
            source(&mut writer);
        }
        writer.into_text()
    }

    /// The counts of every route, by name; the empty name is for requests that no route took.
    pub fn routes(&self) -> Vec<RouteSnapshot> {
        self.registry.routes().iter().map(|route| route.snapshot()).collect()
    }

    /// The counts of every upstream, by name.
    pub fn upstreams(&self) -> Vec<UpstreamSnapshot> {
        self.registry.upstreams().iter().map(|upstream| upstream.snapshot()).collect()
    }

    /// How long the phases of requests took, over all routes.
    pub fn phases(&self) -> BTreeMap<&'static str, Quantiles> {
        snapshot::phases(&self.registry.workers)
    }

    /// What became of a request, by its id or its trace id; the newest if there are several.
    pub fn find(&self, id: &str) -> Option<serde_json::Value> {
        let trace_id = why::trace_id(id);
        let found = self.rings.iter().filter_map(|ring| {
            // Copied, so that the worker finds its ring free again soon.
            let ring = lock(ring);
            let entry = ring.iter().find(|entry| why::matches(entry, id, trace_id))?;
            Some((why::decode(entry)?.ended(), entry.to_vec()))
        });
        let (_, entry) = found.max_by_key(|(ended, _)| *ended)?;
        why::decode(&entry).map(|request| request.tell())
    }

    /// The last requests that ended, newest first.
    pub fn recent(&self, limit: usize) -> Vec<serde_json::Value> {
        let mut all: Vec<(Duration, Vec<u8>)> = Vec::new();
        for ring in &self.rings {
            let ring = lock(ring);
            let newest =
                ring.iter().take(limit).filter_map(|entry| Some((why::decode(entry)?.ended(), entry.to_vec())));
            all.extend(newest);
        }
        all.sort_by_key(|(ended, _)| std::cmp::Reverse(*ended));
        let newest = all.iter().take(limit);
        newest.filter_map(|(_, entry)| why::decode(entry).map(|request| request.tell())).collect()
    }

    /// How many of the last requests can be [found](Self::find), and when the oldest of them began, since 1970.
    pub fn remembered(&self) -> (usize, Option<Duration>) {
        let of = |ring: &Mutex<Ring>| {
            let ring = lock(ring);
            let oldest = ring.iter().last().and_then(|entry| Some(why::decode(entry)?.started));
            (ring.iter().count(), oldest)
        };
        let all: Vec<_> = self.rings.iter().map(|ring| of(ring)).collect();
        (all.iter().map(|(count, _)| count).sum(), all.iter().filter_map(|(_, oldest)| *oldest).min())
    }

    /// Writes out what workers have handed over; returns after `deadline` at the latest. Workers flush before. It blocks
    /// the thread that calls it.
    pub fn flush(&self, deadline: Duration) {
        let waiter = Arc::new(Waiter::default());
        self.log.flush(waiter.promise());
        if let Some(exporter) = &self.exporter {
            exporter.flush(waiter.promise());
        }
        if !waiter.wait(deadline) {
            tracing::warn!("telemetry was not written out in time");
        }
    }

    /// New options: sampling, redaction, format and target at once, a log file opened again even if it is the same.
    /// The collector, and who the spans say they are of, stay. A target that cannot be opened changes nothing.
    pub fn set_options(&self, options: Options) -> Result<(), TelemetryError> {
        self.log.retarget(&options.log.target)?;
        self.options.store(Arc::new(options));
        Ok(())
    }

    /// Opens a log file anew: it may have been rotated.
    pub fn reopen_log(&self) -> Result<(), TelemetryError> {
        self.log.retarget(&self.options.load().log.target)
    }

    /// Log lines dropped so far.
    pub fn access_log_dropped(&self) -> u64 {
        self.registry.total(|shard| &shard.log_dropped) + self.log.lost()
    }

    /// Spans dropped so far.
    pub fn spans_dropped(&self) -> u64 {
        self.registry.total(|shard| &shard.spans_dropped) + self.exporter.as_ref().map_or(0, Exporter::lost)
    }
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Telemetry").field("workers", &self.rings.len()).finish_non_exhaustive()
    }
}

/// One worker's part; it may be made anywhere and then stays on the worker's thread.
pub struct WorkerTelemetry {
    shared: Arc<Telemetry>,
    index: usize,
    state: RefCell<WorkerState>,
}

struct WorkerState {
    options: arc_swap::Cache<Arc<ArcSwap<Options>>, Arc<Options>>,
    lines: Lines,
    spans: Spans,
    ring: RingWriter,
}

impl WorkerTelemetry {
    /// A request has ended: counts it, remembers it, logs it, traces it.
    pub fn settle(&self, record: &RequestRecord<'_>, route: &RouteMetrics, upstream: Option<&UpstreamMetrics>) {
        let shard = &self.shared.registry.workers[self.index];
        if record.probe {
            shard.probes.add(1);
        } else {
            shard.settle(record);
            route.settle(self.index, record);
            if let Some(upstream) = upstream {
                upstream.settle(self.index, record.attempts);
            }
        }
        let mut state = self.state.borrow_mut();
        let WorkerState { options, lines, spans, ring } = &mut *state;
        let options = options.load();
        ring.push(|out| why::encode(out, record));
        if lines.write(record, &options.log) {
            shard.log_dropped.add(lines.hand_over(&self.shared.log));
        }
        if let Some(exporter) = &self.shared.exporter
            && spans.write(record, &options.traces, &options.log.redact_query)
        {
            shard.spans_dropped.add(spans.hand_over(exporter));
        }
    }

    /// Hands on what is buffered. The worker calls it about every 100 ms and at its end.
    pub fn flush(&self) {
        let shard = &self.shared.registry.workers[self.index];
        let mut state = self.state.borrow_mut();
        state.ring.settle();
        shard.log_dropped.add(state.lines.hand_over(&self.shared.log));
        if let Some(exporter) = &self.shared.exporter {
            shard.spans_dropped.add(state.spans.hand_over(exporter));
        }
    }
}

impl Drop for WorkerTelemetry {
    fn drop(&mut self) {
        self.flush();
    }
}

/// Memory for the last requests, all workers together; some 250 bytes are one request.
const RINGS_BYTES: usize = 2 * 1024 * 1024;
const RING_BYTES_MIN: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::record::tests::record;
    use super::*;

    const TIME: Duration = Duration::from_secs(20);

    fn logging_to(path: &Path) -> Options {
        let log = LogOptions { target: Target::File(path.to_owned()), ..LogOptions::default() };
        Options { log, ..Options::default() }
    }

    fn settle(worker: &WorkerTelemetry, record: &RequestRecord<'_>) {
        let route = worker.shared.route_metrics(record.route);
        worker.settle(record, &route, None);
    }

    #[test]
    fn a_request_is_counted_logged_and_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let telemetry = Telemetry::start(logging_to(&path), 2).unwrap();
        let workers = [telemetry.worker(0), telemetry.worker(1)];
        settle(&workers[0], &record());
        settle(&workers[1], &RequestRecord { request_id: "req-2", ..record() });
        for worker in &workers {
            worker.flush();
        }
        telemetry.flush(TIME);
        let log = std::fs::read_to_string(&path).unwrap();
        assert_eq!(log.lines().count(), 2);
        assert!(log.contains("\"request_id\":\"req-2\""));
        let text = telemetry.render_prometheus();
        assert!(text.contains("http_requests_total{route=\"api\",method=\"GET\",status=\"200\"} 2\n"), "{text}");
        assert_eq!(telemetry.find("req-2").unwrap()["request_id"], "req-2");
        assert_eq!(telemetry.find("nobody"), None);
        assert_eq!(telemetry.routes()[0].latency.count(), 2);
    }

    #[test]
    fn recent_requests_of_all_workers_come_newest_first() {
        let telemetry = Telemetry::start(Options::default(), 2).unwrap();
        let workers = [telemetry.worker(0), telemetry.worker(1)];
        for number in 0..10u32 {
            let started = record().started + Duration::from_secs(u64::from(number));
            let id = format!("req-{number}");
            settle(&workers[number as usize % 2], &RequestRecord { request_id: &id, started, ..record() });
        }
        let ids: Vec<_> = telemetry.recent(3).iter().map(|told| told["request_id"].clone()).collect();
        assert_eq!(ids, ["req-9", "req-8", "req-7"]);
        let first = record().started.duration_since(std::time::UNIX_EPOCH).unwrap();
        assert_eq!(telemetry.remembered(), (10, Some(first)));
        assert_eq!(Telemetry::start(Options::default(), 2).unwrap().remembered(), (0, None));
        let trace = "00000000000000000000000000000abc";
        assert_eq!(telemetry.find(trace).unwrap()["request_id"], "req-9");
    }

    #[test]
    fn a_probe_is_in_no_indicator() {
        let telemetry = Telemetry::start(Options::default(), 1).unwrap();
        settle(&telemetry.worker(0), &RequestRecord { probe: true, ..record() });
        let text = telemetry.render_prometheus();
        assert!(text.contains("outrigger_probes_total 1\n") && !text.contains("http_requests_total{"), "{text}");
    }

    #[test]
    fn new_options_hold_from_the_next_request_on() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = (folder.path().join("old"), folder.path().join("new"));
        let telemetry = Telemetry::start(logging_to(&old), 1).unwrap();
        let worker = telemetry.worker(0);
        settle(&worker, &record());
        worker.flush();
        let mut options = logging_to(&new);
        options.log.format = Format::Common;
        telemetry.set_options(options.clone()).unwrap();
        settle(&worker, &record());
        worker.flush();
        // A target that cannot be opened changes nothing.
        let mut bad = options.clone();
        bad.log.target = Target::File(folder.path().join("no").join("such"));
        bad.log.sample_success = 1.0;
        assert!(telemetry.set_options(bad).is_err());
        options.log.sample_success = 0.0;
        telemetry.set_options(options).unwrap();
        settle(&worker, &record());
        settle(&worker, &RequestRecord { status: 404, ..record() });
        drop(worker);
        telemetry.flush(TIME);
        assert!(std::fs::read_to_string(&old).unwrap().starts_with('{'));
        let lines = std::fs::read_to_string(&new).unwrap();
        assert_eq!(lines.lines().map(|line| line.rsplit(' ').nth(1).unwrap()).collect::<Vec<_>>(), ["200", "404"]);
    }

    #[test]
    fn others_add_their_metrics() {
        let telemetry = Telemetry::start(Options::default(), 1).unwrap();
        telemetry.register(|writer| writer.single("outrigger_config_stale", "gauge", "The file was refused.", 1.0));
        assert!(telemetry.render_prometheus().ends_with("\noutrigger_config_stale 1\n"));
    }

    #[test]
    fn a_worker_takes_its_telemetry_to_its_thread() {
        fn is_send<T: Send>(_: &T) {}
        fn is_shared<T: Send + Sync>(_: &T) {}
        let telemetry = Telemetry::start(Options::default(), 1).unwrap();
        is_shared(&telemetry);
        is_send(&telemetry.worker(0));
        // An index beyond the workers is a mistake of the caller's, but not a panic.
        settle(&telemetry.worker(7), &record());
        let other = Telemetry::start(Options::default(), 4).unwrap();
        other.worker(3).settle(&record(), &telemetry.route_metrics("api"), None);
    }
}
