//! Opening an HTTP/2 connection: the settings we announce, and knowing when the peer's have arrived.
//!
//! A connection enters the pool with its stream limit known. hyper has no event for the peer's SETTINGS, only a getter
//! for the limit; so the limit begins at a value no peer can announce, and until it changes we look again each time
//! bytes have moved ([`Stirring`]).

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::Body;
use hyper::client::conn::http2;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Notify;

use super::{Multiplex, STREAMS_MAX, Streams, Usage};
use crate::upstream::clock::now;
use crate::upstream::connect::{ConnectError, ConnectProblem};
use crate::upstream::io::Io;
use crate::upstream::rt::LocalExecutor;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A connection being opened. Dropping it (done, failed or cancelled) wakes whoever waits, to look again.
pub(in crate::upstream) struct Opening<'s, B> {
    pub(super) streams: &'s Streams<B>,
}

impl<B> Opening<'_, B> {
    pub(in crate::upstream) fn failed(self, error: &ConnectError) {
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
    pub(in crate::upstream) async fn start(&self, io: Io, deadline: tokio::time::Instant) -> Result<(), ConnectError> {
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
