//! The response body. It carries the exchange to its one end, so that permits, timers and the record are right for
//! streams: a request ends when its last byte has been handed over, or when the client leaves.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode};
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::Sleep;

use super::exchange::Exchange;
use super::taking::Taken;
use crate::http::Response;
use crate::state::clock;
use crate::telemetry::Fate;
use crate::upstream::UpstreamBody;

/// Why a body ends before its end. Whoever carries it to the client must not complete it as if it were whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyError {
    Truncated,
    IdleTimeout,
    TotalTimeout,
    /// The client did not take it.
    ClientStalled,
}

impl BodyError {
    pub fn label(self) -> &'static str {
        match self {
            BodyError::Truncated => "response_truncated",
            BodyError::IdleTimeout => "idle_timeout",
            BodyError::TotalTimeout => "total_timeout",
            BodyError::ClientStalled => "client_stalled",
        }
    }

    fn fate(self) -> Fate {
        match self {
            BodyError::Truncated => Fate::Truncated,
            BodyError::IdleTimeout | BodyError::TotalTimeout => Fate::TimedOut,
            BodyError::ClientStalled => Fate::ClientGone,
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
/// An answer that is kept whole and larger than this is watched: smaller ones cost too little.
const UNWATCHED_MAX: usize = 4 * 1024;

/// A response body on its way to the client.
pub struct Body {
    kind: Kind,
    exchange: Option<Box<Exchange>>,
}

enum Kind {
    Empty,
    Full(Option<Bytes>),
    Stream(Stream),
    /// The app's, read to its end before the client has taken anything of it.
    Whole(Box<Whole>),
    /// Watched for a client that does not take it.
    Watched(Rc<RefCell<Taken>>),
    Broken(BodyError),
}

#[derive(Default)]
struct Whole {
    data: Bytes,
    trailers: Option<HeaderMap>,
    /// Why there is no more.
    failure: Option<BodyError>,
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
            Kind::Whole(whole) => whole.data.is_empty() && whole.trailers.is_none() && whole.failure.is_none(),
            Kind::Watched(taken) => taken.borrow().body.finished(),
            Kind::Broken(_) => false,
        }
    }

    /// Gives everything back although the client has not taken the rest; it is told when it asks for it.
    pub(super) fn cut(&mut self, failure: BodyError) {
        self.kind = Kind::Broken(failure);
        self.settle(Some(failure));
    }
}

/// HTTP/2 only, where a body is not even looked at while its client opens no window. A small answer is read to its end,
/// so that the app has done its part and its place is free again; a larger one is watched for being taken.
pub async fn hold(mut response: Response<Body>) -> Response<Body> {
    let body = &mut response.body;
    let Some(exchange) = &mut body.exchange else { return response };
    let Kind::Stream(stream) = &mut body.kind else { return response };
    if exchange.method == Method::HEAD || stream.body.is_end_stream() {
        return response;
    }
    if stream.body.size_hint().exact().is_some_and(|length| length <= BUFFERED) {
        let whole = Box::new(stream.read().await);
        (exchange.turn, exchange.place) = (None, None);
        let watched = whole.data.len() > UNWATCHED_MAX;
        body.kind = Kind::Whole(whole);
        if !watched {
            return response;
        }
    }
    let proxy = exchange.proxy.clone();
    let inner = Body { kind: std::mem::replace(&mut body.kind, Kind::Empty), exchange: body.exchange.take() };
    body.kind = Kind::Watched(proxy.taking.watch(inner));
    response
}

/// Gives the response its exchange; from here on the body's end is the request's end.
pub fn carry(mut exchange: Box<Exchange>, response: &mut Response<Body>) {
    exchange.answered(response.status.as_u16());
    let bodiless = exchange.method == Method::HEAD
        || response.status == StatusCode::NO_CONTENT
        || response.status == StatusCode::NOT_MODIFIED
        || response.status == StatusCode::SWITCHING_PROTOCOLS;
    if bodiless && let Kind::Full(_) = response.body.kind {
        response.body.kind = Kind::Empty;
    }
    let streaming = |stream: &Stream| stream.body.size_hint().exact().is_none_or(|length| length > BUFFERED);
    if let (Some(place), Kind::Stream(stream)) = (&exchange.place, &response.body.kind)
        && streaming(stream)
    {
        exchange.proxy.watch(place);
    }
    match exchange.tunnel.take() {
        // An upgraded connection's exchange lives on in its tunnel.
        Some(tunnel) => tunnel.start(exchange),
        None => response.body.exchange = Some(exchange),
    }
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
            Kind::Whole(whole) => Poll::Ready(whole.next()),
            Kind::Watched(taken) => return taken.borrow_mut().poll_frame(context),
            Kind::Broken(failure) => Poll::Ready(Some(Err(*failure))),
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
            Kind::Whole(whole) if whole.failure.is_none() => SizeHint::with_exact(whole.data.len() as u64),
            Kind::Watched(taken) => taken.borrow().body.size_hint(),
            Kind::Whole(_) | Kind::Broken(_) => SizeHint::default(),
        }
    }
}

impl Whole {
    fn next(&mut self) -> Option<Result<Frame<Bytes>, BodyError>> {
        if !self.data.is_empty() {
            return Some(Ok(Frame::data(std::mem::take(&mut self.data))));
        }
        let trailers = self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers)));
        trailers.or_else(|| self.failure.take().map(Err))
    }
}

impl Stream {
    /// To its end; only for a body whose announced length is small.
    async fn read(&mut self) -> Whole {
        let (mut whole, mut more) = (Whole::default(), BytesMut::new());
        while !self.body.is_end_stream() {
            match poll_fn(|context| self.poll(context)).await {
                None => break,
                Some(Err(failure)) => {
                    whole.failure = Some(failure);
                    break;
                }
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if whole.data.is_empty() && more.is_empty() => whole.data = data,
                    Ok(data) => {
                        more.extend_from_slice(&std::mem::take(&mut whole.data));
                        more.extend_from_slice(&data);
                    }
                    Err(frame) => whole.trailers = frame.into_trailers().ok(),
                },
            }
        }
        if !more.is_empty() {
            whole.data = more.freeze();
        }
        whole
    }

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
