//! What a new configuration changes of the running one, in words, and what of it needs a restart.

use std::collections::{HashMap, HashSet};
use std::fmt::Debug;

use crate::config::settings::{Route, Settings, Upstream};

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Change {
    /// The part of the configuration: `routes.api`, `drain`.
    pub path: String,
    /// `added`, `removed` or `changed`.
    pub what: &'static str,
    /// The change takes effect only after a restart.
    pub needs_restart: bool,
}

/// The differences from `old` to `new`, in the order of the configuration language; what is read at the start is last.
pub fn diff(old: &Settings, new: &Settings) -> Vec<Change> {
    let mut changes = Vec::new();
    fixed(&mut changes, "service", &old.service, &new.service, false);
    named(&mut changes, "listeners", &old.listeners, &new.listeners, |listener| &listener.name);
    fixed(&mut changes, "trusted_proxies", &old.trusted_proxies, &new.trusted_proxies, false);
    named(&mut changes, "upstreams", &old.upstreams, &new.upstreams, |upstream: &Upstream| &upstream.name);
    fixed(&mut changes, "timeouts", &old.defaults.timeouts, &new.defaults.timeouts, false);
    fixed(&mut changes, "retry", &old.defaults.retry, &new.defaults.retry, false);
    named(&mut changes, "stores", &old.stores, &new.stores, |store| &store.name);
    named(&mut changes, "rate_limits", &old.rate_limits, &new.rate_limits, |limit| &limit.name);
    named(&mut changes, "routes", &old.routes, &new.routes, |route: &Route| &route.name);
    order(&mut changes, &old.routes, &new.routes);
    named(&mut changes, "flags", &old.flags, &new.flags, |flag| &flag.name);
    fixed(&mut changes, "maintenance", &old.maintenance, &new.maintenance, false);
    fixed(&mut changes, "security_headers", &old.security_headers, &new.security_headers, false);
    named(&mut changes, "readiness.checks", &old.dependencies, &new.dependencies, |one| &one.name);
    fixed(&mut changes, "health", &old.health_on_listener, &new.health_on_listener, false);
    fixed(&mut changes, "telemetry.access_log", &old.access_log, &new.access_log, false);
    fixed(&mut changes, "drain", &old.drain, &new.drain, false);
    changes.extend(at_start(old, new));
    changes
}

/// The differences in what is read when the process starts, without a look at the routes.
pub fn at_start(old: &Settings, new: &Settings) -> Vec<Change> {
    let mut changes = Vec::new();
    fixed(&mut changes, "telemetry.traces", &old.traces, &new.traces, old.traces.otlp != new.traces.otlp);
    fixed(&mut changes, "ops", &old.ops, &new.ops, true);
    fixed(&mut changes, "admin", &old.admin, &new.admin, true);
    fixed(&mut changes, "state", &old.state_directory, &new.state_directory, true);
    fixed(&mut changes, "workers", &old.workers, &new.workers, true);
    changes
}

fn fixed<T: PartialEq + Debug>(changes: &mut Vec<Change>, path: &str, old: &T, new: &T, needs_restart: bool) {
    if old != new {
        changes.push(Change { path: path.to_owned(), what: "changed", needs_restart });
    }
}

fn named<'a, T: PartialEq>(
    changes: &mut Vec<Change>,
    path: &str,
    old: &'a [T],
    new: &'a [T],
    name: impl Fn(&T) -> &String,
) {
    let mut push = |item: &T, what| {
        changes.push(Change { path: format!("{path}.{}", name(item)), what, needs_restart: false });
    };
    let by_name = |items: &'a [T]| items.iter().map(|item| (name(item).as_str(), item)).collect::<HashMap<_, _>>();
    let (befores, afters) = (by_name(old), by_name(new));
    for before in old {
        match afters.get(name(before).as_str()) {
            None => push(before, "removed"),
            Some(after) if *after != before => push(after, "changed"),
            Some(_) => {}
        }
    }
    for after in new.iter().filter(|after| !befores.contains_key(name(after).as_str())) {
        push(after, "added");
    }
}

/// The order of routes decides ties, so moving one is a change although no route changed.
fn order(changes: &mut Vec<Change>, old: &[Route], new: &[Route]) {
    fn all(routes: &[Route]) -> HashSet<&str> {
        routes.iter().map(|route| route.name.as_str()).collect()
    }
    let (olds, news) = (all(old), all(new));
    let before = old.iter().map(|route| route.name.as_str()).filter(|name| news.contains(name));
    let after = new.iter().map(|route| route.name.as_str()).filter(|name| olds.contains(name));
    if !before.eq(after) {
        changes.push(Change { path: "routes (order)".to_owned(), what: "changed", needs_restart: false });
    }
}
