//! The worst case of a route: how long until an answer, how many requests the app sees for one.
//!
//! Every attempt is taken to fail as slowly as its timers allow, and every pause to be as long as it can; before them
//! comes all the waiting that may be: for a store, while nothing listens, for a place. The total cuts it all. Streams are not in it: once one has begun, only `idle` limits it.

use std::time::Duration;

use serde_json::{Value, json};

use super::time;
use crate::config::settings::{Mode, Retry, Timeouts, Upstream};

pub struct Worst {
    /// What comes before the first attempt, at its longest.
    waits: Vec<(&'static str, Duration)>,
    attempts: u32,
    /// One attempt: to the first byte, or `per_try`.
    attempt: Duration,
    /// All pauses together, at their longest.
    pauses: Duration,
    total: Duration,
    breaker: Mode,
}

impl Worst {
    /// `store` is the longest that asking the store of its limits may take.
    pub fn of(timeouts: &Timeouts, retry: &Retry, replay: bool, upstream: &Upstream, store: Duration) -> Worst {
        let held = upstream.hold.wait_max;
        // After an absence those that were held may wait for a place as long again.
        let queue = if upstream.queue.max == 0 { held } else { upstream.queue.wait_max.max(held) };
        let waits = [("for its store", store), ("while nothing listens", held), ("for a place", queue)];
        let waits = waits.into_iter().filter(|(_, time)| !time.is_zero()).collect();
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
        Worst { waits, attempts, attempt, pauses, total: timeouts.total, breaker: upstream.circuit_breaker.mode }
    }

    /// Uncut by the total.
    fn uncut(&self) -> Duration {
        let before: Duration = self.waits.iter().map(|(_, time)| *time).sum();
        self.attempt.saturating_mul(self.attempts).saturating_add(self.pauses).saturating_add(before)
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
        let waits: String = self.waits.iter().map(|(what, wait)| format!("up to {} {what}, ", time(*wait))).collect();
        let cut = if self.uncut() > self.total {
            format!("; that would be {}, but the total cuts it", time(self.uncut()))
        } else {
            format!("; the time its own body takes is added, up to the total of {}", time(self.total))
        };
        let until = match self.breaker {
            Mode::Enforce => ", until its breaker opens",
            Mode::Shadow | Mode::Off => "; no breaker ends that",
        };
        let load = match self.attempts {
            1 => "the app sees each request once".to_owned(),
            attempts => format!("a failing app sees up to {attempts} times the load{until}"),
        };
        format!("  a client waits at most {} for an answer ({waits}{sum}{cut})\n  {load}", time(self.wait()))
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
    use crate::config::settings::{Hedge, RetryBudget, RetryConditions};
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
            hedge: Hedge { after: None, share_max: Ratio(0.01) },
        }
    }

    fn upstream(more: &str) -> Upstream {
        let text = format!("upstreams: {{ app: {{ endpoints: [\"http://127.0.0.1:1\"], {more} }} }}");
        let loaded = crate::config::load_text(&text, "x", std::path::Path::new(""), &|_| None).unwrap();
        loaded.settings.upstreams[0].clone()
    }

    fn at_once() -> Upstream {
        upstream("hold: { wait_max: 0s }, concurrency: { queue: { max: 0 } }")
    }

    fn worst(timeouts: &Timeouts, retry: &Retry, replay: bool) -> Worst {
        Worst::of(timeouts, retry, replay, &at_once(), Duration::ZERO)
    }

    #[test]
    fn attempts_and_pauses_add_up() {
        let found = worst(&timeouts(2, 30), &retry(3, None), true);
        assert_eq!(found.uncut(), Duration::from_millis(6_250));
        assert_eq!(found.wait(), found.uncut());
        let found = worst(&timeouts(2, 30), &retry(3, Some(1)), true);
        assert_eq!(found.uncut(), Duration::from_millis(3_250));
    }

    #[test]
    fn the_total_cuts_and_says_so() {
        let found = worst(&timeouts(15, 30), &retry(3, None), true);
        assert_eq!(found.wait(), seconds(30));
        assert!(found.words().contains("the total cuts it"), "{}", found.words());
    }

    #[test]
    fn what_may_not_be_replayed_is_sent_once() {
        let found = worst(&timeouts(2, 30), &retry(3, None), false);
        assert_eq!((found.attempts, found.wait()), (1, seconds(2)));
        assert!(found.words().contains("its own body takes is added, up to the total of 30s"), "{}", found.words());
    }

    #[test]
    fn all_waiting_before_the_first_attempt_counts() {
        let found = |more: &str, total| {
            let found =
                Worst::of(&timeouts(2, total), &retry(1, None), true, &upstream(more), Duration::from_millis(50));
            (found.uncut(), found.wait(), found.words())
        };
        let (uncut, wait, words) =
            found("hold: { wait_max: 4s }, concurrency: { queue: { max: 9, wait_max: 1s } }", 60);
        assert_eq!((uncut, wait), (Duration::from_millis(10_050), Duration::from_millis(10_050)));
        assert!(
            words.contains("up to 50ms for its store, up to 4s while nothing listens, up to 4s for a place"),
            "{words}"
        );
        assert_eq!(
            found("hold: { wait_max: 0s }, concurrency: { queue: { wait_max: 1s } }", 60).0,
            Duration::from_millis(3_050)
        );
        assert_eq!(found("hold: { wait_max: 4s }", 9).1, seconds(9));
    }

    #[test]
    fn only_a_breaker_that_opens_is_spoken_of() {
        for (mode, opens) in [("enforce", true), ("shadow", false), ("off", false)] {
            let upstream = upstream(&format!("circuit_breaker: {{ mode: {mode} }}"));
            let words = Worst::of(&timeouts(2, 30), &retry(3, None), true, &upstream, Duration::ZERO).words();
            assert_eq!(words.contains("until its breaker opens"), opens, "{words}");
            assert_eq!(words.contains("no breaker ends that"), !opens, "{words}");
        }
    }
}
