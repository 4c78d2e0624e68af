//! The only reader of time and randomness; everything else is handed the values, so that it can be simulated.
//!
//! The monotonic clock is read one floor below, where connections are timed, too. Randomness is for jitter, sampling
//! and identifiers that must be unique; nothing here is a secret, so a small per-thread generator seeded by the operating
//! system is enough.

use std::cell::Cell;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime};

pub use crate::upstream::clock::{held, looked, now, unheld};

/// The wall-clock time, for logs, spans and certificates; never for measuring.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
pub fn wall() -> SystemTime {
    SystemTime::now()
}

/// The same clock as systemd reads it: since the machine's start, without its sleep.
pub fn monotonic() -> Duration {
    Duration::try_from(rustix::time::clock_gettime(rustix::time::ClockId::Monotonic)).unwrap_or_default()
}

/// Nanoseconds from an origin fixed at first use; never 0, so that 0 can mean "never".
pub fn nanos(now: Instant) -> u64 {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    let origin = *ORIGIN.get_or_init(|| now - Duration::from_secs(1));
    u64::try_from(now.saturating_duration_since(origin).as_nanos()).unwrap_or(u64::MAX).max(1)
}

/// 64 uniform bits (wyrand; Wang Yi, 2019), per thread.
pub fn random() -> u64 {
    thread_local! {
        static SEED: Cell<u64> = Cell::new(RandomState::new().build_hasher().finish());
    }
    SEED.with(|seed| {
        let next = seed.get().wrapping_add(0xa076_1d64_78bd_642f);
        seed.set(next);
        let wide = u128::from(next) * u128::from(next ^ 0xe703_7ed1_a0b4_28db);
        ((wide >> 64) as u64) ^ (wide as u64)
    })
}

/// 128 uniform bits.
pub fn random_wide() -> u128 {
    (u128::from(random()) << 64) | u128::from(random())
}

/// Uniform in `0.0..1.0`.
pub fn unit() -> f64 {
    (random() >> 11) as f64 / (1u64 << 53) as f64
}

/// A hasher with the process's own key, for tables whose keys a client chooses and that have several parts.
pub fn hasher() -> impl Hasher {
    hash_key().build_hasher()
}

fn hash_key() -> &'static RandomState {
    static KEY: OnceLock<RandomState> = OnceLock::new();
    KEY.get_or_init(RandomState::new)
}

/// Keyed hash for tables whose keys a client chooses: the key is the process's own, so collisions cannot be planned.
pub fn hash(bytes: &[u8]) -> u64 {
    hash_key().hash_one(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_stay_inside_the_interval_and_differ() {
        let drawn: Vec<f64> = (0..1000).map(|_| unit()).collect();
        assert!(drawn.iter().all(|value| (0.0..1.0).contains(value)));
        assert!(drawn.windows(2).all(|pair| pair[0] != pair[1]));
    }

    #[test]
    fn nanos_grow_with_time_and_are_never_zero() {
        let first = now();
        assert!(nanos(first) > 0);
        assert!(nanos(first + std::time::Duration::from_millis(1)) >= nanos(first) + 1_000_000);
    }
}
