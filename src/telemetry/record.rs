//! The plain record of a request that has ended. The proxy fills it; everything here reads it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::Version;

use crate::core::trace;

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    Ok,
    /// The app answered with a server error.
    AppError,
    /// Outrigger answered instead, before the app was asked.
    Refused,
    TimedOut,
    Unreachable,
    /// The app's answer broke off.
    Truncated,
    ClientGone,
    Upgraded,
}

impl Fate {
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

    /// One sentence for a person.
    pub fn words(self) -> &'static str {
        match self {
            Fate::Ok => "The app answered and the client got all of it.",
            Fate::AppError => "The app answered with an error of its own.",
            Fate::Refused => "Outrigger refused it.",
            Fate::TimedOut => "A timer ended it.",
            Fate::Unreachable => "The app could not be reached or hung up without an answer.",
            Fate::Truncated => "The app's answer broke off, and the client was told so by a broken connection.",
            Fate::ClientGone => "The client left before the end.",
            Fate::Upgraded => "It became another protocol, such as a WebSocket.",
        }
    }
}

/// One try at an endpoint.
#[derive(Clone, Debug)]
pub struct AttemptRecord {
    pub endpoint: Arc<str>,
    /// Since the request began.
    pub started_after: Duration,
    /// To the head of the answer, or to the failure.
    pub duration: Duration,
    /// 0 where there was no answer.
    pub status: u16,
    /// `answered`, or what failed: `connect_refused`, `per_try_timeout` …
    pub outcome: &'static str,
    /// On a connection that had served before.
    pub reused: bool,
    pub span: u64,
}

/// A request that has ended.
#[derive(Clone, Copy, Debug)]
pub struct RequestRecord<'a> {
    pub request_id: &'a str,
    pub started: SystemTime,
    pub duration: Duration,
    /// To the head of the app's answer.
    pub first_byte: Option<Duration>,
    pub listener: &'a str,
    /// Empty when no route took it.
    pub route: &'a str,
    pub upstream: Option<&'a str>,
    pub endpoint: Option<&'a str>,
    pub method: &'a str,
    pub scheme: &'static str,
    pub host: &'a str,
    pub path: &'a str,
    pub query: Option<&'a str>,
    pub version: Version,
    pub client: IpAddr,
    pub user_agent: Option<&'a str>,
    /// 0 when the client left before there was one.
    pub status: u16,
    pub fate: Fate,
    /// The refusal's or the timer's label; empty if none.
    pub reason: &'static str,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub attempts: &'a [AttemptRecord],
    pub phases: &'a [(&'static str, Duration)],
    pub trace: Option<trace::Context>,
    /// The caller's span; 0 if none.
    pub parent_span: u64,
    /// Our server span.
    pub span: u64,
    pub sampled: bool,
    /// A health probe, which no objective counts.
    pub probe: bool,
    pub notes: &'a [String],
}

impl RequestRecord<'_> {
    /// Neither an error nor cut short.
    pub fn succeeded(&self) -> bool {
        matches!(self.fate, Fate::Ok | Fate::Upgraded) && self.status < 500
    }

    pub fn version_word(&self) -> &'static str {
        match self.version {
            Version::HTTP_10 => "1.0",
            Version::HTTP_2 => "2",
            Version::HTTP_3 => "3",
            _ => "1.1",
        }
    }
}
