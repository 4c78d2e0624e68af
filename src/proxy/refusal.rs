//! Every answer Outrigger invents instead of the app's: its reason, status, words, and whether trying again helps.
//! The one place that makes a response; a new reason does not compile until it has all of them, and
//! `docs/refusals.md` must name it.

mod form;

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use http::header::{self, HeaderName, HeaderValue};

use super::body::Body;
use super::exchange::Exchange;
use crate::core::framing::Ambiguity;
use crate::http::HeadProblem;
use crate::http::Response;
use crate::telemetry::Fate;

const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

/// Why the app's answer is not given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The request could be read in two ways, or not at all.
    Ambiguous(Ambiguity),
    /// Its head could not be read.
    Unread(HeadProblem),
    /// The client's body was not what it announced.
    RequestBroken,
    RequestBodyTimeout,
    BodyTooLarge,
    RouteNotFound,
    MethodNotAllowed {
        allow: String,
    },
    /// HTTPS is required, and the host is not one we may redirect to.
    Misdirected,
    LoopDetected,
    RateLimited {
        retry_after: Duration,
    },
    /// The store that a limit is counted in is away, and the limit is to be closed then.
    LimitUnavailable,
    ConcurrencyLimit,
    /// It had to leave the queue for what matters more.
    Shed,
    /// It could not have been answered by its deadline.
    DeadlineTooNear,
    /// The places for uploads that are still coming are all taken.
    UploadLimit,
    BreakerOpen {
        retry_after: Duration,
    },
    ConnectRefused,
    ConnectTimeout,
    ConnectFailed,
    FirstByteTimeout,
    PerTryTimeout,
    TotalTimeout,
    Reset,
    ResponseMalformed,
    UpgradeFailed,
    /// A listener that the plan no longer has.
    ListenerGone,
    /// Somebody works on the service or route.
    Maintenance {
        retry_after: Duration,
        message: Option<Arc<str>>,
    },
    /// The method may change something, and nothing may change now.
    ReadOnly {
        retry_after: Duration,
        message: Option<Arc<str>>,
    },
    /// The route's flag is off.
    RouteDisabled {
        retry_after: Duration,
    },
}

/// What there is to say of a reason.
struct Entry {
    label: &'static str,
    status: StatusCode,
    title: &'static str,
    /// RFC 9209 error type.
    proxy_error: &'static str,
    fate: Fate,
    /// gRPC status code.
    grpc: u8,
}

const fn entry(
    label: &'static str,
    status: StatusCode,
    title: &'static str,
    proxy_error: &'static str,
    fate: Fate,
    grpc: u8,
) -> Entry {
    Entry { label, status, title, proxy_error, fate, grpc }
}

impl Refusal {
    /// The stable word in logs, metrics and bodies.
    pub fn label(&self) -> &'static str {
        self.entry().label
    }

    pub fn status(&self) -> StatusCode {
        self.entry().status
    }

    fn entry(&self) -> Entry {
        match self {
            Refusal::Ambiguous(what) => Entry {
                label: what.label(),
                status: StatusCode::from_u16(what.status()).unwrap_or(StatusCode::BAD_REQUEST),
                title: what.explain(),
                ..REQUEST_BROKEN
            },
            Refusal::Unread(problem) => {
                Entry { label: problem.label(), status: problem.status(), title: problem.explain(), ..REQUEST_BROKEN }
            }
            Refusal::RequestBroken => REQUEST_BROKEN,
            Refusal::RequestBodyTimeout => REQUEST_BODY_TIMEOUT,
            Refusal::BodyTooLarge => BODY_TOO_LARGE,
            Refusal::RouteNotFound => ROUTE_NOT_FOUND,
            Refusal::MethodNotAllowed { .. } => METHOD_NOT_ALLOWED,
            Refusal::Misdirected => MISDIRECTED,
            Refusal::LoopDetected => LOOP_DETECTED,
            Refusal::RateLimited { .. } => RATE_LIMITED,
            Refusal::LimitUnavailable => LIMIT_UNAVAILABLE,
            Refusal::ConcurrencyLimit => CONCURRENCY_LIMIT,
            Refusal::Shed => SHED,
            Refusal::DeadlineTooNear => DEADLINE_TOO_NEAR,
            Refusal::UploadLimit => UPLOAD_LIMIT,
            Refusal::BreakerOpen { .. } => BREAKER_OPEN,
            Refusal::ConnectRefused => CONNECT_REFUSED,
            Refusal::ConnectTimeout => CONNECT_TIMEOUT,
            Refusal::ConnectFailed => CONNECT_FAILED,
            Refusal::FirstByteTimeout => FIRST_BYTE_TIMEOUT,
            Refusal::PerTryTimeout => PER_TRY_TIMEOUT,
            Refusal::TotalTimeout => TOTAL_TIMEOUT,
            Refusal::Reset => RESET,
            Refusal::ResponseMalformed => RESPONSE_MALFORMED,
            Refusal::UpgradeFailed => UPGRADE_FAILED,
            Refusal::ListenerGone => LISTENER_GONE,
            Refusal::Maintenance { .. } => MAINTENANCE,
            Refusal::ReadOnly { .. } => READ_ONLY,
            Refusal::RouteDisabled { .. } => ROUTE_DISABLED,
        }
    }

    /// How long a client should wait before it tries again; `None` where waiting does not help.
    fn retry_after(&self) -> Option<Duration> {
        match self {
            Refusal::RateLimited { retry_after }
            | Refusal::BreakerOpen { retry_after }
            | Refusal::Maintenance { retry_after, .. }
            | Refusal::ReadOnly { retry_after, .. }
            | Refusal::RouteDisabled { retry_after } => Some(*retry_after),
            Refusal::LimitUnavailable
            | Refusal::ConcurrencyLimit
            | Refusal::Shed
            | Refusal::DeadlineTooNear
            | Refusal::UploadLimit
            | Refusal::ConnectRefused
            | Refusal::ConnectFailed
            | Refusal::ConnectTimeout => Some(super::RETRY_AFTER_DEFAULT),
            Refusal::Ambiguous(_)
            | Refusal::Unread(_)
            | Refusal::RequestBroken
            | Refusal::RequestBodyTimeout
            | Refusal::BodyTooLarge
            | Refusal::RouteNotFound
            | Refusal::MethodNotAllowed { .. }
            | Refusal::Misdirected
            | Refusal::LoopDetected
            | Refusal::FirstByteTimeout
            | Refusal::PerTryTimeout
            | Refusal::TotalTimeout
            | Refusal::Reset
            | Refusal::ResponseMalformed
            | Refusal::UpgradeFailed
            | Refusal::ListenerGone => None,
        }
    }

    /// What the operator has to say of it.
    fn message(&self) -> Option<&str> {
        let (Refusal::Maintenance { message, .. } | Refusal::ReadOnly { message, .. }) = self else { return None };
        message.as_deref()
    }

    /// The framing of what follows on the connection is not known any more.
    fn ends_connection(&self) -> bool {
        use Refusal::{Ambiguous, BodyTooLarge, RequestBodyTimeout, RequestBroken, Unread};
        matches!(self, Ambiguous(_) | Unread(_) | RequestBroken | RequestBodyTimeout | BodyTooLarge)
    }

    /// The response: problem+json (RFC 9457), HTML for a browser, a status for gRPC.
    pub fn answer(self, exchange: &mut Exchange) -> Response<Body> {
        let entry = self.entry();
        exchange.refused(entry.fate, entry.label);
        let mut response = form::answer(&entry, self.message(), self.retry_after(), exchange);
        let headers = &mut response.headers;
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Ok(value) = HeaderValue::from_str(&format!("outrigger; error={}", entry.proxy_error)) {
            headers.insert(PROXY_STATUS, value);
        }
        if let Some(wait) = self.retry_after() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(whole_seconds(wait)));
        }
        if let Refusal::MethodNotAllowed { allow } = &self
            && let Ok(value) = HeaderValue::from_str(allow)
        {
            headers.insert(header::ALLOW, value);
        }
        if self.ends_connection() && exchange.is_http1() {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

const fn timeout(label: &'static str, title: &'static str) -> Entry {
    entry(label, StatusCode::GATEWAY_TIMEOUT, title, "http_response_timeout", Fate::TimedOut, 4)
}

/// Rounded up: a client that waits this long is not early.
pub fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

const REQUEST_BROKEN: Entry = entry(
    "request_broken",
    StatusCode::BAD_REQUEST,
    "The request body is malformed.",
    "http_request_error",
    Fate::Refused,
    3,
);
const REQUEST_BODY_TIMEOUT: Entry = entry(
    "request_body_timeout",
    StatusCode::REQUEST_TIMEOUT,
    "The request body arrived too slowly.",
    "http_request_error",
    Fate::TimedOut,
    4,
);
const BODY_TOO_LARGE: Entry = entry(
    "body_too_large",
    StatusCode::PAYLOAD_TOO_LARGE,
    "The request body is larger than this route allows.",
    "http_request_denied",
    Fate::Refused,
    8,
);
const ROUTE_NOT_FOUND: Entry = entry(
    "route_not_found",
    StatusCode::NOT_FOUND,
    "No route matches this host and path.",
    "destination_not_found",
    Fate::Refused,
    12,
);
const METHOD_NOT_ALLOWED: Entry = entry(
    "method_not_allowed",
    StatusCode::METHOD_NOT_ALLOWED,
    "This path does not accept this method.",
    "http_request_denied",
    Fate::Refused,
    12,
);
const MISDIRECTED: Entry = entry(
    "misdirected",
    StatusCode::MISDIRECTED_REQUEST,
    "This host is not served here over HTTPS.",
    "http_request_denied",
    Fate::Refused,
    9,
);
const LOOP_DETECTED: Entry = entry(
    "loop_detected",
    StatusCode::LOOP_DETECTED,
    "The request has passed here too often.",
    "proxy_loop_detected",
    Fate::Refused,
    13,
);
const RATE_LIMITED: Entry =
    entry("rate_limited", StatusCode::TOO_MANY_REQUESTS, "Too many requests.", "http_request_denied", Fate::Refused, 8);
const LIMIT_UNAVAILABLE: Entry = entry(
    "limit_unavailable",
    StatusCode::SERVICE_UNAVAILABLE,
    "The service cannot count requests at present.",
    "http_request_denied",
    Fate::Refused,
    14,
);
const CONCURRENCY_LIMIT: Entry = busy("concurrency_limit", "Too many requests are in progress.");
const fn busy(label: &'static str, title: &'static str) -> Entry {
    entry(label, StatusCode::SERVICE_UNAVAILABLE, title, "connection_limit_reached", Fate::Refused, 8)
}
const SHED: Entry = busy("shed", "The service is busy with more important requests.");
const DEADLINE_TOO_NEAR: Entry = busy("deadline_too_near", "The service is busy and would answer too late.");
const UPLOAD_LIMIT: Entry = busy("upload_limit", "Too many uploads are in progress.");
const BREAKER_OPEN: Entry = entry(
    "breaker_open",
    StatusCode::SERVICE_UNAVAILABLE,
    "The service has been failing and is being given time.",
    "destination_unavailable",
    Fate::Refused,
    14,
);
const CONNECT_REFUSED: Entry = entry(
    "connect_refused",
    StatusCode::BAD_GATEWAY,
    "The service is not listening.",
    "connection_refused",
    Fate::Unreachable,
    14,
);
const CONNECT_TIMEOUT: Entry = entry(
    "connect_timeout",
    StatusCode::GATEWAY_TIMEOUT,
    "The service could not be reached in time.",
    "connection_timeout",
    Fate::TimedOut,
    14,
);
const CONNECT_FAILED: Entry = entry(
    "connect_failed",
    StatusCode::BAD_GATEWAY,
    "The service could not be reached.",
    "destination_unavailable",
    Fate::Unreachable,
    14,
);
const FIRST_BYTE_TIMEOUT: Entry = timeout("first_byte_timeout", "The service did not begin to answer in time.");
const PER_TRY_TIMEOUT: Entry = timeout("per_try_timeout", "The service did not answer an attempt in time.");
const TOTAL_TIMEOUT: Entry = timeout("total_timeout", "The service did not answer in time.");
const RESET: Entry = entry(
    "reset",
    StatusCode::BAD_GATEWAY,
    "The service ended the connection without an answer.",
    "connection_terminated",
    Fate::Unreachable,
    14,
);
const RESPONSE_MALFORMED: Entry = entry(
    "response_malformed",
    StatusCode::BAD_GATEWAY,
    "The service gave an answer that is not valid HTTP.",
    "http_protocol_error",
    Fate::AppError,
    13,
);
const UPGRADE_FAILED: Entry = entry(
    "upgrade_failed",
    StatusCode::BAD_GATEWAY,
    "The service changed protocols without being asked.",
    "http_upgrade_failed",
    Fate::AppError,
    13,
);
const MAINTENANCE: Entry = entry(
    "maintenance",
    StatusCode::SERVICE_UNAVAILABLE,
    "The service is being worked on.",
    "http_request_denied",
    Fate::Refused,
    14,
);
const READ_ONLY: Entry = entry(
    "read_only",
    StatusCode::SERVICE_UNAVAILABLE,
    "The service can be read, but nothing can be changed for now.",
    "http_request_denied",
    Fate::Refused,
    14,
);
const ROUTE_DISABLED: Entry = entry(
    "route_disabled",
    StatusCode::SERVICE_UNAVAILABLE,
    "This part of the service is switched off.",
    "http_request_denied",
    Fate::Refused,
    14,
);
const LISTENER_GONE: Entry = entry(
    "listener_gone",
    StatusCode::MISDIRECTED_REQUEST,
    "This address is no longer served.",
    "destination_unavailable",
    Fate::Refused,
    14,
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_rounded_up_to_whole_seconds() {
        assert_eq!(whole_seconds(Duration::from_secs(1)), 1);
        assert_eq!(whole_seconds(Duration::from_nanos(1)), 1);
        assert_eq!(whole_seconds(Duration::from_millis(1001)), 2);
    }
}
