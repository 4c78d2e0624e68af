//! The part of `status` that grows with a configuration: routes and upstreams, of thousands only those that matter now.

use super::{Shown, Table, count, line, milliseconds};
use crate::admin::status::{Endpoint, Reason, Route, Upstream};

/// Entries of one list that are told without being asked for all of them.
const ENTRIES_SHOWN: usize = 20;
const REASONS_SHOWN: usize = 8;

/// The entries to tell, and how many there are beside them: all in their order where they are few or all are asked for,
/// else those with the highest `rank`, the highest first.
pub fn worst<T, R: Ord>(all: &[T], shown: Shown, rank: impl Fn(&T) -> R) -> (Vec<&T>, usize) {
    let mut told: Vec<&T> = all.iter().collect();
    if shown == Shown::Worst && all.len() > ENTRIES_SHOWN {
        told.sort_by_cached_key(|entry| std::cmp::Reverse(rank(entry)));
        told.truncate(ENTRIES_SHOWN);
    }
    let more = all.len() - told.len();
    (told, more)
}

/// What of a list was not told.
pub fn tell_more(out: &mut String, more: usize) {
    if more > 0 {
        line(out, &format!("  {more} more, with less trouble or traffic: outrigger status --all"));
    }
}

pub fn routes(out: &mut String, routes: &[Route], shown: Shown) {
    if routes.is_empty() {
        return;
    }
    out.push_str("\nroutes\n");
    let mut table = Table::new(&["name", ">requests", ">failed", ">p50", ">p90", ">p99", ">p99.9", ">max"]);
    let (told, more) = worst(routes, shown, |route| (route.failed, route.requests));
    for route in told {
        let times = [route.p50_ms, route.p90_ms, route.p99_ms, route.p999_ms, route.max_ms];
        let name = if route.name.is_empty() { "(no route)".to_owned() } else { route.name.clone() };
        let mut cells = vec![name, route.requests.to_string(), route.failed.to_string()];
        cells.extend(times.map(|time| if route.requests == 0 { "-".to_owned() } else { milliseconds(time) }));
        table.row(cells);
    }
    table.write(out);
    tell_more(out, more);
}

/// Why requests were refused or failed, the commonest first.
pub fn reasons(out: &mut String, reasons: &[Reason], shown: Shown) {
    if reasons.is_empty() {
        return;
    }
    out.push_str("\nrefusals and failures, since the start\n");
    let mut table = Table::new(&[">requests", "reason", "fate"]);
    let (told, more) =
        reasons.split_at(if shown == Shown::All { reasons.len() } else { reasons.len().min(REASONS_SHOWN) });
    for Reason { reason, fate, requests } in told {
        table.row([requests.to_string(), reason.clone(), fate.replace('_', " ")]);
    }
    table.write(out);
    if !more.is_empty() {
        let requests = count(more.iter().map(|reason| reason.requests).sum(), "request");
        line(out, &format!("  {}, {requests}: outrigger status --all", count(more.len() as u64, "more reason")));
    }
}

pub fn upstreams(out: &mut String, upstreams: &[Upstream], shown: Shown) {
    let (told, more) = worst(upstreams, shown, |upstream| (troubles(upstream), upstream.in_flight));
    for upstream in told {
        let Upstream { name, in_flight, in_flight_max, endpoints, routes } = upstream;
        line(out, &format!("\nupstream {name}: {in_flight} of {in_flight_max} requests in flight"));
        for endpoint in endpoints {
            line(out, &format!("  {}  {}", endpoint.address, health(endpoint)));
        }
        for route in routes {
            line(out, &format!("  route {}{}", route.route, breaker(&route.breaker, route.breaker_retry_ms)));
        }
    }
    tell_more(out, more);
}

/// Endpoints, and breakers of routes, that are not as they should be.
fn troubles(upstream: &Upstream) -> usize {
    let ill = |endpoint: &&Endpoint| {
        endpoint.healthy == Some(false)
            || endpoint.problem.is_some()
            || endpoint.ejected
            || !matches!(endpoint.breaker.as_str(), "closed" | "off" | "")
    };
    upstream.endpoints.iter().filter(ill).count() + upstream.routes.len()
}

fn health(endpoint: &Endpoint) -> String {
    let health = match (endpoint.healthy, &endpoint.problem) {
        (Some(true), None) => "healthy".to_owned(),
        (Some(true), Some(problem)) => format!("healthy, but the last check failed: {problem}"),
        (Some(false), Some(problem)) => format!("UNHEALTHY: {problem}"),
        (Some(false), None) => "UNHEALTHY until more checks succeed".to_owned(),
        (None, Some(problem)) => format!("not yet seen well: {problem}"),
        (None, None) => "not checked".to_owned(),
    };
    let ejected = if endpoint.ejected { "; EJECTED: fails more than its neighbours" } else { "" };
    format!("{health}{}{ejected}", breaker(&endpoint.breaker, endpoint.breaker_retry_ms))
}

fn breaker(state: &str, retry_ms: Option<u64>) -> String {
    match (state, retry_ms) {
        ("closed" | "", _) => String::new(),
        ("off", _) => "; breaker off".to_owned(),
        ("open", Some(wait)) => format!("; breaker OPEN, tries again in {}", milliseconds(wait as f64)),
        (state, _) => format!("; breaker {}", state.replace('_', " ").to_uppercase()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(number: u64) -> Route {
        let (requests, failed) = (number, if number == 7 { 3 } else { 0 });
        Route { name: format!("route-{number}"), requests, failed, ..Route::default() }
    }

    #[test]
    fn of_thousands_of_routes_those_with_most_trouble_and_traffic_are_told() {
        let told = |number: u64, shown| {
            let mut out = String::new();
            routes(&mut out, &(0..number).map(route).collect::<Vec<_>>(), shown);
            out
        };
        let few = told(20, Shown::Worst);
        assert!(few.contains("  route-0 ") && few.contains("  route-19 ") && !few.contains("--all"), "{few}");
        let many = told(1000, Shown::Worst);
        assert_eq!(many.lines().count(), 1 + 2 + ENTRIES_SHOWN + 1, "{many}");
        let place = |name: &str| many.find(name).unwrap();
        assert!(place("  route-7 ") < place("  route-999 ") && place("  route-999 ") < place("  route-981 "), "{many}");
        assert!(many.ends_with("  980 more, with less trouble or traffic: outrigger status --all\n"), "{many}");
        assert_eq!(told(1000, Shown::All).lines().count(), 1 + 2 + 1000);
    }

    #[test]
    fn an_upstream_in_trouble_is_told_before_a_busy_one() {
        let endpoint = |breaker: &str| Endpoint { breaker: breaker.to_owned(), ..Endpoint::default() };
        let all: Vec<Upstream> = (0..50)
            .map(|number| Upstream {
                name: format!("app-{number}"),
                in_flight: number,
                endpoints: vec![endpoint(if number == 3 { "open" } else { "closed" })],
                ..Upstream::default()
            })
            .collect();
        let mut out = String::new();
        upstreams(&mut out, &all, Shown::Worst);
        assert!(out.find("app-3:").unwrap() < out.find("app-49:").unwrap() && !out.contains("app-4:"), "{out}");
        assert!(out.contains("  30 more, "), "{out}");
    }

    #[test]
    fn the_commonest_reasons_are_told() {
        let reason = |number: u64| Reason {
            reason: format!("reason-{number}"),
            fate: "timed_out".into(),
            requests: 100 - number,
        };
        let mut out = String::new();
        let ten: Vec<Reason> = (0..10).map(reason).collect();
        reasons(&mut out, &ten, Shown::Worst);
        assert!(out.contains("       100  reason-0  timed out\n") && !out.contains("reason-8"), "{out}");
        assert!(out.ends_with("  2 more reasons, 183 requests: outrigger status --all\n"), "{out}");
        reasons(&mut out, &ten, Shown::All);
        assert!(out.contains("        91  reason-9  timed out\n"), "{out}");
        let mut out = String::new();
        reasons(&mut out, &[], Shown::Worst);
        assert_eq!(out, "");
    }
}
