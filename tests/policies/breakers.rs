//! Circuit breakers on two levels: what opens which, and how they close.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::support::app::OK;
use crate::support::{Outrigger, RawApp, config, eventually, wire};

const UNAVAILABLE: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";

/// An app whose `/bad` answers 503 while it is ill, and everything else is fine.
fn app(ill: &Arc<AtomicBool>) -> RawApp {
    let ill = Arc::clone(ill);
    RawApp::start(move |mut conn| {
        while let Some(request) = conn.request() {
            let bad = request.target() != "/good" && ill.load(Ordering::SeqCst);
            conn.send(if bad { UNAVAILABLE } else { OK });
        }
    })
}

fn ill() -> Arc<AtomicBool> {
    Arc::new(AtomicBool::new(true))
}

fn two_routes(app: &RawApp, upstream: &str) -> String {
    config(
        "",
        &format!(
            "upstreams: {{ app: {{ endpoints: [\"http://{}\"], {upstream} }} }}\nretry: {{ attempts: 1 }}\n\
             routes:\n  - {{ name: good, match: {{ path: /good }} }}\n  - {{ name: bad, match: {{ path: \"/*\" }} }}\n",
            app.address()
        ),
    )
}

fn until_open(outrigger: &Outrigger) -> usize {
    let mut answered = 0;
    loop {
        let answer = wire::get(outrigger.web(), "/bad");
        if answer.get("content-type") == Some("application/problem+json") {
            assert_eq!(answer.reason(), "breaker_open");
            return answered;
        }
        answered += 1;
        assert!(answered < 100, "it does not open");
    }
}

#[test]
fn failing_answers_open_the_route_and_leave_the_others() {
    let app = app(&ill());
    let outrigger = Outrigger::run(two_routes(&app, "circuit_breaker: { consecutive_failures: 3 }"));
    assert_eq!(until_open(&outrigger), 3);
    assert_eq!(wire::get(outrigger.web(), "/good").status, 200);
    let status = outrigger.status();
    assert_eq!(status["upstreams"][0]["endpoints"][0]["breaker"], "closed");
    assert_eq!(status["upstreams"][0]["routes"][0]["route"], "bad");
    assert_eq!(status["upstreams"][0]["routes"][0]["breaker"], "open");
    let event = status["events"].as_array().expect("events").iter().find(|event| event["kind"] == "breaker");
    let words = event.expect("an event")["words"].as_str().expect("words");
    assert!(words.starts_with("breaker open (was closed): 3 failures in a row"), "{words}");
    assert_eq!(outrigger.metric("outrigger_breaker_state", "route=\"bad\""), 2.0);
    assert_eq!(outrigger.metric("outrigger_breaker_opened_total", "route=\"bad\""), 1.0);
    assert!(outrigger.metric("outrigger_breaker_refused_total", "route=\"bad\"") >= 1.0);
}

#[test]
fn an_open_breaker_answers_at_once() {
    let app = app(&ill());
    let outrigger = Outrigger::run(two_routes(&app, "circuit_breaker: { consecutive_failures: 1 }"));
    until_open(&outrigger);
    let began = Instant::now();
    for _ in 0..50 {
        assert_eq!(wire::get(outrigger.web(), "/bad").status, 503);
    }
    // A bound for a busy machine in a debug build; the figure itself is in tests/faults.rs.
    assert!(began.elapsed().as_millis() < 2500, "{:?}", began.elapsed());
    assert_eq!(app.requests().len(), 1);
}

#[test]
fn shadow_mode_tells_and_lets_everything_through() {
    let app = app(&ill());
    let outrigger = Outrigger::run(two_routes(&app, "circuit_breaker: { mode: shadow, consecutive_failures: 3 }"));
    for _ in 0..10 {
        assert_eq!(wire::get(outrigger.web(), "/bad").status, 503);
    }
    assert_eq!(app.requests().len(), 10);
    assert_eq!(outrigger.metric("outrigger_breaker_refused_total", "route=\"bad\""), 7.0);
}

#[test]
fn a_share_of_failures_opens_it() {
    let flip = AtomicBool::new(false);
    let app = RawApp::start(move |mut conn| {
        while conn.request().is_some() {
            conn.send(if flip.fetch_xor(true, Ordering::SeqCst) { UNAVAILABLE } else { OK });
        }
    });
    let outrigger = Outrigger::run(two_routes(&app, "circuit_breaker: { volume_min: 10 }"));
    assert_eq!(until_open(&outrigger), 10);
}

#[test]
fn slow_calls_open_it() {
    let app = RawApp::fine();
    let slow = "circuit_breaker: { volume_min: 10, slow_call: { rate: 100%, duration: 0ms } }";
    let outrigger = Outrigger::run(two_routes(&app, slow));
    assert_eq!(until_open(&outrigger), 10);
}

#[test]
fn an_impatient_client_opens_nothing() {
    let app = RawApp::start(|mut conn| {
        while let Some(request) = conn.request() {
            if request.target() == "/good" {
                conn.send(OK);
            }
        }
    });
    let outrigger = Outrigger::run(two_routes(&app, "circuit_breaker: { consecutive_failures: 2 }"));
    for _ in 0..5 {
        let impatient = "GET /bad HTTP/1.1\r\nHost: a\r\nx-request-timeout-ms: 20\r\n\r\n";
        assert_eq!(wire::ask(outrigger.web(), impatient).reason(), "total_timeout");
    }
    assert_eq!(outrigger.metric("outrigger_breaker_opened_total", "route=\"bad\""), 0.0);
}

#[test]
fn a_health_check_that_recovers_closes_it_early_and_without_a_ramp() {
    let ill = ill();
    let app = app(&ill);
    let upstream = "circuit_breaker: { consecutive_failures: 3, open_for: { base: 60s, max: 60s } }, health_check: { path: /health, interval: 100ms }";
    let outrigger = Outrigger::run(two_routes(&app, upstream));
    outrigger.status_until("it is unhealthy", |status| status["upstreams"][0]["endpoints"][0]["healthy"] == false);
    until_open(&outrigger);
    ill.store(false, Ordering::SeqCst);
    eventually("it answers again", || (wire::get(outrigger.web(), "/bad").status == 200).then_some(()));
    for _ in 0..20 {
        assert_eq!(wire::get(outrigger.web(), "/bad").status, 200);
    }
}

#[test]
fn a_client_that_never_ends_its_test_request_keeps_nobody_out() {
    let ill = ill();
    let app = app(&ill);
    let breaker = "circuit_breaker: { consecutive_failures: 3, open_for: { base: 300ms, max: 300ms } }";
    let outrigger = Outrigger::run(two_routes(&app, breaker));
    until_open(&outrigger);
    ill.store(false, Ordering::SeqCst);
    // Bodies that do not come, again and again among others: whichever becomes the test request never has a result.
    let (mut stuck, mut round) = (Vec::new(), 0);
    eventually("it lets others through", || {
        if round % 4 == 0 {
            let mut wire = wire::Wire::connect(outrigger.web());
            let length = 10 * 1024 * 1024;
            let part = "x".repeat(100_000);
            wire.send(format!("POST /bad HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{part}"));
            stuck.push(wire);
        }
        round += 1;
        (wire::get(outrigger.web(), "/bad").status == 200).then_some(())
    });
}

#[test]
fn one_address_that_fails_by_itself_closes_nothing_for_others() {
    // Goal: one client with one failing address cannot take the route from everybody. Method: in each round the bad
    // address is asked for more often than the good one, and more often in all than any rule of the breaker allows.
    let app = app(&ill());
    let extra = "retry: { attempts: 1 }\nupstreams: { app: { endpoints: [\"http://ADDRESS\"] } }\n";
    let text = extra.replace("ADDRESS", &app.address().to_string());
    let outrigger = Outrigger::run(config("", &text));
    for round in 0..60 {
        assert_eq!(wire::get(outrigger.web(), "/good").status, 200, "round {round}");
        let bad = if round < 5 { 2 } else { 9 };
        for _ in 0..bad {
            let answer = wire::get(outrigger.web(), "/bad");
            assert_eq!((answer.status, answer.get("content-type")), (503, None), "round {round}: it is the app's own");
        }
    }
    assert_eq!(outrigger.metric("outrigger_breaker_opened_total", "route=\"everything\""), 0.0);
}

#[test]
fn a_few_requests_for_a_failing_address_close_nothing_though_each_is_tried_three_times() {
    let app = app(&ill());
    let outrigger = Outrigger::before(&app, "");
    for _ in 0..20 {
        assert_eq!(wire::get(outrigger.web(), "/good").status, 200);
    }
    for _ in 0..2 {
        assert_eq!(wire::get(outrigger.web(), "/bad").status, 503);
    }
    assert_eq!(app.requests().iter().filter(|request| request.target() == "/bad").count(), 6);
    assert_eq!(wire::get(outrigger.web(), "/good").status, 200);
}

#[test]
fn an_address_that_ends_the_connection_closes_no_endpoint_for_others() {
    // Goal: a request that makes the app close without an answer is not the endpoint's failure, however often it is
    // sent, while others do well there.
    let app = RawApp::start(|mut conn| {
        while let Some(request) = conn.request() {
            if request.target() != "/good" || !conn.send(OK) {
                return;
            }
        }
    });
    let outrigger = Outrigger::before(&app, "");
    for round in 0..60 {
        assert_eq!(wire::get(outrigger.web(), "/good").status, 200, "round {round}");
        for _ in 0..if round < 5 { 1 } else { 4 } {
            assert_eq!(wire::get(outrigger.web(), "/bad").status, 502, "round {round}");
        }
    }
    assert_eq!(outrigger.metric("outrigger_breaker_opened_total", "app"), 0.0);
    // When everybody fails it opens as ever.
    assert!(until(200, || wire::get(outrigger.web(), "/other").reason() == "breaker_open"), "it does not open");
}

/// Whether it is so within so many times of asking.
fn until(times: usize, is_so: impl Fn() -> bool) -> bool {
    (0..times).any(|_| is_so())
}
