//! Whether the app behind us can be sent traffic, and why not: the answer of `/readyz`, wherever it is asked.

use http::header::{self, HeaderValue};
use http::{Method, StatusCode};
use serde::Serialize;

use super::body::Body;
use super::exchange::Exchange;
use crate::core::calendar;
use crate::core::dependency::Effect;
use crate::http::Response;
use crate::plan::{Action, DependencyPlan, Plan, UpstreamPlan};
use crate::state::lifecycle::Stage;
use crate::state::states::States;

/// The three questions an orchestrator asks, and the checks behind the second.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The process works; restarting it would not help.
    pub live: bool,
    /// Send traffic.
    pub ready: bool,
    /// The app has answered at least once since the start.
    pub started: bool,
    /// Ready, but without something the app would like to have.
    pub degraded: bool,
    pub stage: &'static str,
    /// Why it is not ready, in plain words; empty when it is.
    pub waiting_for: Vec<String>,
    pub checks: Vec<Check>,
    pub dependencies: Vec<Dependency>,
}

/// What is known of one thing the app needs; nobody is asked for it now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Dependency {
    pub name: String,
    pub kind: &'static str,
    /// `required`, `startup` or `degraded`.
    pub when: &'static str,
    /// `None` until a check has decided.
    pub ok: Option<bool>,
    /// Since when it is so, and when it was last asked.
    pub since: Option<String>,
    pub checked: Option<String>,
    /// What was wrong when it was last asked, in plain words; empty when nothing was.
    pub words: String,
    #[serde(skip)]
    pub effect: Effect,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    pub name: String,
    pub ok: bool,
    /// What is wrong, in plain words; empty when nothing is.
    pub words: String,
}

/// Ready is: serving, and every upstream of an inbound route has an endpoint that is not known to be unhealthy, and no
/// dependency says otherwise.
pub fn report(plan: &Plan, states: &States) -> Report {
    let stage = states.lifecycle.stage();
    let checks: Vec<Check> = inbound_upstreams(plan).into_iter().map(check).collect();
    let started = states.lifecycle.app_seen();
    let dependencies: Vec<Dependency> = plan.dependencies.iter().map(dependency).collect();
    let waiting_for = waiting_for(stage, started, &checks, &dependencies);
    Report {
        live: stage < Stage::Cutting,
        ready: waiting_for.is_empty(),
        started,
        degraded: dependencies.iter().any(|one| one.effect == Effect::Degraded),
        stage: stage_word(stage),
        waiting_for,
        checks,
        dependencies,
    }
}

/// Each thing that keeps it from being ready.
fn waiting_for(stage: Stage, started: bool, checks: &[Check], dependencies: &[Dependency]) -> Vec<String> {
    let mut reasons = Vec::new();
    if stage > Stage::Serving {
        reasons.push(format!("Outrigger is {}", stage_word(stage)));
    }
    let failing = checks.iter().filter(|check| !check.ok);
    reasons.extend(failing.map(|check| format!("{}: {}", check.name, check.words)));
    for dependency in dependencies.iter().filter(|one| one.effect == Effect::NotReady) {
        let words = match (dependency.ok, dependency.words.as_str()) {
            (None, "") => "not asked yet",
            (_, words) => words,
        };
        reasons.push(format!("{} ({}): {words}", dependency.name, dependency.when));
    }
    if !started && reasons.is_empty() {
        reasons.push("the app has not answered yet".to_owned());
    }
    if stage < Stage::Serving && reasons.is_empty() {
        reasons.push(format!("Outrigger is {}", stage_word(stage)));
    }
    reasons
}

fn dependency(plan: &DependencyPlan) -> Dependency {
    let known = plan.state.known();
    Dependency {
        name: plan.name.to_string(),
        kind: plan.what.kind(),
        when: plan.when.label(),
        ok: known.well,
        since: known.since.map(calendar::text),
        checked: known.asked.map(calendar::text),
        words: known.problem.unwrap_or_default(),
        effect: plan.when.effect(known.well, known.seen_well),
    }
}

pub fn stage_word(stage: Stage) -> &'static str {
    match stage {
        Stage::Starting => "starting",
        Stage::Serving => "serving",
        Stage::Delaying => "draining, still accepting",
        Stage::Closing => "draining",
        Stage::Parting => "draining, closing upgraded connections",
        Stage::Cutting => "ending",
    }
}

/// The health paths on a data listener; `None` for every other path.
pub fn answer(exchange: &Exchange, method: &Method, path: &str) -> Option<Response<Body>> {
    let question = Question::of(path)?;
    if method != Method::GET && method != Method::HEAD {
        return None;
    }
    let report = report(&exchange.plan, &exchange.proxy.shared().states);
    let well = question.answer(&report);
    let text = if well { "ok\n" } else { "not ok\n" };
    let mut response = Response::new(Body::full(text));
    response.status = if well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    response.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response.headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Some(response)
}

/// What a health path asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    Live,
    Ready,
    Started,
}

impl Question {
    pub fn of(path: &str) -> Option<Question> {
        match path {
            "/livez" => Some(Question::Live),
            "/readyz" | "/ready" | "/health" | "/healthz" => Some(Question::Ready),
            "/startupz" => Some(Question::Started),
            _ => None,
        }
    }

    pub fn answer(self, report: &Report) -> bool {
        match self {
            Question::Live => report.live,
            Question::Ready => report.ready,
            Question::Started => report.started,
        }
    }
}

/// What the app calls through us does not decide whether the app can be called.
fn inbound_upstreams(plan: &Plan) -> Vec<&UpstreamPlan> {
    let mut found: Vec<&UpstreamPlan> = Vec::new();
    let routes = plan.live_listeners().filter(|listener| !listener.outbound).flat_map(|listener| &listener.routes);
    for route in routes {
        if let Action::Forward { upstream, .. } = &route.action
            && !found.iter().any(|known| known.name == upstream.name)
        {
            found.push(upstream);
        }
    }
    found
}

fn check(upstream: &UpstreamPlan) -> Check {
    let away = upstream.state.hold.is_away();
    let ok = !away && upstream.endpoints.iter().any(|endpoint| endpoint.state.healthy() != Some(false));
    let problems = upstream.endpoints.iter().filter_map(|endpoint| endpoint.state.last_problem());
    let words = match (ok, problems.collect::<Vec<_>>().join("; ")) {
        (true, _) => String::new(),
        (false, words) if words.is_empty() => "no endpoint listens".to_owned(),
        (false, words) => words,
    };
    Check { name: upstream.name.to_string(), ok, words }
}
