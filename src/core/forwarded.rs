//! Who the client is behind other proxies, and how we tell the app: `Forwarded` (RFC 7239), `X-Forwarded-*`, `Via`
//! (RFC 9110 §7.6.3). Only hops the operator trusts are believed; what others wrote is dropped.
//!
//! Chains are read from the right, because only that end was written by somebody trusted, and reading stops at the
//! first thing that is not an address. Quoted strings are respected: a client may put a comma and `for=` into a Host
//! that a trusted hop quotes. When both kinds of chain are there, `X-Forwarded-For` counts, as most proxies write only
//! that one; an operator whose proxy writes only `Forwarded` should have it remove the other.

mod chain;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use http::Version;
use http::header::{HeaderMap, HeaderName, HeaderValue};

use super::fields::{Fields, Name};

const X_FORWARDED_FOR: &str = "x-forwarded-for";
const X_FORWARDED_PROTO: &str = "x-forwarded-proto";
const X_FORWARDED_HOST: &str = "x-forwarded-host";

/// Fields beside `x-forwarded-*` in which apps look for the client.
const CLAIMS: [&str; 4] = ["x-real-ip", "x-client-ip", "x-cluster-client-ip", "true-client-ip"];

/// Fields that frame a request, bound it in time or name it. Spelt with hyphens they were judged, or written by us.
const OURS: [&str; 7] = [
    "content-length",
    "content-type",
    "transfer-encoding",
    "x-request-id",
    "x-request-priority",
    "x-request-timeout-ms",
    "x-envoy-expected-rq-timeout-ms",
];

/// Addresses looked at in one chain.
const HOPS_MAX: usize = 32;

/// The client's address: from the right of the chain the first that is not a trusted hop. A value that is not an
/// address ends the search at the last one that was.
pub fn client_address(peer: IpAddr, headers: &Fields, trusted: &dyn Fn(IpAddr) -> bool) -> IpAddr {
    let mut client = peer.to_canonical();
    if !trusted(client) {
        return client;
    }
    // Takes one hop in; false when the search is over.
    let mut follow = |hop: Option<IpAddr>| {
        let Some(hop) = hop else { return false };
        client = hop;
        trusted(hop)
    };
    if headers.contains("x-forwarded-for") {
        addresses(headers).all(&mut follow);
    } else {
        element_addresses(headers).all(&mut follow);
    }
    client
}

/// The hops of `X-Forwarded-For` from the right; `None` for what is not an address.
fn addresses(headers: &Fields) -> impl Iterator<Item = Option<IpAddr>> {
    let lines = headers.get_all("x-forwarded-for").rev();
    let hops = lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
    hops.take(HOPS_MAX).filter(|hop| !hop.is_empty()).map(address)
}

/// The same of `Forwarded`.
fn element_addresses(headers: &Fields) -> impl Iterator<Item = Option<IpAddr>> {
    forwarded_elements(headers).map(|element| address(&parameter(element?, b"for")?))
}

/// The elements of Forwarded from the right; `None` for a line that cannot be taken apart.
fn forwarded_elements(headers: &Fields) -> impl Iterator<Item = Option<&[u8]>> {
    let lines = headers.get_all("forwarded").rev();
    let elements = lines.flat_map(|line| match split(line.as_bytes(), b',') {
        Some(elements) => elements.into_iter().map(Some).rev().collect(),
        None => vec![None],
    });
    elements.filter(|element| element.is_none_or(|element| !element.is_empty())).take(HOPS_MAX)
}

/// The value of a parameter of one element, unquoted; `None` when it is absent, repeated or escaped. (No address and
/// no scheme needs an escape.)
fn parameter(element: &[u8], wanted: &[u8]) -> Option<Vec<u8>> {
    let mut found = None;
    for pair in split(element, b';')? {
        let Some(equals) = pair.iter().position(|byte| *byte == b'=') else { continue };
        let (name, value) = (pair[..equals].trim_ascii(), pair[equals + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(wanted) {
            let inner = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
            let value = inner.unwrap_or(value);
            if found.is_some() || value.contains(&b'"') || value.contains(&b'\\') {
                return None;
            }
            found = Some(value.to_vec());
        }
    }
    found
}

/// The trimmed parts between separators outside quoted strings; `None` when a quote is not closed.
fn split(text: &[u8], separator: u8) -> Option<Vec<&[u8]>> {
    let (mut parts, mut start, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (place, byte) in text.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if *byte == separator && !quoted => {
                parts.push(text[start..place].trim_ascii());
                start = place + 1;
            }
            _ => {}
        }
    }
    parts.push(text[start..].trim_ascii());
    (!quoted).then_some(parts)
}

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]:80`, `[2001:db8::1]`.
fn address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    let plain = || text.parse::<IpAddr>().ok();
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok().map(IpAddr::V6);
    plain().or_else(with_port).or_else(bracketed).map(|address| address.to_canonical())
}

/// The scheme a trusted hop says the client used: the last word of `X-Forwarded-Proto`, else of Forwarded.
pub fn trusted_proto(peer_trusted: bool, headers: &Fields) -> Option<&'static str> {
    if !peer_trusted {
        return None;
    }
    match headers.get_all("x-forwarded-proto").next_back() {
        Some(line) => known_scheme(line.as_bytes().rsplit(|byte| *byte == b',').next()?.trim_ascii()),
        None => known_scheme(&parameter(forwarded_elements(headers).next()??, b"proto")?),
    }
}

fn known_scheme(word: &[u8]) -> Option<&'static str> {
    ["https", "http"].into_iter().find(|scheme| scheme.as_bytes().eq_ignore_ascii_case(word))
}

/// This hop, as the app shall hear of it.
pub struct Hop<'a> {
    pub peer: IpAddr,
    pub peer_trusted: bool,
    pub scheme: &'static str,
    pub host: &'a str,
}

/// Writes this hop into the chains. A trusted peer's grow by it, and where it has only one of the two the other is
/// made of it, so that an app learns the same client from either; an untrusted peer's are replaced, and whatever else it
/// says of the client is dropped.
pub fn write(headers: &mut Fields, hop: &Hop<'_>) {
    drop_claims(headers, hop.peer_trusted);
    let peer = Node::of(hop.peer);
    let (addresses, elements) = chain::before(headers, hop);
    headers.make(X_FORWARDED_FOR, &[&addresses, peer.as_bytes()]);
    let mut pieces = [&elements[..]; 11];
    pieces[1..].copy_from_slice(&chain::element(&peer, Some((hop.scheme, hop.host))));
    headers.make("forwarded", &pieces);
    if !(hop.peer_trusted && headers.contains(X_FORWARDED_PROTO)) {
        headers.make(X_FORWARDED_PROTO, &[hop.scheme.as_bytes()]);
    }
    let told = hop.peer_trusted && headers.contains(X_FORWARDED_HOST);
    if !told && !hop.host.is_empty() {
        headers.make(X_FORWARDED_HOST, &[hop.host.as_bytes()]);
    }
}

/// The lines that strangers' requests were given, for the next request of the same peer to the same host: they are
/// copied, and need not be made and checked again.
#[derive(Debug)]
pub struct Memory {
    places: Box<[Option<Lines>; PLACES]>,
}

#[derive(Debug)]
struct Lines {
    peer: IpAddr,
    scheme: &'static str,
    host: String,
    version: Version,
    lines: Fields,
}

/// Peers and hosts that are remembered; the last of those that share a place.
const PLACES: usize = 64;
/// A longer host is not remembered.
const HOST_MAX: usize = 128;

impl Default for Memory {
    fn default() -> Self {
        Memory { places: Box::new([const { None }; PLACES]) }
    }
}

impl Memory {
    /// As [`write`] and then [`write_via`].
    pub fn write(&mut self, headers: &mut Fields, hop: &Hop<'_>, version: Version) {
        if hop.peer_trusted || hop.host.len() > HOST_MAX || headers.contains("forwarded") {
            write(headers, hop);
            write_via(headers, version);
            return;
        }
        drop_claims(headers, false);
        let place = &mut self.places[place(hop)];
        let known = place.take().filter(|lines| lines.are_for(hop, version));
        let lines = place.insert(known.unwrap_or_else(|| Lines::of(hop, version)));
        headers.append_made(&lines.lines);
    }
}

fn place(hop: &Hop<'_>) -> usize {
    let peer = match hop.peer {
        IpAddr::V4(peer) => u64::from(peer.to_bits()),
        IpAddr::V6(peer) => (peer.to_bits() >> 64) as u64 ^ peer.to_bits() as u64,
    };
    let mixed = (peer ^ (hop.host.len() as u64) << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 32) as usize % PLACES
}

impl Lines {
    fn of(hop: &Hop<'_>, version: Version) -> Lines {
        let mut lines = Fields::default();
        write(&mut lines, hop);
        write_via(&mut lines, version);
        Lines { peer: hop.peer, scheme: hop.scheme, host: hop.host.to_owned(), version, lines }
    }

    fn are_for(&self, hop: &Hop<'_>, version: Version) -> bool {
        self.peer == hop.peer && self.host == hop.host && self.scheme == hop.scheme && self.version == version
    }
}

/// Drops what an untrusted peer says of itself; and from any peer the spellings with underscores, which no proxy
/// writes and CGI, WSGI and the like read as the real ones: of these claims, and of what frames and names a request.
fn drop_claims(headers: &mut Fields, peer_trusted: bool) {
    let goes = |name: Name<'_>| {
        let name = name.as_bytes();
        match (name.first().map(u8::to_ascii_lowercase), name.contains(&b'_')) {
            (Some(b'x' | b't'), false) => !peer_trusted && is_claim(name),
            (Some(b'x' | b't' | b'c'), true) => is_claim(name) || OURS.iter().any(|ours| is_spelling(name, ours)),
            (_, false | true) => false,
        }
    };
    if headers.names().any(goes) {
        headers.retain(|name| !goes(name));
    }
}

/// Takes out of a request's trailers what only its head may say of the client and its way here: an app that merges
/// trailers into the head would believe it.
pub fn clean_trailers(mut trailers: HeaderMap) -> HeaderMap {
    const NEVER: [&str; 5] = ["forwarded", "via", "traceparent", "tracestate", "b3"];
    let goes = |name: &&HeaderName| {
        let text = name.as_str();
        let bytes = text.as_bytes();
        is_claim(bytes) || NEVER.contains(&text) || OURS.iter().any(|ours| is_spelling(bytes, ours))
    };
    let dropped: Vec<HeaderName> = trailers.keys().filter(goes).cloned().collect();
    for name in dropped {
        trailers.remove(name);
    }
    trailers
}

/// Whether a name, underscores read as hyphens, speaks of the client or of how it reached a proxy.
fn is_claim(name: &[u8]) -> bool {
    let prefix = name.get(.."x-forwarded-".len()).is_some_and(|start| is_spelling(start, "x-forwarded-"));
    prefix || CLAIMS.iter().any(|claim| is_spelling(name, claim))
}

/// Whether a name, in whatever case, is `wanted` when its underscores are read as hyphens.
fn is_spelling(name: &[u8], wanted: &str) -> bool {
    let plain = name.iter().map(|byte| if *byte == b'_' { b'-' } else { byte.to_ascii_lowercase() });
    plain.eq(wanted.bytes())
}

/// An address as text, on the stack.
struct Node {
    text: [u8; 45],
    len: usize,
}

impl Node {
    fn of(address: IpAddr) -> Node {
        let mut node = Node { text: [0; 45], len: 0 };
        match address.to_canonical() {
            IpAddr::V4(address) => node.push_v4(address),
            // 45 bytes hold the longest form.
            IpAddr::V6(address) => _ = std::fmt::Write::write_fmt(&mut node, format_args!("{address}")),
        }
        node
    }

    /// Without the formatting machinery: nearly every request has one.
    fn push_v4(&mut self, address: Ipv4Addr) {
        for (place, octet) in address.octets().into_iter().enumerate() {
            if place > 0 {
                self.push(b'.');
            }
            if octet >= 100 {
                self.push(b'0' + octet / 100);
            }
            if octet >= 10 {
                self.push(b'0' + octet / 10 % 10);
            }
            self.push(b'0' + octet % 10);
        }
    }

    fn push(&mut self, byte: u8) {
        if let Some(place) = self.text.get_mut(self.len) {
            *place = byte;
            self.len += 1;
        }
    }

    fn as_bytes(&self) -> &[u8] {
        &self.text[..self.len]
    }

    fn is_ipv6(&self) -> bool {
        self.as_bytes().contains(&b':')
    }
}

impl std::fmt::Write for Node {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        text.bytes().for_each(|byte| self.push(byte));
        Ok(())
    }
}

/// Adds us to Via, with the version the message came in.
pub fn write_via(headers: &mut Fields, version: Version) {
    const HTTP_2: HeaderValue = HeaderValue::from_static("2 outrigger");
    const HTTP_11: HeaderValue = HeaderValue::from_static("1.1 outrigger");
    const HTTP_10: HeaderValue = HeaderValue::from_static("1.0 outrigger");
    match version {
        Version::HTTP_2 => headers.append("via", HTTP_2),
        Version::HTTP_10 => headers.append("via", HTTP_10),
        _ => headers.append("via", HTTP_11),
    }
}

/// Whether the message has passed a proxy of our name more than `limit` times.
pub fn has_via_loop(headers: &Fields, limit: usize) -> bool {
    let lines = headers.get_all("via");
    let hops = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    hops.filter(|hop| hop.trim_ascii().ends_with(b" outrigger")).count() > limit
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::testing::{Random, map};

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// Everything in 10.0.0.0/8 is trusted.
    fn client(peer: &str, fields: &[(&'static str, &str)]) -> IpAddr {
        let trusted = |address: IpAddr| matches!(address, IpAddr::V4(v4) if v4.octets()[0] == 10);
        client_address(ip(peer), &map(fields), &trusted)
    }

    #[test]
    fn only_trusted_hops_are_believed_counted_from_the_right() {
        let chain = [("x-forwarded-for", "6.6.6.6, 192.0.2.7, 10.0.0.9")];
        assert_eq!(client("203.0.113.1", &chain), ip("203.0.113.1"));
        assert_eq!(client("10.0.0.1", &chain), ip("192.0.2.7"));
        assert_eq!(client("::ffff:10.0.0.1", &chain), ip("192.0.2.7"));
        assert_eq!(client("10.0.0.1", &[]), ip("10.0.0.1"));
        for (value, expected) in [
            ("10.0.0.3, 10.0.0.2", "10.0.0.3"),
            ("192.0.2.1, unknown, 10.0.0.2", "10.0.0.2"),
            ("192.0.2.1, \u{e9}, 10.0.0.2", "10.0.0.2"),
            ("192.0.2.1, , 10.0.0.2", "192.0.2.1"),
            ("", "10.0.0.1"),
            (",", "10.0.0.1"),
            ("192.0.2.1:443", "192.0.2.1"),
            ("2001:db8::1", "2001:db8::1"),
            ("[2001:db8::1]:443", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("[::ffff:192.0.2.1]", "192.0.2.1"),
            ("_hidden", "10.0.0.1"),
            ("192.0.2", "10.0.0.1"),
        ] {
            assert_eq!(client("10.0.0.1", &[("x-forwarded-for", value)]), ip(expected), "{value}");
        }
        let lines = [("x-forwarded-for", "192.0.2.1"), ("x-forwarded-for", "192.0.2.2, 10.0.0.2")];
        assert_eq!(client("10.0.0.1", &lines), ip("192.0.2.2"));
    }

    #[test]
    fn what_is_remembered_is_what_would_be_made() {
        let (mut memory, mut random) = (Memory::default(), Random::new(7));
        let long = "h".repeat(HOST_MAX + 1);
        let hosts = ["", "a.example", "b.example", "a.example:80", "[::1]", "x_y", &long];
        let claims =
            ["x-forwarded-for", "x-forwarded-host", "forwarded", "via", "x-real-ip", "accept", "x_forwarded_for"];
        let mut pick = |many: usize| random.below(many as u64) as usize;
        for _ in 0..20_000 {
            let hop = Hop {
                peer: [ip("192.0.2.1"), ip("192.0.2.2"), ip("2001:db8::1"), ip("::ffff:192.0.2.1")][pick(4)],
                peer_trusted: pick(8) == 0,
                scheme: ["http", "https"][pick(2)],
                host: hosts[pick(hosts.len())],
            };
            let version = [Version::HTTP_10, Version::HTTP_11, Version::HTTP_2][pick(3)];
            let came = map(&[(claims[pick(claims.len())], "6.6.6.6"), ("accept", "*/*")]);
            let (mut remembered, mut made) = (came.clone(), came);
            memory.write(&mut remembered, &hop, version);
            write(&mut made, &hop);
            write_via(&mut made, version);
            assert_eq!(remembered, made);
            assert_eq!(remembered.get("x-forwarded-for"), made.get("x-forwarded-for"));
        }
    }

    #[test]
    fn a_chain_is_not_followed_for_ever() {
        for (hops, expected) in [(HOPS_MAX - 1, "6.6.6.6"), (HOPS_MAX, "10.0.0.2"), (HOPS_MAX + 1, "10.0.0.2")] {
            let chain = format!("6.6.6.6{}", ", 10.0.0.2".repeat(hops));
            assert_eq!(client("10.0.0.1", &[("x-forwarded-for", &chain)]), ip(expected), "{hops}");
        }
    }

    /// A line with an odd byte in it must not make what stands left of it, or in another field, the last word.
    #[test]
    fn garbage_does_not_open_a_way_around_the_chain() {
        let forged = [("x-forwarded-for", "6.6.6.6"), ("x-forwarded-for", "\u{e9}"), ("forwarded", "for=6.6.6.6")];
        assert_eq!(client("10.0.0.1", &forged), ip("10.0.0.1"));
        let joined = [("x-forwarded-for", "6.6.6.6, \u{e9}, 192.0.2.1"), ("forwarded", "for=6.6.6.6")];
        assert_eq!(client("10.0.0.1", &joined), ip("192.0.2.1"));
    }

    #[test]
    fn forwarded_is_read_with_its_quotes() {
        for (value, expected) in [
            ("for=192.0.2.60;proto=http, For=\"[2001:db8::7]:1\"", "2001:db8::7"),
            ("for=192.0.2.60 ; by=203.0.113.43", "192.0.2.60"),
            ("by=x;FOR = \"192.0.2.60:80\"", "192.0.2.60"),
            ("for=192.0.2.60, for=10.0.0.2", "192.0.2.60"),
            ("for=192.0.2.60,, for=10.0.0.2,", "192.0.2.60"),
            // A host that the client chose and a trusted hop quoted.
            ("for=192.0.2.60;host=\"x,for=6.6.6.6\"", "192.0.2.60"),
            ("for=192.0.2.60;host=\"x;for=6.6.6.6\"", "192.0.2.60"),
            ("for=192.0.2.60;host=\"\\\",for=6.6.6.6\"", "192.0.2.60"),
            // What cannot be read ends the search.
            ("for=6.6.6.6, for=\"", "10.0.0.1"),
            ("for=6.6.6.6;for=7.7.7.7", "10.0.0.1"),
            ("for=6.6.6.6, proto=https", "10.0.0.1"),
            ("for=6.6.6.6, for=unknown, for=10.0.0.2", "10.0.0.2"),
            ("for=\"6.6.6.\\6\"", "10.0.0.1"),
            ("for", "10.0.0.1"),
        ] {
            assert_eq!(client("10.0.0.1", &[("forwarded", value)]), ip(expected), "{value}");
        }
        let lines = [("forwarded", "for=6.6.6.6"), ("forwarded", "for=\"x")];
        assert_eq!(client("10.0.0.1", &lines), ip("10.0.0.1"));
    }

    #[test]
    fn the_scheme_is_the_nearest_trusted_hops() {
        let proto = |fields: &[(&'static str, &str)]| trusted_proto(true, &map(fields));
        assert_eq!(proto(&[("x-forwarded-proto", "HTTPS")]), Some("https"));
        assert_eq!(proto(&[("x-forwarded-proto", "https, http")]), Some("http"));
        assert_eq!(proto(&[("x-forwarded-proto", "https"), ("x-forwarded-proto", "http")]), Some("http"));
        assert_eq!(proto(&[("forwarded", "for=1.1.1.1;proto=http, for=x;proto=\"https\"")]), Some("https"));
        assert_eq!(proto(&[("x-forwarded-proto", "ftp"), ("forwarded", "proto=https")]), None);
        assert_eq!(proto(&[("forwarded", "proto=https, for=\"")]), None);
        assert_eq!(proto(&[]), None);
        assert_eq!(trusted_proto(false, &map(&[("x-forwarded-proto", "https")])), None);
    }

    fn told(given: &[(&'static str, &str)], peer_trusted: bool) -> Fields {
        let mut headers = map(given);
        write(&mut headers, &Hop { peer: ip("192.0.2.1"), peer_trusted, scheme: "http", host: "a.example" });
        headers
    }

    #[test]
    fn a_spoofed_chain_is_replaced_and_a_trusted_one_grows() {
        let given = [
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-for", ""),
            ("x-forwarded-for", "2.2.2.2, 3.3.3.3"),
            ("forwarded", "for=1.1.1.1"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "evil.example"),
        ];
        let spoofed = told(&given, false);
        assert_eq!(spoofed.get("x-forwarded-for").unwrap(), "192.0.2.1");
        assert_eq!(spoofed.get("x-forwarded-proto").unwrap(), "http");
        assert_eq!(spoofed.get("x-forwarded-host").unwrap(), "a.example");
        assert_eq!(spoofed.get("forwarded").unwrap(), "for=192.0.2.1;proto=http;host=a.example");
        let grown = told(&given, true);
        assert_eq!(grown.get("x-forwarded-for").unwrap(), "1.1.1.1, 2.2.2.2, 3.3.3.3, 192.0.2.1");
        assert_eq!(grown.get("x-forwarded-proto").unwrap(), "https");
        assert_eq!(grown.get("x-forwarded-host").unwrap(), "evil.example");
        assert_eq!(grown.get("forwarded").unwrap(), "for=1.1.1.1, for=192.0.2.1;proto=http;host=a.example");
        for headers in [&spoofed, &grown] {
            let lines = |name| headers.get_all(name).count();
            assert_eq!((lines("x-forwarded-for"), lines("forwarded"), lines("x-forwarded-host")), (1, 1, 1));
        }
        let fresh = told(&[], true);
        assert_eq!(fresh.get("x-forwarded-proto").unwrap(), "http");
        assert_eq!(fresh.get("x-forwarded-host").unwrap(), "a.example");
    }

    #[test]
    fn an_untrusted_peer_cannot_say_who_it_is_in_any_spelling() {
        let given = [
            ("x-forwarded-port", "1"),
            ("x-forwarded-user", "admin"),
            ("x-real-ip", "1.1.1.1"),
            ("true-client-ip", "1.1.1.1"),
            ("x_forwarded_for", "1.1.1.1"),
            ("x-forwarded_proto", "https"),
            ("x_real_ip", "1.1.1.1"),
            ("content_length", "5"),
            ("transfer-encoding_", "stays"),
            ("transfer_encoding", "chunked"),
            ("content_type", "a/b"),
            ("x_request_id", "evil"),
            ("x-request_timeout_ms", "1"),
            ("x-forwarder", "stays"),
            ("x-real-ips", "stays"),
            ("x_y", "stays"),
            ("content-type", "stays"),
            ("te", "stays"),
        ];
        let ours = ["forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"];
        let left = |peer_trusted| {
            let headers = told(&given, peer_trusted);
            let mut names: Vec<String> =
                headers.names().map(|name| String::from_utf8(name.as_bytes().to_vec()).unwrap()).collect();
            names.retain(|name| !ours.contains(&name.as_str()));
            names.sort();
            names
        };
        let harmless = ["content-type", "te", "transfer-encoding_", "x-forwarder", "x-real-ips", "x_y"];
        assert_eq!(left(false), harmless);
        let mut kept = harmless.to_vec();
        kept.extend(["true-client-ip", "x-forwarded-port", "x-forwarded-user", "x-real-ip"]);
        kept.sort_unstable();
        assert_eq!(left(true), kept);
    }

    #[test]
    fn hosts_and_addresses_are_quoted_where_they_must_be() {
        for (peer, host, expected) in [
            ("2001:db8::1", "[::1]:8443", "for=\"[2001:db8::1]\";proto=https;host=\"[::1]:8443\""),
            ("::ffff:192.0.2.1", "a:80", "for=192.0.2.1;proto=https;host=\"a:80\""),
            ("0.0.0.0", "", "for=0.0.0.0;proto=https"),
            ("192.0.2.1", "a\"b", "for=192.0.2.1;proto=https"),
        ] {
            let mut headers = Fields::default();
            write(&mut headers, &Hop { peer: ip(peer), peer_trusted: false, scheme: "https", host });
            assert_eq!(headers.get("forwarded").unwrap(), expected);
        }
    }

    #[test]
    fn what_cannot_be_written_leaves_nothing_of_others() {
        let mut headers = map(&[("x-forwarded-host", "evil.example"), ("forwarded", "for=1.1.1.1")]);
        write(&mut headers, &Hop { peer: ip("192.0.2.1"), peer_trusted: false, scheme: "http", host: "a\nb" });
        assert!(!headers.contains("x-forwarded-host") && !headers.contains("forwarded"));
        assert_eq!(headers.get("x-forwarded-for").unwrap(), "192.0.2.1");
    }

    #[test]
    fn addresses_are_written_as_the_library_writes_them() {
        let mut random = Random::new(1);
        let check = |address: IpAddr| {
            let canonical = address.to_canonical().to_string();
            assert_eq!(Node::of(address).as_bytes(), canonical.as_bytes());
        };
        for _ in 0..2000 {
            check(IpAddr::V4(Ipv4Addr::from(random.below(1 << 32) as u32)));
            let bits = u128::from(random.below(1 << 53)) << random.below(76);
            check(IpAddr::V6(bits.into()));
        }
        ["0.0.0.0", "255.255.255.255", "9.10.99.100", "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"]
            .into_iter()
            .for_each(|text| check(ip(text)));
    }

    /// What one of us writes, another of us that trusts it reads.
    #[test]
    fn our_own_chain_is_read_back() {
        for peer in ["192.0.2.1", "2001:db8::1", "::ffff:192.0.2.9"] {
            for name in [X_FORWARDED_FOR, "forwarded"] {
                let mut headers = Fields::default();
                write(&mut headers, &Hop { peer: ip(peer), peer_trusted: false, scheme: "https", host: "a:1" });
                headers.remove(if name == X_FORWARDED_FOR { "forwarded" } else { X_FORWARDED_FOR });
                let trusted = |address: IpAddr| address == ip("10.0.0.1");
                assert_eq!(client_address(ip("10.0.0.1"), &headers, &trusted), ip(peer).to_canonical());
                headers.remove(X_FORWARDED_PROTO);
                let expected = (name == "forwarded").then_some("https");
                assert_eq!(trusted_proto(true, &headers), expected);
            }
        }
    }

    #[test]
    fn loops_are_counted_by_our_name() {
        let mut headers = map(&[("via", "1.1 other, 1.1 outrigger")]);
        assert!(!has_via_loop(&headers, 1));
        write_via(&mut headers, Version::HTTP_2);
        assert!(has_via_loop(&headers, 1) && !has_via_loop(&headers, 2));
        let others = map(&[("via", "1.1 not-outrigger, 1.1 outrigger2, outrigger")]);
        assert!(!has_via_loop(&others, 0) && !has_via_loop(&Fields::default(), 0));
    }

    #[test]
    fn via_says_how_the_message_came() {
        for (version, expected) in
            [(Version::HTTP_10, "1.0 outrigger"), (Version::HTTP_11, "1.1 outrigger"), (Version::HTTP_2, "2 outrigger")]
        {
            let mut headers = Fields::default();
            write_via(&mut headers, version);
            assert_eq!(headers.get("via").unwrap(), expected);
        }
    }
}
