//! The limits of a route that replicas count together: one question to the store for all of them, and what is done
//! without an answer.

use super::{Charged, Standing, Who, refund};
use crate::core::bucket::Decision;
use crate::core::fields::Fields;
use crate::core::store::{Ask, WhenAway};
use crate::plan::{LimitPlan, RoutePlan};
use crate::proxy::exchange::Exchange;
use crate::proxy::links::Link;
use crate::proxy::refusal::Refusal;

/// Asks the store about what this replica alone would allow.
pub async fn ask(
    exchange: &mut Exchange,
    route: &RoutePlan,
    fields: &Fields,
    link: &Link,
    charged: &Charged,
) -> Result<(), Refusal> {
    let who = Who { client: exchange.client, route: &route.name, fields };
    let asked: Vec<(usize, &LimitPlan)> = charged
        .iter()
        .filter_map(|(place, _)| route.limits.get(*place).map(|limit| (*place, &**limit)))
        .filter(|(_, limit)| limit.shared.is_some())
        .collect();
    if asked.is_empty() {
        return Ok(());
    }
    let question = |(_, limit): &(usize, &LimitPlan)| Ask {
        key: limit.shared.iter().map(|shared| shared.prefix.as_str()).collect::<String>() + &who.digest(&limit.key),
        params: limit.params,
        cost: limit.cost,
        enforced: limit.enforced,
    };
    let asks: Vec<Ask> = asked.iter().map(question).collect();
    match link.ask(&asks).await {
        Some(decisions) => heed(exchange, route, &who, charged, asked.into_iter().zip(decisions)),
        None => without(exchange, route, charged, &asked),
    }
}

/// Does what the store has decided.
fn heed<'p>(
    exchange: &mut Exchange,
    route: &'p RoutePlan,
    who: &Who<'_>,
    charged: &Charged,
    decided: impl Iterator<Item = ((usize, &'p LimitPlan), Decision)>,
) -> Result<(), Refusal> {
    let mut refused: Option<Standing> = None;
    let mut undone = Vec::new();
    for ((place, limit), decision) in decided {
        match decision {
            Decision::Allow { remaining, reset, .. } => {
                let nearer = |known: &Standing| known.limit == place || known.remaining > remaining;
                if limit.enforced && exchange.rate.as_ref().is_none_or(nearer) {
                    exchange.rate = Some(Standing { limit: place, remaining, reset });
                }
            }
            Decision::Refuse { retry_after } => {
                limit.state.remember(who.hash(&limit.key), || who.name(&limit.key));
                undone.push(place);
                if limit.enforced && refused.is_none_or(|known| known.reset < retry_after) {
                    refused = Some(Standing { limit: place, remaining: 0, reset: retry_after });
                }
            }
        }
    }
    for (place, receipt) in charged {
        let Some(limit) = route.limits.get(*place) else { continue };
        if undone.contains(place) {
            limit.state.refused_elsewhere(receipt);
        } else if refused.is_some() {
            limit.state.refund(receipt);
        }
    }
    match refused {
        Some(standing) => {
            exchange.rate = Some(standing);
            Err(Refusal::RateLimited { retry_after: standing.reset })
        }
        None => Ok(()),
    }
}

/// No answer in time: what this replica has decided stands, unless the limit is to be closed then.
fn without(
    exchange: &mut Exchange,
    route: &RoutePlan,
    charged: &Charged,
    asked: &[(usize, &LimitPlan)],
) -> Result<(), Refusal> {
    let shared = || asked.iter().filter_map(|(_, limit)| limit.shared.as_ref().map(|shared| (limit, shared)));
    if shared().any(|(limit, shared)| limit.enforced && shared.when_away == WhenAway::Closed) {
        refund(&route.limits, charged);
        return Err(Refusal::LimitUnavailable);
    }
    if let Some((_, shared)) = shared().next() {
        note(exchange, &shared.store.name);
    }
    Ok(())
}

pub fn note(exchange: &mut Exchange, store: &str) {
    exchange.notes.push(format!("the store {store} was away: limits did what when_unavailable says"));
}
