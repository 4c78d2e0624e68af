//! Many clients at once: each keeps one connection, numbers its requests, and notes what became of each.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::app::lock;
use crate::support::message::Head;
use crate::support::{DEADLINE, eventually, http2};

/// One request and what became of it.
#[derive(Clone, Debug)]
pub struct Asked {
    pub number: u64,
    pub post: bool,
    pub began: Instant,
    pub took: Duration,
    /// 0 is no answer.
    pub status: u16,
    /// The answer is Outrigger's own.
    pub refused: bool,
}

impl Asked {
    pub fn is_good(&self) -> bool {
        self.status == 200
    }

    /// At some moment between the two.
    pub fn under_way(&self, from: Instant, to: Instant) -> bool {
        self.began <= to && from <= self.began + self.took
    }
}

/// How they ask.
#[derive(Clone, Copy)]
pub struct Pace {
    pub clients: u64,
    /// Requests a second of all together; `None` is as fast as the answers come.
    pub rate: Option<f64>,
    /// Every so many requests are a POST; 0 is none.
    pub post_every: u64,
    /// Each client pauses for a random time up to this between two requests, where no rate is given.
    pub pause: Duration,
}

pub const GENTLE: Pace = Pace { clients: 10, rate: Some(400.0), post_every: 0, pause: Duration::ZERO };

pub struct Crowd {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    pace: Pace,
    address: SocketAddr,
    next: AtomicU64,
    most: u64,
    stop: AtomicBool,
    asked: Mutex<Vec<Asked>>,
}

impl Crowd {
    /// Goes on until it is stopped, or until `most` requests were sent.
    pub fn start(address: SocketAddr, pace: Pace, most: u64) -> Crowd {
        let (next, stop, asked) = (AtomicU64::new(0), AtomicBool::new(false), Mutex::default());
        let shared = Arc::new(Shared { pace, address, next, most, stop, asked });
        let theirs = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            http2::runtime().block_on(async move {
                let mut clients = JoinSet::new();
                for client in 0..theirs.pace.clients {
                    clients.spawn(ask(Arc::clone(&theirs), client));
                }
                while let Some(ended) = clients.join_next().await {
                    ended.expect("a client");
                }
            });
        });
        Crowd { shared, thread: Some(thread) }
    }

    /// Waits until `count` more requests have been answered.
    pub fn flows(&self, count: usize) {
        let wanted = lock(&self.shared.asked).len() + count;
        eventually("requests flow", || (lock(&self.shared.asked).len() >= wanted).then_some(()));
    }

    /// Lets each client end its request, and says what became of all, in the order in which they began.
    pub fn stop(self) -> Vec<Asked> {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.ended()
    }

    /// Waits until all `most` requests have been answered.
    pub fn ended(mut self) -> Vec<Asked> {
        self.thread.take().expect("joined once").join().expect("the crowd");
        let mut asked = std::mem::take(&mut *lock(&self.shared.asked));
        asked.sort_by_key(|one| one.began);
        asked
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
    }
}

async fn ask(shared: Arc<Shared>, client: u64) {
    let pace = shared.pace;
    let mut random = client.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let between = pace.rate.map(|rate| Duration::from_secs_f64(pace.clients as f64 / rate));
    // The clients do not start all at once.
    let mut next =
        tokio::time::Instant::now() + between.unwrap_or_default().mul_f64(client as f64 / pace.clients as f64);
    let mut wire = None;
    while !shared.stop.load(Ordering::SeqCst) {
        if let Some(between) = between {
            tokio::time::sleep_until(next).await;
            next += between;
        } else if !pace.pause.is_zero() {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            tokio::time::sleep(pace.pause.mul_f64(random as f64 / 2_f64.powi(64))).await;
        }
        let number = shared.next.fetch_add(1, Ordering::SeqCst);
        if number >= shared.most {
            return;
        }
        let post = pace.post_every > 0 && number.is_multiple_of(pace.post_every);
        let began = Instant::now();
        let answer = tokio::time::timeout(DEADLINE, one(&mut wire, shared.address, number, post)).await;
        let (status, refused) = answer.ok().flatten().unwrap_or((0, false));
        if status == 0 {
            wire = None;
        }
        lock(&shared.asked).push(Asked { number, post, began, took: began.elapsed(), status, refused });
    }
}

/// One request on the client's connection; `None` when there was no answer.
async fn one(wire: &mut Option<TcpStream>, address: SocketAddr, number: u64, post: bool) -> Option<(u16, bool)> {
    let stream = match wire {
        Some(stream) => stream,
        None => {
            let stream = TcpStream::connect(address).await.ok()?;
            let _ = stream.set_nodelay(true);
            wire.insert(stream)
        }
    };
    let request = if post {
        format!("POST /x HTTP/1.1\r\nhost: a\r\nx-number: {number}\r\ncontent-length: 5\r\n\r\nhello")
    } else {
        format!("GET /x HTTP/1.1\r\nhost: a\r\nx-number: {number}\r\n\r\n")
    };
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut buffer = Vec::new();
    loop {
        if let Some((head, used)) = Head::parse(&buffer)
            && buffer.len() >= used + head.length().unwrap_or(0)
        {
            let refused = head.get("content-type") == Some("application/problem+json");
            if head.get("connection") == Some("close") {
                *wire = None;
            }
            return Some((head.word(1).parse().ok()?, refused));
        }
        match stream.read_buf(&mut buffer).await {
            Ok(1..) => {}
            Ok(0) | Err(_) => return None,
        }
    }
}
