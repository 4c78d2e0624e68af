//! Retries and their budget.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::app::OK;
use crate::support::{Outrigger, RawApp, Response, config, wire};

const FAST: &str = "backoff: { base: 1ms, factor: 1, max: 1ms }";
const UNAVAILABLE: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";

/// Fails the first `failures` requests with `answer`; an empty answer is a reset.
fn failing(failures: usize, answer: &'static str) -> RawApp {
    let left = Arc::new(AtomicUsize::new(failures));
    RawApp::start(move |mut conn| {
        while conn.request().is_some() {
            let fails = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
            match (fails, answer) {
                (true, "") => return conn.reset(),
                (true, answer) => conn.send(answer),
                (false, _) => conn.send(OK),
            };
        }
    })
}

fn send(outrigger: &Outrigger, method: &str, extra: &str) -> Response {
    let body = if method == "GET" { "" } else { "Content-Length: 2\r\n" };
    let text = if method == "GET" { "" } else { "hi" };
    wire::ask(outrigger.web(), format!("{method} /x HTTP/1.1\r\nHost: a\r\n{body}{extra}\r\n{text}"))
}

fn breaker_off(app: &RawApp, retry: &str) -> String {
    let address = app.address();
    config(
        "",
        &format!(
            "upstreams: {{ app: {{ endpoints: [\"http://{address}\"], circuit_breaker: {{ mode: off }} }} }}\nretry: {{ {retry} }}\n"
        ),
    )
}

#[test]
fn the_attempt_is_numbered_for_the_app_and_counted_on() {
    let app = failing(2, UNAVAILABLE);
    let outrigger = Outrigger::run(breaker_off(&app, FAST));
    assert_eq!(send(&outrigger, "GET", "").status, 200);
    let numbers: Vec<_> =
        app.requests().iter().map(|request| request.get("x-request-attempt").map(str::to_owned)).collect();
    assert_eq!(numbers, [None, Some("2".to_owned()), Some("3".to_owned())]);
}

#[test]
fn a_request_that_is_a_retry_gets_fewer_of_ours() {
    let app = failing(100, UNAVAILABLE);
    let outrigger = Outrigger::run(breaker_off(&app, FAST));
    assert_eq!(send(&outrigger, "GET", "x-request-attempt: 2\r\n").status, 503);
    assert_eq!(app.requests().len(), 2);
    assert_eq!(app.requests()[1].get("x-request-attempt"), Some("3"));
    assert_eq!(send(&outrigger, "GET", "x-envoy-attempt-count: 7\r\n").status, 503);
    assert_eq!(app.requests().len(), 3);
}

#[test]
fn a_spent_budget_stops_retries_and_says_so() {
    let app = failing(1000, UNAVAILABLE);
    // Four of the floor, and all the requests of the test are worth less than one.
    let retry = format!("attempts: 10, {FAST}, budget: {{ percent: 0%, interval: 4s, rate_min: 1/s }}");
    let outrigger = Outrigger::run(breaker_off(&app, &retry));
    let answer = send(&outrigger, "GET", "");
    assert_eq!(answer.status, 503);
    assert!((5..=6).contains(&app.requests().len()), "{}", app.requests().len());
    let told = outrigger.why_told(&answer);
    assert_eq!(told.matches("\nnote: the retry budget of app was spent: no further attempt\n").count(), 1, "{told}");
    assert!(outrigger.metric("outrigger_retry_budget_refused_total", "upstream=\"app\"") >= 1.0);
    assert!(outrigger.metric("outrigger_retry_budget_granted_total", "upstream=\"app\"") >= 4.0);
}

#[test]
fn an_attempt_that_opens_the_breaker_is_the_last_and_says_so() {
    let app = failing(1000, "");
    let address = app.address();
    let upstream = format!("endpoints: [\"http://{address}\"], circuit_breaker: {{ consecutive_failures: 1 }}");
    let outrigger =
        Outrigger::run(config("", &format!("upstreams: {{ app: {{ {upstream} }} }}\nretry: {{ {FAST} }}\n")));
    let answer = send(&outrigger, "GET", "");
    assert_eq!((answer.status, answer.reason().as_str(), app.requests().len()), (502, "reset", 1));
    let told = outrigger.why_told(&answer);
    assert!(told.contains("\nnote: a breaker of app was open: no further attempt\n"), "{told}");
    // Without an attempt the reason is the breaker itself.
    let answer = send(&outrigger, "GET", "");
    assert_eq!(answer.reason(), "breaker_open");
    assert!(!outrigger.why_told(&answer).contains("note"));
}

#[test]
fn a_route_may_have_a_budget_of_its_own() {
    let app = failing(1000, UNAVAILABLE);
    let address = app.address();
    let text = config(
        "",
        &format!(
            "upstreams: {{ app: {{ endpoints: [\"http://{address}\"], circuit_breaker: {{ mode: off }} }} }}\n\
         retry: {{ {FAST}, budget: {{ percent: 0%, interval: 1s, rate_min: 1/h }} }}\n\
         routes:\n  - {{ name: own, match: {{ path: /own }}, retry: {{ budget: {{ rate_min: 100/s }} }} }}\n  - {{ name: all, match: {{ path: \"/*\" }} }}\n"
        ),
    );
    let outrigger = Outrigger::run(text);
    assert_eq!(wire::get(outrigger.web(), "/shared").status, 503);
    assert_eq!(app.requests().len(), 1);
    assert_eq!(wire::get(outrigger.web(), "/own").status, 503);
    assert_eq!(app.requests().len(), 4);
    assert!(outrigger.metric("outrigger_retry_budget_left", "route=\"own\"") >= 90.0, "{}", outrigger.metrics());
}

#[test]
fn a_post_is_sent_again_only_with_a_key_or_when_it_was_never_written() {
    let app = failing(1, "");
    let outrigger = Outrigger::run(breaker_off(&app, FAST));
    assert_eq!(send(&outrigger, "POST", "").status, 502);
    assert_eq!(app.requests().len(), 1);
    let app = failing(1, "");
    let outrigger = Outrigger::run(breaker_off(&app, FAST));
    assert_eq!(send(&outrigger, "POST", "Idempotency-Key: k\r\n").status, 200);
    assert_eq!(app.requests().len(), 2);
}

#[test]
fn retry_after_is_waited_for_when_there_is_time() {
    let app = failing(1, "HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n");
    let outrigger = Outrigger::run(breaker_off(&app, FAST));
    let answer = send(&outrigger, "GET", "");
    assert_eq!(answer.status, 200);
    let fate = outrigger.why(answer.get("x-request-id").expect("an id"));
    assert!(fate["attempts"][1]["after"].as_f64().expect("a time") >= 1.0, "{fate:#}");
    // Longer than there is: the client is told instead.
    let app = failing(1, "HTTP/1.1 503 Service Unavailable\r\nretry-after: 3600\r\ncontent-length: 0\r\n\r\n");
    let outrigger = Outrigger::run(breaker_off(&app, FAST));
    let answer = send(&outrigger, "GET", "");
    assert_eq!((answer.status, answer.get("retry-after")), (503, Some("3600")));
}

#[test]
fn too_many_requests_is_tried_again_only_with_its_retry_after_and_time_for_a_whole_attempt() {
    const SOON: &str = "HTTP/1.1 429 Too Many Requests\r\nretry-after: 0\r\ncontent-length: 0\r\n\r\n";
    for (retry, answer, status) in [
        ("per_try: 1s", SOON, 200),
        ("attempts: 3", SOON, 429),
        ("per_try: 1s", "HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\n\r\n", 429),
    ] {
        let app = failing(1, answer);
        let outrigger = Outrigger::run(breaker_off(&app, &format!("{FAST}, {retry}")));
        assert_eq!(send(&outrigger, "GET", "").status, status, "{retry}");
    }
}

#[test]
fn a_grpc_server_sets_the_wait_or_forbids_another_attempt() {
    for (pushback, attempts) in [("", 3), ("grpc-retry-pushback-ms: 1\r\n", 3), ("grpc-retry-pushback-ms: -1\r\n", 1)] {
        let answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ngrpc-status: 14\r\n{pushback}content-length: 0\r\n\r\n"
        );
        let app = RawApp::answering(answer);
        let address = app.address();
        let outrigger = Outrigger::run(config(
            "",
            &format!(
                "upstreams: {{ app: {{ endpoints: [\"http://{address}\"], protocol: http1, circuit_breaker: {{ mode: off }} }} }}\nretry: {{ {FAST} }}\n"
            ),
        ));
        let answer = send(&outrigger, "POST", "Content-Type: application/grpc\r\nIdempotency-Key: k\r\n");
        assert_eq!((answer.status, answer.get("grpc-status")), (200, Some("14")));
        assert_eq!(app.requests().len(), attempts, "{pushback}");
        let before =
            app.requests().last().and_then(|request| request.get("grpc-previous-rpc-attempts").map(str::to_owned));
        assert_eq!(before, (attempts > 1).then(|| "2".to_owned()), "{pushback}");
    }
}
