//! Active health checks: one task per endpoint, on the control runtime, so that a busy worker does not fail them.
//!
//! They also decide when the app has come up for the first time (`/startupz`): when every checked upstream of an inbound
//! route has a healthy endpoint. Without a check the app counts as up, except when it is our own child: then it is up
//! when its port can be connected to. A check of an unchanged endpoint survives a reload, its counts included.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::dependencies::Dependencies;
use crate::core::breaker::State;
use crate::plan::{Action, CheckKind, EndpointPlan, HealthCheck, Plan, UpstreamPlan};
use crate::proxy::Shared;
use crate::state::breaker::BreakerState;
use crate::state::clock;
use crate::state::endpoint::{EndpointState, UpstreamState};
use crate::upstream::probe::{self, Unhealthy};
use crate::upstream::{EndpointSpec, Protocol};

/// Until the app has been seen, it is looked for at least this often: a start is waited for by somebody.
const EAGER: Duration = Duration::from_millis(250);
/// How often the port of a child without a health check is tried.
const PORT_INTERVAL: Duration = Duration::from_millis(50);
const PORT_TIMEOUT: Duration = Duration::from_secs(1);

/// The running checks.
pub struct Checks {
    shared: Arc<Shared>,
    /// The app is our child.
    wrapped: bool,
    tasks: HashMap<String, JoinHandle<()>>,
    dependencies: Dependencies,
}

impl Checks {
    pub fn new(shared: Arc<Shared>, wrapped: bool) -> Checks {
        Checks { shared, wrapped, tasks: HashMap::new(), dependencies: Dependencies::default() }
    }

    /// Starts the checks of the plan in force, goes on with those it has already, and ends the others.
    pub fn apply(&mut self) {
        self.dependencies.apply(&self.shared);
        let plan = self.shared.plans.load_full();
        let mut wanted = HashMap::new();
        for upstream in &plan.upstreams {
            let Some(check) = &upstream.health_check else { continue };
            for endpoint in &upstream.endpoints {
                let identity = format!("{} {} {check:?}", upstream.name, endpoint.pool_slot);
                wanted.insert(identity, Target::new(upstream, endpoint, check));
            }
        }
        self.tasks.retain(|identity, task| {
            let keep = wanted.contains_key(identity);
            if !keep {
                task.abort();
            }
            keep
        });
        for (identity, target) in wanted {
            let shared = &self.shared;
            self.tasks.entry(identity).or_insert_with(|| tokio::spawn(watch(Arc::clone(shared), target)));
        }
        if self.shared.states.lifecycle.app_seen() || inbound(&plan).any(|upstream| upstream.health_check.is_some()) {
            return;
        }
        if self.wrapped {
            let specs: Vec<_> =
                inbound(&plan).flat_map(|upstream| &upstream.endpoints).map(|one| one.spec.clone()).collect();
            let shared = Arc::clone(&self.shared);
            self.tasks.entry("port".to_owned()).or_insert_with(|| tokio::spawn(wait_for_port(shared, specs)));
        } else {
            self.shared.states.lifecycle.app_came_up();
        }
    }
}

impl Drop for Checks {
    fn drop(&mut self) {
        for task in self.tasks.values() {
            task.abort();
        }
    }
}

/// One endpoint and how it is checked.
struct Target {
    upstream: Arc<str>,
    name: Arc<str>,
    spec: Arc<EndpointSpec>,
    state: Arc<EndpointState>,
    upstream_state: Arc<UpstreamState>,
    check: HealthCheck,
}

impl Target {
    fn new(upstream: &UpstreamPlan, endpoint: &EndpointPlan, check: &HealthCheck) -> Target {
        Target {
            upstream: upstream.name.clone(),
            name: endpoint.name.clone(),
            spec: endpoint.spec.clone(),
            state: endpoint.state.clone(),
            upstream_state: upstream.state.clone(),
            check: check.clone(),
        }
    }

    /// Whether its return is waited for.
    fn is_down(&self) -> bool {
        let now = clock::now();
        let open = |breaker: &BreakerState| matches!(breaker.state(now), State::Open { .. } | State::HalfOpen { .. });
        self.state.healthy() == Some(false)
            || open(&self.state.breaker)
            || self.upstream_state.route_breakers().iter().any(|(_, breaker)| open(breaker))
    }

    async fn probe(&self) -> Result<(), Unhealthy> {
        let EndpointSpec { address, tls, authority, protocol, .. } = &*self.spec;
        let (tls, timeout) = (tls.as_deref(), self.check.timeout);
        match (&self.check.kind, protocol) {
            (CheckKind::Tcp, _) => probe::tcp(address, timeout).await,
            (CheckKind::Grpc(service), _) => probe::grpc(address, tls, authority, service, timeout).await,
            (CheckKind::Http(path), Protocol::Http2) => probe::http2(address, tls, authority, path, timeout).await,
            (CheckKind::Http(path), Protocol::Auto | Protocol::Http1) => {
                probe::http(address, tls, authority, path, timeout).await
            }
        }
    }
}

/// Checks one endpoint for as long as the task lives.
async fn watch(shared: Arc<Shared>, target: Target) {
    loop {
        let result = target.probe().await.map_err(|unhealthy| unhealthy.words);
        record(&shared, &target, result);
        let lifecycle = &shared.states.lifecycle;
        if !lifecycle.app_seen() && is_up(&shared.plans.load()) {
            lifecycle.app_came_up();
            shared.states.journal.record("health", &*target.upstream, "the app has come up");
        }
        let interval = if lifecycle.app_seen() && !target.is_down() {
            target.check.interval
        } else {
            target.check.interval.min(EAGER)
        };
        // Jitter keeps the checks of many sidecars apart.
        tokio::time::sleep(interval.mul_f64(0.9 + 0.2 * clock::unit())).await;
    }
}

fn record(shared: &Shared, target: &Target, result: Result<(), String>) {
    let journal = &shared.states.journal;
    let words = result.as_ref().err().cloned();
    let well = result.is_ok();
    let changed = target.state.checked(result, &target.check.params, clock::now());
    let subject = || format!("{} {}", target.upstream, target.name);
    match changed.health {
        Some(true) => journal.record("health", subject(), "healthy"),
        Some(false) => journal.record("health", subject(), format!("unhealthy: {}", words.unwrap_or_default())),
        None => {}
    }
    if well {
        target.state.breaker.healthy(journal);
    }
    // A check that went well all the time says nothing of a route that fails beside it.
    if changed.recovered {
        target.upstream_state.route_breakers().iter().for_each(|(_, breaker)| breaker.healthy(journal));
    }
}

/// A child without a health check is up when its port is.
async fn wait_for_port(shared: Arc<Shared>, specs: Vec<Arc<EndpointSpec>>) {
    loop {
        for spec in &specs {
            if probe::tcp(&spec.address, PORT_TIMEOUT).await.is_ok() {
                shared.states.lifecycle.app_came_up();
                shared.states.journal.record("health", spec.address.to_string(), "the app has come up");
                return;
            }
        }
        tokio::time::sleep(PORT_INTERVAL).await;
    }
}

/// Every checked upstream of an inbound route has a healthy endpoint.
fn is_up(plan: &Plan) -> bool {
    inbound(plan)
        .filter(|upstream| upstream.health_check.is_some())
        .all(|upstream| upstream.endpoints.iter().any(|endpoint| endpoint.state.healthy() == Some(true)))
}

/// The upstreams of routes that lead to the app; what the app itself calls does not decide whether it is up.
fn inbound(plan: &Plan) -> impl Iterator<Item = &Arc<UpstreamPlan>> {
    let listeners = plan.live_listeners().filter(|listener| !listener.outbound);
    listeners.flat_map(|listener| &listener.routes).filter_map(|route| match &route.action {
        Action::Forward { upstream, .. } => Some(upstream),
        Action::Redirect { .. } => None,
    })
}
