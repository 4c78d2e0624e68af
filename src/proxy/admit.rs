//! What must be so before the app hears of a request: a route, a body that may come, a limit not reached, a place.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Instant;

use http::{Method, Uri};

use super::exchange::Exchange;
use super::local::Own;
use super::refusal::Refusal;
use crate::core::admission::Why;
use crate::core::deadline;
use crate::core::fields::Fields;
use crate::core::priority::Priority;
use crate::core::route::{Found, Params};
use crate::plan::{CheckKind, ListenerPlan, RoutePlan, Timeouts, UpstreamPlan};
use crate::state::clock;
use crate::state::places::Refused;

/// `critical`, `default`, `batch` or `sheddable`, of a trusted proxy.
const X_REQUEST_PRIORITY: &str = "x-request-priority";

/// A route by the router's index, and the values of its path's parameters.
pub struct Chosen<'p> {
    pub index: usize,
    pub params: Params<'p>,
}

/// The most specific route for a request; `path` is normalised.
pub fn route<'p>(
    listener: &ListenerPlan,
    exchange: &Exchange,
    (method, headers, query): (&Method, &Fields, Option<&str>),
    path: &'p str,
) -> Result<Chosen<'p>, Refusal> {
    let host = host_only(&exchange.host);
    match listener.router.find(host, path, method, headers, query) {
        Found::Route { index, params } => Ok(Chosen { index, params }),
        Found::MethodNotAllowed { allow } => Err(Refusal::MethodNotAllowed { allow }),
        Found::None => Err(Refusal::RouteNotFound),
    }
}

/// A host without its port; `[::1]:80` is `[::1]`.
pub fn host_only(authority: &str) -> &str {
    // From the end: a port is short, and most hosts have none.
    match authority.bytes().rposition(|byte| byte == b':' || byte == b']') {
        Some(at) if authority.as_bytes()[at] == b':' => &authority[..at],
        Some(_) | None => authority,
    }
}

/// The sooner of the route's total time and what the client asks for.
pub fn deadline(started: Instant, timeouts: &Timeouts, headers: &Fields) -> Instant {
    let total = deadline::requested(headers).map_or(timeouts.total, |asked| asked.min(timeouts.total));
    started + total
}

/// Refuses a body that announces itself as too large; one that does not is counted as it comes.
pub fn body_length(route: &RoutePlan, headers: &Fields) -> Result<(), Refusal> {
    let Some(max) = route.body_max else { return Ok(()) };
    let announced = headers.get("content-length").and_then(|value| value.to_str()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > max) { Err(Refusal::BodyTooLarge) } else { Ok(()) }
}

/// Takes one of the upstream's places, after a wait if need be; the exchange gives it back when it settles. Checks of
/// the app's own health wait for nobody.
pub async fn place(exchange: &mut Exchange, upstream: &Own<UpstreamPlan>) -> Result<(), Refusal> {
    exchange.upstream = Some(upstream.clone());
    let places = &upstream.state.places;
    let uploading = exchange.upload.as_ref().is_some_and(|upload| upload.ended().is_none());
    let asks = matches!(upstream.health_check.as_ref().map(|check| &check.kind),
        Some(CheckKind::Http(path)) if *path == exchange.uri.path());
    let probe = asks && !uploading && matches!(exchange.method, Method::GET | Method::HEAD);
    let entered = match probe.then(|| places.enter_probe(&upstream.admission)).flatten() {
        Some(place) => Ok(place),
        None => {
            let now = clock::now();
            places.enter(exchange.priority, uploading, exchange.deadline, &upstream.admission, now).await
        }
    };
    match entered {
        Ok(place) => {
            exchange.place = Some(Rc::new(RefCell::new(place)));
            Ok(())
        }
        Err(Refused::Uploads) => Err(Refusal::UploadLimit),
        Err(Refused::Why(Why::Full)) => Err(Refusal::ConcurrencyLimit),
        Err(Refused::Why(Why::Shed)) => Err(Refusal::Shed),
        Err(Refused::Why(Why::TooLate)) => Err(Refusal::DeadlineTooNear),
    }
}

/// The route's, unless a trusted proxy says otherwise.
pub fn priority(exchange: &Exchange, fields: &Fields) -> Priority {
    let told = fields.get(X_REQUEST_PRIORITY).filter(|_| exchange.peer_trusted);
    let told = told.and_then(|value| Priority::parse(value.to_str()?));
    told.or(exchange.route.as_ref().map(|route| route.priority)).unwrap_or(Priority::Default)
}

/// What an answer, or the lack of one, says of the app's latency. Quick failures say nothing: an app that refuses fast
/// is not a fast app. Neither does the end of a client's own patience: whoever asks for an answer in 3 ms would teach
/// that the app takes 3 ms, and then what it usually takes would look like an overload.
pub fn learn<T>(exchange: &Exchange, answered: &Result<T, Refusal>) {
    let (Some(place), Some(last)) = (&exchange.place, exchange.attempts.last()) else { return };
    let total = exchange.route.as_ref().map(|route| exchange.started + route.timeouts.total);
    let timed_out = match answered {
        Err(Refusal::FirstByteTimeout | Refusal::PerTryTimeout) => true,
        Err(Refusal::TotalTimeout) => total == Some(exchange.deadline),
        Ok(_) | Err(_) => false,
    };
    let worked = (100..500).contains(&last.status) && last.status != 429;
    if timed_out || (answered.is_ok() && worked) {
        place.borrow().sample(last.duration, clock::now());
    }
}

/// The path and query of a request, for a redirect.
pub fn path_and_query(uri: &Uri) -> &str {
    uri.path_and_query().map_or("/", |target| target.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_no_part_of_a_host() {
        assert_eq!(host_only("a.example:80"), "a.example");
        assert_eq!(host_only("a.example"), "a.example");
        assert_eq!(host_only("[::1]:80"), "[::1]");
        assert_eq!(host_only("[::1]"), "[::1]");
    }
}
