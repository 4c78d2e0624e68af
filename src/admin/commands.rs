//! The admin port: what may be asked, and what may be told.
//!
//! Reading needs nothing but the shared state. Telling goes to `app` as a [`Command`], because only it owns the order
//! of a reload or a drain; a breaker is forced right here, since its state belongs to nobody else. Every answer is
//! JSON; `app::render` makes it readable.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router, middleware};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use super::Board;
use super::guard::{self, Guard};
use super::{status, switches};
use crate::core::breaker::Forced;
use crate::plan::diff::Change;
use crate::proxy::Shared;
use crate::state::clock;

/// A configuration sent for comparison.
const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Of an error told by axum.
const WORDS_BYTES_MAX: usize = 4096;
/// Requests told by `GET /recent` unless it is asked for another number.
const RECENT_DEFAULT: usize = 50;
const RECENT_MAX: usize = 10_000;

/// What only the process as a whole can do. A dropped reply means that it cannot any more.
#[derive(Debug)]
pub enum Command {
    /// Load the file again, or go back to the plan whose hash begins with `to`.
    Reload { to: Option<String>, reply: oneshot::Sender<Result<ReloadAnswer, Vec<String>>> },
    /// Compare this text, as if it were the file `name` in the directory `base`, with what runs.
    Diff { name: String, base: String, text: String, reply: oneshot::Sender<Result<DiffAnswer, Vec<String>>> },
    /// Begin the drain; the reply comes at its end.
    Drain { reply: oneshot::Sender<DrainAnswer> },
}

/// A reload that worked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ReloadAnswer {
    /// Of the plan in force now.
    pub hash: String,
    /// False when the file says what ran already.
    pub changed: bool,
    pub changes: Vec<Change>,
    /// What is not wrong but worth knowing.
    pub notes: Vec<String>,
}

/// A file that is without problems, compared with what runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DiffAnswer {
    pub hash: String,
    pub running: String,
    pub changes: Vec<Change>,
    pub notes: Vec<String>,
}

/// What a drain did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DrainAnswer {
    pub finished: u64,
    pub cut: u64,
    pub forced: bool,
    pub websockets_closed: u64,
    pub duration_ms: u64,
}

#[derive(Clone)]
pub(super) struct Admin {
    pub(super) shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
    board: Arc<Board>,
}

/// The router of the admin port.
pub fn admin_router(
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
    token: Option<&str>,
    board: Arc<Board>,
) -> Router {
    let guard = Arc::new(Guard::new(token));
    Router::new()
        .route("/", get(index))
        .route("/status", get(show_status))
        .route("/recent", get(recent))
        .route("/why/{id}", get(why))
        .route("/reload", post(reload))
        .route("/diff", post(diff))
        .route("/drain", post(drain))
        .route("/breaker/{upstream}/{state}", post(breaker))
        .route("/maintenance", post(switches::maintenance))
        .route("/flag", post(switches::flag))
        .fallback(|| async { error(StatusCode::NOT_FOUND, "there is nothing here; GET / lists what there is") })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::map_response(in_form))
        .layer(middleware::from_fn_with_state(guard, guard::layer))
        .with_state(Admin { shared, commands, board })
}

/// `{"error": …}` with a status.
pub fn error(status: StatusCode, words: impl Into<String>) -> impl IntoResponse {
    (status, no_store(serde_json::json!({ "error": words.into() })))
}

/// What axum says by itself (of a question that cannot be read, a method that is not there), in the form of every other
/// answer.
async fn in_form(answer: Response) -> Response {
    let json = |kind: &HeaderValue| kind.as_bytes().starts_with(b"application/json");
    let told = answer.headers().get(header::CONTENT_TYPE).is_some_and(json);
    let status = answer.status();
    if told || !(status.is_client_error() || status.is_server_error()) {
        return answer;
    }
    let (head, body) = answer.into_parts();
    let words = axum::body::to_bytes(body, WORDS_BYTES_MAX).await.unwrap_or_default();
    let words = match String::from_utf8_lossy(&words).trim() {
        "" => status.canonical_reason().unwrap_or("it cannot be answered").to_lowercase(),
        words => words.to_owned(),
    };
    let mut answer = error(status, words).into_response();
    if let Some(allow) = head.headers.get(header::ALLOW) {
        answer.headers_mut().insert(header::ALLOW, allow.clone());
    }
    answer
}

fn problems(words: &str, problems: &[String]) -> Response {
    (StatusCode::CONFLICT, no_store(serde_json::json!({ "error": words, "problems": problems }))).into_response()
}

pub(super) fn no_store<T: Serialize>(value: T) -> impl IntoResponse {
    ([(header::CACHE_CONTROL, "no-store"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")], Json(value))
}

fn gone() -> Response {
    error(StatusCode::SERVICE_UNAVAILABLE, "Outrigger is ending and takes no more commands").into_response()
}

async fn index() -> impl IntoResponse {
    no_store(serde_json::json!({
        "outrigger": env!("CARGO_PKG_VERSION"),
        "GET": ["/status", "/recent?limit=N", "/why/REQUEST_ID"],
        "POST": ["/reload", "/diff", "/drain", "/breaker/UPSTREAM/open|close|auto?seconds=N&by=WHO&why=TEXT", "/maintenance", "/flag"],
    }))
}

async fn show_status(State(admin): State<Admin>) -> impl IntoResponse {
    no_store(status::status(&admin.shared, &admin.board))
}

#[derive(Deserialize)]
struct Limit {
    limit: Option<usize>,
}

async fn recent(State(admin): State<Admin>, Query(asked): Query<Limit>) -> impl IntoResponse {
    let limit = asked.limit.unwrap_or(RECENT_DEFAULT).min(RECENT_MAX);
    no_store(serde_json::json!({ "requests": admin.shared.telemetry.recent(limit) }))
}

async fn why(State(admin): State<Admin>, Path(id): Path<String>) -> Response {
    match admin.shared.telemetry.find(&id) {
        Some(fate) => no_store(fate).into_response(),
        None => {
            let (count, since) = admin.shared.telemetry.remembered();
            error(StatusCode::NOT_FOUND, not_remembered(count, since)).into_response()
        }
    }
}

/// `since`: when the oldest of the remembered requests began, since the Unix epoch.
fn not_remembered(count: usize, since: Option<Duration>) -> String {
    let now = clock::wall().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let back = since.map_or(0.0, |since| now.saturating_sub(since).as_secs_f64().ceil());
    format!(
        "no request with this id is remembered: it is too long ago, still under way, or was not ours. Only the last requests \
         are: {count} now, {back}s back; older ones stand in the access log"
    )
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct ReloadQuestion {
    to: Option<String>,
}

async fn reload(State(admin): State<Admin>, body: Option<Json<ReloadQuestion>>) -> Response {
    let to = body.and_then(|Json(question)| question.to);
    let (reply, answer) = oneshot::channel();
    if admin.commands.send(Command::Reload { to, reply }).await.is_err() {
        return gone();
    }
    match answer.await {
        Ok(Ok(answer)) => no_store(answer).into_response(),
        Ok(Err(found)) => problems("the new configuration is refused; what ran keeps running", &found),
        Err(_) => gone(),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DiffQuestion {
    name: String,
    /// The directory that relative paths of the text are looked up in.
    base: String,
    text: String,
}

async fn diff(State(admin): State<Admin>, Json(question): Json<DiffQuestion>) -> Response {
    let (reply, answer) = oneshot::channel();
    let DiffQuestion { name, base, text } = question;
    if admin.commands.send(Command::Diff { name, base, text, reply }).await.is_err() {
        return gone();
    }
    match answer.await {
        Ok(Ok(answer)) => no_store(answer).into_response(),
        Ok(Err(found)) => problems("the file has problems", &found),
        Err(_) => gone(),
    }
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct DrainQuestion {
    wait: bool,
}

async fn drain(State(admin): State<Admin>, body: Option<Json<DrainQuestion>>) -> Response {
    let wait = body.is_some_and(|Json(question)| question.wait);
    let (reply, answer) = oneshot::channel();
    if admin.commands.send(Command::Drain { reply }).await.is_err() {
        return gone();
    }
    if !wait {
        return (StatusCode::ACCEPTED, no_store(serde_json::json!({ "draining": true }))).into_response();
    }
    match answer.await {
        Ok(report) => no_store(report).into_response(),
        Err(_) => gone(),
    }
}

/// Forces the breakers of all endpoints of an upstream, and of all routes to it.
async fn breaker(
    State(admin): State<Admin>,
    Path((name, state)): Path<(String, String)>,
    Query(terms): Query<switches::Terms>,
) -> Response {
    let (time, by) = (terms.time(), terms.by());
    let why = Some(terms.why()).filter(|why| !why.is_empty()).map(|why| format!(": {why}")).unwrap_or_default();
    let (forced, words) = match state.as_str() {
        "open" => (Some(Forced::Open), format!("forced open for {}s by {by}{why}", time.as_secs())),
        "close" => (Some(Forced::Closed), format!("forced closed for {}s by {by}{why}", time.as_secs())),
        "auto" => (None, format!("left to judge by itself, by {by}{why}")),
        other => {
            let words = format!("\"{other}\" is not a state of a breaker; it is open, close or auto");
            return error(StatusCode::BAD_REQUEST, words).into_response();
        }
    };
    let plan = admin.shared.plans.load_full();
    let Some(upstream) = plan.upstreams.iter().find(|upstream| *upstream.name == *name) else {
        let names: Vec<&str> = plan.upstreams.iter().map(|upstream| &*upstream.name).collect();
        let words = format!("there is no upstream \"{name}\"; there is {}", names.join(", "));
        return error(StatusCode::NOT_FOUND, words).into_response();
    };
    if upstream.breaker.is_none() {
        let words = format!("the circuit breaker of {name} is off in the configuration, so it cannot be forced");
        return error(StatusCode::CONFLICT, words).into_response();
    }
    let (until, journal) = (clock::now() + time, &admin.shared.states.journal);
    let routes = upstream.state.route_breakers();
    let endpoints = upstream.endpoints.iter().map(|endpoint| &endpoint.state.breaker);
    for breaker in endpoints.chain(routes.iter().map(|(_, breaker)| breaker)) {
        breaker.force(forced, Some(until), journal);
    }
    journal.record("breaker", name.as_str(), words.as_str());
    no_store(serde_json::json!({ "upstream": name, "endpoints": upstream.endpoints.len(), "state": words }))
        .into_response()
}
