//! Hedged requests: a second attempt while the first is awaited.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::app::OK;
use crate::support::{Outrigger, RawApp, config, eventually, wire};

fn before(app: &RawApp, hedge: &str, upstream: &str) -> Outrigger {
    let endpoints = format!("endpoints: [\"http://{}\"]", app.address());
    Outrigger::run(config(
        "",
        &format!("upstreams: {{ app: {{ {endpoints}, {upstream} }} }}\nretry: {{ hedge: {{ mode: on, {hedge} }} }}\n"),
    ))
}

fn results(outrigger: &Outrigger) -> [f64; 3] {
    ["won", "lost", "refused"]
        .map(|result| outrigger.metric("outrigger_hedge_requests_total", &format!("result=\"{result}\"")))
}

/// An app that never answers the first attempt of `/slow`; how many of those were taken back.
fn stuck() -> (RawApp, Arc<AtomicUsize>) {
    let taken_back = Arc::new(AtomicUsize::new(0));
    let ours = Arc::clone(&taken_back);
    let app = RawApp::start(move |mut conn| {
        while let Some(request) = conn.request() {
            if request.target() == "/slow" && request.get("x-request-attempt").is_none() {
                conn.wait_for_the_end();
                ours.fetch_add(1, Ordering::SeqCst);
                return;
            }
            conn.send(OK);
        }
    });
    (app, taken_back)
}

#[test]
fn the_first_good_answer_is_the_answer_and_the_other_attempt_is_taken_back() {
    let (app, taken_back) = stuck();
    let outrigger = before(&app, "after: 30ms, share_max: 100%", "circuit_breaker: { consecutive_failures: 1 }");
    let answer = wire::get(outrigger.web(), "/slow");
    assert_eq!(answer.status, 200);
    eventually("it is taken back", || (taken_back.load(Ordering::SeqCst) == 1).then_some(()));
    assert_eq!(results(&outrigger), [1.0, 0.0, 0.0]);
    let fate = outrigger.why(answer.get("x-request-id").expect("an id"));
    assert_eq!(fate["attempts"][0]["outcome"], "overtaken", "{fate:#}");
    assert_eq!(fate["attempts"][1]["status"], 200, "{fate:#}");
    assert!(fate["notes"][0].as_str().expect("words").contains("hedged after 30ms"), "{fate:#}");
    // No failure, and no latency either.
    assert_eq!(outrigger.status()["upstreams"][0]["endpoints"][0]["breaker"], "closed");
    assert_eq!(outrigger.metric("outrigger_breaker_opened_total", "app"), 0.0);
    assert_eq!(outrigger.metric("outrigger_upstream_duration_seconds_count", "app"), 1.0, "{}", outrigger.metrics());
}

#[test]
fn hedges_are_no_more_than_their_share() {
    let app = RawApp::start(|mut conn| {
        while conn.request().is_some() {
            thread::sleep(Duration::from_millis(10));
            conn.send(OK);
        }
    });
    let outrigger = before(&app, "after: 1ms, share_max: 10%", "");
    for _ in 0..100 {
        assert_eq!(wire::get(outrigger.web(), "/").status, 200);
    }
    let [won, lost, refused] = results(&outrigger);
    assert!((9.0..=10.0).contains(&(won + lost)) && refused >= 89.0, "{won} {lost} {refused}");
    // A second request that is overtaken and given up may go before the app has read it.
    let second = app.requests().iter().filter(|request| request.get("x-request-attempt").is_some()).count();
    assert!((1..=(won + lost) as usize).contains(&second), "{second} of {won} and {lost}");
}

#[test]
fn only_get_and_head_without_a_body_are_hedged() {
    let app = RawApp::start(|mut conn| {
        while conn.request().is_some() {
            thread::sleep(Duration::from_millis(50));
            conn.send(OK);
        }
    });
    let outrigger = before(&app, "after: 1ms, share_max: 100%", "");
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "GET"] {
        let text = format!("{method} / HTTP/1.1\r\nHost: a\r\nIdempotency-Key: k\r\nContent-Length: 2\r\n\r\nhi");
        assert_eq!(wire::ask(outrigger.web(), text).status, 200, "{method}");
    }
    assert_eq!(app.requests().len(), 5);
    assert_eq!(wire::get(outrigger.web(), "/").status, 200);
    assert_eq!(app.requests().len(), 7);
}

#[test]
fn it_is_sent_after_what_nearly_all_requests_need() {
    let (app, _) = stuck();
    let outrigger = before(&app, "share_max: 100%", "");
    assert!(!outrigger.metrics().contains("outrigger_hedge_delay_seconds{"), "nothing was seen yet");
    for _ in 0..150 {
        assert_eq!(wire::get(outrigger.web(), "/").status, 200);
    }
    let delay = outrigger.metric("outrigger_hedge_delay_seconds", "app");
    assert!(delay > 0.0 && delay < 1.0, "{delay}");
    let began = Instant::now();
    assert_eq!(wire::get(outrigger.web(), "/slow").status, 200);
    assert!(began.elapsed().as_secs_f64() >= delay);
    let slow = app.requests().iter().filter(|request| request.target() == "/slow").count();
    assert_eq!(slow, 2);
}

#[test]
fn a_hedge_that_fails_leaves_the_first_attempt_its_time() {
    let app = RawApp::start(|mut conn| {
        while let Some(request) = conn.request() {
            if request.get("x-request-attempt").is_some() {
                return conn.reset();
            }
            thread::sleep(Duration::from_millis(300));
            conn.send(OK);
        }
    });
    let outrigger = before(&app, "after: 20ms, share_max: 100%", "");
    let answer = wire::get(outrigger.web(), "/");
    assert_eq!(answer.status, 200);
    assert_eq!(results(&outrigger), [0.0, 1.0, 0.0]);
    let fate = outrigger.why(answer.get("x-request-id").expect("an id"));
    assert_eq!(fate["attempts"].as_array().map(Vec::len), Some(2), "{fate:#}");
    assert_eq!(app.requests().len(), 2);
}
