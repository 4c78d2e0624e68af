//! The ops port: probes and `/metrics`. Read-only by construction: it has no way to change anything.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::gauges;
use crate::proxy::Shared;
use crate::proxy::readiness::{self, Question};

const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
const PROBES: [&str; 6] = ["/livez", "/readyz", "/startupz", "/health", "/healthz", "/ready"];

/// The router of the ops port.
pub fn ops_router(shared: Arc<Shared>) -> Router {
    let probes = PROBES.iter().fold(Router::new(), |router, path| router.route(path, get(probe)));
    probes.route("/metrics", get(metrics)).fallback(nothing_here).with_state(shared)
}

async fn probe(State(shared): State<Arc<Shared>>, uri: Uri) -> Response {
    let report = readiness::report(&shared.plans.load(), &shared.states);
    let well = Question::of(uri.path()).is_some_and(|question| question.answer(&report));
    let status = if well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, [(header::CACHE_CONTROL, "no-store")], axum::Json(report)).into_response()
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    let mut text = shared.telemetry.render_prometheus();
    gauges::render(&shared, &mut text);
    ([(header::CONTENT_TYPE, METRICS_TYPE), (header::CACHE_CONTROL, "no-store")], text).into_response()
}

async fn nothing_here() -> Response {
    let words = "This is Outrigger's ops port: /livez /readyz /startupz /metrics\n";
    (StatusCode::NOT_FOUND, words).into_response()
}
