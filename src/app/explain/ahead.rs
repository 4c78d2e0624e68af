//! What answers a request before its route does: a head that nobody accepts, the redirect to HTTPS, and the switches as
//! the file has them.

use http::{HeaderValue, Method, Uri, Version};

use super::super::verdict::Verdict;
use crate::config::Loaded;
use crate::config::settings::{Direction, Listener, Route, Settings};
use crate::core::fields::Fields;
use crate::core::forwarded;
use crate::core::framing::{Ambiguity, check_request};
use crate::core::retry::is_safe;
use crate::core::switch::{Barred, Position, Standing};
use crate::proxy::admit::host_only;
use crate::proxy::redirect::ACME;

/// A head that is refused whatever it asks for. `host` is as typed; one that was not typed is no problem here.
pub fn head(method: &Method, target: &str, host: Option<&str>, headers: &Fields) -> Result<(), Verdict> {
    let no_host = |host: &str| {
        let what = "write a name or an address, with or without a port: shop.example.com, 10.0.0.1:8080, [::1]";
        Verdict::cannot(format!("\"{host}\" is not a host, a request with it would be refused with 400; {what}"))
    };
    let uri: Uri = target.parse().map_err(|_| Verdict::cannot(format!("\"{target}\" is not a path and a query")))?;
    let mut headers = headers.clone();
    let typed = host.unwrap_or("localhost");
    if host.is_some() || headers.get("host").is_none() {
        let value = HeaderValue::from_str(typed).map_err(|_| no_host(typed))?;
        headers.append(http::header::HOST, value);
    }
    match check_request(method, &uri, Version::HTTP_11, &headers) {
        Ok(_) => Ok(()),
        Err(Ambiguity::HostInvalid) => Err(no_host(typed)),
        Err(problem) => {
            let (status, label) = (problem.status(), problem.label());
            Err(Verdict::no(format!("refused with {status} {label}: {}", problem.explain())))
        }
    }
}

/// What a listener that redirects to HTTPS answers, in words; `None` when the request goes on to its route.
pub fn https(
    listener: &Listener,
    settings: &Settings,
    host: Option<&str>,
    (path, target): (&str, &str),
    headers: &Fields,
) -> Result<Option<String>, Verdict> {
    let Some(redirect) = &listener.redirect_to_https else { return Ok(None) };
    let trusted = !settings.trusted_proxies.is_empty();
    if path.starts_with(ACME) || forwarded::trusted_proto(trusted, headers) == Some("https") {
        return Ok(None);
    }
    let port = if redirect.port == 443 { String::new() } else { format!(":{}", redirect.port) };
    let unless = if trusted { "; not when a trusted proxy says that it came over https" } else { "" };
    let hosts = redirect.hosts.join(", ");
    match host.map(host_only) {
        None => Ok(Some(format!(
            "308 to https://HOST{port}{target} for the hosts {hosts}; 421 misdirected for any other{unless}"
        ))),
        Some(host) => match redirect.hosts.iter().find(|known| known.eq_ignore_ascii_case(host)) {
            Some(known) => Ok(Some(format!("308 to https://{known}{port}{target}{unless}"))),
            None => Err(Verdict::no(format!(
                "refused with 421 misdirected: listener {} redirects to HTTPS, and only for {hosts}{unless}",
                listener.name
            ))),
        },
    }
}

/// The switches in front of a route, where the file has them.
pub fn switches(
    loaded: &Loaded,
    listener: &Listener,
    route: Option<(usize, &Route)>,
    method: &Method,
) -> Result<(), Verdict> {
    let settings = &loaded.settings;
    let service = match listener.direction {
        Direction::Inbound => settings.maintenance.mode,
        // The app may call others while the service is closed.
        Direction::Outbound => Position::Open,
    };
    let own = route.map_or(Position::Open, |(_, route)| route.maintenance);
    let named = route.and_then(|(_, route)| route.flag.as_ref());
    let flag = named.and_then(|name| settings.flags.iter().find(|flag| flag.name == *name));
    let standing = Standing { maintenance: own.max(service), enabled: flag.is_none_or(|flag| flag.on) };
    let line = |path: &str| loaded.origins.of(path).map(|at| format!(" ({}:{})", at.file, at.line)).unwrap_or_default();
    let (label, why) = match standing.bars(is_safe(method), false) {
        None => return Ok(()),
        Some(Barred::Disabled) => {
            let name = named.map_or("", String::as_str);
            return Err(Verdict::no(format!(
                "refused with 503 route_disabled: the flag {name} is off{}",
                line(&format!("flags.{name}"))
            )));
        }
        Some(Barred::Maintenance) => ("maintenance", format!("maintenance is {}", Position::Closed.label())),
        Some(Barred::ReadOnly) => ("read_only", format!("maintenance is {}", Position::ReadOnly.label())),
    };
    let (whose, path) = match route {
        Some((index, route)) if own >= service => {
            (format!("of route {}", route.name), format!("routes[{index}].maintenance"))
        }
        Some(_) | None => ("of the service".to_owned(), "maintenance.mode".to_owned()),
    };
    let allow: Vec<String> = settings.maintenance.allow.iter().map(ToString::to_string).collect();
    let but = if allow.is_empty() { String::new() } else { format!("; clients of {} pass", allow.join(", ")) };
    Err(Verdict::no(format!("refused with 503 {label}: {why}, {whose}{}{but}", line(&path))))
}
