//! HTTP/2 connections: shared by many requests, opened when the streams of the others are used up.
//!
//! hyper's own pooled client opens one connection and queues behind SETTINGS_MAX_CONCURRENT_STREAMS, so long streams
//! block everything. Here each connection's limit is known before its first request (a connection counts as open when
//! the peer's SETTINGS have arrived, which also proves that it speaks HTTP/2), and when all are full another one is
//! opened. Requests that arrive meanwhile wait for it instead of each opening their own; a failure reaches all of them.
//!
//! Requests fill the oldest connection first, so that connections opened for a burst become idle and are swept.

mod opening;

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http2::SendRequest;
use tokio::sync::Notify;

use super::body::{Outgoing, Watch, Watched};
use super::clock::now;
use super::connect::ConnectError;
use super::response::Lease;
use super::sweep::{Sweep, Sweeper};
use super::tally::Tally;
pub(super) use opening::Opening;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// One connection.
struct Multiplex<B> {
    sender: SendRequest<Outgoing<B, Stream>>,
    /// Asks hyper how many streams the peer allows now; `None` once the connection is gone or busy right now.
    allowed: Box<dyn Fn() -> Option<usize>>,
    limit: Cell<usize>,
    usage: Rc<Usage>,
}

impl<B> Multiplex<B> {
    fn has_room(&self) -> bool {
        if let Some(allowed) = (self.allowed)() {
            self.limit.set(allowed.min(STREAMS_MAX));
        }
        !self.sender.is_closed() && self.usage.in_flight.get() < self.limit.get()
    }
}

/// What a connection's streams know about it.
struct Usage {
    in_flight: Cell<usize>,
    served: Cell<bool>,
    /// When the last stream ended (or the connection opened).
    idle_since: Cell<Instant>,
    tally: Rc<Tally>,
    crowd: Rc<Crowd>,
}

/// Requests waiting for a connection that is being opened.
#[derive(Default)]
struct Crowd {
    waiting: Cell<usize>,
    changed: Notify,
}

/// One request's place on a connection; held by its body until sent and by the response until read.
pub(super) struct Stream {
    watch: Watch,
    usage: Rc<Usage>,
}

impl Watched for Stream {
    fn watch(&self) -> &Watch {
        &self.watch
    }
}

impl Lease for Stream {
    fn watch(&self) -> &Watch {
        &self.watch
    }

    fn finish(self: Rc<Self>) {}
}

impl Drop for Stream {
    fn drop(&mut self) {
        let usage = &self.usage;
        usage.in_flight.set(usage.in_flight.get().saturating_sub(1));
        if usage.in_flight.get() == 0 {
            usage.idle_since.set(now());
        }
        usage.tally.finish();
        if usage.crowd.waiting.get() > 0 {
            usage.crowd.changed.notify_one();
        }
    }
}

/// A stream that may be opened now.
pub(super) struct Seat<B> {
    sender: SendRequest<Outgoing<B, Stream>>,
    pub(super) stream: Rc<Stream>,
    pub(super) reused: bool,
}

impl<B> Seat<B>
where
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    /// Sends on this stream. A request that was never written comes back in the error.
    pub(super) fn send(
        &mut self,
        req: Request<B>,
    ) -> impl Future<Output = Result<Response<Incoming>, TrySendError<Request<Outgoing<B, Stream>>>>> + use<B> {
        let req = req.map(|body| Outgoing::new(body, &self.stream));
        self.sender.try_send_request(req)
    }
}

/// The HTTP/2 connections of a pool.
pub(super) struct Streams<B> {
    conns: RefCell<Vec<Rc<Multiplex<B>>>>,
    crowd: Rc<Crowd>,
    opening: Cell<usize>,
    /// The stream limit seen last: how many of the crowd one opening connection will serve.
    expected: Cell<usize>,
    failures: Cell<u64>,
    failure: RefCell<Option<ConnectError>>,
    sweeper: Sweeper,
    me: Weak<Streams<B>>,
    tally: Rc<Tally>,
    idle_timeout: Duration,
}

impl<B: 'static> Streams<B> {
    pub(super) fn new(idle_timeout: Duration, tally: Rc<Tally>) -> Rc<Self> {
        Rc::new_cyclic(|me| Self {
            conns: RefCell::default(),
            crowd: Rc::default(),
            opening: Cell::new(0),
            expected: Cell::new(STREAMS_MAX),
            failures: Cell::new(0),
            failure: RefCell::default(),
            sweeper: Sweeper::default(),
            me: me.clone(),
            tally,
            idle_timeout,
        })
    }

    /// A place on an open connection, if there is one.
    pub(super) fn pick(&self) -> Option<Seat<B>> {
        let conns = self.conns.borrow();
        let conn = conns.iter().find(|conn| conn.has_room())?;
        let usage = &conn.usage;
        usage.in_flight.set(usage.in_flight.get() + 1);
        self.tally.start();
        let reused = usage.served.replace(true);
        let stream = Rc::new(Stream { watch: Watch::default(), usage: Rc::clone(usage) });
        Some(Seat { sender: conn.sender.clone(), stream, reused })
    }

    /// Takes a connection out of use: it gave a request back. Its other streams finish.
    pub(super) fn forget(&self, seat: &Seat<B>) {
        self.remove(&seat.stream.usage);
    }

    fn remove(&self, usage: &Rc<Usage>) {
        let mut conns = self.conns.borrow_mut();
        let found = conns.iter().position(|conn| Rc::ptr_eq(&conn.usage, usage));
        let gone = found.map(|at| conns.remove(at));
        drop(conns);
        drop(gone);
    }

    /// The right to open another connection; `None` when those being opened will do for everyone who waits.
    pub(super) fn begin(&self) -> Option<Opening<'_, B>> {
        let opening = self.opening.get();
        let enough = self.crowd.waiting.get() < opening.saturating_mul(self.expected.get().max(1));
        if opening > 0 && enough || self.conns.borrow().len() + opening >= CONNECTIONS_MAX {
            return None;
        }
        self.opening.set(opening + 1);
        Some(Opening { streams: self })
    }

    pub(super) fn failures(&self) -> u64 {
        self.failures.get()
    }

    /// Waits until something changed. `failures` is the count when the caller began to wait: if opening has failed
    /// since and nobody is trying any more, that failure is the caller's, too.
    pub(super) async fn wait(&self, failures: u64, deadline: tokio::time::Instant) -> Result<(), ConnectError> {
        let place = Waiting::new(&self.crowd);
        let woken = tokio::time::timeout_at(deadline, self.crowd.changed.notified()).await;
        drop(place);
        if woken.is_err() {
            return Err(ConnectError::timeout());
        }
        match &*self.failure.borrow() {
            Some(failure) if self.opening.get() == 0 && self.failures.get() != failures => Err(failure.clone()),
            _ => Ok(()),
        }
    }

    /// Open connections without a stream.
    pub(super) fn idle(&self) -> usize {
        self.conns.borrow().iter().filter(|conn| conn.usage.in_flight.get() == 0).count()
    }

    pub(super) fn clear(&self) {
        let all = std::mem::take(&mut *self.conns.borrow_mut());
        drop(all);
    }
}

impl<B> Sweep for Streams<B> {
    fn sweep(&self, now: Instant) -> bool {
        let mut expired = Vec::new();
        let mut conns = self.conns.borrow_mut();
        let is_idle = |usage: &Usage| {
            usage.in_flight.get() == 0 && now.saturating_duration_since(usage.idle_since.get()) >= self.idle_timeout
        };
        expired.extend(conns.extract_if(.., |conn| is_idle(&conn.usage)));
        let left = !conns.is_empty();
        drop(conns);
        drop(expired);
        left
    }

    fn sweeper(&self) -> &Sweeper {
        &self.sweeper
    }
}

/// A place in the crowd.
struct Waiting<'c>(&'c Crowd);

impl<'c> Waiting<'c> {
    fn new(crowd: &'c Crowd) -> Self {
        crowd.waiting.set(crowd.waiting.get() + 1);
        Self(crowd)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.set(self.0.waiting.get().saturating_sub(1));
    }
}

/// Streams on one connection, whatever the peer allows.
const STREAMS_MAX: usize = 1000;
/// Connections per pool; beyond it requests wait for a stream.
const CONNECTIONS_MAX: usize = 128;
