//! The clients: calls come at their rate, whatever became of those before (open loop, Poisson, always the same ones).
//! A call is up to four attempts of at most one second; after a timeout the next begins at once, after an answer that
//! is not 200 a tenth of a second later.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::{App, END, TRIGGER, Trigger};

const TIMEOUT: Duration = Duration::from_secs(1);
const ATTEMPTS: u32 = 4;
const PAUSE: Duration = Duration::from_millis(100);

/// Times are seconds since the start.
#[derive(Clone, Copy)]
pub struct Call {
    pub came: f64,
    ended: f64,
    pub well: bool,
    pub attempts: u32,
}

impl Call {
    pub fn ended_well_in(&self, from: f64, to: f64) -> bool {
        self.well && self.ended >= from && self.ended < to
    }
}

#[derive(Default)]
pub struct Run {
    pub calls: Vec<Call>,
    /// When an attempt was answered with something else than 200.
    pub refused: Vec<f64>,
}

impl Run {
    /// Calls that ended well, a second, for each half second.
    pub fn goodput(&self) -> Vec<f64> {
        let mut counts = vec![0.0; (END * 2.0) as usize];
        for call in self.calls.iter().filter(|call| call.well) {
            if let Some(count) = counts.get_mut((call.ended * 2.0) as usize) {
                *count += 2.0;
            }
        }
        counts
    }
}

struct Clients {
    port: u16,
    start: Instant,
    idle: RefCell<Vec<TcpStream>>,
    run: RefCell<Run>,
}

pub fn run(port: u16, app: &App, trigger: Trigger) -> Run {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let clients =
            Rc::new(Clients { port, start: Instant::now(), idle: RefCell::default(), run: RefCell::default() });
        let mut random = 0x9e37_79b9_7f4a_7c15u64;
        let mut at = 0.0;
        let mut calls = Vec::new();
        while at < END {
            let during = (TRIGGER.0..TRIGGER.1).contains(&at);
            app.slower(trigger.slower(during));
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let unit = (random >> 11) as f64 / (1u64 << 53) as f64;
            at += -(1.0 - unit).ln() / trigger.rate(during);
            sleep_until(clients.start + Duration::from_secs_f64(at)).await;
            calls.push(tokio::task::spawn_local(call(clients.clone(), at)));
        }
        for call in calls {
            let _ = call.await;
        }
        clients.run.take()
    })
}

async fn call(clients: Rc<Clients>, came: f64) {
    let mut call = Call { came, ended: 0.0, well: false, attempts: 0 };
    while !call.well && call.attempts < ATTEMPTS {
        call.attempts += 1;
        let answered = timeout(TIMEOUT, clients.attempt()).await;
        call.ended = clients.start.elapsed().as_secs_f64();
        match answered {
            Ok(Some(200)) => call.well = true,
            Ok(_) => {
                clients.run.borrow_mut().refused.push(call.ended);
                sleep(PAUSE).await;
            }
            Err(_) => {}
        }
    }
    clients.run.borrow_mut().calls.push(call);
}

impl Clients {
    /// The status; `None` when the connection broke. Given up, it closes its connection.
    async fn attempt(&self) -> Option<u16> {
        let kept = self.idle.borrow_mut().pop();
        let mut stream = match kept {
            Some(stream) => stream,
            None => TcpStream::connect(("127.0.0.1", self.port)).await.ok()?,
        };
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.ok()?;
        let mut answer = Vec::new();
        loop {
            if stream.read_buf(&mut answer).await.ok()? == 0 {
                return None;
            }
            let Some(end) = answer.windows(4).position(|end| end == b"\r\n\r\n") else { continue };
            let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
            let status = head.split(' ').nth(1)?.parse().ok()?;
            let length =
                head.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse::<usize>().ok());
            match length {
                Some(length) if answer.len() < end + 4 + length => {}
                Some(_) if !head.contains("connection: close") => {
                    self.idle.borrow_mut().push(stream);
                    return Some(status);
                }
                Some(_) | None => return Some(status),
            }
        }
    }
}
