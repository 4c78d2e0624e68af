//! Apps that are not there, too slow, or failing: what the client is told, and what is remembered of it.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::Value;

use crate::support::app::OK;
use crate::support::{Outrigger, RawApp, Response, Wire, config, eventually, wire};

/// An address where nobody listens.
fn nobody() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("its address")
}

/// A file for an app at `address` for which no request waits.
fn unheld(address: SocketAddr) -> String {
    config("", &format!("upstreams: {{ app: {{ endpoints: [\"http://{address}\"], hold: {{ wait_max: 0s }} }} }}\n"))
}

/// Asks, and returns the answer and its fate.
fn asked(outrigger: &Outrigger, path: &str) -> (Response, Value) {
    let answer = wire::get(outrigger.web(), path);
    let id = answer.get("x-request-id").expect("a request id").to_owned();
    let fate = outrigger.why(&id);
    (answer, fate)
}

fn attempts(fate: &Value) -> usize {
    fate["attempts"].as_array().map_or_else(|| fate["attempts"].as_u64().unwrap_or(0) as usize, Vec::len)
}

#[test]
fn an_app_that_is_not_there_is_502_or_503_with_its_fate() {
    let outrigger = Outrigger::run(unheld(nobody()));
    let (answer, fate) = asked(&outrigger, "/gone");
    assert!([502, 503].contains(&answer.status), "{}", answer.status);
    assert_eq!(answer.get("content-type"), Some("application/problem+json"));
    let body = answer.json();
    for field in ["type", "title", "status", "reason", "request_id"] {
        assert!(!body[field].is_null(), "{field} is missing in {body}");
    }
    assert_eq!(body["status"], answer.status);
    assert_eq!(body["request_id"], answer.get("x-request-id").expect("an id"));
    assert!(answer.get("proxy-status").is_some_and(|value| value.starts_with("outrigger")), "{:?}", answer.head.fields);
    assert!(!answer.text().contains("127.0.0.1"), "no internals: {}", answer.text());
    assert_eq!(fate["fate"], "unreachable", "{fate:#}");
    assert_eq!(attempts(&fate), 3, "{fate:#}");
    let line = outrigger.wait_for_access("its line", |line| line["request_id"] == body["request_id"]);
    assert_eq!(line["fate"], "unreachable", "{line}");
    assert!(outrigger.metric("outrigger_refusals_total", "connect_refused") >= 1.0, "{}", outrigger.metrics());
}

#[test]
fn a_post_is_retried_when_nobody_could_have_read_it() {
    let outrigger = Outrigger::run(unheld(nobody()));
    let answer = wire::ask(outrigger.web(), "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
    assert_eq!(answer.reason(), "connect_refused");
}

#[test]
fn a_browser_gets_a_page() {
    let outrigger = Outrigger::run(unheld(nobody()));
    let answer = wire::ask(
        outrigger.web(),
        "GET / HTTP/1.1\r\nHost: a\r\nAccept: text/html,application/xhtml+xml,*/*;q=0.8\r\n\r\n",
    );
    assert!(answer.get("content-type").is_some_and(|kind| kind.starts_with("text/html")), "{:?}", answer.head.fields);
    let id = answer.get("x-request-id").expect("an id");
    assert!(answer.text().contains(id) && answer.text().contains("<html"), "{}", answer.text());
}

#[test]
fn a_name_that_does_not_exist_is_the_same_at_start_and_later() {
    let outrigger = Outrigger::run(config("does-not-exist.invalid:80", "timeouts: { connect: 3s }\n"));
    let (answer, fate) = asked(&outrigger, "/");
    assert!([502, 503, 504].contains(&answer.status), "{}", answer.status);
    assert!(["connect_failed", "connect_timeout"].contains(&answer.reason().as_str()), "{}", answer.text());
    assert!(!fate["fate"].is_null());
}

#[test]
fn an_app_that_does_not_accept_is_a_connect_timeout() {
    // A backlog that is full: the kernel drops what more comes.
    let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    listener.bind(&"127.0.0.1:0".parse::<SocketAddr>().expect("an address").into()).expect("bind");
    listener.listen(0).expect("listen");
    let address = listener.local_addr().expect("an address").as_socket().expect("IPv4");
    let mut full = Vec::new();
    while let Ok(stream) = std::net::TcpStream::connect_timeout(&address, std::time::Duration::from_millis(200)) {
        full.push(stream);
        assert!(full.len() < 50, "the backlog does not fill");
    }
    let outrigger = Outrigger::run(config(address, "timeouts: { connect: 200ms }\nretry: { attempts: 2 }\n"));
    let (answer, fate) = asked(&outrigger, "/");
    assert_eq!((answer.status, answer.reason().as_str()), (504, "connect_timeout"));
    assert_eq!(fate["fate"], "timed_out", "{fate:#}");
    assert_eq!(attempts(&fate), 2, "{fate:#}");
}

#[test]
fn each_timer_has_its_own_reason() {
    for (timers, reason, requests) in [
        ("timeouts: { first_byte: 200ms }\nretry: { attempts: 1 }\n", "first_byte_timeout", 1),
        ("timeouts: { total: 300ms, first_byte: 300ms }\nretry: { attempts: 1 }\n", "", 1),
        ("retry: { attempts: 3, per_try: 100ms, backoff: { base: 1ms, factor: 1, max: 1ms } }\n", "per_try_timeout", 3),
    ] {
        let app = RawApp::start(|mut conn| {
            conn.request();
            conn.wait_for_the_end();
        });
        let outrigger = Outrigger::before(&app, timers);
        let (answer, fate) = asked(&outrigger, "/");
        assert_eq!(answer.status, 504, "{timers}: {}", answer.text());
        if reason.is_empty() {
            assert!(["total_timeout", "first_byte_timeout"].contains(&answer.reason().as_str()));
        } else {
            assert_eq!(answer.reason(), reason, "{timers}");
        }
        assert_eq!(fate["fate"], "timed_out", "{fate:#}");
        assert_eq!(app.requests().len(), requests, "{timers}");
        eventually("the app's connections are closed", || (app.open() == 0).then_some(()));
        outrigger.idle();
    }
}

#[test]
fn the_deadline_of_a_caller_is_kept_and_told() {
    let app = RawApp::start(|mut conn| {
        conn.request();
        conn.wait_for_the_end();
    });
    let outrigger = Outrigger::before(&app, "");
    let begun = std::time::Instant::now();
    let answer = wire::ask(outrigger.web(), "GET / HTTP/1.1\r\nHost: a\r\nX-Request-Timeout-Ms: 300\r\n\r\n");
    assert_eq!(answer.status, 504, "{}", answer.text());
    assert!(begun.elapsed().as_millis() < 2_000, "{:?}", begun.elapsed());
    let told = app.only_request().get("x-request-timeout-ms").and_then(|text| text.parse::<u64>().ok());
    assert!(told.is_some_and(|left| left <= 300), "{told:?}");
}

#[test]
fn an_app_that_resets_is_502() {
    let app = RawApp::start(|mut conn| {
        conn.request();
        conn.reset();
    });
    let outrigger = Outrigger::before(&app, "");
    let (answer, fate) = asked(&outrigger, "/");
    assert_eq!((answer.status, answer.reason().as_str()), (502, "reset"));
    assert_eq!(attempts(&fate), 3, "{fate:#}");
    assert_eq!(app.requests().len(), 3);
}

#[test]
fn retries_hide_a_short_fault_and_stop_at_an_answer() {
    // 503 twice, then fine.
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let app = RawApp::start(move |mut conn| {
        while conn.request().is_some() {
            let bad = counted.fetch_add(1, Ordering::SeqCst) < 2;
            conn.send(if bad { "HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n" } else { OK });
        }
    });
    let outrigger = Outrigger::before(&app, "");
    let (answer, fate) = asked(&outrigger, "/");
    assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
    assert_eq!(attempts(&fate), 3, "{fate:#}");
    // 500 is an answer.
    let app = RawApp::answering("HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n");
    let outrigger = Outrigger::before(&app, "");
    let (answer, fate) = asked(&outrigger, "/");
    assert_eq!((answer.status, attempts(&fate)), (500, 1), "{fate:#}");
    assert_eq!(fate["fate"], "app_error", "{fate:#}");
    // The last answer of the app is passed when all failed.
    let app = RawApp::answering("HTTP/1.1 503 Busy\r\ncontent-length: 4\r\nx-mine: 1\r\n\r\nbusy");
    let outrigger = Outrigger::before(&app, "");
    let answer = wire::get(outrigger.web(), "/");
    assert_eq!((answer.status, answer.text().as_str(), answer.get("x-mine")), (503, "busy", Some("1")));
    assert_eq!(app.requests().len(), 3);
}

#[test]
fn a_breaker_opens_and_closes_again() {
    let well = Arc::new(AtomicBool::new(false));
    let healthy = Arc::clone(&well);
    let app = RawApp::start(move |mut conn| {
        while conn.request().is_some() {
            if !healthy.load(Ordering::SeqCst) {
                return conn.reset();
            }
            conn.send(OK);
        }
    });
    let upstreams = format!(
        "upstreams: {{ app: {{ endpoints: [\"http://{}\"], circuit_breaker: {{ consecutive_failures: 3, \
         half_open: {{ ramp: 1s }}, open_for: {{ base: 500ms, max: 500ms }} }} }} }}\nretry: {{ attempts: 1 }}\n",
        app.address()
    );
    let outrigger = Outrigger::before(&app, &upstreams);
    for _ in 0..3 {
        assert_eq!(wire::get(outrigger.web(), "/").reason(), "reset");
    }
    let before = app.requests().len();
    let answer = wire::get(outrigger.web(), "/");
    assert_eq!((answer.status, answer.reason().as_str()), (503, "breaker_open"));
    assert!(answer.get("retry-after").is_some());
    assert_eq!(app.requests().len(), before, "nothing reached the app");
    assert_eq!(outrigger.status()["upstreams"][0]["endpoints"][0]["breaker"], "open");
    well.store(true, Ordering::SeqCst);
    eventually("it closes", || (wire::get(outrigger.web(), "/").status == 200).then_some(()));
    outrigger.status_until("it is closed", |status| status["upstreams"][0]["endpoints"][0]["breaker"] == "closed");
}

#[test]
fn more_requests_than_the_cap_are_refused_at_once() {
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let app = RawApp::start(move |mut conn| {
        while let Some(request) = conn.request() {
            if request.target() == "/held" {
                let _ = wait.lock().expect("lock").recv_timeout(crate::support::DEADLINE);
            }
            conn.send(OK);
        }
    });
    let upstreams =
        format!("upstreams: {{ app: {{ endpoints: [\"http://{}\"], concurrency: {{ max: 2 }} }} }}\n", app.address());
    let outrigger = Outrigger::before(&app, &upstreams);
    let mut held: Vec<Wire> = (0..2)
        .map(|_| {
            let mut client = Wire::connect(outrigger.web());
            client.send("GET /held HTTP/1.1\r\nHost: a\r\n\r\n");
            client
        })
        .collect();
    app.wait_for_requests(2);
    let answer = wire::get(outrigger.web(), "/");
    assert_eq!((answer.status, answer.reason().as_str()), (503, "concurrency_limit"));
    for client in &mut held {
        go.send(()).expect("the app waits");
        let _ = client;
    }
    for client in &mut held {
        assert_eq!(client.response("GET").status, 200);
    }
    assert_eq!(wire::get(outrigger.web(), "/").status, 200, "the places are free again");
}

#[test]
fn slow_senders_hold_no_place() {
    // Cap 2, and five clients that announce small bodies and never send them.
    let app = RawApp::fine();
    let upstreams =
        format!("upstreams: {{ app: {{ endpoints: [\"http://{}\"], concurrency: {{ max: 2 }} }} }}\n", app.address());
    let outrigger = Outrigger::before(&app, &upstreams);
    let slow: Vec<Wire> = (0..5)
        .map(|_| {
            let mut client = Wire::connect(outrigger.web());
            client.send("POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nx");
            client
        })
        .collect();
    outrigger.status_until("they are in flight", |status| status["in_flight"] == 5);
    for _ in 0..10 {
        assert_eq!(wire::get(outrigger.web(), "/").status, 200);
    }
    drop(slow);
    outrigger.idle();
}

#[test]
fn a_rate_limit_is_exact_and_told() {
    let app = RawApp::fine();
    let extra = "rate_limits: { few: { key: [client_ip], rate: 3/h, burst: 3 } }\n\
        routes: [{ name: limited, match: { path: \"/*\" }, rate_limits: [few] }]\n";
    let outrigger = Outrigger::before(&app, extra);
    let answers: Vec<Response> = (0..10).map(|_| wire::get(outrigger.web(), "/")).collect();
    let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, [200, 200, 200, 429, 429, 429, 429, 429, 429, 429]);
    let refused = &answers[3];
    assert!(refused.get("retry-after").and_then(|text| text.parse::<u64>().ok()).is_some_and(|left| left > 0));
    for (number, answer) in answers.iter().enumerate() {
        assert_eq!(answer.get("ratelimit-policy"), Some("\"few\";q=3;w=3600"), "{:?}", answer.head.fields);
        let left = 2usize.saturating_sub(number);
        let standing = answer.get("ratelimit").expect("a standing");
        assert!(standing.starts_with(&format!("\"few\";r={left};t=")), "{number}: {standing}");
    }
    assert_eq!(app.requests().len(), 3);
}

#[test]
fn readiness_follows_the_app_when_it_is_checked() {
    let well = Arc::new(AtomicBool::new(false));
    let healthy = Arc::clone(&well);
    let app = RawApp::start(move |mut conn| {
        while conn.request().is_some() {
            let answer =
                if healthy.load(Ordering::SeqCst) { OK } else { "HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n" };
            conn.send(answer);
        }
    });
    let upstreams = format!(
        "upstreams: {{ app: {{ endpoints: [\"http://{}\"], health_check: {{ path: /health, interval: 100ms, timeout: 1s, \
         rise: 1, fall: 2 }} }} }}\n",
        app.address()
    );
    let outrigger = Outrigger::before(&app, &upstreams);
    assert_eq!(outrigger.ops("/livez").status, 200);
    eventually("not ready, and why", || {
        let answer = outrigger.ops("/readyz");
        (answer.status == 503 && answer.text().contains("500")).then_some(())
    });
    well.store(true, Ordering::SeqCst);
    eventually("ready", || (outrigger.ops("/readyz").status == 200).then_some(()));
    well.store(false, Ordering::SeqCst);
    eventually("not ready again", || (outrigger.ops("/readyz").status == 503).then_some(()));
    assert_eq!(outrigger.ops("/livez").status, 200, "a sick app is no reason to restart us");
}
