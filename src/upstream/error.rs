//! What can go wrong with a request towards the app, sorted by what the caller may do about it.
//!
//! The variants answer three questions: was anything written (may the same request be sent again, whatever its
//! method), on which side is the fault (may a breaker count it), and is there something to hand back. Errors that
//! happened before a byte was written leave the request whole with its sender, so a hold or a retry needs no buffered
//! body.

use std::error::Error as StdError;
use std::fmt;
use std::io;

use super::body::{BodyError, Side, Watch};
use super::connect::{ConnectError, ConnectProblem};

pub(super) type BoxError = Box<dyn StdError + Send + Sync>;

/// Why there is no response.
pub enum SendError {
    /// Nothing listens on the endpoint. Nothing was written.
    ConnectRefused { cause: ConnectError },
    /// No connection within the connect timeout. Nothing was written.
    ConnectTimeout,
    /// DNS, TLS, a missing Unix socket, no route, no descriptors: see the cause. Nothing was written.
    ConnectFailed { cause: ConnectError },
    /// The connection went away before the request was written, or the app said it never looked at it (HTTP/2
    /// GOAWAY, REFUSED_STREAM; the body may then be gone). Safe to send again, any method.
    NeverWritten,
    /// Closed or reset after bytes were written and before the response head. The app may have acted on it.
    /// `reused`: on a connection that had served before, so it may be the keep-alive race.
    Reset { reused: bool, cause: BoxError },
    /// The app answered something that is not HTTP, or not within our limits.
    BadResponse { cause: BoxError },
    /// The request body failed: the client's fault (see [`SendError::side`]), never the app's.
    RequestBody { cause: BoxError },
    /// Our own connection task is gone (the worker is shutting down).
    Canceled,
}

impl SendError {
    pub(super) fn connect(cause: ConnectError) -> Self {
        match cause.problem {
            ConnectProblem::Refused => SendError::ConnectRefused { cause },
            ConnectProblem::Timeout => SendError::ConnectTimeout,
            ConnectProblem::Dns
            | ConnectProblem::Unreachable
            | ConnectProblem::Tls
            | ConnectProblem::UnixMissing
            | ConnectProblem::Exhausted
            | ConnectProblem::NotHttp2 => SendError::ConnectFailed { cause },
        }
    }

    /// The connection broke before the answer's head.
    pub(super) fn reset(reused: bool, cause: io::Error) -> Self {
        SendError::Reset { reused, cause: cause.into() }
    }

    /// Sorts an error of hyper's that came without the request.
    pub(super) fn after_write(cause: hyper::Error, watch: &Watch, reused: bool) -> Self {
        if watch.failed() {
            return SendError::RequestBody { cause: cause.into() };
        }
        if cause.is_user() || cause.is_canceled() {
            return SendError::Canceled;
        }
        if let Some(h2) = source::<h2::Error>(&cause) {
            let unprocessed = h2.is_remote() && (h2.is_go_away() || h2.reason() == Some(h2::Reason::REFUSED_STREAM));
            return match () {
                () if unprocessed => SendError::NeverWritten,
                () if h2.is_library() => SendError::BadResponse { cause: cause.into() },
                () => SendError::Reset { reused, cause: cause.into() },
            };
        }
        let unexpected = !(cause.is_incomplete_message() || cause.is_closed() || has_io(&cause) || cause.is_timeout());
        if cause.is_parse() || unexpected {
            SendError::BadResponse { cause: cause.into() }
        } else {
            SendError::Reset { reused, cause: cause.into() }
        }
    }

    /// The stable word for logs, metrics and `AttemptRecord::outcome`.
    pub fn label(&self) -> &'static str {
        match self {
            SendError::ConnectRefused { cause, .. } | SendError::ConnectFailed { cause, .. } => cause.problem.label(),
            SendError::ConnectTimeout => ConnectProblem::Timeout.label(),
            SendError::NeverWritten => "never_written",
            SendError::Reset { .. } => "reset",
            SendError::BadResponse { .. } => "bad_response",
            SendError::RequestBody { .. } => "request_body",
            SendError::Canceled => "canceled",
        }
    }

    /// Whose fault it is. Only [`Side::App`] may count against the endpoint.
    pub fn side(&self) -> Side {
        match self {
            SendError::ConnectFailed { cause, .. } if cause.problem == ConnectProblem::Exhausted => Side::Us,
            SendError::ConnectRefused { .. }
            | SendError::ConnectTimeout
            | SendError::ConnectFailed { .. }
            | SendError::NeverWritten
            | SendError::Reset { .. }
            | SendError::BadResponse { .. } => Side::App,
            SendError::RequestBody { .. } => self.body_error().map_or(Side::Client, |error| error.side),
            SendError::Canceled => Side::Us,
        }
    }

    /// The request body's own error, where it is a [`BodyError`].
    pub fn body_error(&self) -> Option<&BodyError> {
        match self {
            SendError::RequestBody { cause } => source(&**cause),
            _ => None,
        }
    }

    /// No byte of the request was acted on: it may be sent again, whatever its method.
    pub fn was_never_written(&self) -> bool {
        match self {
            SendError::ConnectRefused { .. }
            | SendError::ConnectTimeout
            | SendError::ConnectFailed { .. }
            | SendError::NeverWritten => true,
            SendError::Reset { .. }
            | SendError::BadResponse { .. }
            | SendError::RequestBody { .. }
            | SendError::Canceled => false,
        }
    }
}

impl fmt::Debug for SendError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "SendError({}: {self})", self.label())
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SendError::ConnectRefused { cause, .. } | SendError::ConnectFailed { cause, .. } => cause.fmt(out),
            SendError::ConnectTimeout => out.write_str("not connected in time"),
            SendError::NeverWritten => out.write_str("the connection closed before the request was written"),
            SendError::Reset { reused: true, cause } => write!(out, "a reused connection was closed: {cause}"),
            SendError::Reset { reused: false, cause } => write!(out, "the connection was closed: {cause}"),
            SendError::BadResponse { cause } => write!(out, "the response is not usable: {cause}"),
            SendError::RequestBody { cause } => write!(out, "the request body failed: {cause}"),
            SendError::Canceled => out.write_str("the connection's task is gone"),
        }
    }
}

impl StdError for SendError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            SendError::ConnectRefused { cause, .. } | SendError::ConnectFailed { cause, .. } => Some(cause),
            SendError::Reset { cause, .. } | SendError::BadResponse { cause } | SendError::RequestBody { cause } => {
                Some(&**cause)
            }
            SendError::ConnectTimeout | SendError::NeverWritten | SendError::Canceled => None,
        }
    }
}

/// How a response body ended before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamBodyProblem {
    /// The app closed the connection mid-body: the response must not be completed as if whole.
    Truncated,
    /// The connection or stream was reset.
    Reset,
    /// A bad chunk, a length that does not fit, a protocol error.
    Malformed,
    /// The request body that was still being sent failed and took the connection with it: not the app's fault.
    RequestBody,
}

/// A response body that broke off.
#[derive(Debug)]
pub struct UpstreamBodyError {
    pub problem: UpstreamBodyProblem,
    cause: Option<BoxError>,
}

impl UpstreamBodyError {
    pub(super) fn truncated() -> Self {
        Self { problem: UpstreamBodyProblem::Truncated, cause: None }
    }

    pub(super) fn request_body() -> Self {
        Self { problem: UpstreamBodyProblem::RequestBody, cause: None }
    }

    pub(super) fn of(problem: UpstreamBodyProblem, cause: impl Into<BoxError>) -> Self {
        Self { problem, cause: Some(cause.into()) }
    }

    pub(super) fn of_io(cause: io::Error) -> Self {
        Self::of(of_io(&cause), cause)
    }

    pub(super) fn new(cause: hyper::Error, watch: Option<&Watch>) -> Self {
        let problem = if watch.is_some_and(Watch::failed) {
            UpstreamBodyProblem::RequestBody
        } else if let Some(h2) = source::<h2::Error>(&cause) {
            match h2.get_io() {
                Some(error) => of_io(error),
                None if h2.is_library() => UpstreamBodyProblem::Malformed,
                None => UpstreamBodyProblem::Reset,
            }
        } else if let Some(error) = source::<io::Error>(&cause) {
            of_io(error)
        } else if cause.is_incomplete_message() || cause.is_closed() {
            UpstreamBodyProblem::Truncated
        } else {
            UpstreamBodyProblem::Reset
        };
        Self { problem, cause: Some(cause.into()) }
    }

    /// The stable word for logs and metrics.
    pub fn label(&self) -> &'static str {
        match self.problem {
            UpstreamBodyProblem::Truncated => "truncated",
            UpstreamBodyProblem::Reset => "body_reset",
            UpstreamBodyProblem::Malformed => "body_malformed",
            UpstreamBodyProblem::RequestBody => "request_body",
        }
    }

    /// Whose fault it is.
    pub fn side(&self) -> Side {
        match self.problem {
            UpstreamBodyProblem::Truncated | UpstreamBodyProblem::Reset | UpstreamBodyProblem::Malformed => Side::App,
            UpstreamBodyProblem::RequestBody => Side::Client,
        }
    }
}

impl fmt::Display for UpstreamBodyError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self.problem {
            UpstreamBodyProblem::Truncated => "the app closed the connection before the end of its response",
            UpstreamBodyProblem::Reset => "the app's response was reset",
            UpstreamBodyProblem::Malformed => "the app's response body is malformed",
            UpstreamBodyProblem::RequestBody => "the request body failed while the response was arriving",
        })
    }
}

impl StdError for UpstreamBodyError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.cause.as_deref().map(|cause| cause as _)
    }
}

fn of_io(error: &io::Error) -> UpstreamBodyProblem {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => UpstreamBodyProblem::Truncated,
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => UpstreamBodyProblem::Malformed,
        _ => UpstreamBodyProblem::Reset,
    }
}

fn has_io(error: &hyper::Error) -> bool {
    source::<io::Error>(error).is_some()
}

/// The first `E` in the chain of causes.
pub(super) fn source<'e, E: StdError + 'static>(error: &'e (dyn StdError + 'static)) -> Option<&'e E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}
