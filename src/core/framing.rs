//! What is refused because two readers could understand it differently (request smuggling), or because it is not
//! HTTP. Judged from the parsed head, for HTTP/1 and HTTP/2 alike; the HTTP engine has refused what does not parse.

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Uri, Version};

/// Why a request is refused before anything else looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ambiguity {
    LengthTwice,
    LengthDiffers,
    TransferEncoding,
    HostMissing,
    HostRepeated,
    HostInvalid,
    HostDiffers,
    Connect,
    Expectation,
    PathInvalid,
    TargetInvalid,
    UpgradeWithBody,
    ConnectionField,
}

impl Ambiguity {
    pub fn label(self) -> &'static str {
        match self {
            Ambiguity::LengthTwice => "length_twice",
            Ambiguity::LengthDiffers => "length_differs",
            Ambiguity::TransferEncoding => "transfer_encoding",
            Ambiguity::HostMissing => "host_missing",
            Ambiguity::HostRepeated => "host_repeated",
            Ambiguity::HostInvalid => "host_invalid",
            Ambiguity::HostDiffers => "host_differs",
            Ambiguity::Connect => "connect_refused_here",
            Ambiguity::Expectation => "expectation",
            Ambiguity::PathInvalid => "path_invalid",
            Ambiguity::TargetInvalid => "target_invalid",
            Ambiguity::UpgradeWithBody => "upgrade_with_body",
            Ambiguity::ConnectionField => "connection_field",
        }
    }

    pub fn status(self) -> u16 {
        match self {
            Ambiguity::TransferEncoding => 501,
            Ambiguity::Connect => 405,
            Ambiguity::Expectation => 417,
            Ambiguity::LengthTwice
            | Ambiguity::LengthDiffers
            | Ambiguity::HostMissing
            | Ambiguity::HostRepeated
            | Ambiguity::HostInvalid
            | Ambiguity::HostDiffers
            | Ambiguity::PathInvalid
            | Ambiguity::TargetInvalid
            | Ambiguity::UpgradeWithBody
            | Ambiguity::ConnectionField => 400,
        }
    }

    pub fn explain(self) -> &'static str {
        match self {
            Ambiguity::LengthTwice => "Content-Length and Transfer-Encoding cannot both frame a body.",
            Ambiguity::LengthDiffers => "Content-Length must be one number.",
            Ambiguity::TransferEncoding => "The only Transfer-Encoding understood is exactly chunked.",
            Ambiguity::HostMissing => "A request needs a Host.",
            Ambiguity::HostRepeated => "A request may have only one Host.",
            Ambiguity::HostInvalid => "The Host is not a host name or address with an optional port.",
            Ambiguity::HostDiffers => "Host and the authority of the request target differ.",
            Ambiguity::Connect => "CONNECT is not served here.",
            Ambiguity::Expectation => "The only expectation understood is 100-continue.",
            Ambiguity::PathInvalid => "The path can be read in more than one way.",
            Ambiguity::TargetInvalid => "The request target is not a path or an http URL.",
            Ambiguity::UpgradeWithBody => "A request that upgrades may not have a body.",
            Ambiguity::ConnectionField => "HTTP/2 requests may not carry fields of one connection.",
        }
    }
}

/// The host a request is for, with its port if one is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Authority<'a>(&'a str);

impl Authority<'_> {
    /// Empty only for an HTTP/1.0 request without a Host.
    pub fn as_str(&self) -> &str {
        self.0
    }
}

/// Judges a request's head.
pub fn check_request<'a>(
    method: &Method,
    uri: &'a Uri,
    version: Version,
    headers: &'a HeaderMap,
) -> Result<Authority<'a>, Ambiguity> {
    if *method == Method::CONNECT {
        return Err(Ambiguity::Connect);
    }
    check_target(method, uri)?;
    check_lengths(version, headers)?;
    if let Some(expect) = headers.get(header::EXPECT)
        && !expect.as_bytes().eq_ignore_ascii_case(b"100-continue")
    {
        return Err(Ambiguity::Expectation);
    }
    if version < Version::HTTP_2 {
        check_upgrade(headers)?;
    } else {
        check_connection_fields(headers)?;
    }
    authority(uri, version, headers)
}

fn check_target(method: &Method, uri: &Uri) -> Result<(), Ambiguity> {
    let path = uri.path();
    let asterisk = path == "*" && *method == Method::OPTIONS;
    let scheme = uri.scheme_str().is_none_or(|scheme| scheme == "http" || scheme == "https");
    let absolute = path.starts_with('/') || path.is_empty();
    if scheme && (absolute || asterisk) { Ok(()) } else { Err(Ambiguity::TargetInvalid) }
}

fn check_lengths(version: Version, headers: &HeaderMap) -> Result<(), Ambiguity> {
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let length = lengths.next();
    if let Some(length) = length {
        let plain = !length.is_empty() && length.as_bytes().iter().all(u8::is_ascii_digit);
        if !plain || lengths.any(|other| other != length) {
            return Err(Ambiguity::LengthDiffers);
        }
    }
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else { return Ok(()) };
    if version >= Version::HTTP_2 {
        return Err(Ambiguity::ConnectionField);
    }
    if codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
        return Err(Ambiguity::TransferEncoding);
    }
    if length.is_some() { Err(Ambiguity::LengthTwice) } else { Ok(()) }
}

fn check_upgrade(headers: &HeaderMap) -> Result<(), Ambiguity> {
    let body = || {
        headers.contains_key(header::TRANSFER_ENCODING)
            || headers.get(header::CONTENT_LENGTH).is_some_and(|length| length.as_bytes() != b"0")
    };
    let websocket = || {
        let mut tokens = headers.get_all(header::UPGRADE).iter();
        tokens.any(|token| token.as_bytes().eq_ignore_ascii_case(b"websocket"))
    };
    if headers.contains_key(header::UPGRADE) && websocket() && body() {
        return Err(Ambiguity::UpgradeWithBody);
    }
    Ok(())
}

/// RFC 9113 §8.2.2.
fn check_connection_fields(headers: &HeaderMap) -> Result<(), Ambiguity> {
    let forbidden = ["connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade"];
    let te = headers.get(header::TE).is_some_and(|te| !te.as_bytes().eq_ignore_ascii_case(b"trailers"));
    if te || forbidden.iter().any(|name| headers.contains_key(*name)) {
        return Err(Ambiguity::ConnectionField);
    }
    Ok(())
}

/// RFC 9112 §3.2: exactly one Host on HTTP/1.1; the authority of an absolute target takes its place. RFC 9113 §8.3.1:
/// on HTTP/2 a Host beside `:authority` must say the same.
fn authority<'a>(uri: &'a Uri, version: Version, headers: &'a HeaderMap) -> Result<Authority<'a>, Ambiguity> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(Ambiguity::HostRepeated);
    }
    if version == Version::HTTP_11 && host.is_none() {
        return Err(Ambiguity::HostMissing);
    }
    let host = host.map(host_text).transpose()?;
    let named = match (uri.authority(), host) {
        (Some(target), host) => {
            if version >= Version::HTTP_2 && host.is_some_and(|host| !host.eq_ignore_ascii_case(target.as_str())) {
                return Err(Ambiguity::HostDiffers);
            }
            target.as_str()
        }
        (None, Some(host)) => host,
        (None, None) if version < Version::HTTP_11 => return Ok(Authority("")),
        (None, None) => return Err(Ambiguity::HostMissing),
    };
    if valid_authority(named) { Ok(Authority(named)) } else { Err(Ambiguity::HostInvalid) }
}

fn host_text(host: &HeaderValue) -> Result<&str, Ambiguity> {
    host.to_str().map_err(|_| Ambiguity::HostInvalid)
}

/// A registered name, an IPv4 address or a bracketed IPv6 address, and a port that is a number; no user information.
fn valid_authority(text: &str) -> bool {
    let (host, port) = match text.rfind(':') {
        Some(colon) if !text[colon..].contains(']') => (&text[..colon], Some(&text[colon + 1..])),
        Some(_) | None => (text, None),
    };
    let port_ok = port.is_none_or(|port| port.is_empty() || port.parse::<u16>().is_ok() && !port.starts_with('+'));
    let host_ok = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').is_some_and(|inner| inner.parse::<std::net::Ipv6Addr>().is_ok()),
        None => {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
            !host.is_empty() && host.len() <= 255 && host.bytes().all(plain)
        }
    };
    host_ok && port_ok
}

/// Judges the head of the app's answer; the reason why it cannot be passed on.
pub fn check_response(version: Version, status: u16, headers: &HeaderMap) -> Result<(), &'static str> {
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let length = lengths.next();
    if lengths.any(|other| Some(other) != length) {
        return Err("two different Content-Length fields");
    }
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next() {
        if codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
            return Err("a Transfer-Encoding that is not exactly chunked");
        }
        if length.is_some() {
            return Err("both Content-Length and Transfer-Encoding");
        }
        if version < Version::HTTP_11 {
            return Err("Transfer-Encoding in HTTP/1.0");
        }
    }
    if status < 200 && status != 101 { Err("an informational status as the final answer") } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields
            .iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    fn judge(
        method: &str,
        uri: &str,
        version: Version,
        fields: &[(&'static str, &'static str)],
    ) -> Result<String, Ambiguity> {
        let (uri, headers) = (uri.parse().unwrap(), map(fields));
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        check_request(&method, &uri, version, &headers).map(|authority| authority.as_str().to_owned())
    }

    fn http1(fields: &[(&'static str, &'static str)]) -> Result<String, Ambiguity> {
        judge("POST", "/", Version::HTTP_11, fields)
    }

    #[test]
    fn a_body_has_one_frame() {
        assert_eq!(http1(&[("host", "a"), ("content-length", "5")]), Ok("a".into()));
        assert_eq!(http1(&[("host", "a"), ("transfer-encoding", "Chunked")]), Ok("a".into()));
        assert_eq!(
            http1(&[("host", "a"), ("content-length", "5"), ("transfer-encoding", "chunked")]),
            Err(Ambiguity::LengthTwice)
        );
        assert_eq!(
            http1(&[("host", "a"), ("content-length", "5"), ("content-length", "6")]),
            Err(Ambiguity::LengthDiffers)
        );
        for length in ["5, 5", "+5", "", "0x5", "5 "] {
            let mut headers = map(&[("host", "a")]);
            headers.insert("content-length", length.parse().unwrap());
            assert_eq!(
                check_request(&Method::POST, &Uri::from_static("/"), Version::HTTP_11, &headers),
                Err(Ambiguity::LengthDiffers)
            );
        }
        for coding in ["gzip, chunked", "identity", "chunked, chunked", "x"] {
            let mut headers = map(&[("host", "a")]);
            headers.insert("transfer-encoding", coding.parse().unwrap());
            assert_eq!(
                check_request(&Method::POST, &Uri::from_static("/"), Version::HTTP_11, &headers),
                Err(Ambiguity::TransferEncoding)
            );
        }
        let twice = [("host", "a"), ("transfer-encoding", "identity"), ("transfer-encoding", "chunked")];
        assert_eq!(http1(&twice), Err(Ambiguity::TransferEncoding));
    }

    #[test]
    fn there_is_exactly_one_host() {
        assert_eq!(http1(&[]), Err(Ambiguity::HostMissing));
        assert_eq!(http1(&[("host", "a"), ("host", "a")]), Err(Ambiguity::HostRepeated));
        assert_eq!(judge("GET", "/", Version::HTTP_10, &[]), Ok(String::new()));
        assert_eq!(judge("GET", "http://b:81/x", Version::HTTP_11, &[("host", "a")]), Ok("b:81".into()));
        for good in ["a.example", "a_b", "127.0.0.1:80", "[::1]", "[::1]:8080", "a:"] {
            let mut headers = HeaderMap::new();
            headers.insert("host", good.parse().unwrap());
            assert!(check_request(&Method::GET, &Uri::from_static("/"), Version::HTTP_11, &headers).is_ok(), "{good}");
        }
        for wrong in ["", "a@b c", "u@a", "a:b", "a:65536", "a:+1", "[::1", "[zz]", "a/b", "a b", "é"] {
            let mut headers = HeaderMap::new();
            headers.insert("host", HeaderValue::from_bytes(wrong.as_bytes()).unwrap());
            assert_eq!(
                check_request(&Method::GET, &Uri::from_static("/"), Version::HTTP_11, &headers),
                Err(Ambiguity::HostInvalid),
                "{wrong}"
            );
        }
    }

    #[test]
    fn http2_has_its_own_rules() {
        let uri = "http://a.example/x";
        assert_eq!(judge("GET", uri, Version::HTTP_2, &[]), Ok("a.example".into()));
        assert_eq!(judge("GET", uri, Version::HTTP_2, &[("host", "b")]), Err(Ambiguity::HostDiffers));
        assert_eq!(judge("GET", uri, Version::HTTP_2, &[("te", "trailers")]), Ok("a.example".into()));
        assert_eq!(judge("GET", uri, Version::HTTP_2, &[("te", "gzip")]), Err(Ambiguity::ConnectionField));
        assert_eq!(judge("GET", uri, Version::HTTP_2, &[("connection", "x")]), Err(Ambiguity::ConnectionField));
    }

    #[test]
    fn odd_methods_targets_and_expectations_are_refused() {
        let host = [("host", "a")];
        assert_eq!(judge("CONNECT", "a:80", Version::HTTP_11, &host), Err(Ambiguity::Connect));
        assert_eq!(judge("OPTIONS", "*", Version::HTTP_11, &host), Ok("a".into()));
        assert_eq!(judge("GET", "*", Version::HTTP_11, &host), Err(Ambiguity::TargetInvalid));
        assert_eq!(judge("GET", "ftp://a/", Version::HTTP_11, &host), Err(Ambiguity::TargetInvalid));
        assert_eq!(http1(&[("host", "a"), ("expect", "x")]), Err(Ambiguity::Expectation));
        assert_eq!(http1(&[("host", "a"), ("expect", "100-Continue")]), Ok("a".into()));
        let upgrade = [("host", "a"), ("upgrade", "websocket"), ("connection", "upgrade"), ("content-length", "3")];
        assert_eq!(judge("GET", "/", Version::HTTP_11, &upgrade), Err(Ambiguity::UpgradeWithBody));
    }

    #[test]
    fn an_answer_has_one_frame_too() {
        let judge =
            |fields: &[(&'static str, &'static str)]| check_response(Version::HTTP_11, 200, &map(fields)).is_ok();
        assert!(judge(&[("content-length", "1")]) && judge(&[("transfer-encoding", "chunked")]));
        assert!(!judge(&[("content-length", "1"), ("transfer-encoding", "chunked")]));
        assert!(!judge(&[("transfer-encoding", "gzip")]));
        assert!(!judge(&[("content-length", "1"), ("content-length", "2")]));
    }
}
