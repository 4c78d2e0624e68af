//! The app's answer made ready for the client: hop-by-hop fields out, protective headers in.

use http::header::HeaderValue;
use http::{StatusCode, Version};

use super::body::Body;
use super::exchange::Exchange;
use super::identify::{X_REQUEST_ID, edit};
use super::refusal::Refusal;
use super::{rates, upgrade};
use crate::core::fields::Fields;
use crate::core::{forwarded, headers};
use crate::http::Response;
use crate::state::clock;
use crate::state::lifecycle::Stage;
use crate::upstream::{Interim, UpstreamBody};

const STRICT_TRANSPORT_SECURITY: &str = "strict-transport-security";

const EVENTS: &[u8] = b"text/event-stream";

/// Turns the app's answer into ours; a switch of protocols becomes a tunnel.
pub fn answer(
    exchange: &mut Exchange,
    mut response: Response<UpstreamBody>,
    upgrade: Option<String>,
) -> Result<Response<Body>, Refusal> {
    let switching = response.status == StatusCode::SWITCHING_PROTOCOLS;
    response.version = Version::HTTP_11;
    pass(exchange, &mut response.headers);
    let events = response.headers.get("content-type").is_some_and(|kind| kind.as_bytes().starts_with(EVENTS));
    if (switching || events)
        && let Some(place) = &exchange.place
    {
        place.borrow_mut().becomes_stream(clock::now());
    }
    if switching {
        return upgrade::switch(exchange, response, upgrade);
    }
    let idle = exchange.route.as_ref().map_or(std::time::Duration::MAX, |route| route.timeouts.idle);
    Ok(response.map(|body| Body::stream(body, idle, exchange.deadline)))
}

/// Fields of the app that do not pass are taken out, and we are named among those the message came through.
fn pass(exchange: &Exchange, fields: &mut Fields) {
    headers::strip_response(fields);
    forwarded::write_via(fields, Version::HTTP_11);
    if !exchange.outbound()
        && let Some(route) = &exchange.route
    {
        for name in &route.response.remove {
            fields.remove(name);
        }
    }
}

impl Interim for Exchange {
    /// Passed on at once, as the answer's own head would be; HTTP/1.0 has no such answers (RFC 9110 §15.2).
    fn interim(&self, status: StatusCode, mut fields: Fields) {
        if self.version == Version::HTTP_11 {
            pass(self, &mut fields);
            self.peer.told.inform(status, &fields);
        }
    }
}

/// What every response gets, the app's and ours: id, security headers, the route's edits, the end of the connection.
pub fn dress(exchange: &Exchange, response: &mut Response<Body>) {
    let fields = &mut response.headers;
    if !exchange.outbound() {
        fields.make_unique(X_REQUEST_ID, &[exchange.request_id.as_bytes()]);
    }
    if let Some(route) = &exchange.route {
        for (name, value) in &route.response.defaults {
            if !fields.contains(name) {
                fields.append(name, value);
            }
        }
        if let Some(hsts) = &route.response.hsts
            && exchange.scheme == "https"
            && !fields.contains(STRICT_TRANSPORT_SECURITY)
        {
            fields.insert(STRICT_TRANSPORT_SECURITY, hsts);
        }
        edit(fields, &route.response.edits);
        if let Some(standing) = &exchange.rate {
            rates::tell(standing, route, fields);
        }
    }
    // Whoever passes an answer on gives it a date, too, if it has none.
    if !fields.contains("date") {
        exchange.proxy.dates.write(fields, clock::now(), |at| exchange.proxy.wall(at));
    }
    let closing = exchange.proxy.shared().states.lifecycle.stage() >= Stage::Closing;
    if closing && exchange.is_http1() && response.status != StatusCode::SWITCHING_PROTOCOLS {
        response.headers.insert("connection", HeaderValue::from_static("close"));
    }
}
