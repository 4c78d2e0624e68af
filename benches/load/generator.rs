//! The load: closed loop for saturation, open loop for latency. An open-loop request has an intended start that does
//! not depend on the answers before it, and its latency counts from there, so that a stall is not omitted
//! (coordinated omission, Gil Tene 2013). The intended starts come from a timerfd: the runtime's own timer counts
//! whole milliseconds, which is more than most answers take.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;
use tokio::task::LocalSet;

use super::client::{Client, Target, ask_http2, http2};
use super::scenario::Scenario;

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
                    let answer = ask_http2(&mut sender, scheme, scenario.path).await;
                    if !total.borrow_mut().note(answer) {
                        return;
                    }
                }
            });
        }
        local.await;
    }
}

pub struct Open {
    /// Microseconds.
    pub latency: Histogram<u64>,
    pub requests: u64,
    pub errors: u64,
}

/// Requests that are due and wait for a free connection.
#[derive(Default)]
struct Due {
    intended: RefCell<VecDeque<Instant>>,
    more: Notify,
    ended: RefCell<bool>,
}

/// `rate` requests a second, whatever the answers do, each on the first connection that is free.
pub async fn at_rate(load: &Load<'_>, rate: u64) -> Open {
    let latency = Histogram::new(3).expect("three digits are valid");
    let measured = Rc::new(RefCell::new(Open { latency, requests: 0, errors: 0 }));
    let due = Rc::new(Due::default());
    let local = LocalSet::new();
    for _ in 0..load.scenario.connections {
        local.spawn_local(lane(load.target.clone(), load.scenario.request(), due.clone(), measured.clone()));
    }
    let every = Duration::from_secs_f64(1.0 / rate as f64);
    let total = (load.duration.as_secs_f64() * rate as f64) as u32;
    let pace = due.clone();
    local.spawn_local(async move {
        let began = Instant::now() + Duration::from_millis(100);
        let timer = Timer::new();
        for number in 0..total {
            let intended = began + every * number;
            timer.until(intended).await;
            pace.intended.borrow_mut().push_back(intended);
            pace.more.notify_one();
        }
        pace.ended.replace(true);
        pace.more.notify_waiters();
    });
    local.await;
    // Every lane has ended, so nobody else holds it.
    Rc::into_inner(measured).map(RefCell::into_inner).expect("the lanes have ended")
}

async fn lane(target: Target, request: Vec<u8>, due: Rc<Due>, measured: Rc<RefCell<Open>>) {
    let mut client = Client::connect(&target).await;
    loop {
        let next = due.intended.borrow_mut().pop_front();
        let Some(intended) = next else {
            if *due.ended.borrow() {
                return;
            }
            due.more.notified().await;
            continue;
        };
        let answer = match &mut client {
            Some(open) => open.ask(&request).await,
            None => None,
        };
        let mut measured = measured.borrow_mut();
        measured.requests += 1;
        if answer.is_some() {
            measured.latency.saturating_record((intended.elapsed().as_micros() as u64).max(1));
        } else {
            measured.errors += 1;
            drop(measured);
            client = Client::connect(&target).await;
        }
    }
}

/// A timer with the kernel's resolution.
struct Timer(AsyncFd<rustix::fd::OwnedFd>);

impl Timer {
    fn new() -> Timer {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)
            .expect("the kernel has timers");
        // Deprecated for types whose descriptor may change; an `OwnedFd` keeps its own, and the way with `unsafe` would
        // be the only one in the house.
        #[allow(deprecated)]
        Timer(AsyncFd::new(timer).expect("a timer can be polled"))
    }

    async fn until(&self, when: Instant) {
        let left = when.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        let value = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
        timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::empty(), &once).expect("a relative time is valid");
        let mut ready = self.0.readable().await.expect("the runtime runs");
        let mut count = [0; 8];
        let _ = rustix::io::read(self.0.get_ref(), &mut count);
        ready.clear_ready();
    }
}

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
        eprintln!("only {} of {count} idle connections could be held (limit of open files?)", held.len());
    }
    held
}
