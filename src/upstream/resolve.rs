//! A host name to socket addresses.
//!
//! Literals skip the resolver altogether (the usual sidecar case: `127.0.0.1`). Names use the system's resolver on
//! every new connection, so a changed record is picked up by the next connect without a cache of our own; connections
//! are long-lived enough for that to be cheap. Families alternate (RFC 8305 §4), so that one broken family costs one
//! attempt, not all of them. No DNS client of our own: search domains, `/etc/hosts` and nsswitch must work.

use std::io;
use std::net::{IpAddr, SocketAddr};

/// At least one address, at most [`ADDRESSES_MAX`], in the order to try them.
pub(super) async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if let Some(address) = literal(host) {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let found = interleave(tokio::net::lookup_host((host, port)).await?);
    if found.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
    }
    Ok(found)
}

fn literal(host: &str) -> Option<IpAddr> {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    bare.parse().ok()
}

/// Alternates families, beginning with the family the resolver put first, and drops repeats.
fn interleave(addresses: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let mut rest: Vec<SocketAddr> = Vec::new();
    for address in addresses {
        if !rest.contains(&address) {
            rest.push(address);
        }
    }
    let mut ordered = Vec::with_capacity(rest.len().min(ADDRESSES_MAX));
    while ordered.len() < ADDRESSES_MAX && !rest.is_empty() {
        let other = ordered.last().map(|last: &SocketAddr| !last.is_ipv4());
        let next = other.and_then(|v4| rest.iter().position(|a| a.is_ipv4() == v4)).unwrap_or(0);
        ordered.push(rest.remove(next));
    }
    ordered
}

/// More addresses than this are not tried: the connect timeout would be over long before.
const ADDRESSES_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_alternate_and_repeats_vanish() {
        // Goal: RFC 8305 §4 order, beginning with the resolver's first choice.
        let parse = |list: &[&str]| list.iter().map(|a| a.parse().expect("test data")).collect::<Vec<SocketAddr>>();
        let given = parse(&["[::1]:1", "[::2]:1", "1.1.1.1:1", "[::1]:1", "2.2.2.2:1", "[::3]:1"]);
        let wanted = parse(&["[::1]:1", "1.1.1.1:1", "[::2]:1", "2.2.2.2:1", "[::3]:1"]);
        assert_eq!(interleave(given.into_iter()), wanted);
        assert!(interleave(std::iter::empty()).is_empty());
    }

    #[test]
    fn literals_need_no_resolver() {
        assert_eq!(literal("127.0.0.1"), Some(IpAddr::from([127, 0, 0, 1])));
        assert!(literal("::1").is_some() && literal("[::1]").is_some());
        assert_eq!(literal("localhost"), None);
    }
}
