//! What an attempt came to: whose fault it is, what it means to the breaker and to the record, and whether and when
//! another attempt may follow. Only what the app did counts against it.

use std::time::{Duration, SystemTime};

use super::exchange::Exchange;
use super::refusal::Refusal;
use super::upload::{Upload, UploadFailure};
use crate::core::breaker::Outcome;
use crate::core::framing;
use crate::core::retry::{self, Pushback};
use crate::http::Response;
use crate::plan::RoutePlan;
use crate::upstream::{ConnectProblem, SendError, Side, UpstreamBody};

const GRPC_STATUS: &str = "grpc-status";
/// gRPC's UNAVAILABLE.
const GRPC_UNAVAILABLE: &[u8] = b"14";
/// A client is not kept waiting longer because an app said so; it is told instead.
const RETRY_AFTER_WAIT_MAX: Duration = Duration::from_secs(5);

/// What one attempt came to.
pub enum Tried {
    Answer(Response<UpstreamBody>),
    Failed(Refusal),
}

impl Tried {
    pub fn into_answer(self) -> Result<Response<UpstreamBody>, Refusal> {
        match self {
            Tried::Answer(response) => Ok(response),
            Tried::Failed(refusal) => Err(refusal),
        }
    }
}

pub type Sent<T> = Result<T, Stop>;

/// Why there is no answer.
pub enum Stop {
    Error(SendError),
    /// `served` is how long the app had had the whole request.
    Timer {
        refusal: Refusal,
        served: Duration,
    },
}

/// What an attempt means to the breaker, to the record, and to a next attempt.
pub struct Verdict {
    /// For the endpoint: did it take the request and give an answer?
    pub transport: Outcome,
    /// For the route on the upstream: was it a good answer?
    pub answer: Outcome,
    /// The attempt's outcome in logs, metrics and `why`.
    pub label: &'static str,
    pub again: Again,
    /// The app was asked: what came of it may be what this request asks for, and not the endpoint's fault.
    pub reached: bool,
}

impl Verdict {
    /// Both as one, for what does not tell them apart.
    pub fn outcome(&self) -> Outcome {
        match (self.transport, self.answer) {
            (Outcome::Failure | Outcome::Repeated, _) | (_, Outcome::Failure | Outcome::Repeated) => Outcome::Failure,
            (Outcome::Ignored, Outcome::Ignored) => Outcome::Ignored,
            (Outcome::Success | Outcome::Slow | Outcome::Ignored, _) => Outcome::Success,
        }
    }
}

/// Whether another attempt may follow, as far as this one tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    No,
    /// The app may have acted on it: only what may be replayed, after at least so long.
    Replay {
        after: Duration,
    },
    /// The app's own word on when: exactly then.
    Pushback {
        after: Duration,
    },
    /// It cannot have reached the app: any method.
    Unwritten,
    /// Nothing listens there, and requests are held: any method, when something does.
    Refused,
    /// A pooled connection had been closed: at once on a fresh one, any method, at no cost.
    Fresh,
}

/// Sorts out whose fault a failed attempt is.
pub fn judge(sent: Sent<Response<UpstreamBody>>, exchange: &Exchange, route: &RoutePlan) -> (Tried, Verdict) {
    match sent {
        Ok(response) => judge_answer(response, exchange, route),
        Err(Stop::Timer { refusal, served }) => judge_timer(refusal, served, route),
        Err(Stop::Error(error)) => judge_error(&error, exchange, route),
    }
}

/// What did not come in time says nothing of the connection, and something of the app only when the app had its time:
/// a client that asks for a millisecond does not open a breaker, nor does one whose body took the time.
fn judge_timer(refusal: Refusal, served: Duration, route: &RoutePlan) -> (Tried, Verdict) {
    let label = refusal.label();
    let again = replay_if(refusal == Refusal::PerTryTimeout && route.retry.per_try_timeout);
    let clients = refusal == Refusal::RequestBodyTimeout;
    let apps = !clients && (refusal != Refusal::TotalTimeout || served >= route.timeouts.total / 2);
    let answer = if apps { Outcome::Failure } else { Outcome::Ignored };
    (Tried::Failed(refusal), Verdict { transport: Outcome::Ignored, answer, label, again, reached: true })
}

fn judge_error(error: &SendError, exchange: &Exchange, route: &RoutePlan) -> (Tried, Verdict) {
    let retry = &route.retry;
    let unwritten = if retry.connect { Again::Unwritten } else { Again::No };
    let missing = |problem| problem == ConnectProblem::UnixMissing;
    let holds = exchange.upstream.as_ref().is_some_and(|upstream| upstream.hold.is_some());
    let (refusal, again) = match error {
        SendError::ConnectRefused { .. } if holds => (Refusal::ConnectRefused, Again::Refused),
        SendError::ConnectFailed { cause, .. } if holds && missing(cause.problem) => {
            (Refusal::ConnectFailed, Again::Refused)
        }
        SendError::ConnectRefused { .. } => (Refusal::ConnectRefused, unwritten),
        SendError::ConnectTimeout => (Refusal::ConnectTimeout, unwritten),
        SendError::ConnectFailed { .. } => (Refusal::ConnectFailed, unwritten),
        SendError::NeverWritten => (Refusal::Reset, Again::Fresh),
        SendError::Reset { .. } | SendError::Canceled => (Refusal::Reset, replay_if(retry.reset)),
        SendError::BadResponse { .. } => (Refusal::ResponseMalformed, Again::No),
        SendError::RequestBody { .. } => match exchange.upload.as_ref().and_then(Upload::failure) {
            Some(UploadFailure::TooLarge) => (Refusal::BodyTooLarge, Again::No),
            Some(UploadFailure::Client) | None => (Refusal::RequestBroken, Again::No),
        },
    };
    let outcome = match (error.side(), error) {
        // Closing an idle connection is no failure of the app, even when our request was on its way: one that truly
        // fails fails on fresh connections too.
        (Side::Us | Side::Client, _) | (Side::App, SendError::NeverWritten | SendError::Reset { reused: true, .. }) => {
            Outcome::Ignored
        }
        // The prober sees when it is back, sooner than a breaker would.
        (Side::App, _) if again == Again::Refused => Outcome::Ignored,
        (Side::App, _) => Outcome::Failure,
    };
    tracing::debug!(upstream = exchange.upstream_name(), outcome = error.label(), "attempt failed: {error}");
    let reached = match error {
        SendError::ConnectRefused { .. } | SendError::ConnectTimeout | SendError::ConnectFailed { .. } => false,
        SendError::NeverWritten => false,
        SendError::Reset { .. } | SendError::Canceled | SendError::BadResponse { .. } => true,
        SendError::RequestBody { .. } => true,
    };
    let (tried, verdict) = failed(refusal, outcome, error.label(), again);
    (tried, Verdict { reached, ..verdict })
}

fn failed(refusal: Refusal, transport: Outcome, label: &'static str, again: Again) -> (Tried, Verdict) {
    (Tried::Failed(refusal), Verdict { transport, answer: Outcome::Ignored, label, again, reached: true })
}

fn replay_if(condition: bool) -> Again {
    if condition { Again::Replay { after: Duration::ZERO } } else { Again::No }
}

fn judge_answer(response: Response<UpstreamBody>, exchange: &Exchange, route: &RoutePlan) -> (Tried, Verdict) {
    let status = response.status.as_u16();
    if framing::check_response(response.version, status, &response.headers).is_err() {
        let label = Refusal::ResponseMalformed.label();
        return failed(Refusal::ResponseMalformed, Outcome::Failure, label, Again::No);
    }
    let unavailable =
        exchange.is_grpc() && response.headers.get(GRPC_STATUS).is_some_and(|code| code.as_bytes() == GRPC_UNAVAILABLE);
    // A plain 500 is one request's bug; these three say that the app as a whole is in trouble.
    let trouble = matches!(status, 502..=504) || unavailable;
    let again = if unavailable {
        if route.retry.grpc_unavailable { after_unavailable(&response) } else { Again::No }
    } else if status >= 429 && route.retry.statuses.contains(&status) {
        after_status(&response, exchange, route)
    } else {
        Again::No
    };
    let verdict = Verdict {
        transport: Outcome::Success,
        answer: if trouble { Outcome::Failure } else { Outcome::Success },
        label: if unavailable { "grpc_unavailable" } else { "answered" },
        again,
        reached: true,
    };
    (Tried::Answer(response), verdict)
}

/// gRPC's UNAVAILABLE with the server's pushback, where it has one.
fn after_unavailable(response: &Response<UpstreamBody>) -> Again {
    match retry::pushback(&response.headers) {
        Pushback::Unsaid => replay_if(true),
        Pushback::Never => Again::No,
        Pushback::After(after) => Again::Pushback { after },
    }
}

/// A status that is tried again, not before its Retry-After. 429 is tried again only when it has one and when the
/// wait is known to leave time for a whole attempt.
fn after_status(response: &Response<UpstreamBody>, exchange: &Exchange, route: &RoutePlan) -> Again {
    let date = |text: &str| -> Option<SystemTime> { httpdate::parse_http_date(text).ok() };
    let said = response.headers.get("retry-after");
    let said = said.and_then(|value| retry::parse_retry_after(value.as_bytes(), exchange.wall_now(), date));
    let fits = |wait: Duration| {
        let left = exchange.time_left();
        wait <= RETRY_AFTER_WAIT_MAX && route.retry.per_try.is_none_or(|per_try| wait + per_try < left)
    };
    match (response.status.as_u16(), said) {
        (429, None) => Again::No,
        (429, Some(_)) if route.retry.per_try.is_none() => Again::No,
        (_, Some(after)) if fits(after) => Again::Replay { after },
        (_, Some(_)) => Again::No,
        (_, None) => replay_if(true),
    }
}
