//! What is remembered of an ended request, as bytes in the ring, and how it is told: JSON with the facts and an
//! explanation in plain words. Texts are cut to named lengths; queries and headers other than the user agent are not
//! remembered, so that nothing secret can be.

use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value, json};

use super::record::{self, AttemptRecord, Fate, RequestRecord};
use super::text::{self, Calendar};
use super::words;

/// Appends the entry of a request.
pub fn encode(out: &mut Vec<u8>, record: &RequestRecord<'_>) {
    let since = record.started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let trace = record.trace.map_or(0, |trace| trace.trace_id);
    out.extend_from_slice(&trace.to_le_bytes());
    string(out, record.request_id);
    for number in [
        text::nanos(since),
        text::nanos(record.duration),
        record.forwarded.map_or(u64::MAX, text::nanos),
        record.first_byte.map_or(u64::MAX, text::nanos),
        record.bytes_in,
        record.bytes_out,
        record.span,
        record.parent_span,
    ] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    let client = match record.client {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    out.extend_from_slice(&client.octets());
    out.extend_from_slice(&record.status.to_le_bytes());
    let v4 = record.client.is_ipv4();
    let https = record.scheme == "https";
    out.extend_from_slice(&[
        record.fate as u8,
        u8::from(record.sampled),
        u8::from(record.probe),
        u8::from(v4),
        u8::from(https),
        record::protocol_place(record.version),
    ]);
    let none = "";
    for text in [
        record.listener,
        record.route,
        record.upstream.unwrap_or(none),
        record.method,
        record.host,
        record.path,
        record.user_agent.unwrap_or(none),
        record.reason,
    ] {
        string(out, text);
    }
    attempts(out, record.attempts);
    out.push(record.notes.len().min(LIST_MAX) as u8);
    for note in record.notes.iter().take(LIST_MAX) {
        string(out, note);
    }
}

/// Of many attempts the first ones and the last, whose endpoint is the request's.
fn attempts(out: &mut Vec<u8>, all: &[AttemptRecord]) {
    out.push(all.len().min(LIST_MAX) as u8);
    let (first, last) = all.split_at(if all.len() > LIST_MAX { LIST_MAX - 1 } else { all.len() });
    for attempt in first.iter().chain(last.last()) {
        out.extend_from_slice(&text::nanos(attempt.started_after).to_le_bytes());
        out.extend_from_slice(&text::nanos(attempt.duration).to_le_bytes());
        out.extend_from_slice(&attempt.status.to_le_bytes());
        out.push(u8::from(attempt.reused));
        string(out, attempt.outcome);
        string(out, &attempt.endpoint);
    }
}

/// An entry read back.
#[derive(Debug)]
pub struct Remembered<'a> {
    pub trace_id: u128,
    pub request_id: &'a str,
    pub started: Duration,
    pub duration: Duration,
    pub forwarded: Option<Duration>,
    pub first_byte: Option<Duration>,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub span: u64,
    pub parent_span: u64,
    pub client: IpAddr,
    pub status: u16,
    pub fate: Fate,
    pub sampled: bool,
    pub probe: bool,
    pub listener: &'a str,
    pub route: &'a str,
    pub upstream: &'a str,
    pub endpoint: &'a str,
    pub method: &'a str,
    pub scheme: &'a str,
    pub host: &'a str,
    pub path: &'a str,
    pub protocol: &'a str,
    pub user_agent: &'a str,
    pub reason: &'a str,
    pub attempts: Vec<Attempt<'a>>,
    pub notes: Vec<&'a str>,
}

#[derive(Debug)]
pub struct Attempt<'a> {
    pub started_after: Duration,
    pub duration: Duration,
    pub status: u16,
    pub reused: bool,
    pub outcome: &'a str,
    pub endpoint: &'a str,
}

/// Whether an entry is of this request or of this trace, without reading all of it.
pub fn matches(entry: &[u8], id: &str, trace_id: Option<u128>) -> bool {
    let mut reader = Reader(entry);
    let Some(trace) = reader.array().map(u128::from_le_bytes) else { return false };
    trace_id == Some(trace) || reader.string() == Some(cut(id))
}

/// The trace id that a text spells.
pub fn trace_id(text: &str) -> Option<u128> {
    let spelt = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    u128::from_str_radix(text, 16).ok().filter(|id| spelt && *id != 0)
}

/// Reads an entry back; `None` for what `encode` has not written.
pub fn decode(entry: &[u8]) -> Option<Remembered<'_>> {
    let mut reader = Reader(entry);
    let trace_id = u128::from_le_bytes(reader.array()?);
    let request_id = reader.string()?;
    let (started, duration) = (reader.duration()?, reader.duration()?);
    let (forwarded, first_byte) = (reader.time()?, reader.time()?);
    let (bytes_in, bytes_out, span, parent_span) =
        (reader.number()?, reader.number()?, reader.number()?, reader.number()?);
    let client = Ipv6Addr::from(reader.array::<16>()?);
    let status = u16::from_le_bytes(reader.array()?);
    let [fate, sampled, probe, v4, https, protocol] = reader.array()?;
    let client = client.to_ipv4_mapped().filter(|_| v4 == 1).map_or(IpAddr::V6(client), IpAddr::V4);
    let (listener, route, upstream) = (reader.string()?, reader.string()?, reader.string()?);
    let (method, host, path) = (reader.string()?, reader.string()?, reader.string()?);
    let (user_agent, reason) = (reader.string()?, reader.string()?);
    let attempts = reader.list(|reader| {
        Some(Attempt {
            started_after: reader.duration()?,
            duration: reader.duration()?,
            status: u16::from_le_bytes(reader.array()?),
            reused: reader.array::<1>()? == [1],
            outcome: reader.string()?,
            endpoint: reader.string()?,
        })
    })?;
    Some(Remembered {
        trace_id,
        request_id,
        started,
        duration,
        forwarded,
        first_byte,
        bytes_in,
        bytes_out,
        span,
        parent_span,
        client,
        status,
        fate: *Fate::ALL.get(usize::from(fate))?,
        sampled: sampled == 1,
        probe: probe == 1,
        listener,
        route,
        upstream,
        endpoint: attempts.last().map_or("", |attempt| attempt.endpoint),
        method,
        scheme: if https == 1 { "https" } else { "http" },
        host,
        path,
        protocol: record::PROTOCOLS.get(usize::from(protocol))?,
        user_agent,
        reason,
        attempts,
        notes: reader.list(|reader| reader.string())?,
    })
}

impl Remembered<'_> {
    /// The phases and how long each took.
    pub fn phases(&self) -> impl Iterator<Item = (&'static str, Duration)> {
        let times = record::phases(self.duration, self.forwarded, self.first_byte);
        record::PHASES.into_iter().zip(times)
    }

    /// When it ended, since 1970: the order of `recent`.
    pub fn ended(&self) -> Duration {
        self.started.saturating_add(self.duration)
    }

    /// The facts and the explanation. Times are in seconds.
    pub fn tell(&self) -> Value {
        let text = |text: &str| if text.is_empty() { Value::Null } else { json!(text) };
        let span = |id: u64| if id == 0 { Value::Null } else { json!(format!("{id:016x}")) };
        let trace_id = Some(self.trace_id).filter(|id| *id != 0).map(|id| format!("{id:032x}"));
        let phases: Map<String, Value> =
            self.phases().map(|(phase, took)| (phase.to_owned(), json!(took.as_secs_f64()))).collect();
        json!({
            "request_id": self.request_id,
            "started": self.started.as_secs_f64(),
            "timestamp": timestamp(self.started),
            "method": self.method,
            "scheme": self.scheme,
            "host": self.host,
            "path": self.path,
            "protocol": self.protocol,
            "client": self.client,
            "user_agent": text(self.user_agent),
            "listener": text(self.listener),
            "route": text(self.route),
            "upstream": text(self.upstream),
            "endpoint": text(self.endpoint),
            "status": self.status,
            "fate": self.fate.label(),
            "reason": text(self.reason),
            "words": words::brief(self),
            "explanation": words::explain(self),
            "seconds": self.duration.as_secs_f64(),
            "first_byte": self.first_byte.map(|took| took.as_secs_f64()),
            "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out,
            "phases": phases,
            "attempts": self.attempts.iter().map(Attempt::tell).collect::<Vec<_>>(),
            "trace_id": trace_id,
            "span_id": span(self.span),
            "parent_span_id": span(self.parent_span),
            "sampled": self.sampled,
            "probe": self.probe,
            "notes": self.notes,
        })
    }
}

impl Attempt<'_> {
    fn tell(&self) -> Value {
        json!({
            "endpoint": self.endpoint,
            "after": self.started_after.as_secs_f64(),
            "seconds": self.duration.as_secs_f64(),
            "status": self.status,
            "outcome": self.outcome,
            "reused_connection": self.reused,
        })
    }
}

fn timestamp(since: Duration) -> String {
    let mut out = Vec::new();
    Calendar::default().rfc3339(&mut out, SystemTime::UNIX_EPOCH + since);
    String::from_utf8(out).unwrap_or_default()
}

fn string(out: &mut Vec<u8>, text: &str) {
    let text = cut(text);
    out.extend_from_slice(&(text.len() as u16).to_le_bytes());
    if !text.is_empty() {
        out.extend_from_slice(text.as_bytes());
    }
}

/// At most `TEXT_MAX` bytes of a text, whole characters.
fn cut(text: &str) -> &str {
    if text.len() <= TEXT_MAX {
        return text;
    }
    let fits = |end: &usize| text.is_char_boundary(*end);
    // 0 is a boundary, and one of any four places is.
    let end = (0..=text.len().min(TEXT_MAX)).rev().find(fits).unwrap_or_default();
    &text[..end]
}

/// Reads what `encode` wrote; every step may fail, none may panic.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    fn number(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn duration(&mut self) -> Option<Duration> {
        self.number().map(Duration::from_nanos)
    }

    /// One that may not have come.
    fn time(&mut self) -> Option<Option<Duration>> {
        self.number().map(|nanos| (nanos != u64::MAX).then(|| Duration::from_nanos(nanos)))
    }

    fn string(&mut self) -> Option<&'a str> {
        let length = u16::from_le_bytes(self.array()?);
        let (head, rest) = self.0.split_at_checked(usize::from(length))?;
        self.0 = rest;
        std::str::from_utf8(head).ok()
    }

    fn list<T>(&mut self, item: impl Fn(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let [length] = self.array()?;
        (0..length).map(|_| item(self)).collect()
    }
}

/// Bytes of any one text that are remembered.
const TEXT_MAX: usize = 512;
/// Attempts and notes that are remembered, each.
const LIST_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::record::AttemptRecord;
    use super::super::record::tests::record;
    use super::super::ring::ENTRY_MAX;
    use super::*;

    fn entry(record: &RequestRecord<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        encode(&mut out, record);
        out
    }

    #[test]
    fn what_is_remembered_is_what_happened() {
        let attempts = [AttemptRecord {
            endpoint: Arc::from("127.0.0.1:3000"),
            started_after: Duration::from_micros(150),
            duration: Duration::from_millis(9),
            status: 200,
            outcome: "answered",
            reused: true,
            span: 5,
        }];
        let notes = ["a note".to_owned()];
        let bytes = entry(&RequestRecord { attempts: &attempts, notes: &notes, ..record() });
        let told = decode(&bytes).unwrap().tell();
        for (name, expected) in [
            ("request_id", json!("req-1")),
            ("started", json!(1_700_000_000.123456)),
            ("timestamp", json!("2023-11-14T22:13:20.123456Z")),
            ("client", json!("192.0.2.7")),
            ("status", json!(200)),
            ("reason", Value::Null),
            ("seconds", json!(0.012345)),
            ("first_byte", json!(0.010001)),
            ("trace_id", json!("00000000000000000000000000000abc")),
            ("span_id", json!("0000000000000034")),
            ("notes", json!(["a note"])),
            ("phases", json!({"admit": 0.00015, "attempt": 0.009851, "stream": 0.002344})),
            ("words", json!("The app answered 200 in 12.3 ms.")),
        ] {
            assert_eq!(told[name], expected, "{name}");
        }
        assert_eq!(told["attempts"][0]["reused_connection"], true);
        assert!(!told.to_string().contains("hunter2"), "a query is not remembered");
    }

    #[test]
    fn requests_are_found_by_their_id_and_by_their_trace() {
        let bytes = entry(&record());
        assert!(matches(&bytes, "req-1", None));
        assert!(!matches(&bytes, "req-", None));
        assert!(matches(&bytes, "", trace_id("00000000000000000000000000000abc")));
        assert!(!matches(&entry(&RequestRecord { trace: None, ..record() }), "x", trace_id(&"0".repeat(32))));
        assert_eq!(trace_id("+0000000000000000000000000000abc"), None);
    }

    #[test]
    fn the_longest_texts_fit_an_entry_and_are_cut_at_characters() {
        let long = "é".repeat(5_000);
        let attempt = AttemptRecord {
            endpoint: Arc::from(long.as_str()),
            started_after: Duration::ZERO,
            duration: Duration::MAX,
            status: 0,
            outcome: "answered",
            reused: false,
            span: 0,
        };
        let attempts = vec![attempt; 100];
        let notes = vec![long.clone(); 100];
        let bytes = entry(&RequestRecord {
            request_id: &long,
            listener: &long,
            route: &long,
            upstream: Some(&long),
            method: &long,
            host: &long,
            path: &long,
            user_agent: Some(&long),
            attempts: &attempts,
            notes: &notes,
            client: "2001:db8::1".parse().unwrap(),
            ..record()
        });
        assert!(bytes.len() <= ENTRY_MAX, "{}", bytes.len());
        assert!(matches(&bytes, &long, None));
        let read = decode(&bytes).unwrap();
        assert_eq!(read.path.len(), TEXT_MAX);
        assert_eq!(read.client, "2001:db8::1".parse::<IpAddr>().unwrap());
        read.tell();
    }

    #[test]
    fn a_damaged_entry_is_nothing() {
        let whole = entry(&record());
        for length in 0..whole.len() {
            assert!(decode(&whole[..length]).is_none());
        }
        assert!(decode(&whole).is_some());
    }
}
