//! Upstreams: endpoints and the policies that guard them.

use std::time::Duration;

use super::read_breaker::circuit_breaker;
use super::reader::Map;
use super::settings::{
    Balance, CircuitBreaker, Endpoint, HealthCheck, HealthCheckKind, Hold, Mode, Pool, Upstream, UpstreamProtocol,
    UpstreamTls,
};
use super::units;
use super::{read_concurrency, read_listener};
use crate::core::units::Ratio;

/// `upstream: URL`, or `upstreams:` by name.
pub fn upstreams(root: &Map<'_, '_>) -> Vec<Upstream> {
    let short = root.value("upstream", "URL", "", "The short form: one upstream named app.", units::url);
    let named = root.named("upstreams", "The apps and services behind, by name.");
    let twice = root.has("upstream") && named.iter().any(|(name, _)| name == SHORT);
    if twice {
        let hint = "`upstream: URL` is short for an upstream named app: move its URL to endpoints there".to_owned();
        let found = "`upstream` and `upstreams.app`, which are the same one";
        root.context.problem("upstream", root.at("upstream"), found, "one of the two", Some(hint));
    }
    let short = short.filter(|_| !twice).map(|(address, tls, authority)| Upstream {
        endpoints: vec![Endpoint { address, tls, authority }],
        ..plain(SHORT)
    });
    short.into_iter().chain(named.into_iter().map(|(name, map)| upstream(name, map))).collect()
}

/// The name of the upstream that `upstream: URL` makes.
const SHORT: &str = "app";

fn plain(name: &str) -> Upstream {
    Upstream {
        name: name.to_owned(),
        endpoints: Vec::new(),
        protocol: UpstreamProtocol::Auto,
        balance: Balance::PeakEwma,
        resolve_refresh: None,
        health_check: None,
        pool: Pool { idle_max: 64, idle_timeout: Duration::from_secs(4) },
        circuit_breaker: CircuitBreaker {
            mode: Mode::Enforce,
            consecutive_failures: None,
            failure_rate: Ratio(0.5),
            slow_call: None,
            window: Duration::from_secs(10),
            volume_min: 20,
            open_for_base: Duration::from_secs(5),
            open_for_max: Duration::from_secs(30),
            probes: 1,
            ramp: Duration::from_secs(10),
        },
        hold: Hold { wait_max: Duration::from_secs(5), requests_max: 4096 },
        concurrency_max: read_concurrency::CAP,
        adaptive: read_concurrency::ADAPTIVE,
        queue: read_concurrency::QUEUE,
        tls: None,
    }
}

fn upstream(name: String, map: Map<'_, '_>) -> Upstream {
    let plain = plain(&name);
    let urls =
        map.values("endpoints", "list of URLs", "Where it listens; http://, https:// or unix:/path.", units::url);
    if urls.as_ref().is_none_or(Vec::is_empty) && map.is_read("endpoints") {
        map.context.problem(&format!("{}.endpoints", map.path), None, "nothing", "at least one URL", None);
    }
    let endpoints = urls.unwrap_or_default().into_iter();
    let endpoints = endpoints.map(|(address, tls, authority)| Endpoint { address, tls, authority }).collect();
    let protocol = match map.choice(
        "protocol",
        &["auto", "http1", "http2"],
        "auto",
        "auto: HTTP/2 for gRPC or by ALPN, else HTTP/1.1.",
    ) {
        Some("http1") => UpstreamProtocol::Http1,
        Some("http2") => UpstreamProtocol::Http2,
        Some(_) | None => UpstreamProtocol::Auto,
    };
    let balance = balance(&map);
    let health_check = health_check(
        map.block("health_check", "An active check of each endpoint; without it there is none."),
        map.has("health_check"),
    );
    let pool = map.block("pool", "Idle connections kept for the next request.");
    let idle_max =
        pool.count("idle_max", "64", "Kept per worker and endpoint.").map_or(plain.pool.idle_max, |max| max as usize);
    let idle_timeout =
        pool.duration("idle_timeout", "4s", "Closed after this long; keep it below the app's own keep-alive.");
    pool.finish();
    let circuit_breaker =
        circuit_breaker(map.block("circuit_breaker", "Gives a failing endpoint time."), plain.circuit_breaker);
    let (concurrency_max, adaptive, queue) =
        read_concurrency::concurrency(map.block("concurrency", "Requests in flight."));
    let hold = hold(map.block("hold", "Requests wait for an app that does not listen."), plain.hold);
    let resolve_refresh = resolve(&map);
    let tls = tls(map.block("tls", "TLS towards https:// endpoints."), map.has("tls"));
    map.finish();
    let pool = Pool { idle_max, idle_timeout: idle_timeout.unwrap_or(plain.pool.idle_timeout) };
    Upstream {
        endpoints,
        protocol,
        balance,
        resolve_refresh,
        health_check,
        pool,
        circuit_breaker,
        hold,
        concurrency_max,
        adaptive,
        queue,
        tls,
        name,
    }
}

fn balance(map: &Map<'_, '_>) -> Balance {
    match map.choice(
        "balance",
        &["peak_ewma", "least_request", "round_robin"],
        "peak_ewma",
        "How its endpoints share: by latency and load, by requests in flight, or in turn.",
    ) {
        Some("least_request") => Balance::LeastRequest,
        Some("round_robin") => Balance::RoundRobin,
        Some(_) | None => Balance::PeakEwma,
    }
}

/// How often names are looked up again.
fn resolve(map: &Map<'_, '_>) -> Option<Duration> {
    let resolve = map.block("resolve", "Names of endpoints are looked up again on a schedule.");
    let refresh = resolve.duration(
        "refresh",
        "none",
        "How often; idle connections to addresses that are gone are closed. Without it a name is looked up when a \
         connection is made.",
    );
    resolve.finish();
    refresh
}

fn health_check(map: Map<'_, '_>, wanted: bool) -> Option<HealthCheck> {
    let path = map.text("path", "A GET of this path must be answered 2xx.");
    let tcp = map.boolean("tcp", "false", "Only check that a connection can be made.").unwrap_or(false);
    let doc = "grpc.health.v1 must say SERVING for this service; \"\" asks for the whole server.";
    let grpc = map.value("grpc", "text", "", doc, |text| Ok(text.to_owned()));
    let typed = usize::from(tcp) + usize::from(map.has("path")) + usize::from(map.has("grpc"));
    let read = ["path", "tcp", "grpc"].iter().all(|key| map.is_read(key));
    if wanted && typed != 1 && read {
        let found = if typed == 0 { "none of path, tcp and grpc" } else { "more than one of path, tcp and grpc" };
        let expected = "one of path: /health, tcp: true and grpc: service.Name";
        map.context.problem(&map.path, map.at("path").or_else(|| map.at("grpc")), found, expected, None);
    }
    if let Some(wrong) = path.as_ref().filter(|path| !path.starts_with('/')) {
        map.context.problem(
            &format!("{}.path", map.path),
            map.at("path"),
            wrong.clone(),
            "a path that begins with /",
            None,
        );
    }
    let runs = |name, default, doc| map.count(name, default, doc).and_then(|count| u32::try_from(count).ok());
    let check = HealthCheck {
        kind: match (grpc, tcp) {
            (Some(service), _) => HealthCheckKind::Grpc { service },
            (None, true) => HealthCheckKind::Tcp,
            (None, false) => HealthCheckKind::Http { path: path.unwrap_or_else(|| "/".to_owned()) },
        },
        interval: map.duration("interval", "2s", "Between two checks.").unwrap_or(Duration::from_secs(2)),
        timeout: map.duration("timeout", "1s", "How long one check may take.").unwrap_or(Duration::from_secs(1)),
        rise: runs("rise", "1", "Successes in a row that make it healthy.").unwrap_or(1),
        fall: runs("fall", "3", "Failures in a row that make it unhealthy.").unwrap_or(3),
    };
    map.finish();
    wanted.then_some(check)
}

fn hold(map: Map<'_, '_>, plain: Hold) -> Hold {
    let wait_max = map.duration("wait_max", "5s", "The longest, and how long an app may be away; 0s holds none.");
    let requests_max = map.count("requests_max", "4096", "Waiting at a time; more are refused.");
    map.finish();
    Hold {
        wait_max: wait_max.unwrap_or(plain.wait_max),
        requests_max: requests_max.and_then(|count| u32::try_from(count).ok()).unwrap_or(plain.requests_max),
    }
}

fn tls(map: Map<'_, '_>, wanted: bool) -> Option<UpstreamTls> {
    let server_name = map.text("server_name", "The name its certificate must have; the default is the URL's host.");
    let base = map.context.base.clone();
    let ca =
        map.value("ca", "system or path", "system", "The authorities its certificate is checked against.", |text| {
            Ok(if text == "system" { None } else { Some(base.join(text)) })
        });
    let client = map.block("client_certificate", "The certificate shown to it.");
    let client_certificate = read_listener::certificate(&client);
    client.finish();
    map.finish();
    wanted.then_some(UpstreamTls { server_name, ca: ca.flatten(), client_certificate })
}
