//! Rate limits: whose requests are counted together, how many may come, and what becomes of the others.

use http::HeaderName;

use super::reader::Map;
use super::settings::{Mode, RateKey, RateLimit};
use super::units;
use super::yaml::{Node, Value};

pub fn rate_limits(root: &Map<'_, '_>) -> Vec<RateLimit> {
    let limits = root.named("rate_limits", "Limits that routes name, by name.");
    let read = |(name, map): (String, Map<'_, '_>)| {
        let key = rate_key(&map);
        let rate = map.rate("rate", "How many in how long.");
        if rate.is_none() && !map.has("rate") {
            map.context.problem(&format!("{}.rate", map.path), None, "nothing", units::RATE, None);
        }
        let burst = map.count("burst", "1", "How many may come at once.").unwrap_or(1);
        let cost = map.count("cost", "1", "What one request is worth; at most the burst.").unwrap_or(1);
        if cost > burst {
            let hint = "no request could ever pass: raise burst, or lower cost".to_owned();
            let found = format!("a cost of {cost} above the burst of {burst}");
            map.context.problem(
                &format!("{}.cost", map.path),
                map.at("cost"),
                found,
                "a cost that the burst can pay",
                Some(hint),
            );
        }
        let doc = "shadow refuses nobody and counts who would have been; off decides nothing.";
        let mode = match map.choice("mode", &["enforce", "shadow", "off"], "enforce", doc) {
            Some("shadow") => Mode::Shadow,
            Some("off") => Mode::Off,
            Some(_) | None => Mode::Enforce,
        };
        map.later("store");
        map.later("when_unavailable");
        map.finish();
        Some(RateLimit { name, key, rate: rate?, burst, cost, mode })
    };
    limits.into_iter().filter_map(read).collect()
}

const RATE_KEY: &str = "client_ip, route, header:NAME or cookie:NAME";

fn rate_key(map: &Map<'_, '_>) -> Vec<RateKey> {
    let claims = |node: &Node| {
        let jwt = |item: &Node| matches!(&item.value, Value::Scalar { text, .. } if text.starts_with("jwt:"));
        !matches!(&node.value, Value::List(items) if items.iter().any(jwt))
    };
    let doc = "Whose requests are counted together: a list of client_ip, route, header:NAME, cookie:NAME.";
    if map.not_yet_unless("key", claims) {
        return vec![RateKey::ClientIp];
    }
    let parts = map.values("key", "list of key parts", doc, |text| match text.split_once(':') {
        None if text == "client_ip" => Ok(RateKey::ClientIp),
        None if text == "route" => Ok(RateKey::Route),
        Some(("header", name)) => HeaderName::from_bytes(name.as_bytes())
            .map(|name| RateKey::Header(name.as_str().to_owned()))
            .map_err(|_| RATE_KEY),
        Some(("cookie", name)) if !name.is_empty() => Ok(RateKey::Cookie(name.to_owned())),
        Some(_) | None => Err(RATE_KEY),
    });
    match parts {
        Some(parts) if parts.is_empty() => {
            map.context.problem(&format!("{}.key", map.path), map.at("key"), "an empty list", RATE_KEY, None);
            vec![RateKey::ClientIp]
        }
        Some(parts) => parts,
        None => vec![RateKey::ClientIp],
    }
}
