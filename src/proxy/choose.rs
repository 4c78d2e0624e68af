//! Which endpoint the next attempt goes to, and what its answer says of the endpoint. An upstream with one endpoint has
//! no choice, so it pays for none: no lock is taken and nothing is recorded.
//!
//! Known to be unhealthy is worse than ejected, and ejected is worse than what has just failed this request; each is
//! passed over while something better is left, so that a wrong health path or a bad guess never takes the last
//! endpoint away.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::exchange::Exchange;
use crate::core::balance::{self, Draw};
use crate::core::breaker::Outcome;
use crate::core::eject::{self, Tally};
use crate::plan::{EndpointPlan, UpstreamPlan};
use crate::state::clock;
use crate::state::endpoint::EndpointState;

/// The index of the endpoint to try, not among `tried`; `None` when all that may be tried have been.
pub fn next(upstream: &UpstreamPlan, exchange: &Exchange, tried: &[usize], now: Instant) -> Option<usize> {
    let endpoints = &upstream.endpoints;
    if let [_] = &endpoints[..] {
        return tried.is_empty().then_some(0);
    }
    for endpoint in endpoints {
        if endpoint.state.came_back(now) {
            let subject = format!("{} {}", upstream.name, endpoint.name);
            exchange.proxy.shared().states.journal.record("balance", subject, "back after its ejection, in steps");
        }
    }
    let any_healthy = endpoints.iter().any(|endpoint| endpoint.state.healthy() != Some(false));
    let refusing = |endpoint: &EndpointPlan| endpoint.state.listening.is_refusing();
    let any_listens = !endpoints.iter().all(refusing);
    let hopeless = |index: usize| {
        let endpoint = &endpoints[index];
        (any_healthy && endpoint.state.healthy() == Some(false)) || (any_listens && refusing(endpoint))
    };
    let allowed = |index: usize| !tried.contains(&index) && !hopeless(index);
    let within = |index: usize| allowed(index) && !endpoints[index].state.is_ejected();
    let failed = exchange.attempts.last().map(|attempt| &*attempt.endpoint);
    let fresh = |index: usize| within(index) && failed != Some(&*endpoints[index].name);
    let draw = Draw { random: clock::random(), unit: clock::unit(), turn: upstream.state.turn() };
    let see = |index: usize| endpoints[index].state.seen(&upstream.balance.load, now);
    let among = |usable: &dyn Fn(usize) -> bool| {
        balance::choose(upstream.balance.policy, &upstream.balance.load, endpoints.len(), usable, see, draw)
    };
    among(&fresh).or_else(|| among(&within)).or_else(|| among(&allowed))
}

/// An endpoint's part in a request, from its choice to the end of the answer's body; counted among its requests in
/// flight meanwhile.
pub struct Turn(Arc<EndpointState>);

impl Turn {
    /// `None` where nobody counts.
    pub fn begin(upstream: &UpstreamPlan, endpoint: &EndpointPlan) -> Option<Turn> {
        if upstream.endpoints.len() < 2 {
            return None;
        }
        endpoint.state.in_flight.fetch_add(1, Ordering::Relaxed);
        Some(Turn(endpoint.state.clone()))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts an attempt's outcome for the endpoint, and ejects it when it stands out. `status` is 0 without an answer.
pub fn learn(
    upstream: &UpstreamPlan,
    endpoint: &EndpointPlan,
    exchange: &Exchange,
    outcome: Outcome,
    status: u16,
    (took, now): (Duration, Instant),
) {
    if upstream.endpoints.len() < 2 || matches!(outcome, Outcome::Ignored) {
        return;
    }
    let failed = matches!(outcome, Outcome::Failure);
    let balance = &upstream.balance;
    // A 429 is no failure, and yet no work: the next request is better off elsewhere.
    endpoint.state.learn(failed, failed || status == 429, took, &balance.load, &balance.eject, now);
    if failed && let Some((out, own, others)) = eject(upstream, endpoint, now) {
        let words = format!(
            "ejected for {out:?}: {} of its last {} answers failed, and {} of {} of the other endpoints'",
            own.failures, own.answers, others.failures, others.answers
        );
        let subject = format!("{} {}", upstream.name, endpoint.name);
        exchange.proxy.shared().states.journal.record("balance", subject, words);
    }
}

/// One ejection at a time per upstream, or two workers could each leave the other's endpoint as the last.
fn eject(upstream: &UpstreamPlan, endpoint: &EndpointPlan, now: Instant) -> Option<(Duration, Tally, Tally)> {
    let params = &upstream.balance.eject;
    let own = endpoint.state.tally(params, now);
    if own.answers < params.volume_min || own.rate() < params.failing {
        return None; // most failures end here, without the others' locks
    }
    let _one = upstream.state.ejecting();
    if endpoint.state.is_ejected() {
        return None;
    }
    let others = upstream.endpoints.iter().filter(|other| !Arc::ptr_eq(&other.state, &endpoint.state));
    let (mut beside, mut out) = (Tally::default(), 0);
    for other in others {
        beside = beside.plus(other.state.tally(params, now));
        out += usize::from(other.state.is_ejected() || other.state.healthy() == Some(false));
    }
    let stands_out = eject::is_outlier(own, beside, params) && eject::may_eject(upstream.endpoints.len(), out, params);
    stands_out.then(|| (endpoint.state.eject(params, now), own, beside))
}
