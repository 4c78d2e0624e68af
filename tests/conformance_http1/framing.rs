//! Requests that two readers could understand differently (request smuggling), or that are not HTTP: rows 1–5, 7, 10,
//! 11 and the forms that other proxies were seen to pass on. Method: send the bytes, then a second request right
//! behind them; the refusal must come, the connection must end, and the app must not have seen a byte.

use crate::support::{BodyEnd, End, Outrigger, RawApp, Wire, wire};

/// Every case is followed by this one, which must never be answered.
const BEHIND: &str = "GET /behind HTTP/1.1\r\nHost: a\r\n\r\n";

fn refused(cases: &[(&str, &str)], statuses: &[u16]) {
    let app = RawApp::fine();
    let outrigger = Outrigger::before(&app, "");
    let mut wrong = Vec::new();
    for (name, bytes) in cases {
        let mut client = Wire::connect(outrigger.web());
        client.send(format!("{bytes}{BEHIND}"));
        let (answer, end) = client.rest();
        let text = String::from_utf8_lossy(&answer).into_owned();
        let status = text.get(9..12).and_then(|status| status.parse::<u16>().ok()).unwrap_or(0);
        if !statuses.contains(&status) || end == End::Deadline || text.matches("HTTP/1.1 ").count() != 1 {
            wrong.push(format!("{name}: {end:?} after {text:?}"));
        }
        if !app.untouched() {
            wrong.push(format!("{name}: the app saw {:?}", app.requests()));
            break;
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn row_3_content_length_and_transfer_encoding_are_refused_together() {
    refused(
        &[
            (
                "length first",
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            ),
            (
                "coding first",
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
            ),
            (
                "length zero",
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n0\r\n\r\n",
            ),
            ("on GET", "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ],
        &[400],
    );
}

#[test]
fn row_4_lengths_and_codings_that_are_not_one_thing_are_refused() {
    refused(
        &[
            ("two lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello"),
            ("a list", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\nhello"),
            ("a list of two", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 6\r\n\r\nhello"),
            ("a sign", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello"),
            ("negative", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\nhello"),
            ("hexadecimal", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\nhello"),
            ("empty", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\nhello"),
            ("too large", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\nhello"),
            ("inner space", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1 5\r\n\r\nhello"),
            ("coding, identity", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"),
            ("a control before", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n"),
            ("coding in 1.0", "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
            ("space before colon", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length : 5\r\n\r\nhello"),
            ("folded line", "GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n folded\r\n\r\n"),
            ("folded with a tab", "GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n\tfolded\r\n\r\n"),
            ("space before the first field", "GET / HTTP/1.1\r\n X: 1\r\nHost: a\r\n\r\n"),
        ],
        &[400, 501],
    );
}

#[test]
fn row_4_versions_that_do_not_exist_are_refused() {
    refused(
        &[
            ("1.2", "GET / HTTP/1.2\r\nHost: a\r\n\r\n"),
            ("9.9", "GET / HTTP/9.9\r\nHost: a\r\n\r\n"),
            ("2.0 without its preface", "GET / HTTP/2.0\r\nHost: a\r\n\r\n"),
            ("lower case", "GET / http/1.1\r\nHost: a\r\n\r\n"),
            ("0.9", "GET /\r\n\r\n"),
            ("two spaces", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n"),
            ("a space in the target", "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n"),
        ],
        &[400, 505],
    );
}

#[test]
fn row_5_only_exactly_chunked_is_a_transfer_encoding() {
    refused(
        &[
            ("gzip, chunked", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
            (
                "identity and chunked",
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            ),
            (
                "chunked twice",
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            ),
            ("chunked, chunked", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
            ("xchunked", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
            ("quoted", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n"),
            ("with a parameter", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;a=b\r\n\r\n0\r\n\r\n"),
            ("identity", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\nContent-Length: 1\r\n\r\nx"),
        ],
        &[400, 501],
    );
}

#[test]
fn row_7_there_is_exactly_one_valid_host() {
    refused(
        &[
            ("none", "GET / HTTP/1.1\r\nX: 1\r\n\r\n"),
            ("two", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
            ("the same twice", "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"),
            ("user and space", "GET / HTTP/1.1\r\nHost: a@b c\r\n\r\n"),
            ("user", "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n"),
            ("a path", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
            ("a list", "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n"),
            ("a bad port", "GET / HTTP/1.1\r\nHost: a:99999\r\n\r\n"),
            ("empty", "GET / HTTP/1.1\r\nHost:\r\n\r\n"),
            ("bad beside an absolute target", "GET http://a/ HTTP/1.1\r\nHost: a@b c\r\n\r\n"),
            ("two beside an absolute target", "GET http://a/ HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"),
        ],
        &[400],
    );
}

#[test]
fn row_10_bytes_that_no_target_has_are_refused() {
    let cases: Vec<(String, Vec<u8>)> = [" ", "\t", "\0", "\x7f", "\"", "<", ">", "\\", "^", "`", "{", "}"]
        .iter()
        .map(|odd| {
            (format!("{odd:?}"), format!("GET /a{odd}b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").into_bytes())
        })
        .chain([("8 bits".to_owned(), b"GET /a\xe9b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".to_vec())])
        .collect();
    let app = RawApp::fine();
    let outrigger = Outrigger::before(&app, "");
    for (name, bytes) in cases {
        let mut client = Wire::connect(outrigger.web());
        client.send(bytes);
        let (answer, end) = client.rest();
        assert_ne!(end, End::Deadline, "{name}");
        let text = String::from_utf8_lossy(&answer).into_owned();
        // Forwarding a byte as it came would also be sound; changing what the app sees would not.
        if text.starts_with("HTTP/1.1 200") {
            let seen = app.requests().last().expect("one").target().to_owned();
            assert_eq!(format!("{:?}", &seen[2..seen.len() - 1]), name, "the app saw something else");
        } else {
            assert!(text.starts_with("HTTP/1.1 400"), "{name}: {text}");
        }
    }
}

#[test]
fn row_11_connect_is_refused() {
    let app = RawApp::fine();
    let outrigger = Outrigger::before(&app, "");
    for request in [
        "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n",
        "CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n",
        "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\nContent-Length: 2\r\n\r\nhi",
    ] {
        let (answer, _) = wire::exchange(outrigger.web(), format!("{request}{BEHIND}"));
        let text = String::from_utf8_lossy(&answer);
        assert!(text.starts_with("HTTP/1.1 405") || text.starts_with("HTTP/1.1 400"), "{request:?}: {text}");
        assert!(!text.contains("HTTP/1.1 200"), "{request:?}: {text}");
        // RFC 9110 §15.5.6
        assert!(!text.starts_with("HTTP/1.1 405") || text.contains("\r\nallow: GET, "), "{request:?}: {text}");
    }
    assert!(app.untouched(), "{:?}", app.requests());
}

#[test]
fn control_characters_never_pass_in_a_head() {
    refused(
        &[
            ("bare CR in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n"),
            ("CR before CRLF", "GET / HTTP/1.1\r\nHost: a\r\nX: a\r\r\n\r\n"),
            ("NUL in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n"),
            ("a control in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: a\x01b\r\n\r\n"),
            ("DEL in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: a\x7fb\r\n\r\n"),
            ("a space in a name", "GET / HTTP/1.1\r\nHost: a\r\nX Y: a\r\n\r\n"),
            ("a control in a name", "GET / HTTP/1.1\r\nHost: a\r\nX\x01: a\r\n\r\n"),
            ("no name", "GET / HTTP/1.1\r\nHost: a\r\n: a\r\n\r\n"),
            ("no colon", "GET / HTTP/1.1\r\nHost: a\r\nabc\r\n\r\n"),
            ("a control in the method", "G\x01ET / HTTP/1.1\r\nHost: a\r\n\r\n"),
            ("bare CR ends the request line", "GET / HTTP/1.1\rHost: a\r\n\r\n"),
        ],
        &[400],
    );
}

#[test]
fn row_6_bare_line_feeds_are_refused() {
    // RFC 9112 §2.2 allows a lone LF; two readers that differ on it differ on where a head ends.
    refused(
        &[
            ("everywhere", "GET /lf HTTP/1.1\nHost: a\nX-One: 1\n\n"),
            ("in one line", "GET /lf HTTP/1.1\r\nHost: a\nX-One: 1\r\n\r\n"),
            ("at the end", "GET /lf HTTP/1.1\r\nHost: a\r\n\n"),
        ],
        &[400],
    );
}

#[test]
fn rows_1_and_2_a_get_with_a_body_keeps_it() {
    let app = RawApp::fine();
    let outrigger = Outrigger::before(&app, "");
    for method in ["GET", "HEAD", "DELETE", "OPTIONS", "POST", "PUT", "PATCH"] {
        for framing in ["Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", "Content-Length: 5\r\n\r\nhello"] {
            let before = app.requests().len();
            let request = format!("{method} /b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{framing}");
            let answer = wire::ask(outrigger.web(), request);
            assert_eq!(answer.status, 200, "{method} {framing:?}");
            let seen = app.requests();
            assert_eq!(seen.len(), before + 1, "{method} {framing:?}");
            let seen = &seen[before];
            assert_eq!((seen.method(), seen.body.as_slice(), seen.end), (method, &b"hello"[..], BodyEnd::Whole));
            assert!(!(seen.head.chunked() && seen.head.has("content-length")), "{:?}", seen.head);
        }
    }
}

#[test]
fn requests_without_a_body_get_none() {
    let app = RawApp::fine();
    let outrigger = Outrigger::before(&app, "");
    let answer = wire::get(outrigger.web(), "/");
    assert_eq!(answer.status, 200);
    let request = app.only_request();
    assert!(!request.head.chunked(), "{:?}", request.head);
    assert!(request.head.length().is_none_or(|length| length == 0), "{:?}", request.head);
    let answer = wire::ask(outrigger.web(), "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(answer.status, 200);
    // RFC 9110 §8.6: a POST without a body says so.
    assert_eq!(app.requests()[1].head.length(), Some(0), "{:?}", app.requests()[1].head);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let app = RawApp::start(|mut conn| {
        while let Some(request) = conn.request() {
            let body = request.target().to_owned();
            conn.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()));
        }
    });
    let outrigger = Outrigger::before(&app, "");
    let mut client = Wire::connect(outrigger.web());
    let burst: String = (0..20).map(|place| format!("GET /{place} HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
    client.send(burst);
    for place in 0..20 {
        assert_eq!(client.response("GET").text(), format!("/{place}"));
    }
}
