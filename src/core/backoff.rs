//! How long to wait before another attempt: exponential with full jitter (Brooker, "Exponential Backoff And Jitter",
//! 2015), so that clients that failed together do not come back together.

use std::time::Duration;

/// The growing range a wait is drawn from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    pub base: Duration,
    pub factor: f64,
    pub max: Duration,
}

/// The wait before retry number `retry` (from 1); `unit` is uniform in 0..1.
pub fn delay(backoff: &Backoff, retry: u32, unit: f64) -> Duration {
    let exponent = i32::try_from(retry.saturating_sub(1)).unwrap_or(i32::MAX);
    let range = backoff.base.as_secs_f64() * backoff.factor.powi(exponent);
    Duration::from_secs_f64(range.min(backoff.max.as_secs_f64()) * unit.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_range_grows_to_its_maximum_and_the_draw_covers_it() {
        let backoff = Backoff { base: Duration::from_millis(25), factor: 2.0, max: Duration::from_millis(250) };
        let widest = |retry| delay(&backoff, retry, 1.0).as_millis();
        assert_eq!([1, 2, 3, 4, 5, 1000].map(widest), [25, 50, 100, 200, 250, 250]);
        assert_eq!(delay(&backoff, 3, 0.0), Duration::ZERO);
        assert_eq!(delay(&backoff, 3, 0.5), Duration::from_millis(50));
    }
}
