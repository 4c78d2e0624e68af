//! Where requests come in: addresses, TLS, and who may speak before the request.

use std::time::Duration;

use super::reader::Map;
use super::settings::{
    CertificateFiles, ClientAuth, Direction, HttpsRedirect, Listener, ProxyProtocol, ServerTls, TlsVersion,
};
use super::units;
use crate::core::units::Address;

const CONNECTIONS_MAX: usize = 10_000;

pub fn listeners(root: &Map<'_, '_>, header: Duration, keep_alive: Duration) -> Vec<Listener> {
    let typed = root.blocks("listeners", "Where requests come in; the default is one named web on 0.0.0.0:8080.");
    let mut listeners: Vec<Listener> =
        typed.into_iter().enumerate().map(|(place, map)| listener(map, place, header, keep_alive)).collect();
    if !root.has("listeners") {
        listeners = vec![plain_listener(header, keep_alive)];
    }
    listeners
}

fn plain_listener(header: Duration, keep_alive: Duration) -> Listener {
    Listener {
        name: "web".to_owned(),
        address: Address::Tcp { host: "0.0.0.0".to_owned(), port: 8080 },
        redirect_to_https: None,
        tls: None,
        proxy_protocol: ProxyProtocol::Off,
        connections_max: CONNECTIONS_MAX,
        connections_per_client_max: None,
        half_close: false,
        early_hints: true,
        upstream: None,
        direction: Direction::Inbound,
        request_header_timeout: header,
        keep_alive,
    }
}

fn listener(map: Map<'_, '_>, place: usize, header: Duration, keep_alive: Duration) -> Listener {
    let name = map.text("name", "Its name in metrics and logs.").unwrap_or_else(|| format!("listener-{place}"));
    let address = map.value("address", "address", "", "host:port, [ipv6]:port or unix:/path.", units::address);
    if address.is_none() && !map.has("address") && map.is_read("address") {
        map.context.problem(&format!("{}.address", map.path), None, "nothing", units::ADDRESS, None);
    }
    let redirect = map.block("redirect_to_https", "Redirect to HTTPS, only ever to the named hosts.");
    let redirect_to_https = redirect_to_https(redirect, map.has("redirect_to_https"));
    let tls = server_tls(map.block("tls", "TLS; without it the listener is plain HTTP."), map.has("tls"));
    let connections = map.block("connections", "Limits of open connections.");
    let connections_max =
        connections.count("max", "10000", "All clients together.").map_or(CONNECTIONS_MAX, |max| max as usize);
    let per_client = connections.count("per_client", "no limit", "One client address.").map(|max| max as usize);
    connections.finish();
    let proxy_protocol = match map.choice(
        "proxy_protocol",
        &["off", "v1", "v2", "any"],
        "off",
        "Whether connections begin with a PROXY header.",
    ) {
        Some("v1") => ProxyProtocol::V1,
        Some("v2") => ProxyProtocol::V2,
        Some("any") => ProxyProtocol::Any,
        Some(_) | None => ProxyProtocol::Off,
    };
    let half_close = map
        .boolean(
            "half_close",
            "false",
            "true: an HTTP/1 client that has ended its sending side waits for its answer; else it has left.",
        )
        .unwrap_or(false);
    let early_hints = map
        .boolean(
            "early_hints",
            "true",
            "false keeps 102 and 103 of the app from clients that take them for the answer.",
        )
        .unwrap_or(true);
    let upstream = map.text("upstream", "Send every request to this upstream, without routes.");
    let direction = match map.choice(
        "direction",
        &["inbound", "outbound"],
        "inbound",
        "outbound: the app calls somebody else through this listener.",
    ) {
        Some("outbound") => Direction::Outbound,
        Some(_) | None => Direction::Inbound,
    };
    map.finish();
    Listener {
        name,
        // A wrong one is reported already; a place that clashes with nothing avoids a second report.
        address: address.unwrap_or_else(|| Address::Unix(format!("/unknown-{place}").into())),
        redirect_to_https,
        tls,
        proxy_protocol,
        connections_max,
        connections_per_client_max: per_client,
        half_close,
        early_hints,
        upstream,
        direction,
        request_header_timeout: header,
        keep_alive,
    }
}

/// Its keys are read even where it is not wanted: they are known.
fn redirect_to_https(map: Map<'_, '_>, wanted: bool) -> Option<HttpsRedirect> {
    let port = map.count("port", "443", "The port of the HTTPS listener as clients see it.");
    let hosts = map.values("hosts", "list of hosts", "The hosts that may stand in a redirect.", |text| {
        Ok(text.to_ascii_lowercase())
    });
    map.finish();
    let port = port.and_then(|port| u16::try_from(port).ok()).unwrap_or(443);
    wanted.then(|| HttpsRedirect { port, hosts: hosts.unwrap_or_default() })
}

fn server_tls(map: Map<'_, '_>, wanted: bool) -> Option<ServerTls> {
    let mut certificates = Vec::new();
    for pair in map
        .blocks("certificates", "Chosen by the name a client asks for; the first is the default. Watched and reloaded.")
    {
        certificates.extend(certificate(&pair));
        pair.finish();
    }
    let min_version = match map.choice("min_version", &["1.2", "1.3"], "1.2", "The oldest TLS version accepted.") {
        Some("1.3") => TlsVersion::Tls13,
        Some(_) | None => TlsVersion::Tls12,
    };
    let auth = map.block("client_auth", "Certificates of clients.");
    let mode =
        auth.choice("mode", &["off", "request", "require"], "off", "Whether a client may or must show a certificate.");
    let ca = auth.path_value("ca", "The authorities that client certificates are checked against.");
    let client_auth = match (mode, ca) {
        (Some("request"), Some(ca)) => ClientAuth::Request { ca },
        (Some("require"), Some(ca)) => ClientAuth::Require { ca },
        (Some("request" | "require"), None) if auth.is_read("ca") => {
            auth.context.problem(
                &format!("{}.ca", auth.path),
                auth.at("mode"),
                "nothing",
                "a file of certificate authorities",
                None,
            );
            ClientAuth::Off
        }
        (_, _) => ClientAuth::Off,
    };
    auth.finish();
    if wanted && certificates.is_empty() && !map.has("certificates") && map.is_read("certificates") {
        map.context.problem(
            &format!("{}.certificates", map.path),
            None,
            "nothing",
            "at least one certificate and key",
            None,
        );
    }
    map.finish();
    wanted.then_some(ServerTls { certificates, min_version, client_auth })
}

/// A certificate and its key, which only make sense together.
pub fn certificate(map: &Map<'_, '_>) -> Option<CertificateFiles> {
    let certificate = map.path_value("certificate", "PEM file of the certificate and its chain.");
    let key = map.path_value("key", "PEM file of the private key.");
    match (certificate, key) {
        (Some(certificate), Some(key)) => Some(CertificateFiles { certificate, key }),
        (None, None) => None,
        (_, _) if !map.is_read("certificate") || !map.is_read("key") => None,
        (certificate, _) => {
            let missing = if certificate.is_some() { "key" } else { "certificate" };
            map.context.problem(&format!("{}.{missing}", map.path), None, "nothing", "both certificate and key", None);
            None
        }
    }
}
