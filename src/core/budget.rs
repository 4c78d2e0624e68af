//! How many attempts beyond the first an upstream may be sent: a share of the real requests plus a floor, so that
//! retries hide a short fault and do not multiply a long one. (The idea is Finagle's `RetryBudget`, 2016; the bucket
//! here is kept as a debt, so that it starts full without knowing how large it is.)
//!
//! Each attempt spends one. The debt is paid back by `ratio` for each real request and by `floor` a second. It may
//! grow to what one window pays back: `ratio` of the window's requests plus `floor` times the window. The window's
//! requests are counted in ten slices; while the process is younger than a window, what came so far is extrapolated.
//!
//! The budget is asked at the decision to retry, not when the attempt is sent: many requests that wait out their
//! backoff together have all been counted already.

use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Params {
    /// Attempts per real request, 0 to 1.
    pub ratio: f64,
    pub window: Duration,
    /// Attempts a second whatever the traffic.
    pub floor: f64,
}

/// One bucket.
#[derive(Debug)]
pub struct Budget {
    debt: f64,
    /// Real requests and time up to which the debt has been paid back.
    paid: Sample,
    began: Instant,
    /// What had been counted at the turns of the slices, oldest first.
    samples: [Sample; SLICES],
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Instant,
    real: u64,
}

impl Budget {
    pub fn new(now: Instant) -> Self {
        let sample = Sample { at: now, real: 0 };
        Budget { debt: 0.0, paid: sample, began: now, samples: [sample; SLICES] }
    }

    /// Spends one attempt if there is one; `real` counts every real request since the beginning, this one included.
    pub fn spend(&mut self, params: &Params, real: u64, now: Instant) -> bool {
        self.turn(params, real, now);
        let granted = self.debt + 1.0 <= self.capacity(params, real, now);
        self.debt += f64::from(u8::from(granted));
        granted
    }

    /// Whole attempts left.
    pub fn left(&mut self, params: &Params, real: u64, now: Instant) -> u64 {
        self.turn(params, real, now);
        (self.capacity(params, real, now) - self.debt).max(0.0) as u64
    }

    /// Notes the count of real requests: to be called at least once per [`slice`], or the window is coarser.
    pub fn turn(&mut self, params: &Params, real: u64, now: Instant) {
        let requests = real.saturating_sub(self.paid.real) as f64;
        let seconds = now.saturating_duration_since(self.paid.at).as_secs_f64();
        self.debt = (self.debt - requests * params.ratio - seconds * params.floor).max(0.0);
        self.paid = Sample { at: self.paid.at.max(now), real: self.paid.real.max(real) };
        // Indexing is safe: there is at least one slice.
        if now.saturating_duration_since(self.samples[SLICES - 1].at) >= slice(params) {
            self.samples.rotate_left(1);
            self.samples[SLICES - 1] = Sample { at: now, real };
        }
    }

    /// What one window of the present traffic pays back.
    fn capacity(&self, params: &Params, real: u64, now: Instant) -> f64 {
        let window = params.window.max(WINDOW_MIN);
        let age = now.saturating_duration_since(self.began);
        let expected = if age < window {
            real as f64 * window.as_secs_f64() / age.max(AGE_MIN.min(window)).as_secs_f64()
        } else {
            // The youngest sample that is as old as the window, or the oldest there is.
            let old = |sample: &&Sample| now.saturating_duration_since(sample.at) >= window;
            let since = self.samples.iter().rev().find(old).unwrap_or(&self.samples[0]);
            let counted = real.saturating_sub(since.real) as f64;
            let covered = now.saturating_duration_since(since.at).max(window);
            counted * window.as_secs_f64() / covered.as_secs_f64()
        };
        expected * params.ratio + params.floor * window.as_secs_f64()
    }
}

/// The time between two samples.
pub fn slice(params: &Params) -> Duration {
    params.window.max(WINDOW_MIN) / (SLICES as u32 - 1)
}

/// Eleven samples bound ten slices.
const SLICES: usize = 11;
const WINDOW_MIN: Duration = Duration::from_millis(100);
/// The traffic of the first moments is extrapolated from at least so long: one request is no rate.
const AGE_MIN: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::testing::{Random, origin};

    const PARAMS: Params = Params { ratio: 0.2, window: Duration::from_secs(10), floor: 3.0 };

    fn spent(budget: &mut Budget, real: u64, now: Instant) -> u32 {
        (0..).take_while(|_| budget.spend(&PARAMS, real, now)).count() as u32
    }

    #[test]
    fn it_starts_full_without_any_traffic() {
        let now = origin();
        assert_eq!(spent(&mut Budget::new(now), 0, now), 30);
        assert_eq!(spent(&mut Budget::new(now), 1, now), 32);
    }

    #[test]
    fn what_is_left_is_what_can_be_spent() {
        let now = origin();
        let mut budget = Budget::new(now);
        for spent in 0..30 {
            assert_eq!(budget.left(&PARAMS, 0, now), 30 - spent);
            assert!(budget.spend(&PARAMS, 0, now));
        }
        assert_eq!(budget.left(&PARAMS, 0, now), 0);
        assert!(!budget.spend(&PARAMS, 0, now));
        // A window grown smaller leaves a debt above what it holds: nothing, and not less.
        let smaller = Params { window: Duration::from_secs(1), ..PARAMS };
        assert_eq!(budget.left(&smaller, 0, now), 0);
    }

    #[test]
    fn early_traffic_is_extrapolated_to_a_window() {
        let start = origin();
        let mut budget = Budget::new(start);
        assert_eq!(spent(&mut budget, 500, start + Duration::from_secs(1)), 1030);
    }

    #[test]
    fn what_a_long_fault_spends_is_the_ratio_and_the_floor() {
        // Every request of 100 a second wants two retries, for a minute.
        let start = origin();
        let mut budget = Budget::new(start);
        let mut granted = [0u32; 6];
        for number in 0..6000u64 {
            let now = start + Duration::from_millis(number * 10);
            for _ in 0..2 {
                granted[(number / 1000) as usize] += u32::from(budget.spend(&PARAMS, number + 1, now));
            }
        }
        // The first window has the full bucket (230) beside what is paid back meanwhile (230).
        assert!((455..=461).contains(&granted[0]), "{granted:?}");
        assert!(granted[1..].iter().all(|window| (229..=231).contains(window)), "{granted:?}");
    }

    #[test]
    fn the_floor_pays_back_at_its_time_and_not_before() {
        let start = origin();
        let mut budget = Budget::new(start);
        spent(&mut budget, 0, start);
        let third = Duration::from_secs_f64(1.0 / 3.0);
        let nano = Duration::from_nanos(10);
        assert!(!budget.spend(&PARAMS, 0, start + third - nano));
        assert!(budget.spend(&PARAMS, 0, start + third + nano));
        assert!(!budget.spend(&PARAMS, 0, start + third + nano));
    }

    #[test]
    fn a_slice_is_a_tenth_of_the_window() {
        assert_eq!(slice(&PARAMS), Duration::from_secs(1));
        assert_eq!(slice(&Params { window: Duration::ZERO, ..PARAMS }), WINDOW_MIN / 10);
    }

    #[test]
    fn traffic_of_long_ago_does_not_count() {
        let start = origin();
        let mut budget = Budget::new(start);
        let later = start + Duration::from_secs(100);
        budget.turn(&PARAMS, 50_000, start + Duration::from_secs(50));
        for step in 0..10 {
            budget.turn(&PARAMS, 50_000, start + Duration::from_secs(90 + step));
        }
        assert_eq!(budget.left(&PARAMS, 50_000, later), 30);
    }

    #[test]
    fn no_parameter_panics() {
        for (ratio, window, floor) in [(0.0, Duration::ZERO, 0.0), (1.0, Duration::MAX, f64::MAX)] {
            let params = Params { ratio, window, floor };
            let mut budget = Budget::new(origin());
            for real in [0, 1, u64::MAX] {
                budget.spend(&params, real, origin() + Duration::from_secs(5));
            }
        }
    }

    /// Random traffic, faults, pauses and clocks that stand still. Whatever happens: over any stretch that begins with
    /// a full bucket, what is granted is at most a bucket and what was paid back since; a request is never refused
    /// while the debt of a quiet time has been paid back; and the debt is never negative or more than the capacity
    /// there was when it was made.
    #[test]
    fn simulation_never_grants_more_than_a_bucket_and_what_is_paid_back() {
        for seed in 0..10_000u64 {
            let mut random = Random::new(seed);
            let params = Params {
                ratio: random.pick(&[0.0, 0.05, 0.2, 0.5, 1.0]),
                window: Duration::from_millis(random.pick(&[100, 1000, 10_000])),
                floor: random.pick(&[0.0, 1.0, 3.0, 50.0]),
            };
            let start = origin();
            let (mut budget, mut now, mut real) = (Budget::new(start), start, 0u64);
            let (mut granted, mut most) = (0u64, 0f64);
            let fault = 1 + random.below(4);
            for _ in 0..200 {
                now += Duration::from_micros(random.pick(&[0, 10, 1_000, 20_000, 3_000_000]));
                real += random.below(20);
                if random.once_in(3) {
                    budget.turn(&params, real, now);
                }
                most = most.max(budget.capacity(&params, real, now));
                for _ in 0..random.below(4 * fault) {
                    granted += u64::from(budget.spend(&params, real, now));
                }
                let paid = real as f64 * params.ratio + (now - start).as_secs_f64() * params.floor;
                assert!(granted as f64 <= most + paid + 1e-6, "seed {seed}: {granted} of {most} and {paid}");
                assert!(budget.debt >= 0.0 && budget.debt <= most + 1e-6, "seed {seed}: {}", budget.debt);
            }
            let rest = now + params.window * 20;
            budget.turn(&params, real, rest);
            let quiet = params.floor * params.window.as_secs_f64();
            if quiet >= 1.0 && budget.debt < 1e-9 {
                assert!(budget.spend(&params, real, rest), "seed {seed}: a quiet time does not fill it");
            }
        }
    }
}
