//! Which keys come most often, in fixed memory: the Space-Saving sketch (Metwally, Agrawal, El Abbadi, 2005).
//!
//! A key that is not known takes the place of the rarest one and its count with it. So a count is never too low, it is
//! too high by at most `over`, and a key that makes up more than 1/[`KEYS_MAX`] of all is always among them.

/// Keys remembered.
pub const KEYS_MAX: usize = 16;

/// One frequent key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    pub hash: u64,
    /// In words for people.
    pub name: String,
    pub count: u64,
    /// How much of the count may belong to keys that were here before.
    pub over: u64,
}

/// The most frequent keys.
#[derive(Default)]
pub struct Frequent {
    keys: Vec<Key>,
}

impl Frequent {
    /// Counts the key with this hash; `name` is asked for only when it is new.
    pub fn count(&mut self, hash: u64, name: impl FnOnce() -> String) {
        if let Some(known) = self.keys.iter_mut().find(|key| key.hash == hash) {
            known.count += 1;
            return;
        }
        if self.keys.len() < KEYS_MAX {
            self.keys.push(Key { hash, name: name(), count: 1, over: 0 });
        } else if let Some(rarest) = self.keys.iter_mut().min_by_key(|key| key.count) {
            *rarest = Key { hash, name: name(), count: rarest.count + 1, over: rarest.count };
        }
    }

    /// The most frequent first.
    pub fn top(&self) -> Vec<Key> {
        let mut keys = self.keys.clone();
        keys.sort_by_key(|key| std::cmp::Reverse(key.count));
        keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::testing::Random;

    #[test]
    fn no_heavy_key_is_missed_and_no_count_is_too_low() {
        for seed in 0..10_000u64 {
            let mut random = Random::new(seed);
            let (mut sketch, mut exact) = (Frequent::default(), std::collections::HashMap::new());
            let total = if seed.is_multiple_of(50) { 2000 } else { 400 };
            for _ in 0..total {
                let key = if random.once_in(2) { random.below(5) } else { 100 + random.below(1000) };
                sketch.count(key, || key.to_string());
                *exact.entry(key).or_insert(0u64) += 1;
            }
            let top = sketch.top();
            assert!(top.len() <= KEYS_MAX && top.windows(2).all(|pair| pair[0].count >= pair[1].count));
            for (key, count) in exact {
                let found = top.iter().find(|known| known.hash == key);
                assert!(found.is_some() || count <= total / KEYS_MAX as u64, "seed {seed}: key {key}, {count} times");
                if let Some(found) = found {
                    assert!(
                        found.count >= count && found.count - found.over <= count,
                        "seed {seed}: {found:?}, {count}"
                    );
                    assert_eq!(found.name, key.to_string());
                }
            }
        }
    }
}
