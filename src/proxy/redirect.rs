//! Redirects: to HTTPS, only ever to a host the operator named, and routes that are redirects.

use http::StatusCode;
use http::header::{self, HeaderValue};

use super::admit::{host_only, path_and_query};
use super::body::Body;
use super::exchange::Exchange;
use super::refusal::Refusal;
use crate::core::route::Params;
use crate::http::Response;
use crate::plan::{HttpsRedirect, Template};

/// Where certificate authorities look for proofs of control, over plain HTTP (RFC 8555 §8.3).
pub const ACME: &str = "/.well-known/acme-challenge/";

/// The redirect to HTTPS, unless the request came over HTTPS to a trusted proxy or is an ACME challenge.
/// A host that is not configured is refused: a Location is never made from what a client claims (Host injection).
pub fn to_https(https: &HttpsRedirect, exchange: &Exchange, path: &str) -> Result<Option<Response<Body>>, Refusal> {
    if exchange.scheme == "https" || path.starts_with(ACME) {
        return Ok(None);
    }
    let host = host_only(&exchange.host);
    let known = https.hosts.iter().find(|known| known.eq_ignore_ascii_case(host)).ok_or(Refusal::Misdirected)?;
    let port = if https.port == 443 { String::new() } else { format!(":{}", https.port) };
    let target = format!("https://{known}{port}{}", path_and_query(&exchange.uri));
    Ok(Some(moved(StatusCode::PERMANENT_REDIRECT, &target)))
}

/// A route's redirect with its parameters filled in; the request's query goes along unless the target has its own.
pub fn to_target(to: &Template, status: u16, params: &Params<'_>, query: Option<&str>) -> Response<Body> {
    let mut target = to.fill(params);
    if let Some(query) = query
        && !target.contains('?')
    {
        target.push('?');
        target.push_str(query);
    }
    moved(StatusCode::from_u16(status).unwrap_or(StatusCode::PERMANENT_REDIRECT), &target)
}

fn moved(status: StatusCode, target: &str) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    response.status = status;
    if let Ok(location) = HeaderValue::from_str(target) {
        response.headers.insert(header::LOCATION, location);
    }
    response
}
