//! One compiled, immutable configuration. A request takes one `Arc<Plan>` when it begins and keeps it to its end.
//! Everything a request needs is resolved here: names to handles, texts to header values, defaults to numbers.

pub mod compile;
mod dependency;
pub mod diff;
mod headers;
mod redirect;
mod switches;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use ipnet::IpNet;

use crate::core::dependency::{Server, When};
use crate::core::priority::Priority;
use crate::core::route::Router;
use crate::core::store::WhenAway;
use crate::core::units::Address;
use crate::core::{admission, backoff, balance, breaker, bucket, budget, eject, health, hedge, hold};
use crate::state::breaker::BreakerState;
use crate::state::budget::BudgetState;
use crate::state::dependency::DependencyState;
use crate::state::endpoint::{EndpointState, UpstreamState};
use crate::state::hedge::HedgeState;
use crate::state::limit::LimitState;
use crate::state::store::StoreState;
use crate::telemetry::{RouteMetrics, UpstreamMetrics};
use crate::upstream::ClientTls;
use crate::upstream::EndpointSpec;
use crate::upstream::dependency::Dependency;

pub use redirect::Template;
pub use switches::{MaintenancePlan, RouteSwitches, SwitchPlan};

/// The configuration in force.
pub struct Plan {
    /// Content hash of the configuration it was compiled from.
    pub hash: String,
    pub service: Arc<str>,
    /// By listener slot (`States::listener_slot`); `None` for listeners of earlier plans.
    pub listeners: Vec<Option<Arc<ListenerPlan>>>,
    pub upstreams: Vec<Arc<UpstreamPlan>>,
    pub limits: Vec<Arc<LimitPlan>>,
    pub stores: Vec<Arc<StorePlan>>,
    pub trusted: Vec<IpNet>,
    pub traces: TracePlan,
    /// Answer the health paths on data listeners too.
    pub health_on_listener: bool,
    pub drain: DrainPlan,
    /// What the app needs beside us.
    pub dependencies: Vec<DependencyPlan>,
    /// Every switch: the service's, the routes' and the flags.
    pub switches: Vec<Arc<SwitchPlan>>,
    pub maintenance: MaintenancePlan,
}

impl Plan {
    /// Whether a hop at this address may tell us who the client is.
    pub fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.trusted.iter().any(|network| network.contains(&address))
    }

    pub fn listener(&self, slot: usize) -> Option<&Arc<ListenerPlan>> {
        self.listeners.get(slot).and_then(Option::as_ref)
    }

    /// The listeners of this plan, by slot.
    pub fn live_listeners(&self) -> impl Iterator<Item = &Arc<ListenerPlan>> {
        self.listeners.iter().flatten()
    }
}

#[derive(Clone, Copy, Debug)]
pub struct TracePlan {
    /// Share of new traces that are sampled, 0 to 1.
    pub sample: f64,
    pub b3: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainPlan {
    /// `None` is auto.
    pub delay: Option<Duration>,
    pub timeout: Duration,
}

/// One listening address and what its requests may become.
pub struct ListenerPlan {
    pub slot: usize,
    pub name: Arc<str>,
    pub address: Address,
    pub tls: Option<TlsPlan>,
    pub proxy_protocol: ProxyProtocol,
    pub connections_max: usize,
    pub connections_per_client_max: Option<usize>,
    /// A client that has ended its sending side waits for its answer.
    pub half_close: bool,
    /// 102 and 103 of the app pass to HTTP/1.1 clients.
    pub early_hints: bool,
    pub request_header_timeout: Duration,
    pub keep_alive: Duration,
    /// Requests of the app to somebody else: `Host` becomes the upstream's, no client identity is added.
    pub outbound: bool,
    pub redirect_to_https: Option<HttpsRedirect>,
    /// Sends every request to its one route when it is a listener with an upstream.
    pub router: Router,
    /// By the router's index.
    pub routes: Vec<Arc<RoutePlan>>,
}

impl ListenerPlan {
    pub fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyProtocol {
    Off,
    V1,
    V2,
    Any,
}

/// The files and rules of a TLS listener; `serve::tls` loads and reloads them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TlsPlan {
    /// (certificate, key), the first is the default.
    pub certificates: Vec<(PathBuf, PathBuf)>,
    pub tls13_only: bool,
    pub client_auth: ClientAuth,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ClientAuth {
    Off,
    Request(PathBuf),
    Require(PathBuf),
}

#[derive(Clone, Debug)]
pub struct HttpsRedirect {
    pub port: u16,
    pub hosts: Vec<String>,
}

/// One route with everything it inherits.
pub struct RoutePlan {
    pub name: Arc<str>,
    pub metrics: Arc<RouteMetrics>,
    pub action: Action,
    pub timeouts: Timeouts,
    pub retry: Retry,
    /// Of the answers on this route; `None` for routes that ask no app.
    pub breaker: Option<Arc<BreakerState>>,
    pub priority: Priority,
    pub limits: Vec<Arc<LimitPlan>>,
    /// The `RateLimit-Policy` of this route, when it has limits.
    pub limits_policy: Option<HeaderValue>,
    pub body_max: Option<u64>,
    pub switches: RouteSwitches,
    pub request_edits: Vec<HeaderEdit>,
    pub response: ResponseHeaders,
}

pub enum Action {
    Forward { upstream: Arc<UpstreamPlan>, rewrite: Option<Rewrite> },
    Redirect { to: Template, status: u16 },
}

/// The literal prefix of the route's path and what replaces it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewrite {
    pub from: String,
    pub to: String,
}

#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    pub connect: Duration,
    /// Bytes per second, after the grace.
    pub request_body_rate_min: u64,
    pub request_body_grace: Duration,
    pub first_byte: Duration,
    pub idle: Duration,
    pub total: Duration,
}

pub struct Retry {
    /// In all, the first included.
    pub attempts: u32,
    pub connect: bool,
    pub reset: bool,
    pub per_try_timeout: bool,
    pub grpc_unavailable: bool,
    pub statuses: Vec<u16>,
    pub per_try: Option<Duration>,
    pub backoff: backoff::Backoff,
    pub body_max: u64,
    /// `None` for routes that ask no app.
    pub budget: Option<BudgetPlan>,
    /// `None` is off.
    pub hedge: Option<HedgePlan>,
}

/// A second attempt while the first is awaited.
pub struct HedgePlan {
    pub params: hedge::Params,
    pub state: Arc<HedgeState>,
}

/// The bucket further attempts are paid from: the upstream's, or the route's own.
#[derive(Clone)]
pub struct BudgetPlan {
    pub params: budget::Params,
    pub state: Arc<BudgetState>,
    /// The route has a budget of its own.
    pub own: bool,
}

pub struct LimitPlan {
    /// As a Structured Fields string (RFC 9651 §3.3.3), quotes included.
    pub label: String,
    pub name: Arc<str>,
    pub key: Vec<RateKey>,
    pub params: bucket::Params,
    pub cost: u64,
    /// It refuses; else it only counts whom it would have refused.
    pub enforced: bool,
    pub state: Arc<LimitState>,
    /// Counted together with all replicas.
    pub shared: Option<SharedLimit>,
}

/// A limit that replicas count together.
pub struct SharedLimit {
    pub store: Arc<StorePlan>,
    /// What this limit's keys begin with in the store, colon included.
    pub prefix: String,
    pub when_away: WhenAway,
}

/// A Redis or Valkey in which replicas count together.
pub struct StorePlan {
    pub name: Arc<str>,
    pub slot: usize,
    pub server: Server,
    pub tls: Option<Arc<ClientTls>>,
    /// What asking it may add to a request.
    pub timeout: Duration,
    pub state: Arc<StoreState>,
}

impl StorePlan {
    /// Whether a connection made for `other` serves this one.
    pub fn asks_the_same(&self, other: &StorePlan) -> bool {
        self.slot == other.slot
            && self.server == other.server
            && self.timeout == other.timeout
            && Arc::ptr_eq(&self.state, &other.state)
    }
}

/// One part of a limit's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RateKey {
    ClientIp,
    Route,
    Header(HeaderName),
    Cookie(String),
}

/// One change to a header map, in order.
#[derive(Clone, Debug)]
pub enum HeaderEdit {
    Set(HeaderName, HeaderValue),
    Add(HeaderName, HeaderValue),
    Remove(HeaderName),
}

/// What a response of this route gets and loses.
#[derive(Clone, Debug, Default)]
pub struct ResponseHeaders {
    pub remove: Vec<HeaderName>,
    /// Set when the app did not.
    pub defaults: Vec<(HeaderName, HeaderValue)>,
    /// Set when the app did not, over TLS only.
    pub hsts: Option<HeaderValue>,
    pub edits: Vec<HeaderEdit>,
}

/// One upstream: its endpoints, policies and living state.
pub struct UpstreamPlan {
    pub name: Arc<str>,
    pub metrics: Arc<UpstreamMetrics>,
    pub state: Arc<UpstreamState>,
    pub endpoints: Vec<EndpointPlan>,
    pub balance: Balance,
    /// `None` is off.
    pub breaker: Option<BreakerPlan>,
    /// `None` holds no requests.
    pub hold: Option<hold::Params>,
    pub concurrency_max: usize,
    pub admission: admission::Params,
    pub health_check: Option<HealthCheck>,
}

/// How the breakers of an upstream judge: its endpoints by their transport, the routes to it by its answers.
#[derive(Clone, Copy, Debug)]
pub struct BreakerPlan {
    pub endpoint: breaker::Params,
    pub route: breaker::Params,
    /// From when on a good answer is a slow call.
    pub slow: Option<Duration>,
    /// Judges, tells and counts, and lets everything through.
    pub shadow: bool,
}

/// How the endpoints are chosen.
#[derive(Clone, Copy, Debug)]
pub struct Balance {
    pub policy: balance::Policy,
    pub load: balance::Params,
    pub eject: eject::Params,
}

pub struct EndpointPlan {
    /// For logs: the address as typed.
    pub name: Arc<str>,
    /// For HTTP/2's `:authority` and for `Host` on outbound listeners.
    pub authority: HeaderValue,
    pub spec: Arc<EndpointSpec>,
    pub pool_slot: usize,
    pub state: Arc<EndpointState>,
}

#[derive(Clone, Debug)]
pub struct HealthCheck {
    pub kind: CheckKind,
    pub interval: Duration,
    pub timeout: Duration,
    pub params: health::Params,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckKind {
    /// A GET of this path is answered 2xx.
    Http(String),
    /// A connection can be made.
    Tcp,
    /// `grpc.health.v1` says SERVING for this service; an empty name is the server.
    Grpc(String),
}

/// Something the app needs, and how it is asked for.
#[derive(Clone)]
pub struct DependencyPlan {
    pub name: Arc<str>,
    pub what: Dependency,
    pub when: When,
    pub interval: Duration,
    pub timeout: Duration,
    pub state: Arc<DependencyState>,
}

impl DependencyPlan {
    /// Whether a running check of `other` does for this one.
    pub fn asks_the_same(&self, other: &DependencyPlan) -> bool {
        let alike = |plan: &DependencyPlan| (plan.interval, plan.timeout);
        alike(self) == alike(other) && self.what == other.what && Arc::ptr_eq(&self.state, &other.state)
    }
}
