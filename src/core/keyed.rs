//! Many rate-limit keys in fixed memory. A table of sets, sixteen slots each: a key lives in the set its hash names.
//! With half of the slots taken, one set in ten thousand is full: below that the table is exact in all but name.
//!
//! A slot is free again when its time has passed, which changes nothing for its key: its bucket is full by then. When
//! no slot of a set is free, a new key shares the one nearest to being free. It may then be refused for what another
//! key did, but no key is ever given a full bucket that it has not earned: an attacker with many addresses cannot wash
//! a limited one clean. (The refused alternative, evicting the least recently used, does exactly that.)
//!
//! Why a key whose slot was shared away loses no debt: the shared slot held the smallest time of its set, so every
//! other slot the key can find later, and the shared one itself, holds a time at least as late as its own was.

use super::bucket::{self, Decision, Params};

/// Slots of one set.
const WAYS: usize = 16;

#[derive(Clone, Copy, Default)]
struct Slot {
    key: u64,
    /// 0 while it was never used.
    tat: u64,
}

/// A bounded table of buckets. Its memory, 16 bytes a key, is taken when the first key comes.
pub struct Keyed {
    sets: Vec<[Slot; WAYS]>,
    sets_max: usize,
    /// How often a key has had to share another's bucket.
    shared: u64,
}

impl Keyed {
    /// For `capacity` keys, rounded up to a power of two of at least sixteen.
    pub fn new(capacity: usize) -> Self {
        Keyed { sets: Vec::new(), sets_max: capacity.div_ceil(WAYS).next_power_of_two(), shared: 0 }
    }

    /// Decides for the key with this hash, and remembers what it used. The hash must be keyed, so that nobody can aim
    /// at a set. All calls use the parameters of one limit; after a reload the new ones are in force at once.
    pub fn check(&mut self, key: u64, params: &Params, now: u64, cost: u64) -> Decision {
        if self.sets.is_empty() {
            self.sets = vec![[Slot::default(); WAYS]; self.sets_max];
        }
        // A power of two, so the mask keeps the index inside.
        let index = key as usize & (self.sets.len() - 1);
        let set = &mut self.sets[index];
        let own = set.iter().position(|slot| slot.key == key && slot.tat > 0);
        // Else the slot that is free for the longest, or nearest to it.
        let place = own.unwrap_or_else(|| (0..WAYS).min_by_key(|slot| set[*slot].tat).unwrap_or(0));
        let slot = &mut set[place];
        slot.tat = bucket::clamp(slot.tat, params, now);
        let decision = bucket::check(slot.tat, params, now, cost);
        if let Decision::Allow { tat, .. } = decision {
            self.shared += u64::from(own.is_none() && slot.tat > now);
            *slot = Slot { key, tat };
        }
        decision
    }

    /// How often a key had to share another's bucket, because its set was full.
    pub fn shared(&self) -> u64 {
        self.shared
    }

    /// Takes back what an allowed request was charged, because it was refused elsewhere. Only while nobody has used
    /// the key since, and none has begun to share: `tat` and `shared` are what they were when it was allowed. Else the
    /// charge stays, which is the side to err on (a time that goes back could wash a key clean whose slot is gone).
    pub fn refund(&mut self, key: u64, params: &Params, tat: u64, cost: u64, shared: u64) {
        if self.shared != shared {
            return;
        }
        let Some(index) = (key as usize).checked_rem(self.sets.len()) else { return };
        if let Some(slot) = self.sets[index].iter_mut().find(|slot| slot.key == key && slot.tat == tat) {
            slot.tat = bucket::refund(tat, params, cost);
        }
    }

    /// Bytes that the table takes when it is in use.
    pub fn bytes(&self) -> usize {
        self.sets_max * size_of::<[Slot; WAYS]>()
    }

    /// Slots in use or used before; at most the capacity.
    pub fn len(&self) -> usize {
        self.sets.iter().flatten().filter(|slot| slot.tat > 0).count()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::core::testing::Random;
    use crate::core::units::Rate;

    fn per_second(count: u64, burst: u64) -> Params {
        bucket::params(Rate { count, per: Duration::from_secs(1) }, burst)
    }

    fn allows(decision: Decision) -> bool {
        matches!(decision, Decision::Allow { .. })
    }

    /// Goal: with more keys than there is room for, each stays below its rate and burst; while there is room, the table
    /// is exact; the memory does not grow. Method: 10,000 seeds against a model that forgets nothing. What the table
    /// lets in, the model lets in; and as long as no key had to share, a key that has a slot, or for which one of the
    /// sixteen is free, gets the model's very decision.
    #[test]
    fn no_key_exceeds_its_rate_however_many_come() {
        const KEYS: u64 = 48;
        for seed in 0..10_000u64 {
            let mut random = Random::new(seed);
            let params = per_second(1 + random.below(100), 1 + random.below(8));
            let emission = params.emission.as_nanos() as u64;
            let keys = random.pick(&[4, WAYS as u64, KEYS]);
            let (mut table, mut model, mut now) = (Keyed::new(WAYS), [0u64; KEYS as usize], 1_000_000_000u64);
            for _ in 0..100 {
                now += random.below(1 + emission / 4);
                let (key, cost) = (random.below(keys), 1 + random.below(params.burst.min(2)));
                let busy = model.iter().filter(|tat| **tat > now).count();
                let exact = table.shared() == 0 && (busy < WAYS || model[key as usize] > now);
                let theirs = bucket::check(model[key as usize], &params, now, cost);
                let ours = table.check(key, &params, now, cost);
                if exact {
                    assert_eq!(ours, theirs, "seed {seed}: key {key}");
                }
                if allows(ours) {
                    let Decision::Allow { tat, .. } = theirs else {
                        panic!("seed {seed}: key {key} had more than it may")
                    };
                    model[key as usize] = tat;
                }
                assert!(table.len() <= WAYS && table.sets.len() == 1, "seed {seed}");
            }
        }
    }

    /// The attack itself: exhaust one key, then flood its set with fresh keys and come back.
    #[test]
    fn a_flood_does_not_wash_a_limited_key_clean() {
        let params = per_second(1, 3);
        let mut table = Keyed::new(16);
        let now = 1_000_000_000;
        for _ in 0..3 {
            assert!(allows(table.check(1, &params, now, 1)));
        }
        for flood in 2..10_000 {
            table.check(flood, &params, now, 1);
            assert!(!allows(table.check(1, &params, now, 1)), "after {flood} keys");
        }
    }

    #[test]
    fn with_room_it_is_exact() {
        let params = per_second(1, 2);
        let mut table = Keyed::new(64);
        assert!(table.is_empty());
        for key in 0..8 {
            let decide = |table: &mut Keyed| allows(table.check(key, &params, 1, 1));
            assert_eq!([decide(&mut table), decide(&mut table), decide(&mut table)], [true, true, false]);
        }
        assert_eq!(table.len(), 8);
    }

    /// A full set: a new key has a slot to itself from the moment one has run out, and shares until then.
    #[test]
    fn a_slot_is_free_when_its_time_has_passed() {
        let params = per_second(1, 1);
        let second = 1_000_000_000;
        for (now, allowed) in [(2 * second - 1, false), (2 * second, true), (2 * second + 1, true)] {
            let mut table = Keyed::new(16);
            for key in 1..=16 {
                assert!(allows(table.check(key, &params, second, 1)));
            }
            assert_eq!(allows(table.check(99, &params, now, 1)), allowed, "at {now}");
        }
    }

    #[test]
    fn sharing_is_counted_while_the_slot_is_another_keys() {
        let (params, second) = (per_second(1, 2), 1_000_000_000);
        for (now, shared) in [(second, 1), (2 * second - 1, 1), (2 * second, 0), (2 * second + 1, 0)] {
            let mut table = Keyed::new(16);
            for key in 1..=16 {
                assert!(allows(table.check(key, &params, second, 1)));
            }
            assert_eq!(table.shared(), 0);
            assert!(allows(table.check(99, &params, now, 1)));
            assert_eq!(table.shared(), shared, "at {now}");
        }
    }

    #[test]
    fn its_memory_is_sixteen_bytes_a_key() {
        let mut table = Keyed::new(100);
        assert_eq!(table.bytes(), 128 * 16);
        assert!(table.is_empty());
        table.check(1, &per_second(1, 1), 1, 1);
        assert!(!table.is_empty());
        assert_eq!(size_of_val(&table.sets[..]), table.bytes());
    }

    /// A key that is refused under smaller limits is let in when it was told, not when the old limits would have.
    #[test]
    fn a_smaller_burst_is_forgiven_in_its_own_time() {
        let (old, new) = (per_second(1, 1000), per_second(1, 2));
        let (mut table, now) = (Keyed::new(8), 1_000_000_000);
        assert!(allows(table.check(1, &old, now, 1000)));
        let Decision::Refuse { retry_after } = table.check(1, &new, now, 1) else { panic!("allowed") };
        let then = now + retry_after.as_nanos() as u64;
        assert!(!allows(table.check(1, &new, then - 1, 1)) && allows(table.check(1, &new, then, 1)));
    }

    #[test]
    fn a_refund_gives_back_what_was_charged_and_no_more() {
        let params = per_second(1, 2);
        let (mut table, now) = (Keyed::new(16), 1_000_000_000);
        table.refund(7, &params, now, 1, 0);
        let Decision::Allow { tat, .. } = table.check(7, &params, now, 2) else { panic!("refused") };
        assert!(!allows(table.check(7, &params, now, 1)));
        table.refund(7, &params, tat + 1, 2, 0);
        table.refund(7, &params, tat, 2, 1);
        assert!(!allows(table.check(7, &params, now, 1)), "somebody else's charge");
        table.refund(7, &params, tat, 2, 0);
        assert!(allows(table.check(7, &params, now, 2)));
        assert!(!allows(table.check(7, &params, now, 1)));
    }

    #[test]
    fn capacities_are_rounded_up() {
        for (asked, room) in [(0, 16), (1, 16), (16, 16), (17, 32), (100, 128), (131_072, 131_072)] {
            assert_eq!(Keyed::new(asked).sets_max * WAYS, room);
        }
    }
}
