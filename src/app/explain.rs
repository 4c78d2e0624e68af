//! `outrigger explain METHOD PATH`: what a request would meet, before it is sent. The route is found by the same tree
//! the proxy uses; every value is shown with the line it came from, or `default`; and the worst case is worked out:
//! how long a client may wait for an answer, and how many requests the app may see for one.

mod ahead;
mod retries;
mod words;
mod worst;

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};
use serde_json::json;

use super::cli::{ExplainArgs, Output};
use super::start::FILE_DEFAULT;
use super::verdict::Verdict;
use crate::config::settings::{
    CircuitBreaker, HealthCheckKind, Listener, Mode, RateLimit, Route, RouteAction, RouteMatch, Settings, Upstream,
};
use crate::config::{self, Loaded};
use crate::core::fields::Fields;
use crate::core::path::normalise;
use crate::core::retry::may_replay;
use crate::core::route::{Found, Router, Rule};
use crate::core::units::Ratio;
use crate::proxy::admit::host_only;
use words::{matches, size, time};
use worst::Worst;

/// One value and where it came from.
struct Row {
    group: &'static str,
    name: &'static str,
    value: String,
    /// Configuration paths it may have come from, the nearest first.
    paths: Vec<String>,
}

/// Everything there is to say.
struct Explanation<'a> {
    listener: &'a Listener,
    /// Given before any route is asked: the redirect to HTTPS.
    answer: Option<String>,
    /// `None` for a listener that sends everything to one upstream.
    route: Option<(usize, &'a Route)>,
    upstream: Option<&'a Upstream>,
    rows: Vec<Row>,
    worst: Option<Worst>,
}

pub fn explain(args: &ExplainArgs) -> Verdict {
    let file = args.config.clone().or_else(|| std::env::var_os("OUTRIGGER_CONFIG").map(Into::into));
    let file = file.unwrap_or_else(|| FILE_DEFAULT.into());
    let loaded = match config::load_file(Path::new(&file)) {
        Ok(loaded) => loaded,
        Err(problems) => {
            let texts: Vec<String> = problems.iter().map(ToString::to_string).collect();
            return Verdict::cannot(texts.join("\n"));
        }
    };
    match find(args, &loaded) {
        Ok(explanation) => match args.output.output {
            Output::Text => Verdict::yes(text(args, &explanation, &loaded)),
            Output::Json => Verdict::yes(pretty(&explanation, &loaded)),
        },
        Err(verdict) => verdict,
    }
}

fn find<'a>(args: &ExplainArgs, loaded: &'a Loaded) -> Result<Explanation<'a>, Verdict> {
    let settings = &loaded.settings;
    let cannot = |words: String| Verdict::cannot(words);
    let method = Method::from_bytes(args.method.to_ascii_uppercase().as_bytes())
        .map_err(|_| cannot(format!("\"{}\" is not a method", args.method)))?;
    let headers = headers(&args.header).map_err(cannot)?;
    let (path, query) = match args.path.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (args.path.as_str(), None),
    };
    if !path.starts_with('/') && method != Method::CONNECT {
        return Err(cannot(format!("\"{path}\" is not a path; it begins with /")));
    }
    ahead::head(&method, &args.path, args.host.as_deref(), &headers)?;
    let path = normalise(path)
        .map_err(|problem| Verdict::no(format!("refused with 400: the path can be read in two ways ({problem:?})")))?;
    let listener = listener(args.listener.as_deref(), settings).map_err(cannot)?;
    let target = (&*path, args.path.as_str());
    let host = args.host.as_deref().or_else(|| headers.get("host")?.to_str());
    if let Some(answer) = ahead::https(listener, settings, host, target, &headers)? {
        return Ok(Explanation {
            listener,
            answer: Some(answer),
            route: None,
            upstream: None,
            rows: Vec::new(),
            worst: None,
        });
    }
    if let Some(name) = &listener.upstream {
        ahead::switches(loaded, listener, None, &method)?;
        let upstream = settings.upstreams.iter().find(|upstream| upstream.name == *name);
        return Ok(build(settings, listener, None, upstream, &method, &headers));
    }
    let rules: Vec<Rule> = settings.routes.iter().map(|route| rule(&route.matches)).collect();
    let router = Router::build(&rules).map_err(|problems| {
        let words: Vec<String> =
            problems.iter().map(|(index, problem)| format!("routes[{index}]: {problem}")).collect();
        cannot(words.join("\n"))
    })?;
    match router.find(host_only(host.unwrap_or_default()), &path, &method, &headers, query) {
        Found::Route { index, .. } => {
            let route = &settings.routes[index];
            ahead::switches(loaded, listener, Some((index, route)), &method)?;
            let upstream = match &route.action {
                RouteAction::Forward { upstream, .. } => {
                    settings.upstreams.iter().find(|known| known.name == *upstream)
                }
                RouteAction::Redirect { .. } => None,
            };
            Ok(build(settings, listener, Some((index, route)), upstream, &method, &headers))
        }
        Found::MethodNotAllowed { allow } => {
            Err(Verdict::no(format!("refused with 405 method_not_allowed: this path allows {allow}")))
        }
        Found::None => {
            Err(Verdict::no(format!("refused with 404 route_not_found: no route matches{}", host_hint(args, settings))))
        }
    }
}

/// The commonest reason for no match is a host that was not given.
fn host_hint(args: &ExplainArgs, settings: &Settings) -> String {
    let hosts: Vec<&str> = settings.routes.iter().flat_map(|route| &route.matches.hosts).map(String::as_str).collect();
    match (&args.host, hosts.is_empty()) {
        (None, false) => format!("; some routes ask for a host, give --host ({})", hosts.join(", ")),
        _ => String::new(),
    }
}

fn headers(given: &[String]) -> Result<Fields, String> {
    let mut headers = Fields::default();
    for header in given {
        let wrong = || format!("\"{header}\" is not a header; write name: value");
        let (name, value) = header.split_once(':').ok_or_else(wrong)?;
        let name = HeaderName::from_bytes(name.trim().as_bytes()).map_err(|_| wrong())?;
        headers.append(name, HeaderValue::from_str(value.trim()).map_err(|_| wrong())?);
    }
    Ok(headers)
}

fn listener<'a>(name: Option<&str>, settings: &'a Settings) -> Result<&'a Listener, String> {
    let names = || settings.listeners.iter().map(|listener| listener.name.as_str()).collect::<Vec<_>>().join(", ");
    let found = match name {
        Some(name) => settings.listeners.iter().find(|listener| listener.name == name),
        None => settings.listeners.first(),
    };
    found.ok_or_else(|| format!("there is no listener \"{}\"; there is {}", name.unwrap_or_default(), names()))
}

fn rule(matches: &RouteMatch) -> Rule {
    let header = |(name, value): &(String, String)| {
        HeaderName::from_bytes(name.as_bytes()).ok().map(|name| (name, value.clone()))
    };
    Rule {
        hosts: matches.hosts.clone(),
        path: matches.path.clone(),
        methods: matches.methods.iter().filter_map(|method| Method::from_bytes(method.as_bytes()).ok()).collect(),
        headers: matches.headers.iter().filter_map(header).collect(),
        query: matches.query.clone(),
    }
}

fn build<'a>(
    settings: &'a Settings,
    listener: &'a Listener,
    route: Option<(usize, &'a Route)>,
    upstream: Option<&'a Upstream>,
    method: &Method,
    headers: &Fields,
) -> Explanation<'a> {
    let (timeouts, retry) = match route {
        Some((_, route)) => (&route.timeouts, &route.retry),
        None => (&settings.defaults.timeouts, &settings.defaults.retry),
    };
    let Some(upstream) = upstream else {
        return Explanation { listener, answer: None, route, upstream: None, rows: Vec::new(), worst: None };
    };
    let replay = may_replay(method, headers);
    let mut rows = Rows { route: route.map(|(index, _)| index), rows: Vec::new() };
    rows.inherited("timeouts", "connect", "connect", time(timeouts.connect));
    let rate =
        format!("at least {}/s after {}", size(timeouts.request_body_rate_min), time(timeouts.request_body_grace));
    rows.inherited("timeouts", "request body", "request_body", rate);
    rows.inherited("timeouts", "first byte", "first_byte", time(timeouts.first_byte));
    rows.inherited("timeouts", "idle", "idle", format!("{} between two chunks", time(timeouts.idle)));
    rows.inherited("timeouts", "total", "total", format!("{}, streams exempt once begun", time(timeouts.total)));
    rows.retry(retry, replay, method);
    rows.limits(settings, route.map(|(_, route)| route), upstream);
    rows.upstream(upstream);
    let named = route.map_or(&[][..], |(_, route)| &route.rate_limits);
    let mut stores = settings.rate_limits.iter().filter(|limit| named.contains(&limit.name)).filter_map(|limit| {
        let store = &limit.shared.as_ref()?.store;
        settings.stores.iter().find(|known| known.name == *store)
    });
    let store = stores.next().map_or(Duration::ZERO, |store| store.timeout);
    let worst = Some(Worst::of(timeouts, retry, replay, upstream, store));
    Explanation { listener, answer: None, route, upstream: Some(upstream), rows: rows.rows, worst }
}

struct Rows {
    route: Option<usize>,
    rows: Vec<Row>,
}

impl Rows {
    /// A value that a route has of its own or inherits from the file's global one.
    fn inherited(&mut self, group: &'static str, name: &'static str, key: &str, value: String) {
        let own = self.route.map(|index| format!("routes[{index}].{group}.{key}"));
        let paths = own.into_iter().chain([format!("{group}.{key}")]).collect();
        self.rows.push(Row { group, name, value, paths });
    }

    fn plain(&mut self, group: &'static str, name: &'static str, value: String, path: String) {
        self.rows.push(Row { group, name, value, paths: vec![path] });
    }

    fn limits(&mut self, settings: &Settings, route: Option<&Route>, upstream: &Upstream) {
        let route_path = |key: &str| format!("routes[{}].{key}", self.route.unwrap_or_default());
        let (limits_path, body_path) = (route_path("rate_limits"), route_path("body_max"));
        for limit in route.into_iter().flat_map(|route| &route.rate_limits) {
            let Some(limit) = settings.rate_limits.iter().find(|known| known.name == *limit) else { continue };
            let per = match limit.rate.per.as_secs() {
                1 => "s",
                60 => "m",
                _ => "h",
            };
            let mode = if limit.mode == Mode::Enforce { "" } else { ", not enforced" };
            let together =
                limit.shared.as_ref().map_or(String::new(), |shared| format!(", counted in {}", shared.store));
            let key: Vec<String> = limit.key.iter().map(ToString::to_string).collect();
            let key = key.join(" + ");
            let RateLimit { name, rate, burst, .. } = limit;
            let value = format!("{name}: {}/{per} per {key}, burst {burst}{mode}{together}", rate.count);
            self.plain("limits", "rate", value, limits_path.clone());
        }
        if let Some(route) = route {
            let body = route.body_max.map_or("not limited".to_owned(), size);
            self.plain("limits", "request body", body, body_path);
        }
        let path = format!("upstreams.{}.concurrency.max", upstream.name);
        let adaptive = match upstream.adaptive.mode {
            Mode::Enforce => format!(", a learned limit of {} to {}", upstream.adaptive.min, upstream.adaptive.max),
            Mode::Shadow => ", a learned limit that is only shown".to_owned(),
            Mode::Off => String::new(),
        };
        let value = format!("{} requests to {}{adaptive}", upstream.concurrency_max, upstream.name);
        self.plain("limits", "in flight", value, path);
    }

    /// What opens it, one row for each, and for how long.
    fn breaker(&mut self, breaker: &CircuitBreaker, at: &str) {
        let at = format!("{at}.circuit_breaker");
        let (opens, stays) = match breaker.mode {
            Mode::Enforce => ("opens", "stays"),
            Mode::Shadow => ("only watches; would open", "would stay"),
            Mode::Off => return self.plain("upstream", "breaker", "off".to_owned(), format!("{at}.mode")),
        };
        let window = time(breaker.window);
        let in_a_row = match breaker.consecutive_failures {
            Some(1) => "1 failure".to_owned(),
            Some(failures) => format!("{failures} failures in a row"),
            None => format!("5 failures in a row (or 1% of the requests in {window}, if more)"),
        };
        self.plain("upstream", "breaker", format!("{opens} after {in_a_row}"), format!("{at}.consecutive_failures"));
        let all =
            |share: Ratio| format!("{}% of at least {} requests in {window}", share.0 * 100.0, breaker.volume_min);
        let value = format!("{opens} when {} fail", all(breaker.failure_rate));
        self.plain("upstream", "breaker share", value, format!("{at}.failure_rate"));
        if let Some(slow) = &breaker.slow_call {
            let value = format!("{opens} when {} take {} or longer", all(slow.rate), time(slow.duration));
            self.plain("upstream", "breaker slow", value, format!("{at}.slow_call"));
        }
        let value = format!("{stays} open for {} to {}", time(breaker.open_for_base), time(breaker.open_for_max));
        self.plain("upstream", "breaker open", value, format!("{at}.open_for"));
    }

    fn upstream(&mut self, upstream: &Upstream) {
        let at = format!("upstreams.{}", upstream.name);
        let hold = match upstream.hold.wait_max {
            Duration::ZERO => "off".to_owned(),
            longest => {
                format!("{} requests for up to {} while nothing listens", upstream.hold.requests_max, time(longest))
            }
        };
        self.plain("upstream", "hold", hold, format!("{at}.hold"));
        self.breaker(&upstream.circuit_breaker, &at);
        let value = match &upstream.health_check {
            None => "off".to_owned(),
            Some(check) => {
                let what = match &check.kind {
                    HealthCheckKind::Http { path } => format!("GET {path}"),
                    HealthCheckKind::Grpc { service } => format!("grpc.health.v1 of \"{service}\""),
                    HealthCheckKind::Tcp => "a TCP connection".to_owned(),
                };
                format!("{what} every {}, unhealthy after {} failures", time(check.interval), check.fall)
            }
        };
        self.plain("upstream", "health", value, format!("{at}.health_check"));
    }
}

/// `file:line` of the nearest path that the file sets.
fn origin(row: &Row, loaded: &Loaded) -> String {
    match row.paths.iter().find_map(|path| loaded.origins.of(path)) {
        Some(location) => format!("{}:{}", location.file, location.line),
        None => "default".to_owned(),
    }
}

fn text(args: &ExplainArgs, found: &Explanation<'_>, loaded: &Loaded) -> String {
    let mut out = String::new();
    let host = args.host.as_deref().map(|host| format!(" for {host}")).unwrap_or_default();
    let Listener { name, address, .. } = found.listener;
    // Writing to a String does not fail.
    let _ = writeln!(out, "{} {}{host} on listener {name} ({address})\n", args.method.to_ascii_uppercase(), args.path);
    let _ = match found.route {
        Some((index, route)) => {
            let at = loaded.origins.of(&format!("routes[{index}]"));
            let at = at.map_or("made by default".to_owned(), |at| format!("{}:{}", at.file, at.line));
            writeln!(out, "  route       {}, {}  ({at})", route.name, matches(&route.matches))
        }
        None if found.answer.is_some() => Ok(()),
        None => writeln!(out, "  route       none: this listener sends everything to one upstream"),
    };
    if let Some(answer) = &found.answer {
        let _ = writeln!(out, "  answer      {answer}; no route and no app is asked");
    }
    if let Some((_, Route { action: RouteAction::Redirect { to, status }, .. })) = found.route {
        let _ = writeln!(out, "  answer      {status} to {to}, without asking an app");
    }
    if let Some(upstream) = found.upstream {
        let endpoints: Vec<String> = upstream.endpoints.iter().map(|endpoint| endpoint.address.to_string()).collect();
        let _ = writeln!(out, "  upstream    {} at {}", upstream.name, endpoints.join(", "));
    }
    let mut group = "";
    let widest = found.rows.iter().map(|row| row.value.chars().count()).max().unwrap_or(0).min(72);
    for row in &found.rows {
        if row.group != group {
            group = row.group;
            let _ = writeln!(out, "\n{group}");
        }
        let _ = writeln!(out, "  {:<14}{:<widest$}  {}", row.name, row.value, origin(row, loaded));
    }
    if let Some(worst) = &found.worst {
        let _ = writeln!(out, "\nworst case\n{}", worst.words());
    }
    out
}

fn pretty(found: &Explanation<'_>, loaded: &Loaded) -> String {
    let rows: Vec<_> = found
        .rows
        .iter()
        .map(|row| json!({ "group": row.group, "name": row.name, "value": row.value, "from": origin(row, loaded) }))
        .collect();
    let value = json!({
        "listener": found.listener.name,
        "answer": found.answer,
        "route": found.route.map(|(_, route)| &route.name),
        "upstream": found.upstream.map(|upstream| &upstream.name),
        "settings": rows,
        "worst_case": found.worst.as_ref().map(Worst::to_json),
    });
    serde_json::to_string_pretty(&value).unwrap_or_default()
}
