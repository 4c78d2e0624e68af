//! What is known of a store that replicas share, by all workers together: each has a connection of its own, and an
//! operator wants one event when the first is lost and one when the last is back.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use super::journal::lock;

/// The living state of one store.
#[derive(Default)]
pub struct StoreState {
    known: Mutex<Known>,
    pub answered: AtomicU64,
    /// Asked, and not answered in time or not with sense.
    pub failed: AtomicU64,
    /// Not asked, because it was away.
    pub unasked: AtomicU64,
}

/// What is known.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Workers that use it, and those of them whose connection is well.
    links: usize,
    up: usize,
    away_since: Option<Instant>,
    /// Since when it is away, for people.
    pub since: Option<SystemTime>,
    pub problem: Option<String>,
}

impl Known {
    /// `None` until the first connection has been tried.
    pub fn well(&self) -> Option<bool> {
        if self.away_since.is_some() { Some(false) } else { (self.up > 0).then_some(true) }
    }
}

impl StoreState {
    pub fn joined(&self) {
        lock(&self.known).links += 1;
    }

    /// A worker does not use it any more.
    pub fn left(&self, was_up: bool) {
        let mut known = lock(&self.known);
        known.links = known.links.saturating_sub(1);
        known.up = known.up.saturating_sub(usize::from(was_up));
    }

    /// A worker is connected; how long the store was away when that was the last one to come back.
    pub fn up(&self, now: Instant) -> Option<Duration> {
        let mut known = lock(&self.known);
        known.up += 1;
        if known.up < known.links {
            return None;
        }
        known.since = None;
        known.problem = None;
        known.away_since.take().map(|since| now.saturating_duration_since(since))
    }

    /// A worker could not connect, or has lost its connection; true when it is the first.
    pub fn away(&self, was_up: bool, problem: String, now: Instant, wall: SystemTime) -> bool {
        let mut known = lock(&self.known);
        known.up = known.up.saturating_sub(usize::from(was_up));
        known.problem = Some(problem);
        if known.away_since.is_some() {
            return false;
        }
        known.away_since = Some(now);
        known.since = Some(wall);
        true
    }

    pub fn known(&self) -> Known {
        lock(&self.known).clone()
    }

    pub fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::clock;

    #[test]
    fn the_first_loss_and_the_last_return_are_told() {
        let (state, now, wall) = (StoreState::default(), clock::now(), SystemTime::UNIX_EPOCH);
        state.joined();
        state.joined();
        assert_eq!(state.known().well(), None);
        assert_eq!((state.up(now), state.up(now)), (None, None));
        assert_eq!(state.known().well(), Some(true));
        let lost = |was_up| state.away(was_up, "gone".to_owned(), now, wall);
        assert_eq!([lost(true), lost(true), lost(false)], [true, false, false]);
        assert_eq!((state.known().well(), state.known().problem.as_deref()), (Some(false), Some("gone")));
        let later = now + Duration::from_secs(3);
        assert_eq!((state.up(later), state.up(later)), (None, Some(Duration::from_secs(3))));
        assert_eq!((state.known().well(), state.known().problem), (Some(true), None));
        lost(true);
        // The worker that had no connection goes, and with it the reason to wait.
        state.left(false);
        assert_eq!(state.known().well(), Some(false));
    }
}
