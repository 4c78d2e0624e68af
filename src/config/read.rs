//! The top of the configuration language: service, telemetry, health, drain and the rest that is one.

use std::time::Duration;

use super::reader::Map;
use super::settings::{
    AccessLog, Admin, Drain, LogFormat, LogTarget, Preset, RouteDefaults, Secret, SecurityHeaders, Service, Settings,
    Traces,
};
use super::units;
use super::{read_limit, read_listener, read_readiness, read_retry, read_route, read_switches, read_upstream};
use crate::core::units::{Address, Ratio};

const KEEP_ALIVE: Duration = Duration::from_secs(75);
const REQUEST_HEADER: Duration = Duration::from_secs(10);
const DRAIN_TIMEOUT: Duration = Duration::from_secs(20);

/// Asks for everything. What is wrong has been reported when this returns; the settings are then not to be used.
pub fn settings(root: &Map<'_, '_>) -> Settings {
    let service = service(root.block("service", "Who this is, in metrics, logs and reports."));
    let timeouts_block = root.block("timeouts", "Timers of every route; a route may override any of them.");
    let request_header =
        timeouts_block.timer("request_header", "10s", "From the first byte of a request to the end of its head.");
    let keep_alive =
        timeouts_block.timer("keep_alive", "75s", "An idle connection of a client is closed after this long.");
    let timeouts = read_route::timeouts(timeouts_block, &read_route::default_timeouts());
    let retry = read_retry::retry(
        root.block("retry", "Retries of every route; a route may override any of them."),
        &read_retry::default_retry(),
    );
    let defaults = RouteDefaults { timeouts, retry };
    let listeners =
        read_listener::listeners(root, request_header.unwrap_or(REQUEST_HEADER), keep_alive.unwrap_or(KEEP_ALIVE));
    let upstreams = read_upstream::upstreams(root);
    let rate_limits = read_limit::rate_limits(root);
    let stores = read_limit::stores(root);
    let taken = |name: &str| listeners.iter().any(|listener| listener.upstream.as_deref() == Some(name));
    let names: Vec<&str> = upstreams.iter().map(|upstream| upstream.name.as_str()).collect();
    let free: Vec<&str> = names.iter().copied().filter(|name| !taken(name)).collect();
    let only = match (names.as_slice(), free.as_slice()) {
        ([only], _) | (_, [only]) => Ok(*only),
        (names, _) => Err(names),
    };
    let routes = read_route::routes(root, &defaults, only);
    for name in ["slos", "budget_policy", "rollback"] {
        root.later(name);
    }
    root.later("openapi");
    let health = root.block("health", "The health paths.");
    let health_on_listener = health
        .boolean(
            "expose_on_listener",
            "false",
            "Also answer /livez, /readyz, /startupz and their aliases on data listeners.",
        )
        .unwrap_or(false);
    health.finish();
    let (access_log, traces) = telemetry(root.block("telemetry", "Access log, traces and metrics."));
    Settings {
        service,
        listeners,
        trusted_proxies: trusted_proxies(root),
        upstreams,
        rate_limits,
        stores,
        routes,
        defaults,
        security_headers: security_headers(
            root.block("security_headers", "Headers that protect browsers, set when the app did not."),
        ),
        dependencies: read_readiness::readiness(root.block("readiness", "What the app needs beside us.")),
        health_on_listener,
        access_log,
        traces,
        ops: ops(root.block("ops", "Probes and metrics, read-only.")),
        admin: admin(root.block("admin", "State and control, for people and pipelines.")),
        state_directory: state(root.block("state", "What is kept on disk.")),
        drain: drain(root.block("drain", "The shutdown.")),
        maintenance: read_switches::maintenance(root.block("maintenance", "Work on the service: who is let in.")),
        flags: read_switches::flags(root),
        workers: workers(root),
    }
}

fn trusted_proxies(root: &Map<'_, '_>) -> Vec<ipnet::IpNet> {
    networks(root, "trusted_proxies", "Hops whose Forwarded and X-Forwarded-* are believed.")
}

pub fn networks(map: &Map<'_, '_>, name: &'static str, doc: &'static str) -> Vec<ipnet::IpNet> {
    let networks = map.values(name, "list of networks", doc, |text| {
        let address = || text.parse::<std::net::IpAddr>().map(Into::into);
        text.parse().or_else(|_| address()).map_err(|_| "a network: 10.0.0.0/8, ::1/128")
    });
    networks.unwrap_or_default()
}

fn workers(root: &Map<'_, '_>) -> Option<usize> {
    let doc = "Worker threads; auto is one per processor this process may use.";
    let expected = "auto or a number from 1 to 256";
    let count = root.value("workers", "number or auto", "auto", doc, |text| match text {
        "auto" => Ok(None),
        text => text.parse().ok().filter(|count| (1..=256).contains(count)).map(Some).ok_or(expected),
    });
    count.flatten()
}

fn service(map: Map<'_, '_>) -> Service {
    let service = Service {
        name: map.text("name", "The service's name; the default is app.").unwrap_or_else(|| "app".to_owned()),
        version: map.optional_text("version", "The version of the app."),
        environment: map.optional_text("environment", "Where it runs."),
        owner: map.optional_text("owner", "The team that owns it."),
        tier: map.count("tier", "", "How important it is; 1 is most.").and_then(|tier| u32::try_from(tier).ok()),
        on_call: map.optional_text("on_call", "Where its on-call is found."),
        runbook: map.optional_text("runbook", "Where its runbook is."),
        repository: map.optional_text("repository", "Where its code is."),
        dependencies: map
            .values("dependencies", "list of names", "What it needs.", |text| Ok(text.to_owned()))
            .unwrap_or_default(),
    };
    map.later("version_header");
    map.finish();
    service
}

fn security_headers(map: Map<'_, '_>) -> SecurityHeaders {
    let preset = match map.choice("preset", &["default", "strict", "off"], "default", "Which set of headers.") {
        Some("strict") => Preset::Strict,
        Some("off") => Preset::Off,
        Some(_) | None => Preset::Default,
    };
    let set = read_route::headers(&map, "set", "Set when the app did not; replaces the preset's value.");
    let remove = read_route::header_names(&map, "remove", "Removed from responses, beside Server and X-Powered-By.");
    let hsts = map.block("hsts", "Strict-Transport-Security, over TLS only.");
    let hsts_max_age = hsts.value(
        "max_age",
        "duration or auto",
        "auto",
        "auto is the preset's first step: 5 minutes, or one year when strict.",
        |text| match text {
            "auto" => Ok(None),
            text => units::duration(text).map(Some),
        },
    );
    hsts.finish();
    map.finish();
    SecurityHeaders { preset, set, remove, hsts_max_age: hsts_max_age.flatten() }
}

fn telemetry(map: Map<'_, '_>) -> (AccessLog, Traces) {
    let log = map.block("access_log", "One line for each request.");
    let to = log.value("to", "target", "stdout", "stdout, stderr, a path, or off.", |text| {
        Ok(match text {
            "stdout" => LogTarget::Stdout,
            "stderr" => LogTarget::Stderr,
            "off" | "false" => LogTarget::Off,
            path if path.contains('/') => LogTarget::File(path.into()),
            _ => return Err("stdout, stderr, off, or a path with a slash"),
        })
    });
    let format = match log.choice("format", &["json", "common"], "json", "The form of a line.") {
        Some("common") => LogFormat::Common,
        Some(_) | None => LogFormat::Json,
    };
    let sample_success = log
        .ratio("sample_success", "100%", "Share of successes that are logged; failures always are.")
        .unwrap_or(Ratio(1.0));
    let redact = log.block("redact", "What is not written down.");
    let redact_query = redact
        .values("query", "list of names", "Query parameters whose value is replaced.", |text| Ok(text.to_owned()))
        .unwrap_or_default();
    redact.later("headers");
    redact.finish();
    log.finish();
    let spans = map.block("traces", "Trace context and spans.");
    let doc = "Base URL of an OTLP/HTTP collector; empty exports nothing.";
    let otlp = spans.value("otlp", "text", "", doc, |text| match text {
        "" => Ok(None),
        text => units::collector(text).map(Some),
    });
    let sample = spans
        .ratio("sample", "10%", "Share of new traces that are sampled; a caller's decision is kept.")
        .unwrap_or(Ratio(0.1));
    let keep_slow = spans
        .duration("keep_slow", "1s", "Keep requests slower than this, sampled or not.")
        .or(Some(Duration::from_secs(1)));
    let keep_errors =
        spans.boolean("keep_errors", "true", "Keep requests that failed, sampled or not.").unwrap_or(true);
    let propagate = spans.values("propagate", "list of formats", "w3c, and b3 if asked for.", |text| match text {
        "w3c" => Ok(false),
        "b3" => Ok(true),
        _ => Err("w3c or b3"),
    });
    spans.finish();
    map.later("metrics");
    map.later("errors");
    map.finish();
    let log = AccessLog { to: to.unwrap_or(LogTarget::Stdout), format, sample_success, redact_query };
    let propagate_b3 = propagate.is_some_and(|formats| formats.contains(&true));
    (log, Traces { otlp: otlp.flatten(), sample, keep_slow, keep_errors, propagate_b3 })
}

fn ops(map: Map<'_, '_>) -> Address {
    let address = map.value("address", "address", "0.0.0.0:9900", "Where probes and scrapers ask.", units::address);
    map.finish();
    address.unwrap_or(Address::Tcp { host: "0.0.0.0".to_owned(), port: 9900 })
}

fn admin(map: Map<'_, '_>) -> Admin {
    let address = map.value(
        "address",
        "address",
        "127.0.0.1:9901",
        "Where people and pipelines ask; beyond loopback only with a token.",
        units::address,
    );
    let token = map.secret("token", "A bearer token that every request must show.").map(Secret);
    map.finish();
    Admin { address: address.unwrap_or(Address::Tcp { host: "127.0.0.1".to_owned(), port: 9901 }), token }
}

fn state(map: Map<'_, '_>) -> Option<std::path::PathBuf> {
    let directory =
        map.path_value("directory", "Where the last good configurations are kept; empty keeps them in memory.");
    map.finish();
    directory
}

fn drain(map: Map<'_, '_>) -> Drain {
    let delay = map.value(
        "delay",
        "duration or auto",
        "auto",
        "Not ready but still accepting; auto is 5s under an orchestrator, 1s elsewhere, 0 on SIGINT.",
        |text| match text {
            "auto" => Ok(None),
            text => units::duration(text).map(Some),
        },
    );
    let timeout =
        map.duration("timeout", "20s", "How long requests in flight may take to finish.").unwrap_or(DRAIN_TIMEOUT);
    map.finish();
    Drain { delay: delay.flatten(), timeout }
}
