//! Maintenance, read-only mode and flags: from the file and by command, and that no command is for ever.

use std::process::Command;

use crate::support::{Outrigger, RawApp, config, eventually, wire};

/// A verb of the same binary, asked of this instance: its exit code and what it said.
fn verb(outrigger: &Outrigger, words: &[&str]) -> (i32, String) {
    let mut command = Command::new(crate::support::process::binary());
    command.args(words).args(["--admin", &outrigger.address("admin").to_string()]).env("USER", "ann");
    let output = command.output().expect("the verb runs");
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&text).into_owned())
}

fn reason(outrigger: &Outrigger, request: &str) -> (u16, String) {
    let answer = wire::ask(outrigger.web(), request);
    (answer.status, if answer.status == 200 { String::new() } else { answer.reason() })
}

fn get(outrigger: &Outrigger, path: &str) -> (u16, String) {
    reason(outrigger, &format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"))
}

const POST: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n";

fn refused(reason: &str) -> (u16, String) {
    (503, reason.to_owned())
}

fn well() -> (u16, String) {
    (200, String::new())
}

#[test]
fn a_command_closes_the_service_and_opens_it_again() {
    let app = RawApp::fine();
    let outrigger = Outrigger::before(&app, "");
    let (code, said) = verb(&outrigger, &["maintenance", "on", "--for", "30m", "--why", "new disks"]);
    assert_eq!(code, 0, "{said}");
    assert!(
        said.starts_with("maintenance: on until ") && said.trim_end().ends_with("then off as the file says"),
        "{said}"
    );
    let answer = wire::get(outrigger.web(), "/");
    assert_eq!((answer.status, answer.reason()), (503, "maintenance".to_owned()));
    assert_eq!(answer.get("retry-after"), Some("60"));
    assert_eq!(answer.get("content-type"), Some("application/problem+json"));
    assert!(app.requests().is_empty());
    let status = outrigger.status();
    assert_eq!(status["ready"], true, "whoever balances load must keep sending, or nobody sees the page");
    assert_eq!(status["switches"][0]["by"], "ann");
    assert_eq!(status["switches"][0]["why"], "new disks");
    let events = status["events"].as_array().expect("events").clone();
    let event = events.iter().find(|event| event["kind"] == "maintenance").expect("an event");
    assert!(event["words"].as_str().expect("words").starts_with("on by ann until "), "{event}");
    assert_eq!(outrigger.metric("outrigger_switch_position", "kind=\"service\""), 2.0);
    assert_eq!(verb(&outrigger, &["maintenance", "off"]).0, 0);
    assert_eq!(get(&outrigger, "/"), well());
}

#[test]
fn a_command_ends_by_itself() {
    let app = RawApp::fine();
    let outrigger = Outrigger::before(&app, "");
    verb(&outrigger, &["maintenance", "on", "--for", "1s"]);
    assert_eq!(get(&outrigger, "/"), refused("maintenance"));
    eventually("the order expires", || (get(&outrigger, "/") == well()).then_some(()));
    eventually("its end is an event", || {
        let status = outrigger.status();
        let events = status["events"].as_array().expect("events").clone();
        events
            .iter()
            .any(|event| event["words"].as_str().is_some_and(|words| words.contains("has expired")))
            .then_some(())
    });
}

#[test]
fn read_only_lets_readers_in() {
    let app = RawApp::fine();
    let outrigger = Outrigger::before(&app, "maintenance: { mode: read_only, message: \"moving <house>\" }\n");
    assert_eq!(get(&outrigger, "/"), well());
    assert_eq!(reason(&outrigger, POST), refused("read_only"));
    let page = wire::ask(outrigger.web(), POST.replace("Host: a", "Host: a\r\nAccept: text/html"));
    assert!(page.text().contains("moving &lt;house&gt;"), "{}", page.text());
    let problem = wire::ask(outrigger.web(), POST);
    assert_eq!(problem.json()["detail"], "moving <house>");
    verb(&outrigger, &["maintenance", "off"]);
    assert_eq!(reason(&outrigger, POST), well());
    verb(&outrigger, &["maintenance", "auto"]);
    assert_eq!(reason(&outrigger, POST), refused("read_only"));
}

#[test]
fn those_who_work_on_it_are_let_in() {
    let app = RawApp::fine();
    let outrigger = Outrigger::before(&app, "maintenance: { mode: on, allow: [192.0.2.0/24] }\n");
    assert_eq!(get(&outrigger, "/"), refused("maintenance"));
    assert_eq!(verb(&outrigger, &["maintenance", "on", "--allow", "127.0.0.0/8"]).0, 0);
    assert_eq!(get(&outrigger, "/"), well());
    let (code, said) = verb(&outrigger, &["maintenance", "on", "--allow", "nobody"]);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("\"nobody\" is no network"), "{said}");
}

fn flagged(app: &RawApp) -> String {
    let routes = "flags: { reports: true }\nroutes:\n  - { name: reports, match: { path: \"/reports/*\" }, flag: reports }\n  \
                  - { name: rest, match: { path: \"/*\" } }\n";
    config(app.address(), routes)
}

#[test]
fn a_flag_switches_its_routes() {
    let app = RawApp::fine();
    let outrigger = Outrigger::run(flagged(&app));
    assert_eq!(get(&outrigger, "/reports/1"), well());
    let (code, said) = verb(&outrigger, &["flag", "set", "reports", "off", "--why", "slow queries"]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(get(&outrigger, "/reports/1"), refused("route_disabled"));
    assert_eq!(get(&outrigger, "/"), well());
    // A reload leaves what was commanded.
    outrigger.write_config(&flagged(&app).replace("name: rest", "name: others"));
    outrigger.status_until("it is taken up", |status| status["routes"].to_string().contains("others"));
    assert_eq!(get(&outrigger, "/reports/1"), refused("route_disabled"));
    verb(&outrigger, &["flag", "clear", "reports"]);
    assert_eq!(get(&outrigger, "/reports/1"), well());
    let (code, said) = verb(&outrigger, &["flag", "set", "report", "off"]);
    assert_eq!(code, 2);
    assert!(said.contains("there is no flag \"report\"; there is reports"), "{said}");
}

#[test]
fn one_route_is_closed_by_command() {
    let app = RawApp::fine();
    let outrigger = Outrigger::run(flagged(&app));
    assert_eq!(verb(&outrigger, &["maintenance", "on", "--route", "reports"]).0, 0);
    assert_eq!(get(&outrigger, "/reports/1"), refused("maintenance"));
    assert_eq!(get(&outrigger, "/"), well());
}
