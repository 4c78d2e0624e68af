//! Where everything that tells of requests comes together: one [`Telemetry`] a process, one [`WorkerTelemetry`] a
//! worker.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use serde_json::Value;

use super::access_log::{self, BATCH_BYTES, LogOptions, LogSender, Target};
use super::metrics::{RouteMetrics, RouteSnapshot, UpstreamMetrics, UpstreamSnapshot};
use super::otlp::{SpanSender, TraceOptions};
use super::prometheus::{self, PrometheusWriter};
use super::record::RequestRecord;
use super::ring::Ring;

/// What the configuration says of telemetry.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    pub log: LogOptions,
    pub traces: TraceOptions,
}

/// Telemetry that cannot start.
#[derive(Debug)]
pub struct TelemetryError {
    /// The configuration path it belongs to.
    pub path: &'static str,
    pub words: String,
}

impl fmt::Display for TelemetryError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.path, self.words)
    }
}

type Source = Box<dyn Fn(&mut PrometheusWriter) + Send + Sync>;

/// The process's telemetry.
pub struct Telemetry {
    workers: usize,
    options: RwLock<Arc<Options>>,
    /// Grows with each change of the options; workers look at it to know that theirs are old.
    version: AtomicU64,
    log: LogSender,
    spans: Option<SpanSender>,
    routes: Mutex<BTreeMap<String, Arc<RouteMetrics>>>,
    upstreams: Mutex<BTreeMap<String, Arc<UpstreamMetrics>>>,
    rings: Vec<Ring>,
    sources: Mutex<Vec<Source>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Telemetry {
    /// Opens the log and starts the exporter, for `workers` workers.
    pub fn start(options: Options, workers: usize) -> Result<Arc<Telemetry>, TelemetryError> {
        let log = LogSender::start(options.log.target.clone()).map_err(|error| TelemetryError {
            path: "telemetry.access_log.to",
            words: format!("the log cannot be opened: {error}"),
        })?;
        let spans = match &options.traces.otlp {
            None => None,
            Some(base) => Some(
                SpanSender::start(base, &options.traces)
                    .map_err(|words| TelemetryError { path: "telemetry.traces.otlp", words })?,
            ),
        };
        Ok(Arc::new(Telemetry {
            workers,
            options: RwLock::new(Arc::new(options)),
            version: AtomicU64::new(0),
            log,
            spans,
            routes: Mutex::default(),
            upstreams: Mutex::default(),
            rings: (0..workers).map(|_| Ring::default()).collect(),
            sources: Mutex::default(),
        }))
    }

    /// The part of worker `index`, to be kept on its thread.
    pub fn worker(self: &Arc<Self>, index: usize) -> WorkerTelemetry {
        let options = self.options();
        let version = self.version.load(Ordering::Acquire);
        WorkerTelemetry { hub: self.clone(), index, local: RefCell::new(Local { version, options, lines: Vec::new() }) }
    }

    fn options(&self) -> Arc<Options> {
        self.options.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// New options from a reload; the OTLP address stays the one of the start.
    pub fn set_options(&self, options: Options) {
        let old = self.options();
        // A file is opened again even if its name is the same: that is how logs are rotated.
        if old.log.target != options.log.target || matches!(options.log.target, Target::File(_)) {
            self.log.retarget(options.log.target.clone());
        }
        let kept = TraceOptions { otlp: old.traces.otlp.clone(), ..options.traces };
        *self.options.write().unwrap_or_else(PoisonError::into_inner) =
            Arc::new(Options { log: options.log, traces: kept });
        self.version.fetch_add(1, Ordering::Release);
    }

    /// The counts of the route of this name, now and after every reload. The empty name is for requests without one.
    pub fn route_metrics(&self, route: &str) -> Arc<RouteMetrics> {
        let mut routes = lock(&self.routes);
        let fresh = || Arc::new(RouteMetrics::new(route, self.workers));
        routes.entry(route.to_owned()).or_insert_with(fresh).clone()
    }

    pub fn upstream_metrics(&self, upstream: &str) -> Arc<UpstreamMetrics> {
        let mut upstreams = lock(&self.upstreams);
        let fresh = || Arc::new(UpstreamMetrics::new(upstream, self.workers));
        upstreams.entry(upstream.to_owned()).or_insert_with(fresh).clone()
    }

    pub fn routes(&self) -> Vec<RouteSnapshot> {
        let routes: Vec<_> = lock(&self.routes).values().cloned().collect();
        routes.iter().map(|route| route.snapshot()).collect()
    }

    pub fn upstreams(&self) -> Vec<UpstreamSnapshot> {
        let upstreams: Vec<_> = lock(&self.upstreams).values().cloned().collect();
        upstreams.iter().map(|upstream| upstream.snapshot()).collect()
    }

    /// Adds families of others to what is scraped.
    pub fn register(&self, source: impl Fn(&mut PrometheusWriter) + Send + Sync + 'static) {
        lock(&self.sources).push(Box::new(source));
    }

    /// Everything, in the Prometheus text format 0.0.4.
    pub fn render_prometheus(&self) -> String {
        let mut out = PrometheusWriter::default();
        prometheus::routes(&mut out, &self.routes());
        prometheus::upstreams(&mut out, &self.upstreams());
        let name = "outrigger_access_log_dropped_total";
        out.single(name, "counter", "Access log lines lost to a slow or broken target.", self.log.dropped() as f64);
        let lost = self.spans.as_ref().map_or(0, SpanSender::dropped);
        out.single(
            "outrigger_otel_spans_dropped_total",
            "counter",
            "Spans lost to a slow or broken collector.",
            lost as f64,
        );
        let version = env!("CARGO_PKG_VERSION");
        out.family("outrigger_build_info", "gauge", "The version that runs.");
        out.sample("outrigger_build_info", &[("version", version)], 1.0);
        for source in &*lock(&self.sources) {
            source(&mut out);
        }
        prometheus::process(&mut out);
        out.into_text()
    }

    /// What became of the request with this id, if a ring still has it.
    pub fn find(&self, id: &str) -> Option<Value> {
        self.rings.iter().find_map(|ring| ring.find(id))
    }

    /// The newest requests of all workers, newest first.
    pub fn recent(&self, limit: usize) -> Vec<Value> {
        let mut all: Vec<_> = self.rings.iter().flat_map(|ring| ring.recent(limit)).collect();
        all.sort_by_key(|(started, _)| std::cmp::Reverse(*started));
        all.into_iter().take(limit).map(|(_, value)| value).collect()
    }

    /// Waits until the log is written and the spans are exported, at most `limit` for each.
    pub fn flush(&self, limit: Duration) {
        self.log.flush(limit);
        if let Some(spans) = &self.spans {
            spans.flush(limit);
        }
    }
}

/// One worker's side of it.
pub struct WorkerTelemetry {
    hub: Arc<Telemetry>,
    index: usize,
    local: RefCell<Local>,
}

struct Local {
    version: u64,
    options: Arc<Options>,
    lines: Vec<u8>,
}

impl WorkerTelemetry {
    /// Records a request that has ended.
    pub fn settle(&self, record: &RequestRecord<'_>, route: &RouteMetrics, upstream: Option<&UpstreamMetrics>) {
        route.record(self.index, record);
        if let Some(upstream) = upstream {
            upstream.record(self.index, record.attempts);
        }
        if let Some(ring) = self.hub.rings.get(self.index) {
            ring.keep(record);
        }
        let mut local = self.local.borrow_mut();
        self.log(&mut local, record);
        if let Some(spans) = &self.hub.spans
            && local.options.traces.keeps(record)
        {
            spans.offer(record);
        }
    }

    fn log(&self, local: &mut Local, record: &RequestRecord<'_>) {
        let options = &local.options.log;
        if options.target == Target::Off || (record.succeeded() && !sampled(record, options.sample_success)) {
            return;
        }
        let options = local.options.clone();
        access_log::append(&mut local.lines, record, &options.log);
        if local.lines.len() >= BATCH_BYTES {
            self.hand_over(local);
        }
    }

    fn hand_over(&self, local: &mut Local) {
        let lines = std::mem::replace(&mut local.lines, Vec::with_capacity(BATCH_BYTES / 4));
        self.hub.log.send(lines);
    }

    /// Hands the buffered lines over and takes new options up; about every 100 ms, and at the end.
    pub fn flush(&self) {
        let mut local = self.local.borrow_mut();
        if !local.lines.is_empty() {
            self.hand_over(&mut local);
        }
        let version = self.hub.version.load(Ordering::Acquire);
        if version != local.version {
            local.version = version;
            local.options = self.hub.options();
        }
    }
}

/// By the span id, which is as random as any.
fn sampled(record: &RequestRecord<'_>, share: f64) -> bool {
    share >= 1.0 || ((record.span >> 11) as f64 / (1u64 << 53) as f64) < share
}
