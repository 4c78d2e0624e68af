//! A request against the rate limits of its route, and what the client is told of them on every answer:
//! `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-10). Of several limits the answer tells the
//! standing of the one that is nearest to its end, because that is the one to keep to.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::exchange::Exchange;
use super::refusal::{Refusal, whole_seconds};
use crate::core::bucket::Decision;
use crate::plan::RoutePlan;
use crate::state::clock;

const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// How a client stands with one limit of its route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Its place among the route's limits.
    limit: usize,
    remaining: u64,
    /// Until the limit is as good as new; of a refusal, until it would be let in.
    reset: Duration,
}

/// Every limit of the route, by the client's address.
pub fn check(exchange: &mut Exchange, route: &RoutePlan) -> Result<(), Refusal> {
    if route.limits.is_empty() {
        return Ok(());
    }
    let key = client_key(exchange.client);
    let now = clock::nanos(exchange.started);
    for (place, limit) in route.limits.iter().enumerate() {
        match limit.state.check(key, &limit.params, now) {
            Decision::Allow { remaining, reset, .. } => {
                let standing = Standing { limit: place, remaining, reset };
                if exchange.rate.is_none_or(|nearest| nearest.remaining > remaining) {
                    exchange.rate = Some(standing);
                }
            }
            Decision::Refuse { retry_after } => {
                exchange.rate = Some(Standing { limit: place, remaining: 0, reset: retry_after });
                return Err(Refusal::RateLimited { retry_after });
            }
        }
    }
    Ok(())
}

/// Writes what the client should know. What the app says of limits of its own stays beside it.
pub fn tell(standing: &Standing, route: &RoutePlan, fields: &mut HeaderMap) {
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

/// An IPv6 client owns its /64: whoever has one address of it has them all.
fn client_key(address: IpAddr) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(address) => clock::hash(&address.octets()),
        IpAddr::V6(address) => clock::hash(&address.octets()[..8]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_client_is_its_network() {
        let key = |text: &str| client_key(text.parse().unwrap());
        assert_eq!(key("2001:db8::1"), key("2001:db8::ffff"));
        assert_ne!(key("2001:db8::1"), key("2001:db8:0:1::1"));
        assert_eq!(key("::ffff:192.0.2.1"), key("192.0.2.1"));
        assert_ne!(key("192.0.2.1"), key("192.0.2.2"));
    }
}
