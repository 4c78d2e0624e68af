//! The app's answer made ready for the client: hop-by-hop fields out, protective headers in.

use http::header::{self, HeaderName, HeaderValue};
use http::{Response, StatusCode, Version};

use super::body::Body;
use super::exchange::Exchange;
use super::identify::{X_REQUEST_ID, edit};
use super::refusal::Refusal;
use super::{rates, upgrade};
use crate::core::{forwarded, headers};
use crate::state::clock;
use crate::state::lifecycle::Stage;
use crate::upstream::UpstreamBody;

const STRICT_TRANSPORT_SECURITY: HeaderName = header::STRICT_TRANSPORT_SECURITY;

const EVENTS: &[u8] = b"text/event-stream";

/// Turns the app's answer into ours; a switch of protocols becomes a tunnel.
pub fn answer(
    exchange: &mut Exchange,
    response: Response<UpstreamBody>,
    upgrade: Option<String>,
) -> Result<Response<Body>, Refusal> {
    let (mut parts, body) = response.into_parts();
    let switching = parts.status == StatusCode::SWITCHING_PROTOCOLS;
    headers::strip_response(&mut parts.headers);
    parts.version = Version::HTTP_11;
    forwarded::write_via(&mut parts.headers, Version::HTTP_11);
    if !exchange.outbound()
        && let Some(route) = &exchange.route
    {
        for name in &route.response.remove {
            parts.headers.remove(name);
        }
    }
    let events = parts.headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(EVENTS));
    if (switching || events)
        && let Some(place) = &exchange.place
    {
        place.borrow_mut().becomes_stream(clock::now());
    }
    if switching {
        return upgrade::switch(exchange, Response::from_parts(parts, body), upgrade);
    }
    let idle = exchange.route.as_ref().map_or(std::time::Duration::MAX, |route| route.timeouts.idle);
    Ok(Response::from_parts(parts, Body::stream(body, idle, exchange.deadline)))
}

/// What every response gets, the app's and ours: id, security headers, the route's edits, the end of the connection.
pub fn dress(exchange: &Exchange, mut response: Response<Body>) -> Response<Body> {
    let fields = response.headers_mut();
    if let Some(id) = &exchange.request_id
        && !exchange.outbound()
    {
        fields.insert(X_REQUEST_ID, id.clone());
    }
    if let Some(route) = &exchange.route {
        for (name, value) in &route.response.defaults {
            // Comparing a few names costs less than hashing one.
            if !fields.keys().any(|present| present == name) {
                fields.insert(name, value.clone());
            }
        }
        if let Some(hsts) = &route.response.hsts
            && exchange.scheme == "https"
            && !fields.contains_key(STRICT_TRANSPORT_SECURITY)
        {
            fields.insert(STRICT_TRANSPORT_SECURITY, hsts.clone());
        }
        edit(fields, &route.response.edits);
        if let Some(standing) = &exchange.rate {
            rates::tell(standing, route, fields);
        }
    }
    let closing = exchange.proxy.shared().states.lifecycle.stage() >= Stage::Closing;
    if closing && exchange.is_http1() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
