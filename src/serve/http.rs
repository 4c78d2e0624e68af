//! HTTP over one connection: hyper's settings, the service it calls, and the loop that watches the clock and the
//! orders of a drain beside it.
//!
//! hyper is used directly and without its timers (see `activity`). One timer per connection, moved only when it fires
//! or must fire earlier; nothing is spawned or boxed per HTTP/1 request.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::Body as _;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::{Instant, Sleep, sleep_until};

use super::activity::{Activity, Due, Limits, Open, millis};
use super::io::ConnectionIo;
use super::worker::{Order, Seat};
use crate::proxy::{Body, ClientBody, Peer, Proxy};
use crate::state::clock;
use crate::upstream::rt::LocalExecutor;

/// Bytes of a request head.
const HEAD_BYTES_MAX: usize = 32 * 1024;
/// Read and write buffer of an HTTP/1 connection.
const BUFFER_MAX: usize = 64 * 1024;
/// HTTP/2: a client may have at most streams × stream window (6.4 MB), and never more than the connection's window,
/// of request bodies waiting for the app.
const STREAMS_MAX: u32 = 100;
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 256 * 1024;
/// Bytes of one stream's answer waiting for its client.
const SEND_BUFFER_MAX: usize = 128 * 1024;
const PENDING_RESETS_MAX: usize = 20;
const PING_INTERVAL: Duration = Duration::from_secs(20);
/// No timer is armed.
const NEVER: u64 = u64::MAX;

/// How the HTTP part of a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// As HTTP says.
    Done,
    /// Nothing happened for the keep-alive time, or the drain found it idle.
    Idle,
    /// The request head took too long.
    HeadTimeout,
    /// The client took nothing for too long.
    Stalled,
    /// Streams opened only to be reset.
    Abused,
    /// What arrived is not HTTP; hyper has answered.
    Malformed,
    /// The client left, or an answer broke off.
    Broken,
    /// The drain's time is over.
    Cut,
}

/// What a connection's service needs.
pub struct Front {
    pub proxy: Rc<Proxy>,
    pub peer: Rc<Peer>,
    pub activity: Arc<Activity>,
}

pub async fn http1(io: ConnectionIo, front: Front, seat: &Seat, limits: &Limits, tls: bool) -> Ending {
    let mut builder = http1::Builder::new();
    // Not `max_headers`: its default is the 100 we want, and setting it makes hyper zero two tables per request.
    builder
        .half_close(false)
        .keep_alive(true)
        .max_header_size(HEAD_BYTES_MAX)
        .max_buf_size(BUFFER_MAX)
        .header_read_timeout(None)
        .auto_date_header(false)
        .pipeline_flush(false);
    if !tls {
        builder.writev(false); // one `send` of head and body costs less than a `writev`; TLS copies anyway
    }
    let activity = Arc::clone(&front.activity);
    let service = service_fn(move |req: http::Request<Incoming>| {
        let open = front.activity.request(req.version(), !req.body().is_end_stream());
        answer(Rc::clone(&front.proxy), Rc::clone(&front.peer), req, open)
    });
    let connection = pin!(builder.serve_connection(TokioIo::new(io), service).with_upgrades());
    drive(connection, seat, &activity, limits).await
}

pub async fn http2(io: ConnectionIo, front: Front, seat: &Seat, limits: &Limits) -> Ending {
    let mut builder = http2::Builder::new(LocalExecutor);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(u32::try_from(HEAD_BYTES_MAX).unwrap_or(u32::MAX))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .adaptive_window(false)
        .max_send_buf_size(SEND_BUFFER_MAX)
        .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
        .keep_alive_interval(PING_INTERVAL)
        .auto_date_header(false);
    let activity = Arc::clone(&front.activity);
    let service = service_fn(move |req: http::Request<Incoming>| {
        let open = front.activity.request(req.version(), !req.body().is_end_stream());
        let (proxy, peer) = (Rc::clone(&front.proxy), Rc::clone(&front.peer));
        async move {
            // Once a client has cancelled a stream, later ones start one turn late: hyper looks for a reset after
            // the first poll, so that nothing is opened for a stream that is reset already.
            if open.activity().cancelled() {
                tokio::task::yield_now().await;
            }
            answer(proxy, peer, req, open).await
        }
    });
    let connection = pin!(builder.serve_connection(TokioIo::new(io), service));
    drive(connection, seat, &activity, limits).await
}

async fn answer(
    proxy: Rc<Proxy>,
    peer: Rc<Peer>,
    req: http::Request<Incoming>,
    mut open: Open,
) -> Result<http::Response<Carried>, Infallible> {
    let response = proxy.handle(peer, req.map(ClientBody::from)).await;
    open.answered();
    if response.status() == http::StatusCode::SWITCHING_PROTOCOLS {
        open.activity().upgraded();
    }
    Ok(response.map(|body| Carried { body, open }))
}

/// The response body, which keeps the request open until it ends.
struct Carried {
    body: Body,
    open: Open,
}

impl http_body::Body for Carried {
    type Data = Bytes;
    type Error = <Body as http_body::Body>::Error;

    #[inline]
    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Err(_))) = &polled {
            self.open.activity().truncated();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// What the two protocols' connections have in common.
trait Connection {
    const HTTP2: bool;
    fn poll_connection(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<hyper::Result<()>>;
    fn graceful(self: Pin<&mut Self>);
}

impl<S> Connection for http1::UpgradeableConnection<TokioIo<ConnectionIo>, S>
where
    S: hyper::service::Service<http::Request<Incoming>, Response = http::Response<Carried>, Error = Infallible>,
{
    const HTTP2: bool = false;
    #[inline]
    fn poll_connection(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        self.poll(cx)
    }
    fn graceful(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl<S> Connection for http2::Connection<TokioIo<ConnectionIo>, S, LocalExecutor>
where
    S: hyper::service::Service<http::Request<Incoming>, Response = http::Response<Carried>, Error = Infallible>,
    S::Future: 'static,
{
    const HTTP2: bool = true;
    fn poll_connection(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        self.poll(cx)
    }
    fn graceful(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

/// Polls the connection, and beside it the orders of the worker and the one timer.
async fn drive<C: Connection>(
    mut connection: Pin<&mut C>,
    seat: &Seat,
    activity: &Activity,
    limits: &Limits,
) -> Ending {
    let mut alarm = Alarm::new();
    let mut closing = None;
    poll_fn(|cx| {
        loop {
            if let Poll::Ready(result) = connection.as_mut().poll_connection(cx) {
                return Poll::Ready(ended(result));
            }
            match seat.order() {
                Order::Serve => {}
                Order::Cut => {
                    if activity.in_flight() > 0 {
                        activity.truncated();
                    }
                    return Poll::Ready(Ending::Cut);
                }
                Order::Close { since } if closing.is_none() => {
                    closing = Some(since);
                    // HTTP/1 is not told: a request already on its way is answered, and says `Connection: close`.
                    if C::HTTP2 {
                        connection.as_mut().graceful();
                        continue;
                    }
                }
                Order::Close { .. } => {}
            }
            if activity.is_abused() {
                return Poll::Ready(Ending::Abused);
            }
            let due = activity.due(limits, closing);
            match alarm.poll_due(cx, due) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Due::Head) => return Poll::Ready(Ending::HeadTimeout),
                Poll::Ready(Due::Write) => return Poll::Ready(Ending::Stalled),
                Poll::Ready(Due::Idle) if C::HTTP2 && closing.is_none() => {
                    closing = Some(millis(clock::now()));
                    connection.as_mut().graceful();
                }
                Poll::Ready(Due::Idle) => return Poll::Ready(Ending::Idle),
            }
        }
    })
    .await
}

fn ended(result: hyper::Result<()>) -> Ending {
    match result {
        Ok(()) => Ending::Done,
        Err(problem) if problem.is_parse() => Ending::Malformed,
        Err(_) => Ending::Broken,
    }
}

/// The connection's one timer. A deadline that moves later costs nothing until the old one fires.
struct Alarm {
    sleep: Option<Pin<Box<Sleep>>>,
    /// What `sleep` waits for, in milliseconds.
    armed: u64,
}

impl Alarm {
    fn new() -> Self {
        Alarm { sleep: None, armed: NEVER }
    }

    /// Ready when `due` has come. Not polling the sleep on every wake is sound because a task's waker stays the same.
    fn poll_due(&mut self, cx: &mut Context<'_>, due: Option<(u64, Due)>) -> Poll<Due> {
        if self.armed != NEVER && self.sleep.as_ref().is_some_and(|sleep| sleep.is_elapsed()) {
            self.armed = NEVER;
        }
        let Some((at, what)) = due else { return Poll::Pending };
        if at >= self.armed {
            return Poll::Pending;
        }
        let now = clock::now();
        let left = Duration::from_millis(at.saturating_sub(millis(now)));
        if left.is_zero() {
            return Poll::Ready(what);
        }
        let deadline = Instant::from_std(now + left);
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        sleep.as_mut().reset(deadline);
        self.armed = at;
        sleep.as_mut().poll(cx).map(|()| {
            self.armed = NEVER;
            what
        })
    }
}
