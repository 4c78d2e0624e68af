//! A request against the rate limits of its route, and what the client is told of them on every answer:
//! `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-10). Of several limits the answer tells the
//! standing of the one that is nearest to its end, because that is the one to keep to.
//!
//! A request that one limit refuses costs nothing at the others. A part of a key that the request does not have is
//! an empty one: all requests without it are counted together, so that leaving it out is no way around a limit.

use std::fmt::Write as _;
use std::hash::Hasher;
use std::net::IpAddr;
use std::time::Duration;

mod shared;

use http::HeaderValue;

use sha2::{Digest, Sha256};

use super::exchange::Exchange;
use super::refusal::{Refusal, whole_seconds};
use crate::core::bucket::Decision;
use crate::core::fields::{Fields, Value};
use crate::core::store::WhenAway;
use crate::plan::{LimitPlan, RateKey, RoutePlan};
use crate::state::clock;
use crate::state::limit::{Ask, Receipt};
use crate::state::store::StoreState;

const RATELIMIT: &str = "ratelimit";
const RATELIMIT_POLICY: &str = "ratelimit-policy";
/// The longest value shown of a refused key.
const SHOWN_MAX: usize = 64;
/// Headers whose name says that their value is nobody's business.
const SECRET: [&str; 8] = ["auth", "key", "token", "secret", "cookie", "session", "password", "signature"];

/// How a client stands with one limit of its route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Its place among the route's limits.
    limit: usize,
    remaining: u64,
    /// Until the limit is as good as new; of a refusal, until it would be let in.
    reset: Duration,
}

/// Asks every limit of the route; those that replicas count together are asked here first, because who has had too much
/// of this replica alone has had too much.
pub async fn check(exchange: &mut Exchange, route: &RoutePlan, fields: &Fields) -> Result<(), Refusal> {
    let store = route.limits.iter().find_map(|limit| limit.shared.as_ref());
    let link = store.and_then(|shared| exchange.proxy.links.get(&shared.store));
    let up = link.as_ref().is_some_and(|link| link.is_up());
    if let (Some(shared), false) = (store, up) {
        StoreState::count(&shared.store.state.unasked);
        shared::note(exchange, &shared.store.name);
    }
    let charged = here(exchange, route, fields, up)?;
    match link {
        Some(link) if up => {
            // Boxed: the question is rare and large, and would otherwise be part of every request's future.
            Box::pin(shared::ask(exchange, route, fields, &link, &charged)).await
        }
        Some(_) | None => Ok(()),
    }
}

/// What was charged, by the limit's place in the route.
type Charged = Vec<(usize, Receipt)>;

/// Asks this replica's own counts; `up` says that the store will be asked too.
fn here(exchange: &mut Exchange, route: &RoutePlan, fields: &Fields, up: bool) -> Result<Charged, Refusal> {
    let now = clock::nanos(exchange.started);
    let mut charged = Charged::new();
    for (place, limit) in route.limits.iter().enumerate() {
        match limit.shared.as_ref().filter(|_| !up).map(|shared| shared.when_away) {
            None | Some(WhenAway::Local) => {}
            Some(WhenAway::Closed) if limit.enforced => {
                refund(&route.limits, &charged);
                return Err(Refusal::LimitUnavailable);
            }
            Some(WhenAway::Open | WhenAway::Closed) => continue,
        }
        let who = Who { client: exchange.client, route: &route.name, fields };
        let key = who.hash(&limit.key);
        let (decision, receipt) = limit.state.check(Ask { key, params: limit.params, now, cost: limit.cost });
        match decision {
            Decision::Allow { remaining, reset, .. } => {
                let standing = Standing { limit: place, remaining, reset };
                if limit.enforced && exchange.rate.is_none_or(|nearest| nearest.remaining > remaining) {
                    exchange.rate = Some(standing);
                }
                charged.extend(receipt.map(|receipt| (place, receipt)));
            }
            Decision::Refuse { retry_after } => {
                limit.state.remember(key, || who.name(&limit.key));
                if limit.enforced {
                    refund(&route.limits, &charged);
                    exchange.rate = Some(Standing { limit: place, remaining: 0, reset: retry_after });
                    return Err(Refusal::RateLimited { retry_after });
                }
            }
        }
    }
    Ok(charged)
}

fn refund(limits: &[std::sync::Arc<LimitPlan>], charged: &[(usize, Receipt)]) {
    for (place, receipt) in charged {
        if let Some(limit) = limits.get(*place) {
            limit.state.refund(receipt);
        }
    }
}

/// Writes what the client should know. What the app says of limits of its own stays beside it.
pub fn tell(standing: &Standing, route: &RoutePlan, fields: &mut Fields) {
    let Some(limit) = route.limits.get(standing.limit) else { return };
    if let Some(policy) = &route.limits_policy {
        fields.append(RATELIMIT_POLICY, policy.clone());
    }
    let mut text = String::with_capacity(limit.label.len() + 24);
    // Writing to a String does not fail.
    let _ = write!(text, "{};r={};t={}", limit.label, standing.remaining, whole_seconds(standing.reset));
    if let Ok(value) = HeaderValue::try_from(text) {
        fields.append(RATELIMIT, value);
    }
}

/// What a key is made of.
struct Who<'a> {
    client: IpAddr,
    route: &'a str,
    fields: &'a Fields,
}

impl Who<'_> {
    /// The process's own, for its tables.
    fn hash(&self, parts: &[RateKey]) -> u64 {
        let mut hasher = clock::hasher();
        self.each(parts, &mut |bytes| one(&mut hasher, bytes));
        hasher.finish()
    }

    /// The same at all replicas, and nobody can read the client from it.
    fn digest(&self, parts: &[RateKey]) -> String {
        let mut digest = Sha256::new();
        self.each(parts, &mut |bytes| {
            digest.update((bytes.len() as u64).to_le_bytes());
            digest.update(bytes);
        });
        digest.finalize()[..16].iter().fold(String::with_capacity(32), |mut text, byte| {
            // Writing to a String does not fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
    }

    fn each(&self, parts: &[RateKey], take: &mut impl FnMut(&[u8])) {
        for part in parts {
            match part {
                // An IPv6 client owns its /64: whoever has one address of it has them all.
                RateKey::ClientIp => match self.client.to_canonical() {
                    IpAddr::V4(address) => take(&address.octets()),
                    IpAddr::V6(address) => take(&address.octets()[..8]),
                },
                RateKey::Route => take(self.route.as_bytes()),
                RateKey::Header(name) => {
                    let values = self.fields.get_all(name.as_str());
                    let count = values.map(|value| take(value.as_bytes())).count();
                    take(&(count as u64).to_le_bytes());
                }
                RateKey::Cookie(name) => take(cookie(self.fields, name).unwrap_or_default()),
            }
        }
    }

    /// For people; secrets become a mark by which the same one is known again.
    fn name(&self, parts: &[RateKey]) -> String {
        let named = parts.iter().map(|part| match part {
            RateKey::ClientIp => match self.client.to_canonical() {
                IpAddr::V4(address) => address.to_string(),
                IpAddr::V6(address) => {
                    let bits = address.to_bits() & !u128::from(u64::MAX);
                    format!("{}/64", std::net::Ipv6Addr::from_bits(bits))
                }
            },
            RateKey::Route => format!("route={}", self.route),
            RateKey::Header(name) => {
                let value = self.fields.get(name).map(Value::as_bytes).unwrap_or_default();
                let secret = SECRET.iter().any(|word| name.as_str().contains(word));
                format!("{name}={}", if secret { mark(value) } else { shown(value) })
            }
            RateKey::Cookie(name) => format!("cookie {name}={}", mark(cookie(self.fields, name).unwrap_or_default())),
        });
        named.collect::<Vec<_>>().join(" ")
    }
}

/// One part, with its length, so that no two lists of parts hash the same bytes.
fn one(hasher: &mut impl Hasher, bytes: &[u8]) {
    hasher.write_usize(bytes.len());
    hasher.write(bytes);
}

fn mark(value: &[u8]) -> String {
    if value.is_empty() { "(none)".to_owned() } else { format!("~{:08x}", clock::hash(value) >> 32) }
}

fn shown(value: &[u8]) -> String {
    let text = String::from_utf8_lossy(value);
    if text.is_empty() { "(none)".to_owned() } else { text.chars().take(SHOWN_MAX).collect() }
}

/// The value of a cookie (RFC 6265 §4.2.1); the first one of that name, as apps read it.
fn cookie<'h>(fields: &'h Fields, name: &str) -> Option<&'h [u8]> {
    let lines = fields.get_all("cookie");
    let mut pairs = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    pairs.find_map(|pair| {
        let rest = pair.trim_ascii_start().strip_prefix(name.as_bytes())?;
        rest.strip_prefix(b"=").map(<[u8]>::trim_ascii_end)
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    fn hash(address: &str, fields: &Fields, parts: &[RateKey]) -> u64 {
        Who { client: address.parse().unwrap(), route: "api", fields }.hash(parts)
    }

    fn fields(lines: &[(&'static str, &'static str)]) -> Fields {
        let mut fields = Fields::default();
        for (name, value) in lines {
            fields.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        fields
    }

    #[test]
    fn an_ipv6_client_is_its_network() {
        let none = Fields::default();
        let key = |text: &str| hash(text, &none, &[RateKey::ClientIp]);
        assert_eq!(key("2001:db8::1"), key("2001:db8::ffff"));
        assert_ne!(key("2001:db8::1"), key("2001:db8:0:1::1"));
        assert_eq!(key("::ffff:192.0.2.1"), key("192.0.2.1"));
        assert_ne!(key("192.0.2.1"), key("192.0.2.2"));
    }

    #[test]
    fn every_part_counts_and_none_runs_into_the_next() {
        let parts = [RateKey::Header(HeaderName::from_static("x-tenant")), RateKey::Cookie("id".to_owned())];
        let key = |lines: &[(&'static str, &'static str)]| hash("192.0.2.1", &fields(lines), &parts);
        let first = key(&[("x-tenant", "a"), ("cookie", "x=1; id=bc")]);
        assert_eq!(first, key(&[("cookie", "id=bc; id=other"), ("x-tenant", "a")]));
        for other in [
            key(&[("x-tenant", "ab"), ("cookie", "id=c")]),
            key(&[("x-tenant", "a"), ("x-tenant", ""), ("cookie", "id=bc")]),
            key(&[("x-tenant", "a"), ("cookie", "xid=bc")]),
            key(&[("x-tenant", "a")]),
            key(&[]),
        ] {
            assert_ne!(first, other);
        }
    }

    #[test]
    fn a_key_is_named_without_its_secrets() {
        let fields = fields(&[("authorization", "Bearer abc"), ("x-tenant", "acme"), ("cookie", "sid=s3cret")]);
        let who = Who { client: "2001:db8::1".parse().unwrap(), route: "api", fields: &fields };
        let header = |name| RateKey::Header(HeaderName::from_static(name));
        let parts = [
            RateKey::ClientIp,
            RateKey::Route,
            header("authorization"),
            header("x-tenant"),
            RateKey::Cookie("sid".to_owned()),
            header("x-none"),
        ];
        let name = who.name(&parts);
        assert!(name.starts_with("2001:db8::/64 route=api authorization=~"), "{name}");
        assert!(name.contains(" x-tenant=acme cookie sid=~") && name.ends_with(" x-none=(none)"), "{name}");
        assert!(!name.contains("abc") && !name.contains("s3cret"), "{name}");
    }
}
