//! The harness against itself: what the other tests stand on.

use crate::support::app::OK;
use crate::support::message::{Chunked, chunked, chunks};
use crate::support::{BodyEnd, End, RawApp, Wire, wire};

#[test]
fn the_app_answers_and_remembers() {
    let app = RawApp::fine();
    let answer = wire::ask(app.address(), "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc");
    assert_eq!((answer.status, answer.text().as_str(), answer.end), (200, "ok", BodyEnd::Whole));
    let request = app.only_request();
    assert_eq!((request.method(), request.target(), request.version()), ("POST", "/x", "HTTP/1.1"));
    assert_eq!(request.body, b"abc");
    assert_eq!(app.received().len(), 1);
}

#[test]
fn a_cut_body_is_told_from_a_whole_one() {
    for (answer, end, body) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab", BodyEnd::Cut, "ab"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n", BodyEnd::Cut, "ab"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n", BodyEnd::Whole, "ab"),
        ("HTTP/1.1 200 OK\r\n\r\nab", BodyEnd::Close, "ab"),
    ] {
        let app = RawApp::answering_and_closing(answer);
        let seen = wire::get(app.address(), "/");
        assert_eq!((seen.end, seen.text().as_str()), (end, body), "{answer:?}");
    }
}

#[test]
fn a_reset_is_told_from_a_close() {
    let app = RawApp::start(|mut conn| {
        conn.request();
        conn.reset();
    });
    let mut client = Wire::connect(app.address());
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(client.rest().1, End::Reset);
}

#[test]
fn chunked_bodies_are_parsed() {
    let Chunked::Whole { body, trailers, used } = chunked(b"3\r\nabc\r\n0\r\nx-sum: 1\r\n\r\nrest") else {
        panic!("not whole")
    };
    assert_eq!((body.as_slice(), used), (b"abc".as_slice(), 8 + 3 + 10 + 2));
    assert_eq!(trailers, [("x-sum".to_owned(), "1".to_owned())]);
    assert!(matches!(chunked(b"3\r\nab"), Chunked::Partial));
    assert!(matches!(chunked(b"3\r\nabcd\r\n"), Chunked::Malformed));
    assert_eq!(chunks(&[b"a"]), b"1\r\na\r\n0\r\n\r\n");
}

#[test]
fn interim_answers_are_kept_apart() {
    let app = RawApp::answering(format!("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n{OK}"));
    let answer = wire::get(app.address(), "/");
    assert_eq!((answer.status, answer.interim.len()), (200, 1));
}
