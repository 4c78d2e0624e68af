//! HTTP/2 connections: shared by many requests, opened when the streams of the others are used up.
//!
//! hyper's own pooled client opens one connection and queues behind SETTINGS_MAX_CONCURRENT_STREAMS, so long streams
//! block everything. Here each connection's limit is known before its first request (a connection counts as open when
//! the peer's SETTINGS have arrived, which also proves that it speaks HTTP/2), and when all are full another one is
//! opened. Requests that arrive meanwhile wait for it instead of each opening their own; a failure reaches all of them.
//!
//! Requests fill the oldest connection first, so that connections opened for a burst become idle and are swept.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http2::{self, SendRequest};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Notify;

use super::body::{Outgoing, Watch, Watched};
use super::connect::{ConnectError, ConnectProblem};
use super::io::Io;
use super::pool::{Tally, now};
use super::response::Lease;
use super::rt::LocalExecutor;
use super::sweep::{Sweep, Sweeper};

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

/// A connection being opened. Dropping it (done, failed or cancelled) wakes whoever waits, to look again.
pub(super) struct Opening<'s, B> {
    streams: &'s Streams<B>,
}

impl<B> Opening<'_, B> {
    pub(super) fn failed(self, error: &ConnectError) {
        self.streams.failures.set(self.streams.failures.get() + 1);
        *self.streams.failure.borrow_mut() = Some(error.clone());
    }
}

impl<B> Drop for Opening<'_, B> {
    fn drop(&mut self) {
        self.streams.opening.set(self.streams.opening.get().saturating_sub(1));
        self.streams.crowd.changed.notify_waiters();
    }
}

impl<B> Opening<'_, B>
where
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    /// Speaks HTTP/2 on `io`, waits for the peer's SETTINGS, and adds the connection to the set.
    pub(super) async fn start(&self, io: Io, deadline: tokio::time::Instant) -> Result<(), ConnectError> {
        let opened = tokio::time::timeout_at(deadline, self.settle(io)).await;
        opened.unwrap_or_else(|_elapsed| Err(ConnectError::timeout()))
    }

    async fn settle(&self, io: Io) -> Result<(), ConnectError> {
        let not_http2 = |error: hyper::Error| ConnectError::new(ConnectProblem::NotHttp2, error);
        let stir = Rc::new(Stir { armed: Cell::new(true), moved: Notify::new() });
        let io = Stirring { io: TokioIo::new(io), stir: Rc::clone(&stir) };
        let (sender, connection) = builder().handshake(io).await.map_err(not_http2)?;
        let connection = Rc::new(RefCell::new(Some(connection)));
        let held = Rc::clone(&connection);
        let allowed = Box::new(move || {
            // Busy while hyper polls the connection; the caller then goes by what it knew.
            let connection = held.try_borrow().ok()?;
            connection.as_ref().map(http2::Connection::current_max_send_streams)
        });
        let usage = Rc::new(Usage {
            in_flight: Cell::new(0),
            served: Cell::new(false),
            idle_since: Cell::new(now()),
            tally: Rc::clone(&self.streams.tally),
            crowd: Rc::clone(&self.streams.crowd),
        });
        let ended = Ended { home: Weak::clone(&self.streams.me), usage: Rc::clone(&usage), stir: Rc::clone(&stir) };
        tokio::task::spawn_local(async move {
            let _ = std::future::poll_fn(|cx| match &mut *connection.borrow_mut() {
                Some(connection) => Pin::new(connection).poll(cx).map(drop),
                None => Poll::Ready(()),
            })
            .await;
            // Now, so that requests still queued are given back.
            connection.borrow_mut().take();
            drop(ended);
        });
        let limit = loop {
            match allowed() {
                Some(UNSETTLED | 0) => stir.moved.notified().await,
                Some(limit) => break limit.min(STREAMS_MAX),
                None => {
                    let error = io::Error::new(io::ErrorKind::InvalidData, "closed before its HTTP/2 settings");
                    return Err(ConnectError::new(ConnectProblem::NotHttp2, error));
                }
            }
        };
        stir.armed.set(false);
        self.streams.expected.set(limit);
        self.streams.tally.opened();
        let conn = Multiplex { sender, allowed, limit: Cell::new(limit), usage };
        self.streams.conns.borrow_mut().push(Rc::new(conn));
        self.streams.sweeper.ensure(&self.streams.me, self.streams.idle_timeout);
        Ok(())
    }
}

/// Runs when a connection's task ends, also when the task is dropped.
struct Ended<B: 'static> {
    home: Weak<Streams<B>>,
    usage: Rc<Usage>,
    stir: Rc<Stir>,
}

impl<B: 'static> Drop for Ended<B> {
    fn drop(&mut self) {
        self.stir.moved.notify_one();
        if let Some(home) = self.home.upgrade() {
            home.remove(&self.usage);
        }
    }
}

fn builder() -> http2::Builder<LocalExecutor> {
    let mut builder = http2::Builder::new(LocalExecutor);
    builder
        .timer(TokioTimer::new())
        .adaptive_window(false)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .initial_max_send_streams(UNSETTLED)
        .max_header_list_size(HEAD_MAX)
        .max_send_buf_size(SEND_BUFFER_MAX)
        // Cancelling many requests must not end the connection for the others (h2 #856).
        .max_local_error_reset_streams(None)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(false);
    builder
}

/// Tells when bytes move, until the peer's SETTINGS have been seen: hyper has no event for them.
struct Stir {
    armed: Cell<bool>,
    moved: Notify,
}

impl Stir {
    fn moved(&self) {
        if self.armed.get() {
            self.moved.notify_one();
        }
    }
}

/// A stream that stirs.
struct Stirring {
    io: TokioIo<Io>,
    stir: Rc<Stir>,
}

impl Read for Stirring {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_read(cx, buf);
        if polled.is_ready() {
            self.stir.moved();
        }
        polled
    }
}

impl Write for Stirring {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(cx, buf);
        if polled.is_ready() {
            self.stir.moved();
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        if polled.is_ready() {
            self.stir.moved();
        }
        polled
    }
}

/// What `current_max_send_streams` says before the peer's SETTINGS: no peer can announce it (they are 32 bits), and
/// h2 says `usize::MAX` for "no limit".
const UNSETTLED: usize = usize::MAX - 1;
/// Streams on one connection, whatever the peer allows.
const STREAMS_MAX: usize = 1000;
/// Connections per pool; beyond it requests wait for a stream.
const CONNECTIONS_MAX: usize = 128;
/// What one response may buffer here while its client is slow. At 50 ms round trip this is 5 MB/s per stream.
const STREAM_WINDOW: u32 = 256 * 1024;
/// Many times a stream's window, so that a few stalled clients do not stop everyone on the connection.
const CONNECTION_WINDOW: u32 = 8 * 1024 * 1024;
const SEND_BUFFER_MAX: usize = 128 * 1024;
const HEAD_MAX: u32 = 60 * 1024;
/// Above five minutes: gRPC servers end connections that ping more often without data (ENHANCE_YOUR_CALM). Dead peers
/// are found sooner by TCP keep-alive; this finds what sits behind a middlebox.
const PING_INTERVAL: Duration = Duration::from_secs(310);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
