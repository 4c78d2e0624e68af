//! The hops before this one, in both forms: `X-Forwarded-For` and the elements of `Forwarded` (RFC 7239).

use std::net::IpAddr;

use super::{Hop, Node, X_FORWARDED_HOST, addresses, element_addresses};
use crate::core::fields::Fields;

/// What a believed peer says of the hops before, as addresses and as elements, each with its comma. The form that it
/// has not is made of the one it has (RFC 7239 §7.4), as far as that consists of addresses.
pub(super) fn before(headers: &Fields, hop: &Hop<'_>) -> (Vec<u8>, Vec<u8>) {
    if !hop.peer_trusted {
        return (Vec::new(), Vec::new());
    }
    let (mut list, mut elements) = (said(headers, "x-forwarded-for"), said(headers, "forwarded"));
    if list.is_empty() {
        for address in known(element_addresses(headers)) {
            list.extend_from_slice(Node::of(address).as_bytes());
            list.extend_from_slice(b", ");
        }
    } else if elements.is_empty() {
        let told = headers.get(X_FORWARDED_HOST).and_then(|host| host.to_str()).filter(|host| !host.contains(','));
        // Scheme and host are the client's own: they are the first hop's.
        let mut first = Some((hop.scheme, told.unwrap_or(hop.host)));
        for address in known(addresses(headers)) {
            let node = Node::of(address);
            element(&node, first.take()).into_iter().for_each(|piece| elements.extend_from_slice(piece));
            elements.extend_from_slice(b", ");
        }
    }
    (list, elements)
}

/// The addresses up to the first thing from the right that is none, from the left.
fn known(hops: impl Iterator<Item = Option<IpAddr>>) -> impl Iterator<Item = IpAddr> {
    let mut known: Vec<IpAddr> = hops.map_while(|hop| hop).collect();
    known.reverse();
    known.into_iter()
}

fn said(headers: &Fields, name: &str) -> Vec<u8> {
    let mut chain = Vec::new();
    for line in headers.get_all(name).filter(|line| !line.is_empty()) {
        chain.extend_from_slice(line.as_bytes());
        chain.extend_from_slice(b", ");
    }
    chain
}

/// The pieces of `for=…;proto=…;host=…`, quoted where RFC 7239 §4 asks for it; scheme and host where they are known.
pub(super) fn element<'a>(node: &'a Node, told: Option<(&'a str, &'a str)>) -> [&'a [u8]; 10] {
    let (open, close): (&[u8], &[u8]) = if node.is_ipv6() { (b"\"[", b"]\"") } else { (b"", b"") };
    let Some((scheme, host)) = told else {
        return [b"for=", open, node.as_bytes(), close, b"", b"", b"", b"", b"", b""];
    };
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    // A quote or a backslash would need an escape, and no host has one.
    let (label, quote, host): (&[u8], &[u8], &str) = match host {
        host if host.is_empty() || host.contains(['"', '\\']) => (b"", b"", ""),
        host if host.bytes().all(token) => (b";host=", b"", host),
        host => (b";host=", b"\"", host),
    };
    let (scheme, host) = (scheme.as_bytes(), host.as_bytes());
    [b"for=", open, node.as_bytes(), close, b";proto=", scheme, label, quote, host, quote]
}

#[cfg(test)]
mod tests {
    use super::super::write;
    use super::*;
    use crate::core::testing::map;

    /// Both forms, as an app gets them from a trusted peer 10.0.0.1.
    fn told(fields: &[(&'static str, &str)]) -> (String, String) {
        let mut headers = map(fields);
        let peer = IpAddr::from([10, 0, 0, 1]);
        write(&mut headers, &Hop { peer, peer_trusted: true, scheme: "https", host: "shop.example" });
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str()).unwrap_or_default().to_owned();
        (text("x-forwarded-for"), text("forwarded"))
    }

    #[test]
    fn an_app_learns_the_same_client_from_either_form() {
        const US: &str = "for=10.0.0.1;proto=https;host=shop.example";
        const FIRST: &str = ";proto=https;host=shop.example, ";
        for (name, value, list, elements) in [
            ("x-forwarded-for", "203.0.113.9", "203.0.113.9, ", format!("for=203.0.113.9{FIRST}")),
            ("x-forwarded-for", "2001:db8::1", "2001:db8::1, ", format!("for=\"[2001:db8::1]\"{FIRST}")),
            ("x-forwarded-for", "1.1.1.1,2.2.2.2", "1.1.1.1,2.2.2.2, ", format!("for=1.1.1.1{FIRST}for=2.2.2.2, ")),
            // Beyond what is no address nothing is known.
            ("x-forwarded-for", "1.1.1.1, ?, 2.2.2.2", "1.1.1.1, ?, 2.2.2.2, ", format!("for=2.2.2.2{FIRST}")),
            ("forwarded", "for=1.1.1.1, for=_a, for=2.2.2.2", "2.2.2.2, ", "for=1.1.1.1, for=_a, for=2.2.2.2, ".into()),
            ("forwarded", "for=\"[2001:db8::1]:7\"", "2001:db8::1, ", "for=\"[2001:db8::1]:7\", ".into()),
            ("forwarded", "for=_a", "", "for=_a, ".into()),
            ("x-other", "", "", String::new()),
        ] {
            let expected = (format!("{list}10.0.0.1"), format!("{elements}{US}"));
            assert_eq!(told(&[(name, value)]), expected, "{name}: {value}");
        }
        // Where both are there, each as it came; and a host that the first hop has told.
        let both = told(&[("x-forwarded-for", "192.0.2.7"), ("forwarded", "for=192.0.2.8")]);
        assert_eq!(both, ("192.0.2.7, 10.0.0.1".to_owned(), format!("for=192.0.2.8, {US}")));
        let (_, elements) = told(&[("x-forwarded-for", "192.0.2.7"), ("x-forwarded-host", "www.example:81")]);
        assert_eq!(elements, format!("for=192.0.2.7;proto=https;host=\"www.example:81\", {US}"));
    }
}
