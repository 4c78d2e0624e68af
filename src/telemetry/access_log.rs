//! The access log: one line a request, appended to the worker's buffer, written by one thread in batches. A reader
//! that is too slow costs lines, which are counted, and never a request.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, SystemTime};

use super::record::RequestRecord;
use crate::core::redact;

/// Batches that may wait for the writer.
const BATCHES_MAX: usize = 64;
/// A worker hands its buffer over when it is this full, or at its next tick.
pub const BATCH_BYTES: usize = 32 * 1024;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Stdout,
    Stderr,
    File(PathBuf),
    Off,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Json,
    /// NCSA common log format with referrer and user agent left out.
    Common,
}

#[derive(Clone, Debug, PartialEq)]
pub struct LogOptions {
    pub target: Target,
    pub format: Format,
    /// Share of successes that are logged, 0 to 1; failures always are.
    pub sample_success: f64,
    pub redact_query: Vec<String>,
}

enum Message {
    Lines(Vec<u8>),
    Target(Target),
    /// Answered when everything before it is written.
    Flush(SyncSender<()>),
}

/// The way to the writer thread.
#[derive(Clone)]
pub struct LogSender {
    sender: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
}

impl LogSender {
    /// Starts the writer; a file that cannot be opened is an error now, not later.
    pub fn start(target: Target) -> std::io::Result<LogSender> {
        let out = open(&target)?;
        let (sender, receiver) = sync_channel(BATCHES_MAX);
        let dropped = Arc::new(AtomicU64::new(0));
        let lost = dropped.clone();
        std::thread::Builder::new()
            .name("access-log".to_owned())
            .stack_size(128 * 1024)
            .spawn(move || write_all(&receiver, out, &lost))?;
        Ok(LogSender { sender, dropped })
    }

    /// Hands lines over, or drops and counts them when the writer is behind.
    pub fn send(&self, lines: Vec<u8>) {
        let count = lines.iter().filter(|byte| **byte == b'\n').count() as u64;
        if self.sender.try_send(Message::Lines(lines)).is_err() {
            self.dropped.fetch_add(count, Ordering::Relaxed);
        }
    }

    pub fn retarget(&self, target: Target) {
        let _ = self.sender.try_send(Message::Target(target)); // a writer that is behind keeps its target until the next reload
    }

    /// Waits until what was sent is written, at most `limit`.
    pub fn flush(&self, limit: Duration) {
        let (done, wait) = sync_channel(1);
        if self.sender.try_send(Message::Flush(done)).is_ok() {
            let _ = wait.recv_timeout(limit);
        }
    }

    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

fn open(target: &Target) -> std::io::Result<Option<Box<dyn Write + Send>>> {
    Ok(match target {
        Target::Off => None,
        Target::Stdout => Some(Box::new(std::io::stdout())),
        Target::Stderr => Some(Box::new(std::io::stderr())),
        Target::File(path) => Some(Box::new(OpenOptions::new().create(true).append(true).open(path)?)),
    })
}

fn write_all(receiver: &Receiver<Message>, mut out: Option<Box<dyn Write + Send>>, lost: &AtomicU64) {
    while let Ok(message) = receiver.recv() {
        match message {
            Message::Lines(lines) => {
                let Some(writer) = &mut out else { continue };
                if writer.write_all(&lines).and_then(|()| writer.flush()).is_err() {
                    let count = lines.iter().filter(|byte| **byte == b'\n').count() as u64;
                    lost.fetch_add(count, Ordering::Relaxed);
                }
            }
            Message::Target(target) => match open(&target) {
                Ok(opened) => out = opened,
                Err(error) => tracing::error!(%error, "the access log's file cannot be opened; the old one stays"),
            },
            Message::Flush(done) => drop(done.send(())),
        }
    }
}

/// Appends one line.
pub fn append(line: &mut Vec<u8>, record: &RequestRecord<'_>, options: &LogOptions) {
    match options.format {
        Format::Json => json(line, record, options),
        Format::Common => common(line, record, options),
    }
}

fn json(line: &mut Vec<u8>, record: &RequestRecord<'_>, options: &LogOptions) {
    line.extend_from_slice(b"{\"timestamp\":\"");
    timestamp(line, record.started);
    line.extend_from_slice(b"\",\"http.request.method\":");
    string(line, record.method);
    field(line, "url.scheme", record.scheme);
    field(line, "server.address", record.host);
    field(line, "url.path", record.path);
    if let Some(query) = record.query {
        field(line, "url.query", &redact::query(query, &options.redact_query));
    }
    number(line, "http.response.status_code", u64::from(record.status));
    field(line, "network.protocol.version", record.version_word());
    line.extend_from_slice(b",\"duration_ms\":");
    millis(line, record.duration);
    if let Some(first_byte) = record.first_byte {
        line.extend_from_slice(b",\"first_byte_ms\":");
        millis(line, first_byte);
    }
    number(line, "http.request.body.size", record.bytes_in);
    number(line, "http.response.body.size", record.bytes_out);
    line.extend_from_slice(b",\"client.address\":\"");
    let _ = write!(line, "{}", record.client); // a Vec takes everything
    line.push(b'"');
    if let Some(agent) = record.user_agent {
        field(line, "user_agent.original", agent);
    }
    field(line, "listener", record.listener);
    field(line, "http.route", record.route);
    if let Some(upstream) = record.upstream {
        field(line, "upstream", upstream);
    }
    if let Some(endpoint) = record.endpoint {
        field(line, "endpoint", endpoint);
    }
    field(line, "fate", record.fate.label());
    if !record.reason.is_empty() {
        field(line, "reason", record.reason);
    }
    number(line, "attempts", record.attempts.len() as u64);
    field(line, "request_id", record.request_id);
    if let Some(context) = record.trace {
        line.extend_from_slice(b",\"trace_id\":\"");
        hex(line, context.trace_id, 32);
        line.extend_from_slice(b"\",\"span_id\":\"");
        hex(line, u128::from(record.span), 16);
        line.push(b'"');
    }
    line.extend_from_slice(b"}\n");
}

fn common(line: &mut Vec<u8>, record: &RequestRecord<'_>, options: &LogOptions) {
    let _ = write!(line, "{} - - [", record.client);
    timestamp(line, record.started);
    line.extend_from_slice(b"] \"");
    line.extend_from_slice(record.method.as_bytes());
    line.push(b' ');
    line.extend_from_slice(record.path.as_bytes());
    if let Some(query) = record.query {
        line.push(b'?');
        line.extend_from_slice(redact::query(query, &options.redact_query).as_bytes());
    }
    let _ = writeln!(line, " HTTP/{}\" {} {}", record.version_word(), record.status, record.bytes_out);
}

fn field(line: &mut Vec<u8>, name: &str, value: &str) {
    line.extend_from_slice(b",\"");
    line.extend_from_slice(name.as_bytes());
    line.extend_from_slice(b"\":");
    string(line, value);
}

fn number(line: &mut Vec<u8>, name: &str, value: u64) {
    line.extend_from_slice(b",\"");
    line.extend_from_slice(name.as_bytes());
    line.extend_from_slice(b"\":");
    digits(line, value);
}

/// RFC 8259 §7.
fn string(line: &mut Vec<u8>, value: &str) {
    line.push(b'"');
    for byte in value.bytes() {
        match byte {
            b'"' | b'\\' => line.extend_from_slice(&[b'\\', byte]),
            0..=0x1f => {
                line.extend_from_slice(b"\\u00");
                hex(line, u128::from(byte), 2);
            }
            _ => line.push(byte),
        }
    }
    line.push(b'"');
}

fn digits(line: &mut Vec<u8>, mut value: u64) {
    let mut text = [0; 20];
    let mut place = text.len();
    loop {
        place -= 1;
        text[place] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    line.extend_from_slice(&text[place..]);
}

fn padded(line: &mut Vec<u8>, value: u64, width: u32) {
    for place in (0..width).rev() {
        line.push(b'0' + (value / 10u64.pow(place) % 10) as u8);
    }
}

fn hex(line: &mut Vec<u8>, value: u128, width: u32) {
    for place in (0..width).rev() {
        line.push(b"0123456789abcdef"[(value >> (place * 4)) as usize & 15]);
    }
}

fn millis(line: &mut Vec<u8>, time: Duration) {
    let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    digits(line, micros / 1000);
    line.push(b'.');
    padded(line, micros % 1000, 3);
}

/// RFC 3339 in UTC with milliseconds; days to dates after Howard Hinnant, "chrono-Compatible Low-Level Date
/// Algorithms".
fn timestamp(line: &mut Vec<u8>, at: SystemTime) {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let (seconds, millis) = (since.as_secs(), u64::from(since.subsec_millis()));
    let days = seconds / 86_400 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    for (value, width, after) in [
        (year, 4, b'-'),
        (month, 2, b'-'),
        (day, 2, b'T'),
        (seconds / 3600 % 24, 2, b':'),
        (seconds / 60 % 60, 2, b':'),
        (seconds % 60, 2, b'.'),
        (millis, 3, b'Z'),
    ] {
        padded(line, value, width);
        line.push(after);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_the_standard_says() {
        for (seconds, millis, expected) in [
            (0, 0, "1970-01-01T00:00:00.000Z"),
            (951_782_400, 7, "2000-02-29T00:00:00.007Z"),
            (1_794_441_599, 999, "2026-11-11T23:59:59.999Z"),
        ] {
            let mut line = Vec::new();
            timestamp(&mut line, SystemTime::UNIX_EPOCH + Duration::from_millis(seconds * 1000 + millis));
            assert_eq!(String::from_utf8(line).unwrap(), expected);
        }
    }

    #[test]
    fn whatever_a_client_sends_is_a_json_string() {
        let text = "a\"b\\c\n\u{0}\u{1f}é\u{7f}";
        let mut line = Vec::new();
        string(&mut line, text);
        assert_eq!(serde_json::from_slice::<String>(&line).unwrap(), text);
    }

    #[test]
    fn numbers_are_written_whole() {
        let mut line = Vec::new();
        digits(&mut line, 0);
        line.push(b' ');
        digits(&mut line, u64::MAX);
        line.push(b' ');
        millis(&mut line, Duration::from_micros(12_034));
        assert_eq!(line, b"0 18446744073709551615 12.034");
    }
}
