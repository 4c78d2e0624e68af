//! The families of `/metrics` that are read from the living state at the moment of the scrape, instead of counted.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crate::core::breaker::{Forced, State};
use crate::core::priority::Priority;
use crate::plan::{Action, BudgetPlan, EndpointPlan, HedgePlan, Plan, UpstreamPlan};
use crate::proxy::{Shared, readiness};
use crate::state::breaker::BreakerState;
use crate::state::clock;
use crate::state::places::Standing;
use crate::telemetry::PrometheusWriter;

/// Appends the gauges to a scrape.
pub fn render(shared: &Shared, text: &mut String) {
    let plan = shared.plans.load_full();
    let mut out = PrometheusWriter::default();
    process(&mut out, shared, &plan);
    reloads(&mut out, shared, &plan);
    upstreams(&mut out, &plan);
    places(&mut out, &plan);
    holds(&mut out, &plan);
    endpoints(&mut out, &plan);
    stores(&mut out, &plan);
    dependencies(&mut out, &plan);
    breakers(&mut out, &plan);
    budgets(&mut out, &plan);
    hedges(&mut out, &plan);
    rate_limits(&mut out, &plan);
    switches(&mut out, &plan);
    text.push_str(&out.into_text());
}

fn process(out: &mut PrometheusWriter, shared: &Shared, plan: &Plan) {
    let lifecycle = &shared.states.lifecycle;
    let report = readiness::report(plan, &shared.states);
    let ready = report.ready;
    out.single("outrigger_ready", "gauge", "1 when /readyz says yes.", f64::from(u8::from(ready)));
    let degraded = f64::from(u8::from(report.degraded));
    out.single("outrigger_degraded", "gauge", "1 when it does without something the app would like to have.", degraded);
    out.single("outrigger_in_flight", "gauge", "Requests whose answer has not ended.", lifecycle.in_flight() as f64);
    out.single("outrigger_connections", "gauge", "Open client connections.", lifecycle.connections() as f64);
    if let Some(limit) = lifecycle.memory_limit() {
        out.single("outrigger_memory_limit_bytes", "gauge", "Memory this process may hold.", limit as f64);
        let short = lifecycle.connections_max() < usize::MAX;
        let help = "1 while memory is short and connections above a number are turned away.";
        out.single("outrigger_memory_short", "gauge", help, f64::from(u8::from(short)));
    }
    out.single("outrigger_upgraded", "gauge", "Upgraded connections, such as WebSockets.", lifecycle.upgraded() as f64);
}

fn reloads(out: &mut PrometheusWriter, shared: &Shared, plan: &Plan) {
    let reload = &shared.states.reload;
    let stale = f64::from(u8::from(reload.stale.load(Relaxed)));
    out.single("outrigger_config_stale", "gauge", "1 when the file says something else than what runs.", stale);
    let name = "outrigger_config_reloads_total";
    out.family(name, "counter", "Reloads, by result.");
    out.sample(name, &[("result", "loaded")], reload.loaded.load(Relaxed) as f64);
    out.sample(name, &[("result", "refused")], reload.refused.load(Relaxed) as f64);
    out.family("outrigger_config_info", "gauge", "The configuration in force.");
    out.sample("outrigger_config_info", &[("hash", &plan.hash)], 1.0);
}

fn upstreams(out: &mut PrometheusWriter, plan: &Plan) {
    let (now, max) = ("outrigger_upstream_in_flight", "outrigger_upstream_in_flight_max");
    out.family(now, "gauge", "Requests in flight to an upstream.");
    for upstream in &plan.upstreams {
        out.sample(now, &[("upstream", &upstream.name)], upstream.state.in_flight() as f64);
    }
    out.family(max, "gauge", "The cap on requests in flight to an upstream.");
    for upstream in &plan.upstreams {
        out.sample(max, &[("upstream", &upstream.name)], upstream.concurrency_max as f64);
    }
}

fn holds(out: &mut PrometheusWriter, plan: &Plan) {
    let waiting = "outrigger_hold_waiting";
    out.family(waiting, "gauge", "Requests that wait for an upstream which does not listen.");
    for upstream in &plan.upstreams {
        out.count(waiting, &[("upstream", &upstream.name)], u64::from(upstream.state.hold.waiting()));
    }
    let name = "outrigger_hold_requests_total";
    out.family(name, "counter", "Requests that met an upstream which did not listen, by what became of them.");
    for upstream in &plan.upstreams {
        let counts = &upstream.state.hold.counts;
        for (result, count) in
            [("resumed", &counts.resumed), ("expired", &counts.expired), ("refused", &counts.refused)]
        {
            out.count(name, &[("upstream", &upstream.name), ("result", result)], count.load(Relaxed));
        }
    }
}

fn endpoints(out: &mut PrometheusWriter, plan: &Plan) {
    let healthy = "outrigger_endpoint_healthy";
    out.family(healthy, "gauge", "1 healthy, 0 unhealthy; absent while no check has decided.");
    each(plan, |upstream, endpoint| {
        if let Some(well) = endpoint.state.healthy() {
            let labels = [("upstream", &*upstream.name), ("endpoint", &*endpoint.name)];
            out.sample(healthy, &labels, f64::from(u8::from(well)));
        }
    });
    let ejected = "outrigger_endpoint_ejected";
    out.family(ejected, "gauge", "1 while it is left out because it fails more than its neighbours.");
    each(plan, |upstream, endpoint| {
        if upstream.endpoints.len() > 1 {
            let labels = [("upstream", &*upstream.name), ("endpoint", &*endpoint.name)];
            out.sample(ejected, &labels, f64::from(u8::from(endpoint.state.is_ejected())));
        }
    });
}

/// The places of each upstream: learned limit, queue, and who was turned away.
fn places(out: &mut PrometheusWriter, plan: &Plan) {
    let all: Vec<_> =
        plan.upstreams.iter().map(|one| (&*one.name, one.state.places.standing(&one.admission))).collect();
    let limit = "outrigger_concurrency_limit";
    out.family(limit, "gauge", "The adaptive limit on requests that an app works on.");
    for (name, standing) in &all {
        if let Some(value) = standing.limit {
            out.sample(limit, &[("upstream", name)], value as f64);
        }
    }
    let mut family = |name, kind, help, value: &dyn Fn(&Standing) -> f64| {
        out.family(name, kind, help);
        all.iter().for_each(|(upstream, standing)| out.sample(name, &[("upstream", upstream)], value(standing)));
    };
    let help = "Requests that an app works on, without streams.";
    family("outrigger_concurrency_working", "gauge", help, &|standing| standing.working as f64);
    let help = "What an answer takes at present, as the limit sees it.";
    family("outrigger_concurrency_latency_seconds", "gauge", help, &|standing| standing.latency.as_secs_f64());
    family("outrigger_queue_length", "gauge", "Requests that wait for a place.", &|standing| standing.waiting as f64);
    family("outrigger_queue_waited_total", "counter", "Requests that have waited.", &|standing| standing.waited as f64);
    let help = "Time that requests have waited, in all.";
    family("outrigger_queue_wait_seconds_total", "counter", help, &|standing| standing.waited_total.as_secs_f64());
    let refused = "outrigger_admission_refused_total";
    out.family(refused, "counter", "Requests for which there was no place, by priority.");
    for (name, standing) in &all {
        for (priority, count) in Priority::ALL.iter().zip(standing.refused) {
            out.sample(refused, &[("upstream", name), ("priority", priority.label())], count as f64);
        }
    }
}

/// The breakers of endpoints and of routes: one of the two labels is empty.
fn breakers(out: &mut PrometheusWriter, plan: &Plan) {
    let mut all: Vec<(&str, String, String, Arc<BreakerState>)> = Vec::new();
    for upstream in plan.upstreams.iter().filter(|upstream| upstream.breaker.is_some()) {
        let name = &*upstream.name;
        for endpoint in &upstream.endpoints {
            all.push((name, endpoint.name.to_string(), String::new(), endpoint.state.breaker.clone()));
        }
        for (route, breaker) in upstream.state.route_breakers() {
            all.push((name, String::new(), route, breaker));
        }
    }
    let now = clock::now();
    let mut family = |name, kind, help, value: &dyn Fn(&BreakerState) -> u64| {
        out.family(name, kind, help);
        for (upstream, endpoint, route, breaker) in &all {
            out.count(name, &[("upstream", upstream), ("endpoint", endpoint), ("route", route)], value(breaker));
        }
    };
    let help = "0 closed, 1 half-open or in its ramp, 2 open.";
    family("outrigger_breaker_state", "gauge", help, &|breaker| match breaker.state(now) {
        State::Closed | State::Forced(Forced::Closed) => 0,
        State::HalfOpen { .. } | State::Ramp { .. } => 1,
        State::Open { .. } | State::Forced(Forced::Open) => 2,
    });
    family("outrigger_breaker_opened_total", "counter", "Times a breaker has opened.", &|breaker| breaker.counts().0);
    let help = "Attempts a breaker refused, or in shadow mode would have refused.";
    family("outrigger_breaker_refused_total", "counter", help, &|breaker| breaker.counts().1);
}

/// The retry budgets: one per upstream, without a route, and those that routes have of their own.
fn budgets(out: &mut PrometheusWriter, plan: &Plan) {
    let mut all: Vec<(&str, &str, &BudgetPlan)> = Vec::new();
    for route in plan.live_listeners().flat_map(|listener| &listener.routes) {
        let (Action::Forward { upstream, .. }, Some(budget)) = (&route.action, &route.retry.budget) else { continue };
        if !all.iter().any(|(_, _, known)| Arc::ptr_eq(&known.state, &budget.state)) {
            all.push((&upstream.name, if budget.own { &route.name } else { "" }, budget));
        }
    }
    let now = clock::now();
    let mut family = |name, kind, help, value: &dyn Fn(&BudgetPlan) -> u64| {
        out.family(name, kind, help);
        for (upstream, route, budget) in &all {
            out.count(name, &[("upstream", upstream), ("route", route)], value(budget));
        }
    };
    family(
        "outrigger_retry_budget_left",
        "gauge",
        "Attempts beyond the first that the retry budget has left.",
        &|budget| budget.state.left(&budget.params, now),
    );
    family("outrigger_retry_budget_granted_total", "counter", "Attempts the retry budget allowed.", &|budget| {
        budget.state.answers().0
    });
    family("outrigger_retry_budget_refused_total", "counter", "Attempts the retry budget refused.", &|budget| {
        budget.state.answers().1
    });
}

fn hedges(out: &mut PrometheusWriter, plan: &Plan) {
    let routes = plan.live_listeners().flat_map(|listener| &listener.routes);
    let mut all: Vec<(&str, &str, &HedgePlan)> = Vec::new();
    for route in routes {
        let (Action::Forward { upstream, .. }, Some(hedge)) = (&route.action, &route.retry.hedge) else { continue };
        if !all.iter().any(|(_, _, known)| Arc::ptr_eq(&known.state, &hedge.state)) {
            all.push((&upstream.name, &route.name, hedge));
        }
    }
    if all.is_empty() {
        return;
    }
    let requests = "outrigger_hedge_requests_total";
    out.family(requests, "counter", "Requests that outlasted the hedge's delay, by what became of them.");
    for (upstream, route, hedge) in &all {
        let counts = &hedge.state.counts;
        for (result, count) in [("won", &counts.won), ("lost", &counts.lost), ("refused", &counts.refused)] {
            let labels = [("upstream", *upstream), ("route", *route), ("result", result)];
            out.count(requests, &labels, count.load(Relaxed));
        }
    }
    let delay = "outrigger_hedge_delay_seconds";
    out.family(delay, "gauge", "After how long a request is hedged; absent while too little was seen.");
    for (upstream, route, hedge) in &all {
        if let Some(after) = hedge.state.delay(&hedge.params) {
            out.sample(delay, &[("upstream", *upstream), ("route", *route)], after.as_secs_f64());
        }
    }
}

fn switches(out: &mut PrometheusWriter, plan: &Plan) {
    let (name, now) = ("outrigger_switch_position", clock::now());
    out.family(name, "gauge", "0: all requests pass, 1: those that change nothing pass, 2: none passes.");
    for switch in &plan.switches {
        let value = f64::from(switch.stands(now).0 as u8);
        out.sample(name, &[("kind", switch.kind), ("name", &switch.name)], value);
    }
}

fn rate_limits(out: &mut PrometheusWriter, plan: &Plan) {
    if plan.limits.is_empty() {
        return;
    }
    let decisions = "outrigger_rate_limit_decisions_total";
    out.family(
        decisions,
        "counter",
        "Requests a rate limit let through, refused, or in shadow mode would have refused.",
    );
    for limit in &plan.limits {
        let counts = limit.state.counts();
        let refused = if limit.enforced { "refused" } else { "would_refuse" };
        out.sample(decisions, &[("limit", &limit.name), ("decision", "allowed")], counts.allowed as f64);
        out.sample(decisions, &[("limit", &limit.name), ("decision", refused)], counts.refused as f64);
    }
    let keys = "outrigger_rate_limit_keys";
    out.family(keys, "gauge", "Keys a rate limit remembers.");
    for limit in &plan.limits {
        out.sample(keys, &[("limit", &limit.name)], limit.state.keys() as f64);
    }
    let shared = "outrigger_rate_limit_shared_total";
    out.family(shared, "counter", "Keys that shared another's bucket because the table was full.");
    for limit in &plan.limits {
        out.sample(shared, &[("limit", &limit.name)], limit.state.counts().shared as f64);
    }
}

fn stores(out: &mut PrometheusWriter, plan: &Plan) {
    if plan.stores.is_empty() {
        return;
    }
    let up = "outrigger_store_up";
    out.family(up, "gauge", "1 when all workers are connected to the store; absent until the first was.");
    for store in &plan.stores {
        if let Some(well) = store.state.known().well() {
            out.sample(up, &[("store", &store.name)], f64::from(u8::from(well)));
        }
    }
    let requests = "outrigger_store_requests_total";
    out.family(requests, "counter", "Requests whose limits a store was to decide, by what it did.");
    for store in &plan.stores {
        let counts =
            [("answered", &store.state.answered), ("failed", &store.state.failed), ("unasked", &store.state.unasked)];
        for (result, count) in counts {
            out.sample(requests, &[("store", &store.name), ("result", result)], count.load(Relaxed) as f64);
        }
    }
}

fn dependencies(out: &mut PrometheusWriter, plan: &Plan) {
    let name = "outrigger_dependency_up";
    out.family(name, "gauge", "1 when the app's dependency is well, 0 when not; absent while no check has decided.");
    for dependency in &plan.dependencies {
        if let Some(well) = dependency.state.known().well {
            let labels = [("dependency", &*dependency.name), ("when", dependency.when.label())];
            out.sample(name, &labels, f64::from(u8::from(well)));
        }
    }
}

fn each(plan: &Plan, mut visit: impl FnMut(&UpstreamPlan, &EndpointPlan)) {
    for upstream in &plan.upstreams {
        upstream.endpoints.iter().for_each(|endpoint| visit(upstream, endpoint));
    }
}
