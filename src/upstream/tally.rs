//! A pool's numbers, kept by whoever opens, starts and ends; read by gauges.

use std::cell::Cell;

/// A moment's numbers of a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections without a request.
    pub idle: usize,
    /// Requests from sending until their response body ended.
    pub active: usize,
    /// Connections opened since the pool was made.
    pub opened: u64,
    /// Requests that were answered on a connection that had served before.
    pub reused: u64,
}

/// The running numbers behind [`Counts`], kept by whoever opens, starts and ends.
#[derive(Default)]
pub(super) struct Tally {
    active: Cell<usize>,
    opened: Cell<u64>,
    reused: Cell<u64>,
}

impl Tally {
    pub(super) fn start(&self) {
        self.active.set(self.active.get() + 1);
    }

    pub(super) fn finish(&self) {
        self.active.set(self.active.get().saturating_sub(1));
    }

    /// Everything but `idle`, which the sets of connections know.
    pub(super) fn counts(&self) -> Counts {
        Counts { idle: 0, active: self.active.get(), opened: self.opened.get(), reused: self.reused.get() }
    }

    pub(super) fn opened(&self) {
        self.opened.set(self.opened.get() + 1);
    }

    pub(super) fn reused(&self) {
        self.reused.set(self.reused.get() + 1);
    }
}
