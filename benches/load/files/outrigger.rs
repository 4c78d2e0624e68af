//! Outrigger's own configuration: what is left out has its default.

use std::fmt::Write;

use super::super::scenario::Kind;
use super::{ROUTES, Site};

const QUIET: &str =
    "retry: { attempts: 1 }\nsecurity_headers: { preset: off }\ntelemetry: { access_log: { to: off } }\n";

pub fn outrigger(site: &Site, kind: Kind) -> String {
    let Site { plain, tls, app, others: [ops, admin], folder, .. } = site;
    let folder = folder.display();
    let log = format!("telemetry: {{ access_log: {{ to: {folder}/log/access.log }} }}\n");
    let rest = match kind {
        Kind::Bare | Kind::Grpc | Kind::TwoWorkers => QUIET.to_owned(),
        Kind::Defaults => log,
        Kind::Policies => format!(
            "{log}security_headers: {{ preset: strict, hsts: {{ max_age: auto }} }}\n\
             rate_limits: {{ per-client: {{ rate: 1000000/s, burst: 1000000 }} }}\n\
             routes: [{{ name: all, match: {{ path: \"/*\" }}, upstream: app, rate_limits: [per-client] }}]\n"
        ),
        Kind::Routes => [QUIET, &routes()].concat(),
    };
    let workers = if kind == Kind::TwoWorkers { 2 } else { 1 };
    let protocol = if kind == Kind::Grpc { "http2" } else { "auto" };
    format!(
        "upstreams: {{ app: {{ endpoints: [\"http://127.0.0.1:{app}\"], protocol: {protocol}, pool: {{ idle_max: 512 }} }} }}\nworkers: {workers}\n\
         drain: {{ delay: 0s, timeout: 1s }}\n\
         listeners:\n\
         - {{ name: plain, address: \"127.0.0.1:{plain}\", connections: {{ max: 20000 }} }}\n\
         - {{ name: tls, address: \"127.0.0.1:{tls}\", connections: {{ max: 20000 }}, tls: {{ certificates: [{{ certificate: {folder}/cert.pem, key: {folder}/key.pem }}] }} }}\n\
         ops: {{ address: \"127.0.0.1:{ops}\" }}\nadmin: {{ address: \"127.0.0.1:{admin}\" }}\n{rest}"
    )
}

fn routes() -> String {
    let mut text = "routes:\n".to_owned();
    for number in 0..ROUTES {
        let _ = writeln!(text, "- {{ name: s{number}, match: {{ path: \"/service{number}/*\" }}, upstream: app }}"); // into a String
    }
    text.push_str("- { name: rest, match: { path: \"/*\" }, upstream: app }\n");
    text
}
