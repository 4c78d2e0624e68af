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
    /// From the start to the first attempt; `None` if there was none.
    pub forwarded: Option<Duration>,
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
    /// How long it was in each of the [`PHASES`].
    pub fn phases(&self) -> [Duration; 3] {
        phases(self.duration, self.forwarded, self.first_byte)
    }

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

/// The consecutive steps that are timed: before the first attempt, until the app's response head, until the end.
pub const PHASES: [&str; 3] = ["admit", "attempt", "stream"];

/// How long each of the [`PHASES`] of a request took; what never began took no time.
pub fn phases(duration: Duration, forwarded: Option<Duration>, first_byte: Option<Duration>) -> [Duration; 3] {
    let (forwarded, answered) = (forwarded.unwrap_or(duration), first_byte.unwrap_or(duration));
    [forwarded, answered.saturating_sub(forwarded), duration.saturating_sub(answered)]
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

/// The versions as OpenTelemetry's `network.protocol.version` has them.
pub const PROTOCOLS: [&str; 5] = ["1.1", "1.0", "0.9", "2", "3"];

/// The place among the [`PROTOCOLS`].
pub fn protocol_place(version: http::Version) -> u8 {
    match version {
        http::Version::HTTP_10 => 1,
        http::Version::HTTP_09 => 2,
        http::Version::HTTP_2 => 3,
        http::Version::HTTP_3 => 4,
        // `http::Version` is not an enum of ours and cannot be matched to its end; what is left is 1.1.
        _ => 0,
    }
}

/// `1.1` for HTTP/1.1.
pub fn protocol(version: http::Version) -> &'static str {
    PROTOCOLS[usize::from(protocol_place(version))]
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
            forwarded: Some(Duration::from_micros(150)),
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
            trace: Some(trace::Context { trace_id: 0xabc, parent_id: 0x12, sampled: true, random: true }),
            parent_span: 0x12,
            span: 0x34,
            sampled: true,
            probe: false,
            notes: &[],
        }
    }

    #[test]
    fn the_phases_are_the_whole_request() {
        let ms = Duration::from_millis;
        assert_eq!(phases(ms(10), Some(ms(1)), Some(ms(4))), [ms(1), ms(3), ms(6)]);
        assert_eq!(phases(ms(10), Some(ms(1)), None), [ms(1), ms(9), ms(0)]);
        assert_eq!(phases(ms(10), None, None), [ms(10), ms(0), ms(0)]);
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
