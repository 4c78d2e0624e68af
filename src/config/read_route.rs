//! Routes with what they inherit: timeouts, limits, header edits.

use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};

use super::read_retry::retry;
use super::reader::Map;
use super::settings::{HeaderEdits, Route, RouteAction, RouteDefaults, RouteMatch, Timeouts};
use super::words::listed;
use super::{read_switches, units};
use crate::core::priority::Priority;
use crate::core::switch::Position;

pub fn default_timeouts() -> Timeouts {
    Timeouts {
        connect: Duration::from_secs(1),
        request_body_rate_min: 240,
        request_body_grace: Duration::from_secs(5),
        first_byte: Duration::from_secs(15),
        idle: Duration::from_secs(60),
        total: Duration::from_secs(30),
    }
}

pub fn timeouts(map: Map<'_, '_>, inherited: &Timeouts) -> Timeouts {
    let connect = map.timer("connect", "1s", "To connect, name and TLS included.");
    let body = map.block("request_body", "The slowest a request body may come.");
    let rate = body.value("rate_min", "byte rate", "240B/s", "Bytes per second, after the grace.", units::byte_rate);
    let grace = body.duration("grace", "5s", "Before the rate counts.");
    body.finish();
    let first_byte = map.timer("first_byte", "15s", "From the end of the request to the head of the answer.");
    let idle = map.timer("idle", "60s", "Between two pieces of a body, and in a tunnel.");
    let total =
        map.timer("total", "30s", "The whole request with all its attempts; streams are exempt once they have begun.");
    map.finish();
    Timeouts {
        connect: connect.unwrap_or(inherited.connect),
        request_body_rate_min: rate.unwrap_or(inherited.request_body_rate_min),
        request_body_grace: grace.unwrap_or(inherited.request_body_grace),
        first_byte: first_byte.unwrap_or(inherited.first_byte),
        idle: idle.unwrap_or(inherited.idle),
        total: total.unwrap_or(inherited.total),
    }
}

/// The upstream of routes that name none: the only one there is, or else the names of all.
pub type Only<'a> = Result<&'a str, &'a [&'a str]>;

/// The routes, or the one that takes everything when none were typed.
pub fn routes(root: &Map<'_, '_>, defaults: &RouteDefaults, only: Only<'_>) -> Vec<Route> {
    let typed = root.blocks("routes", "Which requests go where; the most specific match wins, ties go by order.");
    let routes = typed.into_iter().enumerate().map(|(place, map)| route(map, place, defaults, only)).collect();
    match only {
        _ if root.has("routes") => routes,
        Ok(only) => vec![everything(only, defaults)],
        Err([]) => Vec::new(),
        Err(names) => {
            let found = format!("no routes, and several upstreams: {}", listed(names));
            if !root.is_read("routes") {
                return Vec::new();
            }
            root.context.problem(
                "routes",
                root.at("upstreams"),
                found,
                "routes that say which requests go where",
                None,
            );
            Vec::new()
        }
    }
}

fn everything(upstream: &str, defaults: &RouteDefaults) -> Route {
    Route {
        name: "everything".to_owned(),
        matches: RouteMatch { path: "/*".to_owned(), ..RouteMatch::default() },
        action: RouteAction::Forward { upstream: upstream.to_owned(), rewrite_prefix: None },
        timeouts: defaults.timeouts.clone(),
        retry: defaults.retry.clone(),
        priority: Priority::Default,
        rate_limits: Vec::new(),
        body_max: None,
        flag: None,
        maintenance: Position::Open,
        request_headers: HeaderEdits::default(),
        response_headers: HeaderEdits::default(),
    }
}

fn route(map: Map<'_, '_>, place: usize, defaults: &RouteDefaults, only: Only<'_>) -> Route {
    let name = map.text("name", "Its name in metrics, logs and commands.").unwrap_or_else(|| format!("route-{place}"));
    let matches = route_match(map.block("match", "Which requests it takes; everything named must fit."));
    let upstream = map.text("upstream", "Where they go; the default is the only upstream.");
    let action = action(&map, upstream, only);
    let timeouts = timeouts(map.block("timeouts", "Overrides of the global timeouts."), &defaults.timeouts);
    let retry = retry(map.block("retry", "Overrides of the global retries."), &defaults.retry);
    let rate_limits = map
        .values("rate_limits", "list of names", "Limits of this route.", |text| Ok(text.to_owned()))
        .unwrap_or_default();
    let body_max =
        map.value("body_max", "size", "no limit", "The largest request body; more is answered 413.", units::bytes);
    let headers = map.block("headers", "Changes to headers.");
    let request_headers = edits(headers.block("request", "Of requests on their way to the app."));
    let response_headers = edits(headers.block("response", "Of responses on their way to the client."));
    headers.finish();
    let flag = map.text("flag", "It answers 503 while this flag is off.");
    let maintenance = read_switches::position(&map, "maintenance", "Maintenance of this route alone.");
    let doc = "Who goes first when the app is busy; x-request-priority of a trusted proxy overrides it.";
    let priority = map.choice("priority", &["critical", "default", "batch", "sheddable"], "default", doc);
    let priority = priority.and_then(Priority::parse).unwrap_or(Priority::Default);
    for later in ["auth", "access"] {
        map.later(later);
    }
    map.finish();
    Route {
        name,
        matches,
        action,
        timeouts,
        retry,
        priority,
        rate_limits,
        body_max,
        flag,
        maintenance,
        request_headers,
        response_headers,
    }
}

/// What becomes of its requests; what is wrong has been reported.
fn action(map: &Map<'_, '_>, upstream: Option<String>, only: Only<'_>) -> RouteAction {
    let redirect = map.block("redirect", "Answer with a redirect instead.");
    let to = redirect.value("to", "text", "", "The target; {parameters} of the path are filled in.", |text| {
        let here = text.starts_with('/') && !text.starts_with("//");
        let there = ["http://", "https://"].into_iter().any(|scheme| text.starts_with(scheme));
        if here || there {
            Ok(text.to_owned())
        } else {
            Err("a path that begins with one /, or an http:// or https:// URL")
        }
    });
    let status = redirect.value("status", "status", "308", "301, 302, 303, 307 or 308.", |text| {
        text.parse()
            .ok()
            .filter(|status| matches!(status, 301 | 302 | 303 | 307 | 308))
            .ok_or("301, 302, 303, 307 or 308")
    });
    redirect.finish();
    let rewrite = map.block("rewrite", "Change the path on its way to the app.");
    let rewrite_prefix = rewrite.text("prefix", "Replaces the path before the *.");
    rewrite.finish();
    match (to, upstream, only) {
        (Some(_), Some(upstream), _) => {
            map.context.problem(&map.path, map.at("redirect"), "both upstream and redirect", "one of the two", None);
            RouteAction::Forward { upstream, rewrite_prefix }
        }
        (Some(to), None, _) => RouteAction::Redirect { to, status: status.unwrap_or(308) },
        (None, Some(upstream), _) => RouteAction::Forward { upstream, rewrite_prefix },
        (None, None, Ok(only)) => RouteAction::Forward { upstream: only.to_owned(), rewrite_prefix },
        (None, None, Err(names)) => {
            // Without any upstream that is the problem, and it is told elsewhere; so is a redirect that is none.
            let typed = ["redirect", "upstream"].iter().any(|key| map.has(key) || !map.is_read(key));
            if !names.is_empty() && !typed {
                let expected = format!("upstream: one of {}", listed(names));
                map.context.problem(&map.path, map.at("name"), "no upstream, and there are several", expected, None);
            }
            RouteAction::Forward { upstream: String::new(), rewrite_prefix }
        }
    }
}

fn route_match(map: Map<'_, '_>) -> RouteMatch {
    let hosts = map.values("hosts", "list of hosts", "a.example, or *.example for everything below it.", |text| {
        let plain = text.strip_prefix("*.").unwrap_or(text);
        let valid = !plain.is_empty() && !plain.contains(['*', '/', ':', ' ']);
        if valid { Ok(text.to_ascii_lowercase()) } else { Err("a host without port: a.example or *.example") }
    });
    let path = map.value("path", "path", "/*", "/exact, /users/{id} or /prefix/*.", |text| {
        let dots = text.split('/').any(|segment| matches!(segment, "." | ".."));
        match text.starts_with('/') {
            false => Err("a path that begins with /"),
            true if dots || text.contains(['?', '#']) => Err("a path as requests have it: without . and .., ? and #"),
            true => Ok(text.to_owned()),
        }
    });
    let methods = map.values("methods", "list of methods", "Any when not typed; GET includes HEAD.", |text| {
        let capital = !text.bytes().any(|byte| byte.is_ascii_lowercase());
        let method = Method::from_bytes(text.as_bytes()).ok().filter(|_| capital);
        method.map(|method| method.as_str().to_owned()).ok_or("an HTTP method in capitals: GET, POST")
    });
    let headers = headers(&map, "headers", "Headers with exactly these values.");
    let query = map.texts("query", "Query parameters with exactly these values.");
    map.finish();
    RouteMatch {
        hosts: hosts.unwrap_or_default(),
        path: path.unwrap_or_else(|| "/*".to_owned()),
        methods: methods.unwrap_or_default(),
        headers,
        query: query.into_iter().map(|(name, value, _)| (name, value)).collect(),
    }
}

fn edits(map: Map<'_, '_>) -> HeaderEdits {
    let edits = HeaderEdits {
        set: headers(&map, "set", "Replaced, or set."),
        add: headers(&map, "add", "Added beside what is there."),
        remove: header_names(&map, "remove", "Removed."),
    };
    map.finish();
    edits
}

/// Headers by name; names are checked and put in lower case, values may hold nothing that ends a line.
pub fn headers(map: &Map<'_, '_>, name: &'static str, doc: &'static str) -> Vec<(String, String)> {
    let mut headers = Vec::new();
    for (header, value, at) in map.texts(name, doc) {
        let path = format!("{}.{name}.{header}", map.path);
        match (HeaderName::from_bytes(header.as_bytes()), HeaderValue::from_str(&value)) {
            (Ok(header), Ok(_)) if !framing(&header) => headers.push((header.as_str().to_owned(), value)),
            (Ok(_), Ok(_)) => {
                map.context.problem(&path, Some(at), header, "a header that does not frame the message", None)
            }
            (Err(_), _) => map.context.problem(&path, Some(at), header, "a header name", None),
            (Ok(_), Err(_)) => {
                map.context.problem(&path, Some(at), "a value with control characters", "a header value", None);
            }
        }
    }
    headers
}

pub fn header_names(map: &Map<'_, '_>, name: &'static str, doc: &'static str) -> Vec<String> {
    let parse = |text: &str| match HeaderName::from_bytes(text.as_bytes()) {
        Ok(header) if !framing(&header) => Ok(header.as_str().to_owned()),
        Ok(_) => Err("a header that does not frame the message"),
        Err(_) => Err("a header name"),
    };
    map.values(name, "list of headers", doc, parse).unwrap_or_default()
}

fn framing(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "content-length" | "transfer-encoding" | "connection" | "host" | "upgrade" | "te" | "trailer"
    )
}
