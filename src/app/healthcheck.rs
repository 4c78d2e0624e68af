//! `outrigger healthcheck`: asks the ops port and exits 0 or 1, for container images that have no shell and no curl.
//!
//! Readiness by default; `--live` asks for liveness, which is what a container runtime that restarts on failure should
//! use. A process that does not answer is a "no" (exit 1), because that is what the runtime must act on; only an
//! address that cannot be understood is a "cannot" (exit 2).

use std::time::Duration;

use super::client::{Client, OPS_DEFAULT, parse_address};
use super::verdict::Verdict;
use crate::core::units::Address;

/// What is asked.
#[derive(Debug)]
pub struct Question {
    pub address: Address,
    pub path: String,
    pub timeout: Duration,
}

/// `url` is `http://host:port/path`, `host:port` or `unix:/path`; without a path it is the probe's own.
pub fn question(url: Option<&str>, live: bool, timeout: Duration) -> Result<Question, String> {
    let probe = if live { "/livez" } else { "/readyz" };
    let url = url.unwrap_or(OPS_DEFAULT);
    if url.starts_with("https://") {
        return Err("the ops port speaks plain HTTP; write http://host:port/readyz".to_owned());
    }
    let bare = url.strip_prefix("http://").unwrap_or(url);
    let (address, path) = match bare.split_once('/') {
        Some((address, path)) if !bare.starts_with("unix:") && !path.is_empty() => (address, format!("/{path}")),
        Some((address, _)) if !bare.starts_with("unix:") => (address, probe.to_owned()),
        Some(_) | None => (bare, probe.to_owned()),
    };
    Ok(Question { address: parse_address(address)?, path, timeout })
}

/// Asks, and says in one line what is wrong when something is.
pub async fn ask(question: &Question) -> Verdict {
    let client = Client::new(question.address.clone(), "ops", Some(question.timeout));
    match client.get(&question.path).await {
        Err(error) => Verdict::no(error.to_string()),
        Ok(answer) if answer.status.is_success() => Verdict::yes("ok"),
        Ok(answer) => {
            let report = answer.json();
            let reasons = report["waiting_for"].as_array().into_iter().flatten();
            let reasons: Vec<&str> = reasons.filter_map(|reason| reason.as_str()).collect();
            let why = if reasons.is_empty() { "no reason was given".to_owned() } else { reasons.join("; ") };
            Verdict::no(format!("{} answered {}: {why}", question.path, answer.status.as_u16()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(url: Option<&str>, live: bool) -> (String, String) {
        let question = question(url, live, Duration::from_secs(1)).unwrap();
        (question.address.to_string(), question.path)
    }

    #[test]
    fn the_probe_path_is_used_unless_the_url_has_one() {
        assert_eq!(path(None, false), ("127.0.0.1:9900".to_owned(), "/readyz".to_owned()));
        assert_eq!(path(None, true), ("127.0.0.1:9900".to_owned(), "/livez".to_owned()));
        assert_eq!(path(Some("http://a:1"), false), ("a:1".to_owned(), "/readyz".to_owned()));
        assert_eq!(path(Some("http://a:1/"), false), ("a:1".to_owned(), "/readyz".to_owned()));
        assert_eq!(path(Some("http://a:1/startupz"), false), ("a:1".to_owned(), "/startupz".to_owned()));
        assert_eq!(path(Some("unix:/run/ops.sock"), true), ("unix:/run/ops.sock".to_owned(), "/livez".to_owned()));
        assert!(question(Some("https://a:1"), false, Duration::from_secs(1)).is_err());
        assert!(question(Some("nonsense"), false, Duration::from_secs(1)).is_err());
    }
}
