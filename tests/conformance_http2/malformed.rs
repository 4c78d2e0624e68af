//! Requests and frames that HTTP/2 does not allow (RFC 9113 §8.1.1, §8.2, §8.3): refused, and the app sees nothing.

use crate::support::frames::{CONTINUATION, DATA, Frames, GET, GOAWAY, HEADERS, Outcome, PING, SETTINGS, block};
use crate::support::{End, Outrigger, RawApp, wire};

fn get_with<'a>(more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    GET.iter().chain(more).copied().collect()
}

fn get_without(name: &str) -> Vec<(&'static str, &'static str)> {
    GET.iter().filter(|(field, _)| *field != name).copied().collect()
}

#[test]
fn the_harness_can_ask_by_hand() {
    let app = RawApp::answering("HTTP/1.1 418 Tea\r\ncontent-length: 2\r\n\r\nok");
    let outrigger = Outrigger::before(&app, "");
    let mut frames = Frames::connect(outrigger.web());
    frames.headers(1, GET, true);
    assert_eq!(frames.outcome(1), Outcome::Answer(418));
    assert_eq!(app.only_request().target(), "/");
}

#[test]
fn malformed_requests_are_refused() {
    let app = RawApp::fine();
    let outrigger = Outrigger::before(&app, "");
    let long = "x".repeat(200);
    let cases: Vec<(&str, Vec<(&str, &str)>)> = vec![
        ("connection", get_with(&[("connection", "close")])),
        ("keep-alive", get_with(&[("keep-alive", "timeout=5")])),
        ("proxy-connection", get_with(&[("proxy-connection", "close")])),
        ("transfer-encoding", get_with(&[("transfer-encoding", "chunked")])),
        ("upgrade", get_with(&[("upgrade", "websocket")])),
        ("te: gzip", get_with(&[("te", "gzip")])),
        ("te: trailers, gzip", get_with(&[("te", "trailers, gzip")])),
        ("an upper-case name", get_with(&[("X-Upper", "1")])),
        ("an empty name", get_with(&[("", "1")])),
        ("a space in a name", get_with(&[("x y", "1")])),
        ("a colon in a name", get_with(&[("x:y", "1")])),
        ("CR LF in a value", get_with(&[("x", "a\r\nset-cookie: evil=1")])),
        ("LF in a value", get_with(&[("x", "a\nb")])),
        ("NUL in a value", get_with(&[("x", "a\0b")])),
        ("no :method", get_without(":method")),
        ("no :path", get_without(":path")),
        ("no :scheme", get_without(":scheme")),
        ("two :method", get_with(&[(":method", "POST")])),
        ("two :path", get_with(&[(":path", "/admin")])),
        ("two :authority", get_with(&[(":authority", "b")])),
        ("an unknown pseudo-field", get_with(&[(":evil", "1")])),
        (":status", get_with(&[(":status", "200")])),
        ("a pseudo-field after a field", {
            let mut all = get_without(":path");
            all.extend([("x", "1"), (":path", "/")]);
            all
        }),
        ("an empty :path", {
            let mut all = get_without(":path");
            all.push((":path", ""));
            all
        }),
        ("a :path without a slash", {
            let mut all = get_without(":path");
            all.push((":path", "admin"));
            all
        }),
        ("a space in :path", {
            let mut all = get_without(":path");
            all.push((":path", "/a b"));
            all
        }),
        ("CR LF in :path", {
            let mut all = get_without(":path");
            all.push((":path", "/ HTTP/1.1\r\nhost: evil\r\n\r\n"));
            all
        }),
        ("a space in :method", {
            let mut all = vec![(":method", "GET /admin HTTP/1.1\r\nx:")];
            all.extend(get_without(":method"));
            all
        }),
        ("user in :authority", {
            let mut all = get_without(":authority");
            all.insert(0, (":authority", "u@a"));
            all
        }),
        ("CR LF in :authority", {
            let mut all = get_without(":authority");
            all.insert(0, (":authority", "a\r\nx: 1"));
            all
        }),
        ("neither :authority nor host", get_without(":authority")),
        ("a long odd :authority", {
            let mut all = get_without(":authority");
            all.insert(0, (":authority", &long));
            all.push(("host", "a"));
            all
        }),
        (":protocol that was not offered", {
            let mut all = vec![(":method", "CONNECT"), (":protocol", "websocket")];
            all.extend(get_without(":method"));
            all
        }),
    ];
    let mut wrong = Vec::new();
    for (name, fields) in cases {
        let mut frames = Frames::connect(outrigger.web());
        frames.headers(1, &fields, true);
        let outcome = frames.outcome(1);
        if !outcome.refused() || !app.untouched() {
            wrong.push(format!(
                "{name}: {outcome:?}, the app saw {:?}",
                app.requests().last().map(|seen| seen.head.first.clone())
            ));
            if !app.untouched() {
                break;
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(wire::get(outrigger.web(), "/").status, 200);
}

#[test]
fn a_host_alone_is_an_authority() {
    let app = RawApp::fine();
    let outrigger = Outrigger::before(&app, "");
    let mut fields = get_without(":authority");
    fields.push(("host", "b.example"));
    let mut frames = Frames::connect(outrigger.web());
    frames.headers(1, &fields, true);
    assert_eq!(frames.outcome(1), Outcome::Answer(200));
    assert_eq!(app.only_request().head.all("host"), ["b.example"]);
}

#[test]
fn frames_that_break_the_rules_end_the_connection_and_nothing_else() {
    let app = RawApp::fine();
    let outrigger = Outrigger::before(&app, "");
    for (name, kind, flags, stream, payload) in [
        ("data on no stream", DATA, 0, 0, b"x".to_vec()),
        ("data on an idle stream", DATA, 0, 1, b"x".to_vec()),
        ("headers on an even stream", HEADERS, 5, 2, block(GET)),
        ("headers on stream 0", HEADERS, 5, 0, block(GET)),
        ("a broken block", HEADERS, 5, 1, vec![0xff; 20]),
        ("a continuation of nothing", CONTINUATION, 4, 1, block(GET)),
        ("a short ping", PING, 0, 0, vec![0; 7]),
        ("settings of a stream", SETTINGS, 0, 1, Vec::new()),
        ("half a setting", SETTINGS, 0, 0, vec![0; 5]),
        ("padding longer than the frame", HEADERS, 5 | 8, 1, vec![200, 0x82]),
    ] {
        let mut frames = Frames::connect(outrigger.web());
        frames.send(kind, flags, stream, &payload);
        let outcome = frames.outcome(99);
        assert!(matches!(outcome, Outcome::Goaway | Outcome::Closed), "{name}: {outcome:?}");
    }
    assert!(app.untouched(), "{:?}", app.requests());
    assert_eq!(wire::get(outrigger.web(), "/").status, 200);
}

#[test]
fn a_preface_that_is_not_one_is_not_http_2() {
    let app = RawApp::fine();
    let outrigger = Outrigger::before(&app, "");
    for preface in
        ["PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", "PRI / HTTP/2.0\r\n\r\nSM\r\n\r\n", "PRI * HTTP/1.1\r\nHost: a\r\n\r\n"]
    {
        let (answer, end) = wire::exchange(outrigger.web(), preface.to_owned() + "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_ne!(end, End::Deadline, "{preface:?}");
        assert!(!String::from_utf8_lossy(&answer).contains("HTTP/1.1 200"), "{preface:?}");
    }
    assert!(app.untouched(), "{:?}", app.requests());
}

#[test]
fn continuations_without_end_are_cut_off() {
    let app = RawApp::fine();
    let outrigger = Outrigger::before(&app, "");
    let before = outrigger.memory();
    let mut frames = Frames::connect(outrigger.web());
    frames.send(HEADERS, 0, 1, &block(GET));
    let filler = block(&[("x-filler", &"x".repeat(8000))]);
    let mut sent = 0;
    while sent < 20_000 && frames.send(CONTINUATION, 0, 1, &filler) {
        sent += 1;
    }
    assert!(sent < 20_000, "160 MB of one head were taken");
    let grown = outrigger.memory().saturating_sub(before);
    assert!(grown < 16 << 20, "grew by {grown} bytes");
    assert!(app.untouched());
    assert_eq!(wire::get(outrigger.web(), "/").status, 200);
}

#[test]
fn settings_offer_what_is_meant() {
    // At most 100 streams; no extended CONNECT, so that browsers use HTTP/1.1 for WebSockets; no push.
    let app = RawApp::fine();
    let outrigger = Outrigger::before(&app, "");
    let mut frames = Frames::connect(outrigger.web());
    let settings = loop {
        let frame = frames.next().expect("settings");
        assert_ne!(frame.kind, GOAWAY);
        if frame.kind == SETTINGS && frame.flags == 0 {
            break frame.payload;
        }
    };
    let value = |wanted: u16| {
        let mut each = settings.chunks(6).filter(|one| u16::from_be_bytes([one[0], one[1]]) == wanted);
        each.next().map(|one| u32::from_be_bytes([one[2], one[3], one[4], one[5]]))
    };
    assert!(value(3).is_some_and(|streams| streams <= 100), "{:?}", value(3));
    assert_eq!(value(8).unwrap_or(0), 0, "extended CONNECT");
    assert!(value(6).is_some_and(|list| list <= 64 * 1024), "a head is bounded: {:?}", value(6));
}
