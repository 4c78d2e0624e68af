//! Spans, exported over OTLP/HTTP by the `opentelemetry` crates. A span is built once, when its request has ended and
//! only if it is to be kept, and goes through a bounded queue to one thread that batches and exports. The SDK's own
//! batch processor drops without telling; this queue counts.

use std::borrow::Cow;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_http::HttpError;
use opentelemetry_otlp::{WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanExporter, SpanLinks};

use super::record::{AttemptRecord, Fate, RequestRecord};

/// Spans that may wait for the exporter.
const QUEUE_MAX: usize = 4096;
const BATCH_MAX: usize = 512;
const BATCH_WAIT: Duration = Duration::from_secs(1);
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// Which spans are exported, and where to.
#[derive(Clone, Debug, PartialEq)]
pub struct TraceOptions {
    /// Base URL of a collector, `http://host:4318`; `None` exports nothing.
    pub otlp: Option<String>,
    pub keep_slow: Option<Duration>,
    pub keep_errors: bool,
    pub service: String,
    pub service_version: Option<String>,
    pub environment: Option<String>,
}

impl TraceOptions {
    /// Sampled by its trace, or kept because it failed or was slow.
    pub fn keeps(&self, record: &RequestRecord<'_>) -> bool {
        self.otlp.is_some()
            && (record.sampled
                || (self.keep_errors && !record.succeeded() && record.fate != Fate::ClientGone)
                || self.keep_slow.is_some_and(|slow| record.duration >= slow && record.fate != Fate::Upgraded))
    }
}

enum Message {
    Span(Box<SpanData>),
    Flush(SyncSender<()>),
}

/// The way to the exporting thread.
#[derive(Clone)]
pub struct SpanSender {
    sender: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
}

impl SpanSender {
    /// Starts the exporting thread; the words say why it cannot.
    pub fn start(base: &str, options: &TraceOptions) -> Result<SpanSender, String> {
        let endpoint = format!("{}/v1/traces", base.trim_end_matches('/'));
        let collector: http::Uri = endpoint.parse().map_err(|error| format!("{endpoint} is not a URL: {error}"))?;
        if collector.scheme_str() != Some("http") || collector.host().is_none() {
            return Err(format!("{endpoint}: only http:// collectors can be exported to; run one beside Outrigger"));
        }
        let mut exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_http()
            .with_http_client(Collector)
            .with_endpoint(&endpoint)
            .with_timeout(EXPORT_TIMEOUT)
            .build()
            .map_err(|error| format!("the OTLP exporter cannot be made: {error}"))?;
        exporter.set_resource(&resource(options));
        let (sender, receiver) = sync_channel(QUEUE_MAX);
        let dropped = Arc::new(AtomicU64::new(0));
        let lost = dropped.clone();
        std::thread::Builder::new()
            .name("otlp".to_owned())
            .stack_size(512 * 1024)
            .spawn(move || export_all(&receiver, &exporter, &lost))
            .map_err(|error| format!("no thread for the OTLP exporter: {error}"))?;
        Ok(SpanSender { sender, dropped })
    }

    /// Queues the request's spans, or drops and counts them.
    pub fn offer(&self, record: &RequestRecord<'_>) {
        for span in spans(record) {
            if self.sender.try_send(Message::Span(Box::new(span))).is_err() {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Waits until what was queued is exported, at most `limit`.
    pub fn flush(&self, limit: Duration) {
        let (done, wait) = sync_channel(1);
        if self.sender.try_send(Message::Flush(done)).is_ok() {
            let _ = wait.recv_timeout(limit);
        }
    }
}

fn resource(options: &TraceOptions) -> Resource {
    let mut attributes = vec![KeyValue::new("service.name", options.service.clone())];
    if let Some(version) = &options.service_version {
        attributes.push(KeyValue::new("service.version", version.clone()));
    }
    if let Some(environment) = &options.environment {
        attributes.push(KeyValue::new("deployment.environment.name", environment.clone()));
    }
    Resource::builder().with_attributes(attributes).build()
}

fn export_all(receiver: &Receiver<Message>, exporter: &opentelemetry_otlp::SpanExporter, lost: &AtomicU64) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
    let mut batch = Vec::new();
    let mut told = false;
    loop {
        let message = receiver.recv_timeout(BATCH_WAIT);
        let mut flushed = None;
        match message {
            Ok(Message::Span(span)) => batch.push(*span),
            Ok(Message::Flush(done)) => flushed = Some(done),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let due = batch.len() >= BATCH_MAX || message_is_due(&batch, flushed.is_some());
        if due && !batch.is_empty() {
            let count = batch.len() as u64;
            let result = runtime.block_on(exporter.export(std::mem::take(&mut batch)));
            if let Err(error) = result {
                lost.fetch_add(count, Ordering::Relaxed);
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!(%error, "spans cannot be exported; further failures are only counted");
                }
            } else {
                told = false;
            }
        }
        if let Some(done) = flushed {
            let _ = done.send(()); // nobody may be waiting any more
        }
    }
}

/// A batch goes when somebody waits for it, or when its first span has waited long enough.
fn message_is_due(batch: &[SpanData], flush: bool) -> bool {
    let waited = batch.first().and_then(|span| crate_now().duration_since(span.end_time).ok());
    flush || waited.is_some_and(|waited| waited >= BATCH_WAIT)
}

#[expect(clippy::disallowed_methods, reason = "the export thread is off every request's path and below `state`")]
fn crate_now() -> SystemTime {
    SystemTime::now()
}

/// The server span and one client span for each attempt.
fn spans(record: &RequestRecord<'_>) -> Vec<SpanData> {
    let Some(context) = record.trace else { return Vec::new() };
    let trace = TraceId::from_bytes(context.trace_id.to_be_bytes());
    let parent = SpanId::from_bytes(record.parent_span.to_be_bytes());
    let server = SpanId::from_bytes(record.span.to_be_bytes());
    let mut spans = Vec::with_capacity(1 + record.attempts.len());
    let name =
        if record.route.is_empty() { record.method.to_owned() } else { format!("{} {}", record.method, record.route) };
    spans.push(span(trace, server, parent, SpanKind::Server, name, record.started, record.duration));
    let server_span = &mut spans[0];
    server_span.parent_span_is_remote = true;
    server_span.attributes = vec![
        KeyValue::new("http.request.method", record.method.to_owned()),
        KeyValue::new("url.path", record.path.to_owned()),
        KeyValue::new("url.scheme", record.scheme),
        KeyValue::new("server.address", record.host.to_owned()),
        KeyValue::new("client.address", record.client.to_string()),
        KeyValue::new("http.response.status_code", i64::from(record.status)),
        KeyValue::new("http.route", record.route.to_owned()),
        KeyValue::new("outrigger.fate", record.fate.label()),
        KeyValue::new("outrigger.reason", record.reason),
        KeyValue::new("outrigger.request_id", record.request_id.to_owned()),
    ];
    if !record.succeeded() {
        server_span.status = Status::Error { description: Cow::Borrowed(record.reason) };
    }
    for (number, attempt) in record.attempts.iter().enumerate() {
        spans.push(attempt_span(record, attempt, number, trace, server));
    }
    spans
}

fn attempt_span(
    record: &RequestRecord<'_>,
    attempt: &AttemptRecord,
    number: usize,
    trace: TraceId,
    server: SpanId,
) -> SpanData {
    let id = SpanId::from_bytes(attempt.span.to_be_bytes());
    let started = record.started + attempt.started_after;
    let name = record.method.to_owned();
    let mut span = span(trace, id, server, SpanKind::Client, name, started, attempt.duration);
    span.attributes = vec![
        KeyValue::new("http.request.method", record.method.to_owned()),
        KeyValue::new("server.address", attempt.endpoint.to_string()),
        KeyValue::new("http.response.status_code", i64::from(attempt.status)),
        KeyValue::new("http.request.resend_count", number as i64),
        KeyValue::new("outrigger.outcome", attempt.outcome),
        KeyValue::new("outrigger.reused_connection", attempt.reused),
    ];
    if attempt.status == 0 || attempt.status >= 500 {
        span.status = Status::Error { description: Cow::Borrowed(attempt.outcome) };
    }
    span
}

fn span(
    trace: TraceId,
    id: SpanId,
    parent: SpanId,
    kind: SpanKind,
    name: String,
    started: SystemTime,
    took: Duration,
) -> SpanData {
    SpanData {
        span_context: SpanContext::new(trace, id, TraceFlags::SAMPLED, false, TraceState::default()),
        parent_span_id: parent,
        parent_span_is_remote: false,
        span_kind: kind,
        name: Cow::Owned(name),
        start_time: started,
        end_time: started + took,
        attributes: Vec::new(),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: Status::Unset,
        instrumentation_scope: InstrumentationScope::builder("outrigger").build(),
    }
}

/// Posts what the exporter has encoded; a connection per batch is enough for one batch a second.
#[derive(Debug)]
struct Collector;

type Posted<'a> = Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'a>>;

impl opentelemetry_http::HttpClient for Collector {
    fn send_bytes<'life0, 'async_trait>(&'life0 self, request: Request<Bytes>) -> Posted<'async_trait>
    where
        'life0: 'async_trait,
        Self: 'async_trait,
    {
        Box::pin(async move {
            match tokio::time::timeout(EXPORT_TIMEOUT, post(request)).await {
                Ok(answer) => answer,
                Err(_) => Err("the collector did not answer in time".into()),
            }
        })
    }
}

async fn post(request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
    let uri = request.uri().clone();
    let host = uri.host().ok_or("the collector's URL has no host")?;
    let stream = tokio::net::TcpStream::connect((host.trim_matches(['[', ']']), uri.port_u16().unwrap_or(80))).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let (mut parts, body) = request.into_parts();
    if let Some(authority) = uri.authority() {
        parts.headers.insert(http::header::HOST, authority.as_str().parse()?);
    }
    parts.uri = uri.path_and_query().map_or("/", |target| target.as_str()).parse()?;
    let exchange = async move {
        let response = sender.send_request(Request::from_parts(parts, Full::new(body))).await?;
        let (parts, body) = response.into_parts();
        Ok::<_, HttpError>(Response::from_parts(parts, body.collect().await?.to_bytes()))
    };
    let (answer, _) = tokio::join!(exchange, connection);
    answer
}
