//! One HTTP/1.1 connection to the app: a request out, an answer in, and the connection back to its pool.
//!
//! No task of its own: whoever waits for the answer moves its bytes. While the head is awaited the request body is
//! sent and the socket is read in turns, so that an early answer is seen; what is left of the body then gets a task,
//! because the answer's reader may be waiting for a client that is still sending.
//!
//! What happens on the wire is in [`exchange`].
//!
//! A request is only lent. It is whole when nothing of it was written: the connection had ended before, or the socket
//! took not one byte. Everything after the first byte is an error that says so (see [`super::error`]).

mod exchange;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker, ready};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use http::{Method, StatusCode};
use http_body::{Body, Frame};

use self::exchange::State;
use super::error::{BoxError, SendError, UpstreamBodyError};
use super::idle::Idle;
use super::io::{Io, Upgraded};
use super::response::Answering;
use super::spec::Interim;
use super::tally::Tally;
use crate::http::Request;
use crate::http::{self as codec, Extensions, ResponseHead};

/// One connection. Dropping it closes the socket, whatever is going on.
pub(super) struct Conn<B> {
    state: RefCell<State<B>>,
    /// Present exactly while the connection is in its pool's idle stack.
    pub(super) idle_since: Cell<Option<Instant>>,
    /// Its last answer had no body, though apps have sent one behind such answers: it rests before it is used again.
    pub(super) rests: Cell<bool>,
    home: Weak<Idle<B>>,
    tally: Rc<Tally>,
    /// The pool's epoch when it was opened.
    pub(super) epoch: u64,
    /// Counted in the tally's `active`: from opening or taking until idle or dropped.
    busy: Cell<bool>,
}

/// Why there is no answer.
pub(super) enum Failed {
    /// Nothing was written, and the request is as it was.
    NeverWritten,
    Sent(SendError),
}

impl<B> Conn<B> {
    pub(super) fn new(io: Io, home: &Rc<Idle<B>>) -> Rc<Self> {
        let tally = Rc::clone(home.tally());
        tally.opened();
        tally.start();
        Rc::new(Self {
            state: RefCell::new(State::new(io)),
            idle_since: Cell::new(None),
            rests: Cell::new(false),
            home: Rc::downgrade(home),
            epoch: home.epoch(),
            tally,
            busy: Cell::new(true),
        })
    }

    /// Whether the app still keeps this idle connection. If so, `waker` is told when that changes: anything that
    /// arrives now is its end, or bytes that nobody has asked for.
    pub(super) fn is_alive(&self, waker: &Waker) -> bool {
        let state = &mut *self.state.borrow_mut();
        state.fill(&mut Context::from_waker(waker), 0).is_pending()
    }

    pub(super) fn set_busy(&self, busy: bool) {
        if self.busy.replace(busy) != busy {
            if busy { self.tally.start() } else { self.tally.finish() }
        }
    }

    /// The socket of a connection that has switched protocols.
    pub(super) fn hand_over(&self) -> Option<Upgraded> {
        let state = &mut *self.state.borrow_mut();
        let io = state.io.take()?;
        Some(Upgraded::new(io, state.read.split().freeze()))
    }

    fn close(&self) {
        let state = &mut *self.state.borrow_mut();
        state.io = None;
        if let Some(rest) = state.rest.take() {
            rest.abort();
        }
    }
}

impl<B> Drop for Conn<B> {
    fn drop(&mut self) {
        self.set_busy(false);
    }
}

impl<B> Conn<B>
where
    B: Body<Data = Bytes> + Default + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    /// Sends a request and waits for the head of its answer. `reused`: the connection has served before.
    pub(super) fn send(
        self: &Rc<Self>,
        req: &mut Request<B>,
        reused: bool,
        interim: Option<&dyn Interim>,
    ) -> impl Future<Output = Result<ResponseHead, Failed>> {
        let mut begun = false;
        let method = req.method.clone();
        poll_fn(move |cx| {
            let state = &mut *self.state.borrow_mut();
            if !begun {
                if reused && state.fill(cx, 0).is_ready() {
                    return Poll::Ready(Err(Failed::NeverWritten));
                }
                begun = true;
                state.begin(req, cx)?;
                if reused && state.is_sent() {
                    return Poll::Pending; // the socket was looked at before, and has not been polled since
                }
            }
            let head = ready!(state.poll_answer((&method, interim), reused, cx)).map_err(Failed::Sent)?;
            self.rests.set(is_bodiless(&method, head.status));
            self.answered(state, &head);
            Poll::Ready(Ok(head))
        })
    }

    fn answered(self: &Rc<Self>, state: &mut State<B>, head: &ResponseHead) {
        state.body = codec::Body::new(head.framing, Extensions::Skipped);
        state.persists = head.persists;
        if state.upload.is_some() {
            let conn = Rc::clone(self);
            let rest = tokio::task::spawn_local(poll_fn(move |cx| conn.state.borrow_mut().poll_rest(cx)));
            state.rest = Some(rest.abort_handle());
        } else {
            state.out.rest();
        }
    }
}

/// RFC 9112 §6.3: its answer ends with its head, whatever the fields say.
fn is_bodiless(method: &Method, status: StatusCode) -> bool {
    *method == Method::HEAD || status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED
}

impl<B> Answering for Conn<B>
where
    B: Body<Data = Bytes> + Default + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    fn poll_frame(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UpstreamBodyError>>> {
        self.state.borrow_mut().poll_body(cx)
    }

    fn is_ended(&self) -> bool {
        self.state.borrow().body.is_ended()
    }

    fn left(&self) -> Option<u64> {
        self.state.borrow().body.left()
    }

    /// The answer ended cleanly: back to the pool, unless the request's body is still being sent (an early answer),
    /// the connection is closing, or more has come than was asked for.
    fn finish(self: Rc<Self>) {
        let state = self.state.borrow();
        let again = state.persists && state.is_sent() && state.read.is_empty() && state.io.is_some();
        drop(state);
        match self.home.upgrade().filter(|_| again) {
            Some(home) => {
                self.state.borrow_mut().read = BytesMut::new(); // what waits holds no buffer
                home.put(self);
            }
            None => self.close(),
        }
    }

    fn abandon(&self) {
        self.close();
    }
}
