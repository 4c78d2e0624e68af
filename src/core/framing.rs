//! What is refused because two readers could understand it differently (request smuggling), or because it is not
//! HTTP. Judged from the parsed head, for HTTP/1 and HTTP/2 alike, in one pass over its fields.
//!
//! Ambiguity is refused, never repaired: a head that has to be guessed at is guessed differently behind us. What the
//! types cannot hold needs no check here: a `HeaderValue` has no control characters but the tab (a test says so), and a
//! `Uri` has none at all. What the HTTP engine takes out of a head before it is seen here cannot be judged here:
//! hyper's server drops Content-Length when Transfer-Encoding stands beside it, so that pair must be looked for earlier.

use http::{Method, Uri, Version};

use super::fields::{self, Value};
use super::headers::{announces_body, names_upgrade};

/// Why a request is refused before anything else looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ambiguity {
    /// Content-Length and Transfer-Encoding together.
    LengthTwice,
    /// Content-Length on two lines, or not one plain number of 64 bits.
    LengthDiffers,
    /// Anything but exactly one `chunked`, or any in HTTP/1.0.
    TransferEncoding,
    HostMissing,
    HostRepeated,
    HostInvalid,
    /// HTTP/2: Host and `:authority` disagree.
    HostDiffers,
    Connect,
    /// Anything but `100-continue`.
    Expectation,
    /// Found by [`super::path::normalise`].
    PathInvalid,
    TargetInvalid,
    UpgradeWithBody,
    /// HTTP/2 with a field of one connection.
    ConnectionField,
}

impl Ambiguity {
    /// The stable word for logs, metrics and docs.
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
            Ambiguity::TransferEncoding => "The only Transfer-Encoding understood is chunked, alone and in HTTP/1.1.",
            Ambiguity::HostMissing => "A request needs a Host.",
            Ambiguity::HostRepeated => "A request may have only one Host.",
            Ambiguity::HostInvalid => "The Host is not a host name or address with an optional port.",
            Ambiguity::HostDiffers => "Host and the authority of the request target differ.",
            Ambiguity::Connect => "CONNECT is not served here.",
            Ambiguity::Expectation => "The only expectation understood is 100-continue.",
            Ambiguity::PathInvalid => "The path is malformed, or can be read in more than one way.",
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

/// Judges a request's head. The authority of an absolute target takes the place of Host (RFC 9112 §3.2.2).
pub fn check_request<'a>(
    method: &Method,
    uri: &'a Uri,
    version: Version,
    headers: &'a fields::Fields,
) -> Result<Authority<'a>, Ambiguity> {
    if *method == Method::CONNECT {
        return Err(Ambiguity::Connect);
    }
    check_target(method, uri)?;
    let fields = Fields::gather(headers);
    if version >= Version::HTTP_2 && (fields.connection || fields.codings.first.is_some()) {
        return Err(Ambiguity::ConnectionField);
    }
    check_frame(version, &fields)?;
    if fields.expectation {
        return Err(Ambiguity::Expectation);
    }
    if fields.upgrade && announces_body(headers) {
        return Err(Ambiguity::UpgradeWithBody);
    }
    authority(uri, version, &fields.hosts)
}

/// The lines of one field: what is in the first, and whether there are more.
#[derive(Default)]
struct Lines<'a> {
    first: Option<Value<'a>>,
    more: bool,
}

impl<'a> Lines<'a> {
    fn add(&mut self, value: Value<'a>) {
        self.more = self.first.is_some();
        self.first = self.first.or(Some(value));
    }
}

/// What decides, from one pass over the head.
#[derive(Default)]
struct Fields<'a> {
    hosts: Lines<'a>,
    lengths: Lines<'a>,
    codings: Lines<'a>,
    /// One that is not understood.
    expectation: bool,
    /// To a protocol that would be passed on. Other upgrades are taken out of the head and the request goes on as it
    /// is: some clients offer `h2c` with every first request, body or not.
    upgrade: bool,
    /// A field that HTTP/2 forbids (RFC 9113 §8.2.2).
    connection: bool,
}

impl<'a> Fields<'a> {
    fn gather(headers: &'a fields::Fields) -> Self {
        let mut fields = Fields::default();
        for (name, value) in headers.iter() {
            // By length first: most names are none of these.
            match name.length() {
                2 if name.is("te") => fields.connection |= !value.as_bytes().eq_ignore_ascii_case(b"trailers"),
                4 if name.is("host") => fields.hosts.add(value),
                6 if name.is("expect") => {
                    fields.expectation |= !value.as_bytes().eq_ignore_ascii_case(b"100-continue");
                }
                7 if name.is("upgrade") => {
                    fields.connection = true;
                    fields.upgrade |= names_upgrade(value);
                }
                10 if name.is("connection") || name.is("keep-alive") => fields.connection = true,
                14 if name.is("content-length") => fields.lengths.add(value),
                16 if name.is("proxy-connection") => fields.connection = true,
                17 if name.is("transfer-encoding") => fields.codings.add(value),
                _ => {}
            }
        }
        fields
    }
}

/// RFC 9112 §3.2: a path, an http URL with a path, or `*` for OPTIONS.
fn check_target(method: &Method, uri: &Uri) -> Result<(), Ambiguity> {
    let scheme = uri.scheme_str().is_none_or(|scheme| scheme == "http" || scheme == "https");
    // As written: `http://a?q` has no path to forward, and `a:80` has no target at all.
    let target = uri.path_and_query().map_or("", |target| target.as_str());
    let form = target.starts_with('/') || (target == "*" && *method == Method::OPTIONS);
    if scheme && form { Ok(()) } else { Err(Ambiguity::TargetInvalid) }
}

/// RFC 9112 §6: one length, or exactly one `chunked`, or no body.
fn check_frame(version: Version, fields: &Fields<'_>) -> Result<(), Ambiguity> {
    let (lengths, codings) = (&fields.lengths, &fields.codings);
    if lengths.first.is_some() && codings.first.is_some() {
        return Err(Ambiguity::LengthTwice);
    }
    if lengths.more || lengths.first.is_some_and(|length| parse_length(length).is_none()) {
        return Err(Ambiguity::LengthDiffers);
    }
    let Some(coding) = codings.first else { return Ok(()) };
    if codings.more || !is_chunked(coding) || version < Version::HTTP_11 {
        return Err(Ambiguity::TransferEncoding);
    }
    Ok(())
}

fn is_chunked(coding: Value<'_>) -> bool {
    coding.as_bytes().eq_ignore_ascii_case(b"chunked")
}

/// Digits and nothing else, up to 64 bits.
fn parse_length(length: Value<'_>) -> Option<u64> {
    if length.is_empty() {
        return None;
    }
    length.as_bytes().iter().try_fold(0u64, |sum, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        sum.checked_mul(10)?.checked_add(digit)
    })
}

/// RFC 9112 §3.2: exactly one Host on HTTP/1.1; the authority of an absolute target takes its place, but both must be
/// valid. RFC 9113 §8.3.1: on HTTP/2 a Host beside `:authority` must say the same.
fn authority<'a>(uri: &'a Uri, version: Version, hosts: &Lines<'a>) -> Result<Authority<'a>, Ambiguity> {
    if hosts.more {
        return Err(Ambiguity::HostRepeated);
    }
    let host = hosts.first.map(valid_host).transpose()?;
    let Some(target) = uri.authority() else {
        return match host {
            Some(host) => Ok(Authority(host)),
            None if version < Version::HTTP_11 => Ok(Authority("")),
            None => Err(Ambiguity::HostMissing),
        };
    };
    if version >= Version::HTTP_2 {
        if host.is_some_and(|host| !host.eq_ignore_ascii_case(target.as_str())) {
            return Err(Ambiguity::HostDiffers);
        }
    } else if host.is_none() && version >= Version::HTTP_11 {
        return Err(Ambiguity::HostMissing);
    }
    if is_authority(target.as_str()) { Ok(Authority(target.as_str())) } else { Err(Ambiguity::HostInvalid) }
}

fn valid_host(host: Value<'_>) -> Result<&str, Ambiguity> {
    host.to_str().filter(|host| is_authority(host)).ok_or(Ambiguity::HostInvalid)
}

/// A registered name, an IPv4 address or a bracketed IPv6 address, and a port that is a number; no user information.
fn is_authority(text: &str) -> bool {
    let name = name_length(text.as_bytes());
    let (host_ok, rest) = match text.strip_prefix('[') {
        Some(inner) => {
            let Some((address, rest)) = inner.split_once(']') else { return false };
            (address.parse::<std::net::Ipv6Addr>().is_ok(), rest.as_bytes())
        }
        None => ((1..=NAME_MAX).contains(&name), &text.as_bytes()[name..]),
    };
    host_ok && is_port(rest)
}

/// Nothing, or a colon with a number, or with none (RFC 3986 §3.2.3).
fn is_port(rest: &[u8]) -> bool {
    let Some((colon, digits)) = rest.split_first() else { return true };
    let number = digits.iter().try_fold(0u32, |number, digit| {
        digit.is_ascii_digit().then(|| number.saturating_mul(10).saturating_add(u32::from(digit - b'0')))
    });
    *colon == b':' && digits.len() <= 5 && number.is_some_and(|number| number <= u32::from(u16::MAX))
}

/// Letters, digits, `-`, `_` and `~` in labels between dots, from the start; one dot may end it. Percent escapes are not:
/// no name that is looked up has them.
fn name_length(text: &[u8]) -> usize {
    let mut previous = b'.';
    let name = text.iter().take_while(|byte| {
        let label = NAME[usize::from(**byte)] || (**byte == b'.' && previous != b'.');
        previous = **byte;
        label
    });
    name.count()
}

/// What a label is made of.
const NAME: [bool; 256] = {
    let (mut name, mut byte) = ([false; 256], 0u8);
    while byte < 128 {
        name[byte as usize] = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'~');
        byte += 1;
    }
    name
};

/// Judges the head of the app's answer; the reason why it cannot be passed on. A Content-Length that is repeated with
/// the same value is forgiven, because it can be read in one way only and a client would rather have its answer.
pub fn check_response(version: Version, status: u16, headers: &fields::Fields) -> Result<(), &'static str> {
    let mut lengths = headers.get_all("content-length");
    let length = lengths.next();
    if lengths.any(|other| Some(other) != length) {
        return Err("two different Content-Length fields");
    }
    if length.is_some_and(|length| parse_length(length).is_none()) {
        return Err("a Content-Length that is not a number");
    }
    let mut codings = headers.get_all("transfer-encoding");
    if let Some(coding) = codings.next() {
        if codings.next().is_some() || !is_chunked(coding) {
            return Err("a Transfer-Encoding that is not exactly chunked");
        }
        if length.is_some() {
            return Err("both Content-Length and Transfer-Encoding");
        }
        if version != Version::HTTP_11 {
            return Err("Transfer-Encoding in a version that has none");
        }
    }
    match status {
        101 if version == Version::HTTP_11 => Ok(()),
        100..=199 => Err("an informational status as the final answer"),
        200..=999 => Ok(()),
        _ => Err("a status that is not a number of three digits"),
    }
}

/// The longest name of the DNS (RFC 1035 §2.3.4).
const NAME_MAX: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::testing::map;

    type Judged = Result<String, Ambiguity>;

    fn judge(method: &str, uri: &str, version: Version, fields: &[(&'static str, &str)]) -> Judged {
        let (uri, headers) = (uri.parse().unwrap(), map(fields));
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        check_request(&method, &uri, version, &headers).map(|authority| authority.as_str().to_owned())
    }

    /// A POST to host `a`, with these fields more.
    fn post(fields: &[(&'static str, &str)]) -> Judged {
        judge("POST", "/", Version::HTTP_11, &[&[("host", "a")], fields].concat())
    }

    fn fine() -> Judged {
        Ok("a".to_owned())
    }

    #[test]
    fn a_length_is_one_plain_number() {
        for good in ["0", "5", "007", "18446744073709551614", "18446744073709551615"] {
            assert_eq!(post(&[("content-length", good)]), fine(), "{good}");
        }
        for wrong in ["", "5, 5", "5,5", "+5", "-5", "0x5", "5 ", " 5", "5.0", "five", "18446744073709551616", "é"] {
            assert_eq!(post(&[("content-length", wrong)]), Err(Ambiguity::LengthDiffers), "{wrong}");
        }
        for second in ["5", "6"] {
            let twice = [("content-length", "5"), ("content-length", second)];
            assert_eq!(post(&twice), Err(Ambiguity::LengthDiffers));
        }
    }

    #[test]
    fn a_coding_is_exactly_one_chunked() {
        let get = judge("GET", "/", Version::HTTP_11, &[("host", "a"), ("transfer-encoding", "chunked")]);
        assert_eq!(get, fine(), "a GET may have a body too");
        assert_eq!(post(&[("transfer-encoding", "Chunked")]), fine());
        for wrong in [
            "gzip, chunked",
            "chunked, gzip",
            "identity",
            "chunked, chunked",
            "chunked,",
            ",chunked",
            "xchunked",
            "chunked;q=1",
            "\tchunked",
            "\"chunked\"",
            "",
        ] {
            assert_eq!(post(&[("transfer-encoding", wrong)]), Err(Ambiguity::TransferEncoding), "{wrong}");
        }
        for second in ["chunked", "identity"] {
            let twice = [("transfer-encoding", "chunked"), ("transfer-encoding", second)];
            assert_eq!(post(&twice), Err(Ambiguity::TransferEncoding));
        }
        let old = judge("POST", "/", Version::HTTP_10, &[("host", "a"), ("transfer-encoding", "chunked")]);
        assert_eq!(old, Err(Ambiguity::TransferEncoding));
    }

    #[test]
    fn a_body_has_one_frame() {
        for coding in ["chunked", "gzip", "identity"] {
            for fields in [
                [("content-length", "5"), ("transfer-encoding", coding)],
                [("transfer-encoding", coding), ("content-length", "5")],
            ] {
                assert_eq!(post(&fields), Err(Ambiguity::LengthTwice), "{fields:?}");
            }
        }
    }

    #[test]
    fn there_is_exactly_one_host() {
        for version in [Version::HTTP_11, Version::HTTP_2] {
            assert_eq!(judge("GET", "/", version, &[]), Err(Ambiguity::HostMissing));
        }
        for version in [Version::HTTP_10, Version::HTTP_11, Version::HTTP_2] {
            for second in ["a", "b"] {
                let twice = judge("GET", "/", version, &[("host", "a"), ("host", second)]);
                assert_eq!(twice, Err(Ambiguity::HostRepeated));
            }
        }
        assert_eq!(judge("GET", "/", Version::HTTP_10, &[]), Ok(String::new()));
        assert_eq!(judge("GET", "/", Version::HTTP_10, &[("host", "a")]), fine());
    }

    #[test]
    fn the_authority_of_an_absolute_target_takes_the_place_of_host() {
        let absolute = |fields: &[(&'static str, &str)]| judge("GET", "http://b:81/x", Version::HTTP_11, fields);
        assert_eq!(absolute(&[("host", "a")]), Ok("b:81".into()));
        assert_eq!(absolute(&[]), Err(Ambiguity::HostMissing));
        assert_eq!(absolute(&[("host", "a@b c")]), Err(Ambiguity::HostInvalid));
        assert_eq!(judge("GET", "http://b/", Version::HTTP_10, &[]), Ok("b".into()));
        for wrong in ["http://u@b/", "http://u:p@b/", "http://b:99999/", "http://b..c/"] {
            let judged = judge("GET", wrong, Version::HTTP_11, &[("host", "a")]);
            assert_eq!(judged, Err(Ambiguity::HostInvalid), "{wrong}");
        }
    }

    #[test]
    fn a_host_is_a_name_or_an_address_and_a_port() {
        let host = |host: &str| judge("GET", "/", Version::HTTP_11, &[("host", host)]);
        let good = "a.example a.example. A-1.b_c~d a_b 127.0.0.1:80 [::1] [::1]:8080 [::ffff:1.2.3.4] a: a:0 a:65535";
        for good in good.split(' ') {
            assert_eq!(host(good), Ok(good.to_owned()));
        }
        let wrong = ":80 . a..b .a u@a u:p@a a:b a:65536 a:99999 a:000080 a:+1 a:-1 a:1:2 ::1 [::1 [::1]x [::1]] [zz] \
                     [fe80::1%25eth0] a/b a\\b a,b a?b a#b a%41 <a> é";
        for wrong in wrong.split(' ').chain(["", "a@b c", "a: 1", "a b", "a\tb", " a", "a "]) {
            assert_eq!(host(wrong), Err(Ambiguity::HostInvalid), "{wrong:?}");
        }
        for (length, good) in [(NAME_MAX - 1, true), (NAME_MAX, true), (NAME_MAX + 1, false)] {
            assert_eq!(host(&"a".repeat(length)).is_ok(), good, "{length}");
        }
    }

    #[test]
    fn http2_has_its_own_rules() {
        let http2 = |fields: &[(&'static str, &str)]| judge("GET", "http://a/x", Version::HTTP_2, fields);
        assert_eq!(http2(&[]), fine());
        assert_eq!(http2(&[("host", "A")]), fine());
        assert_eq!(judge("GET", "/x", Version::HTTP_2, &[("host", "a")]), fine());
        for other in ["b", "a:80"] {
            assert_eq!(http2(&[("host", other)]), Err(Ambiguity::HostDiffers));
        }
        assert_eq!(http2(&[("te", "trailers")]), fine());
        for field in [
            ("te", "gzip"),
            ("te", "trailers, gzip"),
            ("connection", "x"),
            ("proxy-connection", "keep-alive"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
        ] {
            assert_eq!(http2(&[field]), Err(Ambiguity::ConnectionField), "{field:?}");
            assert_eq!(http2(&[("te", "trailers"), field]), Err(Ambiguity::ConnectionField), "{field:?} after te");
        }
    }

    #[test]
    fn a_target_is_a_path_or_an_http_url() {
        let target = |method, target| judge(method, target, Version::HTTP_11, &[("host", "a")]);
        assert_eq!(target("CONNECT", "a:80"), Err(Ambiguity::Connect));
        assert_eq!(judge("CONNECT", "a:80", Version::HTTP_2, &[]), Err(Ambiguity::Connect));
        for good in ["/", "/x?y", "//x", "http://a", "http://a/x", "HTTPS://a/"] {
            assert_eq!(target("GET", good), fine(), "{good}");
        }
        assert_eq!(target("OPTIONS", "*"), fine());
        for wrong in ["*", "ftp://a/", "a:80", "a", "http://a?q", "http://a:80?q"] {
            assert_eq!(target("GET", wrong), Err(Ambiguity::TargetInvalid), "{wrong}");
        }
    }

    #[test]
    fn the_only_expectation_is_to_continue() {
        assert_eq!(post(&[("expect", "100-Continue")]), fine());
        assert_eq!(post(&[("expect", "100-continue"), ("expect", "100-continue")]), fine());
        for wrong in ["x", "", "100-continue, x", "200-ok"] {
            assert_eq!(post(&[("expect", wrong)]), Err(Ambiguity::Expectation), "{wrong}");
            let second = [("expect", "100-continue"), ("expect", wrong)];
            assert_eq!(post(&second), Err(Ambiguity::Expectation), "{wrong} second");
        }
    }

    #[test]
    fn an_upgrade_has_no_body() {
        let upgrade = |token, field| post(&[("connection", "upgrade"), ("upgrade", token), field]);
        for body in [("content-length", "3"), ("transfer-encoding", "chunked")] {
            assert_eq!(upgrade("websocket", body), Err(Ambiguity::UpgradeWithBody));
            assert_eq!(upgrade("h2c, WebSocket", body), Err(Ambiguity::UpgradeWithBody));
            assert_eq!(upgrade("h2c", body), fine(), "not passed on, so only a request");
        }
        assert_eq!(upgrade("websocket", ("content-length", "0")), fine());
        assert_eq!(upgrade("websocket", ("content-length", "1")), Err(Ambiguity::UpgradeWithBody));
    }

    #[test]
    fn control_characters_cannot_be_in_a_value() {
        for byte in (0..32).chain([127]) {
            assert_eq!(http::HeaderValue::from_bytes(&[b'a', byte, b'a']).is_ok(), byte == b'\t', "{byte}");
            assert!(Uri::try_from(&[b'/', byte][..]).is_err(), "{byte}");
        }
    }

    #[test]
    fn an_answer_has_one_frame_too() {
        let judge = |version, fields: &[(&'static str, &str)]| check_response(version, 200, &map(fields)).is_ok();
        let http1 = |fields: &[(&'static str, &str)]| judge(Version::HTTP_11, fields);
        let (length, chunked) = (("content-length", "1"), ("transfer-encoding", "chunked"));
        assert!(http1(&[]) && http1(&[length]) && http1(&[chunked]) && http1(&[length, length]));
        assert!(!http1(&[length, chunked]) && !http1(&[chunked, chunked]));
        assert!(!http1(&[("transfer-encoding", "gzip")]) && !http1(&[("transfer-encoding", "gzip, chunked")]));
        assert!(!http1(&[length, ("content-length", "2")]) && !http1(&[("content-length", "+1")]));
        assert!(!http1(&[("content-length", "1, 1")]) && !http1(&[("content-length", "")]));
        for version in [Version::HTTP_10, Version::HTTP_2] {
            assert!(judge(version, &[length]) && !judge(version, &[chunked]));
        }
    }

    #[test]
    fn an_answer_has_a_final_status() {
        let judge = |version, status| check_response(version, status, &fields::Fields::default()).is_ok();
        for status in [200, 204, 304, 599, 999] {
            assert!(judge(Version::HTTP_11, status), "{status}");
        }
        for status in [0, 99, 100, 102, 103, 199, 1000] {
            assert!(!judge(Version::HTTP_11, status), "{status}");
        }
        assert!(judge(Version::HTTP_11, 101) && !judge(Version::HTTP_2, 101) && !judge(Version::HTTP_10, 101));
    }

    #[test]
    fn every_refusal_has_its_words() {
        let all = [
            Ambiguity::LengthTwice,
            Ambiguity::LengthDiffers,
            Ambiguity::TransferEncoding,
            Ambiguity::HostMissing,
            Ambiguity::HostRepeated,
            Ambiguity::HostInvalid,
            Ambiguity::HostDiffers,
            Ambiguity::Connect,
            Ambiguity::Expectation,
            Ambiguity::PathInvalid,
            Ambiguity::TargetInvalid,
            Ambiguity::UpgradeWithBody,
            Ambiguity::ConnectionField,
        ];
        let labels: std::collections::BTreeSet<_> = all.iter().map(|refusal| refusal.label()).collect();
        assert_eq!(labels.len(), all.len(), "two refusals share a label");
        assert!(all.iter().all(|refusal| (400..=501).contains(&refusal.status()) && refusal.explain().ends_with('.')));
    }
}
