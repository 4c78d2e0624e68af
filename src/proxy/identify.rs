//! Who is asking: the client's address, the request's id and its trace; and how they are told to the app.

use std::net::IpAddr;

use http::{Uri, Version};

use super::exchange::Exchange;
use super::upload::ClientBody;
use crate::core::fields::{Fields, Value};
use crate::core::request_id::RequestId;
use crate::core::{forwarded, headers, path, request_id, trace};
use crate::http::Request;
use crate::plan::{HeaderEdit, Rewrite};
use crate::state::clock;

pub const X_REQUEST_ID: &str = "x-request-id";
const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";
const BAGGAGE: &str = "baggage";
const B3: &str = "b3";

/// Fills in client, scheme, id and trace from the request's head.
pub fn identify(exchange: &mut Exchange, headers: &Fields) {
    // The app behind an outbound listener is ours: what it says of its own request is true.
    let trusted = exchange.peer_trusted || exchange.outbound();
    if exchange.peer_trusted {
        let trusts = |address: IpAddr| exchange.plan.trusts(address);
        exchange.client = forwarded::client_address(exchange.client, headers, &trusts);
    }
    if let Some(scheme) = forwarded::trusted_proto(exchange.peer_trusted, headers) {
        exchange.scheme = scheme;
    }
    let given = headers.share(X_REQUEST_ID).filter(|id| trusted && request_id::well_formed(id.as_bytes()));
    exchange.request_id = match given {
        Some(id) => RequestId::Given(id),
        None => RequestId::Made(request_id::write(clock::random_wide())),
    };
    identify_trace(exchange, headers);
}

fn identify_trace(exchange: &mut Exchange, headers: &Fields) {
    let mut parents = headers.get_all("traceparent");
    let given = match (parents.next(), parents.next()) {
        (Some(value), None) => trace::parse_traceparent(value.as_bytes()),
        // Two readers would choose differently, so that nobody's is taken (Trace Context §3.2.1).
        (Some(_), Some(_)) => None,
        (None, _) if exchange.plan.traces.b3 => trace::parse_b3(headers),
        (None, _) => None,
    };
    exchange.span = clock::random().max(1);
    exchange.parent_span = given.map_or(0, |context| context.parent_id);
    exchange.trace = Some(given.unwrap_or_else(|| {
        let id = clock::random_wide().max(1);
        trace::new_context(id, exchange.span, trace::sample(id, exchange.plan.traces.sample))
    }));
}

/// Makes the request ready for the app: hop-by-hop fields out, identity in, edits applied.
/// Returns the protocol the client asks to upgrade to, if it may.
pub fn prepare(exchange: &mut Exchange, req: &mut Request<ClientBody>, way: Way<'_>) -> Option<String> {
    let upgrade = headers::upgrade_token(&req.method, req.version, &req.headers);
    let version = req.version;
    exchange.client_upgrade = req.body.take_upgrade();
    req.uri = target(way);
    req.version = Version::HTTP_11;
    let fields = &mut req.headers;
    headers::strip_request(fields);
    fields.remove("expect");
    if version == Version::HTTP_2 {
        headers::join_cookies(fields);
    }
    set_host(exchange, fields);
    if exchange.outbound() {
        forwarded::write_via(fields, version);
    } else {
        let hop = forwarded::Hop {
            peer: exchange.peer.address.ip(),
            peer_trusted: exchange.peer_trusted,
            scheme: exchange.scheme,
            host: &exchange.host,
        };
        exchange.proxy.told.borrow_mut().write(fields, &hop, version);
    }
    fields.make_unique(X_REQUEST_ID, &[exchange.request_id.as_bytes()]);
    clean_trace(exchange, fields);
    if let Some(route) = &exchange.route {
        edit(fields, &route.request_edits);
    }
    upgrade
}

/// Where the request was judged to lead.
#[derive(Clone, Copy)]
pub struct Way<'a> {
    pub received: &'a Uri,
    /// The path as routes saw it.
    pub normalised: &'a str,
    /// Some routes look at paths: then the app must not read another way into it than we did.
    pub judged: bool,
    pub rewrite: Option<&'a Rewrite>,
}

/// Origin form, with the route's prefix replaced. The path is forwarded as it was received, but for two cases: a
/// route's rewriting must not be stepped around by writing the prefix differently, and dot segments are resolved where
/// routes were chosen by what they lead to.
fn target(way: Way<'_>) -> Uri {
    let uri = way.received;
    let received = uri.path();
    let changed = way.normalised != received;
    let path = if changed && way.judged && path::has_dot_segments(received) { way.normalised } else { received };
    let rewritten = way.rewrite.and_then(|rewrite| {
        let below = |path: &str| path.strip_prefix(&rewrite.from).map(|rest| format!("{}{rest}", rewrite.to));
        let itself = || (way.normalised == rewrite.from.trim_end_matches('/')).then(|| rewrite.to.clone());
        below(path).or_else(|| below(way.normalised)).or_else(itself)
    });
    let path = rewritten.as_deref().unwrap_or(path);
    if path != received {
        let target = match uri.query() {
            Some(query) => format!("{path}?{query}").parse(),
            None => path.parse(),
        };
        if let Ok(target) = target {
            return target;
        }
    }
    match uri.path_and_query() {
        Some(target) => Uri::from(target.clone()),
        None => Uri::from_static("/"),
    }
}

/// Exactly one Host: the one the request was judged by. (RFC 9112 §3.2.2: an absolute target replaces it.)
fn set_host(exchange: &Exchange, fields: &mut Fields) {
    if exchange.outbound() {
        return; // each endpoint sets its own
    }
    let same = fields.get("host").is_some_and(|host| host.as_bytes() == exchange.host.as_bytes());
    if !same && !exchange.host.is_empty() {
        fields.make("host", &[exchange.host.as_bytes()]);
    }
}

/// Trace fields beyond their limits are not passed on (W3C Trace Context §3.3, Baggage §3.3.2).
fn clean_trace(exchange: &Exchange, fields: &mut Fields) {
    if !fields.contains(TRACESTATE) && !fields.contains(BAGGAGE) {
        return; // most requests
    }
    let lines = |name| fields.get_all(name).map(Value::as_bytes);
    let (state_ok, baggage_ok) = (trace::tracestate_ok(lines(TRACESTATE)), trace::baggage_ok(lines(BAGGAGE)));
    if !state_ok || exchange.parent_span == 0 {
        fields.remove(TRACESTATE);
    }
    if !baggage_ok {
        fields.remove(BAGGAGE);
    }
}

/// The trace as the app sees it in one attempt: our span of this attempt is its parent.
pub fn write_trace(exchange: &Exchange, fields: &mut Fields, span: u64) {
    let Some(context) = exchange.trace else { return };
    let context = trace::Context { parent_id: span, ..context };
    fields.make_unique(TRACEPARENT, &[&trace::write_traceparent(&context)]);
    if exchange.plan.traces.b3 {
        let sampled = u8::from(context.sampled);
        let text = format!("{:032x}-{span:016x}-{sampled}", context.trace_id);
        fields.make_unique(B3, &[text.as_bytes()]);
    }
}

/// Applies a route's edits in order.
pub fn edit(fields: &mut Fields, edits: &[HeaderEdit]) {
    for edit in edits {
        match edit {
            HeaderEdit::Set(name, value) => fields.insert(name, value),
            HeaderEdit::Add(name, value) => fields.append(name, value),
            HeaderEdit::Remove(name) => fields.remove(name),
        }
    }
}
