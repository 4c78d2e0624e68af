//! Fields that belong to one connection and must not travel further (RFC 9110 §7.6.1), and the few rules about
//! upgrades and cookies that go with them. Nothing is written when nothing has to change.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Version};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// Protocols a request may be upgraded to through us (IANA HTTP Upgrade Token Registry); `h2c` never is, because the
/// connection behind us would then carry requests that we do not see.
const UPGRADES: [&str; 3] = ["websocket", "tcp", "connect-udp"];

/// What Connection may not name: removing these would change who asked, for what, or how the message is framed.
const NOT_NOMINATED: &[&str] = &[
    "host",
    "content-length",
    "content-type",
    "transfer-encoding",
    "authorization",
    "cookie",
    "forwarded",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-forwarded-port",
    "x-real-ip",
    "x-request-id",
    "traceparent",
    "tracestate",
    "baggage",
    "trailer",
];

/// Removes hop-by-hop fields from a request. `te: trailers` stays, because gRPC and trailers need it end to end.
pub fn strip_request(headers: &mut HeaderMap) {
    let trailers = wants_trailers(headers);
    strip(headers);
    if headers.contains_key(header::TE) {
        headers.remove(header::TE);
    }
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    if headers.contains_key(header::PROXY_AUTHORIZATION) {
        headers.remove(header::PROXY_AUTHORIZATION);
    }
}

/// Removes hop-by-hop fields from a response.
pub fn strip_response(headers: &mut HeaderMap) {
    strip(headers);
    if headers.contains_key(header::PROXY_AUTHENTICATE) {
        headers.remove(header::PROXY_AUTHENTICATE);
    }
}

fn strip(headers: &mut HeaderMap) {
    if headers.contains_key(header::CONNECTION) {
        for name in nominated(headers) {
            headers.remove(name);
        }
        headers.remove(header::CONNECTION);
    }
    for name in [KEEP_ALIVE, PROXY_CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE, HTTP2_SETTINGS] {
        if headers.contains_key(&name) {
            headers.remove(name);
        }
    }
}

/// The names on every line of Connection, less those that must stay. TE is handled by itself.
fn nominated(headers: &HeaderMap) -> Vec<HeaderName> {
    let lines = headers.get_all(header::CONNECTION).iter();
    let names = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    names
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .filter(|name| *name != header::TE && !NOT_NOMINATED.contains(&name.as_str()))
        .collect()
}

fn wants_trailers(headers: &HeaderMap) -> bool {
    let mut words = headers.get_all(header::TE).iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    words.any(|word| word.trim_ascii().eq_ignore_ascii_case(b"trailers"))
}

/// Whether a Connection line names `word`.
pub fn connection_names(headers: &HeaderMap, word: &[u8]) -> bool {
    let mut words =
        headers.get_all(header::CONNECTION).iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    words.any(|named| named.trim_ascii().eq_ignore_ascii_case(word))
}

/// The protocol this request asks to upgrade to, if it may: HTTP/1.1, GET, no body, Connection names Upgrade, and one
/// protocol of the list. Everything else goes on as an ordinary request.
pub fn upgrade_token(method: &Method, version: Version, headers: &HeaderMap) -> Option<String> {
    let mut lines = headers.get_all(header::UPGRADE).iter();
    let token = lines.next()?.to_str().ok()?.trim();
    let known = UPGRADES.iter().any(|known| known.eq_ignore_ascii_case(token));
    let body = headers.contains_key(header::CONTENT_LENGTH) || headers.contains_key(header::TRANSFER_ENCODING);
    let may = version == Version::HTTP_11
        && *method == Method::GET
        && lines.next().is_none()
        && known
        && !body
        && connection_names(headers, b"upgrade");
    may.then(|| token.to_owned())
}

/// HTTP/2 may split cookies over lines (RFC 9113 §8.2.3); HTTP/1.1 may not.
pub fn join_cookies(headers: &mut HeaderMap) {
    let mut lines = headers.get_all(header::COOKIE).iter();
    if lines.next().is_none() || lines.next().is_none() {
        return;
    }
    let lines: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(joined) = HeaderValue::from_bytes(&lines.join(&b"; "[..])) {
        headers.insert(header::COOKIE, joined);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn everything_connection_names_goes_on_every_line_of_it_but_never_what_matters() {
        let mut headers = map(&[
            ("connection", "x-one, keep-alive"),
            ("connection", "X-Two,host , authorization"),
            ("x-one", "1"),
            ("x-two", "2"),
            ("x-three", "3"),
            ("host", "a"),
            ("authorization", "b"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("te", "gzip, trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("proxy-authorization", "secret"),
        ]);
        strip_request(&mut headers);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["authorization", "host", "te", "x-three"]);
        assert_eq!(headers["te"], "trailers");
    }

    #[test]
    fn te_without_trailers_goes() {
        let mut headers = map(&[("te", "gzip"), ("connection", "te")]);
        strip_request(&mut headers);
        assert!(headers.is_empty());
    }

    #[test]
    fn a_response_loses_its_hop_too() {
        let mut headers =
            map(&[("connection", "x-hop"), ("x-hop", "1"), ("trailer", "x-sum"), ("proxy-authenticate", "Basic")]);
        strip_response(&mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["trailer"]);
    }

    #[test]
    fn only_a_clean_get_upgrades() {
        let fields = [("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket")];
        let good = map(&fields);
        assert_eq!(upgrade_token(&Method::GET, Version::HTTP_11, &good).as_deref(), Some("WebSocket"));
        assert_eq!(upgrade_token(&Method::POST, Version::HTTP_11, &good), None);
        assert_eq!(upgrade_token(&Method::GET, Version::HTTP_10, &good), None);
        for wrong in [
            &[("upgrade", "websocket")][..],
            &[("connection", "upgrade"), ("upgrade", "h2c")],
            &[("connection", "upgrade"), ("upgrade", "websocket"), ("content-length", "3")],
            &[("connection", "upgrade"), ("upgrade", "websocket"), ("upgrade", "websocket")],
        ] {
            assert_eq!(upgrade_token(&Method::GET, Version::HTTP_11, &map(wrong)), None);
        }
    }

    #[test]
    fn cookies_are_joined() {
        let mut headers = map(&[("cookie", "a=1"), ("cookie", "b=2")]);
        join_cookies(&mut headers);
        assert_eq!(headers.get_all("cookie").iter().collect::<Vec<_>>(), ["a=1; b=2"]);
    }
}
