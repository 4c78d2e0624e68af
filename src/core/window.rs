//! Counts over a sliding window in ten slices: fixed memory, and counting takes no lock, so that every request can be
//! counted by every worker.
//!
//! A slice that has gone out of the window is taken over by the first who counts into its successor. Two workers that
//! meet at that very moment may lose a count between them; one worker alone is exact. A window that is younger than
//! its length says how many requests a whole one would hold.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What one request adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    Good,
    /// Good, but slower than the parameters allow.
    Slow,
    Bad,
}

/// What lies in the window.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Volume {
    pub total: u32,
    pub bad: u32,
    pub slow: u32,
    /// `total`, extrapolated while the window is younger than its length.
    pub expected: f64,
}

#[derive(Debug)]
pub struct Window {
    origin: Instant,
    /// When it was begun or cleared, in nanoseconds since the origin.
    since: AtomicU64,
    slices: [Slice; SLICES],
}

#[derive(Debug, Default)]
struct Slice {
    /// Which slice of all time this is, from 1; 0 is none.
    number: AtomicU64,
    total: AtomicU32,
    bad: AtomicU32,
    slow: AtomicU32,
}

impl Slice {
    fn reset(&self) {
        for count in [&self.total, &self.bad, &self.slow] {
            count.store(0, Ordering::Relaxed);
        }
    }
}

impl Window {
    pub fn new(now: Instant) -> Self {
        Window { origin: now, since: AtomicU64::new(0), slices: Default::default() }
    }

    pub fn count(&self, what: Count, length: Duration, now: Instant) {
        let number = self.number(length, now);
        let slice = &self.slices[(number % SLICES as u64) as usize];
        let found = slice.number.load(Ordering::Acquire);
        if found > number {
            return; // a clock that another thread read later has begun the next round already
        }
        if found < number && slice.number.compare_exchange(found, number, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            slice.reset();
        }
        slice.total.fetch_add(1, Ordering::Relaxed);
        match what {
            Count::Good => {}
            Count::Slow => _ = slice.slow.fetch_add(1, Ordering::Relaxed),
            Count::Bad => _ = slice.bad.fetch_add(1, Ordering::Relaxed),
        }
    }

    pub fn volume(&self, length: Duration, now: Instant) -> Volume {
        let number = self.number(length, now);
        let mut volume = Volume::default();
        for slice in &self.slices {
            let found = slice.number.load(Ordering::Acquire);
            if found <= number && found + SLICES as u64 > number {
                volume.total += slice.total.load(Ordering::Relaxed);
                volume.bad += slice.bad.load(Ordering::Relaxed);
                volume.slow += slice.slow.load(Ordering::Relaxed);
            }
        }
        let age = self.nanos(now).saturating_sub(self.since.load(Ordering::Relaxed));
        let length = length.max(LENGTH_MIN);
        let age = Duration::from_nanos(age).clamp(AGE_MIN.min(length), length);
        volume.expected = f64::from(volume.total) * length.as_secs_f64() / age.as_secs_f64();
        volume
    }

    /// Forgets everything: what was counted says nothing of what comes.
    pub fn clear(&self, now: Instant) {
        self.since.store(self.nanos(now), Ordering::Relaxed);
        for slice in &self.slices {
            slice.reset();
        }
    }

    fn nanos(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.origin).as_nanos()).unwrap_or(u64::MAX)
    }

    fn number(&self, length: Duration, now: Instant) -> u64 {
        let slice = u64::try_from(length.max(LENGTH_MIN).as_nanos()).unwrap_or(u64::MAX) / SLICES as u64;
        self.nanos(now) / slice + 1
    }
}

const SLICES: usize = 10;
const LENGTH_MIN: Duration = Duration::from_millis(10);
/// The first moments are extrapolated from at least so long: one request is no rate.
const AGE_MIN: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::testing::{Random, origin};

    const LENGTH: Duration = Duration::from_secs(10);

    #[test]
    fn a_count_leaves_with_its_slice() {
        let start = origin();
        let window = Window::new(start);
        window.count(Count::Bad, LENGTH, start);
        let end = start + LENGTH;
        let nano = Duration::from_nanos(1);
        assert_eq!([end - nano, end, end + nano].map(|at| window.volume(LENGTH, at).bad), [1, 0, 0]);
        window.count(Count::Slow, LENGTH, end);
        let volume = window.volume(LENGTH, end);
        assert_eq!((volume.total, volume.bad, volume.slow), (1, 0, 1));
    }

    #[test]
    fn a_young_window_is_extrapolated_from_at_least_a_second() {
        let start = origin();
        let window = Window::new(start);
        (0..10).for_each(|_| window.count(Count::Good, LENGTH, start));
        for (millis, expected) in [(0, 100.0), (1000, 100.0), (2000, 50.0), (9_999, 10.001)] {
            let found = window.volume(LENGTH, start + Duration::from_millis(millis)).expected;
            assert!((found - expected).abs() < 0.01, "{millis} ms: {found}");
        }
    }

    #[test]
    fn a_cleared_window_knows_nothing_and_is_young_again() {
        let (start, second) = (origin(), Duration::from_secs(1));
        let window = Window::new(start);
        let later = start + 5 * second;
        for what in [Count::Good, Count::Slow, Count::Bad] {
            window.count(what, LENGTH, later);
        }
        window.clear(later);
        assert_eq!(window.volume(LENGTH, later), Volume::default());
        window.count(Count::Bad, LENGTH, later);
        assert_eq!(window.volume(LENGTH, later + 2 * second).expected, 5.0);
    }

    #[test]
    fn threads_lose_no_count_within_a_slice() {
        let start = origin();
        let window = Window::new(start);
        window.count(Count::Good, LENGTH, start);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1000).for_each(|_| window.count(Count::Bad, LENGTH, start)));
            }
        });
        assert_eq!(window.volume(LENGTH, start).bad, 4000);
    }

    /// Goal: no count is lost, doubled or kept too long. Method: 10,000 seeds of times, lengths and counts against a
    /// list that remembers every one and knows the slices.
    #[test]
    fn it_agrees_with_a_list_of_everything() {
        for seed in 0..10_000 {
            let mut random = Random::new(seed);
            let length = Duration::from_millis(random.pick(&[10, 1_000, 10_000]));
            let slice = length.as_nanos() / 10;
            let start = origin();
            let (window, mut now, mut all) = (Window::new(start), start, Vec::new());
            for _ in 0..40 {
                now += Duration::from_micros(random.below(length.as_micros() as u64 / 8));
                let what = random.pick(&[Count::Good, Count::Slow, Count::Bad]);
                window.count(what, length, now);
                let number = (now - start).as_nanos() / slice;
                all.push((number, what));
                let inside = |kind| all.iter().filter(|(at, what)| at + 10 > number && *what == kind).count() as u32;
                let volume = window.volume(length, now);
                let (good, slow, bad) = (inside(Count::Good), inside(Count::Slow), inside(Count::Bad));
                assert_eq!((volume.total, volume.slow, volume.bad), (good + slow + bad, slow, bad), "seed {seed}");
            }
        }
    }
}
