//! Quantities with their units. A bare number is not a quantity: 5 what?

use std::time::Duration;

use crate::core::units::{Address, Rate, Ratio};

/// What a text was expected to be, when it is not.
pub type Expected = &'static str;

pub const DURATION: Expected = "a time with its unit: 250ms, 5s, 1m, 2h, 28d";
/// Longer is a slip of the finger, and sums of times below it never overflow.
const DURATION_MAX: Duration = Duration::from_secs(3650 * 86_400);
pub const BYTES: Expected = "a size with its unit: 512B, 64KiB, 10MiB, 1GiB";
pub const RATE: Expected = "a rate: 100/s, 10/m, 5/h";
pub const BYTE_RATE: Expected = "a rate of bytes: 240B/s, 10KiB/s";
pub const RATIO: Expected = "a percentage from 0% to 100%";
pub const ADDRESS: Expected = "an address: host:port, [ipv6]:port or unix:/path";
pub const URL: Expected = "a URL: http://host:port, https://host or unix:/path";
/// What the system takes (`sun_path` with its end).
const SOCKET_PATH_MAX: usize = 107;
/// OTLP over HTTP; its port is 4318 by custom, and 4317 that of gRPC.
pub const COLLECTOR: Expected = "an http:// or https:// URL, such as http://localhost:4318";

fn split(text: &str) -> (&str, &str) {
    let end = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(text.len());
    text.split_at(end)
}

fn number(text: &str) -> Option<f64> {
    let plain = !text.is_empty() && text.len() <= 15 && text.bytes().any(|byte| byte.is_ascii_digit());
    if plain { text.parse().ok() } else { None }
}

pub fn duration(text: &str) -> Result<Duration, Expected> {
    let (digits, unit) = split(text);
    let seconds = match unit {
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => return Err(DURATION),
    };
    let value = number(digits).ok_or(DURATION)? * seconds;
    let time = Duration::try_from_secs_f64((value * 1e6).round() / 1e6).map_err(|_| DURATION)?;
    if time <= DURATION_MAX { Ok(time) } else { Err("a time of at most 3650d") }
}

/// The same, for what would never work with nothing.
pub fn timer(text: &str) -> Result<Duration, Expected> {
    duration(text).and_then(|time| if time.is_zero() { Err("a time above 0s") } else { Ok(time) })
}

pub fn bytes(text: &str) -> Result<u64, Expected> {
    let (digits, unit) = split(text);
    let factor = match unit {
        "B" => 1.0,
        "KiB" => 1024.0,
        "MiB" => 1024.0 * 1024.0,
        "GiB" => 1024.0 * 1024.0 * 1024.0,
        _ => return Err(BYTES),
    };
    Ok((number(digits).ok_or(BYTES)? * factor) as u64)
}

pub fn byte_rate(text: &str) -> Result<u64, Expected> {
    text.strip_suffix("/s").and_then(|size| bytes(size).ok()).ok_or(BYTE_RATE)
}

pub fn rate(text: &str) -> Result<Rate, Expected> {
    let (count, per) = text.split_once('/').ok_or(RATE)?;
    let per = match per {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(RATE),
    };
    let count = count.parse().ok().filter(|count| *count > 0).ok_or(RATE)?;
    Ok(Rate { count, per: Duration::from_secs(per) })
}

pub fn ratio(text: &str) -> Result<Ratio, Expected> {
    let percent = text.strip_suffix('%').and_then(number).ok_or(RATIO)?;
    if percent <= 100.0 { Ok(Ratio(percent / 100.0)) } else { Err(RATIO) }
}

pub fn address(text: &str) -> Result<Address, Expected> {
    if let Some(path) = text.strip_prefix("unix:") {
        return match path.starts_with('/') {
            true if path.len() > SOCKET_PATH_MAX => Err("a socket path of at most 107 bytes"),
            true => Ok(Address::Unix(path.into())),
            false => Err(ADDRESS),
        };
    }
    let (host, port) = text.rsplit_once(':').ok_or(ADDRESS)?;
    let port = port.parse().map_err(|_| ADDRESS)?;
    let host = match host.strip_prefix('[') {
        Some(rest) => {
            rest.strip_suffix(']').filter(|inner| inner.parse::<std::net::Ipv6Addr>().is_ok()).ok_or(ADDRESS)?
        }
        None if host.contains(':') => return Err(ADDRESS),
        None => host,
    };
    if host.is_empty() || host.contains(['/', ' ', '@']) {
        return Err(ADDRESS);
    }
    Ok(Address::Tcp { host: host.to_owned(), port })
}

/// An endpoint's URL: address, whether it is TLS, and the authority.
pub fn url(text: &str) -> Result<(Address, bool, String), Expected> {
    if text.starts_with("unix:") {
        return Ok((address(text)?, false, "localhost".to_owned()));
    }
    let (tls, rest) = match text.split_once("://") {
        Some(("http", rest)) => (false, rest),
        Some(("https", rest)) => (true, rest),
        Some(_) | None => return Err(URL),
    };
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if authority.contains(['/', '?', '#', '@']) {
        return Err("a URL without a path, query or user: http://host:port");
    }
    let port_given = authority.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'));
    let whole = if port_given { authority.to_owned() } else { format!("{authority}:{}", if tls { 443 } else { 80 }) };
    match address(&whole).map_err(|_| URL)? {
        Address::Tcp { port: 0, .. } => Err("a URL with a port that can be connected to, 1 to 65535"),
        address => Ok((address, tls, authority.to_owned())),
    }
}

/// The base URL of an OTLP/HTTP collector.
pub fn collector(text: &str) -> Result<String, Expected> {
    let uri: http::Uri = text.parse().map_err(|_| COLLECTOR)?;
    let origin = match (uri.scheme_str(), uri.authority()) {
        (Some(scheme @ ("http" | "https")), Some(authority)) => format!("{scheme}://{authority}"),
        (Some(_) | None, Some(_) | None) => return Err(COLLECTOR),
    };
    if origin.contains('@') {
        return Err("a URL without a user; credentials are for OTEL_EXPORTER_OTLP_HEADERS");
    }
    if uri.query().is_some() || text.contains('#') {
        return Err("a URL without a query: http://localhost:4318");
    }
    url(&origin).map(|_| text.to_owned()).map_err(|expected| if expected == URL { COLLECTOR } else { expected })
}

/// How people write the units of times, and ours.
const TIMES: &[(&str, &[&str])] = &[
    ("ms", &["ms", "msec", "msecs", "millis", "millisecond", "milliseconds"]),
    ("s", &["s", "sec", "secs", "second", "seconds"]),
    ("m", &["m", "min", "mins", "minute", "minutes"]),
    ("h", &["h", "hr", "hrs", "hour", "hours"]),
    ("d", &["d", "day", "days"]),
];
const SIZES: &[(&str, &[&str])] = &[
    ("B", &["b", "byte", "bytes"]),
    ("KiB", &["k", "kb", "kib"]),
    ("MiB", &["m", "mb", "mib"]),
    ("GiB", &["g", "gb", "gib"]),
];
const PERIODS: &[(&str, &[&str])] = &[
    ("/s", &["/s", "/sec", "/second", "per second", "rps", "r/s", "qps"]),
    ("/m", &["/m", "/min", "/minute", "per minute", "rpm", "r/m"]),
    ("/h", &["/h", "/hour", "per hour", "r/h"]),
];

/// What to do about a quantity that is not written as this language writes it: how it would be, where that is certain.
pub fn meant(text: &str, expected: Expected) -> Option<String> {
    let text = text.trim();
    if expected == COLLECTOR {
        return with_scheme(text);
    }
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        let percent = expected.contains("percentage") && ratio(&format!("{text}%")).is_ok();
        let percent = percent.then(|| format!("write `{text}%`, if that is what it is"));
        let unit = expected.contains("unit").then(|| "add the unit: a bare number could be anything".to_owned());
        return percent.or(unit);
    }
    let (digits, unit) = split(text);
    number(digits)?;
    let unit = unit.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase().replace("/ ", "/");
    let ours = |units: &[(&'static str, &[&str])]| {
        units.iter().find(|(_, called)| called.contains(&unit.as_str())).map(|(ours, _)| format!("{digits}{ours}"))
    };
    let time = || ours(TIMES).filter(|ours| duration(ours).is_ok());
    let size = || ours(SIZES).filter(|ours| bytes(ours).is_ok());
    let written = match expected {
        RATE => ours(PERIODS).filter(|ours| rate(ours).is_ok()),
        BYTES => size(),
        other if other.contains("time") => time(),
        _ => None,
    };
    // What is written so already is wrong for another reason.
    written.filter(|written| written != text).map(|written| format!("write `{written}`"))
}

/// A collector's host and port want only their scheme, and the port that speaks HTTP.
fn with_scheme(text: &str) -> Option<String> {
    let url = format!("http://{}", text.strip_prefix("grpc://").unwrap_or(text));
    collector(&url).ok()?;
    Some(match url.strip_suffix(":4317") {
        Some(host) => format!("write `{host}:4318`: spans are sent over HTTP, and 4317 is the port for gRPC"),
        None => format!("write `{url}`"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantity_in_other_words_is_told_in_ours() {
        let told = |text, expected| meant(text, expected).unwrap_or_default();
        for (text, ours) in [("10 s", "10s"), ("3 seconds", "3s"), ("1.5 Minutes", "1.5m"), ("250 msec", "250ms")] {
            assert_eq!(told(text, DURATION), format!("write `{ours}`"));
        }
        assert_eq!(told("10sec", "a time of 100ms to 10m"), "write `10s`");
        assert_eq!(told("10", DURATION), "add the unit: a bare number could be anything");
        assert_eq!(told("64 KB", BYTES), "write `64KiB`");
        assert_eq!(["100 / s", "100 per second", "100rps"].map(|text| told(text, RATE)), ["write `100/s`"; 3]);
        assert_eq!(told("20", RATIO), "write `20%`, if that is what it is");
        // Nothing is made up.
        for (text, expected) in [("soon", DURATION), ("10 parsecs", DURATION), ("0s", "a time above 0s"), ("", RATE)] {
            assert_eq!(told(text, expected), "", "{text}");
        }
        assert_eq!(told("10 s", "true or false"), "");
    }

    #[test]
    fn a_collector_is_an_http_url() {
        for good in ["http://localhost:4318", "https://otel.example/base/", "http://[::1]:4318", "http://10.0.0.1"] {
            assert_eq!(collector(good).as_deref(), Ok(good));
        }
        for (wrong, hint) in [
            (
                "localhost:4317",
                "write `http://localhost:4318`: spans are sent over HTTP, and 4317 is the port for gRPC",
            ),
            ("grpc://otel:4317", "write `http://otel:4318`: spans are sent over HTTP, and 4317 is the port for gRPC"),
            ("localhost:4318", "write `http://localhost:4318`"),
            ("otel.example", "write `http://otel.example`"),
            ("ftp://localhost", ""),
            ("/v1/traces", ""),
            ("http://", ""),
        ] {
            assert_eq!(collector(wrong), Err(COLLECTOR), "{wrong}");
            assert_eq!(meant(wrong, COLLECTOR).unwrap_or_default(), hint, "{wrong}");
        }
        for wrong in ["http://u:p@localhost", "http://a:0", "http://a:99999", "http://a?x=1", "http://a#x", "http:// a"]
        {
            assert!(collector(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn quantities_need_their_unit() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("28d"), Ok(Duration::from_secs(28 * 86_400)));
        for wrong in ["5", "s", "", "5 s", "-5s", "1e9s", "..s", "5sec", "3651d", "99999999999999d"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
        assert!(duration("3650d").is_ok() && duration("0s").is_ok() && timer("0s").is_err());
        assert_eq!(bytes("64KiB"), Ok(65_536));
        assert!(bytes("64").is_err() && bytes("64KB").is_err());
        assert_eq!(byte_rate("240B/s"), Ok(240));
        assert_eq!(rate("10/m"), Ok(Rate { count: 10, per: Duration::from_secs(60) }));
        assert!(rate("0/s").is_err() && rate("10").is_err() && rate("1/d").is_err());
        assert_eq!(ratio("20%"), Ok(Ratio(0.2)));
        assert!(ratio("101%").is_err() && ratio("20").is_err());
    }

    #[test]
    fn addresses_and_urls() {
        let tcp = |host: &str, port| Address::Tcp { host: host.to_owned(), port };
        assert_eq!(address("0.0.0.0:80"), Ok(tcp("0.0.0.0", 80)));
        assert_eq!(address("[::1]:80"), Ok(tcp("::1", 80)));
        assert!(["80", "a:", ":80", "::1:80", "a:70000", "a b:1", "unix:x"].iter().all(|text| address(text).is_err()));
        assert_eq!(url("http://a:81/"), Ok((tcp("a", 81), false, "a:81".to_owned())));
        assert_eq!(url("https://a"), Ok((tcp("a", 443), true, "a".to_owned())));
        assert_eq!(url("http://[::1]"), Ok((tcp("::1", 80), false, "[::1]".to_owned())));
        assert!(
            ["a:80", "http://a:0", "ftp://a", "http://a/b", "http://u@a", "http://"]
                .iter()
                .all(|text| url(text).is_err())
        );
    }
}
