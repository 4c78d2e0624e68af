//! A route's hedging as all workers share it. Only routes that hedge have one, and only their requests that may be
//! hedged take its lock, for the time of a few additions.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::clock;
use super::journal::lock;
use crate::core::hedge::{Hedge, Params};

pub struct HedgeState {
    hedge: Mutex<Hedge>,
    pub counts: Counts,
}

/// What became of requests that outlasted the delay.
#[derive(Default)]
pub struct Counts {
    /// The second attempt answered first.
    pub won: AtomicU64,
    /// The first one did after all.
    pub lost: AtomicU64,
    /// No second attempt: the share or the retry budget was spent, or no endpoint would take it.
    pub refused: AtomicU64,
}

impl Default for HedgeState {
    fn default() -> Self {
        HedgeState { hedge: Mutex::new(Hedge::new(clock::now())), counts: Counts::default() }
    }
}

impl HedgeState {
    /// Counts a request that may be hedged; after how long, when that is known.
    pub fn request(&self, params: &Params, now: Instant) -> Option<Duration> {
        lock(&self.hedge).request(params, now)
    }

    pub fn learn(&self, params: &Params, took: Duration, now: Instant) {
        lock(&self.hedge).learn(params, took, now);
    }

    /// Whether one more hedge is within the share; it is counted when it is.
    pub fn spend(&self) -> bool {
        lock(&self.hedge).spend()
    }

    /// A hedge that was counted is not sent after all.
    pub fn give_back(&self) {
        lock(&self.hedge).give_back();
    }

    pub fn refused(&self) {
        self.counts.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// After how long a request is hedged now.
    pub fn delay(&self, params: &Params) -> Option<Duration> {
        lock(&self.hedge).delay(params)
    }
}
