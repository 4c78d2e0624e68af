//! Retries of a route, with what it inherits: attempts, conditions, the budget, hedging.

use std::time::Duration;

use super::reader::Map;
use super::settings::{Hedge, HedgeAfter, Retry, RetryBudget, RetryConditions};
use super::units;
use crate::core::units::{Rate, Ratio};

pub fn default_retry() -> Retry {
    Retry {
        attempts: 3,
        conditions: RetryConditions {
            connect: true,
            reset: true,
            per_try_timeout: true,
            grpc_unavailable: true,
            statuses: vec![429, 502, 503, 504],
        },
        per_try: None,
        backoff_base: Duration::from_millis(25),
        backoff_factor: 2.0,
        backoff_max: Duration::from_millis(250),
        body_max: 64 * 1024,
        budget: RetryBudget {
            percent: Ratio(0.2),
            interval: Duration::from_secs(10),
            rate_min: Rate { count: 3, per: Duration::from_secs(1) },
            own: false,
        },
        hedge: Hedge { after: None, share_max: Ratio(0.01) },
    }
}

pub fn retry(map: Map<'_, '_>, inherited: &Retry) -> Retry {
    let attempts = map.value("attempts", "number", "3", "In all, the first included; 1 is no retry.", |text| {
        text.parse().ok().filter(|count| (1..=10).contains(count)).ok_or("a whole number from 1 to 10")
    });
    let conditions = map.values(
        "conditions",
        "list of conditions",
        "connect, reset, per_try_timeout, grpc-unavailable, \"429\" and \"500\" to \"599\".",
        |text| {
            condition(text)
                .ok_or("connect, reset, per_try_timeout, grpc-unavailable, or a status: \"429\", \"500\" to \"599\"")
        },
    );
    let per_try = map.duration("per_try", "none", "How long one attempt may take.");
    let backoff = map.block("backoff", "The wait before another attempt; anything from nothing to it, by chance.");
    let base = backoff.duration("base", "25ms", "The longest first wait.");
    let factor = backoff.value("factor", "number", "2", "How it grows.", |text| {
        text.parse::<f64>().ok().filter(|factor| (1.0..=10.0).contains(factor)).ok_or("a number from 1 to 10")
    });
    let max = backoff.duration("max", "250ms", "The longest wait of all.");
    backoff.finish();
    let body_max = map.value(
        "body_max",
        "size",
        "64KiB",
        "The largest body that is remembered for another attempt.",
        units::bytes,
    );
    let budget = budget(&map, &inherited.budget);
    let hedge =
        hedge(map.block("hedge", "A second attempt while the first is awaited, for GET and HEAD."), &inherited.hedge);
    map.finish();
    Retry {
        attempts: attempts.unwrap_or(inherited.attempts),
        conditions: conditions.map_or_else(|| inherited.conditions.clone(), |typed| conditions_of(&typed)),
        per_try: per_try.or(inherited.per_try),
        backoff_base: base.unwrap_or(inherited.backoff_base),
        backoff_factor: factor.unwrap_or(inherited.backoff_factor),
        backoff_max: max.unwrap_or(inherited.backoff_max),
        body_max: body_max.unwrap_or(inherited.body_max),
        budget,
        hedge,
    }
}

fn budget(retry: &Map<'_, '_>, inherited: &RetryBudget) -> RetryBudget {
    let map =
        retry.block("budget", "How many attempts beyond the first, so that retries do not multiply a long fault.");
    let percent = map.ratio("percent", "20%", "Of the real requests of the interval.");
    let interval = map.value("interval", "duration", "10s", "What the requests are counted over.", |text| {
        let expected = "a time of 100ms to 10m";
        let range = Duration::from_millis(100)..=Duration::from_secs(600);
        units::duration(text).ok().filter(|time| range.contains(time)).ok_or(expected)
    });
    let rate_min = map.value("rate_min", "rate", "3/s", "Allowed whatever the traffic.", units::rate);
    map.finish();
    RetryBudget {
        // The file's own values are every route's; what a route sets is its alone.
        own: retry.has("budget") && retry.path != "retry",
        percent: percent.unwrap_or(inherited.percent),
        interval: interval.unwrap_or(inherited.interval),
        rate_min: rate_min.unwrap_or(inherited.rate_min),
    }
}

fn hedge(map: Map<'_, '_>, inherited: &Hedge) -> Hedge {
    let mode = map.choice("mode", &["off", "on"], "off", "on sends it.");
    let doc = "When: a percentile of the latencies that the route has seen, or a time.";
    let after = map.value("after", "percentile or duration", "p95", doc, |text| {
        let percentile = text.strip_prefix('p').and_then(|number| number.parse().ok());
        match percentile.filter(|number: &f64| (50.0..100.0).contains(number)) {
            Some(number) => Ok(HedgeAfter::Percentile(Ratio(number / 100.0))),
            None => units::duration(text).map(HedgeAfter::Time).map_err(|_| "p50 to p99.9, or a time such as 50ms"),
        }
    });
    let share_max = map.ratio("share_max", "1%", "Of the requests that could be hedged.");
    map.finish();
    let on = mode.map_or(inherited.after.is_some(), |mode| mode == "on");
    let plain = inherited.after.unwrap_or(HedgeAfter::Percentile(Ratio(0.95)));
    Hedge { after: on.then(|| after.unwrap_or(plain)), share_max: share_max.unwrap_or(inherited.share_max) }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Condition {
    Connect,
    Reset,
    PerTry,
    Grpc,
    Status(u16),
}

fn condition(text: &str) -> Option<Condition> {
    Some(match text {
        "connect" => Condition::Connect,
        "reset" => Condition::Reset,
        "per_try_timeout" => Condition::PerTry,
        "grpc-unavailable" => Condition::Grpc,
        status => {
            Condition::Status(status.parse().ok().filter(|status| *status == 429 || (500..=599).contains(status))?)
        }
    })
}

fn conditions_of(typed: &[Condition]) -> RetryConditions {
    let status = |condition: &Condition| match condition {
        Condition::Status(status) => Some(*status),
        Condition::Connect | Condition::Reset | Condition::PerTry | Condition::Grpc => None,
    };
    RetryConditions {
        connect: typed.contains(&Condition::Connect),
        reset: typed.contains(&Condition::Reset),
        per_try_timeout: typed.contains(&Condition::PerTry),
        grpc_unavailable: typed.contains(&Condition::Grpc),
        statuses: typed.iter().filter_map(status).collect(),
    }
}
