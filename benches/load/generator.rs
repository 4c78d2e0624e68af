//! The load: closed loop for saturation, open loop for latency. An open-loop request has an intended start that does
//! not depend on the answers before it, and its latency counts from there, so that a stall is not omitted
//! (coordinated omission, Gil Tene 2013). A thread of its own keeps the pace: the runtime's timer counts whole
//! milliseconds, which is more than most answers take.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::sync::{Mutex, mpsc};
use tokio::task::LocalSet;

use super::client::{Client, Target, ask_http2, http2};
use super::grpc;
use super::scenario::{Scenario, Wire};
use super::websocket::Talk;

pub struct Load<'a> {
    pub target: Target,
    pub scenario: &'a Scenario,
    pub duration: Duration,
}

#[derive(Default)]
pub struct Closed {
    pub requests: u64,
    pub bytes: u64,
    pub errors: u64,
    pub took: Duration,
}

impl Closed {
    fn note(&mut self, answer: Option<usize>) -> bool {
        match answer {
            Some(bytes) => {
                self.requests += 1;
                self.bytes += bytes as u64;
            }
            None => self.errors += 1,
        }
        answer.is_some()
    }
}

/// As many requests as the connections carry, one after the other on each (or on each stream).
pub async fn saturate(load: &Load<'_>) -> Closed {
    let began = Instant::now();
    let until = began + load.duration;
    let total = Rc::new(RefCell::new(Closed::default()));
    let local = LocalSet::new();
    for _ in 0..load.scenario.connections {
        let (target, scenario, total) = (load.target.clone(), *load.scenario, total.clone());
        if scenario.is_http2() {
            local.spawn_local(streams(target, scenario, until, total));
        } else if scenario.wire == Wire::WebSocket {
            local.spawn_local(messages(target, until, total));
        } else {
            local.spawn_local(requests(target, scenario, until, total));
        }
    }
    local.await;
    let mut closed = total.take();
    closed.took = began.elapsed();
    closed
}

async fn requests(target: Target, scenario: Scenario, until: Instant, total: Rc<RefCell<Closed>>) {
    let request = scenario.request();
    let mut kept: Option<Client> = None;
    while Instant::now() < until {
        let mut client = match kept.take() {
            Some(client) => Some(client),
            None => Client::connect(&target).await,
        };
        let answer = match &mut client {
            Some(open) => open.ask(&request).await,
            None => None,
        };
        if total.borrow_mut().note(answer) && !scenario.new_connection {
            kept = client;
        } else if answer.is_none() {
            tokio::time::sleep(Duration::from_millis(1)).await; // a proxy that is gone must not be hammered
        }
    }
}

async fn messages(target: Target, until: Instant, total: Rc<RefCell<Closed>>) {
    let mut talk = Talk::open(&target).await;
    while Instant::now() < until {
        let answer = match &mut talk {
            Some(open) => open.say().await,
            None => None,
        };
        if !total.borrow_mut().note(answer) {
            tokio::time::sleep(Duration::from_millis(1)).await; // a proxy that is gone must not be hammered
            talk = Talk::open(&target).await;
        }
    }
}

async fn streams(target: Target, scenario: Scenario, until: Instant, total: Rc<RefCell<Closed>>) {
    let scheme = if target.tls.is_some() { "https" } else { "http" };
    while Instant::now() < until {
        let Some(sender) = http2(&target).await else {
            total.borrow_mut().note(None);
            tokio::time::sleep(Duration::from_millis(1)).await;
            continue;
        };
        let local = LocalSet::new();
        for _ in 0..scenario.streams {
            let (mut sender, total) = (sender.clone(), total.clone());
            local.spawn_local(async move {
                while Instant::now() < until {
                    let answer = if scenario.wire == Wire::Grpc {
                        grpc::call(&mut sender, scheme, scenario.path).await
                    } else {
                        ask_http2(&mut sender, scheme, scenario.path).await
                    };
                    if !total.borrow_mut().note(answer) {
                        return;
                    }
                }
            });
        }
        local.await;
    }
}

/// What takes longer counts as this long.
const LATENCY_MAX_US: u64 = 60_000_000;

pub struct Open {
    /// Microseconds.
    pub latency: Histogram<u64>,
    pub requests: u64,
    pub errors: u64,
}

impl Open {
    fn note(&mut self, latency: Option<Duration>) {
        self.requests += 1;
        match latency {
            Some(latency) => self.latency.saturating_record((latency.as_micros() as u64).max(1)),
            None => self.errors += 1,
        }
    }
}

/// `rate` requests a second, whatever the answers do, each on the first connection that is free.
pub async fn at_rate(load: &Load<'_>, rate: u64) -> Open {
    let latency = Histogram::new_with_bounds(1, LATENCY_MAX_US, 3).expect("valid bounds");
    let measured = Rc::new(RefCell::new(Open { latency, requests: 0, errors: 0 }));
    let every = Duration::from_secs_f64(1.0 / rate as f64);
    let total = (load.duration.as_secs_f64() * rate as f64) as u32;
    let (sender, due) = mpsc::unbounded_channel();
    let pace = std::thread::spawn(move || pace(every, total, &sender));
    let due = Rc::new(Mutex::new(due));
    let local = LocalSet::new();
    for _ in 0..load.scenario.connections {
        local.spawn_local(lane(load.target.clone(), load.scenario.request(), due.clone(), measured.clone()));
    }
    local.await;
    let _ = pace.join(); // it has ended: the lanes wait for that
    // Every lane has ended, so nobody else holds it.
    Rc::into_inner(measured).map(RefCell::into_inner).expect("the lanes have ended")
}

/// Says when each request is to start.
fn pace(every: Duration, total: u32, due: &mpsc::UnboundedSender<Instant>) {
    // A sleep is late by the thread's slack, 50 µs unless told otherwise.
    let slack = format!("/proc/{}/timerslack_ns", rustix::thread::gettid().as_raw_nonzero());
    let _ = std::fs::write(slack, "1000"); // not allowed: the same for every proxy
    let began = Instant::now() + Duration::from_millis(100);
    for number in 0..total {
        let intended = began + every * number;
        std::thread::sleep(intended.saturating_duration_since(Instant::now()));
        if due.send(intended).is_err() {
            return;
        }
    }
}

async fn lane(
    target: Target,
    request: Vec<u8>,
    due: Rc<Mutex<mpsc::UnboundedReceiver<Instant>>>,
    measured: Rc<RefCell<Open>>,
) {
    let mut client = Client::connect(&target).await;
    loop {
        let next = due.lock().await.recv().await;
        let Some(intended) = next else { return };
        let answer = match &mut client {
            Some(open) => open.ask(&request).await,
            None => None,
        };
        let answered = answer.is_some();
        measured.borrow_mut().note(answered.then(|| intended.elapsed()));
        if !answered {
            client = Client::connect(&target).await;
        }
    }
}

/// Given back when there are no more open files to be had: reading what a proxy uses takes some.
const SPARE: usize = 16;

/// Connections that have asked once and now say nothing.
pub async fn hold(target: &Target, scenario: &Scenario, count: usize) -> Vec<Client> {
    let request = scenario.request();
    let mut held = Vec::with_capacity(count);
    for _ in 0..count {
        let Some(mut client) = Client::connect(target).await else { break };
        if client.ask(&request).await.is_none() {
            break;
        }
        client.rest();
        held.push(client);
    }
    if held.len() < count {
        held.truncate(held.len().saturating_sub(SPARE));
        eprintln!("only {} of {count} idle connections could be held (limit of open files?)", held.len());
    }
    held
}
