//! The one thread that exports spans, with a runtime of its own: nothing it waits for can make a request wait, and a
//! process with one core exports like any other. Batches come through a bounded channel; what does not fit, and what
//! the collector does not take in time, is dropped and counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_http::HttpError;
use opentelemetry_otlp::{Protocol, RetryPolicy, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use tokio::sync::mpsc;

use super::collector::Collector;
use super::options::{TelemetryError, TraceOptions};
use super::waiter::Promise;

/// The way to the exporting thread.
#[derive(Debug)]
pub struct Exporter {
    batches: mpsc::Sender<Vec<SpanData>>,
    flushes: mpsc::UnboundedSender<Promise>,
    lost: Arc<AtomicU64>,
}

impl Exporter {
    /// `base` is the collector's base URL, as `OTEL_EXPORTER_OTLP_ENDPOINT` has it.
    pub fn start(base: &str, options: &TraceOptions) -> Result<Exporter, TelemetryError> {
        let unusable = |cause: HttpError| TelemetryError::traces(format!("{base} cannot be used: {cause}"));
        let endpoint = endpoint(base);
        let collector = Arc::new(Collector::new(&endpoint).map_err(unusable)?);
        let mut exporter = SpanExporter::builder()
            .with_http()
            .with_shared_http_client(collector.clone())
            .with_protocol(Protocol::HttpBinary)
            // The collector's connection tries again by itself; the crate's own retries would put this thread to sleep.
            .with_retry_policy(RetryPolicy::disabled())
            .with_endpoint(endpoint)
            .build()
            .map_err(|cause| unusable(cause.into()))?;
        exporter.set_resource(&resource(options));
        let no_thread = |cause| TelemetryError::traces(format!("no thread for the exporter: {cause}"));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            // Only to look up the collector's name.
            .max_blocking_threads(1)
            .build()
            .map_err(no_thread)?;
        let (batches, inbox) = mpsc::channel(BATCHES_MAX);
        let (flushes, wishes) = mpsc::unbounded_channel();
        let lost = Arc::new(AtomicU64::new(0));
        let outbox = Outbox { exporter, collector, waiting: Vec::new(), lost: lost.clone(), failing: false };
        std::thread::Builder::new()
            .name(THREAD.to_owned())
            .spawn(move || runtime.block_on(run(inbox, wishes, outbox)))
            .map_err(no_thread)?;
        Ok(Exporter { batches, flushes, lost })
    }

    /// The number of spans that had to be dropped because the channel is full.
    pub fn hand_over(&self, spans: Vec<SpanData>) -> u64 {
        match self.batches.try_send(spans) {
            Ok(()) => 0,
            Err(mpsc::error::TrySendError::Full(spans) | mpsc::error::TrySendError::Closed(spans)) => {
                spans.len() as u64
            }
        }
    }

    /// Keeps the promise when everything handed over so far was exported or given up.
    pub fn flush(&self, promise: Promise) {
        // A thread that is gone exports nothing; the promise is dropped with the error, which keeps it.
        let _ = self.flushes.send(promise);
    }

    /// Spans that were handed over and not taken by the collector.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

async fn run(
    mut inbox: mpsc::Receiver<Vec<SpanData>>,
    mut wishes: mpsc::UnboundedReceiver<Promise>,
    mut outbox: Outbox,
) {
    let mut due = tokio::time::interval(INTERVAL);
    due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            batch = inbox.recv() => match batch {
                Some(batch) => outbox.put(batch).await,
                None => return outbox.export().await,
            },
            Some(promise) = wishes.recv() => {
                while let Ok(batch) = inbox.try_recv() {
                    outbox.put(batch).await;
                }
                outbox.export().await;
                drop(promise);
            }
            _ = due.tick(), if !outbox.waiting.is_empty() => outbox.export().await,
        }
    }
}

struct Outbox {
    exporter: SpanExporter,
    collector: Arc<Collector>,
    waiting: Vec<SpanData>,
    lost: Arc<AtomicU64>,
    failing: bool,
}

impl Outbox {
    async fn put(&mut self, batch: Vec<SpanData>) {
        self.waiting.extend(batch);
        if self.waiting.len() >= EXPORT_SPANS {
            self.export().await;
        }
    }

    async fn export(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let spans = std::mem::take(&mut self.waiting);
        let number = spans.len() as u64;
        match self.exporter.export(spans).await {
            Ok(()) if self.failing => {
                self.failing = false;
                tracing::info!(collector = %self.collector, "spans are exported again");
            }
            Ok(()) => {}
            Err(error) => {
                self.lost.fetch_add(number, Ordering::Relaxed);
                // Said once, not once a second for as long as a collector is away.
                if !std::mem::replace(&mut self.failing, true) {
                    let cause = self.collector.problem().unwrap_or_else(|| error.to_string());
                    tracing::warn!(collector = %self.collector, cause, "spans cannot be exported; they are dropped and counted");
                }
            }
        }
    }
}

/// Whether spans could be exported to this base URL, without asking anybody.
pub fn try_collector(base: &str) -> Result<(), String> {
    Collector::new(&endpoint(base)).map(drop).map_err(|cause| cause.to_string())
}

/// The signal's URL: the base with `/v1/traces`, unless it is named already.
fn endpoint(base: &str) -> String {
    let base = base.trim_end_matches('/');
    match base.ends_with(PATH) {
        true => base.to_owned(),
        false => format!("{base}{PATH}"),
    }
}

/// Who the spans are of; `OTEL_RESOURCE_ATTRIBUTES` may say more, the configuration has the last word.
fn resource(options: &TraceOptions) -> Resource {
    let name = if options.service.is_empty() { "outrigger" } else { &options.service };
    let mut attributes = vec![KeyValue::new("service.name", name.to_owned())];
    if let Some(version) = &options.service_version {
        attributes.push(KeyValue::new("service.version", version.clone()));
    }
    if let Some(environment) = &options.environment {
        // The name until semantic conventions 1.27, and the one since.
        attributes.push(KeyValue::new("deployment.environment", environment.clone()));
        attributes.push(KeyValue::new("deployment.environment.name", environment.clone()));
    }
    Resource::builder().with_attributes(attributes).build()
}

const THREAD: &str = "otlp";
const PATH: &str = "/v1/traces";
/// Batches that wait for the thread: with full ones (`spans::BATCH_SPANS`) 2048 spans, OpenTelemetry's default.
const BATCHES_MAX: usize = 32;
/// Spans of one export.
const EXPORT_SPANS: usize = 512;
/// A span waits at most this long for company.
const INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};

    use super::super::record::tests::record;
    use super::super::spans::Spans;
    use super::super::waiter::Waiter;
    use super::*;

    const TIME: Duration = Duration::from_secs(20);

    /// Reads one request; path and body.
    fn receive(reader: &mut BufReader<TcpStream>) -> (String, Vec<u8>) {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
        let mut length = 0;
        loop {
            let mut header = String::new();
            reader.read_line(&mut header).unwrap();
            if header.trim().is_empty() {
                break;
            }
            if let Some(value) = header.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        (path, body)
    }

    fn answer(reader: &mut BufReader<TcpStream>, status: &str) {
        let text = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
        reader.get_mut().write_all(text.as_bytes()).unwrap();
    }

    fn flush(exporter: &Exporter, time: Duration) -> bool {
        let waiter = Arc::new(Waiter::default());
        exporter.flush(waiter.promise());
        waiter.wait(time)
    }

    fn service() -> TraceOptions {
        TraceOptions {
            service: "checkout".into(),
            service_version: Some("7".into()),
            environment: Some("staging".into()),
            ..TraceOptions::default()
        }
    }

    /// Hands over one span.
    fn give(exporter: &Exporter) -> u64 {
        let mut spans = Spans::new();
        spans.write(&record(), &TraceOptions::default(), &[]);
        spans.hand_over(exporter)
    }

    /// The fields of a protobuf message: number and payload (of length-delimited ones; empty for the others).
    fn fields(mut bytes: &[u8]) -> Vec<(u64, &[u8])> {
        fn varint(bytes: &mut &[u8]) -> u64 {
            let mut value = 0;
            for shift in (0..).step_by(7) {
                let (byte, rest) = bytes.split_first().unwrap();
                *bytes = rest;
                value |= u64::from(byte & 0x7f) << shift;
                if byte & 0x80 == 0 {
                    break;
                }
            }
            value
        }
        let mut found = Vec::new();
        while !bytes.is_empty() {
            let tag = varint(&mut bytes);
            let length = match tag & 7 {
                0 => {
                    varint(&mut bytes);
                    0
                }
                1 => 8,
                2 => varint(&mut bytes) as usize,
                5 => 4,
                other => panic!("wire type {other}"),
            };
            let (payload, rest) = bytes.split_at(length);
            found.push((tag >> 3, payload));
            bytes = rest;
        }
        found
    }

    fn field(bytes: &[u8], number: u64) -> &[u8] {
        fields(bytes).into_iter().find(|(found, _)| *found == number).unwrap().1
    }

    fn contains(bytes: &[u8], text: &str) -> bool {
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    }

    #[test]
    fn a_collector_gets_spans_it_can_read() {
        // Goal: OTLP/HTTP as a collector decodes it. Method: a server that reads the protobuf by field numbers, and
        // fails once first, so that the retry is seen as well.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let exporter = Exporter::start(&format!("http://{}/", listener.local_addr().unwrap()), &service()).unwrap();
        assert_eq!(give(&exporter), 0);
        let server = std::thread::spawn(move || {
            let mut reader = BufReader::new(listener.accept().unwrap().0);
            receive(&mut reader);
            answer(&mut reader, "503 Service Unavailable");
            let received = receive(&mut reader);
            answer(&mut reader, "200 OK");
            received
        });
        assert!(flush(&exporter, TIME));
        let (path, body) = server.join().unwrap();
        assert_eq!(path, "/v1/traces");
        let resource_spans = field(&body, 1);
        let resource = field(resource_spans, 1);
        for text in ["service.name", "checkout", "service.version", "7", "deployment.environment", "staging"] {
            assert!(contains(resource, text), "{text}");
        }
        let scope_spans = field(resource_spans, 2);
        assert_eq!(field(field(scope_spans, 1), 1), b"outrigger");
        let span = field(scope_spans, 2);
        assert_eq!(field(span, 1), 0xabcu128.to_be_bytes());
        assert_eq!(field(span, 2), 0x34u64.to_be_bytes());
        assert_eq!(field(span, 4), 0x12u64.to_be_bytes());
        assert_eq!(field(span, 5), b"GET api");
        let micros = 1_700_000_000_123_456u64;
        assert_eq!(field(span, 7), (micros * 1000).to_le_bytes());
        assert_eq!(field(span, 8), ((micros + 12_345) * 1000).to_le_bytes());
        assert!(contains(span, "http.route") && contains(span, "outrigger.fate"));
        assert_eq!(exporter.lost(), 0);
    }

    #[test]
    fn spans_go_out_by_themselves() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let exporter = Exporter::start(&format!("http://{}", listener.local_addr().unwrap()), &service()).unwrap();
        for _ in 0..2 {
            give(&exporter);
            let mut reader = BufReader::new(listener.accept().unwrap().0);
            reader.get_ref().set_read_timeout(Some(TIME)).unwrap();
            assert_eq!(receive(&mut reader).0, "/v1/traces");
            // Ends the connection as well, so that the second export needs one of its own.
            answer(&mut reader, "200 OK\r\nconnection: close");
        }
    }

    #[test]
    fn a_collector_in_trouble_is_asked_so_many_times_and_no_more() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let exporter = Exporter::start(&format!("http://{}", listener.local_addr().unwrap()), &service()).unwrap();
        give(&exporter);
        let server = std::thread::spawn(move || {
            let mut reader = BufReader::new(listener.accept().unwrap().0);
            let mut asked = 0;
            while !receive(&mut reader).0.is_empty() {
                asked += 1;
                answer(&mut reader, "503 Service Unavailable");
            }
            asked
        });
        assert!(flush(&exporter, TIME));
        assert_eq!(exporter.lost(), 1);
        drop(exporter);
        assert_eq!(server.join().unwrap(), super::super::collector::ATTEMPTS_MAX);
    }

    #[test]
    fn a_collector_that_refuses_costs_spans_and_they_are_counted() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let exporter = Exporter::start(&format!("http://{}", listener.local_addr().unwrap()), &service()).unwrap();
        give(&exporter);
        let server = std::thread::spawn(move || {
            let mut reader = BufReader::new(listener.accept().unwrap().0);
            receive(&mut reader);
            answer(&mut reader, "400 Bad Request");
        });
        assert!(flush(&exporter, TIME));
        server.join().unwrap();
        assert_eq!(exporter.lost(), 1);
    }

    #[test]
    fn a_silent_collector_delays_neither_requests_nor_the_end() {
        // Goal: handing over never waits, the queue is bounded, a flush ends with its deadline. Method: a listener
        // that accepts by its backlog and says nothing.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let exporter = Exporter::start(&format!("http://{}", listener.local_addr().unwrap()), &service()).unwrap();
        let mut spans = Spans::new();
        spans.write(&record(), &TraceOptions::default(), &[]);
        let mut dropped = 0;
        for _ in 0..EXPORT_SPANS + 2 * BATCHES_MAX {
            dropped += give(&exporter);
        }
        assert!(dropped > 0);
        assert!(!flush(&exporter, Duration::from_millis(10)));
    }

    #[test]
    fn an_address_that_cannot_be_used_is_refused_at_the_start() {
        for base in ["collector:4318", "ftp://collector", "http://", "http://user:secret@collector:4318"] {
            let problem = Exporter::start(base, &service()).unwrap_err();
            assert!(problem.to_string().starts_with("telemetry.traces.otlp:"), "{problem}");
        }
    }

    #[test]
    fn the_signal_path_is_added_once() {
        for base in ["http://c:4318", "http://c:4318/", "http://c:4318/v1/traces", "http://c:4318/v1/traces/"] {
            assert_eq!(endpoint(base), "http://c:4318/v1/traces");
        }
        assert_eq!(endpoint("https://c/otlp"), "https://c/otlp/v1/traces");
    }
}
