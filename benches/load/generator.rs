//! The load: closed loop for saturation, open loop for latency. An open-loop request has an intended start that does
//! not depend on the answers before it, and its latency counts from there, so that a stall is not omitted
//! (coordinated omission, Gil Tene 2013).

use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

const REQUEST: &[u8] = b"GET /bench HTTP/1.1\r\nHost: bench.example\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n";
const BODY: usize = 1024;

/// The app behind every proxy: 1 KB, at once, on kept-alive connections.
pub struct App {
    pub port: u16,
    pub serve: Pin<Box<dyn Future<Output = ()> + Send>>,
}

pub async fn app() -> App {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let answer =
        format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {BODY}\r\n\r\n{}", "x".repeat(BODY));
    let answer: &'static [u8] = Box::leak(answer.into_bytes().into_boxed_slice());
    let serve = async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            let _ = stream.set_nodelay(true);
            tokio::spawn(answer_all(stream, answer));
        }
    };
    App { port, serve: Box::pin(serve) }
}

async fn answer_all(mut stream: TcpStream, answer: &'static [u8]) {
    let mut buffer = Vec::with_capacity(8192);
    loop {
        match stream.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        while let Some(end) = find(&buffer, b"\r\n\r\n") {
            buffer.drain(..end + 4);
            if stream.write_all(answer).await.is_err() {
                return;
            }
        }
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

pub struct Load {
    pub port: u16,
    pub connections: usize,
    pub duration: Duration,
}

pub struct Closed {
    pub requests: u64,
    pub errors: u64,
    pub took: Duration,
}

/// As many requests as the connections carry, one after the other on each.
pub async fn saturate(load: &Load) -> Closed {
    let began = Instant::now();
    let until = began + load.duration;
    let mut clients = JoinSet::new();
    for _ in 0..load.connections {
        let port = load.port;
        clients.spawn(async move {
            let (mut requests, mut errors) = (0, 0);
            let mut client = Client::connect(port).await;
            while Instant::now() < until {
                let answered = match &mut client {
                    Some(open) => open.ask().await,
                    None => false,
                };
                if answered {
                    requests += 1;
                } else {
                    errors += 1;
                    client = Client::connect(port).await;
                }
            }
            (requests, errors)
        });
    }
    let (mut requests, mut errors) = (0, 0);
    while let Some(Ok((done, failed))) = clients.join_next().await {
        requests += done;
        errors += failed;
    }
    Closed { requests, errors, took: began.elapsed() }
}

pub struct Open {
    /// Microseconds.
    pub latency: Histogram<u64>,
    pub errors: u64,
}

/// `rate` requests a second, spread evenly over the connections, whatever the answers do.
pub async fn at_rate(load: &Load, rate: u64) -> Open {
    let began = Instant::now() + Duration::from_millis(50);
    let total = (load.duration.as_secs_f64() * rate as f64) as u64;
    let every = Duration::from_secs_f64(1.0 / rate as f64);
    let mut clients = JoinSet::new();
    for lane in 0..load.connections as u64 {
        let (port, lanes) = (load.port, load.connections as u64);
        clients.spawn(async move {
            let (mut latencies, mut errors) = (Vec::new(), 0);
            let mut client = Client::connect(port).await;
            for number in (lane..total).step_by(lanes as usize) {
                let intended = began + every * number as u32;
                tokio::time::sleep_until(intended.into()).await;
                let answered = match &mut client {
                    Some(open) => open.ask().await,
                    None => false,
                };
                if answered {
                    latencies.push(intended.elapsed().as_micros() as u64);
                } else {
                    errors += 1;
                    client = Client::connect(port).await;
                }
            }
            (latencies, errors)
        });
    }
    let mut latency = Histogram::new(3).expect("three digits are valid");
    let mut errors = 0;
    while let Some(Ok((latencies, failed))) = clients.join_next().await {
        errors += failed;
        for micros in latencies {
            latency.saturating_record(micros.max(1));
        }
    }
    Open { latency, errors }
}

/// Opens `count` connections, asks once on each, leaves them open and takes a measure.
pub async fn hold_idle(port: u16, count: usize, measure: impl Fn() -> f64) -> f64 {
    let mut held = Vec::with_capacity(count);
    for _ in 0..count {
        let Some(mut client) = Client::connect(port).await else { break };
        if client.ask().await {
            held.push(client);
        }
    }
    if held.len() < count {
        eprintln!("only {} of {count} idle connections could be held (limit of open files?)", held.len());
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    measure()
}

struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    async fn connect(port: u16) -> Option<Client> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
        stream.set_nodelay(true).ok()?;
        Some(Client { stream, buffer: Vec::with_capacity(4096) })
    }

    /// One request; whether a whole 200 came back.
    async fn ask(&mut self) -> bool {
        self.buffer.clear();
        if self.stream.write_all(REQUEST).await.is_err() {
            return false;
        }
        loop {
            match self.stream.read_buf(&mut self.buffer).await {
                Ok(0) | Err(_) => return false,
                Ok(_) => {}
            }
            if let Some(head) = find(&self.buffer, b"\r\n\r\n")
                && self.buffer.len() >= head + 4 + BODY
            {
                return self.buffer.starts_with(b"HTTP/1.1 200");
            }
        }
    }
}
