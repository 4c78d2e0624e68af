//! One connection's life: who is it really (PROXY protocol), TLS, which HTTP, serve, and how it ends.
//!
//! The end is decided here and not by whoever speaks HTTP, because a proxy must sometimes say 408 to half a request, wait for a
//! client that is still sending so that a reset does not eat the early answer, or reset on purpose so that an HTTP/1.0
//! client does not take a truncated answer for the whole. See `http1` and `http` for what happens in between.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ::http::Version;
use bytes::Bytes;
use http_body::Body as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::activity::{Activity, Limits};
use super::gate::{Place, Turned};
use super::http::{self, Ending};
use super::http1;
use super::io::ConnectionIo;
use super::link::{Link, Manners};
use super::proxy_protocol;
use super::stream::{Raw, Stream};
use super::tls::{self, HandshakeProblem};
use super::worker::{Seat, Worker};
use crate::http::Response;
use crate::http::Writing;
use crate::http::encode::{self, Persistence};
use crate::plan::{ListenerPlan, ProxyProtocol};
use crate::proxy::{Body, Peer, Proxy, Told};
use crate::state::clock;

/// What a client that speaks HTTP/2 without TLS sends first.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes taken to tell the protocol; most request heads fit, so that this read is the first of HTTP, too.
const FIRST_MAX: usize = 2048;
/// Lingering close: bytes thrown away and time waited.
const LINGER_BYTES_MAX: usize = 1024 * 1024;
const LINGER_MAX: Duration = Duration::from_secs(1);

const PLAIN_HTTP: &[u8] = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-type: text/plain\r\n\
content-length: 46\r\n\r\nThis port speaks HTTPS; use https:// with it.\n";

/// Serves one accepted connection to its end.
pub async fn serve(worker: Rc<Worker>, seat: Seat, raw: Raw, peer: SocketAddr, place: Place) {
    let Some(plan) = worker.proxy.plan().listener(seat.slot()).cloned() else { return };
    let limits = Limits { head: plan.request_header_timeout, keep_alive: plan.keep_alive };
    let manners = Manners { half_close: plan.half_close, early_hints: plan.early_hints };
    // Boxed so that the long-lived part of the task stays small; a connection takes this way once.
    let prepared = seat.unless_ordered(Box::pin(prepare(&worker, &seat, &plan, raw, peer, place))).await;
    // Taken apart at once: what is moved on must not keep its room in the task.
    let Some(Ready { stream, first, http2, peer, activity }) = prepared else { return };
    drop(plan);
    let front =
        http::Front { proxy: Rc::clone(&worker.proxy), peer: Rc::clone(&peer), activity: Arc::clone(&activity) };
    let ending = if http2 {
        activity.is_http2();
        let io = ConnectionIo::new(stream, first, Arc::clone(&activity));
        // Boxed so that an HTTP/1 connection's task does not reserve room for it.
        Box::pin(http::http2(io, front, &seat, &limits)).await
    } else {
        clock::held(pin!(http1::serve(Link::new(stream, first, manners, Arc::clone(&activity)), front, &seat, &limits)))
            .await
    };
    finish(ending, &seat, &activity, (&worker.proxy, peer)).await;
}

struct Ready {
    stream: Stream,
    first: Bytes,
    http2: bool,
    peer: Rc<Peer>,
    activity: Arc<Activity>,
}

/// Everything before the first request; `None` when there is none.
async fn prepare(
    worker: &Worker,
    seat: &Seat,
    plan: &ListenerPlan,
    mut raw: Raw,
    mut address: SocketAddr,
    mut place: Place,
) -> Option<Ready> {
    let mut local = raw.local();
    if plan.proxy_protocol != ProxyProtocol::Off {
        match timeout(plan.request_header_timeout, proxy_protocol::read(&mut raw, plan.proxy_protocol)).await {
            Ok(Ok(None)) => {}
            Ok(Ok(Some(told))) => (address, local) = (told.source, Some(told.destination)),
            Ok(Err(problem)) => {
                seat.turn(Turned::ProxyProtocol);
                tracing::debug!(peer = %address, %problem, "closed: PROXY protocol");
                return None;
            }
            Err(_late) => {
                seat.turn(Turned::ProxyProtocol);
                return None;
            }
        }
    }
    if plan.connections_per_client_max.is_some_and(|max| !place.claim(address.ip(), max)) {
        return None;
    }
    let mut info = None;
    let (mut stream, mut http2) = (None, false);
    match seat.tls() {
        None => stream = Some(Stream::Plain(raw)),
        Some(config) => match timeout(tls::HANDSHAKE_MAX, tls::handshake(raw, config, &worker.turns)).await {
            Ok(Ok((secured, told, chosen))) => (stream, info, http2) = (Some(secured), Some(told), chosen),
            Ok(Err(problem)) => refuse_handshake(problem, seat, address).await,
            Err(_late) => seat.turn(Turned::Handshake),
        },
    }
    let mut stream = stream?;
    let mut first = Bytes::new();
    if info.is_none() {
        first = timeout(plan.request_header_timeout, first_bytes(&mut stream)).await.ok()??;
        http2 = first.starts_with(PREFACE);
    }
    let activity = Arc::new(Activity::new(Arc::clone(&worker.ticks), place));
    let peer = Rc::new(Peer { slot: seat.slot(), address, local, tls: info, told: Told::default() });
    Some(Ready { stream, first, http2, peer, activity })
}

/// Waits for the first bytes, and for more of them while they could become the HTTP/2 preface.
async fn first_bytes(stream: &mut Stream) -> Option<Bytes> {
    let mut first = Vec::new();
    loop {
        let mut chunk = [0; FIRST_MAX];
        let taken = stream.read(&mut chunk).await.ok().filter(|taken| *taken > 0)?;
        first.extend_from_slice(&chunk[..taken]);
        if first.len() >= PREFACE.len() || !PREFACE.starts_with(&first) {
            return Some(first.into());
        }
    }
}

async fn refuse_handshake(problem: HandshakeProblem, seat: &Seat, peer: SocketAddr) {
    match problem {
        HandshakeProblem::Gone => {}
        HandshakeProblem::PlainHttp(raw) => {
            seat.turn(Turned::Handshake);
            say_and_close(Stream::Plain(raw), PLAIN_HTTP).await;
        }
        HandshakeProblem::Failed(problem) => {
            seat.turn(Turned::Handshake);
            tracing::debug!(%peer, %problem, "closed: TLS handshake");
        }
    }
}

/// Ends the connection the way its last moments ask for.
async fn finish(ending: Ending, seat: &Seat, activity: &Activity, (proxy, peer): (&Rc<Proxy>, Rc<Peer>)) {
    // An upgraded connection's stream belongs to its tunnel.
    let Some(stream) = activity.take_back() else { return };
    match ending {
        Ending::Done if activity.may_be_sending() => linger(stream).await,
        Ending::Done | Ending::Idle => say_goodbye(stream).await,
        Ending::Malformed(problem) => {
            seat.turn(Turned::Malformed);
            match problem {
                Some(problem) => {
                    let answer = proxy.refuse_unread(peer, Version::HTTP_11, problem);
                    say_and_close(stream, &refusal(answer).await).await;
                }
                None => linger(stream).await, // hyper has answered
            }
        }
        Ending::HeadTimeout => {
            seat.turn(Turned::HeadTimeout);
            say_and_close(stream, &refusal(proxy.refuse_slow_head(peer)).await).await;
        }
        Ending::Stalled => {
            seat.turn(Turned::Stalled);
            stream.reset_on_close();
        }
        Ending::Abused => {
            seat.turn(Turned::Abuse);
            stream.reset_on_close();
        }
        Ending::Broken | Ending::Cut => {
            if activity.needs_reset() {
                stream.reset_on_close();
            }
        }
    }
}

/// To a client whose head nobody could read: a small answer, in bytes.
async fn refusal(response: Response<Body>) -> Vec<u8> {
    let Response { status, headers, mut body, .. } = response;
    let mut data = Bytes::new();
    while let Some(Ok(frame)) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        data = frame.into_data().unwrap_or_default();
    }
    let mut words = Vec::new();
    let writing = Writing::Length(data.len() as u64);
    encode::response_head(&mut words, status, None, &headers, (writing, Persistence::Close));
    words.extend_from_slice(&data);
    words
}

/// Over TLS an orderly end is said (close_notify), so that the client can tell it from a truncation.
async fn say_goodbye(mut stream: Stream) {
    if matches!(stream, Stream::Tls(_)) {
        // Whether it arrives is the client's business.
        let _ = timeout(LINGER_MAX, stream.shutdown()).await;
    }
}

async fn say_and_close(mut stream: Stream, words: &[u8]) {
    if let Ok(Ok(())) = timeout(LINGER_MAX, stream.write_all(words)).await {
        linger(stream).await;
    }
}

/// Closes our side, then reads and throws away what the client still sends: closing with unread bytes would send a
/// reset, which may take the answer out of the client's hands before it has read it.
async fn linger(mut stream: Stream) {
    let discard = async {
        if stream.shutdown().await.is_err() {
            return;
        }
        let mut left = LINGER_BYTES_MAX;
        let mut bytes = vec![0; 4096]; // on the heap: every connection's task is as large as its largest moment
        while left > 0 {
            match stream.read(&mut bytes).await {
                Ok(0) | Err(_) => return,
                Ok(taken) => left = left.saturating_sub(taken),
            }
        }
    };
    // Over time is over: the close that follows may reset.
    let _ = timeout(LINGER_MAX, discard).await;
}
