//! Throwing switches by command: who, for how long and why belong to every order, and each is an event.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::commands::{Admin, error, no_store};
use crate::core::calendar;
use crate::core::switch::Position;
use crate::plan::{Plan, SwitchPlan};
use crate::proxy::Shared;
use crate::state::clock;
use crate::state::switch::Order;

const HELD_FOR_DEFAULT: Duration = Duration::from_secs(3600);
const HELD_FOR_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// Characters kept of a name or a reason.
const WORDS_MAX: usize = 200;

/// A switch in `/status`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Switch {
    /// `service`, `route` or `flag`.
    pub kind: String,
    pub name: String,
    /// Of maintenance: `off`, `read_only` or `on`. Of a flag: `on` or `off`.
    pub position: String,
    /// Where the file has it.
    pub file: String,
    /// The command that holds it, if one does.
    pub by: Option<String>,
    pub why: Option<String>,
    pub until: Option<String>,
}

/// The switches that are thrown or held, and every flag.
pub fn told(plan: &Plan) -> Vec<Switch> {
    let now = clock::now();
    let told = plan.switches.iter().map(|switch| one(switch, switch.stands(now)));
    let worth = |switch: &Switch| switch.kind == "flag" || switch.by.is_some() || switch.position != "off";
    told.filter(worth).collect()
}

fn one(switch: &SwitchPlan, (position, order): (Position, Option<Order>)) -> Switch {
    let order = order.as_ref();
    Switch {
        kind: switch.kind.to_owned(),
        name: switch.name.to_string(),
        position: word(switch, position).to_owned(),
        file: word(switch, switch.file).to_owned(),
        by: order.map(|order| order.by.clone()),
        why: order.map(|order| order.why.clone()).filter(|why| !why.is_empty()),
        until: order.map(|order| calendar::text(order.until_wall)),
    }
}

/// A flag is on when it lets requests through; maintenance is on when it does not.
fn word(switch: &SwitchPlan, position: Position) -> &'static str {
    match (switch.kind, position) {
        ("flag", Position::Open) => "on",
        ("flag", Position::ReadOnly | Position::Closed) => "off",
        (_, position) => position.label(),
    }
}

/// Who says it, for how long, and why.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Terms {
    /// Seconds; the default is an hour, the most a week.
    seconds: Option<u64>,
    by: Option<String>,
    why: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct MaintenanceQuestion {
    /// `on`, `read_only`, `off`, or `auto` for what the file says.
    mode: String,
    /// The whole service when there is none.
    route: Option<String>,
    #[serde(default)]
    allow: Vec<String>,
    #[serde(flatten)]
    terms: Terms,
}

/// `POST /maintenance`
pub(super) async fn maintenance(State(admin): State<Admin>, Json(question): Json<MaintenanceQuestion>) -> Response {
    let position = match question.mode.as_str() {
        "auto" => None,
        mode => match Position::parse(mode) {
            Some(position) => Some(position),
            None => {
                let words = format!("\"{mode}\" is no mode of maintenance; it is on, read_only, off or auto");
                return error(StatusCode::BAD_REQUEST, words).into_response();
            }
        },
    };
    let mut allow = Vec::new();
    for text in &question.allow {
        match text.parse::<IpNet>().or_else(|_| text.parse::<std::net::IpAddr>().map(Into::into)) {
            Ok(network) => allow.push(network),
            Err(_) => {
                let words = format!("\"{text}\" is no network; it looks like 10.0.0.0/8 or 192.0.2.7");
                return error(StatusCode::BAD_REQUEST, words).into_response();
            }
        }
    }
    let kind = if question.route.is_some() { "route" } else { "service" };
    throw(&admin.shared, kind, question.route.as_deref().unwrap_or_default(), position, question.terms, allow)
}

#[derive(Deserialize)]
pub(super) struct FlagQuestion {
    name: String,
    /// `null` for what the file says.
    on: Option<bool>,
    #[serde(flatten)]
    terms: Terms,
}

/// `POST /flag`
pub(super) async fn flag(State(admin): State<Admin>, Json(question): Json<FlagQuestion>) -> Response {
    let position = question.on.map(|on| if on { Position::Open } else { Position::Closed });
    throw(&admin.shared, "flag", &question.name, position, question.terms, Vec::new())
}

fn throw(
    shared: &Arc<Shared>,
    kind: &'static str,
    name: &str,
    position: Option<Position>,
    terms: Terms,
    allow: Vec<IpNet>,
) -> Response {
    let plan = shared.plans.load_full();
    let Some(switch) = plan.switches.iter().find(|switch| switch.kind == kind && &*switch.name == name) else {
        let names: Vec<&str> = plan.switches.iter().filter(|one| one.kind == kind).map(|one| &*one.name).collect();
        let known =
            if names.is_empty() { "there is none".to_owned() } else { format!("there is {}", names.join(", ")) };
        return error(StatusCode::NOT_FOUND, format!("there is no {kind} \"{name}\"; {known}")).into_response();
    };
    // What the file says anyway needs no order that would expire.
    let position = position.filter(|position| *position != switch.file || !allow.is_empty());
    let time = terms.seconds.map_or(HELD_FOR_DEFAULT, Duration::from_secs).clamp(Duration::from_secs(1), HELD_FOR_MAX);
    let order = position.map(|position| Order {
        position,
        until: clock::now() + time,
        until_wall: clock::wall() + time,
        by: words(terms.by).unwrap_or_else(|| "somebody at the admin port".to_owned()),
        why: words(terms.why).unwrap_or_default(),
        allow,
    });
    let told = one(switch, (position.unwrap_or(switch.file), order.clone()));
    switch.state.give(order);
    record(shared, switch, &told);
    if position.is_some() {
        expire_later(shared, switch.clone(), time);
    }
    no_store(told).into_response()
}

fn record(shared: &Shared, switch: &SwitchPlan, told: &Switch) {
    let text = match (&told.by, &told.until, &told.why) {
        (Some(by), Some(until), Some(why)) => format!("{} by {by} until {until}: {why}", told.position),
        (Some(by), Some(until), None) => format!("{} by {by} until {until}", told.position),
        (_, _, _) => format!("{}, as the file says", told.position),
    };
    shared.states.journal.record(event_kind(switch), subject(switch), text);
}

/// Tells that an order's time is over, unless another one has taken its place.
fn expire_later(shared: &Arc<Shared>, switch: Arc<SwitchPlan>, time: Duration) {
    let shared = Arc::downgrade(shared);
    tokio::spawn(async move {
        tokio::time::sleep(time + Duration::from_millis(1)).await;
        if let (Some(shared), Some(order)) = (shared.upgrade(), switch.state.expire()) {
            let file = shared
                .plans
                .load()
                .switches
                .iter()
                .find(|one| one.kind == switch.kind && one.name == switch.name)
                .map_or(switch.file, |one| one.file);
            let text = format!("{}, as the file says: the order of {} has expired", word(&switch, file), order.by);
            shared.states.journal.record(event_kind(&switch), subject(&switch), text);
        }
    });
}

fn event_kind(switch: &SwitchPlan) -> &'static str {
    if switch.kind == "flag" { "flag" } else { "maintenance" }
}

fn subject(switch: &SwitchPlan) -> String {
    match switch.kind {
        "service" => "service".to_owned(),
        kind => format!("{kind} {}", switch.name),
    }
}

/// One line of at most so many characters, or nothing.
fn words(text: Option<String>) -> Option<String> {
    let kept: String = text?.chars().filter(|letter| !letter.is_control()).take(WORDS_MAX).collect();
    let kept = kept.trim();
    (!kept.is_empty()).then(|| kept.to_owned())
}
