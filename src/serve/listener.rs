//! Listening sockets: bind, accept, caps.
//!
//! TCP: each worker has its own socket on the port (SO_REUSEPORT), so that the kernel spreads connections and no worker
//! wakes another. SO_REUSEPORT also lets a second process join the port without an error, therefore an exclusive bind
//! is tried first. Unix sockets and inherited sockets: every worker accepts on the same one.
//! Socket options that a connection needs are set on the listening socket, whose connections inherit them: that saves
//! two system calls per connection.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use rustls::ServerConfig;
use socket2::{Domain, Protocol, SockFilter, SockRef, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::oneshot;

use super::connection;
use super::crowd::Crowd;
use super::gate::{Gate, Turned, is_the_connections_fault};
use super::stream::Raw;
use super::worker::{LocalListener, Seat, Worker};
use crate::core::units::Address;

/// Connections waiting to be accepted, per socket; the kernel may allow fewer (`net.core.somaxconn`).
const BACKLOG: i32 = 4096;
/// A dead peer is found after about two minutes.
const KEEPALIVE_TIME: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
const KEEPALIVE_RETRIES: u32 = 4;
/// Waiting when there are no file descriptors left.
const BACK_OFF_MIN: Duration = Duration::from_millis(10);
const BACK_OFF_MAX: Duration = Duration::from_millis(100);
/// While a listener stops, connections whose handshake is under way are given this long to arrive.
const STOP_LINGER: Duration = Duration::from_millis(50);

/// One listener, shared by all workers.
pub struct ListenerShared {
    pub slot: usize,
    name: ArcSwap<String>,
    pub bound: Bound,
    pub gate: Arc<Gate>,
    /// `None` is plain text.
    pub tls: ArcSwapOption<ServerConfig>,
}

impl ListenerShared {
    pub fn new(slot: usize, name: &str, bound: Bound, tls: Option<Arc<ServerConfig>>) -> Self {
        ListenerShared {
            slot,
            name: ArcSwap::from_pointee(name.to_owned()),
            bound,
            gate: Arc::new(Gate::default()),
            tls: ArcSwapOption::new(tls),
        }
    }

    pub fn name(&self) -> Arc<String> {
        self.name.load_full()
    }

    /// A reload may give the same address another name.
    pub fn rename(&self, name: &str) {
        if **self.name.load() != name {
            self.name.store(Arc::new(name.to_owned()));
        }
    }
}

/// Where a listener really listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bound {
    Tcp(SocketAddr),
    /// With the identity of the socket's file, so that only our own is removed at the end.
    Unix {
        path: PathBuf,
        device: u64,
        inode: u64,
    },
}

impl std::fmt::Display for Bound {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Bound::Tcp(address) => address.fmt(out),
            Bound::Unix { path, .. } => write!(out, "unix:{}", path.display()),
        }
    }
}

impl Bound {
    /// Removes the socket file if it is still the one that was made here.
    pub fn clean_up(&self) {
        let Bound::Unix { path, device, inode } = self else { return };
        if std::fs::symlink_metadata(path).is_ok_and(|found| (found.dev(), found.ino()) == (*device, *inode)) {
            let _ = std::fs::remove_file(path); // a file that stays is recognised as stale by the next start
        }
    }
}

/// A bound socket on its way to a worker.
pub enum Socket {
    Tcp(std::net::TcpListener),
    /// Somebody else holds it too and goes on when we stop, so that its options are not ours to change.
    Lent(std::net::TcpListener),
    Unix(std::os::unix::net::UnixListener),
}

/// A listening socket in a worker's runtime.
pub enum Acceptor {
    Tcp(TcpListener),
    Lent(TcpListener),
    Unix(UnixListener),
}

impl Socket {
    pub fn into_acceptor(self) -> io::Result<Acceptor> {
        Ok(match self {
            Socket::Tcp(socket) => Acceptor::Tcp(TcpListener::from_std(socket)?),
            Socket::Lent(socket) => Acceptor::Lent(TcpListener::from_std(socket)?),
            Socket::Unix(socket) => Acceptor::Unix(UnixListener::from_std(socket)?),
        })
    }

    fn lend(&self) -> io::Result<Socket> {
        Ok(match self {
            // Whoever asks for copies was given the socket.
            Socket::Tcp(socket) | Socket::Lent(socket) => Socket::Lent(socket.try_clone()?),
            Socket::Unix(socket) => Socket::Unix(socket.try_clone()?),
        })
    }

    /// Whether this socket, given to us, listens where `address` says.
    pub fn is_at(&self, address: &Address) -> bool {
        match (self, address) {
            (Socket::Tcp(socket) | Socket::Lent(socket), Address::Tcp { host, port }) => {
                socket.local_addr().is_ok_and(|bound| {
                    let same = || host.parse().is_ok_and(|ip: std::net::IpAddr| ip == bound.ip());
                    bound.port() == *port && (bound.ip().is_unspecified() || same())
                })
            }
            (Socket::Unix(socket), Address::Unix(path)) => {
                socket.local_addr().is_ok_and(|bound| bound.as_pathname() == Some(path))
            }
            (Socket::Tcp(_) | Socket::Lent(_), Address::Unix(_)) | (Socket::Unix(_), Address::Tcp { .. }) => false,
        }
    }

    pub fn listen(&self) -> io::Result<()> {
        match self {
            Socket::Tcp(socket) | Socket::Lent(socket) => rustix::net::listen(socket, BACKLOG)?,
            Socket::Unix(socket) => rustix::net::listen(socket, BACKLOG)?,
        }
        Ok(())
    }
}

/// Binds `address` once per worker, without listening yet. `ours` tells of a port that this process already has.
pub fn bind(address: &Address, workers: usize, ours: impl Fn(u16) -> bool) -> Result<(Bound, Vec<Socket>), String> {
    match address {
        Address::Tcp { host, port } => bind_tcp(host, *port, workers, ours),
        Address::Unix(path) => bind_unix(path, workers),
    }
    .map_err(|problem| in_words(address, &problem))
}

/// Takes an inherited socket over for every worker. The file of a Unix socket stays its maker's.
pub fn adopt(socket: &Socket, workers: usize) -> io::Result<(Bound, Vec<Socket>)> {
    let bound = match socket {
        Socket::Tcp(socket) | Socket::Lent(socket) => {
            prepare_tcp(&SockRef::from(socket))?;
            Bound::Tcp(socket.local_addr()?)
        }
        Socket::Unix(socket) => {
            socket.set_nonblocking(true)?;
            let path = socket.local_addr()?.as_pathname().map(Path::to_owned).unwrap_or_default();
            Bound::Unix { path, device: 0, inode: 0 }
        }
    };
    let copies = (0..workers).map(|_| socket.lend()).collect::<io::Result<_>>()?;
    Ok((bound, copies))
}

fn bind_tcp(host: &str, port: u16, workers: usize, ours: impl Fn(u16) -> bool) -> io::Result<(Bound, Vec<Socket>)> {
    let wanted = (host, port).to_socket_addrs()?.next().ok_or(io::ErrorKind::AddrNotAvailable)?;
    // Another process of the same user that also sets SO_REUSEPORT would share the port silently.
    if port != 0 && !ours(port) {
        tcp_socket(wanted)?.bind(&wanted.into())?;
    }
    let mut bound = wanted;
    let mut sockets = Vec::with_capacity(workers);
    for _ in 0..workers {
        let socket = tcp_socket(bound)?;
        socket.set_reuse_port(true)?;
        prepare_tcp(&SockRef::from(&socket))?;
        socket.bind(&bound.into())?;
        // Port 0: the first bind picks, the others join it.
        bound = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
        sockets.push(Socket::Tcp(socket.into()));
    }
    Ok((Bound::Tcp(bound), sockets))
}

fn tcp_socket(address: SocketAddr) -> io::Result<socket2::Socket> {
    let socket = socket2::Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?; // connections of a former process in TIME_WAIT do not matter
    if address.is_ipv6() {
        socket.set_only_v6(false)?; // `[::]` means every address of the machine
    }
    Ok(socket)
}

fn prepare_tcp(socket: &SockRef<'_>) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(KEEPALIVE_TIME)
            .with_interval(KEEPALIVE_INTERVAL)
            .with_retries(KEEPALIVE_RETRIES),
    )
}

fn bind_unix(path: &Path, workers: usize) -> io::Result<(Bound, Vec<Socket>)> {
    let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
    let address = socket2::SockAddr::unix(path)?;
    if let Err(problem) = socket.bind(&address) {
        if problem.kind() != io::ErrorKind::AddrInUse || !is_stale(path) {
            return Err(problem);
        }
        std::fs::remove_file(path)?;
        socket.bind(&address)?;
    }
    socket.set_nonblocking(true)?;
    let socket: std::os::unix::net::UnixListener = socket.into();
    let file = std::fs::symlink_metadata(path)?;
    let copies = (0..workers).map(|_| socket.try_clone().map(Socket::Unix)).collect::<io::Result<_>>()?;
    Ok((Bound::Unix { path: path.to_owned(), device: file.dev(), inode: file.ino() }, copies))
}

/// A socket file that nobody listens on was left by a process that was killed.
fn is_stale(path: &Path) -> bool {
    let socket = std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    if !socket {
        return false; // somebody's file
    }
    let refused = std::os::unix::net::UnixStream::connect(path);
    refused.is_err_and(|problem| problem.kind() == io::ErrorKind::ConnectionRefused)
}

fn in_words(address: &Address, problem: &io::Error) -> String {
    match (problem.kind(), address) {
        (io::ErrorKind::AddrInUse, Address::Unix(path)) => match std::fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => {
                format!("{address} cannot be bound: the path exists and is not a socket; choose another path")
            }
            Ok(_) | Err(_) => {
                format!("{address} is in use by another process; stop it (`ss -lxp` names it) or choose another path")
            }
        },
        (io::ErrorKind::AddrInUse, Address::Tcp { .. }) => {
            format!("{address} is in use by another process; stop it (`ss -ltnp` names it) or choose another address")
        }
        (io::ErrorKind::PermissionDenied, _) => {
            format!("{address} may not be bound by this user; ports below 1024 need CAP_NET_BIND_SERVICE")
        }
        (io::ErrorKind::AddrNotAvailable, _) => format!("{address} is not an address of this machine"),
        (_, _) => format!("{address} cannot be bound: {problem}"),
    }
}

/// Accepts until `stop` is dropped or sent, then accepts what is waiting and closes the socket.
pub async fn accept(
    worker: Rc<Worker>,
    listener: Rc<LocalListener>,
    acceptor: Acceptor,
    mut stop: oneshot::Receiver<()>,
) {
    let mut back_off = BACK_OFF_MIN;
    let mut crowd = Crowd::new(&listener.shared);
    let journal = &worker.proxy.shared().states.journal;
    loop {
        let accepted = tokio::select! {
            biased;
            _ = &mut stop => break,
            () = crowd.due() => {
                crowd.look(journal);
                continue;
            }
            accepted = acceptor.accept() => accepted,
        };
        match accepted {
            Ok((raw, peer)) => {
                back_off = BACK_OFF_MIN;
                if let Err(why) = admit(&worker, &listener, raw, peer) {
                    crowd.turned(why, journal);
                }
            }
            Err(problem) if is_the_connections_fault(&problem) => {}
            Err(problem) => {
                // Out of descriptors or memory: the socket stays readable, so that going on at once would spin.
                listener.shared.gate.turn(Turned::Descriptors);
                crowd.turned(Turned::Descriptors, journal);
                if back_off == BACK_OFF_MIN {
                    tracing::warn!(listener = %listener.shared.name(), %problem, "cannot accept; backing off");
                }
                tokio::time::sleep(back_off).await;
                back_off = (back_off * 2).min(BACK_OFF_MAX);
            }
        }
    }
    acceptor.turn_newcomers_away();
    let last = |raw, peer| {
        let _ = admit(&worker, &listener, raw, peer); // that it was one too many is no event any more
    };
    acceptor.accept_waiting(last);
    tokio::time::sleep(STOP_LINGER).await;
    acceptor.accept_waiting(last);
}

fn admit(worker: &Rc<Worker>, listener: &Rc<LocalListener>, raw: Raw, peer: SocketAddr) -> Result<(), Turned> {
    let plan = worker.proxy.plan();
    let max = plan.listener(listener.shared.slot).map_or(usize::MAX, |plan| plan.connections_max);
    // What is turned away is closed at once: it has cost one descriptor for a moment, and no request has been read.
    let place = listener.shared.gate.enter(max).ok_or(Turned::Full)?;
    let lifecycle = &worker.proxy.shared().states.lifecycle;
    let open = lifecycle.connections();
    if open >= lifecycle.connections_max() {
        return Err(listener.shared.gate.turn(Turned::Memory));
    }
    if open >= worker.connections_max.get() {
        return Err(listener.shared.gate.turn(Turned::Descriptors));
    }
    let seat = Seat::new(worker, listener);
    tokio::task::spawn_local(connection::serve(Rc::clone(worker), seat, raw, peer, place));
    Ok(())
}

impl Acceptor {
    async fn accept(&self) -> io::Result<(Raw, SocketAddr)> {
        match self {
            Acceptor::Tcp(socket) | Acceptor::Lent(socket) => {
                socket.accept().await.map(|(stream, peer)| (Raw::Tcp(stream), peer))
            }
            Acceptor::Unix(socket) => socket.accept().await.map(|(stream, _)| (Raw::Unix(stream), nobody())),
        }
    }

    /// Has the kernel drop the first packet of new connections, so that none is established between the last accept
    /// and the close, which would reset it. A client whose packet is dropped sends it again a second later, and is
    /// refused in words it understands: nobody listens. Without the right to do so, that gap stays.
    fn turn_newcomers_away(&self) {
        let Acceptor::Tcp(socket) = self else { return };
        // Classic BPF over the TCP header: byte 13 holds the flags, 2 is SYN; 0 drops, all ones keeps.
        let filter = [
            SockFilter::new(0x30, 0, 0, 13),
            SockFilter::new(0x45, 0, 1, 2),
            SockFilter::new(0x06, 0, 0, 0),
            SockFilter::new(0x06, 0, 0, u32::MAX),
        ];
        if let Err(problem) = SockRef::from(socket).attach_filter(&filter) {
            tracing::debug!(%problem, "new connections cannot be held off while the port closes");
        }
    }

    /// Accepts everything in the backlog, asking the kernel and not tokio's memory of its last answer.
    fn accept_waiting(&self, mut each: impl FnMut(Raw, SocketAddr)) {
        use rustix::net::{SocketFlags, accept_with};
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        loop {
            let accepted = match self {
                Acceptor::Tcp(socket) | Acceptor::Lent(socket) => {
                    accept_with(socket, flags).map_err(io::Error::from).and_then(|taken| {
                        let stream = TcpStream::from_std(taken.into())?;
                        let peer = stream.peer_addr()?;
                        Ok((Raw::Tcp(stream), peer))
                    })
                }
                Acceptor::Unix(socket) => accept_with(socket, flags)
                    .map_err(io::Error::from)
                    .and_then(|taken| Ok((Raw::Unix(UnixStream::from_std(taken.into())?), nobody()))),
            };
            match accepted {
                Ok((raw, peer)) => each(raw, peer),
                Err(problem) if is_the_connections_fault(&problem) => {}
                Err(_) => return, // nothing is waiting, or no descriptor is left for it
            }
        }
    }
}

/// The peer of a Unix socket has no address; it is on this machine.
fn nobody() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}
