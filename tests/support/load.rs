//! A mixed load and the app it is for: requests on kept and on fresh connections, slow answers, uploads, streams and
//! WebSockets, every answer checked to the last byte. It runs in threads of its own; the test stays free to act.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::message::{Chunked, Head, chunked, chunks};
use super::{DEADLINE, eventually, http2};

/// Answers `/fast` at once, `/slow` after 100 ms, `/stream` in ten pieces, `/echo` with the body, and echoes frames.
pub fn app() -> SocketAddr {
    let (give, take) = mpsc::channel();
    thread::spawn(move || {
        http2::runtime().block_on(async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port for the app");
            let _ = give.send(listener.local_addr().expect("its address"));
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream));
            }
        });
    });
    take.recv_timeout(DEADLINE).expect("an app")
}

async fn serve(mut stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let mut buffer = Vec::new();
    while let Some((head, body)) = message(&mut stream, &mut buffer).await {
        let sent = match head.word(1) {
            "/chat" => {
                let switch = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
                if stream.write_all(switch.as_bytes()).await.is_err() {
                    return;
                }
                return echo(stream).await;
            }
            "/stream" => stream_out(&mut stream).await,
            path => {
                if path == "/slow" {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                let body = if path == "/echo" { body } else { path.as_bytes().to_vec() };
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
                stream.write_all(&[head.into_bytes(), body].concat()).await
            }
        };
        if sent.is_err() {
            return;
        }
    }
}

async fn stream_out(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await?;
    for number in 0..10 {
        stream.write_all(format!("7\r\npiece {number}\r\n").as_bytes()).await?;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    stream.write_all(b"0\r\n\r\n").await
}

/// Sends each client's frame back as a server's: without its mask, which is zero here.
async fn echo(mut stream: TcpStream) {
    let mut frame = [0; 11];
    while stream.read_exact(&mut frame).await.is_ok() {
        let back = [&[frame[0], frame[1] & 0x7f], &frame[6..]].concat();
        if stream.write_all(&back).await.is_err() {
            return;
        }
    }
}

/// The next message with its body; `None` at the end.
async fn message(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<(Head, Vec<u8>)> {
    loop {
        if let Some((head, used)) = Head::parse(buffer) {
            if head.chunked() {
                if let Chunked::Whole { body, used: more, .. } = chunked(&buffer[used..]) {
                    buffer.drain(..used + more);
                    return Some((head, body));
                }
            } else if buffer.len() >= used + head.length().unwrap_or(0) {
                let body = buffer[used..used + head.length().unwrap_or(0)].to_vec();
                buffer.drain(..used + body.len());
                return Some((head, body));
            }
        }
        match stream.read_buf(buffer).await {
            Ok(1..) => {}
            Ok(0) | Err(_) => return None,
        }
    }
}

/// What the load consists of.
#[derive(Clone, Copy)]
pub struct Mix {
    /// Requests per second, spread over the lanes that ask `/fast`.
    pub rate: u32,
    pub kept: u32,
    pub fresh: u32,
    pub slow: u32,
    pub echo: u32,
    pub streams: u32,
    pub websockets: u32,
}

impl Default for Mix {
    fn default() -> Mix {
        Mix { rate: 1200, kept: 20, fresh: 4, slow: 6, echo: 4, streams: 4, websockets: 5 }
    }
}

/// What it saw.
#[derive(Default)]
pub struct Seen {
    pub good: AtomicU64,
    by_lane: Mutex<BTreeMap<&'static str, u64>>,
    failed: Mutex<Vec<String>>,
    /// Kept connections that had to be made anew.
    pub reconnected: AtomicU64,
    /// Kept connections that were closed as a request was on its way, which HTTP/1.1 clients must expect.
    pub raced: AtomicU64,
    /// Connections refused, which is how a load ends in a drain.
    pub refused: AtomicU64,
    /// WebSockets closed by a frame with 1001.
    pub goodbyes: AtomicU64,
    stop: AtomicBool,
    /// A refused connection ends a lane instead of being a failure.
    ending: AtomicBool,
}

impl Seen {
    fn well(&self, lane: &'static str) {
        self.good.fetch_add(1, Ordering::SeqCst);
        *self.by_lane.lock().unwrap_or_else(PoisonError::into_inner).entry(lane).or_insert(0) += 1;
    }

    fn fail(&self, words: String) {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).push(words);
    }

    pub fn failed(&self) -> Vec<String> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn good(&self) -> u64 {
        self.good.load(Ordering::SeqCst)
    }

    pub fn by_lane(&self) -> BTreeMap<&'static str, u64> {
        self.by_lane.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A load that runs until it is stopped or nobody listens any more.
pub struct Load {
    pub seen: Arc<Seen>,
    began: Instant,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    pub fn start(address: SocketAddr, mix: Mix) -> Load {
        let seen = Arc::new(Seen::default());
        let shared = Arc::clone(&seen);
        let thread = thread::spawn(move || http2::runtime().block_on(run(address, mix, shared)));
        Load { seen, began: Instant::now(), thread: Some(thread) }
    }

    /// Waits for `count` more good answers, so that what comes next meets a load that flows.
    pub fn flows(&self, count: u64) {
        let wanted = self.seen.good() + count;
        eventually("the load flows", || {
            assert!(self.seen.failed().is_empty(), "{:?}", self.seen.failed());
            (self.seen.good() >= wanted).then_some(())
        });
    }

    /// From now on a refused connection is the end of a lane, not a failure.
    pub fn expect_the_end(&self) {
        self.seen.ending.store(true, Ordering::SeqCst);
    }

    /// Waits until every lane has ended by itself.
    pub fn ended(mut self) -> Arc<Seen> {
        self.join();
        Arc::clone(&self.seen)
    }

    /// Ends every lane after its current answer.
    pub fn stop(mut self) -> Arc<Seen> {
        self.seen.stop.store(true, Ordering::SeqCst);
        self.join();
        Arc::clone(&self.seen)
    }

    fn join(&mut self) {
        let thread = self.thread.take().expect("joined once");
        let until = Instant::now() + DEADLINE * 3;
        while !thread.is_finished() {
            assert!(Instant::now() < until, "the load does not end: {:?}", self.seen.failed());
            thread::sleep(Duration::from_millis(5));
        }
        thread.join().expect("the load");
        let took = self.began.elapsed();
        eprintln!("load: {} answers in {took:?}, {:?}", self.seen.good(), self.seen.by_lane());
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.seen.stop.store(true, Ordering::SeqCst);
    }
}

async fn run(address: SocketAddr, mix: Mix, seen: Arc<Seen>) {
    let mut lanes = JoinSet::new();
    let pace = Duration::from_secs(1) * (mix.kept + mix.fresh) / mix.rate;
    let kinds = [
        (mix.kept, Lane { name: "kept", path: "/fast", body: 0, keep: true, pace }),
        (mix.fresh, Lane { name: "fresh", path: "/fast", body: 0, keep: false, pace }),
        (mix.slow, Lane { name: "slow", path: "/slow", body: 0, keep: true, pace: Duration::from_millis(1) }),
        (mix.echo, Lane { name: "echo", path: "/echo", body: 20_000, keep: true, pace: Duration::from_millis(20) }),
        (mix.streams, Lane { name: "stream", path: "/stream", body: 0, keep: true, pace: Duration::from_millis(1) }),
    ];
    for (count, lane) in kinds {
        for _ in 0..count {
            lanes.spawn(lane.run(address, Arc::clone(&seen)));
        }
    }
    for _ in 0..mix.websockets {
        let seen = Arc::clone(&seen);
        lanes.spawn(async move {
            if let Err(words) = websocket(address, &seen).await {
                seen.fail(format!("websocket: {words}"));
            }
        });
    }
    while let Some(ended) = lanes.join_next().await {
        if let Err(problem) = ended {
            seen.fail(problem.to_string());
        }
    }
}

#[derive(Clone, Copy)]
struct Lane {
    name: &'static str,
    path: &'static str,
    body: usize,
    keep: bool,
    pace: Duration,
}

/// Why there was no good answer.
enum Miss {
    /// No byte of an answer came.
    Nothing(String),
    Wrong(String),
}

impl Lane {
    async fn run(self, address: SocketAddr, seen: Arc<Seen>) {
        let mut ticks = tokio::time::interval(self.pace);
        let mut kept: Option<TcpStream> = None;
        while !seen.stop.load(Ordering::SeqCst) {
            ticks.tick().await;
            let reused = kept.is_some();
            let mut stream = match kept.take() {
                Some(stream) => stream,
                None => match TcpStream::connect(address).await {
                    Ok(stream) => stream,
                    Err(problem) => {
                        seen.refused.fetch_add(1, Ordering::SeqCst);
                        if !seen.ending.load(Ordering::SeqCst) {
                            seen.fail(format!("{}: connect: {problem}", self.name));
                        }
                        return;
                    }
                },
            };
            let _ = stream.set_nodelay(true);
            let asked = tokio::time::timeout(DEADLINE, self.ask(&mut stream)).await;
            match asked.unwrap_or_else(|_| Err(Miss::Wrong("no answer in time".to_owned()))) {
                Ok(again) => {
                    seen.well(self.name);
                    kept = Some(stream).filter(|_| again && self.keep);
                    if self.keep && !again {
                        seen.reconnected.fetch_add(1, Ordering::SeqCst);
                    }
                }
                Err(Miss::Nothing(_)) if reused => {
                    seen.raced.fetch_add(1, Ordering::SeqCst);
                }
                Err(Miss::Nothing(words) | Miss::Wrong(words)) => seen.fail(format!("{}: {words}", self.name)),
            }
        }
    }

    /// One answer, whole and right; whether the connection may be used again.
    async fn ask(self, stream: &mut TcpStream) -> Result<bool, Miss> {
        let method = if self.body > 0 { "POST" } else { "GET" };
        let body: Vec<u8> = (0..self.body).map(|at| b'a' + u8::try_from(at % 26).expect("a letter")).collect();
        let close = if self.keep { "" } else { "connection: close\r\n" };
        let framing = if self.body > 0 { "transfer-encoding: chunked\r\n" } else { "" };
        let head = format!("{method} {} HTTP/1.1\r\nhost: a.example\r\n{close}{framing}\r\n", self.path);
        let mut request = head.into_bytes();
        if self.body > 0 {
            request.extend_from_slice(&chunks(&body.chunks(7000).collect::<Vec<_>>()));
        }
        stream.write_all(&request).await.map_err(|problem| Miss::Nothing(format!("not sent: {problem}")))?;
        let mut buffer = Vec::new();
        let Some((head, got)) = message(stream, &mut buffer).await else {
            let words = format!("ended after {:?}", String::from_utf8_lossy(&buffer));
            return Err(if buffer.is_empty() { Miss::Nothing(words) } else { Miss::Wrong(words) });
        };
        if head.word(1) != "200" {
            return Err(Miss::Wrong(format!("{}: {}", head.first, String::from_utf8_lossy(&got))));
        }
        let wanted = match self.path {
            "/echo" => body,
            "/stream" => (0..10).flat_map(|number| format!("piece {number}").into_bytes()).collect(),
            path => path.as_bytes().to_vec(),
        };
        if got != wanted {
            return Err(Miss::Wrong(format!("a wrong body of {} bytes for {}", got.len(), self.path)));
        }
        Ok(head.get("connection").is_none_or(|value| !value.eq_ignore_ascii_case("close")))
    }
}

/// Sends a frame and waits for its echo, until told to stop or told goodbye.
async fn websocket(address: SocketAddr, seen: &Seen) -> Result<(), String> {
    let mut stream = TcpStream::connect(address).await.map_err(|problem| problem.to_string())?;
    let ask = "GET /chat HTTP/1.1\r\nhost: a.example\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
        sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(ask.as_bytes()).await.map_err(|problem| problem.to_string())?;
    let mut buffer = Vec::new();
    let Some((head, _)) = message(&mut stream, &mut buffer).await else { return Err("no answer".to_owned()) };
    if head.word(1) != "101" {
        return Err(head.first);
    }
    let mut echoed = 0_u64;
    while !seen.stop.load(Ordering::SeqCst) {
        let sent = stream.write_all(&[0x82, 0x85, 0, 0, 0, 0, b'h', b'e', b'l', b'l', b'o']).await;
        let mut start = [0; 2];
        let read = tokio::time::timeout(DEADLINE, stream.read_exact(&mut start)).await;
        match read {
            Ok(Ok(_)) if start == [0x82, 5] => {
                let mut rest = [0; 5];
                stream.read_exact(&mut rest).await.map_err(|problem| problem.to_string())?;
                if &rest != b"hello" {
                    return Err(format!("a wrong echo: {rest:?}"));
                }
            }
            Ok(Ok(_)) if start == [0x88, 2] => {
                let mut code = [0; 2];
                stream.read_exact(&mut code).await.map_err(|problem| problem.to_string())?;
                if code == 1001_u16.to_be_bytes() {
                    seen.goodbyes.fetch_add(1, Ordering::SeqCst);
                    let _ = stream.write_all(&[0x88, 0x82, 0, 0, 0, 0, code[0], code[1]]).await;
                    return Ok(());
                }
                return Err(format!("closed with {code:?}"));
            }
            other => return Err(format!("dropped after {echoed} frames: {sent:?}, {other:?}, {start:?}")),
        }
        echoed += 1;
        seen.well("websocket");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}
