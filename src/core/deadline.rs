//! How long a request may take, as its sender says it, and as it is said on.

use std::time::Duration;

use http::header::{HeaderMap, HeaderName};

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const X_REQUEST_TIMEOUT: HeaderName = HeaderName::from_static("x-request-timeout-ms");
const X_ENVOY_TIMEOUT: HeaderName = HeaderName::from_static("x-envoy-expected-rq-timeout-ms");

/// The shortest of the times the headers ask for; what is malformed is ignored.
pub fn requested(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &HeaderName| headers.get(name)?.to_str().ok();
    let millis = |name: &HeaderName| digits(text(name)?).map(Duration::from_millis);
    let grpc = text(&GRPC_TIMEOUT).and_then(parse_grpc_timeout);
    [grpc, millis(&X_REQUEST_TIMEOUT), millis(&X_ENVOY_TIMEOUT)].into_iter().flatten().min()
}

/// `TimeoutValue TimeoutUnit` of the gRPC-over-HTTP/2 specification: at most eight digits and one of `HMSmun`.
fn parse_grpc_timeout(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if number.len() > 8 {
        return None;
    }
    let value = digits(number)?;
    Some(match unit {
        "H" => Duration::from_secs(value * 3600),
        "M" => Duration::from_secs(value * 60),
        "S" => Duration::from_secs(value),
        "m" => Duration::from_millis(value),
        "u" => Duration::from_micros(value),
        "n" => Duration::from_nanos(value),
        _ => return None,
    })
}

/// In the finest unit that fits eight digits.
pub fn format_grpc_timeout(left: Duration) -> String {
    const MOST: u128 = 99_999_999;
    let (nanos, micros, millis) = (left.as_nanos(), left.as_micros(), left.as_millis());
    if nanos <= MOST {
        format!("{nanos}n")
    } else if micros <= MOST {
        format!("{micros}u")
    } else if millis <= MOST {
        format!("{millis}m")
    } else {
        format!("{}S", u128::from(left.as_secs()).min(MOST))
    }
}

fn digits(text: &str) -> Option<u64> {
    let plain = !text.is_empty() && text.len() <= 12 && text.bytes().all(|byte| byte.is_ascii_digit());
    if plain { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(fields: &[(&'static str, &'static str)]) -> Option<Duration> {
        let headers =
            fields.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect();
        requested(&headers)
    }

    #[test]
    fn the_shortest_time_governs_and_nonsense_is_ignored() {
        assert_eq!(asked(&[]), None);
        assert_eq!(asked(&[("grpc-timeout", "100m")]), Some(Duration::from_millis(100)));
        assert_eq!(
            asked(&[("grpc-timeout", "2S"), ("x-request-timeout-ms", "1500")]),
            Some(Duration::from_millis(1500))
        );
        assert_eq!(
            asked(&[("x-envoy-expected-rq-timeout-ms", "7"), ("grpc-timeout", "1H")]),
            Some(Duration::from_millis(7))
        );
        for wrong in ["", "m", "123456789m", "1x", "-1m", "+1m", "1 m", "1é"] {
            let value = http::HeaderValue::from_bytes(wrong.as_bytes()).unwrap();
            assert_eq!(requested(&HeaderMap::from_iter([(GRPC_TIMEOUT, value)])), None, "{wrong}");
        }
    }

    #[test]
    fn a_time_survives_its_own_writing() {
        for time in [0, 1, 99_999_999, 100_000_000, 99_999_999_000, 99_999_999_000_000].map(Duration::from_nanos) {
            assert_eq!(parse_grpc_timeout(&format_grpc_timeout(time)), Some(time));
        }
        assert_eq!(format_grpc_timeout(Duration::from_secs(1_000_000)), "1000000S");
    }
}
