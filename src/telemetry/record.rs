//! The plain record of an ended request: what the proxy knows of it, borrowed, without allocation. Telemetry defines
//! the words, the proxy fills them in; nothing here is decided.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::core::trace;

/// One request, at its one end.
#[derive(Clone, Copy, Debug)]
pub struct RequestRecord<'a> {
    pub request_id: &'a str,
    pub started: SystemTime,
    /// From the first byte of the request to the last of the answer.
    pub duration: Duration,
    /// From the start to the app's response head.
    pub first_byte: Option<Duration>,
    pub listener: &'a str,
    /// Empty when no route took the request.
    pub route: &'a str,
    pub upstream: Option<&'a str>,
    /// The address of the last attempt.
    pub endpoint: Option<&'a str>,
    pub method: &'a str,
    pub scheme: &'static str,
    /// The effective host, with its port if one was named.
    pub host: &'a str,
    pub path: &'a str,
    /// As it was received; redacted wherever it is written.
    pub query: Option<&'a str>,
    pub version: http::Version,
    pub client: IpAddr,
    pub user_agent: Option<&'a str>,
    /// 0 when no answer was begun.
    pub status: u16,
    pub fate: Fate,
    /// The label of the refusal, timer or cut; empty if there was none.
    pub reason: &'static str,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub attempts: &'a [AttemptRecord],
    /// Consecutive steps and how long each took.
    pub phases: &'a [(&'static str, Duration)],
    pub trace: Option<trace::Context>,
    /// The caller's span; 0 if there was none.
    pub parent_span: u64,
    /// Our server span.
    pub span: u64,
    pub sampled: bool,
    /// A health probe: in no service level indicator, and logged only when it fails.
    pub probe: bool,
    pub notes: &'a [String],
}

impl RequestRecord<'_> {
    /// Whether nobody has reason to look at this request: it went well for the client and for us.
    pub fn succeeded(&self) -> bool {
        matches!(self.fate, Fate::Ok | Fate::Upgraded) && self.status < 400
    }

    /// Whether the service failed the client: what `keep_errors` keeps.
    pub fn failed(&self) -> bool {
        match self.fate {
            Fate::AppError | Fate::TimedOut | Fate::Unreachable | Fate::Truncated => true,
            Fate::Ok | Fate::Refused | Fate::ClientGone | Fate::Upgraded => self.status >= 500,
        }
    }
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// The app answered, below 500, and the answer arrived whole.
    Ok,
    /// The app answered with 5xx, or with something that is no answer.
    AppError,
    /// Outrigger said no.
    Refused,
    /// One of the timers ended it.
    TimedOut,
    /// No endpoint took it.
    Unreachable,
    /// The answer began and did not end.
    Truncated,
    /// The client left first.
    ClientGone,
    /// It became a WebSocket or another protocol.
    Upgraded,
}

impl Fate {
    pub const ALL: [Fate; 8] = [
        Fate::Ok,
        Fate::AppError,
        Fate::Refused,
        Fate::TimedOut,
        Fate::Unreachable,
        Fate::Truncated,
        Fate::ClientGone,
        Fate::Upgraded,
    ];

    /// The stable word in logs, metrics and docs.
    pub fn label(self) -> &'static str {
        match self {
            Fate::Ok => "ok",
            Fate::AppError => "app_error",
            Fate::Refused => "refused",
            Fate::TimedOut => "timed_out",
            Fate::Unreachable => "unreachable",
            Fate::Truncated => "truncated",
            Fate::ClientGone => "client_gone",
            Fate::Upgraded => "upgraded",
        }
    }
}

/// One try of a request.
#[derive(Clone, Debug)]
pub struct AttemptRecord {
    pub endpoint: Arc<str>,
    /// From the start of the request.
    pub started_after: Duration,
    /// To the head of the answer, or to the failure.
    pub duration: Duration,
    /// 0 when there was no answer.
    pub status: u16,
    /// `answered`, `abandoned`, or what failed: `connect_refused`, `reset`, `per_try_timeout`, …
    pub outcome: &'static str,
    /// It went over a connection that had been used before.
    pub reused: bool,
    /// Its client span.
    pub span: u64,
}

impl AttemptRecord {
    /// Whether it came to an answer that is the app's own, whatever its status.
    pub fn answered(&self) -> bool {
        self.outcome == ANSWERED
    }
}

/// The outcome of an attempt that failed in no way.
pub const ANSWERED: &str = "answered";
/// The outcome of an attempt whose request ended first: the client left, or the drain's time was over.
pub const ABANDONED: &str = "abandoned";

/// `1.1` for HTTP/1.1, as OpenTelemetry's `network.protocol.version` has it.
pub fn protocol(version: http::Version) -> &'static str {
    match version {
        http::Version::HTTP_09 => "0.9",
        http::Version::HTTP_10 => "1.0",
        http::Version::HTTP_2 => "2",
        http::Version::HTTP_3 => "3",
        // `http::Version` is not an enum of ours and cannot be matched to its end; what is left is 1.1.
        _ => "1.1",
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// An ordinary request that went well.
    pub(in crate::telemetry) fn record() -> RequestRecord<'static> {
        RequestRecord {
            request_id: "req-1",
            started: SystemTime::UNIX_EPOCH + Duration::from_micros(1_700_000_000_123_456),
            duration: Duration::from_micros(12_345),
            first_byte: Some(Duration::from_micros(10_001)),
            listener: "web",
            route: "api",
            upstream: Some("app"),
            endpoint: Some("127.0.0.1:3000"),
            method: "GET",
            scheme: "http",
            host: "shop.example.com:8080",
            path: "/users/7",
            query: Some("token=hunter2&page=3"),
            version: http::Version::HTTP_11,
            client: IpAddr::from([192, 0, 2, 7]),
            user_agent: Some("curl/8"),
            status: 200,
            fate: Fate::Ok,
            reason: "",
            bytes_in: 5,
            bytes_out: 1024,
            attempts: &[],
            phases: &[],
            trace: Some(trace::Context { trace_id: 0xabc, parent_id: 0x12, sampled: true, random: true }),
            parent_span: 0x12,
            span: 0x34,
            sampled: true,
            probe: false,
            notes: &[],
        }
    }

    #[test]
    fn every_fate_has_a_word_of_its_own() {
        let words: std::collections::BTreeSet<_> = Fate::ALL.iter().map(|fate| fate.label()).collect();
        assert_eq!(words.len(), Fate::ALL.len());
        for (place, fate) in Fate::ALL.iter().enumerate() {
            assert_eq!(*fate as usize, place);
        }
    }

    #[test]
    fn a_client_error_is_no_success_and_no_failure_of_the_service() {
        let record = RequestRecord { status: 404, ..record() };
        assert!(!record.succeeded() && !record.failed());
        let record = RequestRecord { status: 504, fate: Fate::TimedOut, reason: "first_byte_timeout", ..record };
        assert!(!record.succeeded() && record.failed());
        let record = RequestRecord { status: 200, fate: Fate::Truncated, reason: "reset", ..record };
        assert!(!record.succeeded() && record.failed());
    }
}
