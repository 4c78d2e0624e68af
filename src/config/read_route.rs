//! Routes with what they inherit: timeouts, retries, limits, header edits.

use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};

use super::reader::Map;
use super::settings::{
    HeaderEdits, Retry, RetryBudget, RetryConditions, Route, RouteAction, RouteDefaults, RouteMatch, Timeouts,
};
use super::yaml::{Node, Value};
use super::{read_switches, units};
use crate::core::admission::Priority;
use crate::core::switch::Position;
use crate::core::units::{Rate, Ratio};

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

pub fn default_retry() -> Retry {
    Retry {
        attempts: 3,
        conditions: RetryConditions {
            connect: true,
            reset: true,
            per_try_timeout: true,
            grpc_unavailable: true,
            statuses: vec![429, 502, 503, 504],
        },
        per_try: None,
        backoff_base: Duration::from_millis(25),
        backoff_factor: 2.0,
        backoff_max: Duration::from_millis(250),
        body_max: 64 * 1024,
        budget: RetryBudget {
            percent: Ratio(0.2),
            interval: Duration::from_secs(10),
            rate_min: Rate { count: 3, per: Duration::from_secs(1) },
            own: false,
        },
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

pub fn retry(map: Map<'_, '_>, inherited: &Retry) -> Retry {
    let attempts = map.value("attempts", "number", "3", "In all, the first included; 1 is no retry.", |text| {
        text.parse().ok().filter(|count| (1..=10).contains(count)).ok_or("a whole number from 1 to 10")
    });
    let conditions = map.values(
        "conditions",
        "list of conditions",
        "connect, reset, per_try_timeout, grpc-unavailable, \"429\" and \"500\" to \"599\".",
        |text| {
            condition(text)
                .ok_or("connect, reset, per_try_timeout, grpc-unavailable, or a status: \"429\", \"500\" to \"599\"")
        },
    );
    let per_try = map.duration("per_try", "none", "How long one attempt may take.");
    let backoff = map.block("backoff", "The wait before another attempt; anything from nothing to it, by chance.");
    let base = backoff.duration("base", "25ms", "The longest first wait.");
    let factor = backoff.value("factor", "number", "2", "How it grows.", |text| {
        text.parse::<f64>().ok().filter(|factor| (1.0..=10.0).contains(factor)).ok_or("a number from 1 to 10")
    });
    let max = backoff.duration("max", "250ms", "The longest wait of all.");
    backoff.finish();
    let body_max = map.value(
        "body_max",
        "size",
        "64KiB",
        "The largest body that is remembered for another attempt.",
        units::bytes,
    );
    let budget = budget(&map, &inherited.budget);
    map.later_unless("hedge", is_off);
    map.finish();
    Retry {
        attempts: attempts.unwrap_or(inherited.attempts),
        conditions: conditions.map_or_else(|| inherited.conditions.clone(), |typed| conditions_of(&typed)),
        per_try: per_try.or(inherited.per_try),
        backoff_base: base.unwrap_or(inherited.backoff_base),
        backoff_factor: factor.unwrap_or(inherited.backoff_factor),
        backoff_max: max.unwrap_or(inherited.backoff_max),
        body_max: body_max.unwrap_or(inherited.body_max),
        budget,
    }
}

fn budget(retry: &Map<'_, '_>, inherited: &RetryBudget) -> RetryBudget {
    let map =
        retry.block("budget", "How many attempts beyond the first, so that retries do not multiply a long fault.");
    let percent = map.ratio("percent", "20%", "Of the real requests of the interval.");
    let interval = map.value("interval", "duration", "10s", "What the requests are counted over.", |text| {
        let expected = "a time of 100ms to 10m";
        let range = Duration::from_millis(100)..=Duration::from_secs(600);
        units::duration(text).ok().filter(|time| range.contains(time)).ok_or(expected)
    });
    let rate_min = map.value("rate_min", "rate", "3/s", "Allowed whatever the traffic.", units::rate);
    map.finish();
    RetryBudget {
        // The file's own values are every route's; what a route sets is its alone.
        own: retry.has("budget") && retry.path != "retry",
        percent: percent.unwrap_or(inherited.percent),
        interval: interval.unwrap_or(inherited.interval),
        rate_min: rate_min.unwrap_or(inherited.rate_min),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Condition {
    Connect,
    Reset,
    PerTry,
    Grpc,
    Status(u16),
}

fn condition(text: &str) -> Option<Condition> {
    Some(match text {
        "connect" => Condition::Connect,
        "reset" => Condition::Reset,
        "per_try_timeout" => Condition::PerTry,
        "grpc-unavailable" => Condition::Grpc,
        status => {
            Condition::Status(status.parse().ok().filter(|status| *status == 429 || (500..=599).contains(status))?)
        }
    })
}

fn conditions_of(typed: &[Condition]) -> RetryConditions {
    let status = |condition: &Condition| match condition {
        Condition::Status(status) => Some(*status),
        Condition::Connect | Condition::Reset | Condition::PerTry | Condition::Grpc => None,
    };
    RetryConditions {
        connect: typed.contains(&Condition::Connect),
        reset: typed.contains(&Condition::Reset),
        per_try_timeout: typed.contains(&Condition::PerTry),
        grpc_unavailable: typed.contains(&Condition::Grpc),
        statuses: typed.iter().filter_map(status).collect(),
    }
}

/// `{ mode: off }`.
fn is_off(node: &Node) -> bool {
    let Value::Map(entries) = &node.value else { return false };
    entries.iter().any(|(key, node)| {
        key.name == "mode" && matches!(&node.value, Value::Scalar { text, .. } if text == "off" || text == "false")
    })
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
            let found = format!("no routes, and several upstreams: {}", names.join(", "));
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
            if !names.is_empty() && !map.has("redirect") && !map.has("upstream") {
                let expected = format!("upstream: one of {}", names.join(", "));
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
