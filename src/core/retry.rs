//! Which requests may be sent a second time (RFC 9110 §9.2), and what a Retry-After says.
//!
//! Methods are compared as they stand, because they are case-sensitive: `get` is an unknown method and is never sent
//! twice. Whether the time left allows another attempt is `deadline`'s; whether the budget does is the upstream's.

use std::time::{Duration, SystemTime};

use http::Method;

use super::fields::{Fields, Marks, Name};

const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// The number of an attempt, told to the app from the second on.
pub const X_ATTEMPT: &str = "x-request-attempt";
/// Envoy's name for the same.
const X_ENVOY_ATTEMPT: &str = "x-envoy-attempt-count";
/// gRPC's: how many came before (gRFC A6).
pub const GRPC_PREVIOUS_ATTEMPTS: &str = "grpc-previous-rpc-attempts";
const GRPC_PUSHBACK: &str = "grpc-retry-pushback-ms";

/// What a longer Retry-After is taken for, so that the wait can be added to any clock: a year is "not today".
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

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
pub fn may_replay(method: &Method, headers: &Fields) -> bool {
    let keyed = || headers.get(IDEMPOTENCY_KEY).is_some_and(|key| !key.is_empty());
    is_idempotent(method) || ((*method == Method::POST || *method == Method::PATCH) && keyed())
}

/// Retry-After in either form (RFC 9110 §10.2.3), at most [`RETRY_AFTER_MAX`]; `date` reads an HTTP date. A date gone
/// by is no wait; what is neither form is `None`.
pub fn parse_retry_after(value: &[u8], now: SystemTime, date: impl Fn(&str) -> Option<SystemTime>) -> Option<Duration> {
    let text = std::str::from_utf8(value).ok()?.trim_ascii();
    let wait = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // Only digits, so the one way to fail is to be too large.
        text.parse().map_or(RETRY_AFTER_MAX, Duration::from_secs)
    } else {
        date(text)?.duration_since(now).unwrap_or_default()
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

/// The attempts that somebody nearer to the client says were made before this request: the most that any of the
/// three fields says. Whoever lies here only takes retries from their own request.
pub fn previous_attempts(headers: &Fields) -> u32 {
    let number = |name: &str| -> Option<u32> { headers.get(name)?.to_str()?.parse().ok() };
    // Most requests have none of them: one pass over the names costs less than looking three up.
    let told = |name: Name<'_>| match name.length() {
        17 => name.is(X_ATTEMPT),
        21 => name.is(X_ENVOY_ATTEMPT),
        26 => name.is(GRPC_PREVIOUS_ATTEMPTS),
        _ => false,
    };
    const TELL: Marks = Marks::of(&[X_ATTEMPT, X_ENVOY_ATTEMPT, GRPC_PREVIOUS_ATTEMPTS]);
    if !headers.may_have(&TELL) || !headers.names().any(told) {
        return 0;
    }
    let counted = [X_ATTEMPT, X_ENVOY_ATTEMPT].map(|name| number(name).map_or(0, |count| count.saturating_sub(1)));
    counted.into_iter().chain(number(GRPC_PREVIOUS_ATTEMPTS)).max().unwrap_or(0)
}

/// How many attempts are ours to make when `previous` were made before: together no more than one proxy alone would
/// make, so that retries of several layers add up instead of multiplying. Always at least one.
pub fn attempts_left(configured: u32, previous: u32) -> u32 {
    configured.saturating_sub(previous).max(1)
}

/// What a gRPC server says of another attempt (gRFC A6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushback {
    /// Nothing: as the client's own policy has it.
    Unsaid,
    /// A negative number, or one that cannot be read: no further attempt.
    Never,
    /// After exactly so long.
    After(Duration),
}

pub fn pushback(headers: &Fields) -> Pushback {
    let Some(value) = headers.get(GRPC_PUSHBACK) else { return Pushback::Unsaid };
    match value.to_str().and_then(|text| text.parse::<u32>().ok()) {
        Some(millis) => Pushback::After(Duration::from_millis(millis.into())),
        None => Pushback::Never,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::testing::map;

    #[test]
    fn only_what_is_idempotent_or_says_so_is_sent_twice() {
        let (plain, keyed, empty) =
            (Fields::default(), map(&[("idempotency-key", "k")]), map(&[("idempotency-key", "")]));
        for (method, safe, alone, with_key) in [
            (Method::GET, true, true, true),
            (Method::HEAD, true, true, true),
            (Method::OPTIONS, true, true, true),
            (Method::TRACE, true, true, true),
            (Method::PUT, false, true, true),
            (Method::DELETE, false, true, true),
            (Method::POST, false, false, true),
            (Method::PATCH, false, false, true),
            (Method::CONNECT, false, false, false),
            (Method::from_bytes(b"get").unwrap(), false, false, false),
            (Method::from_bytes(b"PURGE").unwrap(), false, false, false),
        ] {
            assert_eq!(is_safe(&method), safe, "{method}");
            assert_eq!((may_replay(&method, &plain), may_replay(&method, &keyed)), (alone, with_key), "{method}");
            assert_eq!(may_replay(&method, &empty), alone, "{method} with an empty key");
        }
    }

    #[test]
    fn retry_after_comes_as_seconds_or_as_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(100);
        let date = |text: &str| match text {
            "later" => Some(now + Duration::from_secs(7)),
            "far" => Some(now + 2 * RETRY_AFTER_MAX),
            _ => None,
        };
        let parse = |value: &[u8]| parse_retry_after(value, now, date);
        assert_eq!(parse(b"0"), Some(Duration::ZERO));
        assert_eq!(parse(b" 120\t"), Some(Duration::from_secs(120)));
        assert_eq!(parse(b"later"), Some(Duration::from_secs(7)));
        for (after, left) in [(6, 1), (7, 0), (8, 0)] {
            let later = now + Duration::from_secs(after);
            assert_eq!(parse_retry_after(b"later", later, date), Some(Duration::from_secs(left)));
        }
        for wrong in [&b""[..], b" ", b"-1", b"+1", b"1.5", b"1 2", b"\xff", b"soon"] {
            assert_eq!(parse(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_wait_of_more_than_a_year_is_a_year() {
        let (now, most) = (SystemTime::UNIX_EPOCH, 31_536_000);
        let parse = |seconds: u64| parse_retry_after(seconds.to_string().as_bytes(), now, |_| None);
        for (asked, given) in [(most - 1, most - 1), (most, most), (most + 1, most), (u64::MAX, most)] {
            assert_eq!(parse(asked), Some(Duration::from_secs(given)));
        }
        assert_eq!(parse_retry_after(b"99999999999999999999999", now, |_| None), Some(RETRY_AFTER_MAX));
        assert_eq!(parse_retry_after(b"far", now, |_| Some(now + 2 * RETRY_AFTER_MAX)), Some(RETRY_AFTER_MAX));
    }

    #[test]
    fn whoever_has_tried_before_leaves_us_fewer_attempts() {
        for (fields, previous, left) in [
            (&[][..], 0, 3),
            (&[("x-request-attempt", "1")], 0, 3),
            (&[("x-request-attempt", "2")], 1, 2),
            (&[("x-envoy-attempt-count", "3")], 2, 1),
            (&[("grpc-previous-rpc-attempts", "1")], 1, 2),
            (&[("x-request-attempt", "2"), ("grpc-previous-rpc-attempts", "2")], 2, 1),
            (&[("x-request-attempt", "4294967295")], u32::MAX - 1, 1),
            (&[("x-request-attempt", "4294967296")], 0, 3),
            (&[("x-request-attempt", "-1"), ("x-envoy-attempt-count", "two")], 0, 3),
        ] {
            let found = previous_attempts(&map(fields));
            assert_eq!((found, attempts_left(3, found)), (previous, left), "{fields:?}");
        }
    }

    #[test]
    fn a_server_may_set_the_wait_or_forbid_another_attempt() {
        let said = |value: &str| pushback(&map(&[("grpc-retry-pushback-ms", value)]));
        assert_eq!(pushback(&Fields::default()), Pushback::Unsaid);
        assert_eq!(said("0"), Pushback::After(Duration::ZERO));
        assert_eq!(said("250"), Pushback::After(Duration::from_millis(250)));
        for never in ["-1", "", "soon", "4294967296", "1.5"] {
            assert_eq!(said(never), Pushback::Never, "{never}");
        }
    }
}
