//! Spans, made once when a request has ended and only if somebody will see them: sampled by the trace's own decision,
//! or kept because the request failed or was slow. A server span, and a client span for each attempt. There is no
//! context, no tracer and no thread-local on the way of a request; an unsampled one costs a comparison.

use std::time::{Duration, SystemTime};

use opentelemetry::trace::{Event, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use super::access_log::host_and_port;
use super::exporter::Exporter;
use super::options::TraceOptions;
use super::record::{self, AttemptRecord, Fate, PHASES, RequestRecord};
use crate::core::redact;

/// One worker's spans that have not been handed over.
pub struct Spans {
    waiting: Vec<SpanData>,
    scope: InstrumentationScope,
}

impl Spans {
    pub fn new() -> Self {
        let scope = InstrumentationScope::builder("outrigger").with_version(env!("CARGO_PKG_VERSION")).build();
        Spans { waiting: Vec::new(), scope }
    }

    /// Makes the spans of a request, if they are wanted; true if it is time to hand them over.
    pub fn write(&mut self, record: &RequestRecord<'_>, options: &TraceOptions, redacted: &[String]) -> bool {
        let Some(trace) = record.trace.filter(|_| wanted(record, options)) else { return false };
        let trace_id = TraceId::from(trace.trace_id);
        self.waiting.push(server(record, trace_id, redacted, &self.scope));
        for (place, attempt) in record.attempts.iter().enumerate().filter(|(_, attempt)| attempt.span != 0) {
            self.waiting.push(client(record, attempt, place, trace_id, &self.scope));
        }
        self.waiting.len() >= BATCH_SPANS
    }

    /// Hands the spans over; the number that had to be dropped.
    pub fn hand_over(&mut self, exporter: &Exporter) -> u64 {
        if self.waiting.is_empty() {
            return 0;
        }
        exporter.hand_over(std::mem::take(&mut self.waiting))
    }
}

fn wanted(record: &RequestRecord<'_>, options: &TraceOptions) -> bool {
    record.span != 0
        && (record.sampled
            || (options.keep_errors && record.failed())
            || options.keep_slow.is_some_and(|slow| record.duration >= slow && record.fate != Fate::Upgraded))
}

fn server(record: &RequestRecord<'_>, trace: TraceId, redacted: &[String], scope: &InstrumentationScope) -> SpanData {
    let name = match record.route {
        "" => record.method.to_owned(),
        route => format!("{} {route}", record.method),
    };
    let mut span = span(trace, record.span, record.started, record.duration, scope);
    span.name = name.into();
    span.span_kind = SpanKind::Server;
    span.parent_span_id = SpanId::from(record.parent_span);
    span.parent_span_is_remote = record.parent_span != 0;
    span.attributes = server_attributes(record, redacted);
    span.events = phases(record);
    if record.failed() {
        span.status = Status::error(record.reason);
    }
    span
}

fn server_attributes(record: &RequestRecord<'_>, redacted: &[String]) -> Vec<KeyValue> {
    let (host, port) = host_and_port(record.host);
    let mut all = Vec::with_capacity(20);
    all.push(KeyValue::new("http.request.method", record.method.to_owned()));
    all.push(KeyValue::new("url.scheme", record.scheme));
    all.push(KeyValue::new("url.path", record.path.to_owned()));
    if let Some(query) = record.query {
        all.push(KeyValue::new("url.query", redact::query(query, redacted).into_owned()));
    }
    all.push(KeyValue::new("server.address", host.to_owned()));
    all.extend(port.map(|port| KeyValue::new("server.port", i64::from(port))));
    all.push(KeyValue::new("client.address", record.client.to_string()));
    all.push(KeyValue::new("network.protocol.version", record::protocol(record.version)));
    all.extend(record.user_agent.map(|agent| KeyValue::new("user_agent.original", agent.to_owned())));
    if !record.route.is_empty() {
        all.push(KeyValue::new("http.route", record.route.to_owned()));
    }
    if record.status != 0 {
        all.push(KeyValue::new("http.response.status_code", i64::from(record.status)));
    }
    all.push(KeyValue::new("http.request.body.size", signed(record.bytes_in)));
    all.push(KeyValue::new("http.response.body.size", signed(record.bytes_out)));
    if record.failed() {
        all.push(KeyValue::new("error.type", error_type(record.reason, record.status)));
    }
    all.push(KeyValue::new("outrigger.request_id", record.request_id.to_owned()));
    all.push(KeyValue::new("outrigger.listener", record.listener.to_owned()));
    all.extend(record.upstream.map(|upstream| KeyValue::new("outrigger.upstream", upstream.to_owned())));
    all.push(KeyValue::new("outrigger.fate", record.fate.label()));
    if !record.reason.is_empty() {
        all.push(KeyValue::new("outrigger.reason", record.reason));
    }
    all.push(KeyValue::new("outrigger.attempts", signed(record.attempts.len() as u64)));
    all
}

/// The phases follow each other, so each begins where the one before ended.
fn phases(record: &RequestRecord<'_>) -> SpanEvents {
    let mut events = SpanEvents::default();
    let mut began = Duration::ZERO;
    for (phase, took) in PHASES.into_iter().zip(record.phases()) {
        events.events.push(Event::new(phase, record.started + began, Vec::new(), 0));
        began = began.saturating_add(took);
    }
    events
}

fn client(
    record: &RequestRecord<'_>,
    attempt: &AttemptRecord,
    place: usize,
    trace: TraceId,
    scope: &InstrumentationScope,
) -> SpanData {
    let (host, port) = host_and_port(&attempt.endpoint);
    let mut all = Vec::with_capacity(8);
    all.push(KeyValue::new("http.request.method", record.method.to_owned()));
    all.push(KeyValue::new("server.address", host.to_owned()));
    all.extend(port.map(|port| KeyValue::new("server.port", i64::from(port))));
    if attempt.status != 0 {
        all.push(KeyValue::new("http.response.status_code", i64::from(attempt.status)));
    }
    if place > 0 {
        all.push(KeyValue::new("http.request.resend_count", signed(place as u64)));
    }
    all.push(KeyValue::new("outrigger.outcome", attempt.outcome));
    all.push(KeyValue::new("outrigger.connection_reused", attempt.reused));
    let failed = !attempt.answered() || attempt.status >= 500;
    let reason = if attempt.answered() { "" } else { attempt.outcome };
    if failed {
        all.push(KeyValue::new("error.type", error_type(reason, attempt.status)));
    }
    let mut span = span(trace, attempt.span, record.started + attempt.started_after, attempt.duration, scope);
    span.name = record.method.to_owned().into();
    span.span_kind = SpanKind::Client;
    span.parent_span_id = SpanId::from(record.span);
    span.attributes = all;
    if failed {
        span.status = Status::error(reason);
    }
    span
}

/// A span with its times and nothing else.
fn span(trace: TraceId, id: u64, start: SystemTime, took: Duration, scope: &InstrumentationScope) -> SpanData {
    SpanData {
        span_context: SpanContext::new(trace, SpanId::from(id), TraceFlags::SAMPLED, false, TraceState::default()),
        parent_span_id: SpanId::INVALID,
        parent_span_is_remote: false,
        span_kind: SpanKind::Internal,
        name: "".into(),
        start_time: start,
        end_time: start.checked_add(took).unwrap_or(start),
        attributes: Vec::new(),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: Status::Unset,
        instrumentation_scope: scope.clone(),
    }
}

/// The reason, or the status where there is none, as OpenTelemetry's `error.type` wants it.
fn error_type(reason: &'static str, status: u16) -> opentelemetry::Value {
    match reason {
        "" => status.to_string().into(),
        reason => reason.into(),
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A worker hands its spans over when there are this many, or when it flushes.
const BATCH_SPANS: usize = 64;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::record::tests::record;
    use super::*;

    fn spans(record: &RequestRecord<'_>, options: &TraceOptions) -> Vec<SpanData> {
        let mut spans = Spans::new();
        spans.write(record, options, &["token".to_owned()]);
        spans.waiting
    }

    fn attribute(span: &SpanData, name: &str) -> Option<String> {
        span.attributes.iter().find(|found| found.key.as_str() == name).map(|found| found.value.to_string())
    }

    #[test]
    fn a_request_is_a_server_span_and_a_client_span_for_each_attempt() {
        let attempt = |span, outcome, status, after| AttemptRecord {
            endpoint: Arc::from("127.0.0.1:3000"),
            started_after: Duration::from_millis(after),
            duration: Duration::from_millis(2),
            status,
            outcome,
            reused: false,
            span,
        };
        let attempts = [attempt(5, "reset", 0, 1), attempt(6, "answered", 200, 4)];
        let record = RequestRecord { attempts: &attempts, forwarded: Some(Duration::from_millis(1)), ..record() };
        let spans = spans(&record, &TraceOptions::default());
        let [server, first, second] = &spans[..] else { panic!("{spans:?}") };
        assert_eq!((server.name.as_ref(), &server.span_kind), ("GET api", &SpanKind::Server));
        assert_eq!(server.span_context.trace_id(), TraceId::from(0xabc));
        assert_eq!((server.span_context.span_id(), server.parent_span_id), (SpanId::from(0x34), SpanId::from(0x12)));
        assert_eq!(server.end_time.duration_since(server.start_time).unwrap(), record.duration);
        assert_eq!(attribute(server, "url.query").as_deref(), Some("token=REDACTED&page=3"));
        assert_eq!(attribute(server, "server.port").as_deref(), Some("8080"));
        assert_eq!(server.status, Status::Unset);
        assert_eq!(server.events.events[1].timestamp, record.started + Duration::from_millis(1));
        assert_eq!((first.parent_span_id, first.status.clone()), (SpanId::from(0x34), Status::error("reset")));
        assert_eq!(first.start_time, record.started + Duration::from_millis(1));
        assert_eq!(attribute(second, "http.request.resend_count").as_deref(), Some("1"));
        assert_eq!(attribute(second, "error.type"), None);
    }

    #[test]
    fn an_unsampled_request_is_kept_only_if_it_failed_or_was_slow() {
        let keep =
            TraceOptions { keep_errors: true, keep_slow: Some(Duration::from_millis(20)), ..TraceOptions::default() };
        let none = TraceOptions::default();
        let good = RequestRecord { sampled: false, ..record() };
        let failed = RequestRecord { fate: Fate::AppError, status: 500, ..good };
        for (millis, kept) in [(19, false), (20, true), (21, true)] {
            let record = RequestRecord { duration: Duration::from_millis(millis), ..good };
            assert_eq!(!spans(&record, &keep).is_empty(), kept);
            assert!(spans(&record, &none).is_empty());
        }
        let tunnel = RequestRecord { fate: Fate::Upgraded, duration: Duration::from_secs(60), ..good };
        assert!(spans(&tunnel, &keep).is_empty());
        assert!(spans(&good, &keep).is_empty() && spans(&failed, &none).is_empty());
        let kept = spans(&failed, &keep);
        assert_eq!(attribute(&kept[0], "error.type").as_deref(), Some("500"));
        assert!(kept[0].span_context.is_sampled());
        assert!(spans(&RequestRecord { trace: None, ..failed }, &keep).is_empty());
        assert!(spans(&RequestRecord { span: 0, ..failed }, &keep).is_empty());
    }
}
