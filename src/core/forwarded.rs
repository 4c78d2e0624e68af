//! Who the client is behind other proxies, and how we tell the app: `Forwarded` (RFC 7239), `X-Forwarded-*`, `Via`
//! (RFC 9110 §7.6.3). Only hops the operator trusts are believed; what others wrote is dropped.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

use http::Version;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Addresses looked at in one chain.
const HOPS_MAX: usize = 32;

/// The client's address: from the right of the chain the first that is not a trusted hop. A value that is not an
/// address ends the search at the last one that was.
pub fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &dyn Fn(IpAddr) -> bool) -> IpAddr {
    if !trusted(peer) {
        return peer;
    }
    let mut client = peer;
    let lines: Vec<&str> = headers.get_all(X_FORWARDED_FOR).iter().filter_map(|line| line.to_str().ok()).collect();
    let hops = lines.iter().rev().flat_map(|line| line.rsplit(','));
    let chain: Vec<Option<IpAddr>> = if lines.is_empty() {
        forwarded_chain(headers)
    } else {
        hops.take(HOPS_MAX).map(|hop| address(hop.trim())).collect()
    };
    for hop in chain {
        let Some(hop) = hop else { break };
        client = hop;
        if !trusted(hop) {
            break;
        }
    }
    client
}

/// The `for` parameters of Forwarded, from the right.
fn forwarded_chain(headers: &HeaderMap) -> Vec<Option<IpAddr>> {
    let lines: Vec<&str> = headers.get_all(header::FORWARDED).iter().filter_map(|line| line.to_str().ok()).collect();
    let elements = lines.iter().rev().flat_map(|line| line.rsplit(','));
    let of = |element: &str| {
        let pair = element
            .split(';')
            .map(str::trim)
            .find(|pair| pair.get(..4).is_some_and(|name| name.eq_ignore_ascii_case("for=")))?;
        address(pair[4..].trim_matches('"'))
    };
    elements.take(HOPS_MAX).map(of).collect()
}

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]:80`, `[2001:db8::1]`.
fn address(text: &str) -> Option<IpAddr> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_canonical());
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some(address.ip().to_canonical());
    }
    text.strip_prefix('[')?.strip_suffix(']')?.parse::<IpAddr>().ok()
}

/// The scheme a trusted hop says the client used.
pub fn trusted_proto(peer_trusted: bool, headers: &HeaderMap) -> Option<&'static str> {
    if !peer_trusted {
        return None;
    }
    let proto = headers.get(X_FORWARDED_PROTO)?.as_bytes();
    let last = proto.rsplit(|byte| *byte == b',').next()?.trim_ascii();
    if last.eq_ignore_ascii_case(b"https") {
        Some("https")
    } else if last.eq_ignore_ascii_case(b"http") {
        Some("http")
    } else {
        None
    }
}

/// This hop, as the app shall hear of it.
pub struct Hop<'a> {
    pub peer: IpAddr,
    pub peer_trusted: bool,
    pub scheme: &'static str,
    pub host: &'a str,
}

/// Writes this hop into the chain. A trusted peer's chain grows by it; an untrusted peer's is replaced.
pub fn write(headers: &mut HeaderMap, hop: &Hop<'_>) {
    let peer = hop.peer.to_canonical();
    let before = |headers: &HeaderMap, name: &HeaderName| -> String {
        let lines = headers.get_all(name).iter().filter(|_| hop.peer_trusted).filter_map(|line| line.to_str().ok());
        let mut chain = String::new();
        for line in lines {
            chain.push_str(line);
            chain.push_str(", ");
        }
        chain
    };
    let mut chain = before(headers, &X_FORWARDED_FOR);
    let _ = write!(chain, "{peer}"); // writing to a String does not fail
    set(headers, X_FORWARDED_FOR, &chain);
    let mut chain = before(headers, &header::FORWARDED);
    let quoted = if peer.is_ipv6() { format!("\"[{peer}]\"") } else { peer.to_string() };
    let host = if hop.host.contains([':', '[']) { format!("\"{}\"", hop.host) } else { hop.host.to_owned() };
    let _ = write!(chain, "for={quoted};proto={}", hop.scheme);
    if !host.is_empty() {
        let _ = write!(chain, ";host={host}");
    }
    set(headers, header::FORWARDED, &chain);
    if !(hop.peer_trusted && headers.contains_key(X_FORWARDED_PROTO)) {
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(hop.scheme));
    }
    let told = hop.peer_trusted && headers.contains_key(X_FORWARDED_HOST);
    if !told && !hop.host.is_empty() {
        set(headers, X_FORWARDED_HOST, hop.host);
    }
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// Adds us to Via, with the version the message came in.
pub fn write_via(headers: &mut HeaderMap, version: Version) {
    let ours = if version == Version::HTTP_2 {
        "2 outrigger"
    } else if version == Version::HTTP_10 {
        "1.0 outrigger"
    } else {
        "1.1 outrigger"
    };
    headers.append(header::VIA, HeaderValue::from_static(ours));
}

/// Whether the message has passed a proxy of our name more than `limit` times.
pub fn has_via_loop(headers: &HeaderMap, limit: usize) -> bool {
    let lines = headers.get_all(header::VIA).iter();
    let hops = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    hops.filter(|hop| hop.trim_ascii().ends_with(b" outrigger")).count() > limit
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn client(peer: &str, fields: &[(&'static str, &'static str)]) -> IpAddr {
        let trusted = |address: IpAddr| matches!(address, IpAddr::V4(v4) if v4.octets()[0] == 10);
        client_address(ip(peer), &map(fields), &trusted)
    }

    #[test]
    fn only_trusted_hops_are_believed_counted_from_the_right() {
        let chain = [("x-forwarded-for", "6.6.6.6, 192.0.2.7, 10.0.0.9")];
        assert_eq!(client("203.0.113.1", &chain), ip("203.0.113.1"));
        assert_eq!(client("10.0.0.1", &chain), ip("192.0.2.7"));
        assert_eq!(client("10.0.0.1", &[]), ip("10.0.0.1"));
        assert_eq!(client("10.0.0.1", &[("x-forwarded-for", "10.0.0.3, 10.0.0.2")]), ip("10.0.0.3"));
        assert_eq!(client("10.0.0.1", &[("x-forwarded-for", "192.0.2.1, unknown, 10.0.0.2")]), ip("10.0.0.2"));
        let lines = [("x-forwarded-for", "192.0.2.1"), ("x-forwarded-for", "192.0.2.2")];
        assert_eq!(client("10.0.0.1", &lines), ip("192.0.2.2"));
        assert_eq!(client("10.0.0.1", &[("x-forwarded-for", "[2001:db8::1]:443")]), ip("2001:db8::1"));
        let standard = [("forwarded", "for=192.0.2.60;proto=http, For=\"[2001:db8::7]:1\"")];
        assert_eq!(client("10.0.0.1", &standard), ip("2001:db8::7"));
    }

    #[test]
    fn a_spoofed_chain_is_replaced_and_a_trusted_one_grows() {
        let given = [("x-forwarded-for", "1.1.1.1"), ("forwarded", "for=1.1.1.1"), ("x-forwarded-proto", "https")];
        let told = |peer_trusted| {
            let mut headers = map(&given);
            write(&mut headers, &Hop { peer: ip("192.0.2.1"), peer_trusted, scheme: "http", host: "a.example" });
            headers
        };
        let spoofed = told(false);
        assert_eq!(spoofed["x-forwarded-for"], "192.0.2.1");
        assert_eq!(spoofed["x-forwarded-proto"], "http");
        assert_eq!(spoofed["x-forwarded-host"], "a.example");
        assert_eq!(spoofed["forwarded"], "for=192.0.2.1;proto=http;host=a.example");
        let grown = told(true);
        assert_eq!(grown["x-forwarded-for"], "1.1.1.1, 192.0.2.1");
        assert_eq!(grown["x-forwarded-proto"], "https");
        assert_eq!(grown["forwarded"], "for=1.1.1.1, for=192.0.2.1;proto=http;host=a.example");
    }

    #[test]
    fn an_ipv6_hop_is_quoted() {
        let mut headers = HeaderMap::new();
        write(&mut headers, &Hop { peer: ip("2001:db8::1"), peer_trusted: false, scheme: "https", host: "[::1]:8443" });
        assert_eq!(headers["forwarded"], "for=\"[2001:db8::1]\";proto=https;host=\"[::1]:8443\"");
    }

    #[test]
    fn loops_are_counted_by_our_name() {
        let mut headers = map(&[("via", "1.1 other, 1.1 outrigger")]);
        assert!(!has_via_loop(&headers, 1));
        write_via(&mut headers, Version::HTTP_2);
        assert!(has_via_loop(&headers, 1) && !has_via_loop(&headers, 2));
    }
}
