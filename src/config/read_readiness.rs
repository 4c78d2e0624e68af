//! Readiness: what the app needs beside us, and how it is asked.

use std::path::PathBuf;
use std::time::Duration;

use super::reader::Map;
use super::settings::{Dependency, DependencyKind, Free};
use super::units;
use crate::core::dependency::{self, Expected, Server, Statuses, When};
use crate::core::units::Address;

const INTERVAL: Duration = Duration::from_secs(10);
const TIMEOUT: Duration = Duration::from_secs(2);
/// Two weeks: enough for a person to act.
const VALID_MIN: Duration = Duration::from_secs(14 * 86_400);
const KINDS: [&str; 7] = ["postgres", "redis", "http", "tcp", "dns", "disk", "certificate"];

pub fn readiness(map: Map<'_, '_>) -> Vec<Dependency> {
    let checks = map.blocks("checks", "What the app needs; asked on its behalf, and told by /readyz.");
    let dependencies = checks.into_iter().enumerate().filter_map(|(place, map)| check(place, map)).collect();
    map.later("attest");
    map.later("waive");
    map.finish();
    dependencies
}

fn check(place: usize, map: Map<'_, '_>) -> Option<Dependency> {
    let name = map.text("name", "Its name in /readyz, metrics and events.");
    let kind = kind(&map);
    let typed = KINDS.into_iter().filter(|kind| map.has(kind)).count();
    if typed > 1 || (typed == 0 && KINDS.iter().all(|kind| map.is_read(kind))) {
        let found = if typed == 0 { "nothing to ask" } else { "more than one thing to ask" };
        let expected = "one of postgres, redis, http, tcp, dns, disk and certificate";
        map.context.problem(&map.path, None, found, expected, None);
    }
    let doc = "required: not ready while it fails; startup: until it was well once; degraded: only said.";
    let when = match map.choice("when", &["required", "startup", "degraded"], "degraded", doc) {
        Some("required") => When::Required,
        Some("startup") => When::Startup,
        Some(_) | None => When::Degraded,
    };
    let interval = map.duration("interval", "10s", "Between two checks, a tenth more or less.").unwrap_or(INTERVAL);
    let timeout = map.duration("timeout", "2s", "How long one check may take.").unwrap_or(TIMEOUT);
    for (key, time) in [("interval", interval), ("timeout", timeout)] {
        if time.is_zero() {
            map.context.problem(&format!("{}.{key}", map.path), map.at(key), "0s", "more than nothing", None);
        }
    }
    map.finish();
    let name = name.unwrap_or_else(|| format!("check-{place}"));
    Some(Dependency { name, kind: kind?, when, interval, timeout })
}

fn kind(map: &Map<'_, '_>) -> Option<DependencyKind> {
    let postgres =
        server(map, "postgres", "A PostgreSQL URL: it must come to be ready for a query.", dependency::postgres);
    let redis = server(map, "redis", "A Redis or Valkey URL: PING must be answered.", dependency::redis);
    let http = server(map, "http", "A URL whose GET must be answered as expected.", dependency::http);
    let expect = map.value("expect", "statuses", "200-299", "With http: the statuses that are well.", Statuses::parse);
    let tcp = map.value("tcp", "address", "", "Where a connection can be made.", units::address);
    let dns = map.text("dns", "A name that must have an address.");
    let disk = map.path_value("disk", "A directory whose file system must have space.");
    let free_min = map.value("free_min", "percentage or size", "10%", "With disk: how much must be free.", |text| {
        let share = units::ratio(text).map(|ratio| Free::Share(ratio.0));
        share.or_else(|_| units::bytes(text).map(Free::Bytes)).map_err(|_| "a percentage or a size: 10%, 5GiB")
    });
    let doc = "A PEM file, or https://host of a server: how long its certificate is still valid.";
    let base = map.context.base.clone();
    let certificate = map.value("certificate", "path or URL", "", doc, |text| certificate(text, base.clone()));
    let valid_min = map.duration("valid_min", "14d", "With certificate: how long it must still be valid.");
    for (key, of) in [("expect", "http"), ("free_min", "disk"), ("valid_min", "certificate")] {
        if map.has(key) && !map.has(of) {
            let path = format!("{}.{key}", map.path);
            map.context.problem(&path, map.at(key), format!("{key} without {of}"), format!("{of} beside it"), None);
        }
    }
    let valid_min = valid_min.unwrap_or(VALID_MIN);
    None.or(postgres.map(DependencyKind::Postgres))
        .or(redis.map(DependencyKind::Redis))
        .or(http.map(|server| DependencyKind::Http { server, expect: expect.unwrap_or_default() }))
        .or(tcp.map(DependencyKind::Tcp))
        .or(dns.map(DependencyKind::Dns))
        .or(disk.map(|path| DependencyKind::Disk { path, free_min: free_min.unwrap_or(Free::Share(0.1)) }))
        .or(certificate.map(|certificate| match certificate {
            Certificate::File(path) => DependencyKind::CertificateFile { path, valid_min },
            Certificate::Of(address, authority) => DependencyKind::CertificateOf { address, authority, valid_min },
        }))
}

/// A URL that may hold a password, so that no problem shows it.
fn server(
    map: &Map<'_, '_>,
    key: &'static str,
    doc: &'static str,
    parse: impl Fn(&str) -> Result<Server, Expected>,
) -> Option<Server> {
    let text = map.secret(key, doc)?;
    match parse(&text) {
        Ok(server) => Some(server),
        Err(expected) => {
            let found = "a value that is not shown, because it may hold a password";
            map.context.unreadable(&format!("{}.{key}", map.path), map.at(key), found, expected, None);
            None
        }
    }
}

enum Certificate {
    File(PathBuf),
    Of(Address, String),
}

fn certificate(text: &str, base: PathBuf) -> Result<Certificate, Expected> {
    if text.starts_with("https://") {
        return units::url(text).map(|(address, _, authority)| Certificate::Of(address, authority));
    }
    if text.is_empty() || text.contains("://") {
        Err("a path, or https://host:port")
    } else {
        Ok(Certificate::File(base.join(text)))
    }
}
