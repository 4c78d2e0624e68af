//! Which requests may be sent a second time (RFC 9110 §9.2), and what a Retry-After says.

use std::time::{Duration, SystemTime};

use http::Method;
use http::header::{HeaderMap, HeaderName};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// RFC 9110 §9.2.1.
pub fn is_safe(method: &Method) -> bool {
    *method == Method::GET || *method == Method::HEAD || *method == Method::OPTIONS || *method == Method::TRACE
}

/// RFC 9110 §9.2.2.
pub fn is_idempotent(method: &Method) -> bool {
    is_safe(method) || *method == Method::PUT || *method == Method::DELETE
}

/// Whether sending it twice does no more than sending it once: idempotent methods, and POST and PATCH whose sender
/// says so with an `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header).
pub fn may_replay(method: &Method, headers: &HeaderMap) -> bool {
    let keyed = || headers.get(&IDEMPOTENCY_KEY).is_some_and(|key| !key.is_empty());
    is_idempotent(method) || ((*method == Method::POST || *method == Method::PATCH) && keyed())
}

/// Retry-After in either form (RFC 9110 §10.2.3); `date` reads an HTTP date. A date gone by is no wait.
pub fn parse_retry_after(value: &[u8], now: SystemTime, date: impl Fn(&str) -> Option<SystemTime>) -> Option<Duration> {
    let text = std::str::from_utf8(value).ok()?.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok().map(Duration::from_secs);
    }
    date(text).map(|at| at.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_idempotent_or_says_so_is_sent_twice() {
        let (plain, mut keyed) = (HeaderMap::new(), HeaderMap::new());
        keyed.insert(IDEMPOTENCY_KEY, "k".parse().unwrap());
        for (method, alone, with_key) in [
            (Method::GET, true, true),
            (Method::HEAD, true, true),
            (Method::PUT, true, true),
            (Method::DELETE, true, true),
            (Method::POST, false, true),
            (Method::PATCH, false, true),
            (Method::CONNECT, false, false),
            (Method::from_bytes(b"get").unwrap(), false, false),
        ] {
            assert_eq!((may_replay(&method, &plain), may_replay(&method, &keyed)), (alone, with_key), "{method}");
        }
    }

    #[test]
    fn retry_after_comes_as_seconds_or_as_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(100);
        let date = |text: &str| (text == "later").then(|| now + Duration::from_secs(7));
        let parse = |value: &[u8]| parse_retry_after(value, now, date);
        assert_eq!(parse(b"120"), Some(Duration::from_secs(120)));
        assert_eq!(parse(b"later"), Some(Duration::from_secs(7)));
        assert_eq!(parse(b"-1"), None);
        assert_eq!(parse(b""), None);
        assert_eq!(parse(b"99999999999999999999999"), None);
        assert_eq!(parse_retry_after(b"later", now + Duration::from_secs(60), date), Some(Duration::ZERO));
    }
}
