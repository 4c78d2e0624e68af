//! Drains. Goal: what was asked before the ports closed is answered, and the report says exactly what happened.

use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Sender};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::app::OK;
use crate::support::load::{self, Load, Mix};
use crate::support::{BodyEnd, DEADLINE, End, Launch, Outrigger, RawApp, Wire, config, eventually, tools, wire};

/// Answers at once, but `/held` when told, and `/endless` never ends.
fn holding() -> (RawApp, Sender<()>) {
    let (go, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let app = RawApp::start(move |mut conn| {
        while let Some(request) = conn.request() {
            match request.target() {
                "/held" => {
                    let _ = wait.lock().expect("lock").recv_timeout(DEADLINE * 2);
                }
                "/endless" => {
                    conn.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n");
                    conn.into_slow().wait_for_the_end();
                    return;
                }
                _ => {}
            }
            conn.send(OK);
        }
    });
    (app, go)
}

fn asking(outrigger: &Outrigger, path: &str) -> Wire {
    let mut client = Wire::connect(outrigger.web());
    client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
    client
}

#[test]
fn a_drain_under_load_fails_nobody() {
    let app = load::app();
    let mut outrigger = Outrigger::run(config(app, "drain: { delay: 500ms, timeout: 10s }\n"));
    let load = Load::start(outrigger.web(), Mix::default());
    load.flows(1000);
    load.expect_the_end();
    outrigger.terminate();
    let seen = load.ended();
    assert!(outrigger.wait().success());
    let report = outrigger.drain_report();
    assert_eq!(seen.failed(), Vec::<String>::new(), "{report}");
    assert_eq!(seen.goodbyes.load(Ordering::SeqCst), 5, "every WebSocket was told goodbye");
    assert_eq!((&report["cut"], &report["forced"]), (&0.into(), &false.into()), "{report}");
    assert_eq!(report["websockets_closed"], 5, "{report}");
    eprintln!("raced: {}, {report}", seen.raced.load(Ordering::SeqCst));
    assert_eq!(seen.raced.load(Ordering::SeqCst), 0, "requests met a connection that was being closed");
}

#[test]
fn the_reports_counts_are_the_clients() {
    // The load begins when the drain has, so that each of its answers is one that the drain has finished.
    let app = load::app();
    let mut outrigger = Outrigger::run(config(app, "drain: { delay: 1500ms, timeout: 10s }\n"));
    outrigger.terminate();
    outrigger.status_until("it drains", |status| status["stage"] != "serving");
    let load = Load::start(outrigger.web(), Mix::default());
    load.expect_the_end();
    let seen = load.ended();
    assert!(outrigger.wait().success());
    let report = outrigger.drain_report();
    assert_eq!(seen.failed(), Vec::<String>::new(), "{report}");
    let frames = seen.by_lane().remove("websocket").unwrap_or_default();
    let goodbyes = seen.goodbyes.load(Ordering::SeqCst);
    assert_eq!(report["finished"], seen.good() - frames + goodbyes, "{report} {:?}", seen.by_lane());
    assert_eq!((&report["websockets_closed"], goodbyes), (&5.into(), 5), "{report}");
    assert_eq!(report["cut"], 0, "{report}");
    assert!(seen.good() > 100, "that was no load: {}", seen.good());
}

#[test]
fn the_report_is_exact() {
    // Five in flight when the signal comes, three more while it still accepts: eight finished, none cut.
    let (app, go) = holding();
    let mut outrigger = Outrigger::before(&app, "drain: { delay: 1s, timeout: 10s }\n");
    for _ in 0..4 {
        assert_eq!(wire::get(outrigger.web(), "/before").status, 200);
    }
    outrigger.idle();
    let mut held: Vec<Wire> = (0..5).map(|_| asking(&outrigger, "/held")).collect();
    app.wait_for_requests(9);
    outrigger.terminate();
    outrigger.status_until("it drains", |status| status["stage"] != "serving");
    assert_eq!(outrigger.ops("/readyz").status, 503, "not ready");
    assert_eq!(outrigger.ops("/livez").status, 200, "but alive");
    for _ in 0..3 {
        assert_eq!(wire::get(outrigger.web(), "/during").status, 200, "still accepting");
    }
    for _ in &held {
        go.send(()).expect("the app waits");
    }
    for client in &mut held {
        let answer = client.response("GET");
        assert_eq!((answer.status, answer.end), (200, BodyEnd::Whole));
    }
    assert!(outrigger.wait().success());
    let report = outrigger.drain_report();
    assert_eq!(
        (&report["finished"], &report["cut"], &report["forced"]),
        (&8.into(), &0.into(), &false.into()),
        "{report}"
    );
    assert!(report["duration_ms"].as_u64().is_some_and(|took| (1000..9000).contains(&took)), "{report}");
}

#[test]
fn answers_say_close_and_idle_connections_end() {
    let (app, go) = holding();
    let mut outrigger = Outrigger::before(&app, "");
    let mut idle = asking(&outrigger, "/");
    assert_eq!(idle.response("GET").status, 200);
    let silent = Wire::connect(outrigger.web());
    let mut held = asking(&outrigger, "/held");
    app.wait_for_requests(2);
    outrigger.terminate();
    assert_eq!(idle.rest(), (Vec::new(), End::Closed), "an idle connection is closed, not reset");
    let mut silent = silent;
    assert_eq!(silent.rest().1, End::Closed);
    eventually("the port is closed", || TcpStream::connect(outrigger.web()).is_err().then_some(()));
    go.send(()).expect("the app waits");
    let answer = held.response("GET");
    assert_eq!((answer.status, answer.get("connection")), (200, Some("close")));
    assert_eq!(held.rest().1, End::Closed);
    assert!(outrigger.wait().success());
}

#[test]
fn what_does_not_end_is_cut_and_counted() {
    let (app, _go) = holding();
    let mut outrigger = Outrigger::before(&app, "drain: { delay: 0s, timeout: 500ms }\n");
    let mut held = asking(&outrigger, "/held");
    let mut endless = asking(&outrigger, "/endless");
    endless.until(b"1\r\nx\r\n").expect("it has begun");
    app.wait_for_requests(2);
    outrigger.terminate();
    // A body that was cut may not look whole.
    let (rest, end) = endless.rest();
    assert!(!rest.ends_with(b"0\r\n\r\n") && end != End::Deadline, "{end:?} {rest:?}");
    // Whoever has no answer yet is told why there will be none, and that trying again may help.
    let answer = held.response("GET");
    assert_eq!((answer.status, answer.reason().as_str()), (503, "drain_cut"));
    assert_eq!((answer.get("connection"), answer.get("retry-after")), (Some("close"), Some("1")));
    assert_ne!(held.rest().1, End::Deadline);
    assert!(outrigger.wait().code().is_some());
    let report = outrigger.drain_report();
    assert_eq!(
        (&report["finished"], &report["cut"], &report["forced"]),
        (&0.into(), &2.into(), &false.into()),
        "{report}"
    );
    let line = outrigger.wait_for_access("the cut stream", |line| line.to_string().contains("/endless"));
    assert!(!line.to_string().contains("\"fate\":\"ok\""), "{line}");
    let line = outrigger.wait_for_access("the refused request", |line| line.to_string().contains("/held"));
    assert_eq!((&line["reason"], &line["http.response.status_code"]), (&"drain_cut".into(), &503.into()), "{line}");
}

#[test]
fn a_second_signal_ends_at_once() {
    for second in [Signal::TERM, Signal::INT] {
        let (app, _go) = holding();
        let mut outrigger = Outrigger::before(&app, "drain: { delay: 20s, timeout: 20s }\n");
        let mut held = asking(&outrigger, "/held");
        app.wait_for_requests(1);
        outrigger.terminate();
        outrigger.status_until("it drains", |status| status["stage"] != "serving");
        let begun = Instant::now();
        outrigger.signal(second);
        outrigger.wait();
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        let report = outrigger.drain_report();
        assert_eq!((&report["cut"], &report["forced"]), (&1.into(), &true.into()), "{report}");
        assert_ne!(held.rest().1, End::Deadline);
    }
}

#[test]
fn ctrl_c_does_not_wait_for_balancers() {
    // Under an orchestrator SIGTERM would wait five seconds.
    let (app, _go) = holding();
    let launch = Launch::new(config(app.address(), "drain: { timeout: 5s }\n"));
    let mut outrigger = launch.environment("KUBERNETES_SERVICE_HOST", "10.0.0.1").start();
    outrigger.web();
    let begun = Instant::now();
    outrigger.signal(Signal::INT);
    assert!(outrigger.wait().success());
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
}

#[test]
fn the_verb_drains_and_tells() {
    let (app, go) = holding();
    let mut outrigger = Outrigger::before(&app, "");
    let mut held = asking(&outrigger, "/held");
    app.wait_for_requests(1);
    let admin = outrigger.address("admin").to_string();
    let verb = std::thread::spawn(move || tools::outrigger(["drain", "--wait", "--output", "json", "--admin", &admin]));
    eventually("the port is closed", || TcpStream::connect(outrigger.web()).is_err().then_some(()));
    go.send(()).expect("the app waits");
    assert_eq!(held.response("GET").status, 200);
    let output = verb.join().expect("the verb");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((&told["finished"], &told["cut"]), (&1.into(), &0.into()), "{told}");
    assert!(outrigger.wait().success());
}

#[test]
fn a_signal_during_the_start_is_not_lost() {
    // Many short lives: SIGTERM as soon as the first line is out. It always ends, and soon.
    let app = RawApp::fine();
    for _ in 0..10 {
        let mut outrigger = Launch::new(config(app.address(), "")).start();
        outrigger.wait_for_log("a first line", |_| true);
        outrigger.terminate();
        assert!(outrigger.wait().code() == Some(0), "{}", outrigger.stderr());
    }
}

#[test]
fn requests_in_the_backlog_are_answered() {
    // Connections made while the process is too busy to accept: stopped by a signal, told to end, and continued.
    let app = RawApp::fine();
    let mut outrigger = Outrigger::before(&app, "");
    outrigger.signal(Signal::STOP);
    let mut waiting: Vec<Wire> = (0..20).map(|_| asking(&outrigger, "/")).collect();
    outrigger.terminate();
    outrigger.signal(Signal::CONT);
    for client in &mut waiting {
        assert_eq!(client.response("GET").status, 200);
    }
    assert!(outrigger.wait().success());
    assert_eq!(outrigger.drain_report()["cut"], 0);
}

#[test]
fn an_upload_in_flight_is_finished() {
    let app = RawApp::fine();
    let mut outrigger = Outrigger::before(&app, "");
    let mut client = Wire::connect(outrigger.web());
    client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n{}", "x".repeat(100_000)));
    outrigger.status_until("it is in flight", |status| status["in_flight"] == 1);
    outrigger.terminate();
    eventually("the port is closed", || TcpStream::connect(outrigger.web()).is_err().then_some(()));
    client.send("x".repeat(100_000));
    assert_eq!(client.response("POST").status, 200);
    assert!(outrigger.wait().success());
    assert_eq!(app.only_request().body.len(), 200_000);
    assert_eq!(outrigger.drain_report()["finished"], 1);
}
