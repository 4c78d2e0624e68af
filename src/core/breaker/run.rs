//! Failures in a row, and how many of them open a breaker.

use super::super::window::Volume;

const AUTO_MIN: u32 = 5;
const AUTO_SHARE: f64 = 100.0;

/// How many failures in a row open it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consecutive {
    /// At least 5 and at least 1 % of the window's requests, of at least 5 requests.
    Auto,
    /// At least 1, and 0 counts as 1.
    Exactly(u32),
}

impl Consecutive {
    pub(super) fn limit(self, volume: &Volume) -> u32 {
        match self {
            Consecutive::Auto => ((volume.expected / AUTO_SHARE).ceil() as u32).max(AUTO_MIN),
            Consecutive::Exactly(limit) => limit.max(1),
        }
    }

    /// How many requests they must be of.
    pub(super) fn requests(self) -> u32 {
        match self {
            Consecutive::Auto => AUTO_MIN,
            Consecutive::Exactly(_) => 0,
        }
    }
}

/// Failures in a row.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Run {
    pub(super) failures: u32,
    /// That they are of.
    pub(super) requests: u32,
}

impl Run {
    /// One more, of so many further requests.
    pub(super) fn and(self, requests: u32) -> Run {
        Run { failures: self.failures.saturating_add(1), requests: self.requests.saturating_add(requests) }
    }
}
