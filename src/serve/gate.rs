//! Who may be connected: the caps of one listener over all workers, and what was turned away and why.
//! A place is taken right after `accept` and given back when nobody uses the connection any more, upgraded ones included.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::state::journal::lock;

/// Why a connection was closed without an answer, or an accept did not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turned {
    /// `connections.max` of the listener.
    Full,
    /// `connections.per_client` of the listener.
    ClientFull,
    /// Memory is short.
    Memory,
    /// The process has no file descriptors left; the connection stays in the backlog.
    Descriptors,
    /// The PROXY protocol header was missing, malformed or late.
    ProxyProtocol,
    /// The TLS handshake failed or took too long.
    Handshake,
    /// What arrived is not HTTP.
    Malformed,
    /// The request head took too long.
    HeadTimeout,
    /// The client took nothing of its answer for too long.
    Stalled,
    /// HTTP/2 streams were opened only to be reset.
    Abuse,
}

impl Turned {
    pub const ALL: [Turned; 10] = [
        Turned::Full,
        Turned::ClientFull,
        Turned::Memory,
        Turned::Descriptors,
        Turned::ProxyProtocol,
        Turned::Handshake,
        Turned::Malformed,
        Turned::HeadTimeout,
        Turned::Stalled,
        Turned::Abuse,
    ];

    /// The metric label.
    pub fn label(self) -> &'static str {
        match self {
            Turned::Full => "connections_max",
            Turned::ClientFull => "connections_per_client",
            Turned::Memory => "memory",
            Turned::Descriptors => "file_descriptors",
            Turned::ProxyProtocol => "proxy_protocol",
            Turned::Handshake => "tls_handshake",
            Turned::Malformed => "malformed",
            Turned::HeadTimeout => "request_header_timeout",
            Turned::Stalled => "client_stalled",
            Turned::Abuse => "stream_resets",
        }
    }
}

/// The open connections of one listener.
#[derive(Default)]
pub struct Gate {
    open: AtomicUsize,
    accepted: AtomicU64,
    clients: Mutex<HashMap<IpAddr, usize>>,
    turned: [AtomicU64; Turned::ALL.len()],
    /// Somebody has told that newcomers are turned away.
    pub crowded: AtomicBool,
}

impl Gate {
    /// Takes a place among at most `max`; `None` when there is none.
    pub fn enter(self: &Arc<Self>, max: usize) -> Option<Place> {
        self.accepted.fetch_add(1, Ordering::Relaxed);
        let place = Place { gate: Arc::clone(self), client: None };
        (self.open.fetch_add(1, Ordering::AcqRel) < max).then_some(place).or_else(|| {
            self.turn(Turned::Full);
            None // dropping the place has given it back
        })
    }

    /// Counts; what it was comes back.
    pub fn turn(&self, why: Turned) -> Turned {
        self.turned[why as usize].fetch_add(1, Ordering::Relaxed);
        why
    }

    pub fn turned(&self, why: Turned) -> u64 {
        self.turned[why as usize].load(Ordering::Relaxed)
    }

    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Connections accepted since the start, those turned away included.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }
}

/// One connection's place; dropped, it is free again.
pub struct Place {
    gate: Arc<Gate>,
    client: Option<IpAddr>,
}

impl Place {
    /// Counts the connection for its client; `false` when the client has `max` others.
    pub fn claim(&mut self, client: IpAddr, max: usize) -> bool {
        let client = client_key(client);
        let mut clients = lock(&self.gate.clients);
        let count = clients.entry(client).or_insert(0);
        let admitted = *count < max;
        if admitted {
            *count += 1;
            self.client = Some(client);
        } else {
            self.gate.turn(Turned::ClientFull);
        }
        admitted
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.gate.open.fetch_sub(1, Ordering::AcqRel);
        let Some(client) = self.client else { return };
        let mut clients = lock(&self.gate.clients);
        if let Some(count) = clients.get_mut(&client) {
            *count -= 1;
            if *count == 0 {
                clients.remove(&client);
            }
        }
    }
}

/// A client is an IPv4 address or an IPv6 /64, which is what one subscriber has.
fn client_key(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
    }
}

/// The connection broke between its arrival and `accept`; the next one is not affected (accept(2)).
pub fn is_the_connections_fault(problem: &io::Error) -> bool {
    matches!(
        problem.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::TimedOut
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cap_is_exact_and_a_place_comes_back() {
        let gate = Arc::new(Gate::default());
        let first = gate.enter(2);
        let second = gate.enter(2);
        assert!(first.is_some() && second.is_some());
        assert!(gate.enter(2).is_none());
        assert_eq!((gate.open(), gate.turned(Turned::Full), gate.accepted()), (2, 1, 3));
        drop(first);
        assert!(gate.enter(2).is_some());
    }

    #[test]
    fn a_client_is_an_ipv4_address_or_an_ipv6_slash_64() {
        let gate = Arc::new(Gate::default());
        let addresses = ["2001:db8::1", "2001:db8::2", "::ffff:192.0.2.1", "192.0.2.1"];
        let mut places: Vec<Place> = (0..4).map(|_| gate.enter(10).expect("below the cap")).collect();
        let claimed: Vec<bool> = places
            .iter_mut()
            .zip(addresses)
            .map(|(place, address)| place.claim(address.parse().expect("a literal"), 1))
            .collect();
        assert_eq!(claimed, [true, false, true, false]);
        assert_eq!(gate.turned(Turned::ClientFull), 2);
        places.clear();
        assert_eq!(gate.open(), 0);
        assert!(lock(&gate.clients).is_empty(), "the table keeps nobody who has left");
    }

    #[test]
    fn labels_are_distinct_and_in_step() {
        for (index, why) in Turned::ALL.into_iter().enumerate() {
            assert_eq!(why as usize, index);
            assert!(Turned::ALL.iter().filter(|other| other.label() == why.label()).count() == 1);
        }
    }
}
