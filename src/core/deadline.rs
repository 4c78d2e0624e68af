//! How long a request may take, as its sender says it, and as it is said on.
//!
//! A time of zero is taken at its word: the sender's time is over. What is malformed is ignored rather than refused,
//! because these fields are advice; our own limits govern then. Written times are rounded down, so that nobody behind
//! us is promised more than is left.

use std::time::{Duration, Instant};

use super::fields::{Fields, Marks};

/// The moment a request has to be answered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline {
    pub at: Instant,
}

impl Deadline {
    /// What is left; zero once it is over.
    pub fn remaining(&self, now: Instant) -> Duration {
        self.at.saturating_duration_since(now)
    }

    /// Whether something that takes `needed` can end in time: at the deadline itself is too late.
    pub fn fits(&self, now: Instant, needed: Duration) -> bool {
        needed < self.remaining(now)
    }
}

/// The shortest of the times the headers ask for, over every line of them.
pub fn requested(headers: &Fields) -> Option<Duration> {
    const ASKS: Marks = Marks::of(&["grpc-timeout", "x-request-timeout-ms", "x-envoy-expected-rq-timeout-ms"]);
    if !headers.may_have(&ASKS) {
        return None;
    }
    let times = headers.iter().filter_map(|(name, value)| match name.length() {
        12 if name.is("grpc-timeout") => parse_grpc_timeout(value.as_bytes()),
        20 if name.is("x-request-timeout-ms") => digits(value.as_bytes()).map(Duration::from_millis),
        30 if name.is("x-envoy-expected-rq-timeout-ms") => digits(value.as_bytes()).map(Duration::from_millis),
        _ => None,
    });
    times.min()
}

/// `TimeoutValue TimeoutUnit` of the gRPC-over-HTTP/2 specification: at most eight digits and one of `HMSmun`.
fn parse_grpc_timeout(text: &[u8]) -> Option<Duration> {
    let (unit, number) = text.split_last()?;
    if number.len() > 8 {
        return None;
    }
    let value = digits(number)?;
    Some(match unit {
        b'H' => Duration::from_secs(value * 3600),
        b'M' => Duration::from_secs(value * 60),
        b'S' => Duration::from_secs(value),
        b'm' => Duration::from_millis(value),
        b'u' => Duration::from_micros(value),
        b'n' => Duration::from_nanos(value),
        _ => return None,
    })
}

/// In the finest unit that fits eight digits; at least a nanosecond, because the value must be positive.
pub fn format_grpc_timeout(left: Duration) -> String {
    const MOST: u128 = 99_999_999;
    let (nanos, micros, millis) = (left.as_nanos(), left.as_micros(), left.as_millis());
    if nanos <= MOST {
        format!("{}n", nanos.max(1))
    } else if micros <= MOST {
        format!("{micros}u")
    } else if millis <= MOST {
        format!("{millis}m")
    } else {
        format!("{}S", u128::from(left.as_secs()).min(MOST))
    }
}

/// One to twelve digits: more than thirty years in milliseconds, and far from overflowing.
fn digits(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 12 {
        return None;
    }
    text.iter().try_fold(0, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + u64::from(byte - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::testing::{map, origin};

    fn asked(fields: &[(&'static str, &str)]) -> Option<Duration> {
        requested(&map(fields))
    }

    #[test]
    fn the_shortest_time_governs_and_nonsense_is_ignored() {
        let millis = |value| Some(Duration::from_millis(value));
        assert_eq!(asked(&[]), None);
        assert_eq!(asked(&[("grpc-timeout", "100m")]), millis(100));
        assert_eq!(asked(&[("grpc-timeout", "2S"), ("x-request-timeout-ms", "1500")]), millis(1500));
        assert_eq!(asked(&[("x-envoy-expected-rq-timeout-ms", "7"), ("grpc-timeout", "1H")]), millis(7));
        assert_eq!(asked(&[("x-request-timeout-ms", "9"), ("x-request-timeout-ms", "3")]), millis(3));
        assert_eq!(asked(&[("x-request-timeout-ms", "x"), ("grpc-timeout", "1S")]), millis(1000));
        assert_eq!(asked(&[("x-request-timeout-ms", "0")]), Some(Duration::ZERO));
        assert_eq!(asked(&[("x-request-timeout-ms", "999999999999")]), millis(999_999_999_999));
        for wrong in ["", "m", "123456789m", "1x", "-1m", "+1m", "1 m", "1é", "1"] {
            assert_eq!(asked(&[("grpc-timeout", wrong)]), None, "{wrong}");
        }
        for wrong in ["", "1s", "-1", "1.5", "1234567890123"] {
            assert_eq!(asked(&[("x-request-timeout-ms", wrong)]), None, "{wrong}");
        }
    }

    #[test]
    fn every_grpc_unit_is_read() {
        for (text, time) in [
            ("99999999H", Duration::from_secs(99_999_999 * 3600)),
            ("2M", Duration::from_secs(120)),
            ("3S", Duration::from_secs(3)),
            ("4m", Duration::from_millis(4)),
            ("5u", Duration::from_micros(5)),
            ("6n", Duration::from_nanos(6)),
        ] {
            assert_eq!(asked(&[("grpc-timeout", text)]), Some(time), "{text}");
        }
    }

    #[test]
    fn a_time_survives_its_own_writing() {
        for time in [1, 99_999_999, 100_000_000, 99_999_999_000, 99_999_999_000_000].map(Duration::from_nanos) {
            assert_eq!(parse_grpc_timeout(format_grpc_timeout(time).as_bytes()), Some(time));
        }
        assert_eq!(format_grpc_timeout(Duration::from_secs(1_000_000)), "1000000S");
        assert_eq!(format_grpc_timeout(Duration::ZERO), "1n");
        assert_eq!(format_grpc_timeout(Duration::MAX), "99999999S");
    }

    /// Whatever is written is no more than what was left.
    #[test]
    fn a_written_time_is_never_longer() {
        for nanos in [99_999_999u64, 100_000_001, 99_999_999_999, 100_000_000_001, 100_000_000_000_001] {
            let left = Duration::from_nanos(nanos);
            let written = parse_grpc_timeout(format_grpc_timeout(left).as_bytes()).unwrap();
            assert!(written <= left && left - written < Duration::from_secs(1), "{nanos}");
        }
    }

    #[test]
    fn what_would_end_at_the_deadline_does_not_fit() {
        let now = origin();
        let deadline = Deadline { at: now + Duration::from_nanos(10) };
        let fits = |needed| deadline.fits(now, Duration::from_nanos(needed));
        assert_eq!([fits(9), fits(10), fits(11)], [true, false, false]);
        assert_eq!(deadline.remaining(now + Duration::from_nanos(9)), Duration::from_nanos(1));
        assert_eq!(deadline.remaining(now + Duration::from_nanos(11)), Duration::ZERO);
        assert!(!deadline.fits(now + Duration::from_nanos(10), Duration::ZERO));
    }
}
