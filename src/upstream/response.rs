//! The response body, and how a response lets go of its connection.
//!
//! The rule for HTTP/1.1 is one sentence: a connection goes back to its pool only from the *clean end* of a response
//! body, with no byte of the next answer read and no byte of the request left to send. Dropping a response early
//! closes an HTTP/1.1 connection and resets an HTTP/2 stream. So a half-read response can never be followed by the
//! next one's bytes. Bytes are read from the socket only when this body is polled, which is all the back-pressure.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::body::Watch;
use super::error::UpstreamBodyError;
use super::io::Upgraded;

/// What a response on HTTP/2 holds on to: its stream.
pub(super) trait Lease {
    fn watch(&self) -> &Watch;
    /// The response ended cleanly.
    fn finish(self: Rc<Self>);
}

/// An HTTP/1.1 connection whose answer is being read. A trait so that this type does not depend on what was sent.
pub(super) trait Answering {
    fn poll_frame(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UpstreamBodyError>>>;
    fn is_ended(&self) -> bool;
    fn left(&self) -> Option<u64>;
    /// The answer ended cleanly.
    fn finish(self: Rc<Self>);
    /// Nobody will read the rest.
    fn abandon(&self);
}

/// The body of a response from the app.
pub struct UpstreamBody {
    from: From,
    reused: bool,
}

enum From {
    /// `None` once it has ended.
    Http1(Option<Rc<dyn Answering>>),
    Http2(Incoming, Option<Rc<dyn Lease>>),
    /// No body: the connection has become something else.
    Upgraded(Option<Box<Upgraded>>),
    /// Broken off; told one turn later, so that what came before is on its way by then: a server may throw away what it
    /// has not written when a body fails.
    Broken(UpstreamBodyError),
}

impl UpstreamBody {
    pub(super) fn http1(answering: Rc<dyn Answering>, reused: bool) -> Self {
        let mut body = Self { from: From::Http1(Some(answering)), reused };
        body.finish_if_ended();
        body
    }

    pub(super) fn http2(incoming: Incoming, lease: Rc<dyn Lease>, reused: bool) -> Self {
        let mut body = Self { from: From::Http2(incoming, Some(lease)), reused };
        body.finish_if_ended();
        body
    }

    pub(super) fn upgraded(raw: Option<Upgraded>, reused: bool) -> Self {
        Self { from: From::Upgraded(raw.map(Box::new)), reused }
    }

    /// Whether the response came on a connection that had served before.
    pub fn reused(&self) -> bool {
        self.reused
    }

    /// The raw connection behind a 101.
    pub fn take_upgraded(&mut self) -> Option<Box<Upgraded>> {
        match &mut self.from {
            From::Upgraded(raw) => raw.take(),
            From::Http1(_) | From::Http2(..) | From::Broken(_) => None,
        }
    }

    /// Servers stop polling a body that says it has ended, so the end must be noticed with the last frame.
    fn finish_if_ended(&mut self) {
        match &mut self.from {
            From::Http1(conn) if conn.as_ref().is_some_and(|conn| conn.is_ended()) => {
                if let Some(conn) = conn.take() {
                    conn.finish();
                }
            }
            From::Http2(incoming, lease) if incoming.is_end_stream() => {
                if let Some(lease) = lease.take() {
                    lease.finish();
                }
            }
            From::Http1(_) | From::Http2(..) | From::Upgraded(_) | From::Broken(_) => {}
        }
    }
}

/// The next frame of an HTTP/2 stream.
fn poll_http2(
    incoming: &mut Incoming,
    lease: &mut Option<Rc<dyn Lease>>,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, UpstreamBodyError>>> {
    Poll::Ready(match ready!(Pin::new(&mut *incoming).poll_frame(cx)) {
        Some(Ok(frame)) => Some(Ok(frame)),
        Some(Err(error)) => {
            let lease = lease.take();
            Some(Err(UpstreamBodyError::new(error, lease.as_deref().map(Lease::watch))))
        }
        None => {
            let lease = lease.take();
            // An app may reset with NO_ERROR, which hyper takes for a clean end; the length knows better.
            if incoming.size_hint().exact().is_some_and(|left| left > 0) {
                return Poll::Ready(Some(Err(UpstreamBodyError::truncated())));
            }
            if let Some(lease) = lease {
                lease.finish();
            }
            None
        }
    })
}

impl Body for UpstreamBody {
    type Data = Bytes;
    type Error = UpstreamBodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UpstreamBodyError>>> {
        let this = self.get_mut();
        let frame = match &mut this.from {
            From::Http1(None) | From::Upgraded(_) => None,
            From::Broken(_) => return Poll::Ready(this.take_error().map(Err)),
            From::Http1(Some(conn)) => ready!(conn.poll_frame(cx)),
            From::Http2(incoming, lease) => ready!(poll_http2(incoming, lease, cx)),
        };
        match frame {
            Some(Err(error)) => {
                this.give_up();
                this.from = From::Broken(error);
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Some(Ok(_)) | None => this.finish_if_ended(),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.from {
            From::Http1(conn) => conn.is_none(),
            From::Http2(incoming, _) => incoming.is_end_stream(),
            From::Upgraded(_) => true,
            From::Broken(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.from {
            From::Http1(None) | From::Upgraded(_) => SizeHint::with_exact(0),
            From::Http1(Some(conn)) => conn.left().map_or_else(SizeHint::default, SizeHint::with_exact),
            From::Http2(incoming, _) => incoming.size_hint(),
            From::Broken(_) => SizeHint::default(),
        }
    }
}

impl UpstreamBody {
    /// The error, and from then on an end.
    fn take_error(&mut self) -> Option<UpstreamBodyError> {
        match std::mem::replace(&mut self.from, From::Http1(None)) {
            From::Broken(error) => Some(error),
            From::Http1(_) | From::Http2(..) | From::Upgraded(_) => None,
        }
    }

    fn give_up(&mut self) {
        if let From::Http1(conn) = &mut self.from
            && let Some(conn) = conn.take()
        {
            conn.abandon();
        }
    }
}

impl Drop for UpstreamBody {
    fn drop(&mut self) {
        self.give_up();
    }
}

impl std::fmt::Debug for UpstreamBody {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("UpstreamBody").field("reused", &self.reused).finish_non_exhaustive()
    }
}
