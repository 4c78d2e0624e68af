//! The response body. It carries the exchange to its one end, so that permits, timers and the record are right for
//! streams: a request ends when its last byte has been handed over, or when the client leaves.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Response, StatusCode};
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::Sleep;

use super::exchange::Exchange;
use crate::state::clock;
use crate::telemetry::Fate;
use crate::upstream::UpstreamBody;

/// Why a body ends before its end. Whoever carries it to the client must not complete it as if it were whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyError {
    Truncated,
    IdleTimeout,
    TotalTimeout,
}

impl BodyError {
    pub fn label(self) -> &'static str {
        match self {
            BodyError::Truncated => "response_truncated",
            BodyError::IdleTimeout => "idle_timeout",
            BodyError::TotalTimeout => "total_timeout",
        }
    }

    fn fate(self) -> Fate {
        match self {
            BodyError::Truncated => Fate::Truncated,
            BodyError::IdleTimeout | BodyError::TotalTimeout => Fate::TimedOut,
        }
    }
}

impl std::fmt::Display for BodyError {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(self.label())
    }
}

impl std::error::Error for BodyError {}

/// What the system's buffers take from us at once, so that a client that does not read holds nothing here.
const BUFFERED: u64 = 64 * 1024;

/// A response body on its way to the client.
pub struct Body {
    kind: Kind,
    exchange: Option<Box<Exchange>>,
}

enum Kind {
    Empty,
    Full(Option<Bytes>),
    Stream(Stream),
}

struct Stream {
    body: UpstreamBody,
    idle: Duration,
    /// For answers of a known length; streams are governed by `idle` alone.
    deadline: Option<Instant>,
    /// Made when the app first keeps us waiting.
    timer: Option<Pin<Box<Sleep>>>,
    /// Something came since the timer was set.
    progressed: bool,
}

impl Body {
    pub fn empty() -> Body {
        Body { kind: Kind::Empty, exchange: None }
    }

    pub fn full(bytes: impl Into<Bytes>) -> Body {
        Body { kind: Kind::Full(Some(bytes.into())), exchange: None }
    }

    /// The app's body. `deadline` governs it only when its length is known.
    pub fn stream(body: UpstreamBody, idle: Duration, deadline: Instant) -> Body {
        let deadline = body.size_hint().exact().map(|_| deadline);
        let stream = Stream { body, idle, deadline, timer: None, progressed: true };
        Body { kind: Kind::Stream(stream), exchange: None }
    }

    fn settle(&mut self, failure: Option<BodyError>) {
        if let Some(mut exchange) = self.exchange.take() {
            if let Some(failure) = failure {
                exchange.ended_early(failure.fate(), failure.label());
            }
            exchange.settle();
        }
    }

    fn finished(&self) -> bool {
        match &self.kind {
            Kind::Empty => true,
            Kind::Full(bytes) => bytes.is_none(),
            Kind::Stream(stream) => stream.body.is_end_stream(),
        }
    }
}

/// Gives the response its exchange; from here on the body's end is the request's end.
pub fn carry(mut exchange: Box<Exchange>, mut response: Response<Body>) -> Response<Body> {
    exchange.answered(response.status().as_u16());
    let bodiless = exchange.method == Method::HEAD
        || response.status() == StatusCode::NO_CONTENT
        || response.status() == StatusCode::NOT_MODIFIED
        || response.status() == StatusCode::SWITCHING_PROTOCOLS;
    if bodiless && let Kind::Full(_) = response.body().kind {
        response.body_mut().kind = Kind::Empty;
    }
    let streaming = |stream: &Stream| stream.body.size_hint().exact().is_none_or(|length| length > BUFFERED);
    if let (Some(place), Kind::Stream(stream)) = (&exchange.place, &response.body().kind)
        && streaming(stream)
    {
        exchange.proxy.watch(place);
    }
    match exchange.tunnel.take() {
        // An upgraded connection's exchange lives on in its tunnel.
        Some(tunnel) => tunnel.start(exchange),
        None => response.body_mut().exchange = Some(exchange),
    }
    response
}

impl Drop for Body {
    fn drop(&mut self) {
        if self.exchange.is_none() {
            return;
        }
        let head_only = self.exchange.as_ref().is_some_and(|exchange| exchange.method == Method::HEAD);
        if !self.finished()
            && !head_only
            && let Some(exchange) = &mut self.exchange
        {
            exchange.ended_early(Fate::ClientGone, "");
        }
        self.settle(None);
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let body = self.get_mut();
        let polled = match &mut body.kind {
            Kind::Empty => Poll::Ready(None),
            Kind::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Kind::Stream(stream) => stream.poll(context),
        };
        let frame = std::task::ready!(polled);
        match &frame {
            None => body.settle(None),
            Some(Err(failure)) => body.settle(Some(*failure)),
            Some(Ok(frame)) => {
                if let (Some(data), Some(exchange)) = (frame.data_ref(), &mut body.exchange) {
                    exchange.bytes_out += data.len() as u64;
                }
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.finished()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Kind::Stream(stream) => stream.body.size_hint(),
        }
    }
}

impl Stream {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                self.progressed = true;
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(_))) => Poll::Ready(Some(Err(BodyError::Truncated))),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => self.poll_timer(context).map(|failure| Some(Err(failure))),
        }
    }

    /// The clock is read only when the app keeps us waiting.
    fn poll_timer(&mut self, context: &mut Context<'_>) -> Poll<BodyError> {
        if self.progressed {
            self.progressed = false;
            let now = clock::now();
            let idle = now + self.idle;
            let at = self.deadline.map_or(idle, |deadline| deadline.min(idle)).into();
            match &mut self.timer {
                Some(timer) => timer.as_mut().reset(at),
                None => self.timer = Some(Box::pin(tokio::time::sleep_until(at))),
            }
        }
        let Some(timer) = &mut self.timer else { return Poll::Pending };
        std::task::ready!(timer.as_mut().poll(context));
        let total = self.deadline.is_some_and(|deadline| clock::now() >= deadline);
        Poll::Ready(if total { BodyError::TotalTimeout } else { BodyError::IdleTimeout })
    }
}
