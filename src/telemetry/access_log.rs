//! The access log's lines: one per request, JSON with OpenTelemetry's field names or the Common Log Format, written by
//! hand into the worker's buffer. Successes may be sampled; a failure, a refusal or a client error never is.
//! Header values are not logged, the user agent excepted; query parameters are redacted by name.

use std::hash::{BuildHasher as _, RandomState};

use super::log_writer::{Batch, LogWriter};
use super::options::{Format, LogOptions, Target};
use super::record::{self, AttemptRecord, RequestRecord};
use super::text::{self, Calendar};
use crate::core::redact;

/// One worker's lines that have not been handed over.
pub struct Lines {
    batch: Batch,
    calendar: Calendar,
    /// Of the generator that samples. Seeded by the process's own key, so that a client cannot choose to be unseen.
    seed: u64,
}

impl Lines {
    pub fn new() -> Self {
        Lines { batch: Batch::default(), calendar: Calendar::default(), seed: RandomState::new().hash_one(0u8) }
    }

    /// Appends the line of a request, if it is to be logged; true if the buffer wants to be handed over.
    pub fn write(&mut self, record: &RequestRecord<'_>, options: &LogOptions) -> bool {
        if options.target == Target::Off || !self.wanted(record, options.sample_success) {
            return false;
        }
        match options.format {
            Format::Json => json(&mut self.batch.bytes, &mut self.calendar, record, &options.redact_query),
            Format::Common => common(&mut self.batch.bytes, &mut self.calendar, record, &options.redact_query),
        }
        self.batch.lines += 1;
        self.batch.bytes.len() >= BATCH_BYTES
    }

    /// Hands the lines over; the number of lines that had to be dropped.
    pub fn hand_over(&mut self, writer: &LogWriter) -> u64 {
        if self.batch.lines == 0 {
            return 0;
        }
        writer.hand_over(&mut self.batch)
    }

    fn wanted(&mut self, record: &RequestRecord<'_>, sample: f64) -> bool {
        if !record.succeeded() {
            return true;
        }
        !record.probe && (sample >= 1.0 || self.draw() < sample)
    }

    /// Uniform in 0..1 (splitmix64, Steele et al. 2014).
    fn draw(&mut self) -> f64 {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.seed;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

fn json(out: &mut Vec<u8>, calendar: &mut Calendar, record: &RequestRecord<'_>, redacted: &[String]) {
    out.extend_from_slice(b"{\"timestamp\":\"");
    calendar.rfc3339(out, record.started);
    out.push(b'"');
    string(out, b",\"request_id\":", record.request_id);
    if let Some(trace) = &record.trace {
        out.extend_from_slice(b",\"trace_id\":");
        quoted_hex(out, trace.trace_id, 32);
        out.extend_from_slice(b",\"span_id\":");
        quoted_hex(out, u128::from(record.span), 16);
    }
    json_request(out, record, redacted);
    json_answer(out, record);
    out.extend_from_slice(b"}\n");
}

/// What was asked.
fn json_request(out: &mut Vec<u8>, record: &RequestRecord<'_>, redacted: &[String]) {
    string(out, b",\"http.request.method\":", record.method);
    string(out, b",\"url.scheme\":", record.scheme);
    let (host, port) = host_and_port(record.host);
    string(out, b",\"server.address\":", host);
    if let Some(port) = port {
        number(out, b",\"server.port\":", u64::from(port));
    }
    string(out, b",\"url.path\":", record.path);
    if let Some(query) = record.query {
        string(out, b",\"url.query\":", &redact::query(query, redacted));
    }
    string(out, b",\"network.protocol.version\":", record::protocol(record.version));
    out.extend_from_slice(b",\"client.address\":");
    out.push(b'"');
    text::address(out, record.client);
    out.push(b'"');
    if let Some(agent) = record.user_agent {
        string(out, b",\"user_agent.original\":", agent);
    }
    string(out, b",\"listener\":", record.listener);
    if !record.route.is_empty() {
        string(out, b",\"http.route\":", record.route);
    }
}

/// What became of it.
fn json_answer(out: &mut Vec<u8>, record: &RequestRecord<'_>) {
    if record.status != 0 {
        number(out, b",\"http.response.status_code\":", u64::from(record.status));
    }
    number(out, b",\"http.request.body.size\":", record.bytes_in);
    number(out, b",\"http.response.body.size\":", record.bytes_out);
    out.extend_from_slice(b",\"duration_ms\":");
    text::millis(out, record.duration);
    if let Some(first_byte) = record.first_byte {
        out.extend_from_slice(b",\"first_byte_ms\":");
        text::millis(out, first_byte);
    }
    string(out, b",\"fate\":", record.fate.label());
    if !record.reason.is_empty() {
        string(out, b",\"reason\":", record.reason);
    }
    if let Some(upstream) = record.upstream {
        string(out, b",\"upstream\":", upstream);
    }
    if let Some(endpoint) = record.endpoint {
        string(out, b",\"endpoint\":", endpoint);
    }
    number(out, b",\"attempts\":", record.attempts.len() as u64);
    if !record.attempts.iter().all(AttemptRecord::answered) {
        list(out, b",\"attempt_outcomes\":", record.attempts.iter().map(|attempt| attempt.outcome));
    }
    if record.probe {
        out.extend_from_slice(b",\"probe\":");
        out.extend_from_slice(b"true");
    }
    if !record.notes.is_empty() {
        list(out, b",\"notes\":", record.notes.iter().map(String::as_str));
    }
}

/// `client - - [31/Jan/2026:23:59:59 +0000] "GET /path?query HTTP/1.1" 200 1234`.
fn common(out: &mut Vec<u8>, calendar: &mut Calendar, record: &RequestRecord<'_>, redacted: &[String]) {
    text::address(out, record.client);
    out.extend_from_slice(b" - - [");
    calendar.common(out, record.started);
    out.extend_from_slice(b"] \"");
    text::common(out, record.method);
    out.push(b' ');
    text::common(out, record.path);
    if let Some(query) = record.query {
        out.push(b'?');
        text::common(out, &redact::query(query, redacted));
    }
    out.extend_from_slice(b" HTTP/");
    out.extend_from_slice(record::protocol(record.version).as_bytes());
    out.extend_from_slice(b"\" ");
    match record.status {
        0 => out.push(b'-'),
        status => text::integer(out, u64::from(status)),
    }
    out.push(b' ');
    match record.bytes_out {
        0 => out.push(b'-'),
        bytes => text::integer(out, bytes),
    }
    out.push(b'\n');
}

/// A host without its port and without the brackets of an IPv6 address, and the port.
pub fn host_and_port(authority: &str) -> (&str, Option<u16>) {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, port.parse().ok()),
        Some(_) | None => (authority, None),
    };
    (host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(host), port)
}

/// `key` is a whole `,"name":`, so that it is one copy.
fn string(out: &mut Vec<u8>, key: &[u8], value: &str) {
    out.extend_from_slice(key);
    text::json(out, value);
}

fn number(out: &mut Vec<u8>, key: &[u8], value: u64) {
    out.extend_from_slice(key);
    text::integer(out, value);
}

fn list<'a>(out: &mut Vec<u8>, key: &[u8], values: impl Iterator<Item = &'a str>) {
    out.extend_from_slice(key);
    out.push(b'[');
    for (place, value) in values.enumerate() {
        if place > 0 {
            out.push(b',');
        }
        text::json(out, value);
    }
    out.push(b']');
}

fn quoted_hex(out: &mut Vec<u8>, value: u128, digits: u32) {
    out.push(b'"');
    text::hex(out, value, digits);
    out.push(b'"');
}

/// A worker hands its lines over when they are this many, or when it flushes.
pub const BATCH_BYTES: usize = 32 * 1024;

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::super::record::Fate;
    use super::super::record::tests::record;
    use super::*;

    fn options() -> LogOptions {
        LogOptions { target: Target::Stdout, redact_query: vec!["token".to_owned()], ..LogOptions::default() }
    }

    fn line(record: &RequestRecord<'_>, options: &LogOptions) -> String {
        let mut lines = Lines::new();
        lines.write(record, options);
        String::from_utf8(lines.batch.bytes).unwrap()
    }

    #[test]
    fn a_json_line_says_what_happened() {
        let text = line(&record(), &options());
        assert!(text.ends_with("}\n") && text.lines().count() == 1);
        let read: Value = serde_json::from_str(&text).unwrap();
        let expected = json!({
            "timestamp": "2023-11-14T22:13:20.123456Z", "request_id": "req-1",
            "trace_id": "00000000000000000000000000000abc", "span_id": "0000000000000034",
            "http.request.method": "GET", "url.scheme": "http",
            "server.address": "shop.example.com", "server.port": 8080,
            "url.path": "/users/7", "url.query": "token=REDACTED&page=3", "network.protocol.version": "1.1",
            "client.address": "192.0.2.7", "user_agent.original": "curl/8", "listener": "web", "http.route": "api",
            "http.response.status_code": 200, "http.request.body.size": 5, "http.response.body.size": 1024,
            "duration_ms": 12.345, "first_byte_ms": 10.001, "fate": "ok",
            "upstream": "app", "endpoint": "127.0.0.1:3000", "attempts": 0,
        });
        assert_eq!(read, expected);
    }

    #[test]
    fn a_failure_names_its_reason_and_every_attempt() {
        let attempt = |outcome| AttemptRecord {
            endpoint: Arc::from("127.0.0.1:3000"),
            started_after: Duration::ZERO,
            duration: Duration::from_millis(1),
            status: 0,
            outcome,
            reused: false,
            span: 1,
        };
        let notes = ["a \"note\"".to_owned()];
        let attempts = [attempt("reset"), attempt("connect_refused")];
        let failed = RequestRecord {
            status: 502,
            fate: Fate::Unreachable,
            reason: "connect_refused",
            attempts: &attempts,
            notes: &notes,
            probe: true,
            trace: None,
            ..record()
        };
        let read: Value = serde_json::from_str(&line(&failed, &options())).unwrap();
        assert_eq!(read["fate"], "unreachable");
        assert_eq!(read["reason"], "connect_refused");
        assert_eq!(read["attempt_outcomes"], json!(["reset", "connect_refused"]));
        assert_eq!(read["notes"], json!(["a \"note\""]));
        assert_eq!((&read["probe"], read.get("trace_id")), (&json!(true), None));
    }

    #[test]
    fn a_common_line_is_one_that_tools_read() {
        let options = LogOptions { format: Format::Common, ..options() };
        assert_eq!(
            line(&record(), &options),
            "192.0.2.7 - - [14/Nov/2023:22:13:20 +0000] \"GET /users/7?token=REDACTED&page=3 HTTP/1.1\" 200 1024\n"
        );
        let gone = RequestRecord { status: 0, bytes_out: 0, query: None, fate: Fate::ClientGone, ..record() };
        assert!(line(&gone, &options).ends_with("\"GET /users/7 HTTP/1.1\" - -\n"));
    }

    #[test]
    fn failures_are_never_sampled_away() {
        let options = LogOptions { sample_success: 0.0, ..options() };
        for fate in Fate::ALL {
            for (status, probe) in [(200, false), (404, false), (500, false), (200, true), (503, true)] {
                let record = RequestRecord { fate, status, probe, ..record() };
                assert_eq!(line(&record, &options).is_empty(), record.succeeded(), "{fate:?} {status}");
            }
        }
        let all = LogOptions { sample_success: 1.0, ..options };
        assert!(!line(&record(), &all).is_empty());
        assert!(line(&RequestRecord { probe: true, ..record() }, &all).is_empty(), "a probe that succeeds is no news");
    }

    #[test]
    fn a_share_of_successes_is_logged() {
        let options = LogOptions { sample_success: 0.25, ..options() };
        let mut lines = Lines { seed: 7, ..Lines::new() };
        for _ in 0..10_000 {
            lines.write(&record(), &options);
        }
        assert!((2_300..2_700).contains(&lines.batch.lines), "{}", lines.batch.lines);
    }

    #[test]
    fn the_buffer_asks_to_be_handed_over_when_it_is_full() {
        let mut lines = Lines::new();
        let mut written = 0;
        while !lines.write(&record(), &options()) {
            written += 1;
        }
        assert!(lines.batch.bytes.len() >= BATCH_BYTES && written > 40);
    }

    #[test]
    fn hosts_lose_ports_and_brackets() {
        for (authority, expected) in [
            ("a.example", ("a.example", None)),
            ("a.example:80", ("a.example", Some(80))),
            ("[::1]:443", ("::1", Some(443))),
            ("[::1]", ("::1", None)),
            ("::1", ("::1", None)),
            ("a:99999", ("a", None)),
            ("", ("", None)),
        ] {
            assert_eq!(host_and_port(authority), expected);
        }
    }
}
