//! Request bodies that are malformed or slow, 100-continue, and answers that come before the body has ended: rows 13,
//! 28 and 29.

use std::sync::mpsc;

use crate::support::app::OK;
use crate::support::{BodyEnd, DEADLINE, End, Outrigger, RawApp, Wire, wire};

const ONE_FAILURE: &str = "circuit_breaker: { consecutive_failures: 1 }";

fn sensitive(app: &RawApp) -> Outrigger {
    let upstreams = format!("upstreams: {{ app: {{ endpoints: [\"http://{}\"], {ONE_FAILURE} }} }}\n", app.address());
    Outrigger::before(app, &upstreams)
}

fn breaker(outrigger: &Outrigger) -> String {
    outrigger.idle()["upstreams"][0]["endpoints"][0]["breaker"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn row_29_a_malformed_chunk_is_the_clients_fault() {
    // A breaker that opens at the first failure of the app must stay closed.
    let app = RawApp::fine();
    let outrigger = sensitive(&app);
    for (name, chunk) in [
        ("not a number", "xyz\r\nhello\r\n"),
        ("hexadecimal prefix", "0x5\r\nhello\r\n0\r\n\r\n"),
        ("negative", "-5\r\nhello\r\n0\r\n\r\n"),
        ("a sign", "+5\r\nhello\r\n0\r\n\r\n"),
        ("a space before", " 5\r\nhello\r\n0\r\n\r\n"),
        ("overflow", "fffffffffffffffff\r\nhello\r\n0\r\n\r\n"),
        ("too short", "3\r\nhello\r\n0\r\n\r\n"),
        ("too long", "7\r\nhello\r\n0\r\n\r\n"),
        ("no size", "\r\nhello\r\n0\r\n\r\n"),
        ("bare LF after the size", "5\nhello\r\n0\r\n\r\n"),
        ("bare LF after the data", "5\r\nhello\n0\r\n\r\n"),
        ("bare CR in an extension", "5;a\rb\r\nhello\r\n0\r\n\r\n"),
        ("bare LF in an extension", "5;a\nb\r\nhello\r\n0\r\n\r\n"),
        ("a control in a trailer", "5\r\nhello\r\n0\r\nx: a\x01\r\n\r\n"),
        ("a folded trailer", "5\r\nhello\r\n0\r\nx: a\r\n b\r\n\r\n"),
    ] {
        let mut client = Wire::connect(outrigger.web());
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}"));
        let (answer, end) = client.rest();
        let text = String::from_utf8_lossy(&answer);
        assert!(text.starts_with("HTTP/1.1 400"), "{name}: {text:?}");
        assert_eq!(text.matches("HTTP/1.1 ").count(), 1, "{name}: {text:?}");
        assert_ne!(end, End::Deadline, "{name}: the connection stayed open");
    }
    assert!(app.requests().iter().all(|request| request.end != BodyEnd::Whole), "{:#?}", app.requests());
    assert_eq!(breaker(&outrigger), "closed");
    assert_eq!(wire::get(outrigger.web(), "/").status, 200);
}

#[test]
fn chunk_extensions_do_not_reach_the_app() {
    let app = RawApp::fine();
    let outrigger = Outrigger::before(&app, "");
    let request = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;name=value\r\nhello\r\n0\r\n\r\n";
    let answer = wire::ask(outrigger.web(), request);
    assert!([200, 400].contains(&answer.status), "{}", answer.head.first);
    let text = String::from_utf8_lossy(&app.received().concat()).into_owned();
    assert!(!text.contains("name=value"), "{text}");
    // However it is judged, many of them are not free.
    let long = format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(64 * 1024));
    let mut client = Wire::connect(outrigger.web());
    client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{long}"));
    assert_eq!(client.response("POST").status, 400);
}

#[test]
fn a_client_that_leaves_within_its_body_is_not_the_apps_failure() {
    // Both framings, orderly and with a reset. The app must see a body that is not whole, and be charged nothing.
    let app =
        RawApp::start(
            |mut conn| while conn.request().is_some_and(|request| request.end == BodyEnd::Whole) && conn.send(OK) {},
        );
    let outrigger = sensitive(&app);
    for (framing, reset) in [
        ("Content-Length: 100\r\n\r\nhello", false),
        ("Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", false),
        ("Content-Length: 100\r\n\r\nhello", true),
        ("Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", true),
    ] {
        let before = app.connections();
        let mut client = Wire::connect(outrigger.web());
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}"));
        outrigger.status_until("the request is in flight", |status| status["in_flight"] == 1);
        if reset {
            client.reset();
        } else {
            drop(client);
        }
        assert_eq!(breaker(&outrigger), "closed", "{framing:?}");
        assert!(app.connections() <= before + 1, "{framing:?}: sent again");
    }
    assert!(app.requests().iter().all(|request| request.end != BodyEnd::Whole), "{:#?}", app.requests());
    assert_eq!(wire::get(outrigger.web(), "/").status, 200);
}

#[test]
fn row_13_continue_comes_when_the_body_is_wanted() {
    let app = RawApp::fine();
    let outrigger = Outrigger::before(&app, "");
    let mut client = Wire::connect(outrigger.web());
    client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    let interim = client.head().expect("an interim answer");
    assert_eq!(interim.word(1), "100");
    client.send("hello");
    let answer = client.response("POST");
    assert_eq!((answer.status, answer.interim.len()), (200, 0));
    assert_eq!(app.only_request().body, b"hello");
    // We have answered it: the app must not wait for it again.
    assert_eq!(app.only_request().get("expect"), None);
}

#[test]
fn row_13_policies_speak_before_continue() {
    let app = RawApp::fine();
    let extra = "rate_limits: { one: { key: [client_ip], rate: 1/h, burst: 1 } }\n\
        routes:\n\
        - { name: limited, match: { path: /limited }, rate_limits: [one] }\n\
        - { name: small, match: { path: /small }, body_max: 10B }\n\
        - { name: reading, match: { path: /reading, methods: [GET] } }\n";
    let outrigger = Outrigger::before(&app, extra);
    assert_eq!(wire::get(outrigger.web(), "/limited").status, 200);
    for (path, length, status) in [("/limited", 5, 429), ("/small", 11, 413), ("/reading", 5, 405), ("/none", 5, 404)] {
        let mut client = Wire::connect(outrigger.web());
        client.send(format!(
            "POST {path} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n"
        ));
        let answer = client.response("POST");
        assert_eq!((answer.status, answer.interim.len()), (status, 0), "{path}: {}", answer.text());
        assert!(!answer.reason().is_empty(), "{path}");
        assert!(answer.get("x-request-id").is_some(), "{path}");
        // The body was never asked for, so what comes next may not be taken for a request.
        client.send(format!("{}GET /small HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(length)));
        let (rest, end) = client.rest();
        assert!(rest.is_empty(), "{path}: {:?}", String::from_utf8_lossy(&rest));
        assert_ne!(end, End::Deadline, "{path}");
    }
    assert_eq!(app.requests().len(), 1);
}

#[test]
fn row_13_unknown_expectations_are_refused() {
    let app = RawApp::fine();
    let outrigger = Outrigger::before(&app, "");
    let answer = wire::ask(outrigger.web(), "GET / HTTP/1.1\r\nHost: a\r\nExpect: a-pony\r\n\r\n");
    assert_eq!((answer.status, answer.reason().as_str()), (417, "expectation"));
    assert!(app.untouched());
}

#[test]
fn row_13_the_apps_early_answer_wins_over_the_body() {
    // The app answers 401 from the head alone; the client, told to continue or not, must get that answer.
    let app = RawApp::start(|mut conn| {
        if conn.head().is_ok() {
            conn.send("HTTP/1.1 401 Unauthorized\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno");
            conn.wait_for_the_end();
        }
    });
    let outrigger = Outrigger::before(&app, "");
    let mut client = Wire::connect(outrigger.web());
    client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 500000\r\n\r\n");
    let answer = client.response("POST");
    assert_eq!((answer.status, answer.text().as_str()), (401, "no"));
}

#[test]
fn row_28_an_early_413_reaches_a_client_that_is_still_uploading() {
    // The app answers after the head and closes at once; the client sends all of its 8 MB before it looks.
    let app = RawApp::start(|mut conn| {
        if conn.head().is_ok() {
            conn.send("HTTP/1.1 413 Content Too Large\r\ncontent-length: 3\r\nconnection: close\r\n\r\nbig");
            conn.half_close();
            conn.drain();
        }
    });
    let outrigger = Outrigger::before(&app, "");
    for framing in ["content-length: 8388608", "transfer-encoding: chunked"] {
        let mut client = Wire::connect(outrigger.web());
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n"));
        let reader = client.stream().try_clone().expect("a second handle");
        let reader = std::thread::spawn(move || Wire::new(reader, None).response("POST"));
        let piece = [b"2000\r\n".as_slice(), &[b'x'; 0x2000], b"\r\n"].concat();
        let piece = if framing.starts_with("content") { &piece[6..6 + 0x2000] } else { &piece };
        let mut sent = 0;
        while sent < 8 * 1024 * 1024 && client.send(piece) {
            sent += 0x2000;
        }
        let answer = reader.join().expect("the reader");
        assert_eq!((answer.status, answer.text().as_str()), (413, "big"), "{framing}");
    }
    outrigger.idle();
}

#[test]
fn a_body_above_the_route_limit_is_refused_at_once() {
    let app = RawApp::fine();
    let extra = "routes: [{ name: small, match: { path: \"/*\" }, body_max: 1KiB }]\n";
    let outrigger = Outrigger::before(&app, extra);
    let exact = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1024\r\n\r\n{}", "x".repeat(1024));
    assert_eq!(wire::ask(outrigger.web(), exact).status, 200);
    let announced = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1025\r\n\r\n{}", "x".repeat(1025));
    let answer = wire::ask(outrigger.web(), announced);
    assert_eq!((answer.status, answer.reason().as_str()), (413, "body_too_large"));
    let body = format!("200\r\n{0}\r\n201\r\n{0}x\r\n0\r\n\r\n", "x".repeat(0x200));
    let chunked = format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
    let answer = wire::ask(outrigger.web(), chunked);
    assert_eq!((answer.status, answer.reason().as_str()), (413, "body_too_large"));
    let whole = app.requests().iter().filter(|request| request.end == BodyEnd::Whole).count();
    assert_eq!(whole, 1, "{:#?}", app.requests());
}

#[test]
fn a_slow_body_is_answered_408() {
    let app = RawApp::fine();
    let extra = "timeouts: { request_body: { rate_min: 1000B/s, grace: 200ms } }\n";
    let outrigger = Outrigger::before(&app, extra);
    let mut client = Wire::connect(outrigger.web());
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nx");
    let answer = client.response("POST");
    assert_eq!((answer.status, answer.reason().as_str()), (408, "request_body_timeout"));
    assert_ne!(client.rest().1, End::Deadline);
    assert!(app.requests().iter().all(|request| request.end != BodyEnd::Whole));
    outrigger.idle();
}

#[test]
fn a_steady_body_above_the_minimum_rate_is_not_slow() {
    // 40 pieces over at least 800 ms with a grace of 200 ms, each piece well above the rate.
    let app = RawApp::fine();
    let extra = "timeouts: { request_body: { rate_min: 100B/s, grace: 200ms } }\n";
    let outrigger = Outrigger::before(&app, extra);
    let mut client = Wire::connect(outrigger.web());
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4000\r\n\r\n");
    for _ in 0..40 {
        client.send("x".repeat(100));
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert_eq!(client.response("POST").status, 200);
    assert_eq!(app.only_request().body.len(), 4000);
}

#[test]
fn request_bodies_stream_to_the_app_as_they_come() {
    let (seen, first) = mpsc::channel();
    let seen = std::sync::Mutex::new(seen);
    let app = RawApp::start(move |mut conn| {
        let Ok(_head) = conn.head() else { return };
        let piece = conn.until(b"first");
        let _ = seen.lock().expect("lock").send(piece.is_ok());
        let _ = conn.until(b"last");
        let _ = conn.until(b"0\r\n\r\n");
        conn.send(OK);
    });
    let outrigger = Outrigger::before(&app, "");
    let mut client = Wire::connect(outrigger.web());
    // Larger than what is remembered for a retry, so that nothing waits for its end.
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    client.send(format!("{head}11170\r\n{}\r\n5\r\nfirst\r\n", "x".repeat(0x11170)));
    assert!(first.recv_timeout(DEADLINE).expect("the first piece at the app"));
    client.send("4\r\nlast\r\n0\r\n\r\n");
    assert_eq!(client.response("POST").status, 200);
}

#[test]
fn an_early_answer_that_ends_the_connection_says_so() {
    let app = RawApp::start(|mut conn| {
        let _ = conn.until(b"\r\n\r\n");
        conn.send("HTTP/1.1 413 Content Too Large\r\ncontent-length: 2\r\n\r\nno");
        conn.wait_for_the_end();
    });
    let outrigger = Outrigger::before(&app, "");
    let mut client = Wire::connect(outrigger.web());
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n");
    client.send(vec![b'x'; 100_000]);
    let answer = client.response("POST");
    assert_eq!((answer.status, answer.get("connection")), (413, Some("close")));
}

#[test]
fn trailers_claim_nothing_about_the_client() {
    let app = RawApp::fine();
    let outrigger = Outrigger::before(&app, "");
    let names = ["x-forwarded-for", "x_real_ip", "forwarded", "x-request-id", "x-sum"];
    let trailers: String = names.iter().map(|name| format!("{name}: 6.6.6.6\r\n")).collect();
    let head =
        format!("POST / HTTP/1.1\r\nHost: a\r\nTrailer: {}\r\nTransfer-Encoding: chunked\r\n\r\n", names.join(", "));
    assert_eq!(wire::ask(outrigger.web(), format!("{head}2\r\nhi\r\n0\r\n{trailers}\r\n")).status, 200);
    assert_eq!(app.only_request().trailers, [("x-sum".to_owned(), "6.6.6.6".to_owned())]);
}
