//! GCRA, the generic cell rate algorithm (ITU-T I.371, ATM Forum TM 4.0): one number a key, the theoretical arrival
//! time (TAT), decides exactly like a leaky bucket of `burst` that empties at `rate`.
//!
//! Where the number is kept, and for how many keys, is `keyed`'s. A refused request costs nothing: a client that keeps
//! asking is not punished for it, and one that waits as long as it was told is let in.

use std::time::Duration;

use super::units::Rate;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Params {
    /// The time one request is worth; at least a nanosecond.
    pub emission: Duration,
    /// Requests that may come at once; at least 1.
    pub burst: u64,
}

impl Params {
    /// In nanoseconds, as [`check`] counts; at least 1.
    fn emission_nanos(&self) -> u64 {
        u64::try_from(self.emission.as_nanos()).unwrap_or(u64::MAX).max(1)
    }

    /// The time a full bucket is worth.
    fn whole_nanos(&self) -> u64 {
        self.emission_nanos().saturating_mul(self.burst.max(1))
    }
}

/// `rate` and `burst` as GCRA counts them. The time per request is rounded up, so the rate is never exceeded.
pub fn params(rate: Rate, burst: u64) -> Params {
    let nanos = rate.per.as_nanos().div_ceil(u128::from(rate.count.max(1)));
    Params { emission: Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX).max(1)), burst: burst.max(1) }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    Allow {
        /// To be stored for the key.
        tat: u64,
        /// Requests that could follow at once.
        remaining: u64,
        /// Until the bucket is as good as new.
        reset: Duration,
    },
    Refuse {
        /// Until this request would be allowed; `Duration::MAX` when its cost is above the burst.
        retry_after: Duration,
    },
}

/// Decides for a request worth `cost` at `now`; `tat` is what the key's last allowed request left, 0 for none.
/// Times are nanoseconds since an arbitrary origin. A refused request changes nothing.
pub fn check(tat: u64, params: &Params, now: u64, cost: u64) -> Decision {
    if cost > params.burst.max(1) {
        return Decision::Refuse { retry_after: Duration::MAX };
    }
    let (emission, whole) = (params.emission_nanos(), params.whole_nanos());
    let start = clamp(tat, params, now).max(now);
    let next = start.saturating_add(emission.saturating_mul(cost));
    let ahead = next - now;
    if ahead > whole {
        return Decision::Refuse { retry_after: Duration::from_nanos(ahead - whole) };
    }
    Decision::Allow { tat: next, remaining: (whole - ahead) / emission, reset: Duration::from_nanos(ahead) }
}

/// What `tat` was before a request worth `cost` was charged; at least 1, so that it is still known as used.
pub fn refund(tat: u64, params: &Params, cost: u64) -> u64 {
    tat.saturating_sub(params.emission_nanos().saturating_mul(cost)).max(1)
}

/// The latest time that `params` themselves could have left behind. A reload to a smaller burst or a higher rate finds
/// times further in the future; whoever keeps them must keep them clamped, or the client waits as long as was told and
/// is refused again.
pub fn clamp(tat: u64, params: &Params, now: u64) -> u64 {
    tat.min(now.saturating_add(params.whole_nanos()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::testing::Random;

    fn per_second(count: u64, burst: u64) -> Params {
        params(Rate { count, per: Duration::from_secs(1) }, burst)
    }

    fn allows(decision: Decision) -> bool {
        matches!(decision, Decision::Allow { .. })
    }

    #[test]
    fn the_burst_passes_at_once_and_then_one_per_emission() {
        let params = per_second(10, 3);
        let (mut tat, now) = (0, 1_000_000_000);
        for left in [2, 1, 0] {
            let Decision::Allow { tat: next, remaining, reset } = check(tat, &params, now, 1) else {
                panic!("refused")
            };
            assert_eq!((remaining, reset.as_millis()), (left, u128::from(3 - left) * 100));
            tat = next;
        }
        assert_eq!(check(tat, &params, now, 1), Decision::Refuse { retry_after: Duration::from_millis(100) });
        for (after, allowed) in [(99_999_999, false), (100_000_000, true), (100_000_001, true)] {
            assert_eq!(allows(check(tat, &params, now + after, 1)), allowed, "{after} ns later");
        }
    }

    #[test]
    fn a_cost_above_the_burst_can_never_pass() {
        let params = per_second(10, 3);
        assert_eq!(check(0, &params, 1, 4), Decision::Refuse { retry_after: Duration::MAX });
        assert!(matches!(check(0, &params, 1, 3), Decision::Allow { remaining: 0, .. }));
        assert!(matches!(check(0, &params, 1, 2), Decision::Allow { remaining: 1, .. }));
        assert!(matches!(check(0, &params, 1, 0), Decision::Allow { remaining: 3, .. }));
    }

    #[test]
    fn a_smaller_burst_after_a_reload_is_in_force_at_once() {
        let old = per_second(1, 1000);
        let Decision::Allow { tat, .. } = check(0, &old, 1, 1000) else { panic!("refused") };
        let new = per_second(1, 2);
        let Decision::Refuse { retry_after } = check(tat, &new, 1, 1) else { panic!("allowed") };
        assert_eq!(retry_after, Duration::from_secs(1));
        let kept = clamp(tat, &new, 1);
        assert!(!allows(check(kept, &new, 1_000_000_000, 1)) && allows(check(kept, &new, 1_000_000_001, 1)));
    }

    #[test]
    fn a_refund_leaves_what_was_before_and_never_nothing() {
        let params = per_second(10, 5);
        let Decision::Allow { tat: once, .. } = check(0, &params, 1_000_000_000, 1) else { panic!("refused") };
        let Decision::Allow { tat: more, .. } = check(once, &params, 1_000_000_000, 3) else { panic!("refused") };
        assert_eq!(refund(more, &params, 3), once);
        assert_eq!([refund(100_000_002, &params, 1), refund(100_000_001, &params, 1)], [2, 1]);
        assert_eq!([refund(100_000_000, &params, 1), refund(5, &params, u64::MAX)], [1, 1], "it is known as used");
    }

    #[test]
    fn a_clock_that_goes_back_gives_nothing_away() {
        let params = per_second(10, 1);
        let Decision::Allow { tat, .. } = check(0, &params, 5_000_000_000, 1) else { panic!("refused") };
        assert!(!allows(check(tat, &params, 4_000_000_000, 1)));
    }

    #[test]
    fn odd_rates_round_towards_the_limit_and_the_largest_numbers_hold() {
        assert_eq!(per_second(3, 1).emission, Duration::from_nanos(333_333_334));
        assert_eq!(per_second(0, 0), Params { emission: Duration::from_secs(1), burst: 1 });
        assert_eq!(per_second(u64::MAX, 1).emission, Duration::from_nanos(1));
        for params in [
            Params { emission: Duration::MAX, burst: u64::MAX },
            Params { emission: Duration::ZERO, burst: 0 },
            per_second(1, u64::MAX),
        ] {
            for tat in [0, 1, u64::MAX] {
                for now in [0, 1, u64::MAX] {
                    for cost in [0, 1, u64::MAX] {
                        let _ = check(tat, &params, now, cost);
                    }
                }
            }
        }
    }

    /// Goal: the same decisions as somebody else's GCRA (the crate `governor`), request by request. Method: 10,000
    /// seeds, each one rate and burst, with requests a nanosecond to either side of the emission and at random times.
    #[test]
    fn it_decides_like_governor() {
        use governor::clock::FakeRelativeClock;
        use governor::{Quota, RateLimiter};
        use std::num::NonZeroU32;

        for seed in 0..10_000u64 {
            let mut random = Random::new(seed);
            let (period, burst) = (1 + random.below(50_000_000), 1 + random.below(20));
            let params = Params { emission: Duration::from_nanos(period), burst };
            let quota = Quota::with_period(params.emission).unwrap();
            let clock = FakeRelativeClock::default();
            let quota = quota.allow_burst(NonZeroU32::new(burst as u32).unwrap());
            let oracle = RateLimiter::direct_with_clock(quota, clock.clone());
            let (mut now, mut tat) = (1, 0);
            for step in 0..40 {
                let any = random.below(3 * period);
                let passed = random.pick(&[0, 1, period - 1, period, period + 1, any]);
                now += passed;
                clock.advance(Duration::from_nanos(passed));
                let cost = 1 + random.below(3);
                let theirs = matches!(oracle.check_n(NonZeroU32::new(cost as u32).unwrap()), Ok(Ok(())));
                let ours = check(tat, &params, now, cost);
                assert_eq!(allows(ours), theirs, "seed {seed}, step {step}");
                if let Decision::Allow { tat: next, .. } = ours {
                    tat = next;
                }
            }
        }
    }

    /// Goal: what is left, when it is whole again and the waits it names are exact to the nanosecond. Method: 10,000
    /// seeds against a bucket that counts tokens in nanoseconds, refilled with time.
    #[test]
    fn it_decides_like_a_bucket_that_counts() {
        for seed in 0..10_000u64 {
            let mut random = Random::new(seed);
            let params = per_second(1 + random.below(50), 1 + random.below(20));
            let emission = params.emission.as_nanos() as u64;
            let whole = emission * params.burst;
            let (mut now, mut tat, mut tokens) = (1_000_000_000u64, 0, whole);
            for _ in 0..40 {
                let passed = random.below(2 * emission);
                now += passed;
                tokens = (tokens + passed).min(whole);
                let cost = 1 + random.below(3);
                let price = cost * emission;
                match check(tat, &params, now, cost) {
                    Decision::Allow { tat: next, remaining, reset } => {
                        assert!(tokens >= price, "seed {seed}");
                        tokens -= price;
                        tat = next;
                        assert_eq!(remaining, tokens / emission, "seed {seed}");
                        assert_eq!(reset.as_nanos() as u64, whole - tokens, "seed {seed}");
                    }
                    Decision::Refuse { retry_after } => {
                        assert!(tokens < price, "seed {seed}");
                        if cost <= params.burst {
                            let wait = retry_after.as_nanos() as u64;
                            assert_eq!(wait, price - tokens, "seed {seed}");
                            assert!(!allows(check(tat, &params, now + wait - 1, cost)), "seed {seed}");
                            assert!(allows(check(tat, &params, now + wait, cost)), "seed {seed}");
                        }
                    }
                }
            }
        }
    }
}
