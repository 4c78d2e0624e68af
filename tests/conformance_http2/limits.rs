//! What one HTTP/2 connection may cost, and how it ends in a drain.

use h2::Reason;
use http::HeaderValue;

use crate::support::app::OK;
use crate::support::frames::{
    CONTINUATION, DATA, Frames, GET, HEADERS, Outcome, RST_STREAM, SETTINGS, WINDOW_UPDATE, block, frame,
};
use crate::support::http2::{Client, collect, request};
use crate::support::wire::End;
use crate::support::{DEADLINE, Outrigger, RawApp, Wire, wire};

#[test]
fn a_large_head_is_refused() {
    let app = RawApp::fine();
    let outrigger = Outrigger::before(&app, "");
    let client = Client::connect(outrigger.web());
    let with = |size: usize| {
        let mut made = request("GET", "/");
        made.headers_mut().insert("x-large", HeaderValue::from_str(&"x".repeat(size)).expect("a value"));
        made
    };
    assert_eq!(client.ask(with(8 * 1024), &[], None).expect("an answer").status(), 200);
    match client.ask(with(200 * 1024), &[], None) {
        Ok(answer) => assert_eq!(answer.status(), 431),
        Err(problem) => assert!(problem.is_reset() || problem.is_go_away(), "{problem}"),
    }
    assert_eq!(app.requests().len(), 1);
    assert_eq!(wire::get(outrigger.web(), "/").status, 200);
}

#[test]
fn why_a_connection_ends_arrives_though_the_client_still_sends() {
    let app = RawApp::fine();
    let outrigger = Outrigger::before(&app, "");
    let piece = vec![b'x'; 16 * 1024];
    for _ in 0..50 {
        // A head of 320 KiB in one write, and no end to it: most of it is unread when the answer is sent.
        let mut sent = frame(HEADERS, 0, 1, &block(GET));
        (0..20).for_each(|_| sent.extend(frame(CONTINUATION, 0, 1, &piece)));
        let mut frames = Frames::connect(outrigger.web());
        assert!(frames.wire.send(&sent));
        assert_eq!(frames.outcome(1), Outcome::Goaway);
        // A reset instead of an orderly end would take the GOAWAY from a client that writes before it reads.
        assert_eq!(frames.next(), Err(End::Closed));
    }
    assert_eq!(app.requests().len(), 0);
}

#[test]
fn rapid_resets_do_not_become_connections_at_the_app() {
    // Streams that are opened and reset in the same packet; another client must be served throughout, and what the
    // app sees of it is bounded.
    let app = RawApp::start(|mut conn| while conn.request().is_some() && conn.send(OK) {});
    let outrigger = Outrigger::before(&app, "");
    let (web, resets) = (outrigger.web(), 20_000_u32);
    let flood = std::thread::spawn(move || {
        let mut opened = 0;
        while opened < resets {
            let mut frames = Frames::connect(web);
            for number in 0..resets {
                let stream = number * 2 + 1;
                let sent =
                    frames.headers(stream, GET, true) && frames.send(RST_STREAM, 0, stream, &8_u32.to_be_bytes());
                opened += 1;
                if !sent || opened >= resets {
                    break;
                }
            }
        }
    });
    let mut good = Wire::connect(outrigger.web());
    let mut served = 0;
    while !flood.is_finished() || served < 50 {
        good.send("GET /good HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(good.response("GET").status, 200);
        served += 1;
    }
    flood.join().expect("the flood");
    let bad = app.requests().iter().filter(|request| request.target() != "/good").count();
    assert!(
        app.connections() < 2000 && bad < 4000,
        "{} connections, {bad} requests for 20000 resets",
        app.connections()
    );
    outrigger.idle();
}

#[test]
fn a_slow_stream_holds_the_app_back_and_costs_no_memory() {
    const LARGE: usize = 64 << 20;
    let app = RawApp::start(|conn| {
        let mut conn = conn.into_slow();
        conn.request();
        conn.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {LARGE}\r\n\r\n"));
        let piece = vec![b'x'; 64 * 1024];
        for _ in 0..LARGE / piece.len() {
            if !conn.send(&piece) {
                return;
            }
        }
        conn.wait_for_the_end();
    });
    let outrigger = Outrigger::before(&app, "");
    let before = outrigger.memory();
    let client = Client::connect(outrigger.web());
    // Nine streams that nobody reads, and one that is read: it must not starve behind them.
    let held: Vec<_> = (0..9).map(|_| client.open(request("GET", "/"), true)).collect();
    let answers: Vec<_> = held.into_iter().map(|(response, _)| client.run(response).expect("a head")).collect();
    let (response, _) = client.open(request("GET", "/"), true);
    let mut body = client.run(response).expect("a head").into_body();
    let mut got = 0;
    while got < 1 << 20 {
        let piece = client.run(body.data()).expect("more").expect("a piece");
        body.flow_control().release_capacity(piece.len()).expect("capacity");
        got += piece.len();
    }
    let grown = outrigger.memory().saturating_sub(before);
    assert!(grown < 16 << 20, "grew by {grown} bytes for ten streams");
    drop((answers, body));
    outrigger.idle();
}

#[test]
fn a_drain_says_goaway_and_finishes_the_streams() {
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let app = RawApp::start(move |mut conn| {
        conn.request();
        let _ = wait.lock().expect("lock").recv_timeout(DEADLINE);
        conn.send(OK);
    });
    let mut outrigger = Outrigger::before(&app, "");
    let client = Client::connect(outrigger.web());
    let (response, _) = client.open(request("GET", "/"), true);
    app.wait_for_requests(1);
    outrigger.terminate();
    outrigger.status_until("it drains", |status| status["stage"] != "serving" && status["stage"] != "running");
    go.send(()).expect("the app waits");
    let answer = client.run(collect(response)).expect("the stream in flight");
    assert_eq!((answer.status(), answer.text().as_str(), answer.broken.is_none()), (200, "ok", true));
    let ended = client.ended.recv_timeout(DEADLINE).expect("the connection ends");
    assert!(ended.is_ok(), "{ended:?}");
    assert!(outrigger.wait().success());
    let report = outrigger.drain_report();
    assert_eq!((&report["finished"], &report["cut"]), (&1.into(), &0.into()), "{report}");
}

#[test]
fn a_stream_that_does_not_end_is_reset_when_the_drain_is_over() {
    let app = RawApp::start(|mut conn| {
        conn.request();
        conn.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n");
        conn.wait_for_the_end();
    });
    let mut outrigger = Outrigger::before(&app, "drain: { delay: 0s, timeout: 300ms }\n");
    let client = Client::connect(outrigger.web());
    let (response, _) = client.open(request("GET", "/"), true);
    let mut body = client.run(response).expect("a head").into_body();
    assert!(client.run(body.data()).expect("a piece").is_ok());
    outrigger.terminate();
    let end = loop {
        match client.run(body.data()) {
            Some(Ok(_)) => {}
            other => break other,
        }
    };
    let problem = end.expect("never an orderly end").expect_err("it was cut");
    assert_ne!(problem.reason(), Some(Reason::NO_ERROR), "{problem}");
    outrigger.wait();
    let report = outrigger.drain_report();
    assert_eq!((&report["finished"], &report["cut"]), (&0.into(), &1.into()), "{report}");
}

#[test]
fn many_streams_by_hand_are_answered() {
    let app = RawApp::fine();
    let outrigger = Outrigger::before(&app, "");
    let mut frames = Frames::connect(outrigger.web());
    for number in 0..50 {
        frames.headers(number * 2 + 1, GET, true);
        assert_eq!(frames.outcome(number * 2 + 1), Outcome::Answer(200));
    }
    assert_eq!(app.connections(), 1);
}

#[test]
fn a_client_that_opens_no_window_holds_no_place() {
    // Goal: the app has done its part when it has answered, whether or not the client takes the answer.
    let app = RawApp::fine();
    let upstreams =
        format!("upstreams: {{ app: {{ endpoints: [\"http://{}\"], concurrency: {{ max: 2 }} }} }}\n", app.address());
    let outrigger = Outrigger::before(&app, &upstreams);
    let mut frames = Frames::connect(outrigger.web());
    frames.send(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]); // no window for new streams
    for stream in [1, 3, 5, 7] {
        assert!(frames.headers(stream, GET, true));
        while frames.next().expect("a head").kind != HEADERS {}
    }
    for _ in 0..5 {
        assert_eq!(wire::get(outrigger.web(), "/").status, 200);
    }
    // It still gets what it asked for.
    let window = 100_u32.to_be_bytes();
    assert!(frames.send(WINDOW_UPDATE, 0, 1, &window));
    loop {
        let frame = frames.next().expect("the rest");
        if frame.kind == DATA && frame.stream == 1 {
            assert_eq!(frame.payload, b"ok");
            break;
        }
    }
}

#[test]
fn a_head_that_is_somewhat_too_large_is_refused_like_a_request() {
    let app = RawApp::fine();
    let outrigger = Outrigger::before(&app, "");
    let client = Client::connect(outrigger.web());
    let mut large = request("GET", "/");
    large.headers_mut().insert("x-large", HeaderValue::from_str(&"x".repeat(40 * 1024)).expect("a value"));
    let mut many = request("GET", "/");
    for number in 0..101 {
        let name = http::HeaderName::try_from(format!("x-{number}")).expect("a name");
        many.headers_mut().insert(name, HeaderValue::from_static("1"));
    }
    for (made, reason) in [(large, "head_too_large"), (many, "too_many_fields")] {
        let answer = client.ask(made, &[], None).expect("an answer");
        assert_eq!((answer.status(), answer.reason().as_str()), (431, reason));
        let id = answer.get("x-request-id").expect("an id").to_owned();
        let line = outrigger.wait_for_access(reason, |line| line["request_id"] == id.as_str());
        assert_eq!(line["reason"], reason, "{line}");
        assert_eq!(outrigger.metric("outrigger_refusals_total", &format!("reason=\"{reason}\"")), 1.0);
    }
    // The connection goes on.
    assert_eq!(client.ask(request("GET", "/"), &[], None).expect("an answer").status(), 200);
    assert_eq!(app.requests().len(), 1);
    outrigger.idle();
}

#[test]
fn cookies_on_many_lines_are_one_field() {
    // RFC 9113 §8.2.3: a client may send each cookie as a line of its own.
    let app = RawApp::fine();
    let outrigger = Outrigger::before(&app, "");
    let client = Client::connect(outrigger.web());
    let mut cookies = request("GET", "/");
    for number in 0..150 {
        let value = HeaderValue::try_from(format!("c{number}=1")).expect("a value");
        cookies.headers_mut().append("cookie", value);
    }
    assert_eq!(client.ask(cookies, &[], None).expect("an answer").status(), 200);
    let cookies = app.only_request().get("cookie").map(|line| line.split("; ").count());
    assert_eq!(cookies, Some(150));
}
