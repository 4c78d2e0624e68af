//! Routes with what they inherit: timeouts, retries, limits, header edits.

use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};

use super::reader::Map;
use super::settings::{
    HeaderEdits, Mode, RateKey, RateLimit, Retry, RetryBudget, RetryConditions, Route, RouteAction, RouteDefaults,
    RouteMatch, Timeouts,
};
use super::yaml::{Node, Value};
use super::{read_switches, units};
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
    let connect = map.duration("connect", "1s", "To connect, name and TLS included.");
    let body = map.block("request_body", "The slowest a request body may come.");
    let rate = body.value("rate_min", "byte rate", "240B/s", "Bytes per second, after the grace.", units::byte_rate);
    let grace = body.duration("grace", "5s", "Before the rate counts.");
    body.finish();
    let first_byte = map.duration("first_byte", "15s", "From the end of the request to the head of the answer.");
    let idle = map.duration("idle", "60s", "Between two pieces of a body, and in a tunnel.");
    let total = map.duration(
        "total",
        "30s",
        "The whole request with all its attempts; streams are exempt once they have begun.",
    );
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

fn is_word(node: &Node, word: &str) -> bool {
    matches!(&node.value, Value::Scalar { text, .. } if text == word)
}

pub fn rate_limits(root: &Map<'_, '_>) -> Vec<RateLimit> {
    let limits = root.named("rate_limits", "Limits that routes name, by name.");
    let read = |(name, map): (String, Map<'_, '_>)| {
        let key = rate_key(&map);
        let rate = map.rate("rate", "How many in how long.");
        if rate.is_none() && !map.has("rate") {
            map.context.problem(&format!("{}.rate", map.path), None, "nothing", units::RATE, None);
        }
        let burst = map.count("burst", "1", "How many may come at once.").unwrap_or(1);
        let cost = map.count("cost", "1", "What one request is worth; at most the burst.").unwrap_or(1);
        if cost > burst {
            let hint = "no request could ever pass: raise burst, or lower cost".to_owned();
            let found = format!("a cost of {cost} above the burst of {burst}");
            map.context.problem(
                &format!("{}.cost", map.path),
                map.at("cost"),
                found,
                "a cost that the burst can pay",
                Some(hint),
            );
        }
        let doc = "shadow refuses nobody and counts who would have been; off decides nothing.";
        let mode = match map.choice("mode", &["enforce", "shadow", "off"], "enforce", doc) {
            Some("shadow") => Mode::Shadow,
            Some("off") => Mode::Off,
            Some(_) | None => Mode::Enforce,
        };
        map.later("store");
        map.later("when_unavailable");
        map.finish();
        Some(RateLimit { name, key, rate: rate?, burst, cost, mode })
    };
    limits.into_iter().filter_map(read).collect()
}

const RATE_KEY: &str = "client_ip, route, header:NAME or cookie:NAME";

fn rate_key(map: &Map<'_, '_>) -> Vec<RateKey> {
    let claims = |node: &Node| {
        let jwt = |item: &Node| matches!(&item.value, Value::Scalar { text, .. } if text.starts_with("jwt:"));
        !matches!(&node.value, Value::List(items) if items.iter().any(jwt))
    };
    let doc = "Whose requests are counted together: a list of client_ip, route, header:NAME, cookie:NAME.";
    if map.not_yet_unless("key", claims) {
        return vec![RateKey::ClientIp];
    }
    let parts = map.values("key", "list of key parts", doc, |text| match text.split_once(':') {
        None if text == "client_ip" => Ok(RateKey::ClientIp),
        None if text == "route" => Ok(RateKey::Route),
        Some(("header", name)) => HeaderName::from_bytes(name.as_bytes())
            .map(|name| RateKey::Header(name.as_str().to_owned()))
            .map_err(|_| RATE_KEY),
        Some(("cookie", name)) if !name.is_empty() => Ok(RateKey::Cookie(name.to_owned())),
        Some(_) | None => Err(RATE_KEY),
    });
    match parts {
        Some(parts) if parts.is_empty() => {
            map.context.problem(&format!("{}.key", map.path), map.at("key"), "an empty list", RATE_KEY, None);
            vec![RateKey::ClientIp]
        }
        Some(parts) => parts,
        None => vec![RateKey::ClientIp],
    }
}

/// The routes, or the one that takes everything when none were typed.
pub fn routes(root: &Map<'_, '_>, defaults: &RouteDefaults, only: Option<&str>) -> Vec<Route> {
    let typed = root.blocks("routes", "Which requests go where; the most specific match wins, ties go by order.");
    let routes = typed.into_iter().enumerate().filter_map(|(place, map)| route(map, place, defaults, only)).collect();
    if root.has("routes") { routes } else { only.map(|upstream| everything(upstream, defaults)).into_iter().collect() }
}

fn everything(upstream: &str, defaults: &RouteDefaults) -> Route {
    Route {
        name: "everything".to_owned(),
        matches: RouteMatch { path: "/*".to_owned(), ..RouteMatch::default() },
        action: RouteAction::Forward { upstream: upstream.to_owned(), rewrite_prefix: None },
        timeouts: defaults.timeouts.clone(),
        retry: defaults.retry.clone(),
        rate_limits: Vec::new(),
        body_max: None,
        flag: None,
        maintenance: Position::Open,
        request_headers: HeaderEdits::default(),
        response_headers: HeaderEdits::default(),
    }
}

fn route(map: Map<'_, '_>, place: usize, defaults: &RouteDefaults, only: Option<&str>) -> Option<Route> {
    let name = map.text("name", "Its name in metrics, logs and commands.").unwrap_or_else(|| format!("route-{place}"));
    let matches = route_match(map.block("match", "Which requests it takes; everything named must fit."));
    let upstream = map.text("upstream", "Where they go; the default is the only upstream.");
    let redirect = map.block("redirect", "Answer with a redirect instead.");
    let to = redirect.text("to", "The target; {parameters} of the path are filled in.");
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
    map.later_unless("priority", |node| is_word(node, "default"));
    let flag = map.text("flag", "It answers 503 while this flag is off.");
    let maintenance = read_switches::position(&map, "maintenance", "Maintenance of this route alone.");
    for later in ["auth", "access"] {
        map.later(later);
    }
    let action = match (to, upstream, only) {
        (Some(_), Some(_), _) => {
            map.context.problem(&map.path, map.at("redirect"), "both upstream and redirect", "one of the two", None);
            None
        }
        (Some(to), None, _) => Some(RouteAction::Redirect { to, status: status.unwrap_or(308) }),
        (None, Some(upstream), _) => Some(RouteAction::Forward { upstream, rewrite_prefix }),
        (None, None, Some(only)) => Some(RouteAction::Forward { upstream: only.to_owned(), rewrite_prefix }),
        (None, None, None) => None,
    };
    map.finish();
    Some(Route {
        name,
        matches,
        action: action?,
        timeouts,
        retry,
        rate_limits,
        body_max,
        flag,
        maintenance,
        request_headers,
        response_headers,
    })
}

fn route_match(map: Map<'_, '_>) -> RouteMatch {
    let hosts = map.values("hosts", "list of hosts", "a.example, or *.example for everything below it.", |text| {
        let plain = text.strip_prefix("*.").unwrap_or(text);
        let valid = !plain.is_empty() && !plain.contains(['*', '/', ':', ' ']);
        if valid { Ok(text.to_ascii_lowercase()) } else { Err("a host without port: a.example or *.example") }
    });
    let path = map.value("path", "path", "/*", "/exact, /users/{id} or /prefix/*.", |text| {
        if text.starts_with('/') { Ok(text.to_owned()) } else { Err("a path that begins with /") }
    });
    let methods = map.values("methods", "list of methods", "Any when not typed; GET includes HEAD.", |text| {
        Method::from_bytes(text.as_bytes()).map(|method| method.as_str().to_owned()).map_err(|_| "an HTTP method")
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
