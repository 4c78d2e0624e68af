//! GCRA, the generic cell rate algorithm (ITU-T I.371, ATM Forum TM 4.0): one number a key, the theoretical arrival
//! time (TAT), decides exactly like a leaky bucket of `burst` that empties at `rate`.

use std::time::Duration;

use super::units::Rate;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Params {
    /// The time one request is worth.
    pub emission: Duration,
    /// Requests that may come at once; at least 1.
    pub burst: u64,
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
    let emission = u64::try_from(params.emission.as_nanos()).unwrap_or(u64::MAX);
    if cost > params.burst {
        return Decision::Refuse { retry_after: Duration::MAX };
    }
    let whole = emission.saturating_mul(params.burst);
    // A lowered burst or rate leaves times in the future that the new one could not have made: clamp them.
    let start = tat.min(now.saturating_add(whole)).max(now);
    let next = start.saturating_add(emission.saturating_mul(cost));
    let ahead = next - now;
    if ahead > whole {
        return Decision::Refuse { retry_after: Duration::from_nanos(ahead - whole) };
    }
    Decision::Allow { tat: next, remaining: (whole - ahead) / emission, reset: Duration::from_nanos(ahead) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn per_second(count: u64, burst: u64) -> Params {
        params(Rate { count, per: Duration::from_secs(1) }, burst)
    }

    #[test]
    fn the_burst_passes_at_once_and_then_one_per_emission() {
        let params = per_second(10, 3);
        let (mut tat, now) = (0, 1_000_000_000);
        for left in [2, 1, 0] {
            let Decision::Allow { tat: next, remaining, .. } = check(tat, &params, now, 1) else { panic!("refused") };
            assert_eq!(remaining, left);
            tat = next;
        }
        assert_eq!(check(tat, &params, now, 1), Decision::Refuse { retry_after: Duration::from_millis(100) });
        assert!(matches!(check(tat, &params, now + 99_999_999, 1), Decision::Refuse { .. }));
        assert!(matches!(check(tat, &params, now + 100_000_000, 1), Decision::Allow { .. }));
    }

    #[test]
    fn a_cost_above_the_burst_can_never_pass() {
        let params = per_second(10, 3);
        assert_eq!(check(0, &params, 1, 4), Decision::Refuse { retry_after: Duration::MAX });
        assert!(matches!(check(0, &params, 1, 3), Decision::Allow { remaining: 0, .. }));
    }

    #[test]
    fn a_smaller_burst_after_a_reload_is_in_force_at_once() {
        let old = per_second(1, 1000);
        let Decision::Allow { tat, .. } = check(0, &old, 1, 1000) else { panic!("refused") };
        let Decision::Refuse { retry_after } = check(tat, &per_second(1, 2), 1, 1) else { panic!("allowed") };
        assert_eq!(retry_after, Duration::from_secs(1));
    }

    /// Against a bucket that counts: tokens in nanoseconds, refilled with time.
    #[test]
    fn it_decides_like_a_bucket_that_counts() {
        for seed in 1..500u64 {
            let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            let mut random = |below: u64| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state % below
            };
            let params = per_second(1 + random(50), 1 + random(20));
            let emission = params.emission.as_nanos() as u64;
            let whole = emission * params.burst;
            let (mut now, mut tat, mut tokens) = (1_000_000_000u64, 0, whole);
            for _ in 0..300 {
                let passed = random(2 * emission);
                now += passed;
                tokens = (tokens + passed).min(whole);
                let cost = 1 + random(3);
                let expected = tokens >= cost * emission;
                if expected {
                    tokens -= cost * emission;
                }
                let decision = check(tat, &params, now, cost);
                if let Decision::Allow { tat: next, .. } = decision {
                    tat = next;
                }
                assert_eq!(matches!(decision, Decision::Allow { .. }), expected, "seed {seed}");
            }
        }
    }
}
