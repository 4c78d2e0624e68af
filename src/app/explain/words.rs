//! Matches, times and sizes as an operator would type them.

use std::time::Duration;

use crate::config::settings::RouteMatch;

/// What a request must be like to get here.
pub fn matches(matches: &RouteMatch) -> String {
    let mut parts = vec![format!("path {}", matches.path)];
    if !matches.hosts.is_empty() {
        parts.push(format!("host {}", matches.hosts.join(" or ")));
    }
    if !matches.methods.is_empty() {
        parts.push(matches.methods.join(" or "));
    }
    parts.extend(matches.headers.iter().map(|(name, value)| format!("header {name}: {value}")));
    parts.extend(matches.query.iter().map(|(name, value)| format!("query {name}={value}")));
    parts.join(", ")
}

/// In the unit an operator would type: `250ms`, `5s`, `1m`, `1.5s`.
pub fn time(time: Duration) -> String {
    let millis = time.as_millis();
    match millis {
        0 => "0s".to_owned(),
        m if m % 3_600_000 == 0 => format!("{}h", m / 3_600_000),
        m if m % 60_000 == 0 => format!("{}m", m / 60_000),
        m if m % 1_000 == 0 => format!("{}s", m / 1_000),
        m if m > 1_000 => format!("{}s", m as f64 / 1_000.0),
        m => format!("{m}ms"),
    }
}

/// `240B`, `64KiB`, `10MiB`.
pub fn size(bytes: u64) -> String {
    match bytes {
        b if b >= 1 << 20 && b % (1 << 20) == 0 => format!("{}MiB", b >> 20),
        b if b >= 1 << 10 && b % (1 << 10) == 0 => format!("{}KiB", b >> 10),
        b => format!("{b}B"),
    }
}
