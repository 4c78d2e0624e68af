//! Settings and living state become a plan. What can fail here is what `check` cannot see from the text alone:
//! files that do not parse (upstream CA) and routes the radix tree refuses.

use std::collections::HashMap;
use std::sync::Arc;

mod policies;

use http::{HeaderName, HeaderValue, Method};

use super::dependency;
use super::headers::{self, NotAHeader};
use super::switches;
use super::{
    Action, Balance, CheckKind, ClientAuth, DrainPlan, EndpointPlan, HealthCheck, HttpsRedirect, LimitPlan,
    ListenerPlan, MaintenancePlan, Plan, ProxyProtocol, Rewrite, RoutePlan, RouteSwitches, SwitchPlan, Template,
    TlsPlan, TracePlan, UpstreamPlan,
};
use crate::config::settings as wanted;
use crate::core::route::{Router, Rule};
use crate::core::switch::Position;
use crate::core::units::Address;
use crate::core::{balance, eject, health, hold};
use crate::state::clock;
use crate::state::states::States;
use crate::telemetry::Telemetry;
use crate::upstream::{ClientTls, EndpointSpec, Protocol};

/// Something that only shows when the plan is made.
#[derive(Debug)]
pub struct PlanProblem {
    /// The configuration path it belongs to.
    pub path: String,
    pub words: String,
}

/// Compiles `settings`, adopting the state that has the same identity; every problem is reported.
pub fn compile(
    settings: &wanted::Settings,
    hash: &str,
    states: &States,
    telemetry: &Telemetry,
) -> Result<Plan, Vec<PlanProblem>> {
    let mut compiler = Compiler {
        settings,
        states,
        telemetry,
        problems: Vec::new(),
        upstreams: HashMap::new(),
        limits: Vec::new(),
        switches: switches::of_file(settings, states),
    };
    let stores = dependency::stores(settings, states, &mut compiler.problems);
    let service = settings.service.name.as_str();
    let limits = settings.rate_limits.iter().filter_map(|limit| policies::limit(states, service, &stores, limit));
    compiler.limits = limits.collect();
    let upstreams: Vec<Arc<UpstreamPlan>> =
        settings.upstreams.iter().map(|upstream| Arc::new(compiler.upstream(upstream))).collect();
    compiler.upstreams = upstreams.iter().map(|upstream| (upstream.name.clone(), upstream.clone())).collect();
    let shared: Vec<Arc<RoutePlan>> = settings.routes.iter().filter_map(|route| compiler.route(route, false)).collect();
    let mut listeners = Vec::new();
    for listener in &settings.listeners {
        if let Some(compiled) = compiler.listener(listener, &shared) {
            let slot = compiled.slot;
            listeners.resize_with(listeners.len().max(slot + 1), || None);
            listeners[slot] = Some(Arc::new(compiled));
        }
    }
    let dependencies = dependency::dependencies(settings, states, &mut compiler.problems);
    if !compiler.problems.is_empty() {
        return Err(compiler.problems);
    }
    Ok(Plan {
        hash: hash.to_owned(),
        service: settings.service.name.as_str().into(),
        listeners,
        upstreams,
        limits: compiler.limits,
        stores,
        dependencies,
        switches: compiler.switches,
        maintenance: MaintenancePlan {
            message: settings.maintenance.message.as_deref().map(Into::into),
            allow: settings.maintenance.allow.clone(),
            retry_after: settings.maintenance.retry_after,
        },
        trusted: settings.trusted_proxies.clone(),
        traces: TracePlan { sample: settings.traces.sample.0, b3: settings.traces.propagate_b3 },
        health_on_listener: settings.health_on_listener,
        drain: DrainPlan { delay: settings.drain.delay, timeout: settings.drain.timeout },
    })
}

struct Compiler<'a> {
    settings: &'a wanted::Settings,
    states: &'a States,
    telemetry: &'a Telemetry,
    problems: Vec<PlanProblem>,
    /// By name.
    upstreams: HashMap<Arc<str>, Arc<UpstreamPlan>>,
    limits: Vec<Arc<LimitPlan>>,
    switches: Vec<Arc<SwitchPlan>>,
}

impl Compiler<'_> {
    fn problem(&mut self, path: String, words: impl Into<String>) {
        self.problems.push(PlanProblem { path, words: words.into() });
    }

    fn upstream(&mut self, upstream: &wanted::Upstream) -> UpstreamPlan {
        let endpoints: Vec<EndpointPlan> =
            upstream.endpoints.iter().filter_map(|endpoint| self.endpoint(upstream, endpoint)).collect();
        let state = self.states.upstream(&upstream.name);
        let among_others = state.was_planned() && endpoints.len() > 1;
        for endpoint in &endpoints {
            endpoint.state.place(among_others, clock::now());
        }
        UpstreamPlan {
            name: upstream.name.as_str().into(),
            metrics: self.telemetry.upstream_metrics(&upstream.name),
            state,
            endpoints,
            balance: Balance {
                policy: match upstream.balance {
                    wanted::Balance::PeakEwma => balance::Policy::PeakEwma,
                    wanted::Balance::LeastRequest => balance::Policy::LeastRequest,
                    wanted::Balance::RoundRobin => balance::Policy::RoundRobin,
                },
                load: balance::Params::default(),
                eject: eject::Params::default(),
            },
            breaker: policies::breaker(&upstream.circuit_breaker),
            hold: (!upstream.hold.wait_max.is_zero())
                .then_some(hold::Params { wait_max: upstream.hold.wait_max, requests_max: upstream.hold.requests_max }),
            concurrency_max: upstream.concurrency_max,
            admission: policies::admission(upstream),
            health_check: upstream.health_check.as_ref().map(|check| HealthCheck {
                kind: match &check.kind {
                    wanted::HealthCheckKind::Http { path } => CheckKind::Http(path.clone()),
                    wanted::HealthCheckKind::Tcp => CheckKind::Tcp,
                    wanted::HealthCheckKind::Grpc { service } => CheckKind::Grpc(service.clone()),
                },
                interval: check.interval,
                timeout: check.timeout,
                params: health::Params { rise: check.rise, fall: check.fall },
            }),
        }
    }

    fn endpoint(&mut self, upstream: &wanted::Upstream, endpoint: &wanted::Endpoint) -> Option<EndpointPlan> {
        let at = format!("upstreams.{}.endpoints", upstream.name);
        let tls = match (endpoint.tls, &upstream.tls) {
            (false, _) => None,
            (true, options) => match client_tls(options.as_ref(), endpoint) {
                Ok(tls) => Some(tls),
                Err(words) => {
                    self.problem(format!("upstreams.{}.tls", upstream.name), words);
                    return None;
                }
            },
        };
        let Ok(authority) = HeaderValue::from_str(&endpoint.authority) else {
            self.problem(at, "the host is not a valid authority");
            return None;
        };
        // What its certificates say, not where they are: a changed CA must not leave old connections in use.
        let identity = format!(
            "{} {:?} {:?} {} {:?} {:?}",
            endpoint.address,
            tls.as_ref().map(|tls| tls.identity()),
            upstream.protocol,
            upstream.pool.idle_max,
            upstream.pool.idle_timeout,
            upstream.resolve_refresh
        );
        let address = endpoint.address.to_string();
        Some(EndpointPlan {
            name: address.as_str().into(),
            authority,
            pool_slot: self.states.pool_slot(&identity),
            state: self.states.endpoint(&upstream.name, &address),
            spec: Arc::new(EndpointSpec {
                address: endpoint.address.clone(),
                tls,
                protocol: protocol(upstream.protocol),
                authority: endpoint.authority.clone(),
                idle_max: upstream.pool.idle_max,
                idle_timeout: upstream.pool.idle_timeout,
                refresh: upstream.resolve_refresh,
            }),
        })
    }

    fn route(&mut self, route: &wanted::Route, outbound: bool) -> Option<Arc<RoutePlan>> {
        let action = match &route.action {
            wanted::RouteAction::Redirect { to, status } => {
                Action::Redirect { to: Template::parse(to), status: *status }
            }
            wanted::RouteAction::Forward { upstream, rewrite_prefix } => Action::Forward {
                upstream: self.find_upstream(upstream, &format!("routes.{}", route.name))?,
                rewrite: rewrite_prefix
                    .as_ref()
                    .map(|to| Rewrite { from: route.matches.path.trim_end_matches('*').to_owned(), to: to.clone() }),
            },
        };
        let edits = headers::edits(&route.request_headers);
        let response = headers::response(&self.settings.security_headers, &route.response_headers, outbound);
        let (request_edits, response) = match (edits, response) {
            (Ok(edits), Ok(response)) => (edits, response),
            (Err(NotAHeader(text)), _) | (_, Err(NotAHeader(text))) => {
                self.problem(format!("routes.{}.headers", route.name), format!("not a header: {text}"));
                return None;
            }
        };
        let named = |name: &String| self.limits.iter().find(|limit| *limit.name == **name).cloned();
        let limits: Vec<Arc<LimitPlan>> = route.rate_limits.iter().filter_map(named).collect();
        let breaker = match &action {
            Action::Forward { upstream, .. } => Some(upstream.state.route_breaker(&upstream.name, &route.name)),
            Action::Redirect { .. } => None,
        };
        Some(Arc::new(RoutePlan {
            breaker,
            name: route.name.as_str().into(),
            metrics: self.telemetry.route_metrics(&route.name),
            action,
            timeouts: policies::timeouts(&route.timeouts),
            retry: policies::retry(self.states, route),
            priority: route.priority,
            limits_policy: headers::limits_policy(&limits),
            limits,
            body_max: route.body_max,
            switches: self.route_switches(route, outbound),
            request_edits,
            response,
        }))
    }

    fn route_switches(&mut self, route: &wanted::Route, outbound: bool) -> RouteSwitches {
        let own = SwitchPlan::new(self.states, switches::ROUTE, &route.name, route.maintenance);
        self.switches.push(own.clone());
        let named = |kind, name: &str| self.switches.iter().find(|one| one.kind == kind && &*one.name == name).cloned();
        RouteSwitches {
            service: if outbound { None } else { named(switches::SERVICE, "") },
            flag: route.flag.as_deref().and_then(|flag| named(switches::FLAG, flag)),
            route: own,
        }
    }

    fn listener(&mut self, listener: &wanted::Listener, shared: &[Arc<RoutePlan>]) -> Option<ListenerPlan> {
        let (rules, routes) = match &listener.upstream {
            Some(upstream) => self.own_route(listener, upstream)?,
            None => (self.settings.routes.iter().map(|route| rule(&route.matches)).collect(), shared.to_vec()),
        };
        if rules.len() != routes.len() {
            return None; // a route had a problem, which is reported already
        }
        let router = match Router::build(&rules) {
            Ok(router) => router,
            Err(problems) => {
                for (index, problem) in problems {
                    self.problem(format!("routes[{index}].match"), problem.to_string());
                }
                return None;
            }
        };
        Some(ListenerPlan {
            slot: self.states.listener_slot(&listener_identity(listener)),
            name: listener.name.as_str().into(),
            address: listener.address.clone(),
            tls: listener.tls.as_ref().map(tls),
            proxy_protocol: match listener.proxy_protocol {
                wanted::ProxyProtocol::Off => ProxyProtocol::Off,
                wanted::ProxyProtocol::V1 => ProxyProtocol::V1,
                wanted::ProxyProtocol::V2 => ProxyProtocol::V2,
                wanted::ProxyProtocol::Any => ProxyProtocol::Any,
            },
            connections_max: listener.connections_max,
            connections_per_client_max: listener.connections_per_client_max,
            half_close: listener.half_close,
            early_hints: listener.early_hints,
            request_header_timeout: listener.request_header_timeout,
            keep_alive: listener.keep_alive,
            outbound: listener.direction == wanted::Direction::Outbound,
            redirect_to_https: listener
                .redirect_to_https
                .as_ref()
                .map(|redirect| HttpsRedirect { port: redirect.port, hosts: redirect.hosts.clone() }),
            router,
            routes,
        })
    }

    /// A listener with an upstream has one route, named after the listener, with the file's global values.
    fn own_route(&mut self, listener: &wanted::Listener, upstream: &str) -> Option<(Vec<Rule>, Vec<Arc<RoutePlan>>)> {
        let route = wanted::Route {
            name: listener.name.clone(),
            matches: wanted::RouteMatch { path: "/*".to_owned(), ..wanted::RouteMatch::default() },
            action: wanted::RouteAction::Forward { upstream: upstream.to_owned(), rewrite_prefix: None },
            timeouts: self.settings.defaults.timeouts.clone(),
            retry: self.settings.defaults.retry.clone(),
            priority: crate::core::priority::Priority::Default,
            rate_limits: Vec::new(),
            body_max: None,
            flag: None,
            maintenance: Position::Open,
            request_headers: wanted::HeaderEdits::default(),
            response_headers: wanted::HeaderEdits::default(),
        };
        let compiled = self.route(&route, listener.direction == wanted::Direction::Outbound)?;
        Some((vec![rule(&route.matches)], vec![compiled]))
    }

    fn find_upstream(&mut self, name: &str, at: &str) -> Option<Arc<UpstreamPlan>> {
        let found = self.upstreams.get(name).cloned();
        if found.is_none() {
            self.problem(format!("{at}.upstream"), format!("no upstream is named {name}"));
        }
        found
    }
}

/// An address, of which there is one; but the system picks another port for each listener on port 0.
fn listener_identity(listener: &wanted::Listener) -> String {
    match &listener.address {
        Address::Tcp { port: 0, .. } => format!("{} {}", listener.address, listener.name),
        Address::Tcp { .. } | Address::Unix(_) => listener.address.to_string(),
    }
}

fn client_tls(options: Option<&wanted::UpstreamTls>, endpoint: &wanted::Endpoint) -> Result<Arc<ClientTls>, String> {
    let server_name = options.and_then(|options| options.server_name.as_deref());
    let ca = options.and_then(|options| options.ca.as_deref());
    let client = options
        .and_then(|options| options.client_certificate.as_ref())
        .map(|files| (files.certificate.as_path(), files.key.as_path()));
    ClientTls::build(server_name, &endpoint.authority, ca, client).map_err(|problem| problem.to_string())
}

fn protocol(protocol: wanted::UpstreamProtocol) -> Protocol {
    match protocol {
        wanted::UpstreamProtocol::Auto => Protocol::Auto,
        wanted::UpstreamProtocol::Http1 => Protocol::Http1,
        wanted::UpstreamProtocol::Http2 => Protocol::Http2,
    }
}

fn rule(matches: &wanted::RouteMatch) -> Rule {
    Rule {
        hosts: matches.hosts.clone(),
        path: matches.path.clone(),
        methods: matches.methods.iter().filter_map(|method| Method::from_bytes(method.as_bytes()).ok()).collect(),
        headers: matches
            .headers
            .iter()
            .filter_map(|(name, value)| Some((HeaderName::from_bytes(name.as_bytes()).ok()?, value.clone())))
            .collect(),
        query: matches.query.clone(),
    }
}

fn tls(tls: &wanted::ServerTls) -> TlsPlan {
    TlsPlan {
        certificates: tls.certificates.iter().map(|files| (files.certificate.clone(), files.key.clone())).collect(),
        tls13_only: tls.min_version == wanted::TlsVersion::Tls13,
        client_auth: match &tls.client_auth {
            wanted::ClientAuth::Off => ClientAuth::Off,
            wanted::ClientAuth::Request { ca } => ClientAuth::Request(ca.clone()),
            wanted::ClientAuth::Require { ca } => ClientAuth::Require(ca.clone()),
        },
    }
}
