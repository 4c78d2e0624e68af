//! One HTTP/1 client connection: its socket, what has been read and not yet understood, and the body of the request it
//! is at.
//!
//! Shared by the connection's task and the request's body, on one thread. They never read at the same time: while a
//! body is coming only its reader reads, before and after it only the task, which then learns when the client leaves.
//! Idle, it holds no buffer at all.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http_body::Frame;
use tokio::io::AsyncWrite;

use super::activity::Activity;
use super::http::{Ending, HEAD_BYTES_MAX};
use super::io::ConnectionIo;
use super::stream::Stream;
use crate::core::fields::Fields;
use crate::http::encode::{self, CONTINUE, Persistence};
use crate::http::wire::{Outbound, poll_fill};
use crate::http::{Body, Extensions, Framing, HeadReader, Piece, RequestHead, Writing};
use crate::proxy::{Feed, inbound::Broken};

pub struct Link {
    inner: RefCell<Inner>,
    activity: Arc<Activity>,
    manners: Manners,
}

/// What a listener's clients can do.
#[derive(Clone, Copy)]
pub struct Manners {
    /// They may end their bytes and wait for the answer; otherwise they have left.
    pub half_close: bool,
    /// They know interim answers from answers.
    pub early_hints: bool,
}

struct Inner {
    /// `None` once it was handed on.
    stream: Option<Stream>,
    read: BytesMut,
    /// What the last read brought.
    flow: usize,
    heads: HeadReader,
    /// The request the connection is at.
    request: u64,
    body: Body,
    /// Nobody will read the rest of the body.
    abandoned: bool,
    /// The client waits for 100 before it sends its body.
    continues: bool,
    /// A 100 is among what is left to write.
    owes: bool,
    /// What is left to write of what is said before the answer.
    interim: Vec<u8>,
    /// The task, while somebody else reads.
    task: Option<Waker>,
}

impl Link {
    pub fn new(stream: Stream, first: Bytes, manners: Manners, activity: Arc<Activity>) -> Rc<Self> {
        let inner = Inner {
            stream: Some(stream),
            read: BytesMut::from(first),
            flow: 0,
            heads: HeadReader::new(HEAD_BYTES_MAX),
            request: 0,
            body: Body::new(Framing::None, Extensions::Refused),
            abandoned: true,
            continues: false,
            owes: false,
            interim: Vec::new(),
            task: None,
        };
        Rc::new(Link { inner: RefCell::new(inner), activity, manners })
    }

    /// The next request's head and number; `None` when the client has ended the connection between two requests.
    pub fn poll_head(&self, cx: &mut Context<'_>) -> Poll<Result<Option<(RequestHead, u64)>, Ending>> {
        let inner = &mut *self.inner.borrow_mut();
        loop {
            match inner.heads.request(&mut inner.read) {
                Ok(Some(head)) => {
                    inner.begin(&head);
                    return Poll::Ready(Ok(Some((head, inner.request))));
                }
                Ok(None) => {}
                Err(problem) => return Poll::Ready(Err(Ending::Malformed(Some(problem)))),
            }
            if inner.read.is_empty() {
                inner.read = BytesMut::new(); // what waits holds no buffer
            } else {
                self.activity.read_some();
            }
            match ready!(inner.fill(cx, 0)) {
                Ok(0) if inner.read.is_empty() => return Poll::Ready(Ok(None)),
                Ok(0) | Err(_) => return Poll::Ready(Err(Ending::Broken)),
                Ok(_) => {}
            }
        }
    }

    /// Nothing has come that is not understood.
    pub fn is_silent(&self) -> bool {
        self.inner.borrow().read.is_empty()
    }

    /// Ready when the client has left. While its body is coming that is for the body's reader to find out; what comes
    /// behind the request is kept for later, and then nobody looks further.
    pub fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<Ending> {
        let inner = &mut *self.inner.borrow_mut();
        if matches!(inner.poll_interim(cx), Poll::Ready(Err(_))) {
            return Poll::Ready(Ending::Broken);
        }
        if !inner.body.is_ended() {
            if inner.task.as_ref().is_none_or(|task| !task.will_wake(cx.waker())) {
                inner.task = Some(cx.waker().clone());
            }
            return Poll::Pending;
        }
        if !inner.read.is_empty() {
            return Poll::Pending;
        }
        inner.read = BytesMut::new();
        match ready!(inner.fill(cx, 0)) {
            Ok(0) if self.manners.half_close => Poll::Pending,
            Ok(0) | Err(_) => Poll::Ready(Ending::Broken),
            Ok(_) => Poll::Pending,
        }
    }

    /// Writes what there is and notes whether the client takes it.
    pub fn poll_write(&self, out: &mut Outbound, cx: &mut Context<'_>) -> Poll<Result<(), Ending>> {
        let inner = &mut *self.inner.borrow_mut();
        let Some(stream) = &mut inner.stream else { return Poll::Ready(Err(Ending::Broken)) };
        match out.poll_write(stream, cx) {
            Poll::Ready(done) => {
                self.activity.wrote_some();
                Poll::Ready(done.map_err(|_| Ending::Broken))
            }
            Poll::Pending => {
                self.activity.write_blocked();
                Poll::Pending
            }
        }
    }

    /// Whether nothing of the request's body is left to read, or what is left is already here and can be skipped:
    /// only then may the connection go on once its answer is out. `at_end`: the answer is out.
    pub fn is_read(&self, at_end: bool) -> bool {
        let inner = &mut *self.inner.borrow_mut();
        if inner.abandoned || at_end {
            while !inner.body.is_ended() {
                match inner.body.read(&mut inner.read) {
                    Ok(Some(_)) => {}
                    Ok(None) | Err(_) => return false,
                }
            }
        }
        true
    }

    /// The request's body is wanted and has not ended.
    pub fn is_coming(&self) -> bool {
        let inner = self.inner.borrow();
        !inner.abandoned && !inner.body.is_ended()
    }

    /// The answer has begun: from here on nothing may be put in. What is left of what was said before goes out first.
    pub fn answering(&self) -> Vec<u8> {
        let inner = &mut *self.inner.borrow_mut();
        inner.continues = false;
        std::mem::take(&mut inner.interim)
    }

    /// The request is over: whoever still holds its body gets nothing more.
    pub fn end(&self) {
        let inner = &mut *self.inner.borrow_mut();
        inner.request += 1;
        inner.abandoned = true;
        inner.task = None;
    }

    /// The raw connection, with what has been read behind the request.
    pub fn hand_over(&self) -> Option<ConnectionIo> {
        let inner = &mut *self.inner.borrow_mut();
        let stream = inner.stream.take()?;
        Some(ConnectionIo::new(stream, inner.read.split().freeze(), Arc::clone(&self.activity)))
    }

    /// Leaves the socket to whoever ends the connection.
    pub fn give_back(&self) {
        if let Some(stream) = self.inner.borrow_mut().stream.take() {
            self.activity.give_back(stream);
        }
    }
}

impl Inner {
    fn begin(&mut self, head: &RequestHead) {
        self.request += 1;
        // Unclear framing: an end is never found, so that nothing behind the head is taken for anything.
        let framing = if head.framing == Framing::Unclear { Framing::UntilClose } else { head.framing };
        self.body = Body::new(framing, Extensions::Refused);
        self.abandoned = head.framing == Framing::None || head.framing == Framing::Unclear;
        self.continues = head.continues && !self.abandoned;
        (self.owes, self.interim) = (false, Vec::new());
    }

    fn fill(&mut self, cx: &mut Context<'_>, expected: u64) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Some(stream) => poll_fill(stream, cx, &mut self.read, expected, &mut self.flow),
            None => Poll::Ready(Ok(0)),
        }
    }

    /// Says 100 when the body is first asked for and nothing of it has come (RFC 9110 §10.1.1).
    fn poll_continue(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.continues && self.read.is_empty() {
            self.interim.extend_from_slice(CONTINUE);
            self.owes = true;
        }
        self.continues = false;
        let written = self.poll_interim(cx)?;
        self.owes &= written.is_pending();
        // Only a client that waits for it must have it before it sends on.
        if self.owes { Poll::Pending } else { Poll::Ready(Ok(())) }
    }

    fn poll_interim(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.interim.is_empty() {
            let Some(stream) = &mut self.stream else { return Poll::Ready(Err(io::ErrorKind::NotConnected.into())) };
            let written = ready!(std::pin::Pin::new(&mut *stream).poll_write(cx, &self.interim))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.interim.drain(..written.min(self.interim.len()));
            if self.interim.is_empty() {
                // Over TLS it may be waiting on this side; should it, reading on pushes it out.
                let _ = std::pin::Pin::new(stream).poll_flush(cx)?;
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        loop {
            match self.body.read(&mut self.read) {
                Ok(Some(Piece::Data(data))) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Ok(Some(Piece::Trailers(trailers))) => return Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
                Ok(Some(Piece::End)) => return Poll::Ready(None),
                Ok(None) => {}
                Err(_) => return Poll::Ready(Some(Err(Broken))),
            }
            if ready!(self.poll_continue(cx)).is_err() {
                return Poll::Ready(Some(Err(Broken)));
            }
            let expected = self.body.coming();
            match ready!(self.fill(cx, expected)) {
                Ok(0) | Err(_) => {
                    // A request's body never ends with its connection, so that this is a truncation.
                    let _ = self.body.end_of_input();
                    return Poll::Ready(Some(Err(Broken)));
                }
                Ok(_) => {}
            }
        }
    }
}

impl Feed for Link {
    fn poll_frame(&self, request: u64, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let inner = &mut *self.inner.borrow_mut();
        if inner.request != request || inner.abandoned {
            return Poll::Ready(Some(Err(Broken)));
        }
        let frame = ready!(inner.poll_body(cx));
        // From here on the task looks whether the client is still there.
        if inner.body.is_ended()
            && let Some(task) = inner.task.take()
        {
            task.wake();
        }
        Poll::Ready(frame)
    }

    fn is_ended(&self, request: u64) -> bool {
        let inner = self.inner.borrow();
        inner.request == request && inner.body.is_ended()
    }

    fn left(&self, request: u64) -> Option<u64> {
        let inner = self.inner.borrow();
        if inner.request == request { inner.body.left() } else { None }
    }

    fn abandon(&self, request: u64) {
        let inner = &mut *self.inner.borrow_mut();
        if inner.request == request {
            inner.abandoned = true;
        }
    }

    /// Kept for the task, which writes it when the work for the answer waits. A client that does not take it misses it.
    fn inform(&self, status: StatusCode, fields: &Fields) {
        let interim = &mut self.inner.borrow_mut().interim;
        if self.manners.early_hints && interim.len() < INTERIM_MAX {
            encode::response_head(interim, status, None, fields, (Writing::Never, Persistence::Usual));
        }
    }
}

/// Bytes that wait to be said before an answer, beyond which nothing is added.
const INTERIM_MAX: usize = 16 * 1024;
