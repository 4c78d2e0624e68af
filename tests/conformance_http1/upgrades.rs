//! WebSockets and other upgrades: row 15. Raw bytes flow only after the app's 101, and only for requests that may
//! upgrade at all.

use std::sync::Mutex;
use std::sync::mpsc;

use crate::support::app::OK;
use crate::support::{DEADLINE, End, Outrigger, RawApp, Wire, wire};

const ASK: &str = "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// Switches and sends back what comes.
fn echo() -> RawApp {
    RawApp::start(|mut conn| {
        if conn.request().is_none() {
            return;
        }
        conn.send(SWITCH);
        while let Ok(piece) = conn.piece() {
            conn.send(piece);
        }
    })
}

#[test]
fn row_15_bytes_flow_both_ways_after_101() {
    let app = echo();
    let outrigger = Outrigger::before(&app, "");
    let mut client = Wire::connect(outrigger.web());
    client.send(ASK);
    let answer = client.response("GET");
    assert_eq!(answer.status, 101);
    assert_eq!(answer.get("upgrade"), Some("websocket"));
    assert!(answer.get("connection").is_some_and(|value| value.eq_ignore_ascii_case("upgrade")));
    assert_eq!(answer.get("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    for round in 0..50 {
        let message = format!("message {round} \r\n\r\nGET / HTTP/1.1\r\n");
        client.send(&message);
        assert_eq!(client.exactly(message.len()).expect("the echo"), message.as_bytes());
    }
    let seen = app.only_request();
    assert_eq!(seen.get("upgrade"), Some("websocket"));
    assert!(seen.get("connection").is_some_and(|value| value.eq_ignore_ascii_case("upgrade")));
    assert_eq!(outrigger.status()["upgraded"], 1);
    drop(client);
    outrigger.status_until("the tunnel is closed", |status| status["upgraded"] == 0 && status["in_flight"] == 0);
}

#[test]
fn row_15_a_tunnel_moves_megabytes() {
    let app = echo();
    let outrigger = Outrigger::before(&app, "");
    let mut client = Wire::connect(outrigger.web());
    client.send(ASK);
    assert_eq!(client.response("GET").status, 101);
    let data: Vec<u8> = (0..8 << 20).map(|at: u32| (at % 251) as u8).collect();
    let writer = client.stream().try_clone().expect("a second handle");
    let sent = data.clone();
    let writer = std::thread::spawn(move || Wire::new(writer, None).send(sent));
    let back = client.exactly(data.len()).expect("all of it");
    assert!(writer.join().expect("the writer"));
    assert!(back == data, "the bytes differ");
}

#[test]
fn row_15_bytes_sent_with_the_switch_arrive() {
    // The app may speak in the same packet as its 101.
    let app = RawApp::start(|mut conn| {
        if conn.request().is_some() {
            conn.send(format!("{SWITCH}hello"));
            conn.wait_for_the_end();
        }
    });
    let outrigger = Outrigger::before(&app, "");
    let mut client = Wire::connect(outrigger.web());
    client.send(ASK);
    assert_eq!(client.response("GET").status, 101);
    assert_eq!(client.exactly(5).expect("the first bytes"), b"hello");
}

#[test]
fn row_15_either_side_may_end_the_tunnel() {
    let app = RawApp::start(|mut conn| {
        if conn.request().is_some() {
            conn.send(SWITCH);
            let _ = conn.until(b"bye");
        }
    });
    let outrigger = Outrigger::before(&app, "");
    let mut client = Wire::connect(outrigger.web());
    client.send(ASK);
    assert_eq!(client.response("GET").status, 101);
    client.send("bye");
    assert_ne!(client.rest().1, End::Deadline);
    let (tell, told) = mpsc::channel();
    let tell = Mutex::new(tell);
    let app = RawApp::start(move |mut conn| {
        if conn.request().is_some() {
            conn.send(SWITCH);
            let end = conn.wait_for_the_end();
            let _ = tell.lock().expect("lock").send(end);
        }
    });
    let outrigger = Outrigger::before(&app, "");
    let mut client = Wire::connect(outrigger.web());
    client.send(ASK);
    assert_eq!(client.response("GET").status, 101);
    drop(client);
    assert_ne!(told.recv_timeout(DEADLINE).expect("the app sees the end"), End::Deadline);
    outrigger.status_until("nothing is left", |status| status["upgraded"] == 0);
}

#[test]
fn row_15_without_101_the_connection_stays_http() {
    // The client sends more right behind its upgrade request. The app declines; those bytes are a request like any
    // other, and must go through every rule, not through a tunnel.
    let app = RawApp::answering(OK);
    let outrigger = Outrigger::before(&app, "");
    let mut client = Wire::connect(outrigger.web());
    client.send(format!("{ASK}GET /behind HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n"));
    let answer = client.response("GET");
    assert_eq!(answer.status, 200);
    assert_eq!(client.response("GET").status, 200);
    let seen = app.requests();
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[1].target(), "/behind");
    assert_eq!(seen[1].get("x-forwarded-for"), Some("127.0.0.1"));
    assert!(seen[1].get("via").is_some());
    assert_eq!(outrigger.idle()["upgraded"], 0);
}

#[test]
fn row_15_a_refusal_of_the_app_passes() {
    let app = RawApp::answering("HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno");
    let outrigger = Outrigger::before(&app, "");
    let mut client = Wire::connect(outrigger.web());
    client.send(ASK);
    let answer = client.response("GET");
    assert_eq!((answer.status, answer.text().as_str()), (403, "no"));
}

#[test]
fn row_15_an_upgrade_with_a_body_is_refused() {
    let app = RawApp::fine();
    let outrigger = Outrigger::before(&app, "");
    for framing in ["Content-Length: 5\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"] {
        let request = ASK.trim_end().to_owned() + "\r\n" + framing;
        let answer = wire::ask(outrigger.web(), request);
        assert_eq!((answer.status, answer.reason().as_str()), (400, "upgrade_with_body"));
    }
    assert!(app.untouched());
}

#[test]
fn row_15_requests_that_may_not_upgrade_lose_the_wish() {
    let app = RawApp::fine();
    let outrigger = Outrigger::before(&app, "");
    for (name, request) in [
        ("POST", ASK.replace("GET ", "POST ").replace("\r\n\r\n", "\r\nContent-Length: 0\r\n\r\n")),
        ("HTTP/1.0", ASK.replace("HTTP/1.1", "HTTP/1.0")),
        ("Connection does not name it", ASK.replace("Connection: Upgrade", "Connection: keep-alive")),
        ("h2c", ASK.replace("Upgrade: websocket", "Upgrade: h2c")),
        ("TLS", ASK.replace("Upgrade: websocket", "Upgrade: TLS/1.0")),
    ] {
        let before = app.requests().len();
        let answer = wire::ask(outrigger.web(), request);
        if answer.status == 200 {
            let seen = &app.requests()[before];
            assert_eq!(seen.get("upgrade"), None, "{name}");
            let connection = seen.get("connection").unwrap_or_default().to_ascii_lowercase();
            assert!(!connection.contains("upgrade"), "{name}: {connection}");
        } else {
            assert_eq!(answer.status, 400, "{name}");
        }
    }
}

#[test]
fn row_15_an_upgrade_outlives_the_total_timer() {
    let app = echo();
    let extra = "timeouts: { total: 300ms, first_byte: 200ms, idle: 20s }\n";
    let outrigger = Outrigger::before(&app, extra);
    let mut client = Wire::connect(outrigger.web());
    client.send(ASK);
    assert_eq!(client.response("GET").status, 101);
    let begun = std::time::Instant::now();
    while begun.elapsed().as_millis() < 900 {
        client.send("ping");
        assert_eq!(client.exactly(4).expect("the echo"), b"ping");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

#[test]
fn row_15_an_idle_tunnel_is_closed() {
    let app = echo();
    let outrigger = Outrigger::before(&app, "timeouts: { idle: 300ms }\n");
    let mut client = Wire::connect(outrigger.web());
    client.send(ASK);
    assert_eq!(client.response("GET").status, 101);
    assert_ne!(client.rest().1, End::Deadline);
    outrigger.status_until("nothing is left", |status| status["upgraded"] == 0);
}
