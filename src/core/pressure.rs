//! What to do when memory runs short: keep fewer connections, before the kernel ends the process and all of them.
//!
//! Never none: an allocator keeps what it once had, so that memory may stay in use although there is room in it again.
//! With fewer connections that room is used, and the service goes on.

use std::time::Duration;

/// How often memory is looked at.
pub const LOOK: Duration = Duration::from_millis(500);
/// Shares of the limit: above the first there is pressure, above the second more of it, below the third none any more.
const HIGH: f64 = 0.90;
const HIGHEST: f64 = 0.95;
const LOW: f64 = 0.80;
/// What is kept of the connections each time.
const KEEP: f64 = 0.75;
/// So many are always let in.
pub const CONNECTIONS_MIN: usize = 16;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    connections_max: Option<usize>,
}

impl Pressure {
    /// How many connections may be open; `None` while memory does not limit them.
    pub fn connections_max(&self) -> Option<usize> {
        self.connections_max
    }

    /// Looks again: `used` of `limit` bytes, with `open` connections.
    pub fn look(&mut self, used: u64, limit: u64, open: usize) {
        let share = used as f64 / limit.max(1) as f64;
        let fewer = || ((open as f64 * KEEP) as usize).max(CONNECTIONS_MIN);
        self.connections_max = match self.connections_max {
            _ if share < LOW => None,
            None if share >= HIGH => Some(fewer()),
            Some(max) if share >= HIGHEST => Some(max.min(fewer())),
            known => known,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::testing::Random;

    #[test]
    fn pressure_begins_and_ends_where_it_should() {
        let mut pressure = Pressure::default();
        for (used, open, max) in [
            (899, 1000, None),
            (900, 1000, Some(750)),
            (949, 900, Some(750)),
            (950, 740, Some(555)),
            (990, 10, Some(16)),
            (800, 10, Some(16)),
            (799, 10, None),
        ] {
            pressure.look(used, 1000, open);
            assert_eq!(pressure.connections_max(), max, "{used}");
        }
        pressure.look(u64::MAX, 0, 0);
        assert_eq!(pressure.connections_max(), Some(CONNECTIONS_MIN));
    }

    /// Connections that each take memory, and an allocator that gives nothing back: never above the limit by more than
    /// what comes between two looks, and never without service.
    #[test]
    fn memory_stays_below_the_limit_and_the_service_stays() {
        for seed in 0..10_000 {
            let mut random = Random::new(seed);
            let (limit, each) = (1_000_000u64, 100 + random.below(2_000));
            let burst = 1 + random.below(limit / 20 / each);
            let (mut pressure, mut open, mut most) = (Pressure::default(), 0u64, 0u64);
            for _ in 0..200 {
                for _ in 0..random.below(burst + 1) {
                    let max = pressure.connections_max().map_or(u64::MAX, |max| max as u64);
                    open += u64::from(open < max);
                }
                most = most.max(open);
                pressure.look(most * each, limit, open as usize);
                assert!(most * each <= limit, "seed {seed}: {open} connections of {each}");
                open -= random.below(open / 4 + 1);
            }
            let max = pressure.connections_max().unwrap_or(usize::MAX);
            assert!(max >= CONNECTIONS_MIN, "seed {seed}");
        }
    }
}
