//! The request head as each protocol wants it on the wire.
//!
//! The caller owns the meaning of the head (forwarding headers, the Host to send); this file only adapts the form,
//! and may be applied again to a request that came back. HTTP/1.1: version, origin-form target, exactly the `Host`
//! given or a made one, explicit framing. HTTP/2: `:scheme` and `:authority` instead of `Host`, no connection headers
//! (RFC 9113 §8.2.2). `te: trailers` and `trailer` pass through both: without `trailer` hyper drops chunked trailers.

use http::header::{CONNECTION, HOST, HeaderName, HeaderValue, TE, TRANSFER_ENCODING, UPGRADE};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, Method, Request, Uri, Version};
use http_body::Body;

use crate::http as codec;

/// What an endpoint contributes to a head.
pub(super) struct Target {
    pub(super) scheme: Scheme,
    pub(super) authority: Authority,
    /// `authority` as a header value, made once.
    pub(super) host: HeaderValue,
}

pub(super) fn http1<B: Body>(req: &mut codec::Request<B>, target: &Target) {
    req.version = Version::HTTP_11;
    if !req.headers.contains("host") {
        let host = match req.uri.authority() {
            Some(authority) => host_header(authority).unwrap_or_else(|| target.host.clone()),
            None => target.host.clone(),
        };
        req.headers.insert("host", host);
    }
    if req.uri.scheme().is_some() || req.uri.authority().is_some() {
        req.uri = origin_form(&req.uri);
    }
    frame(req);
}

/// hyper sends no body at all with a GET or HEAD of unknown length unless the head says `chunked`; and a POST without
/// a body should say so (RFC 9110 §8.6), or some apps answer 411.
fn frame<B: Body>(req: &mut codec::Request<B>) {
    let ended = req.body.is_end_stream();
    let known = req.body.size_hint().exact().is_some();
    let method = match req.method {
        Method::POST | Method::PUT | Method::PATCH => Payload::Expected,
        _ => Payload::Unusual,
    };
    let headers = &mut req.headers;
    if ended {
        headers.remove("transfer-encoding");
        if matches!(method, Payload::Expected) && !headers.contains("content-length") {
            headers.insert("content-length", HeaderValue::from_static("0"));
        }
    } else if !known && !headers.contains("content-length") {
        headers.insert("transfer-encoding", HeaderValue::from_static("chunked"));
    }
}

enum Payload {
    Expected,
    Unusual,
}

/// Fails only when `Host` is no authority, which the front has already refused; then the endpoint's own is used.
pub(super) fn http2<B>(req: &mut Request<B>, target: &Target) {
    *req.version_mut() = Version::HTTP_2;
    let asked = req.headers_mut().remove(HOST).and_then(|host| Authority::try_from(host.as_bytes()).ok());
    let authority = asked.or_else(|| req.uri().authority().cloned()).unwrap_or_else(|| target.authority.clone());
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(target.scheme.clone());
    parts.authority = Some(authority);
    parts.path_and_query = Some(path_and_query(req.uri()));
    // Scheme, authority and path are all present, which is all that from_parts asks for.
    if let Ok(uri) = Uri::from_parts(parts) {
        *req.uri_mut() = uri;
    }
    strip_connection_headers(req.headers_mut());
}

fn strip_connection_headers(headers: &mut HeaderMap) {
    for name in [CONNECTION, UPGRADE, TRANSFER_ENCODING, KEEP_ALIVE, PROXY_CONNECTION] {
        headers.remove(name);
    }
    if headers.get(TE).is_some_and(|te| te != "trailers") {
        headers.remove(TE);
    }
}

fn origin_form(uri: &Uri) -> Uri {
    Uri::from(path_and_query(uri))
}

fn path_and_query(uri: &Uri) -> PathAndQuery {
    uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"))
}

/// Without user information, which must not be sent (RFC 9110 §4.2.4).
fn host_header(authority: &Authority) -> Option<HeaderValue> {
    let text = authority.as_str();
    let host = text.rsplit_once('@').map_or(text, |(_, host)| host);
    HeaderValue::from_str(host).ok()
}

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::RequestBody;
    use bytes::Bytes;

    fn target() -> Target {
        Target {
            scheme: Scheme::HTTP,
            authority: Authority::from_static("app:3000"),
            host: HeaderValue::from_static("app:3000"),
        }
    }

    fn request(method: &str, uri: &str, body: RequestBody) -> codec::Request<RequestBody> {
        Request::builder().method(method).uri(uri).version(Version::HTTP_10).body(body).expect("test data").into()
    }

    fn header<'r>(req: &'r codec::Request<RequestBody>, name: &str) -> Option<&'r str> {
        req.headers.get(name).map(|value| value.to_str().expect("test data"))
    }

    #[test]
    fn http1_heads_are_origin_form_with_one_host() {
        // Goal: version, target and Host for each form a request can arrive in.
        let mut absolute = request("GET", "http://u:p@shop.test:81/a?b=c", RequestBody::Empty);
        http1(&mut absolute, &target());
        assert_eq!(absolute.uri, "/a?b=c");
        assert_eq!(absolute.version, Version::HTTP_11);
        assert_eq!(header(&absolute, "host"), Some("shop.test:81"));
        let mut bare = request("OPTIONS", "*", RequestBody::Empty);
        http1(&mut bare, &target());
        assert_eq!((bare.uri.to_string().as_str(), header(&bare, "host")), ("*", Some("app:3000")));
        let mut given = request("GET", "/", RequestBody::Empty);
        given.headers.insert(HOST, HeaderValue::from_static("kept"));
        http1(&mut given, &target());
        assert_eq!(header(&given, "host"), Some("kept"));
    }

    #[test]
    fn bodies_of_unknown_length_are_chunked_for_every_method() {
        // Goal: trap 1 of the notes; and what has no body says so where a body is usual.
        for method in ["GET", "HEAD", "DELETE", "POST"] {
            let (_sender, body) = RequestBody::channel(1);
            let mut req = request(method, "/", body);
            http1(&mut req, &target());
            assert_eq!(header(&req, "transfer-encoding"), Some("chunked"), "{method}");
        }
        let mut sized = request("GET", "/", RequestBody::Full(Bytes::from_static(b"x")));
        http1(&mut sized, &target());
        assert_eq!(header(&sized, "transfer-encoding"), None);
        let mut empty = request("POST", "/", RequestBody::Empty);
        empty.headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        http1(&mut empty, &target());
        assert_eq!((header(&empty, "transfer-encoding"), header(&empty, "content-length")), (None, Some("0")));
        let mut get = request("GET", "/", RequestBody::Empty);
        http1(&mut get, &target());
        assert_eq!(header(&get, "content-length"), None);
    }

    #[test]
    fn http2_heads_have_an_authority_and_nothing_of_one_connection() {
        // Goal: authority and path are kept, and no connection header goes along.
        let mut req = Request::post("/p?q").body(()).expect("test data");
        for (name, value) in [("host", "shop.test"), ("te", "trailers"), ("transfer-encoding", "chunked")] {
            req.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        http2(&mut req, &target());
        assert_eq!(req.uri(), "http://shop.test/p?q");
        assert_eq!((req.headers().len(), req.headers().get(TE).expect("kept").as_bytes()), (1, &b"trailers"[..]));
    }
}
