//! What contradicts itself although every key alone is right.

use std::collections::HashSet;
use std::time::Duration;

mod unmeant;

use super::context::Context;
use super::known::{Known, Names};
use super::settings::{ClientAuth, Direction, Retry, Route, RouteAction, Settings, Timeouts};
use super::words::{listed, similar};
use crate::core::units::Address;

/// Reports every contradiction; `grace` is how long an orchestrator waits before it kills, if it says so.
pub fn check(settings: &Settings, context: &Context<'_>, grace: Option<Duration>) {
    let checker = Checker { settings, context, known: Known::of(settings) };
    checker.upstreams();
    checker.names("listeners", settings.listeners.iter().map(|listener| &listener.name));
    checker.names("routes", settings.routes.iter().map(|route| &route.name));
    checker.listeners();
    checker.stores();
    checker.endpoints();
    checker.addresses();
    checker.files();
    for (place, route) in settings.routes.iter().enumerate() {
        checker.route(place, route);
    }
    checker.times("", &settings.defaults.timeouts, &settings.defaults.retry);
    checker.rules();
    checker.whole(grace);
}

struct Checker<'a, 'c> {
    settings: &'a Settings,
    context: &'a Context<'c>,
    known: Known<'a>,
}

impl Checker<'_, '_> {
    fn problem(&self, path: &str, found: impl Into<String>, expected: &str, hint: Option<String>) {
        self.context.problem(path, None, found, expected, hint);
    }

    /// Whether all that was typed there could be read: a default that stands in for something else contradicts nothing.
    fn is_read(&self, path: &str) -> bool {
        self.context.is_read(path)
    }

    fn upstreams(&self) {
        // Only when nothing else is wrong: a misspelt or malformed upstream is reported as that.
        if self.settings.upstreams.is_empty() && self.context.problems.borrow().is_empty() {
            let hint = "the smallest file is one line: upstream: http://127.0.0.1:3000".to_owned();
            self.problem("", "no upstream", "upstream: URL, or upstreams:", Some(hint));
        }
        self.names("readiness.checks", self.settings.dependencies.iter().map(|dependency| &dependency.name));
    }

    fn names<'n>(&self, list: &str, names: impl Iterator<Item = &'n String>) {
        let mut seen = HashSet::new();
        for (place, name) in names.enumerate() {
            if seen.insert(name) {
                continue;
            }
            let path = format!("{list}[{place}].name");
            if self.is_read(&path) {
                self.problem(&path, format!("the name {name} a second time"), "names that differ", None);
            }
        }
    }

    fn named(&self, path: &str, known: &Names<'_>, name: &str) {
        let (kind, list) = (known.kind, known.list);
        // What is wrong with the one of this name is told there.
        if known.all.contains(name) || !self.is_read(&format!("{list}.{name}")) {
            return;
        }
        let hint = match (similar(name, &known.listed), known.listed.as_slice()) {
            (Some(meant), _) => format!("did you mean `{meant}`?"),
            (None, []) => format!("there is none: add {list}: {{ {name}: {} }} at the top of the file", known.example),
            (None, listed_names) => format!("known: {}", listed(listed_names)),
        };
        let found = format!("{name}, which no {kind} is named");
        self.problem(path, found, &format!("the name of one of the {kind}s"), Some(hint));
    }

    fn upstream_named(&self, path: &str, name: &str) {
        // One that is missing is told where it should have been typed.
        if !self.settings.upstreams.is_empty() && !name.is_empty() {
            self.named(path, &self.known.upstreams, name);
        }
    }

    fn listeners(&self) {
        for (place, listener) in self.settings.listeners.iter().enumerate() {
            let path = format!("listeners[{place}]");
            if let Some(upstream) = &listener.upstream {
                self.upstream_named(&format!("{path}.upstream"), upstream);
            } else if listener.direction == Direction::Outbound && self.is_read(&format!("{path}.upstream")) {
                self.problem(
                    &format!("{path}.direction"),
                    "outbound without an upstream",
                    "upstream: NAME beside it",
                    None,
                );
            }
            if let Some(redirect) = &listener.redirect_to_https {
                let hosts = format!("{path}.redirect_to_https.hosts");
                if redirect.hosts.is_empty() && self.is_read(&hosts) {
                    let hint = "name the hosts; a redirect never goes where a client says".to_owned();
                    self.problem(&hosts, "no hosts", "at least one host", Some(hint));
                }
                if listener.tls.is_some() {
                    self.problem(
                        &format!("{path}.redirect_to_https"),
                        "a redirect to HTTPS on a listener with TLS",
                        "one of the two",
                        None,
                    );
                }
            }
        }
    }

    fn addresses(&self) {
        let mut seen: Vec<(&Address, &str)> = Vec::new();
        let own = [("ops.address", &self.settings.ops), ("admin.address", &self.settings.admin.address)];
        let paths: Vec<String> =
            (0..self.settings.listeners.len()).map(|place| format!("listeners[{place}].address")).collect();
        let listeners =
            self.settings.listeners.iter().zip(&paths).map(|(listener, path)| (path.as_str(), &listener.address));
        for (path, address) in listeners.chain(own).filter(|(path, _)| self.is_read(path)) {
            if let Some((_, other)) = seen.iter().find(|(known, _)| clash(known, address)) {
                self.problem(path, format!("{address}, which {other} has already"), "an address of its own", None);
            }
            seen.push((address, path));
        }
        let admin = &self.settings.admin;
        if !is_local(&admin.address) && admin.token.is_none() && self.is_read("admin.token") {
            let hint = "set admin.token, or listen on 127.0.0.1 or a Unix socket".to_owned();
            self.problem(
                "admin.address",
                format!("{}, beyond this machine, without a token", admin.address),
                "control only for those who may",
                Some(hint),
            );
        }
    }

    fn files(&self) {
        if let Some(directory) = &self.settings.state_directory {
            let found = std::fs::metadata(directory);
            let other = found.as_ref().is_ok_and(|found| !found.is_dir())
                || found.is_err_and(|error| error.kind() == std::io::ErrorKind::NotADirectory);
            if other {
                let found = format!("{}: not a directory", directory.display());
                self.problem("state.directory", found, "a directory, or a place where one can be made", None);
            }
        }
        for (place, listener) in self.settings.listeners.iter().enumerate() {
            let Some(tls) = &listener.tls else { continue };
            for (number, pair) in tls.certificates.iter().enumerate() {
                let path = format!("listeners[{place}].tls.certificates[{number}]");
                self.file(&format!("{path}.certificate"), &pair.certificate);
                self.file(&format!("{path}.key"), &pair.key);
            }
            if let ClientAuth::Request { ca } | ClientAuth::Require { ca } = &tls.client_auth {
                self.file(&format!("listeners[{place}].tls.client_auth.ca"), ca);
            }
        }
        for upstream in &self.settings.upstreams {
            let Some(tls) = &upstream.tls else { continue };
            let path = format!("upstreams.{}.tls", upstream.name);
            if let Some(ca) = &tls.ca {
                self.file(&format!("{path}.ca"), ca);
            }
            if let Some(pair) = &tls.client_certificate {
                self.file(&format!("{path}.client_certificate.certificate"), &pair.certificate);
                self.file(&format!("{path}.client_certificate.key"), &pair.key);
            }
            let read = self.is_read(&format!("upstreams.{}.endpoints", upstream.name));
            if read && !upstream.endpoints.iter().any(|endpoint| endpoint.tls) {
                self.problem(&path, "tls for endpoints that are all http://", "an https:// endpoint", None);
            }
        }
    }

    fn file(&self, path: &str, file: &std::path::Path) {
        // Opening a pipe would wait for whoever writes into it.
        let opened = match std::fs::metadata(file) {
            Ok(found) if !found.is_file() => Err("not a regular file".to_owned()),
            Ok(_) => std::fs::File::open(file).map(drop).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(why) = opened {
            self.problem(path, format!("{}: {why}", file.display()), "a file that can be read", None);
        }
    }

    fn route(&self, place: usize, route: &Route) {
        let path = format!("routes[{place}]");
        match &route.action {
            RouteAction::Forward { upstream, rewrite_prefix } => {
                self.upstream_named(&format!("{path}.upstream"), upstream);
                if let Some(prefix) = rewrite_prefix {
                    let at = format!("{path}.rewrite.prefix");
                    if !route.matches.path.ends_with("/*") {
                        self.problem(
                            &at,
                            format!("a prefix for the path {}", route.matches.path),
                            "a path that ends in /*",
                            None,
                        );
                    }
                    if !(prefix.starts_with('/') && prefix.ends_with('/')) {
                        self.problem(&at, prefix.clone(), "a prefix that begins and ends with /", None);
                    }
                }
            }
            RouteAction::Redirect { to, .. } if self.is_read(&format!("{path}.match.path")) => {
                self.target(&format!("{path}.redirect.to"), to, &route.matches.path)
            }
            RouteAction::Redirect { .. } => {}
        }
        for (number, name) in route.rate_limits.iter().enumerate() {
            self.named(&format!("{path}.rate_limits[{number}]"), &self.known.limits, name);
        }
        if let Some(flag) = &route.flag {
            self.named(&format!("{path}.flag"), &self.known.flags, flag);
        }
        self.one_store(&path, route);
        self.times(&path, &route.timeouts, &route.retry);
    }

    /// A request asks its store once.
    fn one_store(&self, path: &str, route: &Route) {
        let limit = |name: &String| self.settings.rate_limits.iter().find(|limit| limit.name == *name);
        let stores = route.rate_limits.iter().filter_map(limit).filter_map(|limit| limit.shared.as_ref());
        let mut stores = stores.map(|shared| &shared.store);
        let first = stores.next();
        if let Some(other) = stores.find(|store| Some(*store) != first) {
            let hint = Some("one request waits for one store; give these limits the same one".to_owned());
            let found = format!("limits in {} and in {other}", first.map_or("", String::as_str));
            self.problem(&format!("{path}.rate_limits"), found, "limits that share one store", hint);
        }
    }

    fn stores(&self) {
        for limit in &self.settings.rate_limits {
            if let Some(shared) = &limit.shared {
                self.named(&format!("rate_limits.{}.store", limit.name), &self.known.stores, &shared.store);
            }
        }
    }

    /// Timers against each other, where the inner one was typed: an inherited one is simply cut short by the outer.
    fn times(&self, path: &str, timeouts: &Timeouts, retry: &Retry) {
        let key = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
        let typed = |name: &str| self.context.origins.borrow().contains_key(&key(name));
        // Its own value, or else the one it inherits.
        let is_read = |name: &str| self.is_read(&key(name)) && (typed(name) || self.is_read(name));
        let all_read = |names: &[&str]| names.iter().all(|name| is_read(name));
        let fits = timeouts.total >= timeouts.first_byte || !all_read(&["timeouts.total", "timeouts.first_byte"]);
        if !fits && typed("timeouts.first_byte") {
            let found = format!("first_byte {:?} above total {:?}", timeouts.first_byte, timeouts.total);
            let hint = "the first-byte timer could never fire: lower it, or raise total".to_owned();
            self.problem(&key("timeouts.first_byte"), found, "a first_byte of at most total", Some(hint));
        }
        let grows = retry.backoff_base <= retry.backoff_max || !all_read(&["retry.backoff.base", "retry.backoff.max"]);
        if !grows && typed("retry.backoff.base") {
            let found = format!("base {:?} above max {:?}", retry.backoff_base, retry.backoff_max);
            let hint = "the first wait would be cut short already: lower base, or raise max".to_owned();
            self.problem(&key("retry.backoff.base"), found, "a base of at most max", Some(hint));
        }
        let alone = retry.attempts < 2 && all_read(&["retry.attempts", "retry.hedge.mode"]);
        if retry.hedge.after.is_some() && alone && typed("retry.hedge.mode") {
            let hint = "a hedge is an attempt: raise retry.attempts, or turn the hedge off".to_owned();
            self.problem(
                &key("retry.hedge.mode"),
                "on, with one attempt".to_owned(),
                "attempts of at least 2",
                Some(hint),
            );
        }
        let inner = || ["retry.per_try", "retry.attempts"].into_iter().find(|name| typed(name));
        if let Some(per_try) = retry.per_try
            && let Some(inner) = inner()
            && all_read(&["retry.per_try", "retry.attempts", "retry.backoff.max", "timeouts.total"])
        {
            let worst = per_try * retry.attempts + retry.backoff_max * retry.attempts.saturating_sub(1);
            if worst > timeouts.total && retry.attempts > 1 {
                let found = format!(
                    "{} attempts of {per_try:?} with their waits: {worst:?}, above total {:?}",
                    retry.attempts, timeouts.total
                );
                let hint =
                    "the last attempts could never end in time: lower per_try or attempts, or raise total".to_owned();
                self.problem(&key(inner), found, "attempts that fit into total", Some(hint));
            }
        }
    }

    fn whole(&self, grace: Option<Duration>) {
        let tls = self.settings.listeners.iter().any(|listener| listener.tls.is_some());
        let typed = self.context.origins.borrow().contains_key("security_headers.hsts.max_age");
        let read = ["listeners", "trusted_proxies"].iter().all(|key| self.is_read(key));
        if typed && read && !tls && self.settings.trusted_proxies.is_empty() {
            let hint =
                "HSTS is only sent over TLS: add tls to a listener, or name the proxy that ends TLS in trusted_proxies"
                    .to_owned();
            self.problem(
                "security_headers.hsts.max_age",
                "HSTS without TLS",
                "a listener with TLS, or a trusted proxy",
                Some(hint),
            );
        }
        let drain = &self.settings.drain;
        let longest = drain.delay.unwrap_or(Duration::from_secs(5)) + drain.timeout;
        let read = ["drain.delay", "drain.timeout"].iter().all(|key| self.is_read(key));
        if let Some(grace) = grace.filter(|grace| read && longest > *grace) {
            let found = format!("up to {longest:?} of drain, with a termination grace of {grace:?}");
            self.problem(
                "drain.timeout",
                found,
                "a drain that ends before the process is killed",
                Some("raise the grace or lower drain.delay and drain.timeout".to_owned()),
            );
        }
    }
}

/// Two sockets that cannot both be bound. Port 0 is any free port.
fn clash(one: &Address, other: &Address) -> bool {
    let any = |host: &str| host == "0.0.0.0" || host == "::";
    match (one, other) {
        (Address::Tcp { host: a, port: p }, Address::Tcp { host: b, port: q }) => {
            p == q && *p != 0 && (a == b || any(a) || any(b))
        }
        (Address::Unix(a), Address::Unix(b)) => a == b,
        (Address::Tcp { .. }, Address::Unix(_)) | (Address::Unix(_), Address::Tcp { .. }) => false,
    }
}

fn is_local(address: &Address) -> bool {
    match address {
        Address::Unix(_) => true,
        Address::Tcp { host, .. } => {
            host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
        }
    }
}
