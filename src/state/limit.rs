//! A rate limit's buckets, shared by all workers so that a limit of ten a minute is ten a minute.

use std::sync::Mutex;

use super::journal::lock;
use crate::core::bucket::{Decision, Params};
use crate::core::keyed::Keyed;

/// Shards, a power of two: two workers rarely meet in one.
const SHARDS: usize = 16;
/// Keys remembered by one limit.
pub const KEYS_MAX: usize = 131_072;

/// The buckets of one named limit.
pub struct LimitState {
    shards: Vec<Mutex<Keyed>>,
}

impl Default for LimitState {
    fn default() -> Self {
        LimitState { shards: (0..SHARDS).map(|_| Mutex::new(Keyed::new(KEYS_MAX / SHARDS))).collect() }
    }
}

impl LimitState {
    /// `key` is a keyed hash; `now` is in nanoseconds.
    pub fn check(&self, key: u64, params: &Params, now: u64) -> Decision {
        lock(&self.shards[(key >> 60) as usize % SHARDS]).check(key, params, now, 1)
    }

    pub fn keys(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).len()).sum()
    }
}
