//! Many rate-limit keys in fixed memory. A table of sets, eight slots each: a key lives in the set its hash names.
//! A slot is free again when its time has passed, which changes nothing for its key: its bucket is full by then.
//! When no slot of a set is free, a new key shares the slot nearest to being free. It may then be refused for what
//! another key did, but no key is ever given a full bucket that it has not earned: an attacker with many addresses
//! cannot wash a limited one clean.

use super::bucket::{self, Decision, Params};

/// Slots of one set.
const WAYS: usize = 8;

#[derive(Clone, Copy, Default)]
struct Slot {
    key: u64,
    tat: u64,
}

/// A bounded table of buckets. Its memory, 16 bytes a key, is taken when the first key comes.
pub struct Keyed {
    sets: Vec<[Slot; WAYS]>,
    capacity: usize,
}

impl Keyed {
    /// For `capacity` keys, rounded up to a power of two of at least eight.
    pub fn new(capacity: usize) -> Self {
        Keyed { sets: Vec::new(), capacity: capacity.div_ceil(WAYS).next_power_of_two() }
    }

    /// Decides for the key with this hash, and remembers what it used.
    pub fn check(&mut self, key: u64, params: &Params, now: u64, cost: u64) -> Decision {
        if self.sets.is_empty() {
            self.sets = vec![[Slot::default(); WAYS]; self.capacity];
        }
        let index = key as usize & (self.sets.len() - 1);
        let set = &mut self.sets[index];
        let own = set.iter().position(|slot| slot.key == key && slot.tat > 0);
        // The slot that is free for the longest, or nearest to it.
        let place = own.unwrap_or_else(|| (0..WAYS).min_by_key(|slot| set[*slot].tat).unwrap_or(0));
        let slot = &mut set[place];
        let decision = bucket::check(slot.tat, params, now, cost);
        if let Decision::Allow { tat, .. } = decision {
            *slot = Slot { key, tat };
        }
        decision
    }

    /// Slots in use or used before.
    pub fn len(&self) -> usize {
        self.sets.iter().flatten().filter(|slot| slot.tat > 0).count()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::Duration;

    use super::*;
    use crate::core::units::Rate;

    /// Many keys, more than there is room for: every key stays below its rate and burst, checked against a model
    /// that forgets nothing.
    #[test]
    fn no_key_exceeds_its_rate_however_many_come() {
        let params = bucket::params(Rate { count: 10, per: Duration::from_secs(1) }, 5);
        for seed in 1..40u64 {
            let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            let mut random = |below: u64| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state % below
            };
            let (mut table, mut model, mut now) = (Keyed::new(16), HashMap::new(), 1_000_000_000u64);
            for _ in 0..3000 {
                now += random(20_000_000);
                let keys = if random(2) == 0 { 4 } else { 200 };
                let key = 1 + random(keys);
                let exact: &mut u64 = model.entry(key).or_default();
                if let Decision::Allow { .. } = table.check(key, &params, now, 1) {
                    let Decision::Allow { tat, .. } = bucket::check(*exact, &params, now, 1) else {
                        panic!("seed {seed}: key {key} had more than it may");
                    };
                    *exact = tat;
                }
                assert!(table.len() <= 16);
            }
        }
    }

    #[test]
    fn with_room_it_is_exact() {
        let params = bucket::params(Rate { count: 1, per: Duration::from_secs(1) }, 2);
        let mut table = Keyed::new(64);
        for key in 0..8 {
            let decide = |table: &mut Keyed| matches!(table.check(key, &params, 1, 1), Decision::Allow { .. });
            assert_eq!([decide(&mut table), decide(&mut table), decide(&mut table)], [true, true, false]);
        }
    }
}
