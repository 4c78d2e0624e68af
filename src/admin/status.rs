//! Everything `outrigger status` shows, as one record: read from the living state, sent as JSON, and read back by the
//! client, which may be another version; so every field has a default.

mod traffic;

use serde::{Deserialize, Serialize};

use super::Board;
use super::switches::{self, Switch};
use crate::core::breaker::State;
use crate::plan::{EndpointPlan, LimitPlan, Plan, StorePlan, UpstreamPlan};
use crate::proxy::{Shared, readiness};
use crate::state::clock;

pub use traffic::{Reason, Route};

/// Refused keys shown of each limit.
const REFUSED_KEYS_SHOWN: usize = 10;
/// Events shown.
const EVENTS_SHOWN: usize = 20;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    pub version: String,
    pub service: String,
    pub ready: bool,
    pub stage: String,
    /// Why it is not ready; one line each.
    pub waiting_for: Vec<String>,
    pub uptime_seconds: u64,
    /// The wrapped app's process id.
    pub app: Option<u32>,
    pub config: Config,
    pub listeners: Vec<Listener>,
    pub connections: u64,
    pub in_flight: u64,
    pub upgraded: u64,
    pub routes: Vec<Route>,
    /// Why requests were refused or failed, since the start; the commonest first.
    pub reasons: Vec<Reason>,
    pub upstreams: Vec<Upstream>,
    pub rate_limits: Vec<RateLimit>,
    pub stores: Vec<Store>,
    pub dependencies: Vec<Dependency>,
    /// Switches that are thrown or held by a command, and every flag.
    pub switches: Vec<Switch>,
    pub certificates: Vec<Certificate>,
    /// The oldest first.
    pub events: Vec<Event>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    pub hash: String,
    /// `None` when it runs from `--upstream`.
    pub file: Option<String>,
    /// The file says something else than what runs.
    pub stale: bool,
    /// Why it does.
    pub problems: Vec<String>,
    pub reloads: u64,
    pub refused: u64,
    /// What runs only after a restart.
    pub restart: Vec<String>,
    /// What `reload --to` can go back to; the first is what runs.
    pub plans: Vec<String>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Listener {
    pub name: String,
    pub address: String,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Upstream {
    pub name: String,
    pub in_flight: u64,
    pub in_flight_max: u64,
    pub endpoints: Vec<Endpoint>,
    /// Breakers of routes to it that are not closed.
    pub routes: Vec<RouteBreaker>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RouteBreaker {
    pub route: String,
    pub breaker: String,
    /// Until an open breaker lets a test request through.
    pub breaker_retry_ms: Option<u64>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RateLimit {
    pub name: String,
    /// `enforce` or `shadow`.
    pub mode: String,
    pub allowed: u64,
    /// In shadow mode: those that would have been.
    pub refused: u64,
    pub keys: u64,
    /// The keys refused most often, the first the most often.
    pub refused_keys: Vec<RefusedKey>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RefusedKey {
    pub key: String,
    pub count: u64,
    /// How much of the count may belong to rarer keys.
    pub over: u64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Endpoint {
    pub address: String,
    /// `None` while no active check has decided.
    pub healthy: Option<bool>,
    /// Why the last check failed.
    pub problem: Option<String>,
    /// `closed`, `open`, `half_open`, `forced_open`, `forced_closed` or `off`.
    pub breaker: String,
    /// Until an open breaker lets a test request through.
    pub breaker_retry_ms: Option<u64>,
    /// Left out for failing more than its neighbours.
    pub ejected: bool,
    pub in_flight: u64,
}

/// Where replicas count together.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Store {
    pub name: String,
    /// `None` until the first connection has been tried.
    pub ok: Option<bool>,
    pub words: String,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Dependency {
    pub name: String,
    pub kind: String,
    pub when: String,
    /// `None` until a check has decided.
    pub ok: Option<bool>,
    pub since: Option<String>,
    pub words: String,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Certificate {
    pub listener: String,
    pub names: Vec<String>,
    pub path: String,
    pub days_left: i64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Event {
    /// Seconds since the Unix epoch.
    pub at: f64,
    pub kind: String,
    pub subject: String,
    pub words: String,
}

/// The state of the process now.
pub fn status(shared: &Shared, board: &Board) -> Status {
    let plan = shared.plans.load_full();
    let states = &shared.states;
    let report = readiness::report(&plan, states);
    let facts = board.facts();
    let snapshots = shared.telemetry.routes();
    let listeners = facts.listeners.iter().cloned().map(|(name, address)| Listener { name, address }).collect();
    Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        service: plan.service.to_string(),
        ready: report.ready,
        stage: report.stage.to_owned(),
        waiting_for: report.waiting_for,
        stores: plan.stores.iter().map(|store| self::store(store)).collect(),
        dependencies: report.dependencies.into_iter().map(dependency).collect(),
        switches: switches::told(&plan),
        uptime_seconds: clock::now().saturating_duration_since(facts.started).as_secs(),
        app: facts.app,
        config: config(shared, &plan, &facts),
        listeners,
        connections: count(states.lifecycle.connections()),
        in_flight: count(states.lifecycle.in_flight()),
        upgraded: count(states.lifecycle.upgraded()),
        routes: traffic::routes(&snapshots, &plan),
        reasons: traffic::reasons(&snapshots),
        upstreams: plan.upstreams.iter().map(|upstream| self::upstream(upstream)).collect(),
        rate_limits: plan.limits.iter().map(|limit| rate_limit(limit)).collect(),
        certificates: facts.certificates.iter().cloned().map(certificate).collect(),
        events: events(shared),
    }
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

fn config(shared: &Shared, plan: &Plan, facts: &super::Facts) -> Config {
    use std::sync::atomic::Ordering::Relaxed;
    let reload = &shared.states.reload;
    Config {
        hash: plan.hash.clone(),
        file: facts.config_file.clone(),
        stale: reload.stale.load(Relaxed),
        problems: reload.problems(),
        reloads: reload.loaded.load(Relaxed),
        refused: reload.refused.load(Relaxed),
        restart: facts.restart.clone(),
        plans: facts.plans.clone(),
    }
}

fn upstream(upstream: &UpstreamPlan) -> Upstream {
    Upstream {
        name: upstream.name.to_string(),
        in_flight: count(upstream.state.in_flight()),
        in_flight_max: count(
            upstream
                .state
                .places
                .standing(&upstream.admission)
                .limit
                .filter(|_| upstream.admission.enforced)
                .map_or(upstream.concurrency_max, |limit| limit.min(upstream.concurrency_max)),
        ),
        endpoints: upstream.endpoints.iter().map(|endpoint| self::endpoint(endpoint, upstream)).collect(),
        routes: if upstream.breaker.is_some() { route_breakers(upstream) } else { Vec::new() },
    }
}

fn route_breakers(upstream: &UpstreamPlan) -> Vec<RouteBreaker> {
    let now = clock::now();
    let all = upstream.state.route_breakers().into_iter().map(|(route, breaker)| (route, breaker.state(now)));
    let told = all.filter(|(_, state)| *state != State::Closed).map(|(route, state)| RouteBreaker {
        route,
        breaker: state.label().to_owned(),
        breaker_retry_ms: retry_in(state, now),
    });
    told.collect()
}

/// Until an open breaker lets a test request through.
fn retry_in(state: State, now: std::time::Instant) -> Option<u64> {
    match state {
        State::Open { until } => {
            Some(u64::try_from(until.saturating_duration_since(now).as_millis()).unwrap_or(u64::MAX))
        }
        State::Closed | State::HalfOpen { .. } | State::Ramp { .. } | State::Forced(_) => None,
    }
}

fn rate_limit(limit: &LimitPlan) -> RateLimit {
    let counts = limit.state.counts();
    let keys = limit.state.top().into_iter().take(REFUSED_KEYS_SHOWN);
    RateLimit {
        name: limit.name.to_string(),
        mode: if limit.enforced { "enforce" } else { "shadow" }.to_owned(),
        allowed: counts.allowed,
        refused: counts.refused,
        keys: count(limit.state.keys()),
        refused_keys: keys.map(|key| RefusedKey { key: key.name, count: key.count, over: key.over }).collect(),
    }
}

fn endpoint(endpoint: &EndpointPlan, upstream: &UpstreamPlan) -> Endpoint {
    let now = clock::now();
    let state = endpoint.state.breaker_state(now);
    let breaker = if upstream.breaker.is_some() { state.label() } else { "off" };
    let healthy = endpoint.state.healthy();
    Endpoint {
        address: endpoint.name.to_string(),
        healthy,
        problem: endpoint.state.last_problem(),
        breaker: breaker.to_owned(),
        breaker_retry_ms: retry_in(state, now),
        ejected: endpoint.state.is_ejected(),
        in_flight: u64::from(endpoint.state.in_flight.load(std::sync::atomic::Ordering::Relaxed)),
    }
}

fn store(store: &StorePlan) -> Store {
    let known = store.state.known();
    Store { name: store.name.to_string(), ok: known.well(), words: known.problem.unwrap_or_default() }
}

fn dependency(one: readiness::Dependency) -> Dependency {
    let readiness::Dependency { name, kind, when, ok, since, words, .. } = one;
    Dependency { name, kind: kind.to_owned(), when: when.to_owned(), ok, since, words }
}

fn certificate(certificate: super::Certificate) -> Certificate {
    const DAY: u64 = 86_400;
    let now = clock::wall();
    let days = |seconds: u64| i64::try_from(seconds / DAY).unwrap_or(i64::MAX);
    let days_left = match certificate.not_after.duration_since(now) {
        Ok(left) => days(left.as_secs()),
        Err(past) => -days(past.duration().as_secs()) - 1,
    };
    let super::Certificate { listener, names, path, not_after: _ } = certificate;
    Certificate { listener, names, path, days_left }
}

fn events(shared: &Shared) -> Vec<Event> {
    let recent = shared.states.journal.recent(EVENTS_SHOWN);
    let event = |event: crate::state::journal::Event| Event {
        at: event.at,
        kind: event.kind.to_owned(),
        subject: event.subject,
        words: event.words,
    };
    recent.into_iter().map(event).collect()
}
