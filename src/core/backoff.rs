//! How long to wait before another attempt: exponential with full jitter (Brooker, "Exponential Backoff And Jitter",
//! 2015), so that clients that failed together do not come back together.
//!
//! Whether another attempt is allowed at all is not decided here (see `retry` and `deadline`), and no number in the
//! parameters can make it panic: what is too large to be a time is the maximum.

use std::time::Duration;

/// The growing range a wait is drawn from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    /// The widest wait before the first retry.
    pub base: Duration,
    /// What the range is multiplied by for each further retry; usually 2.
    pub factor: f64,
    /// The widest wait of all.
    pub max: Duration,
}

/// The wait before retry number `retry` (from 1); `unit` is uniform in `0.0..1.0`.
pub fn delay(backoff: &Backoff, retry: u32, unit: f64) -> Duration {
    let exponent = i32::try_from(retry.saturating_sub(1)).unwrap_or(i32::MAX);
    let grown = backoff.base.as_secs_f64() * backoff.factor.powi(exponent);
    let range = match Duration::try_from_secs_f64(grown) {
        Ok(range) => range.min(backoff.max),
        Err(_) if backoff.base.is_zero() => Duration::ZERO, // zero times infinity is still no wait
        Err(_) => backoff.max,
    };
    Duration::try_from_secs_f64(range.as_secs_f64() * unit.clamp(0.0, 1.0)).unwrap_or(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff { base: Duration::from_millis(25), factor: 2.0, max: Duration::from_millis(250) };

    #[test]
    fn the_range_grows_to_its_maximum_and_the_draw_covers_it() {
        let widest = |retry| delay(&BACKOFF, retry, 1.0).as_millis();
        assert_eq!([0, 1, 2, 3, 4, 5, 1000, u32::MAX].map(widest), [25, 25, 50, 100, 200, 250, 250, 250]);
        assert_eq!(delay(&BACKOFF, 3, 0.0), Duration::ZERO);
        assert_eq!(delay(&BACKOFF, 3, 0.5), Duration::from_millis(50));
    }

    #[test]
    fn no_parameter_is_too_large_or_too_small() {
        let never = Backoff { base: Duration::ZERO, ..BACKOFF };
        assert_eq!(delay(&never, u32::MAX, 1.0), Duration::ZERO);
        let huge = Backoff { base: Duration::MAX, factor: f64::INFINITY, max: Duration::MAX };
        assert_eq!(delay(&huge, 2, 1.0), Duration::MAX);
        for unit in [f64::NAN, f64::INFINITY, 2.0] {
            assert_eq!(delay(&BACKOFF, 1, unit), BACKOFF.base);
        }
        assert_eq!(delay(&BACKOFF, 1, -1.0), Duration::ZERO);
    }
}
