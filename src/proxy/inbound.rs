//! The client's side of an HTTP/1 request as the proxy sees it: a body that is read from the client's connection when
//! somebody asks for it, and the connection itself, should the app agree to switch protocols.
//!
//! The connection belongs to `serve`, which lies above; this is the seam. One connection feeds one request at a time,
//! so that a body is a number on a shared connection and needs no channel, no task and no box.

use std::cell::OnceCell;
use std::fmt;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::StatusCode;
use http_body::Frame;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;

use crate::core::fields::Fields;

/// The client left before its body ended, or its framing broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken;

/// A connection that hands out the body of its request number `request`. An old number gets [`Broken`].
pub trait Feed {
    fn poll_frame(&self, request: u64, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>>;
    /// No byte and no trailer will come.
    fn is_ended(&self, request: u64) -> bool;
    /// Bytes still to come, where that is known.
    fn left(&self, request: u64) -> Option<u64>;
    /// Nobody will read the rest.
    fn abandon(&self, request: u64);
    /// Says something to the client before the answer to the request that the connection is at.
    fn inform(&self, status: StatusCode, fields: &Fields);
}

/// The client's connection as one that can be told something before an answer (1xx): HTTP/1 ones, once they serve.
#[derive(Clone, Default)]
pub struct Told(OnceCell<Weak<dyn Feed>>);

impl Told {
    /// `feed` serves one request at a time, so that whoever is told something knows what it is about.
    pub fn by(&self, feed: &Rc<dyn Feed>) {
        // There is one feed to a connection.
        let _ = self.0.set(Rc::downgrade(feed));
    }

    pub fn inform(&self, status: StatusCode, fields: &Fields) {
        if let Some(feed) = self.0.get().and_then(Weak::upgrade) {
            feed.inform(status, fields);
        }
    }
}

impl fmt::Debug for Told {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_tuple("Told").field(&self.0.get().is_some()).finish()
    }
}

/// One request's body on its connection.
pub struct Inbound {
    feed: Rc<dyn Feed>,
    request: u64,
}

impl Inbound {
    pub fn new(feed: Rc<dyn Feed>, request: u64) -> Self {
        Inbound { feed, request }
    }

    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        self.feed.poll_frame(self.request, cx)
    }

    pub fn is_ended(&self) -> bool {
        self.feed.is_ended(self.request)
    }

    pub fn left(&self) -> Option<u64> {
        self.feed.left(self.request)
    }
}

impl Drop for Inbound {
    fn drop(&mut self) {
        self.feed.abandon(self.request);
    }
}

/// Raw bytes both ways. Boxed once per upgraded connection.
pub trait Duplex: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Duplex for T {}

/// The client's connection, handed over when the 101 has been written.
pub type ClientUpgrade = oneshot::Receiver<Box<dyn Duplex>>;
