//! The response body, and what its end means for the connection it came on.
//!
//! A clean end gives the connection back; anything else (an error, or the reader leaving) drops the lease, which
//! closes an HTTP/1.1 connection and resets an HTTP/2 stream. So a half-read response can never be followed by the
//! next one's bytes. Back-pressure is hyper's: a frame is read from the socket only when this body is polled.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::body::Watch;
use super::error::UpstreamBodyError;

/// What a response holds on to: an HTTP/1.1 connection or an HTTP/2 stream.
pub(super) trait Lease {
    fn watch(&self) -> &Watch;
    /// The response ended cleanly.
    fn finish(self: Rc<Self>);
}

/// The body of a response from the app.
pub struct UpstreamBody {
    incoming: Incoming,
    lease: Option<Rc<dyn Lease>>,
    reused: bool,
}

impl UpstreamBody {
    pub(super) fn new(incoming: Incoming, lease: Rc<dyn Lease>, reused: bool) -> Self {
        let mut body = Self { incoming, lease: Some(lease), reused };
        body.finish_if_ended();
        body
    }

    /// A body whose connection must never be used for another request (after an upgrade).
    pub(super) fn without_lease(incoming: Incoming, reused: bool) -> Self {
        Self { incoming, lease: None, reused }
    }

    /// Whether the response came on a connection that had served before.
    pub fn reused(&self) -> bool {
        self.reused
    }

    /// Servers stop polling a body that says it has ended, so the end must be noticed with the last frame.
    fn finish_if_ended(&mut self) {
        if self.incoming.is_end_stream()
            && let Some(lease) = self.lease.take()
        {
            lease.finish();
        }
    }

    fn on_end(&mut self) -> Option<Result<Frame<Bytes>, UpstreamBodyError>> {
        let lease = self.lease.take();
        // HTTP/2 apps may reset with NO_ERROR, which hyper takes for a clean end; the length knows better.
        if self.incoming.size_hint().exact().is_some_and(|left| left > 0) {
            return Some(Err(UpstreamBodyError::truncated()));
        }
        if let Some(lease) = lease {
            lease.finish();
        }
        None
    }
}

impl Body for UpstreamBody {
    type Data = Bytes;
    type Error = UpstreamBodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UpstreamBodyError>>> {
        let this = self.get_mut();
        Poll::Ready(match ready!(Pin::new(&mut this.incoming).poll_frame(cx)) {
            Some(Ok(frame)) => {
                this.finish_if_ended();
                Some(Ok(frame))
            }
            Some(Err(error)) => {
                let lease = this.lease.take();
                Some(Err(UpstreamBodyError::new(error, lease.as_deref().map(Lease::watch))))
            }
            None => this.on_end(),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl std::fmt::Debug for UpstreamBody {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("UpstreamBody").field("reused", &self.reused).finish_non_exhaustive()
    }
}
