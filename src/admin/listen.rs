//! Binding and serving the ops and admin ports.
//!
//! hyper directly and not `axum::serve`: these ports may be reachable by strangers (ops listens on every address), so
//! connections are counted, slow ones are closed, and the end waits for open answers, but not for long.

use std::collections::VecDeque;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tower_service::Service;

use crate::core::units::Address;

/// Open connections on one of these ports; one more ends the one that has been idle for the longest.
const CONNECTIONS_MAX: usize = 128;
/// For a request's head to arrive, and for a kept-alive connection to be used again.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// What open answers get once the port is closed.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// After a failed accept (no file descriptors left), before the next.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Which of the two ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    Ops,
    Admin,
}

impl Door {
    pub fn name(self) -> &'static str {
        match self {
            Door::Ops => "ops",
            Door::Admin => "admin",
        }
    }

    /// The permissions of a Unix socket: control is the owner's, probes are everybody's.
    fn mode(self) -> u32 {
        match self {
            Door::Ops => 0o666,
            Door::Admin => 0o600,
        }
    }
}

/// A bound port.
pub enum Bound {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

impl Bound {
    /// The address that was really bound (port 0 resolved).
    pub fn address(&self) -> String {
        match self {
            Bound::Tcp(listener) => {
                listener.local_addr().map_or_else(|_| "?".to_owned(), |address| address.to_string())
            }
            Bound::Unix(_, path) => format!("unix:{}", path.display()),
        }
    }
}

/// Binds and logs it. A Unix socket that nobody listens on any more is replaced.
pub async fn bind(door: Door, address: &Address) -> io::Result<Bound> {
    let bound = match address {
        Address::Tcp { host, port } => Bound::Tcp(TcpListener::bind((host.as_str(), *port)).await?),
        Address::Unix(path) => Bound::Unix(bind_unix(path, door.mode())?, path.clone()),
    };
    tracing::info!(listener = door.name(), address = bound.address(), "listening");
    Ok(bound)
}

/// The socket is made under another name and renamed, so that it never exists with wider permissions than meant.
fn bind_unix(path: &Path, mode: u32) -> io::Result<UnixListener> {
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens on this socket"));
    }
    if std::fs::symlink_metadata(path).is_ok_and(|found| !is_socket(&found)) {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the path exists and is not a socket"));
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}", std::process::id()));
    let made = PathBuf::from(name);
    drop(std::fs::remove_file(&made));
    let listener = UnixListener::bind(&made)?;
    std::fs::set_permissions(&made, std::fs::Permissions::from_mode(mode))
        .and_then(|()| std::fs::rename(&made, path))
        .inspect_err(|_| drop(std::fs::remove_file(&made)))?;
    Ok(listener)
}

fn is_socket(found: &std::fs::Metadata) -> bool {
    std::os::unix::fs::FileTypeExt::is_socket(&found.file_type())
}

/// The open connections, the oldest first.
#[derive(Default)]
struct Guests(VecDeque<Guest>);

struct Guest {
    task: AbortHandle,
    /// A request is being answered.
    busy: Arc<AtomicBool>,
}

impl Guests {
    fn forget_the_gone(&mut self) {
        self.0.retain(|guest| !guest.task.is_finished());
    }

    /// Makes room for one more by ending the connection that has asked for nothing for the longest: whoever keeps many
    /// open must not keep a probe out. False when all are being answered.
    fn make_room(&mut self) -> bool {
        if self.0.len() < CONNECTIONS_MAX {
            return true;
        }
        let idle = self.0.iter().position(|guest| !guest.busy.load(Ordering::Relaxed));
        if let Some(guest) = idle.and_then(|place| self.0.remove(place)) {
            guest.task.abort();
        }
        self.0.len() < CONNECTIONS_MAX
    }
}

/// Serves until `stop` resolves, then gives open answers [`CLOSE_TIMEOUT`].
pub async fn serve_http(bound: Bound, router: Router, stop: impl Future<Output = ()>) {
    let (closing, closed) = watch::channel(false);
    let (mut guests, mut connections) = (Guests::default(), JoinSet::new());
    let mut stop = std::pin::pin!(stop);
    loop {
        tokio::select! {
            biased;
            () = &mut stop => break,
            Some(_) = connections.join_next() => guests.forget_the_gone(),
            accepted = accept(&bound) => match accepted {
                Ok(stream) if guests.make_room() => {
                    let busy = Arc::new(AtomicBool::new(false));
                    let task = connections.spawn(serve_one(stream, router.clone(), closed.clone(), busy.clone()));
                    guests.0.push_back(Guest { task, busy });
                }
                Ok(stream) => drop(stream),
                Err(cause) => {
                    tracing::warn!(address = bound.address(), %cause, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    closing.send_replace(true);
    if let Bound::Unix(_, path) = &bound {
        drop(std::fs::remove_file(path));
    }
    drop(bound);
    // What is still open after that is cut when the set is dropped.
    drop(tokio::time::timeout(CLOSE_TIMEOUT, async { while connections.join_next().await.is_some() {} }).await);
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

async fn accept(bound: &Bound) -> io::Result<Box<dyn Stream>> {
    match bound {
        Bound::Tcp(listener) => {
            let (stream, _) = listener.accept().await?;
            // Answers are written whole, so there is nothing to wait for; failing to say so costs only latency.
            drop(stream.set_nodelay(true));
            Ok(Box::new(stream))
        }
        Bound::Unix(listener, _) => Ok(Box::new(listener.accept().await?.0)),
    }
}

async fn serve_one(stream: Box<dyn Stream>, router: Router, mut closed: watch::Receiver<bool>, busy: Arc<AtomicBool>) {
    let service = service_fn(move |request: http::Request<Incoming>| {
        let (answer, busy) = (router.clone().call(request), busy.clone());
        async move {
            busy.store(true, Ordering::Relaxed);
            let answer = answer.await;
            busy.store(false, Ordering::Relaxed);
            answer
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    // A client that breaks its own connection is no event of ours.
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = closed.wait_for(|closed| *closed) => connection.as_mut().graceful_shutdown(),
    }
    drop(connection.await);
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use std::os::unix::fs::MetadataExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpStream, UnixStream};
    use tokio::sync::oneshot;

    const SOON: Duration = Duration::from_secs(20);

    fn any_port() -> Address {
        Address::Tcp { host: "127.0.0.1".to_owned(), port: 0 }
    }

    // Goal: an answer that is under way when the port closes is given whole, and the port is closed then.
    #[tokio::test]
    async fn an_open_answer_is_finished_when_the_port_closes() {
        let (entered, was_entered) = oneshot::channel::<()>();
        let (go_on, may_go_on) = oneshot::channel::<()>();
        let once = Arc::new(std::sync::Mutex::new(Some((entered, may_go_on))));
        let router = Router::new().route(
            "/",
            get(move || {
                let (entered, may_go_on) = once.lock().unwrap().take().unwrap();
                async move {
                    entered.send(()).unwrap();
                    may_go_on.await.unwrap();
                    "whole"
                }
            }),
        );
        let bound = bind(Door::Ops, &any_port()).await.unwrap();
        let address = bound.address();
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = tokio::spawn(serve_http(bound, router, async { drop(stopped.await) }));
        let mut client = TcpStream::connect(&address).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        was_entered.await.unwrap();
        stop.send(()).unwrap();
        go_on.send(()).unwrap();
        let mut answer = String::new();
        tokio::time::timeout(SOON, client.read_to_string(&mut answer)).await.unwrap().unwrap();
        assert!(answer.ends_with("whole"), "{answer}");
        tokio::time::timeout(SOON, serving).await.unwrap().unwrap();
        assert!(TcpStream::connect(&address).await.is_err());
    }

    #[tokio::test]
    async fn idle_connections_keep_no_probe_out() {
        let router = Router::new().route("/", get(|| async { "here" }));
        let bound = bind(Door::Ops, &any_port()).await.unwrap();
        let address = bound.address();
        let serving = tokio::spawn(serve_http(bound, router, std::future::pending()));
        let mut idle = Vec::new();
        for _ in 0..CONNECTIONS_MAX + 10 {
            idle.push(TcpStream::connect(&address).await.unwrap());
        }
        let mut probe = TcpStream::connect(&address).await.unwrap();
        probe.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        tokio::time::timeout(SOON, probe.read_to_string(&mut answer)).await.unwrap().unwrap();
        assert!(answer.ends_with("here"), "{answer}");
        let mut byte = [0];
        let oldest = tokio::time::timeout(SOON, idle[0].read(&mut byte)).await.unwrap();
        assert!(matches!(oldest, Ok(0) | Err(_)), "the oldest is the one that goes");
        serving.abort();
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_living_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("admin.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let address = Address::Unix(path.clone());
        let bound = bind(Door::Admin, &address).await.unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        UnixStream::connect(&path).await.unwrap();
        let second = bind(Door::Admin, &address).await.err().unwrap();
        assert_eq!(second.kind(), io::ErrorKind::AddrInUse);
        drop(bound);
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "not a socket").unwrap();
        assert_eq!(bind(Door::Admin, &address).await.err().unwrap().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "no half-made socket is left");
    }
}
