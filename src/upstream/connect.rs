//! Opening one connection to an endpoint: name, TCP or Unix socket, TLS, all under one timeout, with errors that say
//! what an operator must look at. Pools look names up through [`super::resolve::Names`], probes each time.
//!
//! Several addresses are tried as in RFC 8305: the next one starts when one fails or after [`STAGGER`], the first to
//! answer wins. TCP_NODELAY is always on (a proxy writes whole messages; Nagle would hold the last segment back).
//! Keep-alive probes find dead peers; TCP_USER_TIMEOUT is deliberately not set, because on Linux it also kills
//! connections whose peer merely keeps its window closed, and slowness is judged by the timers above us.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpStream, UnixStream};

use super::io::{Io, Socket};
use super::resolve::resolve;
use super::tls::ClientTls;
use crate::core::units::Address;

/// Which protocols to offer in the TLS handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alpn {
    /// `h2` and `http/1.1`; the server chooses.
    Any,
    Http1,
    Http2,
    /// No offer: what is spoken is not HTTP.
    None,
}

/// An open connection and whether TLS chose HTTP/2 for it.
#[derive(Debug)]
pub struct Connected {
    pub io: Io,
    pub chose_http2: bool,
}

/// What stood in the way of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectProblem {
    /// Nothing listens there.
    Refused,
    /// Not connected (DNS, TCP and TLS together) within the connect timeout.
    Timeout,
    /// The name has no address, or the resolver failed.
    Dns,
    /// No route, permission denied, reset while connecting.
    Unreachable,
    /// The TLS handshake failed.
    Tls,
    /// The Unix socket does not exist.
    UnixMissing,
    /// We ran out of descriptors, ports or memory: our fault, not the app's.
    Exhausted,
    /// Connected, but the other side does not speak HTTP/2.
    NotHttp2,
}

impl ConnectProblem {
    /// The stable word for logs and metrics.
    pub fn label(self) -> &'static str {
        match self {
            ConnectProblem::Refused => "connect_refused",
            ConnectProblem::Timeout => "connect_timeout",
            ConnectProblem::Dns => "connect_dns",
            ConnectProblem::Unreachable => "connect_unreachable",
            ConnectProblem::Tls => "connect_tls",
            ConnectProblem::UnixMissing => "connect_unix_missing",
            ConnectProblem::Exhausted => "connect_exhausted",
            ConnectProblem::NotHttp2 => "connect_not_http2",
        }
    }
}

/// A failed connection attempt. Cheap to clone: everyone who waited for the same connection gets it.
#[derive(Clone, Debug)]
pub struct ConnectError {
    pub problem: ConnectProblem,
    cause: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

impl ConnectError {
    pub(super) fn new(problem: ConnectProblem, cause: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self { problem, cause: Some(Arc::new(cause)) }
    }

    pub(super) fn timeout() -> Self {
        Self { problem: ConnectProblem::Timeout, cause: None }
    }

    fn from_tcp(error: io::Error) -> Self {
        Self::new(classify(&error), error)
    }

    fn from_unix(error: io::Error) -> Self {
        let problem = match error.kind() {
            io::ErrorKind::NotFound => ConnectProblem::UnixMissing,
            _ => classify(&error),
        };
        Self::new(problem, error)
    }

    /// The cause as rustls knows it, for a [`ConnectProblem::Tls`].
    pub(super) fn tls(&self) -> Option<&rustls::Error> {
        let error: &io::Error = self.cause.as_deref()?.downcast_ref()?;
        error.get_ref()?.downcast_ref()
    }
}

fn classify(error: &io::Error) -> ConnectProblem {
    // ENFILE, EMFILE, ENOBUFS and ENOMEM have no stable ErrorKind.
    const OURS: [i32; 4] = [23, 24, 105, 12];
    match error.kind() {
        io::ErrorKind::ConnectionRefused => ConnectProblem::Refused,
        io::ErrorKind::TimedOut => ConnectProblem::Timeout,
        io::ErrorKind::AddrNotAvailable | io::ErrorKind::OutOfMemory => ConnectProblem::Exhausted,
        _ if error.raw_os_error().is_some_and(|code| OURS.contains(&code)) => ConnectProblem::Exhausted,
        _ => ConnectProblem::Unreachable,
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self.problem {
            ConnectProblem::Refused => "connection refused",
            ConnectProblem::Timeout => "not connected in time",
            ConnectProblem::Dns => "the name could not be resolved",
            ConnectProblem::Unreachable => "could not connect",
            ConnectProblem::Tls => "the TLS handshake failed",
            ConnectProblem::UnixMissing => "the Unix socket does not exist",
            ConnectProblem::Exhausted => "out of descriptors, ports or memory",
            ConnectProblem::NotHttp2 => "the endpoint does not speak HTTP/2",
        })?;
        match &self.cause {
            Some(cause) => write!(out, ": {cause}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for ConnectError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.cause.as_deref().map(|cause| cause as _)
    }
}

/// Connects to `address`, through TLS when `tls` is given. `timeout` covers DNS, TCP and TLS together.
pub async fn connect(
    address: &Address,
    tls: Option<(&ClientTls, Alpn)>,
    timeout: Duration,
) -> Result<Connected, ConnectError> {
    let opening = async {
        match address {
            Address::Tcp { host, port } => {
                let addresses =
                    resolve(host, *port).await.map_err(|error| ConnectError::new(ConnectProblem::Dns, error))?;
                open(To::Tcp(&addresses), tls).await
            }
            Address::Unix(path) => open(To::Unix(path), tls).await,
        }
    };
    match tokio::time::timeout(timeout, opening).await {
        Ok(outcome) => outcome,
        Err(_elapsed) => Err(ConnectError::timeout()),
    }
}

/// An endpoint whose name has been looked up.
#[derive(Clone, Copy)]
pub(super) enum To<'a> {
    Tcp(&'a [SocketAddr]),
    Unix(&'a Path),
}

/// Opens a connection without a timeout of its own.
pub(super) async fn open(to: To<'_>, tls: Option<(&ClientTls, Alpn)>) -> Result<Connected, ConnectError> {
    let socket = match to {
        To::Tcp(addresses) => Socket::from(open_tcp(addresses).await.map_err(ConnectError::from_tcp)?),
        To::Unix(path) => Socket::from(open_unix(path).await.map_err(ConnectError::from_unix)?),
    };
    let Some((tls, alpn)) = tls else {
        return Ok(Connected { io: Io::Plain(socket), chose_http2: false });
    };
    let stream = tls.handshake(socket, alpn).await.map_err(|error| ConnectError::new(ConnectProblem::Tls, error))?;
    let chose_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    Ok(Connected { io: Io::Tls(Box::new(stream)), chose_http2 })
}

async fn open_tcp(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let stream = match addresses {
        [only] => TcpStream::connect(only).await?,
        _ => race(addresses).await?,
    };
    stream.set_nodelay(true)?;
    // A peer on this machine cannot vanish without the kernel telling us.
    if !stream.peer_addr()?.ip().is_loopback() {
        let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL).with_retries(3);
        SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
    }
    Ok(stream)
}

type Attempt = Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>>;

/// The first address that answers. Boxed futures are fine here: connecting is not the hot path.
async fn race(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut waiting = addresses.iter().copied();
    let mut running: Vec<Attempt> = Vec::new();
    let mut failure = None;
    loop {
        if let Some(address) = waiting.next() {
            running.push(Box::pin(TcpStream::connect(address)));
        } else if running.is_empty() {
            return Err(failure.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into()));
        }
        let stagger = if waiting.len() == 0 { Duration::MAX } else { STAGGER };
        match tokio::time::timeout(stagger, first_of(&mut running)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => failure = Some(more_telling(failure, error)),
            Err(_elapsed) => {}
        }
    }
}

/// Waits for any of the attempts and removes it.
async fn first_of(running: &mut Vec<Attempt>) -> io::Result<TcpStream> {
    poll_fn(|cx| {
        for at in 0..running.len() {
            if let Poll::Ready(outcome) = running[at].as_mut().poll(cx) {
                drop(running.swap_remove(at));
                return Poll::Ready(outcome);
            }
        }
        Poll::Pending
    })
    .await
}

/// "Refused" tells more than "no route": `localhost` is often two addresses, one of which nothing ever serves.
fn more_telling(before: Option<io::Error>, now: io::Error) -> io::Error {
    match before {
        Some(before) if before.kind() == io::ErrorKind::ConnectionRefused => before,
        _ => now,
    }
}

/// A Unix socket whose backlog is full answers EAGAIN at once instead of queueing, so we do the waiting.
async fn open_unix(path: &Path) -> io::Result<UnixStream> {
    let mut pause = UNIX_PAUSE_FIRST;
    loop {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(UNIX_PAUSE_MAX);
            }
            outcome => return outcome,
        }
    }
}

/// RFC 8305 §5: the recommended connection attempt delay.
const STAGGER: Duration = Duration::from_millis(250);
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const UNIX_PAUSE_FIRST: Duration = Duration::from_millis(1);
const UNIX_PAUSE_MAX: Duration = Duration::from_millis(20);
