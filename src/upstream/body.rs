//! Request bodies on their way to the app, and the note each leaves about how it ended.
//!
//! hyper reports a failing request body as a failing *send*; without a note of our own an aborted upload would look
//! like a broken app and open its breaker. So every body on HTTP/2 leaves through [`Outgoing`], which records in a
//! [`Watch`] whether the body failed, which is the client's side. Our own HTTP/1.1 needs no such note.

use std::cell::Cell;
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::mpsc;

/// On whose side something went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Client,
    Us,
    App,
}

/// Why a request body ended before its end. `what` is a stable label, e.g. `client_body` or `body_too_large`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyError {
    pub side: Side,
    pub what: &'static str,
}

impl fmt::Display for BodyError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = match self.side {
            Side::Client => "client",
            Side::Us => "outrigger",
            Side::App => "app",
        };
        write!(out, "request body failed ({side}): {}", self.what)
    }
}

impl std::error::Error for BodyError {}

/// A request body as the proxy has it: none, whole, or still arriving.
#[derive(Default)]
pub enum RequestBody {
    #[default]
    Empty,
    /// The whole body; empty `Bytes` are the same as [`RequestBody::Empty`].
    Full(Bytes),
    /// Arriving from the client's connection.
    Incoming(Incoming),
    /// Fed by a [`BodySender`]: tests, and bodies that are made here.
    Channel(mpsc::Receiver<Result<Frame<Bytes>, BodyError>>),
}

/// Feeds a [`RequestBody::Channel`]. Dropping it ends the body cleanly; send an error to end it otherwise.
pub type BodySender = mpsc::Sender<Result<Frame<Bytes>, BodyError>>;

impl RequestBody {
    /// A body of unknown length fed through a channel that holds `frames` frames (at least 1).
    pub fn channel(frames: usize) -> (BodySender, RequestBody) {
        let (sender, receiver) = mpsc::channel(frames.max(1));
        (sender, RequestBody::Channel(receiver))
    }
}

impl From<Incoming> for RequestBody {
    fn from(body: Incoming) -> Self {
        RequestBody::Incoming(body)
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            RequestBody::Empty => Poll::Ready(None),
            RequestBody::Full(bytes) if bytes.is_empty() => Poll::Ready(None),
            RequestBody::Full(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            RequestBody::Incoming(body) => Poll::Ready(
                ready!(Pin::new(body).poll_frame(cx))
                    .map(|frame| frame.map_err(|_| BodyError { side: Side::Client, what: "client_body" })),
            ),
            RequestBody::Channel(receiver) => receiver.poll_recv(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            RequestBody::Empty => true,
            RequestBody::Full(bytes) => bytes.is_empty(),
            RequestBody::Incoming(body) => body.is_end_stream(),
            RequestBody::Channel(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            RequestBody::Empty => SizeHint::with_exact(0),
            RequestBody::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            RequestBody::Incoming(body) => body.size_hint(),
            RequestBody::Channel(_) => SizeHint::default(),
        }
    }
}

/// What is known of the request body that is (or was last) on a connection or stream.
#[derive(Default)]
pub(super) struct Watch {
    failed: Cell<bool>,
}

impl Watch {
    /// The body itself failed: the fault is the client's (or ours), never the app's.
    pub(super) fn failed(&self) -> bool {
        self.failed.get()
    }
}

/// Something that carries a [`Watch`]: a stream.
pub(super) trait Watched {
    fn watch(&self) -> &Watch;
}

/// A request body inside hyper. `W` is kept alive until hyper drops the body.
pub(super) struct Outgoing<B, W: Watched> {
    body: B,
    watched: Option<Rc<W>>,
}

impl<B: Body, W: Watched> Outgoing<B, W> {
    pub(super) fn new(body: B, watched: &Rc<W>) -> Self {
        let watch = watched.watch();
        watch.failed.set(false);
        // A body that is already at its end is never polled: nothing to note, no reference to keep.
        let watched = (!body.is_end_stream()).then(|| Rc::clone(watched));
        Self { body, watched }
    }

    pub(super) fn into_inner(self) -> B {
        self.body
    }
}

impl<B, W> Body for Outgoing<B, W>
where
    B: Body<Data = Bytes> + Unpin,
    W: Watched,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        if let (Some(Err(_)), Some(watched)) = (&frame, &this.watched) {
            watched.watch().failed.set(true);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B, W: Watched> Unpin for Outgoing<B, W> where B: Unpin {}
