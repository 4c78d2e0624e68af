//! The part of `status` that the requests of all routes add up to.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use crate::plan::Plan;
use crate::telemetry::{Fate, Quantiles, RouteSnapshot};

/// Counts since the start; times in milliseconds, of all answers.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Route {
    pub name: String,
    pub requests: u64,
    /// Answered with 5xx, the app's and ours.
    pub failed: u64,
    pub p50_ms: f64,
    pub p90_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
    pub max_ms: f64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Reason {
    /// As in docs/refusals.md.
    pub reason: String,
    /// What became of these requests, as in the log.
    pub fate: String,
    pub requests: u64,
}

/// The routes of the plan, in order, and what no route took.
pub fn routes(snapshots: &[RouteSnapshot], plan: &Plan) -> Vec<Route> {
    // Taken out as they are told: a route stands in the plan once for each listener.
    let mut of: HashMap<&str, &RouteSnapshot> =
        snapshots.iter().map(|snapshot| (snapshot.name.as_str(), snapshot)).collect();
    let known = plan.live_listeners().flat_map(|listener| &listener.routes).map(|route| &*route.name);
    let found = known.chain([""]).filter_map(|name| of.remove(name));
    found.map(route).filter(|route| !route.name.is_empty() || route.requests > 0).collect()
}

/// Of all routes there were, those that are gone included.
pub fn reasons(snapshots: &[RouteSnapshot]) -> Vec<Reason> {
    let mut counts: BTreeMap<(Fate, &str), u64> = BTreeMap::new();
    for (label, count) in snapshots.iter().flat_map(|snapshot| &snapshot.reasons) {
        *counts.entry(*label).or_default() += count;
    }
    let told = |((fate, reason), requests): ((Fate, &str), u64)| Reason {
        reason: reason.to_owned(),
        fate: fate.label().to_owned(),
        requests,
    };
    let mut reasons: Vec<Reason> = counts.into_iter().map(told).collect();
    reasons.sort_by_key(|reason| std::cmp::Reverse(reason.requests));
    reasons
}

fn route(snapshot: &RouteSnapshot) -> Route {
    let times = Quantiles::of(&snapshot.latency);
    let count = |wanted: &dyn Fn(&str) -> bool| {
        snapshot.requests.iter().filter(|(_, class, _)| wanted(class)).map(|(_, _, count)| count).sum()
    };
    Route {
        name: snapshot.name.clone(),
        requests: count(&|_| true),
        failed: count(&|class| class == "5xx"),
        p50_ms: times.p50 * 1e3,
        p90_ms: times.p90 * 1e3,
        p99_ms: times.p99 * 1e3,
        p999_ms: times.p999 * 1e3,
        max_ms: times.max * 1e3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_added_up_over_routes_and_the_commonest_comes_first() {
        let snapshot = |reasons: &[(Fate, &'static str, u64)]| RouteSnapshot {
            reasons: reasons.iter().map(|(fate, reason, count)| ((*fate, *reason), *count)).collect(),
            ..RouteSnapshot::default()
        };
        let told = reasons(&[
            snapshot(&[(Fate::Refused, "rate_limited", 3), (Fate::TimedOut, "total_timeout", 4)]),
            snapshot(&[]),
            snapshot(&[(Fate::Refused, "rate_limited", 2)]),
        ]);
        let told: Vec<_> = told.iter().map(|one| (one.requests, one.reason.as_str(), one.fate.as_str())).collect();
        assert_eq!(told, [(5, "rate_limited", "refused"), (4, "total_timeout", "timed_out")]);
    }
}
