//! Fields that belong to one connection and must not travel further (RFC 9110 §7.6.1), and the few rules about
//! upgrades and cookies that go with them. Nothing is written when nothing has to change.
//!
//! One pass over the names finds what there is to do: it costs a quarter of looking each of them up (measured with
//! twelve fields: 18 ns against 80). What the operator adds, sets or removes is not decided here.

use http::header::{self, HeaderValue};
use http::{Method, Version};

use super::fields::{Fields, Marks, Name, Value};

/// Protocols a request may be upgraded to through us (IANA HTTP Upgrade Token Registry); `h2c` never is, because the
/// connection behind us would then carry requests that we do not see.
const UPGRADES: [&str; 3] = ["websocket", "tcp", "connect-udp"];

/// What [`strip`] looks for.
const STRIPPED: Marks = Marks::of(STRIPPED_NAMES);
const STRIPPED_NAMES: &[&str] = &[
    "te",
    "connection",
    "upgrade",
    "keep-alive",
    "http2-settings",
    "proxy-connection",
    "transfer-encoding",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-authentication-info",
];

/// Hop-by-hop whether Connection names it or not; Connection and TE are handled by themselves. `HTTP2-Settings` goes
/// with the `h2c` that is never passed on.
fn is_hop_by_hop(name: Name<'_>) -> bool {
    // By length first: most names are none of these.
    match name.length() {
        7 => name.is("upgrade"),
        10 => name.is("keep-alive"),
        14 => name.is("http2-settings"),
        16 => name.is("proxy-connection"),
        17 => name.is("transfer-encoding"),
        18 => name.is("proxy-authenticate"),
        19 => name.is("proxy-authorization"),
        25 => name.is("proxy-authentication-info"),
        _ => false,
    }
}

/// What Connection may not name, beside `x-forwarded-*` and `x-b3-*`: removing these would change who asked, for what,
/// under which limits, or how the message is framed.
const NOT_NOMINATED: &[&str] = &[
    "host",
    "content-length",
    "content-type",
    "content-encoding",
    "transfer-encoding",
    "trailer",
    "te",
    "expect",
    "authorization",
    "cookie",
    "set-cookie",
    "cache-control",
    "vary",
    "origin",
    "forwarded",
    "via",
    "x-real-ip",
    "x-client-ip",
    "true-client-ip",
    "x-request-id",
    "traceparent",
    "tracestate",
    "baggage",
    "b3",
    "idempotency-key",
    "grpc-timeout",
    "x-request-timeout-ms",
    "x-envoy-expected-rq-timeout-ms",
];

/// Removes hop-by-hop fields from a request. `te: trailers` stays, because gRPC and trailers need it end to end.
pub fn strip_request(headers: &mut Fields) {
    if strip(headers) {
        keep_trailers(headers);
    }
}

/// Removes hop-by-hop fields from a response.
pub fn strip_response(headers: &mut Fields) {
    if strip(headers) {
        headers.remove("te"); // means nothing in a response
    }
}

/// Removes all but TE; true when there is one.
fn strip(headers: &mut Fields) -> bool {
    if !headers.may_have(&STRIPPED) {
        return false;
    }
    let (mut connection, mut te, mut others) = (false, false, false);
    for name in headers.names() {
        match name.length() {
            2 => te |= name.is("te"),
            10 if name.is("connection") => connection = true,
            _ => others |= is_hop_by_hop(name),
        }
    }
    if connection {
        strip_nominated(headers);
    }
    if others {
        headers.retain(|name| !is_hop_by_hop(name));
    }
    te
}

/// Removes Connection, every line of it, and what it names less what must stay.
fn strip_nominated(headers: &mut Fields) {
    let words = headers.get_all("connection").flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    // The two that most lines name are removed below, or no field at all.
    let usual = |name: &[u8]| name.eq_ignore_ascii_case(b"keep-alive") || name.eq_ignore_ascii_case(b"close");
    let named = words.map(<[u8]>::trim_ascii).filter(|name| !name.is_empty() && !usual(name));
    let named = named.filter_map(|name| std::str::from_utf8(name).ok());
    let nominated: Vec<String> = named.map(str::to_ascii_lowercase).collect();
    headers.remove("connection");
    for name in nominated.iter().filter(|name| may_be_nominated(name)) {
        headers.remove(name);
    }
}

fn may_be_nominated(name: &str) -> bool {
    !name.starts_with("x-forwarded-") && !name.starts_with("x-b3-") && !NOT_NOMINATED.contains(&name)
}

/// Leaves of TE exactly `trailers`, or nothing.
fn keep_trailers(headers: &mut Fields) {
    let mut words = headers.get_all("te").flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    let trailers = words.any(|word| word.trim_ascii().eq_ignore_ascii_case(b"trailers"));
    drop(words);
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    } else {
        headers.remove("te");
    }
}

/// Whether a Connection line names `word`.
pub fn connection_names(headers: &Fields, word: &[u8]) -> bool {
    let mut words = headers.get_all("connection").flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    words.any(|named| named.trim_ascii().eq_ignore_ascii_case(word))
}

/// Whether the head of a request announces a body. A length of zero is none.
pub fn announces_body(headers: &Fields) -> bool {
    let some = |length: Value<'_>| !length.as_bytes().iter().all(|digit| *digit == b'0');
    headers.contains("transfer-encoding") || headers.get_all("content-length").any(some)
}

/// Whether a value of Upgrade names a protocol that may be passed on.
pub fn names_upgrade(value: Value<'_>) -> bool {
    let mut tokens = value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    tokens.any(|token| UPGRADES.iter().any(|known| known.as_bytes().eq_ignore_ascii_case(token)))
}

/// The protocol this request asks to upgrade to, if it may: HTTP/1.1, GET, no body, Connection names Upgrade, and one
/// protocol of the list. Everything else goes on as an ordinary request.
pub fn upgrade_token(method: &Method, version: Version, headers: &Fields) -> Option<String> {
    let mut lines = headers.get_all("upgrade");
    let line = lines.next()?;
    let token = line.to_str()?.trim();
    let may = version == Version::HTTP_11
        && *method == Method::GET
        && lines.next().is_none()
        && !token.contains(',')
        && names_upgrade(line)
        && !announces_body(headers)
        && connection_names(headers, b"upgrade");
    may.then(|| token.to_owned())
}

/// HTTP/2 may split cookies over lines (RFC 9113 §8.2.3); HTTP/1.1 may not.
pub fn join_cookies(headers: &mut Fields) {
    let lines: Vec<&[u8]> = headers.get_all("cookie").map(Value::as_bytes).collect();
    if lines.len() > 1 {
        let joined = lines.join(&b"; "[..]);
        headers.make(header::COOKIE, &[&joined]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::testing::{Random, map};

    fn names(headers: &Fields) -> Vec<&str> {
        let mut names: Vec<_> = headers.names().map(|name| std::str::from_utf8(name.as_bytes()).unwrap()).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn each_field_of_one_connection_is_looked_for() {
        for name in STRIPPED_NAMES {
            let mut headers = map(&[(name, "x"), ("accept", "*/*")]);
            strip_response(&mut headers);
            assert_eq!(names(&headers), ["accept"], "{name}");
        }
        let unknown = |length| !STRIPPED_NAMES.iter().any(|name| name.len() == length);
        assert!([7, 10, 14, 16, 17, 18, 19, 25].into_iter().all(|length| !unknown(length)));
    }

    #[test]
    fn everything_connection_names_goes_on_every_line_of_it_but_never_what_matters() {
        let mut headers = map(&[
            ("connection", "x-one, keep-alive"),
            ("connection", "X-Two,host , authorization,,"),
            ("connection", "Upgrade\t, X-Four"),
            ("x-one", "1"),
            ("x-one", "again"),
            ("x-two", "2"),
            ("x-three", "3"),
            ("x-four", "4"),
            ("host", "a"),
            ("authorization", "b"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("te", "gzip, trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("http2-settings", "AAMAAABk"),
            ("proxy-authorization", "secret"),
            ("trailer", "x-sum"),
        ]);
        strip_request(&mut headers);
        assert_eq!(names(&headers), ["authorization", "host", "te", "trailer", "x-three"]);
        assert_eq!(headers.get("te").unwrap(), "trailers");
    }

    #[test]
    fn nothing_of_the_deny_list_can_be_nominated() {
        for name in NOT_NOMINATED.iter().chain(&["x-forwarded-for", "x-forwarded-port", "x-b3-traceid"]) {
            let mut headers = map(&[("connection", name), (name, "trailers")]);
            let upper = HeaderValue::try_from(name.to_ascii_uppercase()).unwrap();
            headers.append(header::CONNECTION, upper);
            strip_request(&mut headers);
            // Hop-by-hop by itself, whoever names it.
            let left = if *name == "transfer-encoding" { vec![] } else { vec![*name] };
            assert_eq!(names(&headers), left);
        }
    }

    #[test]
    fn odd_words_in_connection_are_no_names() {
        let mut headers = map(&[("connection", "a b, \"q\", é, (c), close"), ("close", "1"), ("x", "y")]);
        strip_request(&mut headers);
        assert_eq!(names(&headers), ["close", "x"]);
    }

    #[test]
    fn te_keeps_exactly_trailers() {
        for (given, kept) in [
            (&["trailers"][..], &["trailers"][..]),
            (&["Trailers"], &["trailers"]),
            (&["gzip", "trailers"], &["trailers"]),
            (&["trailers", "gzip"], &["trailers"]),
            (&["trailers", "trailers"], &["trailers"]),
            (&["gzip;q=0.5, trailers ,x"], &["trailers"]),
            (&["gzip"], &[]),
            (&["trailers;q=0.5"], &[]),
            (&[""], &[]),
        ] {
            let mut headers = map(&[("connection", "te")]);
            given.iter().for_each(|value| headers.append(header::TE, value.parse::<HeaderValue>().unwrap()));
            strip_request(&mut headers);
            assert_eq!(headers.get_all("te").collect::<Vec<_>>(), kept, "{given:?}");
        }
    }

    #[test]
    fn a_response_loses_its_hop_too() {
        let mut headers = map(&[
            ("connection", "x-hop, close"),
            ("x-hop", "1"),
            ("trailer", "x-sum"),
            ("te", "trailers"),
            ("keep-alive", "timeout=5"),
            ("proxy-authenticate", "Basic"),
            ("proxy-authentication-info", "x"),
            ("set-cookie", "a=1"),
        ]);
        strip_response(&mut headers);
        assert_eq!(names(&headers), ["set-cookie", "trailer"]);
    }

    #[test]
    fn what_has_no_hop_stays_as_it_is() {
        let before = map(&[("host", "a"), ("te", "trailers"), ("cookie", "a=1"), ("cookie", "b=2"), ("x", "\u{e9}")]);
        let mut after = before.clone();
        strip_request(&mut after);
        assert_eq!(after, before);
    }

    /// Random heads against the rules said plainly, one field at a time.
    #[test]
    fn random_heads_keep_what_they_must_and_nothing_else() {
        let fields =
            ["host", "cookie", "x-a", "x-b", "connection", "keep-alive", "upgrade", "x-forwarded-for", "accept", "te"];
        let mut random = Random::new(1);
        for _ in 0..5000 {
            let mut headers = Fields::default();
            for _ in 0..random.below(8) {
                let name = http::HeaderName::from_static(random.pick(&fields));
                let value = if name == header::CONNECTION { random.pick(&fields) } else { "v" };
                headers.append(name, HeaderValue::from_static(value));
            }
            let named = |name: Name<'_>| connection_names(&headers, name.as_bytes());
            let mut expected = headers.clone();
            expected.retain(|name| match name.as_bytes() {
                b"connection" | b"keep-alive" | b"upgrade" | b"te" => false,
                b"host" | b"cookie" | b"x-forwarded-for" => true,
                _ => !named(name),
            });
            let mut stripped = headers.clone();
            strip_request(&mut stripped);
            assert_eq!(stripped, expected, "{headers:?}");
        }
    }

    #[test]
    fn only_a_clean_get_upgrades() {
        let good = [("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket")];
        let token = |method, version, fields: &[(&'static str, &str)]| upgrade_token(&method, version, &map(fields));
        let get = |fields: &[(&'static str, &str)]| token(Method::GET, Version::HTTP_11, fields);
        assert_eq!(get(&good).as_deref(), Some("WebSocket"));
        assert_eq!(get(&[good[0], good[1], ("content-length", "0")]).as_deref(), Some("WebSocket"));
        assert_eq!(token(Method::POST, Version::HTTP_11, &good), None);
        assert_eq!(token(Method::GET, Version::HTTP_10, &good), None);
        assert_eq!(token(Method::GET, Version::HTTP_2, &good), None);
        for wrong in [
            &[("upgrade", "websocket")][..],
            &[("connection", "keep-alive"), ("upgrade", "websocket")],
            &[("connection", "upgrade")],
            &[("connection", "upgrade"), ("upgrade", "h2c")],
            &[("connection", "upgrade"), ("upgrade", "websocket, h2c")],
            &[("connection", "upgrade"), ("upgrade", "websocket"), ("content-length", "3")],
            &[("connection", "upgrade"), ("upgrade", "websocket"), ("transfer-encoding", "chunked")],
            &[("connection", "upgrade"), ("upgrade", "websocket"), ("upgrade", "websocket")],
        ] {
            assert_eq!(get(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn cookies_are_joined() {
        let mut headers = map(&[("cookie", "a=1"), ("cookie", "b=2"), ("cookie", "c=\u{e9}")]);
        join_cookies(&mut headers);
        assert_eq!(headers.get_all("cookie").collect::<Vec<_>>(), ["a=1; b=2; c=\u{e9}"]);
        let single = map(&[("cookie", "a=1")]);
        let mut joined = single.clone();
        join_cookies(&mut joined);
        assert_eq!(joined, single);
    }
}
