//! Each policy's settings as the numbers its core decides by, with the state it had before.

use std::sync::Arc;

use http::HeaderName;

use crate::config::settings as wanted;
use crate::core::breaker::Consecutive;
use crate::core::{admission, backoff, breaker, bucket, budget, gradient};
use crate::plan::{BreakerPlan, BudgetPlan, LimitPlan, RateKey, Retry, SharedLimit, StorePlan, Timeouts, headers};
use crate::state::states::States;

pub fn retry(states: &States, route: &wanted::Route) -> Retry {
    let retry = &route.retry;
    let budget = match &route.action {
        wanted::RouteAction::Forward { upstream, .. } => Some(budget(states, upstream, route)),
        wanted::RouteAction::Redirect { .. } => None,
    };
    Retry {
        attempts: retry.attempts,
        connect: retry.conditions.connect,
        reset: retry.conditions.reset,
        per_try_timeout: retry.conditions.per_try_timeout,
        grpc_unavailable: retry.conditions.grpc_unavailable,
        statuses: retry.conditions.statuses.clone(),
        per_try: retry.per_try,
        backoff: backoff::Backoff { base: retry.backoff_base, factor: retry.backoff_factor, max: retry.backoff_max },
        body_max: retry.body_max,
        budget,
    }
}

/// Routes that inherit the budget share their upstream's; one that sets it has its own.
fn budget(states: &States, upstream: &str, route: &wanted::Route) -> BudgetPlan {
    let wanted::RetryBudget { percent, interval, rate_min, own } = &route.retry.budget;
    BudgetPlan {
        params: budget::Params {
            ratio: percent.0,
            window: *interval,
            floor: rate_min.count as f64 / rate_min.per.as_secs_f64(),
        },
        state: states.budget(upstream, if *own { &route.name } else { "" }),
        own: *own,
    }
}

/// `service` and the limit's name and key say whose counts are one.
pub fn limit(
    states: &States,
    service: &str,
    stores: &[Arc<StorePlan>],
    limit: &wanted::RateLimit,
) -> Option<Arc<LimitPlan>> {
    let shared = limit.shared.as_ref().and_then(|shared| {
        let store = stores.iter().find(|store| *store.name == *shared.store)?.clone();
        let key: Vec<String> = limit.key.iter().map(ToString::to_string).collect();
        let prefix = format!("outrigger:{service}:{}:{}:", limit.name, key.join("+"));
        Some(SharedLimit { store, prefix, when_away: shared.when_away })
    });
    let key = limit.key.iter().filter_map(|part| match part {
        wanted::RateKey::ClientIp => Some(RateKey::ClientIp),
        wanted::RateKey::Route => Some(RateKey::Route),
        wanted::RateKey::Header(name) => HeaderName::from_bytes(name.as_bytes()).ok().map(RateKey::Header),
        wanted::RateKey::Cookie(name) => Some(RateKey::Cookie(name.clone())),
    });
    (limit.mode != wanted::Mode::Off).then(|| {
        Arc::new(LimitPlan {
            label: headers::quoted(&limit.name),
            name: limit.name.as_str().into(),
            key: key.collect(),
            params: bucket::params(limit.rate, limit.burst),
            cost: limit.cost,
            enforced: limit.mode == wanted::Mode::Enforce,
            state: states.limit(&format!("{} {:?}", limit.name, limit.key)),
            shared,
        })
    })
}

/// An upstream's places and queue.
pub fn admission(upstream: &wanted::Upstream) -> admission::Params {
    let wanted::Adaptive { mode, min, max } = upstream.adaptive;
    admission::Params {
        cap: upstream.concurrency_max,
        adaptive: (mode != wanted::Mode::Off).then_some(gradient::Params { min, max }),
        enforced: mode == wanted::Mode::Enforce,
        queue_max: upstream.queue.max,
        wait_max: upstream.queue.wait_max,
    }
}

pub fn timeouts(timeouts: &wanted::Timeouts) -> Timeouts {
    Timeouts {
        connect: timeouts.connect,
        request_body_rate_min: timeouts.request_body_rate_min,
        request_body_grace: timeouts.request_body_grace,
        first_byte: timeouts.first_byte,
        idle: timeouts.idle,
        total: timeouts.total,
    }
}

pub fn breaker(breaker: &wanted::CircuitBreaker) -> Option<BreakerPlan> {
    let shadow = match breaker.mode {
        wanted::Mode::Off => return None,
        wanted::Mode::Enforce => false,
        wanted::Mode::Shadow => true,
    };
    let route = breaker::Params {
        consecutive: breaker.consecutive_failures.map_or(Consecutive::Auto, Consecutive::Exactly),
        failure_rate: breaker.failure_rate.0,
        volume_min: breaker.volume_min,
        slow_rate: breaker.slow_call.as_ref().map(|slow| slow.rate.0),
        window: breaker.window,
        open_for_base: breaker.open_for_base,
        open_for_max: breaker.open_for_max,
        probes: breaker.probes,
        ramp: breaker.ramp,
    };
    let slow = breaker.slow_call.as_ref().map(|slow| slow.duration);
    Some(BreakerPlan { endpoint: breaker::Params { slow_rate: None, ..route }, route, slow, shadow })
}
