//! Where the process stands between its start and its end, and what a drain has finished or cut.
//! The order of a drain is decided by `core::drain`; this is what everybody else sees of it.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};

use tokio::sync::watch;

/// What the data plane may do. The order is the order in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Ports may be open, the app has not answered yet.
    Starting,
    Serving,
    /// Told to stop: not ready, still accepting.
    Delaying,
    /// No new connections; answers say `Connection: close` or GOAWAY.
    Closing,
    /// Requests have ended or their time is over: upgraded connections are told goodbye, spread out.
    Parting,
    /// The drain's time is over: what is still open is cut.
    Cutting,
}

/// The process's stage, its counts of requests in flight and of what the drain did.
pub struct Lifecycle {
    stage: watch::Sender<Stage>,
    /// Requests whose response body has not ended, and upgraded connections.
    in_flight: AtomicI64,
    upgraded: AtomicI64,
    connections: AtomicI64,
    finished: AtomicU64,
    cut: AtomicU64,
    farewells: AtomicU64,
    app_ready: AtomicBool,
    /// What this process may hold, in bytes; 0 while nobody says.
    memory_limit: AtomicU64,
    /// How many connections memory allows.
    connections_max: AtomicUsize,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Lifecycle {
            stage: watch::Sender::new(Stage::Starting),
            in_flight: AtomicI64::new(0),
            upgraded: AtomicI64::new(0),
            connections: AtomicI64::new(0),
            finished: AtomicU64::new(0),
            cut: AtomicU64::new(0),
            farewells: AtomicU64::new(0),
            app_ready: AtomicBool::new(false),
            memory_limit: AtomicU64::new(0),
            connections_max: AtomicUsize::new(usize::MAX),
        }
    }
}

impl Lifecycle {
    pub fn stage(&self) -> Stage {
        *self.stage.borrow()
    }

    /// A receiver that is told of every change of stage.
    pub fn watch(&self) -> watch::Receiver<Stage> {
        self.stage.subscribe()
    }

    /// Moves on to a later stage; an earlier one is ignored, so that a drain is never taken back.
    pub fn advance(&self, stage: Stage) {
        self.stage.send_if_modified(|current| {
            let later = stage > *current;
            if later {
                *current = stage;
            }
            later
        });
    }

    /// Whether the app has been seen well at least once since the start (`/startupz`).
    pub fn app_seen(&self) -> bool {
        self.app_ready.load(Ordering::Relaxed)
    }

    pub fn app_came_up(&self) {
        self.app_ready.store(true, Ordering::Relaxed);
    }

    pub fn request_began(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    /// Every request that began ends here exactly once. `cut` is for those that the drain's end took away.
    pub fn request_ended(&self, cut: bool) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        if self.stage() >= Stage::Delaying {
            let counter = if cut { &self.cut } else { &self.finished };
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub fn upgrade_began(&self) {
        self.upgraded.fetch_add(1, Ordering::Relaxed);
    }

    pub fn upgrade_ended(&self) {
        self.upgraded.fetch_sub(1, Ordering::Relaxed);
    }

    /// An upgraded connection is being told goodbye.
    pub fn farewell_said(&self) {
        self.farewells.fetch_add(1, Ordering::Relaxed);
    }

    /// Upgraded connections that were told goodbye.
    pub fn farewells(&self) -> u64 {
        self.farewells.load(Ordering::Relaxed)
    }

    pub fn connection_opened(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    pub fn connection_closed(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }

    pub fn in_flight(&self) -> usize {
        usize::try_from(self.in_flight.load(Ordering::Relaxed)).unwrap_or(0)
    }

    pub fn upgraded(&self) -> usize {
        usize::try_from(self.upgraded.load(Ordering::Relaxed)).unwrap_or(0)
    }

    pub fn connections(&self) -> usize {
        usize::try_from(self.connections.load(Ordering::Relaxed)).unwrap_or(0)
    }

    /// The memory there is, and how many connections it allows when it is short.
    pub fn memory(&self, limit: u64, connections_max: Option<usize>) {
        self.memory_limit.store(limit, Ordering::Relaxed);
        self.connections_max.store(connections_max.unwrap_or(usize::MAX), Ordering::Relaxed);
    }

    pub fn memory_limit(&self) -> Option<u64> {
        Some(self.memory_limit.load(Ordering::Relaxed)).filter(|limit| *limit > 0)
    }

    /// How many connections memory allows; `usize::MAX` while it does not matter.
    pub fn connections_max(&self) -> usize {
        self.connections_max.load(Ordering::Relaxed)
    }

    /// Requests finished and cut since the drain began.
    pub fn drained(&self) -> (u64, u64) {
        (self.finished.load(Ordering::Relaxed), self.cut.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drain_is_never_taken_back() {
        let lifecycle = Lifecycle::default();
        lifecycle.advance(Stage::Closing);
        lifecycle.advance(Stage::Serving);
        assert_eq!(lifecycle.stage(), Stage::Closing);
    }

    #[test]
    fn only_requests_that_end_during_a_drain_are_in_its_report() {
        let lifecycle = Lifecycle::default();
        for _ in 0..3 {
            lifecycle.request_began();
        }
        lifecycle.request_ended(false);
        assert_eq!(lifecycle.drained(), (0, 0));
        lifecycle.advance(Stage::Delaying);
        lifecycle.request_ended(false);
        lifecycle.request_ended(true);
        assert_eq!(lifecycle.drained(), (1, 1));
        assert_eq!(lifecycle.in_flight(), 0);
    }
}
