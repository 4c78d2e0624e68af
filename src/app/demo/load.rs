//! The load of the demo: requests at a fixed rate whatever the answers, as real users arrive.
//!
//! Open loop: a slow answer does not hold back the next request, and each is timed from when it was *due*, so that a
//! stall is seen by everyone who had to wait (no coordinated omission).

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hdrhistogram::Histogram;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::MissedTickBehavior;

use super::flaky::Mood;
use crate::state::clock;

/// Kept-alive connections; more requests at a time open more, which are closed again.
const IDLE_MAX: usize = 64;
/// A client's patience.
const PATIENCE: Duration = Duration::from_secs(10);
/// Of 20 requests, one POST with an Idempotency-Key and one without.
const ROUND: u64 = 20;

/// What the clients saw.
pub struct Seen {
    pub sent: u64,
    /// Of these, while the app was not listening.
    pub sent_while_away: u64,
    /// And while it was broken outright.
    pub sent_while_broken: u64,
    pub failed_while_broken: u64,
    pub good: u64,
    /// By status; 0 is no answer.
    pub failed: std::collections::BTreeMap<u16, u64>,
    /// Microseconds, of all answers.
    pub times: Histogram<u32>,
}

impl Default for Seen {
    fn default() -> Seen {
        // Bounds that hdrhistogram accepts: two digits, one microsecond to a minute, growing never.
        let times = Histogram::new_with_bounds(1, 60_000_000, 2).unwrap_or_else(|_| unreachable!("constant bounds"));
        Seen {
            sent: 0,
            sent_while_away: 0,
            sent_while_broken: 0,
            failed_while_broken: 0,
            good: 0,
            failed: std::collections::BTreeMap::new(),
            times,
        }
    }
}

impl Seen {
    pub fn failures(&self) -> u64 {
        self.failed.values().sum()
    }

    /// Milliseconds.
    pub fn quantile(&self, quantile: f64) -> f64 {
        self.times.value_at_quantile(quantile) as f64 / 1_000.0
    }

    fn answered(&mut self, status: Option<StatusCode>, broken: bool, took: Duration) {
        match status {
            Some(status) if status.is_success() => self.good += 1,
            other => {
                *self.failed.entry(other.map_or(0, |status| status.as_u16())).or_default() += 1;
                self.failed_while_broken += u64::from(broken);
            }
        }
        self.times.saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }
}

/// The clients, all on one thread.
pub struct Load {
    target: SocketAddr,
    idle: RefCell<Vec<SendRequest<Full<Bytes>>>>,
    /// What the app is like now.
    mood: Box<dyn Fn() -> Mood>,
    pub seen: RefCell<Seen>,
}

impl Load {
    pub fn new(target: SocketAddr, mood: impl Fn() -> Mood + 'static) -> Rc<Load> {
        Rc::new(Load { target, idle: RefCell::default(), mood: Box::new(mood), seen: RefCell::default() })
    }

    /// Sends `rate` requests a second until it is dropped; needs a `LocalSet`.
    pub async fn run(self: Rc<Self>, rate: u32) {
        let mut due = tokio::time::interval(Duration::from_secs(1) / rate.max(1));
        due.set_missed_tick_behavior(MissedTickBehavior::Burst);
        for number in 0u64.. {
            let due = due.tick().await.into_std();
            let load = Rc::clone(&self);
            tokio::task::spawn_local(async move { load.one(number, due).await });
        }
    }

    /// Waits for what is under way, at most `limit`.
    pub async fn settled(&self, limit: Duration) {
        let under_way = || {
            let seen = self.seen.borrow();
            seen.sent > seen.good + seen.failures()
        };
        let settled = async {
            while under_way() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let _ = tokio::time::timeout(limit, settled).await; // the rest is cut by the end of the process
    }

    async fn one(&self, number: u64, due: Instant) {
        let mood = (self.mood)();
        {
            let mut seen = self.seen.borrow_mut();
            seen.sent += 1;
            seen.sent_while_away += u64::from(!mood.listens);
            seen.sent_while_broken += u64::from(mood.broken());
        }
        let status = tokio::time::timeout(PATIENCE, self.exchange(number)).await.ok().flatten();
        let took = clock::now().saturating_duration_since(due);
        self.seen.borrow_mut().answered(status, mood.broken(), took);
    }

    async fn exchange(&self, number: u64) -> Option<StatusCode> {
        let request = self.request(number)?;
        let mut connection = self.connection().await?;
        let response = connection.send_request(request).await.ok()?;
        let status = response.status();
        response.into_body().collect().await.ok()?;
        let mut idle = self.idle.borrow_mut();
        if idle.len() < IDLE_MAX && !connection.is_closed() {
            idle.push(connection);
        }
        Some(status)
    }

    /// An idle connection that still lives, or a new one.
    async fn connection(&self) -> Option<SendRequest<Full<Bytes>>> {
        loop {
            let Some(mut idle) = self.idle.borrow_mut().pop() else { break };
            if idle.ready().await.is_ok() {
                return Some(idle);
            }
        }
        let stream = TcpStream::connect(self.target).await.ok()?;
        stream.set_nodelay(true).ok()?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
        tokio::task::spawn_local(async move { drop(connection.await) });
        Some(sender)
    }

    fn request(&self, number: u64) -> Option<Request<Full<Bytes>>> {
        let builder = Request::builder().uri("/api/orders").header("host", self.target.to_string());
        let request = match number % ROUND {
            7 => builder.method(Method::POST).header("idempotency-key", number.to_string()).body(Full::from("{}")),
            13 => builder.method(Method::POST).body(Full::from("{}")),
            _ => builder.body(Full::default()),
        };
        request.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_good_or_failed_and_always_timed() {
        let mut seen = Seen::default();
        seen.answered(Some(StatusCode::OK), true, Duration::from_millis(1));
        seen.answered(Some(StatusCode::BAD_GATEWAY), true, Duration::from_millis(2));
        seen.answered(None, false, Duration::from_secs(3_600));
        assert_eq!((seen.good, seen.failures(), seen.times.len()), (1, 2, 3));
        assert_eq!((seen.failed.get(&0), seen.failed_while_broken), (Some(&1), 1));
    }
}
