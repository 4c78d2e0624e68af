//! A rate limit's buckets, shared by all workers so that a limit of ten a minute is ten a minute.

use std::sync::Mutex;

use super::journal::lock;
use crate::core::bucket::{Decision, Params};
use crate::core::frequent::{Frequent, Key};
use crate::core::keyed::Keyed;

/// Shards, a power of two: two workers rarely meet in one.
const SHARDS: usize = 16;
/// Keys remembered by one limit, 16 bytes each; taken shard by shard when the first key comes.
pub const KEYS_MAX: usize = 262_144;

/// The buckets of one named limit.
pub struct LimitState {
    shards: Vec<Mutex<Shard>>,
    /// The keys that were refused, or would have been.
    refused: Mutex<Frequent>,
}

struct Shard {
    keys: Keyed,
    counts: Counts,
}

/// What a limit has decided since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub allowed: u64,
    /// Refused, or in shadow mode would have been.
    pub refused: u64,
    /// Decided with another key's bucket, because there was no room for one more.
    pub shared: u64,
}

/// One request that a limit is asked about.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    /// A keyed hash.
    pub key: u64,
    pub params: Params,
    /// Nanoseconds (`clock::nanos`).
    pub now: u64,
    pub cost: u64,
}

/// What an allowed request was charged, for when it is refused elsewhere.
#[derive(Clone, Copy, Debug)]
pub struct Receipt {
    ask: Ask,
    tat: u64,
    shared: u64,
}

impl Default for LimitState {
    fn default() -> Self {
        let shard = || Mutex::new(Shard { keys: Keyed::new(KEYS_MAX / SHARDS), counts: Counts::default() });
        LimitState { shards: (0..SHARDS).map(|_| shard()).collect(), refused: Mutex::default() }
    }
}

impl LimitState {
    /// Decides, and charges an allowed request; the receipt is for [`LimitState::refund`].
    pub fn check(&self, ask: Ask) -> (Decision, Option<Receipt>) {
        let mut shard = lock(self.shard(ask.key));
        let decision = shard.keys.check(ask.key, &ask.params, ask.now, ask.cost);
        let receipt = match decision {
            Decision::Allow { tat, .. } => {
                shard.counts.allowed += 1;
                Some(Receipt { ask, tat, shared: shard.keys.shared() })
            }
            Decision::Refuse { .. } => {
                shard.counts.refused += 1;
                None
            }
        };
        (decision, receipt)
    }

    /// Gives back what a request was charged that was refused after all, by another limit or another replica.
    pub fn refund(&self, receipt: &Receipt) {
        let Receipt { ask, tat, shared } = receipt;
        lock(self.shard(ask.key)).keys.refund(ask.key, &ask.params, *tat, ask.cost, *shared);
    }

    /// An allowed request was refused after all, by the store that all replicas share.
    pub fn refused_elsewhere(&self, receipt: &Receipt) {
        self.refund(receipt);
        let counts = &mut lock(self.shard(receipt.ask.key)).counts;
        counts.allowed = counts.allowed.saturating_sub(1);
        counts.refused += 1;
    }

    /// Remembers who was refused.
    pub fn remember(&self, key: u64, name: impl FnOnce() -> String) {
        lock(&self.refused).count(key, name);
    }

    fn shard(&self, key: u64) -> &Mutex<Shard> {
        &self.shards[(key >> 60) as usize % SHARDS]
    }

    pub fn counts(&self) -> Counts {
        self.shards.iter().fold(Counts::default(), |sum, shard| {
            let shard = lock(shard);
            Counts {
                allowed: sum.allowed + shard.counts.allowed,
                refused: sum.refused + shard.counts.refused,
                shared: sum.shared + shard.keys.shared(),
            }
        })
    }

    /// The keys refused most often, the first the most often.
    pub fn top(&self) -> Vec<Key> {
        lock(&self.refused).top()
    }

    pub fn keys(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).keys.len()).sum()
    }

    /// The most memory that the table takes.
    pub fn bytes_max(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).keys.bytes()).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::core::bucket;
    use crate::core::units::Rate;

    fn per_second(count: u64, burst: u64) -> Params {
        bucket::params(Rate { count, per: Duration::from_secs(1) }, burst)
    }

    /// SplitMix64's finalizer: spreads small numbers as the keyed hash does with names.
    fn hashed(key: u64) -> u64 {
        let mixed = (key ^ (key >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn allowed(limit: &LimitState, key: u64, params: Params, now: u64) -> bool {
        limit.check(Ask { key, params, now, cost: 1 }).1.is_some()
    }

    /// 200,000 keys come and go while a few try to be forgotten: flooded out, and asked again at once. Nobody has more
    /// than an exact model allows, the table does not grow, and next to nobody is refused for another's sake.
    #[test]
    fn churn_of_200_000_keys_washes_nobody_clean() {
        let params = per_second(2, 5);
        for seed in 0..3u64 {
            let limit = LimitState::default();
            let mut exact = vec![0u64; 200_000];
            let mut random = seed.wrapping_add(1);
            let mut next = |below: u64| {
                random = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
                hashed(random) % below
            };
            let (mut now, mut wrongly, mut asked) = (1_000_000_000u64, 0u64, 0u64);
            for step in 0..900_000u64 {
                now += next(20_000);
                // Half of it walks through all keys in order, so that each set is under pressure; the rest returns.
                let key = if step % 2 == 0 { (step / 2) % 200_000 } else { next(64) * 3_000 };
                let may = bucket::check(exact[key as usize], &params, now, 1);
                let did = allowed(&limit, hashed(key), params, now);
                asked += 1;
                match (may, did) {
                    (Decision::Allow { tat, .. }, true) => exact[key as usize] = tat,
                    (Decision::Allow { .. }, false) => wrongly += 1,
                    (Decision::Refuse { .. }, true) => panic!("seed {seed}, step {step}: key {key} had too much"),
                    (Decision::Refuse { .. }, false) => {}
                }
            }
            assert!(limit.keys() <= KEYS_MAX && limit.bytes_max() == 4 << 20);
            assert!(wrongly * 1000 < asked, "seed {seed}: {wrongly} of {asked} refused for others");
        }
    }

    #[test]
    fn one_limit_is_exact_across_threads() {
        let limit = LimitState::default();
        let params = per_second(1, 10_000);
        let passed: usize = std::thread::scope(|scope| {
            let run = || scope.spawn(|| (0..5_000).filter(|_| allowed(&limit, 42, params, 1)).count());
            let threads: Vec<_> = (0..4).map(|_| run()).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(passed, 10_000);
        assert_eq!(limit.counts(), Counts { allowed: 10_000, refused: 10_000, shared: 0 });
    }
}
