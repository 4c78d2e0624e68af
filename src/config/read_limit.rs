//! Rate limits: whose requests are counted together, how many may come, and what becomes of the others.

use std::time::Duration;

use http::HeaderName;

use super::reader::Map;
use super::settings::{Mode, RateKey, RateLimit, SharedLimit, Store};
use super::units;
use super::yaml::{Node, Value};
use crate::core::dependency::{self, Server};
use crate::core::store::WhenAway;

pub fn rate_limits(root: &Map<'_, '_>) -> Vec<RateLimit> {
    let limits = root.named("rate_limits", "Limits that routes name, by name.");
    let read = |(name, map): (String, Map<'_, '_>)| {
        let key = rate_key(&map);
        let rate = map.rate("rate", "How many in how long.");
        if rate.is_none() && !map.has("rate") && map.is_read("rate") {
            map.context.problem(&format!("{}.rate", map.path), None, "nothing", units::RATE, None);
        }
        let burst = map.count("burst", "1", "How many may come at once.").unwrap_or(1);
        let cost = map.count("cost", "1", "What one request is worth; at most the burst.").unwrap_or(1);
        if cost > burst && map.is_read("cost") && map.is_read("burst") {
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
        let shared = shared(&map);
        map.finish();
        Some(RateLimit { name, key, rate: rate?, burst, cost, mode, shared })
    };
    limits.into_iter().filter_map(read).collect()
}

fn shared(map: &Map<'_, '_>) -> Option<SharedLimit> {
    let doc = "Count with all replicas, in this entry of stores.";
    let store = map.value("store", "name", "", doc, |text| Ok(text.to_owned()));
    let doc = "While the store is away: local decides alone, open lets all pass, closed answers 503.";
    let away = map.choice("when_unavailable", &["local", "open", "closed"], "local", doc);
    if !map.has("store") && map.is_read("store") && map.has("when_unavailable") {
        let path = format!("{}.when_unavailable", map.path);
        let found = "when_unavailable, and no store";
        map.context.problem(&path, map.at("when_unavailable"), found, "a limit with a store", None);
    }
    let when_away = WhenAway::ALL.into_iter().find(|one| Some(one.label()) == away).unwrap_or(WhenAway::Local);
    store.map(|store| SharedLimit { store, when_away })
}

/// Where replicas count together.
pub fn stores(root: &Map<'_, '_>) -> Vec<Store> {
    let read = |(name, map): (String, Map<'_, '_>)| {
        let url = map.secret("url", "Redis or Valkey: redis://user:password@host:port/database, rediss:// for TLS.");
        let doc = "What asking it may add to a request; later answers count as none.";
        let timeout = map.duration("timeout", "5ms", doc).unwrap_or(STORE_TIMEOUT);
        let path = format!("{}.url", map.path);
        let server = url.as_deref().map(dependency::redis);
        let path_fine = |server: &Server| server.path.is_empty() || server.path.parse::<u32>().is_ok();
        let fine = matches!(&server, Some(Ok(server)) if path_fine(server)) || !map.is_read("url");
        if !fine && !map.context.describing() {
            let found =
                if url.is_some() { "a value that is not shown, because it may hold a password" } else { "nothing" };
            map.context.unreadable(&path, map.at("url"), found, dependency::REDIS, None);
        }
        map.finish();
        Some(Store { name, server: server?.ok()?, timeout })
    };
    root.named("stores", "Redis or Valkey servers in which replicas count together, by name.")
        .into_iter()
        .filter_map(read)
        .collect()
}

const STORE_TIMEOUT: Duration = Duration::from_millis(5);
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
        Some(parts) if parts.is_empty() && map.is_read("key") => {
            map.context.problem(&format!("{}.key", map.path), map.at("key"), "an empty list", RATE_KEY, None);
            vec![RateKey::ClientIp]
        }
        Some(parts) if !parts.is_empty() => parts,
        Some(_) | None => vec![RateKey::ClientIp],
    }
}
