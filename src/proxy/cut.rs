//! The end of a drain's time, for a request that has no answer yet: it gets one that says so, while there is somebody
//! to write it. Of an answer that has begun nothing can be said any more.
//!
//! Looked at whenever the request is polled: a cut wakes every connection, and a request over HTTP/1 is polled by its
//! connection. Over HTTP/2 the connection ends under its streams, which clients may try again elsewhere.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use super::Proxy;
use super::refusal::Refusal;
use crate::state::lifecycle::Stage;

impl Proxy {
    /// What `work` comes to, unless the drain's time is over first. Whether the app may have had the request is for the
    /// caller to say.
    pub(super) async fn unless_cut<W, T>(&self, mut work: Pin<&mut W>) -> Result<T, Refusal>
    where
        W: Future<Output = Result<T, Refusal>>,
    {
        let lifecycle = &self.shared.states.lifecycle;
        poll_fn(|cx| match work.as_mut().poll(cx) {
            Poll::Pending if lifecycle.stage() == Stage::Cutting => Poll::Ready(Err(Refusal::DrainCut { sent: false })),
            polled => polled,
        })
        .await
    }
}
