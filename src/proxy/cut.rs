//! The end of a drain's time, for a request that has no answer yet: it gets one that says so, while there is somebody
//! to write it. Of an answer that has begun nothing can be said any more.
//!
//! Looked at whenever the request is polled: a cut wakes every connection, and a request over HTTP/1 is polled by its
//! connection. Over HTTP/2 the connection ends under its streams, which clients may try again elsewhere.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use super::Proxy;
use crate::state::lifecycle::Stage;

impl Proxy {
    /// What `work` comes to; `None` when the drain's time is over first.
    pub(super) async fn unless_cut<W: Future>(&self, mut work: Pin<&mut W>) -> Option<W::Output> {
        let lifecycle = &self.shared.states.lifecycle;
        poll_fn(|cx| match work.as_mut().poll(cx) {
            Poll::Pending if lifecycle.stage() == Stage::Cutting => Poll::Ready(None),
            polled => polled.map(Some),
        })
        .await
    }
}
