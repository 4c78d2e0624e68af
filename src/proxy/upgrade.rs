//! Connections that stop being HTTP, WebSockets above all. A tunnel begins only after the app's 101; it carries the
//! exchange, so that it is counted, drained and recorded like any request.

use std::cell::Cell;
use std::pin::pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use http::StatusCode;
use http::header::{self, HeaderValue};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::body::Body;
use super::exchange::Exchange;
use super::inbound::ClientUpgrade;
use super::refusal::Refusal;
use crate::core::websocket::{CLOSE_GOING_AWAY, CLOSE_GOING_AWAY_MASKED, Frames};
use crate::http::Response;
use crate::state::clock;
use crate::state::lifecycle::Stage;
use crate::telemetry::Fate;
use crate::upstream::{Upgraded, UpstreamBody};

/// Read at a time, in each direction.
const BUFFER: usize = 16 * 1024;
/// Farewells are spread over at most this long, so that clients do not all come back at once.
const FAREWELL_SPREAD: Duration = Duration::from_secs(2);
/// How long a peer has to answer our close frame.
const FAREWELL_WAIT: Duration = Duration::from_secs(1);

/// The 101 to the client, with a tunnel to follow it.
pub fn switch(
    exchange: &mut Exchange,
    mut response: Response<UpstreamBody>,
    token: Option<String>,
) -> Result<Response<Body>, Refusal> {
    let (Some(token), Some(client)) = (token, exchange.client_upgrade.take()) else {
        return Err(Refusal::UpgradeFailed);
    };
    let Ok(value) = HeaderValue::from_str(&token) else { return Err(Refusal::UpgradeFailed) };
    let Some(app) = response.body.take_upgraded() else { return Err(Refusal::UpgradeFailed) };
    let mut answer = Response::new(Body::empty());
    answer.status = StatusCode::SWITCHING_PROTOCOLS;
    std::mem::swap(&mut answer.headers, &mut response.headers);
    answer.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    answer.headers.insert(header::UPGRADE, value);
    exchange.upgraded = true;
    exchange.tunnel = Some(Tunnel { client, app, websocket: token.eq_ignore_ascii_case("websocket") });
    Ok(answer)
}

/// Both sides of an upgrade before they have become raw.
pub struct Tunnel {
    client: ClientUpgrade,
    app: Box<Upgraded>,
    websocket: bool,
}

impl Tunnel {
    /// Lives until both sides have ended, the tunnel has been silent for `idle`, or a drain says goodbye.
    pub fn start(self, exchange: Box<Exchange>) {
        exchange.proxy.shared().states.lifecycle.upgrade_began();
        tokio::task::spawn_local(self.run(exchange));
    }

    async fn run(self, mut exchange: Box<Exchange>) {
        exchange.answered(StatusCode::SWITCHING_PROTOCOLS.as_u16());
        exchange.ended_early(Fate::Upgraded, "");
        let Ok(client) = self.client.await else {
            exchange.ended_early(Fate::ClientGone, "");
            return;
        };
        let idle = exchange.route.as_ref().map_or(FAREWELL_SPREAD, |route| route.timeouts.idle);
        let (client_read, client_write) = tokio::io::split(client);
        let (app_read, app_write) = tokio::io::split(self.app);
        let shared = Rc::new(Line {
            seen: Cell::new(clock::now()),
            leaving: Cell::new(false),
            wake: tokio::sync::Notify::new(),
        });
        let close = |frame: &'static [u8]| if self.websocket { frame } else { &[] };
        exchange.bytes_out = {
            let mut up = pin!(pump(client_read, app_write, &shared, close(&CLOSE_GOING_AWAY_MASKED)));
            let mut down = pin!(pump(app_read, client_write, &shared, close(&CLOSE_GOING_AWAY)));
            let mut guard = pin!(guard(&exchange, &shared, idle));
            let (mut sent, mut received) = (None, None);
            while sent.is_none() || received.is_none() {
                tokio::select! {
                    bytes = &mut up, if received.is_none() => received = Some(bytes),
                    bytes = &mut down, if sent.is_none() => sent = Some(bytes),
                    () = &mut guard => break,
                }
            }
            sent.unwrap_or(0)
        };
    }
}

/// What both directions of a tunnel know.
struct Line {
    seen: Cell<Instant>,
    leaving: Cell<bool>,
    wake: tokio::sync::Notify,
}

/// Returns when the tunnel has to end: silence, or the end of a farewell.
async fn guard(exchange: &Exchange, line: &Line, idle: Duration) {
    let mut stage = exchange.proxy.shared().states.lifecycle.watch();
    let mut parting = pin!(async move { drop(stage.wait_for(|stage| *stage >= Stage::Parting).await) });
    loop {
        let quiet_at = line.seen.get() + idle;
        tokio::select! {
            () = &mut parting => break,
            () = tokio::time::sleep_until(quiet_at.into()) => {
                if clock::now() >= line.seen.get() + idle {
                    return;
                }
            }
        }
    }
    tokio::time::sleep(FAREWELL_SPREAD.mul_f64(clock::unit())).await;
    line.leaving.set(true);
    exchange.proxy.shared().states.lifecycle.farewell_said();
    line.wake.notify_waiters();
    tokio::time::sleep(FAREWELL_WAIT).await;
}

/// Carries one direction to its end; the number of bytes carried. On leaving, `close` is put between two frames and
/// nothing of the other side is passed on after it.
async fn pump<R, W>(mut from: R, mut to: W, line: &Line, close: &'static [u8]) -> u64
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut buffer = vec![0; BUFFER];
    let mut frames = Frames::default();
    let (mut carried, mut closed) = (0, false);
    loop {
        let read = tokio::select! {
            biased;
            read = from.read(&mut buffer) => Some(read),
            () = line.wake.notified(), if !line.leaving.get() => None,
        };
        match read {
            Some(Ok(0)) => {
                let _ = to.shutdown().await; // the peer may be gone already
                return carried;
            }
            Some(Err(_)) => return carried,
            Some(Ok(count)) if !closed => {
                line.seen.set(clock::now());
                frames.pass(&buffer[..count]);
                if to.write_all(&buffer[..count]).await.is_err() {
                    return carried;
                }
                carried += count as u64;
            }
            Some(Ok(_)) | None => {}
        }
        if line.leaving.get() && !closed && !close.is_empty() && frames.between() {
            closed = true;
            if to.write_all(close).await.is_err() {
                return carried;
            }
        }
    }
}
