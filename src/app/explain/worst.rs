//! The worst case of a route: how long until an answer, how many requests the app sees for one.
//!
//! Every attempt is taken to fail as slowly as its timers allow, and every pause to be as long as it can; the total
//! cuts it all. Streams are not in it: once one has begun, only `idle` limits it.

use std::time::Duration;

use serde_json::{Value, json};

use super::time;
use crate::config::settings::{Retry, Timeouts};

pub struct Worst {
    attempts: u32,
    /// One attempt: to the first byte, or `per_try`.
    attempt: Duration,
    /// All pauses together, at their longest.
    pauses: Duration,
    total: Duration,
}

impl Worst {
    pub fn of(timeouts: &Timeouts, retry: &Retry, replay: bool) -> Worst {
        let attempts = if replay { retry.attempts.max(1) } else { 1 };
        // The first-byte timer runs from the attempt's beginning (or the end of the upload), connecting included.
        let attempt = retry.per_try.map_or(timeouts.first_byte, |per_try| per_try.min(timeouts.first_byte));
        let pause = |number: u32| {
            let factor = retry.backoff_factor.powi(i32::try_from(number).unwrap_or(i32::MAX));
            let longest = retry.backoff_base.as_secs_f64() * factor;
            Duration::try_from_secs_f64(longest).unwrap_or(retry.backoff_max).min(retry.backoff_max)
        };
        // More than any configuration allows would only be cut by the total.
        let pauses = (0..attempts.saturating_sub(1).min(100)).map(pause).sum();
        Worst { attempts, attempt, pauses, total: timeouts.total }
    }

    /// Uncut by the total.
    fn uncut(&self) -> Duration {
        self.attempt.saturating_mul(self.attempts).saturating_add(self.pauses)
    }

    fn wait(&self) -> Duration {
        self.uncut().min(self.total)
    }

    pub fn words(&self) -> String {
        let each = time(self.attempt);
        let sum = match self.attempts {
            1 => format!("one attempt of at most {each}"),
            attempts => format!("{attempts} attempts of at most {each} and pauses of at most {}", time(self.pauses)),
        };
        let cut = if self.uncut() > self.total {
            format!("; that would be {}, but the total cuts it", time(self.uncut()))
        } else {
            String::new()
        };
        let load = match self.attempts {
            1 => "the app sees each request once".to_owned(),
            attempts => format!("a failing app sees up to {attempts} times the load, until its breaker opens"),
        };
        format!("  a client waits at most {} for an answer ({sum}{cut})\n  {load}", time(self.wait()))
    }

    pub fn to_json(&self) -> Value {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        json!({
            "answer_ms": millis(self.wait()),
            "uncut_ms": millis(self.uncut()),
            "attempts": self.attempts,
            "load_amplification": self.attempts,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::{RetryBudget, RetryConditions};
    use crate::core::units::{Rate, Ratio};

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn timeouts(first_byte: u64, total: u64) -> Timeouts {
        Timeouts {
            connect: seconds(1),
            request_body_rate_min: 240,
            request_body_grace: seconds(5),
            first_byte: seconds(first_byte),
            idle: seconds(60),
            total: seconds(total),
        }
    }

    fn retry(attempts: u32, per_try: Option<u64>) -> Retry {
        Retry {
            attempts,
            conditions: RetryConditions {
                connect: true,
                reset: true,
                per_try_timeout: true,
                grpc_unavailable: true,
                statuses: vec![503],
            },
            per_try: per_try.map(seconds),
            backoff_base: Duration::from_millis(100),
            backoff_factor: 2.0,
            backoff_max: Duration::from_millis(150),
            body_max: 0,
            budget: RetryBudget {
                percent: Ratio(0.2),
                interval: seconds(10),
                rate_min: Rate { count: 3, per: seconds(1) },
                own: false,
            },
        }
    }

    #[test]
    fn attempts_and_pauses_add_up() {
        let worst = Worst::of(&timeouts(2, 30), &retry(3, None), true);
        assert_eq!(worst.uncut(), Duration::from_millis(6_250));
        assert_eq!(worst.wait(), worst.uncut());
        let worst = Worst::of(&timeouts(2, 30), &retry(3, Some(1)), true);
        assert_eq!(worst.uncut(), Duration::from_millis(3_250));
    }

    #[test]
    fn the_total_cuts_and_says_so() {
        let worst = Worst::of(&timeouts(15, 30), &retry(3, None), true);
        assert_eq!(worst.wait(), seconds(30));
        assert!(worst.words().contains("the total cuts it"), "{}", worst.words());
    }

    #[test]
    fn what_may_not_be_replayed_is_sent_once() {
        let worst = Worst::of(&timeouts(2, 30), &retry(3, None), false);
        assert_eq!((worst.attempts, worst.wait()), (1, seconds(2)));
    }
}
