//! Clients that are old, half closed, or gone: rows 16, 25, 26 and 27.

use std::sync::Mutex;
use std::sync::mpsc::{self, Receiver};

use crate::support::app::OK;
use crate::support::{BodyEnd, DEADLINE, End, Outrigger, RawApp, Wire, wire};

/// An app that takes a request, says nothing, and tells how its connection ended.
fn silent() -> (RawApp, Receiver<End>) {
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
fn row_16_an_http_1_0_client_is_served() {
    let app = RawApp::answering("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n");
    let outrigger = Outrigger::before(&app, "");
    let (raw, end) = wire::exchange(outrigger.web(), "GET / HTTP/1.0\r\nHost: a\r\n\r\n");
    let text = String::from_utf8_lossy(&raw).into_owned();
    assert_eq!(end, End::Closed);
    assert!(text.starts_with("HTTP/1.0 200") || text.starts_with("HTTP/1.1 200"), "{text}");
    assert!(!text.to_ascii_lowercase().contains("transfer-encoding"), "{text}");
    assert!(text.ends_with("\r\n\r\nok"), "{text}");
    let seen = app.only_request();
    assert_eq!(seen.version(), "HTTP/1.1", "the app is spoken to in 1.1");
    assert!(seen.get("connection").is_none_or(|value| !value.contains("close")), "its connection is kept");
}

#[test]
fn row_16_an_http_1_0_client_without_a_host_is_served() {
    let app = RawApp::fine();
    let outrigger = Outrigger::before(&app, "");
    let answer = wire::ask(outrigger.web(), "GET / HTTP/1.0\r\n\r\n");
    assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
    // HTTP/1.1 needs a Host, even where the client had none.
    assert_eq!(app.only_request().head.all("host").len(), 1);
}

#[test]
fn row_16_an_http_1_0_client_may_keep_its_connection() {
    let app = RawApp::fine();
    let outrigger = Outrigger::before(&app, "");
    let mut client = Wire::connect(outrigger.web());
    for _ in 0..2 {
        client.send("GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n");
        let answer = client.response("GET");
        assert_eq!((answer.text().as_str(), answer.end), ("ok", BodyEnd::Whole));
        assert!(answer.get("connection").is_some_and(|value| value.eq_ignore_ascii_case("keep-alive")));
    }
}

#[test]
fn row_25_a_client_that_half_closes_has_left() {
    // Unless it is told otherwise, below. What must hold: no half answer, the app's connection is freed, nothing stays
    // in flight.
    let (app, told) = silent();
    let outrigger = Outrigger::before(&app, "");
    let mut client = Wire::connect(outrigger.web());
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    app.wait_for_requests(1);
    client.half_close();
    let (answer, end) = client.rest();
    assert_eq!((String::from_utf8_lossy(&answer).as_ref(), end), ("", End::Closed));
    assert_ne!(told.recv_timeout(DEADLINE).expect("the app's connection ends"), End::Deadline);
    outrigger.idle();
}

#[test]
fn row_25_a_client_that_half_closes_may_wait_for_its_answers() {
    let (seen, may_answer) = mpsc::channel();
    let may_answer = Mutex::new(may_answer);
    let app = RawApp::start(move |mut conn| {
        while conn.request().is_some() {
            may_answer.lock().expect("one at a time").recv().expect("the client has ended its side");
            conn.send(OK);
        }
    });
    let listeners = "listeners: [{ name: web, address: \"127.0.0.1:0\", half_close: true }]\n";
    let outrigger = Outrigger::before(&app, listeners);
    for request in [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
        "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        let mut client = Wire::connect(outrigger.web());
        client.send(request);
        client.half_close();
        outrigger.status_until("it is in flight", |status| status["in_flight"] == 1);
        for _ in 0..request.matches("Host").count() {
            seen.send(()).expect("the app waits");
            assert_eq!(client.response("GET").text(), "ok", "{request}");
        }
        assert_eq!(client.rest(), (Vec::new(), End::Closed));
    }
    // Half a body is never a whole one.
    let mut client = Wire::connect(outrigger.web());
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhel");
    client.half_close();
    let answer = client.response("POST");
    assert_eq!((answer.status, answer.reason().as_str()), (400, "request_broken"));
    assert_eq!(app.requests().len(), 4);
    outrigger.idle();
}

#[test]
fn row_26_a_client_that_leaves_frees_the_app_at_once() {
    for reset in [false, true] {
        let (app, told) = silent();
        let outrigger = Outrigger::before(&app, "");
        let mut client = Wire::connect(outrigger.web());
        client.send("GET /left HTTP/1.1\r\nHost: a\r\n\r\n");
        app.wait_for_requests(1);
        outrigger.status_until("it is in flight", |status| status["in_flight"] == 1);
        if reset {
            client.reset();
        } else {
            drop(client);
        }
        assert_ne!(told.recv_timeout(DEADLINE).expect("the app's connection ends"), End::Deadline);
        let status = outrigger.idle();
        assert_eq!(status["upstreams"][0]["in_flight"], 0);
        assert_eq!(status["upstreams"][0]["endpoints"][0]["breaker"], "closed");
        assert_eq!(app.requests().len(), 1, "nobody is left to retry for");
        // Row 27: it is accounted for, too.
        let line = outrigger.wait_for_access("the client that left", |line| line.to_string().contains("/left"));
        assert!(line.to_string().contains("client_gone") && line["attempts"] == 1, "{line}");
    }
}

#[test]
fn row_27_a_client_that_leaves_within_an_answer_frees_everything() {
    let (tell, told) = mpsc::channel();
    let tell = Mutex::new(tell);
    let app = RawApp::start(move |mut conn| {
        if conn.request().is_none() {
            return;
        }
        conn.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
        while conn.send("4\r\nmore\r\n") {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        let _ = tell.lock().expect("lock").send(());
    });
    let outrigger = Outrigger::before(&app, "");
    let mut client = Wire::connect(outrigger.web());
    client.send("GET /stream HTTP/1.1\r\nHost: a\r\n\r\n");
    client.until(b"more").expect("the stream has begun");
    assert_eq!(outrigger.status()["in_flight"], 1);
    drop(client);
    told.recv_timeout(DEADLINE).expect("the app cannot write any more");
    outrigger.idle();
    let line = outrigger.wait_for_access("the client that left", |line| line.to_string().contains("/stream"));
    assert!(line.to_string().contains("client_gone"), "{line}");
}

#[test]
fn many_clients_that_leave_leave_nothing_behind() {
    let (app, _told) = silent();
    let outrigger = Outrigger::before(&app, "");
    for _ in 0..10 {
        let clients: Vec<Wire> = (0..20)
            .map(|_| {
                let mut client = Wire::connect(outrigger.web());
                client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
                client
            })
            .collect();
        drop(clients);
    }
    // The numbers are read one after the other: only with no connection left do they stand still.
    outrigger.status_until("no connection is left", |status| status["connections"] == 0);
    assert_eq!(outrigger.idle()["upstreams"][0]["in_flight"], 0);
    crate::support::eventually("the app's connections are closed", || (app.open() == 0).then_some(()));
}

#[test]
fn connections_are_kept_and_closed_as_asked() {
    let app = RawApp::start(|mut conn| while conn.request().is_some() && conn.send(OK) {});
    let outrigger = Outrigger::before(&app, "");
    let mut client = Wire::connect(outrigger.web());
    for _ in 0..5 {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let answer = client.response("GET");
        assert!(answer.get("connection").is_none_or(|value| !value.contains("close")));
    }
    assert_eq!(app.connections(), 1, "the app's connection is reused");
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let answer = client.response("GET");
    assert_eq!(answer.text(), "ok");
    assert_eq!(client.rest(), (Vec::new(), End::Closed));
    // The client's wish is about its own connection.
    assert_eq!(app.connections(), 1);
    assert!(app.requests()[5].get("connection").is_none_or(|value| !value.contains("close")));
}

#[test]
fn empty_lines_before_a_request_are_ignored() {
    let app = RawApp::fine();
    let outrigger = Outrigger::before(&app, "");
    let mut client = Wire::connect(outrigger.web());
    client.send("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.response("GET").status, 200);
    client.send("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.response("GET").status, 200);
}

#[test]
fn requests_come_in_any_pieces() {
    let app = RawApp::fine();
    let outrigger = Outrigger::before(&app, "");
    let mut client = Wire::connect(outrigger.web());
    for byte in b"POST /slow HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n" {
        client.send([*byte]);
        std::thread::yield_now();
    }
    assert_eq!(client.response("POST").status, 200);
    assert_eq!(app.only_request().body, b"hello");
}
