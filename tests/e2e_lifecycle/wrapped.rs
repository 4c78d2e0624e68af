//! `outrigger run … -- node server.js`: one process owns the order.

use std::net::TcpListener;

use crate::support::{Launch, Outrigger, Wire, config, eventually, tools, wire};

/// Of all addresses of this machine, the one that only these tests use: no client's port can be taken there.
const HOST: &str = "127.0.0.77";

/// A port that was free a moment ago; the app will have it.
fn free_port() -> u16 {
    TcpListener::bind((HOST, 0)).and_then(|listener| listener.local_addr()).expect("a port").port()
}

fn wrapped(arguments: &[&str], extra: &str) -> Option<Launch> {
    if !tools::have_tool("node") {
        return None;
    }
    let port = free_port();
    let script = tools::script("server.js");
    let command = ["node", script.to_str().expect("a path")];
    let launch = Launch::new(config(format!("{HOST}:{port}"), extra)).environment("EXPECTED_PORT", port.to_string());
    Some(launch.environment("HOST", HOST).wrap(command.iter().chain(arguments).copied()))
}

fn ready(outrigger: &Outrigger) {
    let ops = outrigger.address("ops");
    outrigger.wait_for_output("the app's own words", "port ");
    eventually("ready", || (wire::get(ops, "/readyz").status == 200).then_some(()));
}

#[test]
fn the_app_gets_its_port_its_arguments_and_its_environment() {
    let Some(launch) = wrapped(&["normal", "0", "two words", "$HOME", "--flag"], "") else { return };
    let mut outrigger = launch.environment("OUTRIGGER_ADMIN_TOKEN_X", "kept").start();
    ready(&outrigger);
    let answer = wire::get(outrigger.web(), "/environment");
    let told = answer.json();
    assert_eq!(told["environment"]["PORT"], told["environment"]["EXPECTED_PORT"], "{told:#}");
    assert_eq!(told["arguments"], serde_json::json!(["normal", "0", "two words", "$HOME", "--flag"]));
    assert_eq!(outrigger.status()["app"], told["pid"]);
    outrigger.terminate();
    assert_eq!(outrigger.wait().code(), Some(0));
}

#[test]
fn the_drain_comes_before_the_apps_sigterm() {
    let Some(launch) = wrapped(&["normal", "5"], "") else { return };
    let mut outrigger = launch.start();
    ready(&outrigger);
    let mut client = Wire::connect(outrigger.web());
    client.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    outrigger.wait_for_output("it has begun", "app: slow begun");
    outrigger.terminate();
    let answer = client.response("GET");
    assert_eq!((answer.status, answer.text().as_str()), (200, "slow"));
    assert_eq!(outrigger.wait().code(), Some(5), "the app's code");
    let output = outrigger.stdout();
    let place = |words: &str| output.find(words).unwrap_or_else(|| panic!("{words:?} is missing in\n{output}"));
    assert!(place("app: slow done") < place("app: SIGTERM"), "{output}");
    assert_eq!(outrigger.drain_report()["cut"], 0);
}

#[test]
fn an_app_that_ends_by_itself_ends_us_with_its_code() {
    let Some(launch) = wrapped(&["fail", "3"], "") else { return };
    let mut outrigger = launch.start();
    assert_eq!(outrigger.wait().code(), Some(3));
    assert!(outrigger.stdout().contains("failing at once"));
    let Some(launch) = wrapped(&[], "") else { return };
    let mut outrigger = launch.start();
    ready(&outrigger);
    let answer = wire::get(outrigger.web(), "/crash");
    assert!([502, 503].contains(&answer.status), "{}", answer.status);
    assert_eq!(outrigger.wait().code(), Some(7));
}

#[test]
fn readiness_waits_for_the_app() {
    let Some(launch) = wrapped(&[], "") else { return };
    let mut outrigger = launch.environment("START_AFTER_MS", "700").start();
    let ops = outrigger.address("ops");
    assert_eq!(wire::get(ops, "/livez").status, 200);
    assert_eq!(wire::get(ops, "/readyz").status, 503, "the app does not listen yet");
    ready(&outrigger);
    assert_eq!(wire::get(outrigger.web(), "/x").text(), "GET /x");
    outrigger.terminate();
    assert_eq!(outrigger.wait().code(), Some(0));
}

#[test]
fn an_app_that_ignores_sigterm_is_killed_at_the_second_signal() {
    let Some(launch) = wrapped(&["stubborn"], "") else { return };
    let mut outrigger = launch.start();
    ready(&outrigger);
    let app = outrigger.status()["app"].as_u64().expect("its process");
    outrigger.terminate();
    outrigger.wait_for_output("the app is told", "app: SIGTERM");
    outrigger.terminate();
    outrigger.wait();
    assert!(!std::path::Path::new(&format!("/proc/{app}")).exists(), "the app lives on");
    let log = outrigger.stderr();
    let place = |words: &str| log.find(words).unwrap_or_else(|| panic!("{words:?} is missing in\n{log}"));
    assert!(place("drain report") < place("the app did not end after SIGTERM"), "{log}");
}

#[test]
fn a_command_that_does_not_exist_is_told() {
    let mut outrigger = Launch::new(config("127.0.0.1:1", "")).wrap(["/nonexistent/app"]).start();
    assert_eq!(outrigger.wait().code(), Some(127));
    assert!(outrigger.stderr().contains("/nonexistent/app"), "{}", outrigger.stderr());
}

#[test]
fn a_bad_file_ends_before_the_app_starts() {
    let directory = tempfile::tempdir().expect("a directory");
    let trace = directory.path().join("started");
    let script = format!("touch {}", trace.display());
    let mut outrigger = Launch::new("upstreem: x\n").wrap(["sh", "-c", &script]).start();
    assert_eq!(outrigger.wait().code(), Some(2));
    assert!(!trace.exists(), "the app was started");
}

#[test]
fn a_reload_leaves_the_app_alone() {
    let Some(launch) = wrapped(&[], "") else { return };
    let mut outrigger = launch.start();
    ready(&outrigger);
    let app = outrigger.status()["app"].clone();
    outrigger.signal(rustix::process::Signal::HUP);
    outrigger
        .wait_for_log("the reload", |line| line["message"].as_str().is_some_and(|text| text.starts_with("reload")));
    assert_eq!(wire::get(outrigger.web(), "/x").text(), "GET /x");
    assert_eq!(outrigger.status()["app"], app);
    outrigger.terminate();
    assert_eq!(outrigger.wait().code(), Some(0));
}
