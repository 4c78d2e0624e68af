//! What the admin port answers, for people: aligned, in plain words, most important first.
//! Pure functions from JSON to text, so that each can be looked at in a test.

use std::fmt::Write;

use serde_json::Value;

use crate::admin::status::{Endpoint, Event, Route, Status, Upstream};

/// Columns, two spaces apart; text to the left and numbers to the right.
pub struct Table {
    rows: Vec<Vec<String>>,
    right: Vec<bool>,
}

impl Table {
    /// A heading that begins with `>` is over numbers.
    pub fn new(headings: &[&str]) -> Table {
        let right = headings.iter().map(|heading| heading.starts_with('>')).collect();
        let first = headings.iter().map(|heading| heading.trim_start_matches('>').to_owned()).collect();
        Table { rows: vec![first], right }
    }

    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Each line indented by two, without trailing blanks.
    pub fn write(&self, out: &mut String) {
        let width =
            |column: usize| self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
        let widths: Vec<usize> = (0..self.right.len()).map(|column| width(column).unwrap_or(0)).collect();
        for row in &self.rows {
            let mut line = String::new();
            for ((cell, width), right) in row.iter().zip(&widths).zip(&self.right) {
                let blanks = " ".repeat(width - cell.chars().count().min(*width));
                line.push_str("  ");
                let parts = if *right { [blanks.as_str(), cell] } else { [cell, blanks.as_str()] };
                line.extend(parts);
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
    }
}

/// `outrigger status`.
pub fn status(value: &Value) -> String {
    let Ok(status) = serde_json::from_value::<Status>(value.clone()) else {
        return "the answer is of another version; try --output json".to_owned();
    };
    let mut out = String::new();
    heading(&mut out, &status);
    configuration(&mut out, &status);
    if !status.listeners.is_empty() {
        out.push_str("\nlisteners\n");
        let mut table = Table::new(&["name", "address"]);
        status.listeners.iter().for_each(|listener| table.row([listener.name.clone(), listener.address.clone()]));
        table.write(&mut out);
    }
    routes(&mut out, &status.routes);
    upstreams(&mut out, &status.upstreams);
    for certificate in &status.certificates {
        let left = match certificate.days_left {
            days if days < 0 => "EXPIRED".to_owned(),
            days => format!("{days} days left"),
        };
        line(
            &mut out,
            &format!("\ncertificate of {} for {}: {left}", certificate.listener, certificate.names.join(", ")),
        );
    }
    if !status.events.is_empty() {
        out.push_str("\nlast events\n");
        events(&mut out, &status.events);
    }
    out
}

fn line(out: &mut String, text: &str) {
    out.push_str(text);
    out.push('\n');
}

fn heading(out: &mut String, status: &Status) {
    let ready = if status.ready { "ready" } else { "NOT READY" };
    let uptime = time(status.uptime_seconds);
    line(
        out,
        &format!("outrigger {}, service {}: {ready}, {}, up {uptime}", status.version, status.service, status.stage),
    );
    for reason in &status.waiting_for {
        line(out, &format!("  {reason}"));
    }
    let upgraded = if status.upgraded > 0 { format!(", {} upgraded", status.upgraded) } else { String::new() };
    line(out, &format!("{} connections, {} requests in flight{upgraded}", status.connections, status.in_flight));
    if let Some(pid) = status.app {
        line(out, &format!("the app runs as process {pid}"));
    }
}

fn configuration(out: &mut String, status: &Status) {
    let config = &status.config;
    let file = config.file.as_deref().unwrap_or("(none: --upstream)");
    line(
        out,
        &format!("configuration {} from {file}; {} reloads, {} refused", config.hash, config.reloads, config.refused),
    );
    if config.stale {
        line(out, "STALE: the file says something else than what runs");
        for problem in &config.problems {
            problem.lines().for_each(|text| line(out, &format!("  {text}")));
        }
    }
    for waiting in &config.restart {
        line(out, &format!("  {waiting}"));
    }
    if config.plans.len() > 1 {
        line(out, &format!("`reload --to` can go back to {}", config.plans[1..].join(", ")));
    }
}

fn routes(out: &mut String, routes: &[Route]) {
    if routes.is_empty() {
        return;
    }
    out.push_str("\nroutes\n");
    let mut table = Table::new(&["name", ">requests", ">failed", ">p50", ">p90", ">p99", ">p99.9", ">max"]);
    for route in routes {
        let times = [route.p50_ms, route.p90_ms, route.p99_ms, route.p999_ms, route.max_ms];
        let name = if route.name.is_empty() { "(no route)".to_owned() } else { route.name.clone() };
        let mut cells = vec![name, route.requests.to_string(), route.failed.to_string()];
        cells.extend(times.map(|time| if route.requests == 0 { "-".to_owned() } else { milliseconds(time) }));
        table.row(cells);
    }
    table.write(out);
}

fn upstreams(out: &mut String, upstreams: &[Upstream]) {
    for upstream in upstreams {
        let Upstream { name, in_flight, in_flight_max, endpoints } = upstream;
        line(out, &format!("\nupstream {name}: {in_flight} of {in_flight_max} requests in flight"));
        for endpoint in endpoints {
            line(out, &format!("  {}  {}", endpoint.address, health(endpoint)));
        }
    }
}

fn health(endpoint: &Endpoint) -> String {
    let health = match (endpoint.healthy, &endpoint.problem) {
        (Some(true), None) => "healthy".to_owned(),
        (Some(true), Some(problem)) => format!("healthy, but the last check failed: {problem}"),
        (Some(false), Some(problem)) => format!("UNHEALTHY: {problem}"),
        (Some(false), None) => "UNHEALTHY until more checks succeed".to_owned(),
        (None, Some(problem)) => format!("not yet seen well: {problem}"),
        (None, None) => "not checked".to_owned(),
    };
    let breaker = match (endpoint.breaker.as_str(), endpoint.breaker_retry_ms) {
        ("closed" | "", _) => String::new(),
        ("off", _) => "; breaker off".to_owned(),
        ("open", Some(wait)) => format!("; breaker OPEN, tries again in {}", milliseconds(wait as f64)),
        (state, _) => format!("; breaker {}", state.replace('_', " ").to_uppercase()),
    };
    format!("{health}{breaker}")
}

fn events(out: &mut String, events: &[Event]) {
    let mut table = Table::new(&["time", "what", "where", ""]);
    for event in events {
        table.row([clock(event.at), event.kind.clone(), event.subject.clone(), event.words.clone()]);
    }
    table.write(out);
}

/// `outrigger reload`.
pub fn reload(answer: &Value) -> String {
    let hash = answer["hash"].as_str().unwrap_or("?");
    let mut out = if answer["changed"] == true {
        format!("loaded {hash}\n")
    } else {
        format!("nothing has changed; {hash} runs\n")
    };
    changes(&mut out, answer);
    notes(&mut out, answer);
    out
}

/// `outrigger diff`.
pub fn diff(answer: &Value) -> String {
    let word = |key: &str| answer[key].as_str().unwrap_or("?");
    let same = answer["changes"].as_array().is_none_or(Vec::is_empty);
    let mut out = match (same, answer["hash"] == answer["running"]) {
        (true, true) => "no difference\n".to_owned(),
        (true, false) => "the same settings, written differently\n".to_owned(),
        (false, _) => format!("running {}, file {}\n", word("running"), word("hash")),
    };
    changes(&mut out, answer);
    notes(&mut out, answer);
    out
}

fn changes(out: &mut String, answer: &Value) {
    for change in answer["changes"].as_array().into_iter().flatten() {
        let sign = match change["what"].as_str() {
            Some("added") => '+',
            Some("removed") => '-',
            Some(_) | None => '~',
        };
        let restart = if change["needs_restart"] == true { "  (after a restart)" } else { "" };
        line(out, &format!("  {sign} {}{restart}", change["path"].as_str().unwrap_or("?")));
    }
}

fn notes(out: &mut String, answer: &Value) {
    for note in answer["notes"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        line(out, &format!("note: {}", note.trim_end()));
    }
}

/// A refusal with its list of problems.
pub fn problems(answer: &Value) -> String {
    let mut out = format!("{}\n", answer["error"].as_str().unwrap_or("refused"));
    for problem in answer["problems"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        line(&mut out, problem.trim_end());
    }
    out
}

/// `outrigger drain`.
pub fn drain(report: &Value) -> String {
    if report["draining"] == true {
        return "draining".to_owned();
    }
    let number = |key: &str| report[key].as_u64().unwrap_or(0);
    let mut out = format!("drained in {}: {} finished", milliseconds(number("duration_ms") as f64), number("finished"));
    // Writing to a String does not fail.
    drop(write!(out, ", {} cut", number("cut")));
    if number("websockets_closed") > 0 {
        drop(write!(out, ", {} WebSockets closed", number("websockets_closed")));
    }
    if report["forced"] == true {
        out.push_str(" (ended early by a second signal)");
    }
    out
}

/// `outrigger why`: filled in when the record's form is known.
pub fn why(fate: &Value) -> String {
    serde_json::to_string_pretty(fate).unwrap_or_default()
}

/// `0.41ms`, `12.3ms`, `1.25s`: three digits that matter.
pub fn milliseconds(time: f64) -> String {
    match time {
        t if t < 1.0 => format!("{t:.2}ms"),
        t if t < 100.0 => format!("{t:.1}ms"),
        t if t < 1_000.0 => format!("{t:.0}ms"),
        t if t < 60_000.0 => format!("{:.2}s", t / 1_000.0),
        t => time_words((t / 1_000.0) as u64),
    }
}

fn time(seconds: u64) -> String {
    time_words(seconds)
}

/// `42s`, `3m 5s`, `2h 7m`, `12d 3h`.
fn time_words(seconds: u64) -> String {
    match seconds {
        s if s < 60 => format!("{s}s"),
        s if s < 3_600 => format!("{}m {}s", s / 60, s % 60),
        s if s < 86_400 => format!("{}h {}m", s / 3_600, s % 3_600 / 60),
        s => format!("{}d {}h", s / 86_400, s % 86_400 / 3_600),
    }
}

/// The time of day of an event, UTC.
fn clock(at: f64) -> String {
    let seconds = at as u64 % 86_400;
    format!("{:02}:{:02}:{:02}Z", seconds / 3_600, seconds % 3_600 / 60, seconds % 60)
}
