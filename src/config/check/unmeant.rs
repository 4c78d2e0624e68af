//! What could run and cannot have been meant: a route that is never taken, a wildcard in a redirect's target, an
//! endpoint that stands twice or is the listener itself.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use super::Checker;
use crate::config::settings::{Route, RouteAction};
use crate::core::route::{Router, Rule};
use crate::core::units::Address;

impl Checker<'_, '_> {
    /// Routes the tree refuses, and routes that another one before them always takes.
    pub(super) fn rules(&self) {
        let rules: Vec<Rule> = self
            .settings
            .routes
            .iter()
            .map(|route| Rule { path: route.matches.path.clone(), ..Rule::default() })
            .collect();
        if let Err(problems) = Router::build(&rules) {
            for (place, problem) in problems {
                let path = &self.settings.routes[place].matches.path;
                let found = problem.fault().map_or_else(|| path.clone(), |fault| format!("{path}, {fault}"));
                self.problem(&format!("routes[{place}].match.path"), found, problem.expected(), None);
            }
        }
        let mut seen: HashMap<_, &Route> = HashMap::new();
        // `routes[7].match.path` is a problem of the match of route 7.
        let place = |path: &str| path.strip_prefix("routes[")?.split_once("].match")?.0.parse::<usize>().ok();
        let told: HashSet<usize> =
            self.context.problems.borrow().iter().filter_map(|problem| place(&problem.path)).collect();
        for (place, route) in self.settings.routes.iter().enumerate() {
            // A match with a problem of its own is not the one that was meant.
            if told.contains(&place) {
                continue;
            }
            let matches = &route.matches;
            let same = (shape(&matches.path), &matches.hosts, &matches.methods, &matches.headers, &matches.query);
            let Some(first) = seen.insert(same, route) else { continue };
            let renamed = first.matches.path != matches.path;
            let names = if renamed { "a {parameter} takes any segment, whatever its name; " } else { "" };
            self.problem(
                &format!("routes[{place}].match"),
                format!("the same match as {}, which stands before it", first.name),
                "a match of its own",
                Some(format!("{names}this route would never be taken")),
            );
        }
    }

    /// Parameters that the path has, and no wildcard that would be sent as it stands.
    pub(super) fn target(&self, at: &str, target: &str, path: &str) {
        if let Some(before) = target.strip_suffix("/*") {
            let hint = match path.ends_with("/*") {
                true => format!("write `{before}/{{*}}` for what follows {}", path.trim_end_matches('*')),
                false => "name where it goes".to_owned(),
            };
            self.problem(at, target, "a target that is complete, without a wildcard", Some(hint));
        }
        let mut rest = target;
        while let Some((_, after)) = rest.split_once('{') {
            let Some((name, tail)) = after.split_once('}') else { break };
            if name != "*" && !path.contains(&format!("{{{name}}}")) {
                self.problem(
                    at,
                    format!("{{{name}}}, which the path {path} does not have"),
                    "parameters of the route's path",
                    None,
                );
            }
            rest = tail;
        }
    }

    pub(super) fn endpoints(&self) {
        for upstream in &self.settings.upstreams {
            let long = format!("upstreams.{}.endpoints", upstream.name);
            let short = !self.context.origins.borrow().contains_key(&long);
            let mut seen = HashSet::new();
            for (place, endpoint) in upstream.endpoints.iter().enumerate() {
                let path = if short { "upstream".to_owned() } else { format!("{long}[{place}]") };
                if !seen.insert(&endpoint.address) {
                    let found = format!("{} a second time", endpoint.address);
                    self.problem(&path, found, "endpoints that differ", None);
                }
                if let Some(listener) = self.sent_back(&upstream.name, &endpoint.address) {
                    let found = format!("{}, which is the listener {listener} itself", endpoint.address);
                    let hint = "name the app's own port; a request would come back here until it is refused".to_owned();
                    self.problem(&path, found, "an app behind the listener", Some(hint));
                }
            }
        }
    }

    /// The listener that sends requests to this upstream and is at the address itself.
    fn sent_back(&self, upstream: &str, address: &Address) -> Option<&str> {
        let sends =
            |route: &Route| matches!(&route.action, RouteAction::Forward { upstream: to, .. } if to == upstream);
        let mut listeners = self.settings.listeners.iter().enumerate();
        let (_, listener) = listeners.find(|(place, listener)| {
            let uses = match &listener.upstream {
                Some(own) => own == upstream,
                None => self.settings.routes.iter().any(sends),
            };
            uses && self.is_read(&format!("listeners[{place}].address")) && is_at(&listener.address, address)
        })?;
        Some(&listener.name)
    }
}

/// The path with its parameters' names left out: `/p/{x}` and `/p/{y}` take the same requests.
fn shape(path: &str) -> Cow<'_, str> {
    if !path.contains('{') {
        return Cow::Borrowed(path);
    }
    let segments = path.split('/').map(|segment| if segment.starts_with('{') { "{}" } else { segment });
    Cow::Owned(segments.collect::<Vec<_>>().join("/"))
}

/// Whether who connects to `target` on this machine certainly reaches `listener`. Port 0 is any free port.
fn is_at(listener: &Address, target: &Address) -> bool {
    match (listener, target) {
        (Address::Unix(one), Address::Unix(other)) => one == other,
        (Address::Tcp { host, port }, Address::Tcp { host: to, port: to_port }) => {
            *port != 0 && port == to_port && (host == to || reaches(host, to))
        }
        (Address::Tcp { .. }, Address::Unix(_)) | (Address::Unix(_), Address::Tcp { .. }) => false,
    }
}

/// By address; `localhost` is 127.0.0.1 here, and who connects to 0.0.0.0 connects to this machine.
fn reaches(listener: &str, target: &str) -> bool {
    let address = |host: &str| if host == "localhost" { "127.0.0.1" } else { host }.parse::<IpAddr>().ok();
    let (Some(listener), Some(target)) = (address(listener), address(target)) else { return false };
    let own = target.is_loopback() || target.is_unspecified();
    let family = listener.is_ipv4() == target.is_ipv4();
    match listener.is_unspecified() {
        // `[::]` is every address of the machine (`serve::listener`).
        true => own && (family || listener.is_ipv6()),
        false => listener == target || (target.is_unspecified() && listener.is_loopback() && family),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::units::address;

    #[test]
    fn an_endpoint_is_the_listener_only_where_that_is_certain() {
        let at = |listener: &str, target: &str| is_at(&address(listener).unwrap(), &address(target).unwrap());
        for (listener, target) in [
            ("0.0.0.0:80", "127.0.0.1:80"),
            ("0.0.0.0:80", "localhost:80"),
            ("0.0.0.0:80", "0.0.0.0:80"),
            ("[::]:80", "127.0.0.2:80"),
            ("[::]:80", "[::1]:80"),
            ("localhost:80", "127.0.0.1:80"),
            ("127.0.0.1:80", "0.0.0.0:80"),
            ("app.example:80", "app.example:80"),
            ("unix:/a", "unix:/a"),
        ] {
            assert!(at(listener, target), "{listener} {target}");
        }
        for (listener, target) in [
            ("0.0.0.0:80", "127.0.0.1:81"),
            ("0.0.0.0:0", "127.0.0.1:0"),
            ("0.0.0.0:80", "[::1]:80"),
            ("0.0.0.0:80", "10.0.0.1:80"),
            ("0.0.0.0:80", "app:80"),
            ("127.0.0.1:80", "127.0.0.2:80"),
            ("10.0.0.1:80", "127.0.0.1:80"),
            ("10.0.0.1:80", "0.0.0.0:80"),
            ("unix:/a", "unix:/b"),
            ("unix:/a", "a:80"),
        ] {
            assert!(!at(listener, target), "{listener} {target}");
        }
    }

    #[test]
    fn the_names_of_parameters_make_no_difference() {
        assert_eq!(shape("/a/{b}/c/{d}/*"), "/a/{}/c/{}/*");
        assert!(matches!(shape("/a/*"), Cow::Borrowed("/a/*")));
    }
}
