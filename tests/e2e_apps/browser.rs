//! Chromium: a page with a script, fetches, an EventSource and a WebSocket, which posts what it saw back to the app.

use std::process::Command;

use serde_json::Value;

use crate::python::uvicorn;
use crate::support::tools::{self, Running};
use crate::support::{DEADLINE, Outrigger, config, eventually};
use crate::with_tls;

const FLAGS: &str = "--headless --no-sandbox --disable-gpu --disable-dev-shm-usage --disable-quic --no-first-run \
    --disable-background-networking --disable-component-update --disable-default-apps --disable-extensions --disable-sync \
    --no-proxy-server --ignore-certificate-errors --remote-debugging-port=0";

/// The reports of the pages so far. The app counts events from its start, so that only their number can be compared.
fn reports(app: &Running) -> Vec<Value> {
    let text = app.stdout.text();
    let reports = text.lines().filter_map(|line| serde_json::from_str(line.strip_prefix("report ")?).ok());
    let counted = reports.map(|mut report: Value| {
        report["events"] = report["events"].as_array().map_or(0, Vec::len).into();
        report
    });
    counted.collect()
}

#[test]
fn a_page_works_the_same_directly_and_through() {
    if !tools::have_tool("chromium") {
        return;
    }
    let Some(app) = uvicorn() else { return };
    let address = app.address();
    let (plain, (secure, _)) = (Outrigger::run(config(address, "")), with_tls(address));
    let profile = tempfile::tempdir().expect("a directory");
    let mut command = Command::new("timeout");
    command.args(["90", "chromium"]).args(FLAGS.split_whitespace());
    command.arg(format!("--user-data-dir={}", profile.path().display()));
    command.arg(format!("http://{address}/page#http://{},https://{}", plain.web(), secure.web()));
    let chromium = Running::start_family(&mut command);
    app.stdout.find_within(DEADLINE * 6, "the first report", |line| line.starts_with("report ").then_some(()));
    let reports = eventually("three reports", || Some(reports(&app)).filter(|reports| reports.len() == 3));
    drop(chromium);
    let [direct, through, mut over_tls] = <[Value; 3]>::try_from(reports).expect("three");
    assert_eq!((&direct["failed"], &direct["protocol"]), (&Value::Null, &"http/1.1".into()), "{direct}");
    assert_eq!(direct["events"], 4, "{direct}");
    assert_eq!(direct["socket"], serde_json::json!(["hello", "echo", 700_000, 1000, true]), "{direct}");
    assert_eq!(through, direct);
    assert_eq!(over_tls["protocol"], "h2", "{over_tls}");
    over_tls["protocol"] = "http/1.1".into();
    assert_eq!(over_tls, direct);
}
