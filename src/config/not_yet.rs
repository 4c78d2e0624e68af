//! The keys of the configuration language whose feature this version does not have. They are refused with these
//! words. Whoever builds a feature takes its keys off this list; a test holds the list against the full example.

use super::problem::{Kind, Location, Problem};

/// A key that is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotYet {
    /// With `[]` for list places and `*` for chosen names.
    pub path: &'static str,
    pub what: &'static str,
}

const fn entry(path: &'static str, what: &'static str) -> NotYet {
    NotYet { path, what }
}

pub const NOT_YET: &[NotYet] = &[
    entry("service.version_header", "noticing releases by a header of the app"),
    entry("rate_limits.*.key", "keys by a claim of a JWT (jwt:NAME)"),
    entry("routes[].auth", "authentication"),
    entry("routes[].access", "allow and deny lists"),
    entry("openapi", "validation against an OpenAPI document"),
    entry("readiness.attest", "the readiness checklist"),
    entry("readiness.waive", "the readiness checklist"),
    entry("slos", "objectives and error budgets"),
    entry("budget_policy", "the error budget policy"),
    entry("rollback", "rollback triggers"),
    entry("telemetry.metrics", "native histograms"),
    entry("telemetry.errors", "grouped error capture"),
    entry("telemetry.access_log.redact.headers", "request headers in the access log, and so their redaction"),
];

/// The words for a pattern. A key that asks for words it does not have is a mistake that the tests find.
pub fn words(pattern: &str) -> &'static str {
    NOT_YET.iter().find(|entry| entry.path == pattern).map_or("", |entry| entry.what)
}

/// Other words for a feature on the list, under which people look for it.
const CALLED: &[(&str, &[&str])] = &[
    (
        "routes[].auth",
        &[
            "auth",
            "authentication",
            "authorization",
            "basic_auth",
            "jwt",
            "oauth",
            "oauth2",
            "oidc",
            "api_key",
            "api_keys",
        ],
    ),
    ("routes[].access", &["access", "acl", "allow", "deny", "allow_list", "deny_list", "ip_filter"]),
    ("slos", &["slo", "slos", "objective", "objectives", "error_budget"]),
    ("openapi", &["openapi", "swagger"]),
];

/// What to say of an unknown key that means one of the features on the list, wherever it was typed.
pub fn feature(key: &str) -> Option<String> {
    let (path, _) = CALLED.iter().find(|(_, called)| called.contains(&key))?;
    Some(format!(
        "{} is not available yet, here or elsewhere: remove it; nothing is accepted and then ignored",
        words(path)
    ))
}

/// The problem of a value typed for such a key.
pub fn problem(name: &str, path: String, pattern: &str, at: Option<Location>) -> Problem {
    Problem {
        kind: Kind::NotYet,
        path,
        at,
        found: format!("{name}: {}", words(pattern)),
        expected: "a key that this version can honour".to_owned(),
        hint: Some("not available yet: remove it; nothing is accepted and then ignored".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_not_available_is_called_so() {
        assert!(CALLED.iter().all(|(path, _)| !words(path).is_empty()));
        assert!(feature("authentication").is_some_and(|told| told.starts_with("authentication is not available yet")));
        assert_eq!(feature("timeouts"), None);
    }
}
