//! The families of `/metrics` that are read from the living state at the moment of the scrape, instead of counted.

use std::sync::atomic::Ordering::Relaxed;

use crate::core::breaker::{Forced, State};
use crate::plan::{EndpointPlan, Plan, UpstreamPlan};
use crate::proxy::{Shared, readiness};
use crate::state::clock;
use crate::telemetry::PrometheusWriter;

/// Appends the gauges to a scrape.
pub fn render(shared: &Shared, text: &mut String) {
    let plan = shared.plans.load_full();
    let mut out = PrometheusWriter::default();
    process(&mut out, shared, &plan);
    reloads(&mut out, shared, &plan);
    upstreams(&mut out, &plan);
    endpoints(&mut out, &plan);
    text.push_str(&out.into_text());
}

fn process(out: &mut PrometheusWriter, shared: &Shared, plan: &Plan) {
    let lifecycle = &shared.states.lifecycle;
    let ready = readiness::report(plan, &shared.states).ready;
    out.single("outrigger_ready", "gauge", "1 when /readyz says yes.", f64::from(u8::from(ready)));
    out.single("outrigger_in_flight", "gauge", "Requests whose answer has not ended.", lifecycle.in_flight() as f64);
    out.single("outrigger_connections", "gauge", "Open client connections.", lifecycle.connections() as f64);
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
    let breaker = "outrigger_breaker_state";
    out.family(breaker, "gauge", "0 closed, 1 half-open, 2 open.");
    let now = clock::now();
    each(plan, |upstream, endpoint| {
        if upstream.breaker.is_some() {
            let state = match endpoint.state.breaker_state(now) {
                State::Closed | State::Forced(Forced::Closed) => 0.0,
                State::HalfOpen { .. } => 1.0,
                State::Open { .. } | State::Forced(Forced::Open) => 2.0,
            };
            out.sample(breaker, &[("upstream", &*upstream.name), ("endpoint", &*endpoint.name)], state);
        }
    });
}

fn each(plan: &Plan, mut visit: impl FnMut(&UpstreamPlan, &EndpointPlan)) {
    for upstream in &plan.upstreams {
        upstream.endpoints.iter().for_each(|endpoint| visit(upstream, endpoint));
    }
}
