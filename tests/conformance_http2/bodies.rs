//! Bodies, trailers and their ends between HTTP/2 clients and HTTP/1 apps: whole stays whole, cut stays cut.

use std::sync::Mutex;
use std::sync::mpsc;

use bytes::Bytes;
use h2::Reason;
use http::{HeaderMap, HeaderValue, Request};

use crate::support::http2::{Client, collect, request};
use crate::support::{BodyEnd, DEADLINE, End, Outrigger, RawApp};

fn fields(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
}

#[test]
fn bodies_pass_with_and_without_a_length() {
    let app = RawApp::fine();
    let outrigger = Outrigger::before(&app, "");
    let client = Client::connect(outrigger.web());
    for method in ["GET", "POST", "DELETE"] {
        for length in [None, Some("5")] {
            let before = app.requests().len();
            let mut made = request(method, "/b");
            if let Some(length) = length {
                made.headers_mut().insert("content-length", HeaderValue::from_static(length));
            }
            assert_eq!(client.ask(made, b"hello", None).expect("an answer").status(), 200);
            let seen = &app.requests()[before];
            assert_eq!((seen.body.as_slice(), seen.end), (b"hello".as_slice(), BodyEnd::Whole), "{method} {length:?}");
            assert!(!(seen.head.chunked() && seen.head.has("content-length")), "{:?}", seen.head);
        }
    }
}

#[test]
fn trailers_of_the_app_pass() {
    for te in [true, false] {
        let app = RawApp::answering(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n",
        );
        let outrigger = Outrigger::before(&app, "");
        let client = Client::connect(outrigger.web());
        let mut made = request("GET", "/");
        if te {
            made.headers_mut().insert("te", HeaderValue::from_static("trailers"));
        }
        let answer = client.ask(made, &[], None).expect("an answer");
        assert_eq!((answer.text().as_str(), answer.broken.is_none()), ("ok", true));
        if te {
            assert_eq!(answer.trailers, Some(fields(&[("x-sum", "1")])));
        }
    }
}

#[test]
fn trailers_of_the_client_pass() {
    let app = RawApp::fine();
    let outrigger = Outrigger::before(&app, "");
    let client = Client::connect(outrigger.web());
    let mut made = request("POST", "/");
    made.headers_mut().insert("trailer", HeaderValue::from_static("x-check"));
    let answer = client.ask(made, b"hello", Some(fields(&[("x-check", "5")]))).expect("an answer");
    assert_eq!(answer.status(), 200);
    let seen = app.only_request();
    assert_eq!((seen.body.as_slice(), seen.end), (b"hello".as_slice(), BodyEnd::Whole));
    assert_eq!(seen.trailers, [("x-check".to_owned(), "5".to_owned())]);
}

#[test]
fn a_cut_answer_is_reset_and_never_ended() {
    for (name, bytes) in [
        ("length", "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\npart"),
        ("chunk", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n8\r\npart"),
        ("between chunks", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\npart\r\n"),
        ("a bad chunk", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\npart\r\nzz\r\n"),
        ("within trailers", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\npart\r\n0\r\nx: "),
    ] {
        let app = RawApp::answering_and_closing(bytes);
        let outrigger = Outrigger::before(&app, "");
        let client = Client::connect(outrigger.web());
        match client.ask(request("GET", "/"), &[], None) {
            Ok(answer) if answer.status() == 200 => {
                let broken = answer.broken.unwrap_or_else(|| panic!("{name}: ended as if whole: {:?}", answer.body));
                assert!(broken.is_reset(), "{name}: {broken}");
                assert_ne!(broken.reason(), Some(Reason::NO_ERROR), "{name}");
            }
            Ok(answer) => assert_eq!(answer.status(), 502, "{name}"),
            Err(problem) => assert!(problem.is_reset(), "{name}: {problem}"),
        }
        // The other streams of the connection do not suffer. (A reset may overtake the head in the client.)
        let again = client.ask(request("GET", "/"), &[], None);
        assert!(again.map_or_else(|problem| problem.is_reset(), |answer| answer.status() == 200), "{name}");
        outrigger.idle();
    }
}

#[test]
fn an_answer_without_framing_is_ended() {
    let app = RawApp::answering_and_closing("HTTP/1.0 200 OK\r\n\r\nold but fine");
    let outrigger = Outrigger::before(&app, "");
    let answer = Client::connect(outrigger.web()).get("/");
    assert_eq!((answer.text().as_str(), answer.broken.is_none()), ("old but fine", true));
}

#[test]
fn a_length_that_lies_is_never_passed_on() {
    let app = RawApp::fine();
    let upstreams = format!(
        "upstreams: {{ app: {{ endpoints: [\"http://{}\"], circuit_breaker: {{ consecutive_failures: 1 }} }} }}\n",
        app.address()
    );
    let outrigger = Outrigger::before(&app, &upstreams);
    for (length, body) in [("5", "hel"), ("5", "hello world"), ("5, 5", "hello"), ("x", "hello"), ("+5", "hello")] {
        let client = Client::connect(outrigger.web());
        let mut made = request("POST", "/");
        made.headers_mut().insert("content-length", HeaderValue::from_static(length));
        match client.ask(made, body.as_bytes(), None) {
            Ok(answer) => assert!((400..500).contains(&answer.status()), "{length} {body}: {}", answer.status()),
            Err(problem) => assert!(problem.is_reset() || problem.is_go_away(), "{length} {body}: {problem}"),
        }
    }
    let status = outrigger.idle();
    assert_eq!(status["upstreams"][0]["endpoints"][0]["breaker"], "closed", "the client's fault");
    assert!(app.requests().iter().all(|request| request.end != BodyEnd::Whole), "{:#?}", app.requests());
}

/// An app that takes a head, says nothing, and tells how its connection ended.
fn silent() -> (RawApp, mpsc::Receiver<End>) {
    let (tell, told) = mpsc::channel();
    let tell = Mutex::new(tell);
    let app = RawApp::start(move |mut conn| {
        if conn.request().is_some() {
            let end = conn.wait_for_the_end();
            let _ = tell.lock().expect("lock").send(end);
        }
    });
    (app, told)
}

#[test]
fn a_stream_that_is_reset_frees_the_app_at_once() {
    let (app, told) = silent();
    let outrigger = Outrigger::before(&app, "");
    let client = Client::connect(outrigger.web());
    let (response, mut stream) = client.open(request("GET", "/left"), true);
    app.wait_for_requests(1);
    assert_eq!(outrigger.status()["in_flight"], 1);
    stream.send_reset(Reason::CANCEL);
    assert_ne!(told.recv_timeout(DEADLINE).expect("the app's connection ends"), End::Deadline);
    let status = outrigger.idle();
    assert_eq!(status["upstreams"][0]["endpoints"][0]["breaker"], "closed");
    assert!(client.run(response).is_err());
    let line = outrigger.wait_for_access("the stream that was reset", |line| line.to_string().contains("/left"));
    assert!(line.to_string().contains("client_gone"), "{line}");
    assert_eq!(outrigger.status()["connections"], 1, "the connection lives on");
}

#[test]
fn a_body_that_is_reset_midway_is_not_whole_for_the_app() {
    let app = RawApp::fine();
    let outrigger = Outrigger::before(&app, "");
    let client = Client::connect(outrigger.web());
    let (response, mut stream) = client.open(request("POST", "/"), false);
    stream.reserve_capacity(5);
    stream.send_data(Bytes::from_static(b"hello"), false).expect("a piece");
    outrigger.status_until("it is in flight", |status| status["in_flight"] == 1);
    stream.send_reset(Reason::CANCEL);
    assert!(client.run(response).is_err());
    outrigger.idle();
    assert!(app.requests().iter().all(|request| request.end != BodyEnd::Whole), "{:#?}", app.requests());
}

#[test]
fn an_early_answer_ends_the_upload() {
    let app = RawApp::start(|mut conn| {
        if conn.head().is_ok() {
            conn.send("HTTP/1.1 413 Content Too Large\r\ncontent-length: 3\r\nconnection: close\r\n\r\nbig");
            conn.half_close();
            conn.drain();
        }
    });
    let outrigger = Outrigger::before(&app, "");
    let client = Client::connect(outrigger.web());
    let (response, mut stream) = client.open(request("POST", "/"), false);
    stream.reserve_capacity(1 << 20);
    stream.send_data(Bytes::from(vec![b'x'; 1 << 20]), false).expect("a piece");
    let answer = client.run(collect(response)).expect("an answer");
    assert_eq!((answer.status(), answer.text().as_str()), (413, "big"));
    drop(stream);
    outrigger.idle();
}

#[test]
fn policies_speak_before_the_body() {
    let app = RawApp::fine();
    let extra = "rate_limits: { one: { key: [client_ip], rate: 1/h, burst: 1 } }\n\
        routes: [{ name: limited, match: { path: \"/*\" }, rate_limits: [one], body_max: 10B }]\n";
    let outrigger = Outrigger::before(&app, extra);
    let client = Client::connect(outrigger.web());
    assert_eq!(client.get("/").status(), 200);
    let (response, _stream) = client.open(request("POST", "/"), false);
    let answer = client.run(collect(response)).expect("an answer before the body");
    assert_eq!((answer.status(), answer.reason().as_str()), (429, "rate_limited"));
    assert!(answer.get("retry-after").is_some());
    assert_eq!(app.requests().len(), 1);
}

#[test]
fn events_are_flushed_at_once() {
    let (go, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let app = RawApp::start(move |mut conn| {
        if conn.request().is_none() {
            return;
        }
        conn.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n");
        for number in 0..3 {
            conn.send(format!("9\r\ndata: {number}\n\n\r\n"));
            if wait.lock().expect("lock").recv_timeout(DEADLINE).is_err() {
                return;
            }
        }
        conn.send("0\r\n\r\n");
    });
    let outrigger = Outrigger::before(&app, "");
    let client = Client::connect(outrigger.web());
    let (response, _) = client.open(request("GET", "/"), true);
    let mut body = client.run(response).expect("the head").into_body();
    for number in 0..3 {
        let piece = client.run(body.data()).expect("more").expect("an event");
        assert_eq!(piece, format!("data: {number}\n\n"));
        go.send(()).expect("the app waits");
    }
    // An empty last frame is as good an end as none.
    while let Some(piece) = client.run(body.data()) {
        assert!(piece.expect("an orderly end").is_empty());
    }
}

#[test]
fn a_slow_body_is_answered_408() {
    let app = RawApp::fine();
    let extra = "timeouts: { request_body: { rate_min: 1000B/s, grace: 200ms } }\n";
    let outrigger = Outrigger::before(&app, extra);
    let client = Client::connect(outrigger.web());
    let (response, _stream) = client.open(Request::from_parts(request("POST", "/").into_parts().0, ()), false);
    let answer = client.run(collect(response)).expect("an answer");
    assert_eq!((answer.status(), answer.reason().as_str()), (408, "request_body_timeout"));
    assert_eq!(client.get("/").status(), 200, "the other streams go on");
}
