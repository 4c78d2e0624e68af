//! An app on raw sockets that fails as it is told, and counts how often it has executed each request by the request's
//! own number. A request counts as executed once it has come whole, whatever the app then does to its answer.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::support::message::Head;
use crate::support::{DEADLINE, http2};

/// What becomes of a request that is to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Reset,
    Unavailable,
    /// One or the other, by chance.
    Either,
}

/// What the app is told.
pub struct Told {
    fault: Mutex<(Fault, f64)>,
    /// Idle connections are closed after a random time between these.
    idle: Mutex<Option<(Duration, Duration)>>,
    seed: u64,
    random: AtomicU64,
    executed: Mutex<HashMap<u64, u32>>,
    connections: AtomicU64,
    /// Every connection is reset and nobody listens any more.
    killed: AtomicBool,
    kill: Notify,
}

impl Told {
    pub fn new(seed: u64) -> Arc<Told> {
        Arc::new(Told {
            fault: Mutex::new((Fault::Either, 0.0)),
            idle: Mutex::new(None),
            seed: seed << 32,
            random: AtomicU64::new(seed << 32),
            executed: Mutex::default(),
            connections: AtomicU64::new(0),
            killed: AtomicBool::new(false),
            kill: Notify::new(),
        })
    }

    /// From now on this share of the requests fails.
    pub fn fail(&self, fault: Fault, share: f64) {
        *lock(&self.fault) = (fault, share);
    }

    pub fn close_idle(&self, least: Duration, most: Duration) {
        *lock(&self.idle) = Some((least, most));
    }

    /// How often each request was executed.
    pub fn executed(&self) -> HashMap<u64, u32> {
        lock(&self.executed).clone()
    }

    pub fn executions(&self) -> u64 {
        lock(&self.executed).values().map(|times| u64::from(*times)).sum()
    }

    fn execute(&self, number: u64) -> u32 {
        let mut executed = lock(&self.executed);
        let times = executed.entry(number).or_insert(0);
        *times += 1;
        *times
    }

    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::SeqCst)
    }

    /// What becomes of a request executed for the `times`-th time: a matter of the seed, not of the order in which
    /// requests happen to come.
    fn fate(&self, number: u64, times: u32) -> Option<Fault> {
        let (fault, share) = *lock(&self.fault);
        let unit = mixed(self.seed.wrapping_add(number.wrapping_mul(64).wrapping_add(times.into())));
        (unit < share).then(|| match fault {
            Fault::Either if unit < share / 2.0 => Fault::Reset,
            Fault::Either => Fault::Unavailable,
            one => one,
        })
    }

    fn idle_max(&self) -> Duration {
        let Some((least, most)) = *lock(&self.idle) else { return DEADLINE * 6 };
        least + (most - least).mul_f64(mixed(self.random.fetch_add(1, Ordering::SeqCst)))
    }
}

/// A running process of the app; dropped, it is killed.
pub struct App {
    pub address: SocketAddr,
    told: Arc<Told>,
    thread: Option<JoinHandle<()>>,
}

impl App {
    pub fn start(told: &Arc<Told>) -> App {
        App::start_on(told, (Ipv4Addr::LOCALHOST, 0).into())
    }

    pub fn start_on(told: &Arc<Told>, address: SocketAddr) -> App {
        told.killed.store(false, Ordering::SeqCst);
        let (give, take) = mpsc::channel();
        let shared = Arc::clone(told);
        let thread = std::thread::spawn(move || {
            http2::runtime().block_on(async move {
                let socket = TcpSocket::new_v4().expect("a socket");
                socket.set_reuseaddr(true).expect("an address that was in use");
                socket.bind(address).expect("a port for the app");
                let listener = socket.listen(1024).expect("listening");
                let _ = give.send(listener.local_addr().expect("its address"));
                let mut connections = JoinSet::new();
                while !shared.killed.load(Ordering::SeqCst) {
                    tokio::select! {
                        () = shared.kill.notified() => {}
                        accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                            shared.connections.fetch_add(1, Ordering::SeqCst);
                            connections.spawn(serve(stream, Arc::clone(&shared)));
                        }
                    }
                }
                drop(listener);
                connections.shutdown().await;
            });
        });
        let address = take.recv_timeout(DEADLINE).expect("an app");
        App { address, told: Arc::clone(told), thread: Some(thread) }
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.told.killed.store(true, Ordering::SeqCst);
        self.told.kill.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn serve(mut stream: TcpStream, told: Arc<Told>) {
    let _ = stream.set_nodelay(true);
    // Dropped with the task, it resets: what a killed process's kernel does to what was not read.
    let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    let (mut buffer, mut idle_max) = (Vec::new(), DEADLINE);
    loop {
        let asked = tokio::time::timeout(idle_max, request(&mut stream, &mut buffer)).await;
        let Ok(Some(head)) = asked else {
            // In order: a FIN, as an app closes a connection that has been idle for too long.
            let _ = socket2::SockRef::from(&stream).set_linger(None);
            return;
        };
        let fate = match head.get("x-number").and_then(|number| number.parse().ok()) {
            Some(number) => {
                let times = told.execute(number);
                told.fate(number, times)
            }
            // A health check fails when everything does.
            None => told.fate(0, 0),
        };
        let answer = match fate {
            None => OK,
            Some(Fault::Unavailable) => UNAVAILABLE,
            Some(Fault::Reset | Fault::Either) => return,
        };
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
        idle_max = told.idle_max();
    }
}

/// The next request, whole.
async fn request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Head> {
    loop {
        if let Some((head, used)) = Head::parse(buffer) {
            let whole = used + head.length().unwrap_or(0);
            if buffer.len() >= whole {
                buffer.drain(..whole);
                return Some(head);
            }
        }
        match stream.read_buf(buffer).await {
            Ok(1..) => {}
            Ok(0) | Err(_) => return None,
        }
    }
}

/// Uniform in 0..1 (the mixing of SplitMix64).
fn mixed(number: u64) -> f64 {
    let mut z = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)) as f64 / 2_f64.powi(64)
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const UNAVAILABLE: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";
