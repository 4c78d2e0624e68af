//! What a peer may send, and how long it may take: rows 30 and 31, and the timers of a client's connection.

use crate::support::{End, Outrigger, RawApp, Wire, wire};

fn with_fields(count: usize) -> String {
    let fields: String = (0..count).map(|number| format!("x-{number}: 1\r\n")).collect();
    format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")
}

#[test]
fn row_30_too_many_fields_are_431() {
    let app = RawApp::fine();
    let outrigger = Outrigger::before(&app, "");
    assert_eq!(wire::ask(outrigger.web(), with_fields(80)).status, 200);
    let (answer, end) = wire::exchange(outrigger.web(), with_fields(120));
    assert!(answer.starts_with(b"HTTP/1.1 431"), "{:?}", String::from_utf8_lossy(&answer));
    assert_ne!(end, End::Deadline);
    assert_eq!(app.requests().len(), 1);
}

#[test]
fn row_31_a_large_head_is_431() {
    let app = RawApp::fine();
    let outrigger = Outrigger::before(&app, "");
    let with = |size: usize| format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(size));
    assert_eq!(wire::ask(outrigger.web(), with(16 * 1024)).status, 200);
    assert_eq!(app.only_request().get("x").map(str::len), Some(16 * 1024));
    for size in [40 * 1024, 500 * 1024] {
        let mut client = Wire::connect(outrigger.web());
        // It may be answered and closed while we still send.
        client.send(with(size));
        let (answer, end) = client.rest();
        assert_ne!(end, End::Deadline, "{size}");
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 431"), "{:?}", String::from_utf8_lossy(&answer));
        assert!(size > 100 * 1024 || !answer.is_empty(), "{size}: a reset ate the answer");
    }
    assert_eq!(app.requests().len(), 1);
}

#[test]
fn a_long_target_is_refused() {
    let app = RawApp::fine();
    let outrigger = Outrigger::before(&app, "");
    assert_eq!(wire::get(outrigger.web(), &format!("/{}", "x".repeat(8 * 1024))).status, 200);
    let (answer, _) =
        wire::exchange(outrigger.web(), format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(100 * 1024)));
    let text = String::from_utf8_lossy(&answer);
    let status = text.get(9..12).unwrap_or("none");
    assert!(["414", "431", "none"].contains(&status), "{text}");
    assert_eq!(app.requests().len(), 1);
}

#[test]
fn a_slow_head_is_408() {
    let app = RawApp::fine();
    let outrigger = Outrigger::before(&app, "timeouts: { request_header: 300ms }\n");
    let mut client = Wire::connect(outrigger.web());
    client.send("GET / HTTP/1.1\r\nHost: a\r\nX: ");
    let (answer, end) = client.rest();
    assert!(answer.starts_with(b"HTTP/1.1 408"), "{:?}", String::from_utf8_lossy(&answer));
    assert_ne!(end, End::Deadline);
    assert!(app.untouched());
    // It is measured from the head's first byte to its end, however often a byte comes.
    let mut client = Wire::connect(outrigger.web());
    client.send("GET / HTTP/1.1\r\nHost: a\r\nX: ");
    let reader = client.stream().try_clone().expect("a second handle");
    let reader = std::thread::spawn(move || Wire::new(reader, None).rest());
    let begun = std::time::Instant::now();
    while begun.elapsed().as_secs() < 10 && client.send("x") {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert!(begun.elapsed().as_secs() < 10, "a byte now and then kept it alive");
    let (answer, _) = reader.join().expect("the reader");
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 408"), "{:?}", String::from_utf8_lossy(&answer));
}

#[test]
fn a_slow_second_head_is_408_too() {
    let app = RawApp::fine();
    let outrigger = Outrigger::before(&app, "timeouts: { request_header: 300ms }\n");
    let mut client = Wire::connect(outrigger.web());
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /second HTTP/1.1\r\n");
    assert_eq!(client.response("GET").status, 200);
    assert_eq!(client.response("GET").status, 408);
    assert_ne!(client.rest().1, End::Deadline);
    assert_eq!(app.requests().len(), 1);
}

#[test]
fn an_idle_connection_is_closed_without_a_word() {
    let app = RawApp::fine();
    let outrigger = Outrigger::before(&app, "timeouts: { keep_alive: 300ms }\n");
    let mut client = Wire::connect(outrigger.web());
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.response("GET").status, 200);
    assert_eq!(client.rest(), (Vec::new(), End::Closed));
    let mut client = Wire::connect(outrigger.web());
    assert_eq!(client.rest(), (Vec::new(), End::Closed), "one that never said anything");
}

#[test]
fn a_pause_between_requests_is_not_a_slow_head() {
    let app = RawApp::fine();
    let outrigger = Outrigger::before(&app, "timeouts: { request_header: 100ms, keep_alive: 30s }\n");
    let mut client = Wire::connect(outrigger.web());
    for _ in 0..3 {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.response("GET").status, 200);
        std::thread::sleep(std::time::Duration::from_millis(250));
    }
}

#[test]
fn connections_above_the_limit_of_one_client_do_not_stop_the_others() {
    let app = RawApp::fine();
    let extra = "listeners: [{ name: web, address: \"127.0.0.1:0\", connections: { max: 100, per_client: 5 } }]\n";
    let outrigger = Outrigger::before(&app, extra);
    let held: Vec<Wire> = (0..5)
        .map(|_| {
            let mut client = Wire::connect(outrigger.web());
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            assert_eq!(client.response("GET").status, 200);
            client
        })
        .collect();
    let mut more = Wire::connect(outrigger.web());
    more.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let (answer, end) = more.rest();
    assert!(!answer.starts_with(b"HTTP/1.1 200"), "{:?}", String::from_utf8_lossy(&answer));
    assert_ne!(end, End::Deadline, "it is told at once");
    // Another client: another loopback address.
    let other = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    other.bind(&"127.0.0.2:0".parse::<std::net::SocketAddr>().expect("an address").into()).expect("bind");
    other.connect(&outrigger.web().into()).expect("connect");
    let mut other = Wire::new(other.into(), None);
    other.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(other.response("GET").status, 200);
    drop(held);
    crate::support::eventually("the places are free again", || {
        let mut client = Wire::connect(outrigger.web());
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        client.try_response("GET").ok().filter(|answer| answer.status == 200)
    });
}

#[test]
fn a_head_that_cannot_be_read_is_refused_like_a_request() {
    // Goal: whoever is told 431 or 400 can be found by id in the log, in `why` and in the metric.
    let app = RawApp::fine();
    let outrigger = Outrigger::before(&app, "");
    let large = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(33 * 1024));
    for (head, status, reason) in [
        (with_fields(120), 431, "too_many_fields"),
        (large, 431, "head_too_large"),
        ("GET / HTTP/1.1\nHost: a\n\n".to_owned(), 400, "bare_lf"),
        ("GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n".to_owned(), 400, "obs_fold"),
        ("GET / HTTP/3.7\r\nHost: a\r\n\r\n".to_owned(), 400, "version"),
    ] {
        let answer = wire::ask(outrigger.web(), head);
        assert_eq!((answer.status, answer.reason().as_str()), (status, reason));
        assert_eq!(answer.get("connection"), Some("close"));
        let id = answer.get("x-request-id").expect("an id").to_owned();
        assert_eq!(answer.json()["request_id"], id.as_str());
        let line = outrigger.wait_for_access(reason, |line| line["request_id"] == id.as_str());
        assert_eq!((&line["reason"], &line["http.request.method"]), (&reason.into(), &"-".into()), "{line}");
        assert_eq!(outrigger.why(&id)["reason"], reason);
        assert_eq!(outrigger.metric("outrigger_refusals_total", &format!("reason=\"{reason}\"")), 1.0);
    }
    assert!(app.untouched());
    outrigger.idle();
}

#[test]
fn a_slow_head_is_refused_like_a_request() {
    let app = RawApp::fine();
    let outrigger = Outrigger::before(&app, "timeouts: { request_header: 100ms }\n");
    let answer = wire::ask(outrigger.web(), "GET / HTTP/1.1\r\nHost");
    assert_eq!((answer.status, answer.reason().as_str()), (408, "request_header_timeout"));
    assert_eq!(answer.get("connection"), Some("close"));
    let id = answer.get("x-request-id").expect("an id").to_owned();
    let line = outrigger.wait_for_access("the slow head", |line| line["request_id"] == id.as_str());
    assert_eq!(
        (&line["reason"], &line["http.request.method"]),
        (&"request_header_timeout".into(), &"-".into()),
        "{line}"
    );
    assert_eq!(outrigger.why(&id)["reason"], "request_header_timeout");
    assert_eq!(outrigger.metric("outrigger_refusals_total", "reason=\"request_header_timeout\""), 1.0);
    assert!(app.untouched());
    outrigger.idle();
}

#[test]
fn an_answer_with_an_unusable_head_is_told_with_its_cause() {
    let fields: String = (0..200).map(|number| format!("x-{number}: 1\r\n")).collect();
    let app = RawApp::answering_and_closing(format!("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n{fields}\r\n"));
    let outrigger = Outrigger::before(&app, "");
    let answer = wire::get(outrigger.web(), "/");
    assert_eq!((answer.status, answer.reason().as_str()), (502, "response_malformed"));
    let why = outrigger.why_told(&answer);
    assert!(why.contains("note: ") && why.matches("The head has too many fields").count() == 1, "{why}");
}
