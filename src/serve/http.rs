//! HTTP/2 over one connection: hyper's settings, the service it calls, and the loop that watches the clock and the
//! orders of a drain beside it. How a connection of either protocol ends is named here, too.
//!
//! hyper is used directly and without its timers (see `activity`). HTTP/1 is ours: see `http1`.

use std::convert::Infallible;
use std::error::Error as _;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use ::http::header::COOKIE;
use bytes::Bytes;
use http_body::Body as _;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};

use super::activity::{Activity, Due, Limits, Open};
use super::alarm::{Told, Watch};
use super::call::Call;
use super::io::ConnectionIo;
use super::worker::Seat;
use crate::http::HeadProblem;
use crate::http::fields::FIELDS_MAX;
use crate::proxy::{Body, ClientBody, Peer, Proxy};
use crate::state::clock;
use crate::upstream::rt::LocalExecutor;

/// Bytes of a request head.
pub const HEAD_BYTES_MAX: usize = 32 * 1024;
/// HTTP/2: a client may have at most streams × stream window (6.4 MB), and never more than the connection's window,
/// of request bodies waiting for the app.
const STREAMS_MAX: u32 = 100;
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 256 * 1024;
/// Bytes of one stream's answer waiting for its client.
const SEND_BUFFER_MAX: usize = 128 * 1024;
const PENDING_RESETS_MAX: usize = 20;
const PING_INTERVAL: Duration = Duration::from_secs(20);

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
    /// What arrived is not HTTP, or can be read in two ways; `None` when hyper has answered.
    Malformed(Option<HeadProblem>),
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

pub async fn http2(io: ConnectionIo, front: Front, seat: &Seat, limits: &Limits) -> Ending {
    let mut builder = http2::Builder::new(LocalExecutor);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        // Twice what is taken, so that a head that is somewhat too large is refused here, with an id and a line in the log.
        .max_header_list_size(u32::try_from(2 * HEAD_BYTES_MAX).unwrap_or(u32::MAX))
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
            clock::held(pin!(answer(proxy, peer, req, open))).await
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
    let response = match oversize(&req) {
        None => {
            let mut call = Call::begin(&proxy, &peer, req.map(ClientBody::from).into());
            poll_fn(|cx| call.poll(cx)).await
        }
        Some(problem) => proxy.refuse_unread(peer, http::Version::HTTP_2, problem),
    };
    open.answered();
    open.waits(true);
    Ok(response.map(|body| Carried { body, open }).into_http())
}

/// The limits of HTTP/1, in the measure of RFC 9113 §6.5.2: a field costs its bytes and 32 more.
fn oversize(req: &http::Request<Incoming>) -> Option<HeadProblem> {
    let target = req.uri().path_and_query().map_or(0, |target| target.as_str().len());
    let host = req.uri().authority().map_or(0, |host| host.as_str().len());
    let fields = req.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 32);
    if target + host + fields.sum::<usize>() > HEAD_BYTES_MAX {
        return Some(HeadProblem::TooLarge);
    }
    // Cookies may come on as many lines as there are (RFC 9113 §8.2.3); for the app they are one.
    let cookies = req.headers().get_all(COOKIE).iter().count().saturating_sub(1);
    (req.headers().len() - cookies > FIELDS_MAX).then_some(HeadProblem::TooManyFields)
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
        self.open.waits(polled.is_ready());
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

/// Polls the connection, and beside it the orders of the worker and the one timer.
async fn drive<S>(
    mut connection: Pin<&mut http2::Connection<TokioIo<ConnectionIo>, S, LocalExecutor>>,
    seat: &Seat,
    activity: &Activity,
    limits: &Limits,
) -> Ending
where
    S: hyper::service::Service<http::Request<Incoming>, Response = http::Response<Carried>, Error = Infallible>,
    S::Future: 'static,
{
    let mut watch = Watch::new(seat, activity, limits);
    poll_fn(|cx| {
        loop {
            if let Poll::Ready(result) = connection.as_mut().poll(cx) {
                return Poll::Ready(ended(result));
            }
            if activity.is_abused() {
                return Poll::Ready(Ending::Abused);
            }
            match std::task::ready!(watch.poll(cx)) {
                Told::Cut => {
                    if activity.in_flight() > 0 {
                        activity.truncated();
                    }
                    return Poll::Ready(Ending::Cut);
                }
                Told::Close => connection.as_mut().graceful_shutdown(),
                Told::Due(Due::Idle) if !watch.is_closing() => {
                    watch.close();
                    connection.as_mut().graceful_shutdown();
                }
                Told::Due(due) => return Poll::Ready(due.ending()),
            }
        }
    })
    .await
}

impl Due {
    /// How a connection ends that has missed this deadline.
    pub fn ending(self) -> Ending {
        match self {
            Due::Head => Ending::HeadTimeout,
            Due::Idle => Ending::Idle,
            Due::Write => Ending::Stalled,
        }
    }
}

fn ended(result: hyper::Result<()>) -> Ending {
    match result {
        Ok(()) => Ending::Done,
        Err(problem) if problem.is_parse() || said_goaway(&problem) => Ending::Malformed(None),
        Err(_) => Ending::Broken,
    }
}

/// Whether it was our side that ended the connection, over what the client had sent (RFC 9113 §5.4.1).
fn said_goaway(problem: &hyper::Error) -> bool {
    let cause = problem.source().and_then(|cause| cause.downcast_ref::<h2::Error>());
    cause.is_some_and(|cause| cause.is_library() && cause.is_go_away())
}
