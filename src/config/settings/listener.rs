//! Where requests come in: ports, their TLS and who may speak before the request.

use std::path::PathBuf;
use std::time::Duration;

use crate::core::units::Address;

#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    pub name: String,
    pub address: Address,
    pub redirect_to_https: Option<HttpsRedirect>,
    pub tls: Option<ServerTls>,
    pub proxy_protocol: ProxyProtocol,
    /// Open connections on this listener, all workers together.
    pub connections_max: usize,
    pub connections_per_client_max: Option<usize>,
    /// A client that has ended its sending side waits for its answer.
    pub half_close: bool,
    /// 102 and 103 of the app pass to HTTP/1.1 clients.
    pub early_hints: bool,
    /// Every request goes to this upstream, without routes.
    pub upstream: Option<String>,
    pub direction: Direction,
    /// From the first byte (or the accept) to the end of the request head.
    pub request_header_timeout: Duration,
    /// An idle keep-alive connection is closed after this long.
    pub keep_alive: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Inbound,
    Outbound,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyProtocol {
    Off,
    V1,
    V2,
    Any,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpsRedirect {
    pub port: u16,
    /// Only these hosts are ever named in a Location; lower case, without port.
    pub hosts: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTls {
    /// At least one; the first is the default when no name matches.
    pub certificates: Vec<CertificateFiles>,
    pub min_version: TlsVersion,
    pub client_auth: ClientAuth,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CertificateFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVersion {
    Tls12,
    Tls13,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    Off,
    Request { ca: PathBuf },
    Require { ca: PathBuf },
}
