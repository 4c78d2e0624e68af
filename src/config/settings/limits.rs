//! How much may come: at what rate, and how many at once.

use std::time::Duration;

use super::Mode;
use crate::core::dependency::Server;
use crate::core::store::WhenAway;
use crate::core::units::Rate;

/// The limit that is learned from latency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Adaptive {
    pub mode: Mode,
    pub min: usize,
    pub max: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    pub max: usize,
    pub wait_max: Duration,
}

#[derive(Clone, Debug, PartialEq)]
pub struct RateLimit {
    pub name: String,
    /// Whose requests are counted together; at least one part.
    pub key: Vec<RateKey>,
    pub rate: Rate,
    pub burst: u64,
    /// What one request is worth; at most the burst.
    pub cost: u64,
    pub mode: Mode,
    /// Counted together with all replicas.
    pub shared: Option<SharedLimit>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedLimit {
    /// One of `stores`.
    pub store: String,
    pub when_away: WhenAway,
}

/// A Redis or Valkey.
#[derive(Clone, Debug, PartialEq)]
pub struct Store {
    pub name: String,
    pub server: Server,
    /// What it may add to a request's time.
    pub timeout: Duration,
}

/// One part of a limit's key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RateKey {
    /// The client's address, an IPv6 one by its /64.
    ClientIp,
    Route,
    /// The value of a request header; lower case.
    Header(String),
    Cookie(String),
}

impl std::fmt::Display for RateKey {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            RateKey::ClientIp => out.write_str("client_ip"),
            RateKey::Route => out.write_str("route"),
            RateKey::Header(name) => write!(out, "header:{name}"),
            RateKey::Cookie(name) => write!(out, "cookie:{name}"),
        }
    }
}
