//! Answers of apps that are malformed, cut short, or longer than they said: rows 17–23, and response splitting.
//! What must hold: nothing that was not whole looks whole, and one answer's bytes are never another's.

use std::sync::Mutex;
use std::sync::mpsc::channel;

use crate::support::app::OK;
use crate::support::{BodyEnd, End, Outrigger, RawApp, Wire, wire};

const ONE_TRY: &str = "retry: { attempts: 1 }\n";

#[test]
fn row_17_an_http_1_0_app_is_understood() {
    let app = RawApp::answering_and_closing("HTTP/1.0 200 OK\r\n\r\nold but fine");
    let outrigger = Outrigger::before(&app, "");
    let mut client = Wire::connect(outrigger.web());
    for _ in 0..2 {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let answer = client.response("GET");
        assert_eq!(answer.head.word(0), "HTTP/1.1");
        assert_eq!((answer.text().as_str(), answer.end), ("old but fine", BodyEnd::Whole), "whole by its framing");
    }
    let app = RawApp::answering_and_closing("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let outrigger = Outrigger::before(&app, "");
    let answer = wire::get(outrigger.web(), "/");
    assert_eq!((answer.text().as_str(), answer.end), ("ok", BodyEnd::Whole));
}

#[test]
fn row_18_length_and_coding_together_never_pass() {
    let app = RawApp::answering(
        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    );
    let outrigger = Outrigger::before(&app, ONE_TRY);
    let answer = wire::get(outrigger.web(), "/");
    if answer.status == 200 {
        assert_eq!((answer.text().as_str(), answer.end), ("ok", BodyEnd::Whole));
        assert!(!(answer.head.chunked() && answer.head.has("content-length")));
    } else {
        assert_eq!((answer.status, answer.reason().as_str()), (502, "response_malformed"));
    }
    // What came on that connection is not trusted again.
    assert_eq!(wire::get(outrigger.web(), "/").status, answer.status);
    assert_eq!(app.connections(), 2);
}

#[test]
fn rows_19_and_20_answers_that_can_be_read_in_two_ways_are_502() {
    for (name, head) in [
        ("two lengths", "Content-Length: 2\r\nContent-Length: 3"),
        ("a list of lengths", "Content-Length: 2, 3"),
        ("a sign", "Content-Length: +2"),
        ("negative", "Content-Length: -2"),
        ("not a number", "Content-Length: two"),
        ("gzip", "Transfer-Encoding: gzip"),
        ("gzip, chunked", "Transfer-Encoding: gzip, chunked"),
        ("chunked twice", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
        ("chunked, identity", "Transfer-Encoding: chunked, identity"),
        ("space before colon", "Content-Length : 2"),
    ] {
        let app = RawApp::answering_and_closing(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\nok"));
        let outrigger = Outrigger::before(&app, ONE_TRY);
        let answer = wire::get(outrigger.web(), "/");
        assert_eq!(answer.status, 502, "{name}");
        assert!(!answer.text().contains("ok\r\n"), "{name}");
    }
}

#[test]
fn answers_that_are_not_http_are_502() {
    for (name, bytes) in [
        ("a banner", "220 mail.example ESMTP\r\n"),
        ("no version", "200 OK\r\n\r\n"),
        ("version 9.9", "HTTP/9.9 200 OK\r\nContent-Length: 0\r\n\r\n"),
        ("no status", "HTTP/1.1 OK\r\n\r\n"),
        ("a status of two digits", "HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n"),
        ("a status of four digits", "HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n"),
        ("a status below 100", "HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n"),
        ("TLS", "\x15\x03\x03\x00\x02\x02\x46"),
        ("nothing", ""),
        ("half a head", "HTTP/1.1 200 OK\r\nContent-Le"),
        ("101 that nobody asked for", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"),
    ] {
        let app = RawApp::answering_and_closing(bytes);
        let outrigger = Outrigger::before(&app, ONE_TRY);
        let answer = wire::get(outrigger.web(), "/");
        assert_eq!(answer.status, 502, "{name}: {}", answer.head.first);
        assert!(!answer.reason().is_empty(), "{name}");
        outrigger.idle();
    }
}

#[test]
fn answers_cannot_be_split() {
    // A value with CR, LF or NUL in the app's head must not become two lines or two answers for the client.
    for (name, value) in [
        ("bare CR", "a\rSet-Cookie: evil=1"),
        ("CR CR LF", "a\r\r\nSet-Cookie: evil=1"),
        ("NUL", "a\0Set-Cookie: evil=1"),
        ("folded", "a\r\n Set-Cookie: evil=1"),
    ] {
        let app =
            RawApp::answering_and_closing(format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: {value}\r\n\r\nok"));
        let outrigger = Outrigger::before(&app, ONE_TRY);
        let (raw, _) = wire::exchange(outrigger.web(), "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let text = String::from_utf8_lossy(&raw).into_owned();
        assert_eq!(text.matches("HTTP/1.1 ").count(), 1, "{name}: {text:?}");
        let head = text.split("\r\n\r\n").next().unwrap_or_default();
        assert!(!head.replace("\r\n", "").contains(['\r', '\n', '\0']), "{name}: {text:?}");
        assert!(!head.to_ascii_lowercase().contains("\r\nset-cookie"), "{name}: {text:?}");
        if !head.starts_with("HTTP/1.1 502") {
            assert!(head.starts_with("HTTP/1.1 200") && name == "folded", "{name}: {text:?}");
        }
    }
}

#[test]
fn row_21_bytes_behind_an_answer_are_never_the_next_answer() {
    // The app says more than it should; the poison must reach nobody, and its connection must not be used again.
    let poison = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison";
    for (name, head, body) in [
        ("204 with a body", "HTTP/1.1 204 No Content\r\n\r\n", ""),
        ("204 with a length", "HTTP/1.1 204 No Content\r\ncontent-length: 6\r\n\r\n", ""),
        ("304 with a body", "HTTP/1.1 304 Not Modified\r\n\r\n", ""),
        ("304 with a length", "HTTP/1.1 304 Not Modified\r\ncontent-length: 6\r\n\r\n", ""),
        ("bytes behind the length", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", "ok"),
        (
            "bytes behind the last chunk",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            "ok",
        ),
        ("an answer to HEAD", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n", ""),
    ] {
        let first = format!("{head}{poison}");
        let app = RawApp::start(move |mut conn| {
            while conn.request().is_some() {
                let answer = if conn.number == 0 { first.as_str() } else { OK };
                if !conn.send(answer) {
                    return;
                }
            }
        });
        let outrigger = Outrigger::before(&app, ONE_TRY);
        let method = if name.ends_with("HEAD") { "HEAD" } else { "GET" };
        let mut client = Wire::connect(outrigger.web());
        client.send(format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n"));
        let answer = client.response(method);
        assert_eq!((answer.text().as_str(), answer.end), (body, BodyEnd::Whole), "{name}");
        assert!(answer.status != 204 || (!answer.head.has("content-length") && !answer.head.chunked()), "{name}");
        let next = wire::get(outrigger.web(), "/");
        assert_eq!(next.text(), "ok", "{name}");
        assert_eq!(app.connections(), 2, "{name}: the connection was used again");
        assert!(!String::from_utf8_lossy(client.buffered()).contains("poison"), "{name}");
    }
}

const CUT: &[(&str, &str)] = &[
    ("length", "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\npart"),
    ("chunk", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n8\r\npart"),
    ("between chunks", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\npart\r\n"),
    ("within the last chunk", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\npart\r\n0\r\n"),
    ("a bad chunk", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\npart\r\nzz\r\n"),
];

#[test]
fn row_22_a_cut_answer_is_never_completed() {
    for (name, answer) in CUT {
        for reset in [false, true] {
            let bytes = (*answer).to_owned();
            let app = RawApp::start(move |mut conn| {
                conn.request();
                conn.send(&bytes);
                if reset {
                    conn.reset();
                }
            });
            let outrigger = Outrigger::before(&app, "");
            let mut client = Wire::connect(outrigger.web());
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            let seen = client.try_response("GET");
            let name = format!("{name}, reset {reset}");
            // A reset may overtake the head; then a refusal is as true.
            match seen {
                Ok(seen) if seen.status == 200 => {
                    assert!(matches!(seen.end, BodyEnd::Cut | BodyEnd::Reset), "{name}: {:?}", seen.end);
                    assert!(b"part".starts_with(&seen.body), "{name}: {:?}", seen.text());
                }
                Ok(seen) => assert_eq!(seen.status, 502, "{name}"),
                Err(end) => assert_ne!(end, End::Deadline, "{name}"),
            }
            outrigger.idle();
        }
    }
}

#[test]
fn row_22_a_cut_answer_is_a_reset_to_an_http_1_0_client() {
    // HTTP/1.0 has no chunks: an orderly close would say that the answer is whole. With a length it may be told.
    for (name, answer) in CUT {
        let bytes = (*answer).to_owned();
        let app = RawApp::answering_and_closing(bytes);
        let outrigger = Outrigger::before(&app, "");
        let mut client = Wire::connect(outrigger.web());
        client.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n");
        let end = match client.try_response("GET") {
            Ok(seen) if seen.status == 502 => continue,
            Ok(seen) => seen.end,
            Err(_) => BodyEnd::Reset,
        };
        let told = end == BodyEnd::Reset || (*name == "length" && end == BodyEnd::Cut);
        assert!(told, "{name}: {end:?}");
    }
}

#[test]
fn row_22_a_cut_answer_has_its_fate() {
    let app = RawApp::answering_and_closing(CUT[0].1);
    let outrigger = Outrigger::before(&app, "");
    let answer = wire::get(outrigger.web(), "/cut");
    assert_eq!(answer.end, BodyEnd::Cut);
    let line =
        outrigger.wait_for_access("the cut request", |line| line["url.path"] == "/cut" || line["path"] == "/cut");
    assert!(line.to_string().contains("truncated"), "{line}");
}

#[test]
fn row_23_early_hints_pass_while_the_app_still_works() {
    let (seen, may_answer) = channel();
    let may_answer = Mutex::new(may_answer);
    let app = RawApp::start(move |mut conn| {
        while conn.request().is_some() {
            conn.send("HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nconnection: x-hop\r\nx-hop: 1\r\ncontent-length: 9\r\n\r\n");
            // The answer waits until the client has the hint.
            may_answer.lock().expect("one at a time").recv().expect("the client has it");
            conn.send(OK);
        }
    });
    let outrigger = Outrigger::before(&app, "");
    let mut client = Wire::connect(outrigger.web());
    for _ in 0..2 {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.head().expect("the first").word(1), "102");
        let hint = client.head().expect("the second");
        assert_eq!((hint.word(1), hint.get("link"), hint.get("via")), ("103", Some("</a.css>"), Some("1.1 outrigger")));
        assert_eq!((hint.get("x-hop"), hint.get("connection"), hint.get("content-length")), (None, None, None));
        seen.send(()).expect("the app waits");
        let answer = client.response("GET");
        assert_eq!((answer.status, answer.interim.len(), answer.text().as_str()), (200, 0, "ok"));
        assert_eq!(answer.get("link"), None);
    }
    assert_eq!(app.connections(), 1);
}

#[test]
fn early_hints_pass_while_the_client_still_sends() {
    let app = RawApp::start(|mut conn| {
        if conn.head().is_ok() {
            conn.send("HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\n");
            if conn.exactly(5).is_ok() {
                conn.send(OK);
            }
        }
    });
    let outrigger = Outrigger::before(&app, "");
    let mut client = Wire::connect(outrigger.web());
    client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    let before: Vec<String> = (0..2).map(|_| client.head().expect("an interim answer").word(1).to_owned()).collect();
    assert_eq!(before, ["100", "103"]);
    client.send("hello");
    assert_eq!(client.response("POST").status, 200);
}

#[test]
fn early_hints_are_not_for_http_1_0_nor_for_clients_that_do_not_know_them() {
    // RFC 9110 §15.2: a 1xx must not be sent to an HTTP/1.0 client. RFC 8297 §3: some HTTP/1.1 clients do not know them.
    let app = RawApp::answering(format!("HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\n{OK}"));
    let without = "listeners: [{ name: web, address: \"127.0.0.1:0\", early_hints: false }]\n";
    for (version, extra, hints) in [("1.0", "", 0), ("1.1", "", 1), ("1.1", without, 0)] {
        let outrigger = Outrigger::before(&app, extra);
        let answer = wire::ask(outrigger.web(), format!("GET / HTTP/{version}\r\nHost: a\r\n\r\n"));
        assert_eq!((answer.status, answer.interim.len()), (200, hints), "{version} {extra}");
    }
}

#[test]
fn hints_without_number_or_end_are_bounded() {
    let hint = format!("HTTP/1.1 103 Early Hints\r\nlink: <{}>\r\n\r\n", "x".repeat(8000));
    // As many as are taken from an app, at once; and one more, which makes the answer a malformed one.
    for (count, status) in [(64, 200), (65, 502)] {
        let app = RawApp::answering(hint.repeat(count) + OK);
        let outrigger = Outrigger::before(&app, ONE_TRY);
        let answer = wire::get(outrigger.web(), "/");
        assert_eq!(answer.status, status, "{count}");
        assert!((2..=64).contains(&answer.interim.len()), "{count}: {}", answer.interim.len());
    }
}

#[test]
fn an_unasked_continue_of_the_app_is_swallowed() {
    let app = RawApp::answering(format!("HTTP/1.1 100 Continue\r\n\r\n{OK}"));
    let outrigger = Outrigger::before(&app, "");
    let answer = wire::get(outrigger.web(), "/");
    assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
}

#[test]
fn a_head_of_the_app_without_end_is_bounded() {
    let app = RawApp::start(|mut conn| {
        conn.request();
        conn.send("HTTP/1.1 200 OK\r\nx: ");
        while conn.send([b'x'; 65536]) {}
    });
    let outrigger = Outrigger::before(&app, ONE_TRY);
    let before = outrigger.memory();
    let answer = wire::get(outrigger.web(), "/");
    assert_eq!((answer.status, answer.reason().as_str()), (502, "response_malformed"));
    let grown = outrigger.memory().saturating_sub(before);
    assert!(grown < 8 << 20, "grew by {grown} bytes");
}

#[test]
fn the_apps_close_is_kept_from_the_client() {
    let app = RawApp::answering_and_closing("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok");
    let outrigger = Outrigger::before(&app, "");
    let mut client = Wire::connect(outrigger.web());
    for _ in 0..3 {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.response("GET").text(), "ok");
    }
    assert_eq!(app.connections(), 3);
}
