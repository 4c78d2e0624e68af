//! Header edits and the security header presets, compiled to header values.

use std::sync::Arc;
use std::time::Duration;

use http::header::{self, HeaderName, HeaderValue};

use super::{HeaderEdit, LimitPlan, ResponseHeaders};
use crate::config::settings::{HeaderEdits, Preset, SecurityHeaders};

/// HSTS starts with five minutes, so that a mistake is over in five minutes.
const HSTS_FIRST_STEP: &str = "max-age=300";
const HSTS_STRICT: &str = "max-age=31536000; includeSubDomains";

fn preset_default() -> Vec<(HeaderName, &'static str)> {
    vec![
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "SAMEORIGIN"),
        (header::REFERRER_POLICY, "strict-origin-when-cross-origin"),
        (HeaderName::from_static("permissions-policy"), "camera=(), microphone=(), geolocation=()"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin-allow-popups"),
    ]
}
fn preset_strict() -> Vec<(HeaderName, &'static str)> {
    vec![
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "strict-origin-when-cross-origin"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'self'; frame-ancestors 'none'; base-uri 'self'; form-action 'self'",
        ),
        (HeaderName::from_static("permissions-policy"), "camera=(), microphone=(), geolocation=(), payment=(), usb=()"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ]
}

/// A name or value that is not a header; `check` refuses these, so meeting one here is a fault of ours.
#[derive(Debug)]
pub struct NotAHeader(pub String);

/// The route's own edits, in the order set, add, remove.
pub fn edits(wanted: &HeaderEdits) -> Result<Vec<HeaderEdit>, NotAHeader> {
    let mut edits = Vec::new();
    for (name, value) in &wanted.set {
        edits.push(HeaderEdit::Set(self::name(name)?, self::value(value)?));
    }
    for (name, value) in &wanted.add {
        edits.push(HeaderEdit::Add(self::name(name)?, self::value(value)?));
    }
    for name in &wanted.remove {
        edits.push(HeaderEdit::Remove(self::name(name)?));
    }
    Ok(edits)
}

/// What responses get from the preset, the global list and the route. Outbound listeners get only the route's edits:
/// the app is the client there, and it needs what the other side said.
pub fn response(
    security: &SecurityHeaders,
    route: &HeaderEdits,
    outbound: bool,
) -> Result<ResponseHeaders, NotAHeader> {
    let mut headers = ResponseHeaders { edits: edits(route)?, ..ResponseHeaders::default() };
    if outbound {
        return Ok(headers);
    }
    for (name, value) in &security.set {
        headers.defaults.push((self::name(name)?, self::value(value)?));
    }
    for name in &security.remove {
        headers.remove.push(self::name(name)?);
    }
    let (preset, hsts) = match security.preset {
        Preset::Off => (Vec::new(), None),
        Preset::Default => (preset_default(), Some(HSTS_FIRST_STEP)),
        Preset::Strict => (preset_strict(), Some(HSTS_STRICT)),
    };
    for (name, value) in preset {
        if !headers.defaults.iter().any(|(set, _)| *set == name) {
            headers.defaults.push((name, HeaderValue::from_static(value)));
        }
    }
    if security.preset != Preset::Off {
        headers.remove.extend([header::SERVER, HeaderName::from_static("x-powered-by")]);
    }
    headers.hsts = match security.hsts_max_age {
        Some(age) => Some(hsts_value(age, security.preset)?),
        None => hsts.map(HeaderValue::from_static),
    };
    Ok(headers)
}

fn hsts_value(age: Duration, preset: Preset) -> Result<HeaderValue, NotAHeader> {
    let subdomains = if preset == Preset::Strict { "; includeSubDomains" } else { "" };
    value(&format!("max-age={}{subdomains}", age.as_secs()))
}

fn name(text: &str) -> Result<HeaderName, NotAHeader> {
    HeaderName::from_bytes(text.as_bytes()).map_err(|_| NotAHeader(text.to_owned()))
}

fn value(text: &str) -> Result<HeaderValue, NotAHeader> {
    HeaderValue::from_str(text).map_err(|_| NotAHeader("a header value with control characters".to_owned()))
}

/// `name` as a Structured Fields string (RFC 9651 §3.3.3); what it cannot hold becomes `?`.
pub fn quoted(name: &str) -> String {
    let mut text = String::with_capacity(name.len() + 2);
    text.push('"');
    for character in name.chars() {
        match character {
            '"' | '\\' => text.extend(['\\', character]),
            ' '..='~' => text.push(character),
            _ => text.push('?'),
        }
    }
    text.push('"');
    text
}

/// Every limit's quota and window for `RateLimit-Policy`: the burst, and how long it takes to come back whole.
pub fn limits_policy(limits: &[Arc<LimitPlan>]) -> Option<HeaderValue> {
    let items: Vec<String> = limits
        .iter()
        .filter(|limit| limit.enforced)
        .map(|limit| {
            let whole = limit.params.emission.saturating_mul(u32::try_from(limit.params.burst).unwrap_or(u32::MAX));
            let window = whole.as_secs() + u64::from(whole.subsec_nanos() > 0);
            format!("{};q={};w={window}", limit.label, limit.params.burst)
        })
        .collect();
    if items.is_empty() { None } else { HeaderValue::try_from(items.join(", ")).ok() }
}
