//! Every answer Outrigger invents instead of the app's: its reason, status, words, and whether trying again helps.
//! The one place that makes a response; a new reason does not compile until it has all of them, and
//! `docs/refusals.md` must name it.

mod form;
mod reasons;

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use http::header::{self, HeaderValue};

use reasons::*;

use super::body::Body;
use super::exchange::Exchange;
use super::max_forwards;
use crate::core::framing::Ambiguity;
use crate::http::HeadProblem;
use crate::http::Response;

const PROXY_STATUS: &str = "proxy-status";

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
    /// The drain's time was over before there was an answer. `sent`: the app may be at work on a request that must not be
    /// sent to it twice.
    DrainCut {
        sent: bool,
    },
    /// The rest of a request's head did not come in time.
    HeadTimeout,
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
            Refusal::DrainCut { sent: false } => CUT,
            Refusal::DrainCut { sent: true } => CUT_SENT,
            Refusal::HeadTimeout => HEAD_TIMEOUT,
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
            | Refusal::DrainCut { sent: false }
            | Refusal::ConcurrencyLimit
            | Refusal::Shed
            | Refusal::DeadlineTooNear
            | Refusal::UploadLimit
            | Refusal::ConnectRefused
            | Refusal::ConnectFailed
            | Refusal::ConnectTimeout => Some(super::RETRY_AFTER_DEFAULT),
            Refusal::Ambiguous(_)
            | Refusal::Unread(_)
            | Refusal::HeadTimeout
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
            | Refusal::ListenerGone
            | Refusal::DrainCut { sent: true } => None,
        }
    }

    /// What the operator has to say of it.
    fn message(&self) -> Option<&str> {
        let (Refusal::Maintenance { message, .. } | Refusal::ReadOnly { message, .. }) = self else { return None };
        message.as_deref()
    }

    /// The framing of what follows on the connection is not known any more.
    fn ends_connection(&self) -> bool {
        use Refusal::{Ambiguous, BodyTooLarge, HeadTimeout, RequestBodyTimeout, RequestBroken, Unread};
        matches!(self, Ambiguous(_) | Unread(_) | HeadTimeout | RequestBroken | RequestBodyTimeout | BodyTooLarge)
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
        } else if self == Refusal::Ambiguous(Ambiguity::Connect) {
            headers.insert(header::ALLOW, HeaderValue::from_static(max_forwards::ALLOW));
        }
        if self.ends_connection() && exchange.is_http1() {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// Rounded up: a client that waits this long is not early.
pub fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

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
