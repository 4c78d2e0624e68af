//! What must be so before the app hears of a request: a route, a body that may come, a limit not reached, a place.

use std::sync::Arc;
use std::time::Instant;

use http::header::{self, HeaderMap};
use http::{Request, Uri};

use super::exchange::Exchange;
use super::refusal::Refusal;
use super::upload::ClientBody;
use crate::core::deadline;
use crate::core::route::{Found, Params};
use crate::plan::{ListenerPlan, RoutePlan, Timeouts, UpstreamPlan};

/// A route and the values of its path's parameters.
pub struct Chosen<'p> {
    pub route: Arc<RoutePlan>,
    pub params: Params<'p>,
}

/// The most specific route for a request; `path` is normalised.
pub fn route<'p>(
    listener: &ListenerPlan,
    exchange: &Exchange,
    req: &Request<ClientBody>,
    path: &'p str,
) -> Result<Chosen<'p>, Refusal> {
    let host = host_only(&exchange.host);
    match listener.router.find(host, path, req.method(), req.headers(), req.uri().query()) {
        Found::Route { index, params } => match listener.routes.get(index) {
            Some(route) => Ok(Chosen { route: route.clone(), params }),
            None => Err(Refusal::RouteNotFound),
        },
        Found::MethodNotAllowed { allow } => Err(Refusal::MethodNotAllowed { allow }),
        Found::None => Err(Refusal::RouteNotFound),
    }
}

/// A host without its port; `[::1]:80` is `[::1]`.
pub fn host_only(authority: &str) -> &str {
    match authority.rfind(':') {
        Some(colon) if !authority[colon..].contains(']') => &authority[..colon],
        Some(_) | None => authority,
    }
}

/// The sooner of the route's total time and what the client asks for.
pub fn deadline(started: Instant, timeouts: &Timeouts, headers: &HeaderMap) -> Instant {
    let total = deadline::requested(headers).map_or(timeouts.total, |asked| asked.min(timeouts.total));
    started + total
}

/// Refuses a body that announces itself as too large; one that does not is counted as it comes.
pub fn body_length(route: &RoutePlan, headers: &HeaderMap) -> Result<(), Refusal> {
    let Some(max) = route.body_max else { return Ok(()) };
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > max) { Err(Refusal::BodyTooLarge) } else { Ok(()) }
}

/// Takes one of the upstream's places; the exchange gives it back when it settles. A request whose body is still
/// coming may take only one of the share that such requests have.
pub fn place(exchange: &mut Exchange, upstream: &Arc<UpstreamPlan>) -> Result<(), Refusal> {
    exchange.upstream = Some(upstream.clone());
    let max = upstream.concurrency_max;
    let uploading = exchange.upload.as_ref().is_some_and(|upload| upload.ended().is_none());
    let (place, refusal) = if uploading {
        (upstream.state.enter_upload(max, max.div_ceil(2)), Refusal::UploadLimit)
    } else {
        (upstream.state.enter(max), Refusal::ConcurrencyLimit)
    };
    exchange.place = Some(place.ok_or(refusal)?);
    Ok(())
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
