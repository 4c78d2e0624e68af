//! Configuration files for tests: every port 0, one worker, no delay in a drain, unless the test says otherwise.

use std::fmt::Display;

const DEFAULTS: &[(&str, &str)] = &[
    ("listeners", "listeners: [{ name: web, address: \"127.0.0.1:0\" }]"),
    ("ops", "ops: { address: \"127.0.0.1:0\" }"),
    ("admin", "admin: { address: \"127.0.0.1:0\" }"),
    ("drain", "drain: { delay: 0s, timeout: 5s }"),
    ("workers", "workers: 1"),
];

/// A file for one app at `address`, with `extra` top-level keys, which replace the defaults of the same name.
pub fn config(address: impl Display, extra: &str) -> String {
    let has = |key: &str| extra.lines().any(|line| line.starts_with(&format!("{key}:")));
    let mut text = String::new();
    for (key, line) in DEFAULTS {
        if !has(key) {
            text.push_str(line);
            text.push('\n');
        }
    }
    if !has("upstream") && !has("upstreams") {
        text.push_str(&format!("upstream: http://{address}\n"));
    }
    text.push_str(extra);
    text
}
