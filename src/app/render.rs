//! What the admin port answers, for people: aligned, in plain words, most important first.
//! Pure functions from JSON to text, so that each can be looked at in a test.

mod policies;
mod traffic;

use std::fmt::Write;

use serde_json::Value;

use crate::admin::status::{Event, Status};

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

/// How many entries of a list are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// The twenty with most trouble, and how many more there are.
    Worst,
    All,
}

/// `outrigger status`.
pub fn status(value: &Value, shown: Shown) -> String {
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
    traffic::routes(&mut out, &status.routes, shown);
    traffic::reasons(&mut out, &status.reasons, shown);
    traffic::upstreams(&mut out, &status.upstreams, shown);
    policies::rate_limits(&mut out, &status.rate_limits, shown);
    policies::stores(&mut out, &status.stores);
    policies::dependencies(&mut out, &status.dependencies);
    policies::switches(&mut out, &status.switches);
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

/// `1 request`, `2 requests`.
fn count(number: u64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
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
    let (connections, requests) = (count(status.connections, "connection"), count(status.in_flight, "request"));
    line(out, &format!("{connections}, {requests} in flight{upgraded}"));
    if let Some(pid) = status.app {
        line(out, &format!("the app runs as process {pid}"));
    }
}

fn configuration(out: &mut String, status: &Status) {
    let config = &status.config;
    let file = config.file.as_deref().unwrap_or("(none: --upstream)");
    line(
        out,
        &format!(
            "configuration {} from {file}; {}, {} refused",
            config.hash,
            count(config.reloads, "reload"),
            config.refused
        ),
    );
    if config.stale {
        let why = match config.problems.is_empty() {
            true => ": an earlier plan was asked for; `outrigger reload` loads the file again",
            false => ", and is refused:",
        };
        line(out, &format!("STALE: the file says something else than what runs{why}"));
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
    let _ = write!(out, ", {} cut", number("cut")); // a String takes everything
    if number("websockets_closed") > 0 {
        let _ = write!(out, ", {} WebSockets closed", number("websockets_closed"));
    }
    if report["forced"] == true {
        out.push_str(" (ended early by a second signal)");
    }
    out
}

/// `outrigger why`: what became of one request, why, and where its time went.
pub fn why(fate: &Value) -> String {
    let word = |key: &str| fate[key].as_str().unwrap_or_default();
    let milliseconds_of = |value: &Value| milliseconds(value.as_f64().unwrap_or(0.0) * 1e3);
    let status = match fate["status"].as_u64() {
        None | Some(0) => "no answer".to_owned(),
        Some(status) => status.to_string(),
    };
    let mut out = format!(
        "{} {}{}: {status} in {}\n",
        word("method"),
        word("host"),
        word("path"),
        milliseconds_of(&fate["seconds"])
    );
    let reason = if word("reason").is_empty() { String::new() } else { format!(" Reason: {}.", word("reason")) };
    line(&mut out, &format!("{}{reason}", word("words")));
    noted(&mut out, fate);
    out.push('\n');
    let at = fate["started"].as_f64().map(clock).unwrap_or_default();
    for (label, value) in [
        ("request id", word("request_id")),
        ("trace", word("trace_id")),
        ("began", &*at),
        ("client", word("client")),
        ("route", word("route")),
        ("upstream", word("upstream")),
        ("fate", word("fate")),
    ] {
        if !value.is_empty() {
            line(&mut out, &format!("  {label:<12}{value}"));
        }
    }
    attempts(&mut out, fate);
    let phases = fate["phases"].as_object().filter(|phases| !phases.is_empty());
    if let Some(phases) = phases {
        out.push_str("\nwhere the time went\n");
        phases.iter().for_each(|(phase, time)| line(&mut out, &format!("  {phase:<12}{:>8}", milliseconds_of(time))));
    }
    out
}

/// What else is known of a request: each note once, though two attempts may have left the same.
fn noted(out: &mut String, fate: &Value) {
    let mut told: Vec<&str> = Vec::new();
    for note in fate["notes"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if !told.contains(&note) {
            line(out, &format!("note: {note}"));
            told.push(note);
        }
    }
}

fn attempts(out: &mut String, fate: &Value) {
    let Some(attempts) = fate["attempts"].as_array().filter(|attempts| !attempts.is_empty()) else {
        line(out, "\nthe app was not asked");
        return;
    };
    out.push_str("\nattempts\n");
    let mut table = Table::new(&[">", "endpoint", ">after", ">took", "came to", "connection"]);
    for (number, attempt) in attempts.iter().enumerate() {
        let time = |key: &str| milliseconds(attempt[key].as_f64().unwrap_or(0.0) * 1e3);
        let outcome = match (attempt["outcome"].as_str().unwrap_or("?"), attempt["status"].as_u64().unwrap_or(0)) {
            (outcome, 0) => outcome.to_owned(),
            ("answered", status) => status.to_string(),
            (outcome, status) => format!("{status} {outcome}"),
        };
        let connection = if attempt["reused_connection"] == true { "kept alive" } else { "new" };
        let endpoint = attempt["endpoint"].as_str().unwrap_or("?").to_owned();
        table.row([(number + 1).to_string(), endpoint, time("after"), time("seconds"), outcome, connection.to_owned()]);
    }
    table.write(out);
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn columns_are_aligned_and_lines_end_without_blanks() {
        let mut table = Table::new(&["name", ">count", "words"]);
        table.row(["a".to_owned(), "7".to_owned(), "x".to_owned()]);
        table.row(["\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}".to_owned(), "1234567".to_owned(), String::new()]);
        let mut out = String::new();
        table.write(&mut out);
        assert_eq!(out, "  name     count  words\n  a            7  x\n  \u{e4}\u{e4}\u{e4}\u{e4}\u{e4}  1234567\n");
    }

    #[test]
    fn times_have_three_digits_that_matter() {
        let seen: Vec<String> =
            [0.0, 0.412, 12.34, 312.4, 1_250.0, 65_000.0, 7_620_000.0, 1.0e9].map(milliseconds).to_vec();
        assert_eq!(seen, ["0.00ms", "0.41ms", "12.3ms", "312ms", "1.25s", "1m 5s", "2h 7m", "11d 13h"]);
    }

    #[test]
    fn a_status_says_first_what_is_wrong() {
        let text = status(
            &json!({
                "version": "0.1.0", "service": "checkout", "ready": false, "stage": "serving", "uptime_seconds": 3725,
                "waiting_for": ["app: connection refused: nothing listens on 127.0.0.1:3000"],
                "config": { "hash": "abc123", "file": "outrigger.yaml", "stale": true, "problems": ["timeouts.total: 0s"],
                            "reloads": 2, "refused": 1, "plans": ["abc123", "def456"] },
                "listeners": [{ "name": "web", "address": "0.0.0.0:8080" }],
                "connections": 3, "in_flight": 1, "upgraded": 0,
                "routes": [{ "name": "everything", "requests": 10, "failed": 1, "p50_ms": 1.0, "p99_ms": 12.0 }],
                "upstreams": [{ "name": "app", "in_flight": 1, "in_flight_max": 1024, "endpoints": [
                    { "address": "127.0.0.1:3000", "healthy": false, "problem": "connection refused", "breaker": "open",
                      "breaker_retry_ms": 4200 }] }],
                "events": [{ "at": 3661.0, "kind": "breaker", "subject": "127.0.0.1:3000", "words": "open" }],
            }),
            Shown::Worst,
        );
        let expected = "\
outrigger 0.1.0, service checkout: NOT READY, serving, up 1h 2m
  app: connection refused: nothing listens on 127.0.0.1:3000
3 connections, 1 request in flight
configuration abc123 from outrigger.yaml; 2 reloads, 1 refused
STALE: the file says something else than what runs, and is refused:
  timeouts.total: 0s
`reload --to` can go back to def456

listeners
  name  address
  web   0.0.0.0:8080

routes
  name        requests  failed    p50     p90     p99   p99.9     max
  everything        10       1  1.0ms  0.00ms  12.0ms  0.00ms  0.00ms

upstream app: 1 of 1024 requests in flight
  127.0.0.1:3000  UNHEALTHY: connection refused; breaker OPEN, tries again in 4.20s

last events
  time       what     where
  01:01:01Z  breaker  127.0.0.1:3000  open
";
        assert_eq!(text, expected, "\n{text}");
    }

    #[test]
    fn a_fate_tells_its_attempts() {
        let text = why(&json!({
            "request_id": "abc", "started": 3661.5, "method": "GET", "host": "a.example", "path": "/x",
            "client": "192.0.2.1", "route": "everything", "upstream": "app", "status": 200, "fate": "ok",
            "reason": "", "words": "The app answered and the client got all of it.", "seconds": 0.0312,
            "phases": { "attempt": 0.03 }, "trace_id": null,
            "attempts": [
                { "endpoint": "127.0.0.1:3000", "after": 0.0001, "seconds": 0.0002, "status": 0,
                  "outcome": "connect_refused", "reused_connection": false },
                { "endpoint": "127.0.0.1:3000", "after": 0.02, "seconds": 0.01, "status": 200, "outcome": "answered",
                  "reused_connection": true }],
        }));
        assert!(text.starts_with("GET a.example/x: 200 in 31.2ms\nThe app answered"), "{text}");
        assert!(text.contains("  1  127.0.0.1:3000  0.10ms  0.20ms  connect_refused  new\n"), "{text}");
        assert!(text.contains("  2  127.0.0.1:3000  20.0ms  10.0ms  200              kept alive\n"), "{text}");
        assert!(!text.contains("trace") && !text.contains("note"), "{text}");
    }

    #[test]
    fn a_fate_tells_each_note_once() {
        let text = why(&json!({
            "method": "GET", "host": "a", "path": "/x", "status": 502, "words": "No endpoint took it.", "reason": "reset",
            "seconds": 0.001, "notes": ["held for 2s while app did not listen", "b: too long", "b: too long"],
        }));
        let expected =
            "No endpoint took it. Reason: reset.\nnote: held for 2s while app did not listen\nnote: b: too long\n\n";
        assert!(text.contains(expected), "{text}");
    }

    #[test]
    fn a_diff_says_what_is_added_removed_and_changed() {
        let text = diff(&json!({ "hash": "b", "running": "a", "notes": [], "changes": [
            { "path": "routes.api", "what": "added", "needs_restart": false },
            { "path": "admin", "what": "changed", "needs_restart": true }] }));
        assert_eq!(text, "running a, file b\n  + routes.api\n  ~ admin  (after a restart)\n");
        assert_eq!(diff(&json!({ "hash": "a", "running": "a", "changes": [] })), "no difference\n");
    }
}
