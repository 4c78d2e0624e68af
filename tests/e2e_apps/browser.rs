//! Chromium: a page with a script, fetches, an EventSource and a WebSocket, which posts what it saw back to the app.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::python::uvicorn;
use crate::support::tools::{self, Running};
use crate::support::{DEADLINE, Outrigger, config};
use crate::with_tls;

const FLAGS: &str = "--headless --no-sandbox --disable-gpu --disable-dev-shm-usage --disable-quic --no-first-run \
    --disable-background-networking --disable-component-update --disable-default-apps --disable-extensions --disable-sync \
    --no-proxy-server --ignore-certificate-errors --remote-debugging-port=0";

/// Opens the page; what it reported to the app, which reports number `count` so far.
fn visit(app: &Running, profile: &Path, url: &str, count: usize) -> Value {
    let mut command = Command::new("timeout");
    command.args(["60", "chromium"]).args(FLAGS.split_whitespace());
    command.arg(format!("--user-data-dir={}", profile.display())).arg(format!("{url}/page"));
    let _chromium = Running::start_family(&mut command);
    let seen = std::cell::Cell::new(0);
    let mut report = app.stdout.find_within(DEADLINE * 4, "the report of the page", |line| {
        let report = serde_json::from_str::<Value>(line.strip_prefix("report ")?).ok()?;
        seen.set(seen.get() + 1);
        (seen.get() > count).then_some(report)
    });
    // The app counts events from its start.
    let events = report["events"].as_array().map_or(0, Vec::len);
    report["events"] = events.into();
    report
}

#[test]
fn a_page_works_the_same_directly_and_through() {
    if !tools::have_tool("chromium") {
        return;
    }
    let Some(app) = uvicorn() else { return };
    let address = app.address();
    let profile = tempfile::tempdir().expect("a directory");
    let direct = visit(&app, profile.path(), &format!("http://{address}"), 0);
    assert_eq!((&direct["failed"], &direct["protocol"]), (&Value::Null, &"http/1.1".into()), "{direct}");
    assert_eq!(direct["events"], 4, "{direct}");
    assert_eq!(direct["socket"], serde_json::json!(["hello", "echo", 700_000, 1000, true]), "{direct}");
    let outrigger = Outrigger::run(config(address, ""));
    let through = visit(&app, profile.path(), &format!("http://{}", outrigger.web()), 1);
    assert_eq!(through, direct);
    let (outrigger, _) = with_tls(address);
    let mut secure = visit(&app, profile.path(), &format!("https://{}", outrigger.web()), 2);
    assert_eq!(secure["protocol"], "h2", "{secure}");
    secure["protocol"] = "http/1.1".into();
    assert_eq!(secure, direct);
}
