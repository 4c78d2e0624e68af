//! What is meant: the checked configuration, with every default filled in and every unit parsed.
//! A value of these types cannot be wrong in a way `check` knows of; whoever holds one need not check again.

use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use crate::core::priority::Priority;
use crate::core::switch::Position;
use crate::core::units::{Address, Ratio};

mod limits;
mod listener;
mod readiness;
mod reliability;
mod switches;

pub use self::limits::{Adaptive, Queue, RateKey, RateLimit, SharedLimit, Store};
pub use self::listener::{
    CertificateFiles, ClientAuth, Direction, HttpsRedirect, Listener, ProxyProtocol, ServerTls, TlsVersion,
};
pub use self::readiness::{Dependency, DependencyKind, Free};
pub use self::reliability::{CircuitBreaker, Hedge, HedgeAfter, Hold, Retry, RetryBudget, RetryConditions, SlowCall};
pub use self::switches::{Flag, Maintenance};

/// A whole configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    pub service: Service,
    /// At least one. The default is one, named `web`, on 0.0.0.0:8080.
    pub listeners: Vec<Listener>,
    pub trusted_proxies: Vec<IpNet>,
    /// At least one, in the order of the file.
    pub upstreams: Vec<Upstream>,
    pub rate_limits: Vec<RateLimit>,
    pub stores: Vec<Store>,
    /// In the order of the file; the short form and a file without `routes` give one named `everything` on `/*`.
    /// Listeners with an `upstream` of their own do not use these.
    pub routes: Vec<Route>,
    /// Timeouts and retry for routes made for listeners that name an upstream: the file's global values.
    pub defaults: RouteDefaults,
    pub security_headers: SecurityHeaders,
    /// What the app needs beside us.
    pub dependencies: Vec<Dependency>,
    /// Also answer the health paths on data listeners.
    pub health_on_listener: bool,
    pub access_log: AccessLog,
    pub traces: Traces,
    pub ops: Address,
    pub admin: Admin,
    /// Where the last good plans and the journal are kept; `None` keeps them in memory only.
    pub state_directory: Option<PathBuf>,
    pub drain: Drain,
    pub maintenance: Maintenance,
    pub flags: Vec<Flag>,
    /// `None` is auto: the processors this process may use.
    pub workers: Option<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Service {
    pub name: String,
    pub version: Option<String>,
    pub environment: Option<String>,
    pub owner: Option<String>,
    pub tier: Option<u32>,
    pub on_call: Option<String>,
    pub runbook: Option<String>,
    pub repository: Option<String>,
    pub dependencies: Vec<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Upstream {
    pub name: String,
    /// At least one.
    pub endpoints: Vec<Endpoint>,
    pub protocol: UpstreamProtocol,
    pub balance: Balance,
    /// Names of endpoints are looked up again this often, and connections to addresses that are gone are left.
    /// `None` looks them up at each connection, believing an answer for 5 s.
    pub resolve_refresh: Option<Duration>,
    pub health_check: Option<HealthCheck>,
    pub pool: Pool,
    pub circuit_breaker: CircuitBreaker,
    pub hold: Hold,
    /// In-flight requests, all workers together.
    pub concurrency_max: usize,
    pub adaptive: Adaptive,
    pub queue: Queue,
    /// Present when an endpoint is `https://`.
    pub tls: Option<UpstreamTls>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    pub address: Address,
    /// `https://`.
    pub tls: bool,
    /// Host (and port where it is not the scheme's) for `:authority` when the client sent none; also the SNI default.
    pub authority: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UpstreamProtocol {
    /// HTTP/2 where TLS ALPN chooses it, or where the request is gRPC; else HTTP/1.1.
    Auto,
    Http1,
    Http2,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balance {
    PeakEwma,
    LeastRequest,
    RoundRobin,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    pub kind: HealthCheckKind,
    pub interval: Duration,
    pub timeout: Duration,
    /// Successes in a row that make it healthy.
    pub rise: u32,
    /// Failures in a row that make it unhealthy.
    pub fall: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HealthCheckKind {
    Http {
        path: String,
    },
    Tcp,
    /// An empty name asks for the server as a whole.
    Grpc {
        service: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Idle connections kept per worker and endpoint.
    pub idle_max: usize,
    pub idle_timeout: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Enforce,
    Shadow,
    Off,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UpstreamTls {
    pub server_name: Option<String>,
    /// `None` is the system's roots.
    pub ca: Option<PathBuf>,
    pub client_certificate: Option<CertificateFiles>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct RouteDefaults {
    pub timeouts: Timeouts,
    pub retry: Retry,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    pub name: String,
    pub matches: RouteMatch,
    pub action: RouteAction,
    pub timeouts: Timeouts,
    pub retry: Retry,
    pub priority: Priority,
    /// Names of entries in `rate_limits`.
    pub rate_limits: Vec<String>,
    pub body_max: Option<u64>,
    /// It answers only while this flag is on.
    pub flag: Option<String>,
    pub maintenance: Position,
    pub request_headers: HeaderEdits,
    pub response_headers: HeaderEdits,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteAction {
    Forward {
        upstream: String,
        /// Replaces the literal prefix before `*` of the route's path.
        rewrite_prefix: Option<String>,
    },
    Redirect {
        /// May name the path's `{parameters}`.
        to: String,
        status: u16,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct RouteMatch {
    /// Empty matches any; `*.example.com` matches one or more labels.
    pub hosts: Vec<String>,
    /// `/exact`, `/users/{id}`, `/prefix/*`.
    pub path: String,
    /// Empty matches any.
    pub methods: Vec<String>,
    /// Name (lower case) and exact value; all must match.
    pub headers: Vec<(String, String)>,
    /// Parameter and exact value; all must match.
    pub query: Vec<(String, String)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct HeaderEdits {
    pub set: Vec<(String, String)>,
    pub add: Vec<(String, String)>,
    pub remove: Vec<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Timeouts {
    pub connect: Duration,
    /// Bytes per second a request body must keep after `request_body_grace`.
    pub request_body_rate_min: u64,
    pub request_body_grace: Duration,
    pub first_byte: Duration,
    pub idle: Duration,
    pub total: Duration,
}

#[derive(Clone, Debug, PartialEq)]
pub struct SecurityHeaders {
    pub preset: Preset,
    /// Set when the app did not.
    pub set: Vec<(String, String)>,
    /// Removed from responses, beside `server` and `x-powered-by` (unless the preset is off).
    pub remove: Vec<String>,
    /// `None` is the preset's (default: 5 minutes, the first step; strict: 1 year with subdomains).
    pub hsts_max_age: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    Default,
    Strict,
    Off,
}

#[derive(Clone, Debug, PartialEq)]
pub struct AccessLog {
    pub to: LogTarget,
    pub format: LogFormat,
    /// Share of successes that are logged; failures always are.
    pub sample_success: Ratio,
    /// Query parameters whose value is replaced.
    pub redact_query: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogTarget {
    Stdout,
    Stderr,
    File(PathBuf),
    Off,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Json,
    Common,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Traces {
    /// Base URL of an OTLP/HTTP collector; `None` exports nothing (trace context is still propagated).
    pub otlp: Option<String>,
    pub sample: Ratio,
    pub keep_slow: Option<Duration>,
    pub keep_errors: bool,
    pub propagate_b3: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Admin {
    pub address: Address,
    pub token: Option<Secret>,
}

/// A value that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("[secret]")
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Drain {
    /// `None` is auto: 5 s under an orchestrator, 1 s elsewhere, 0 on SIGINT.
    pub delay: Option<Duration>,
    pub timeout: Duration,
}
