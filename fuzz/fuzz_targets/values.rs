//! Single values that strangers write: paths, trace contexts, forwarding chains. Asserts: no panic; a normalised path is
//! normal, stays below the root and names no dot segment; a trace context that is read is written and read again as the
//! same; whatever an untrusted client claims, its address is its own; what is written of a hop may stand in a head.
#![no_main]

use std::net::{IpAddr, Ipv4Addr};

use http::{HeaderValue, Version};
use libfuzzer_sys::fuzz_target;
use outrigger::core::fields::Fields;
use outrigger::core::{forwarded, path, trace};

const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const HOPS: [&str; 10] = [
    "x-forwarded-for",
    "forwarded",
    "x-forwarded-proto",
    "x-forwarded-host",
    "via",
    "b3",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-sampled",
    "x-b3-flags",
];

fuzz_target!(|data: &[u8]| {
    let Some((&which, rest)) = data.split_first() else { return };
    match which % 3 {
        0 => std::str::from_utf8(rest).into_iter().for_each(paths),
        1 => contexts(rest),
        _ => chains(rest),
    }
});

fn paths(text: &str) {
    let Ok(normal) = path::normalise(text) else { return };
    assert_eq!(path::normalise(&normal).as_deref(), Ok(&*normal), "once is enough");
    if text != "*" {
        assert!(normal.starts_with('/') && !normal.contains("//"), "{normal:?}");
        assert!(!path::has_dot_segments(&normal), "{normal:?}");
        // Whoever decodes once more, as many apps do, is not led above the root either.
        let lower = normal.to_lowercase();
        for hidden in ["%2e", "%2f", "%5c", "%00", "\\", "/..;", "/.;"] {
            assert!(!lower.contains(hidden), "{normal:?}");
        }
    }
}

fn contexts(bytes: &[u8]) {
    if let Some(context) = trace::parse_traceparent(bytes) {
        assert!(context.trace_id != 0 && context.parent_id != 0);
        assert_eq!(trace::parse_traceparent(&trace::write_traceparent(&context)), Some(context));
    }
    trace::tracestate_ok(bytes.split(|byte| *byte == b'\n'));
    trace::baggage_ok(bytes.split(|byte| *byte == b'\n'));
}

/// Lines of a head: a byte that chooses the name, the value, and a line feed.
fn chains(bytes: &[u8]) {
    let mut fields = Fields::default();
    for line in bytes.split(|byte| *byte == b'\n').take(40) {
        let Some((&name, value)) = line.split_first() else { continue };
        if let Ok(value) = HeaderValue::from_bytes(value) {
            fields.append(HOPS[usize::from(name) % HOPS.len()], value);
        }
    }
    assert_eq!(forwarded::client_address(PEER, &fields, &|_| false), PEER);
    forwarded::client_address(PEER, &fields, &|_| true);
    assert_eq!(forwarded::trusted_proto(false, &fields), None);
    let proto = forwarded::trusted_proto(true, &fields);
    assert!(matches!(proto, None | Some("http" | "https")));
    if let Some(context) = trace::parse_b3(&fields) {
        assert!(context.trace_id != 0 && context.parent_id != 0);
    }
    for peer_trusted in [false, true] {
        let mut fields = fields.clone();
        let hop = forwarded::Hop { peer: PEER, peer_trusted, scheme: "https", host: "a.example" };
        forwarded::write(&mut fields, &hop);
        forwarded::write_via(&mut fields, Version::HTTP_11);
        forwarded::has_via_loop(&fields, 4);
        for (_, value) in fields.iter() {
            assert!(HeaderValue::from_bytes(value.as_bytes()).is_ok());
        }
        if !peer_trusted {
            let client = forwarded::client_address(PEER, &fields, &|address| address == PEER);
            assert_eq!(client, PEER, "an untrusted client's claims are gone");
        }
    }
}
