//! A retry budget, shared by all workers: a real request costs one atomic addition, only a retry takes the lock.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::clock;
use super::journal::lock;
use crate::core::budget::{self, Budget, Params};

/// The budget of one upstream, or of one route that has its own.
pub struct BudgetState {
    real: AtomicU64,
    /// When the next slice of the window begins, in `clock::nanos`.
    turn_at: AtomicU64,
    budget: Mutex<Budget>,
    granted: AtomicU64,
    refused: AtomicU64,
}

impl Default for BudgetState {
    fn default() -> Self {
        BudgetState {
            real: AtomicU64::new(0),
            turn_at: AtomicU64::new(0),
            budget: Mutex::new(Budget::new(clock::now())),
            granted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }
}

impl BudgetState {
    /// Counts a real request: one that a client sent.
    pub fn request(&self, params: &Params, now: Instant) {
        let real = self.real.fetch_add(1, Ordering::Relaxed) + 1;
        let nanos = clock::nanos(now);
        if nanos < self.turn_at.load(Ordering::Relaxed) {
            return;
        }
        let next = nanos.saturating_add(u64::try_from(budget::slice(params).as_nanos()).unwrap_or(u64::MAX));
        self.turn_at.store(next, Ordering::Relaxed);
        lock(&self.budget).turn(params, real, now);
    }

    /// Whether one more attempt may be made; it is counted when it may.
    pub fn spend(&self, params: &Params, now: Instant) -> bool {
        let granted = lock(&self.budget).spend(params, self.real.load(Ordering::Relaxed), now);
        let counter = if granted { &self.granted } else { &self.refused };
        counter.fetch_add(1, Ordering::Relaxed);
        granted
    }

    /// Whole attempts left now.
    pub fn left(&self, params: &Params, now: Instant) -> u64 {
        lock(&self.budget).left(params, self.real.load(Ordering::Relaxed), now)
    }

    /// How often it was asked and said yes, and no.
    pub fn answers(&self) -> (u64, u64) {
        (self.granted.load(Ordering::Relaxed), self.refused.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const PARAMS: Params = Params { ratio: 0.2, window: Duration::from_secs(10), floor: 1.0 };

    #[test]
    fn workers_share_one_budget_exactly() {
        // Four threads ask for far more than there is, at one moment of time.
        let state = BudgetState::default();
        let now = clock::now();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..200).for_each(|_| state.request(&PARAMS, now)));
            }
        });
        let left = state.left(&PARAMS, now);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..2000).for_each(|_| _ = state.spend(&PARAMS, now)));
            }
        });
        assert_eq!(state.answers(), (left, 8000 - left));
        assert_eq!(left, 10 + 2 * 800);
        assert_eq!(state.left(&PARAMS, now), 0);
    }
}
