//! Streams: events at once, slow readers without memory, long bodies whole, and timers that leave them alone.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::app::OK;
use crate::support::{BodyEnd, DEADLINE, Outrigger, RawApp, Wire, eventually};

/// More than any buffer between two sockets.
const LARGE: usize = 64 << 20;
/// What holding a slow reader back may cost Outrigger.
const GROWTH_MAX: usize = 8 << 20;

#[test]
fn events_are_flushed_at_once() {
    // The second event is sent only when the first has arrived.
    let (go, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let app = RawApp::start(move |mut conn| {
        if conn.request().is_none() {
            return;
        }
        conn.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n");
        for number in 0..5 {
            conn.send(format!("9\r\ndata: {number}\n\n\r\n"));
            if wait.lock().expect("lock").recv_timeout(DEADLINE).is_err() {
                return;
            }
        }
        conn.send("0\r\n\r\n");
    });
    let outrigger = Outrigger::before(&app, "");
    let mut client = Wire::connect(outrigger.web());
    client.send("GET /events HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n");
    assert_eq!(client.head().expect("the head comes before the end").word(1), "200");
    for number in 0..5 {
        client.until(format!("data: {number}\n\n\r\n").as_bytes()).expect("the event");
        go.send(()).expect("the app waits");
    }
    assert_eq!(client.until(b"0\r\n\r\n").map(|_| ()), Ok(()));
}

#[test]
fn the_head_comes_before_the_body_has_begun() {
    let (go, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let app = RawApp::start(move |mut conn| {
        conn.request();
        conn.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n");
        let _ = wait.lock().expect("lock").recv_timeout(DEADLINE);
        conn.send("ok");
    });
    let outrigger = Outrigger::before(&app, "");
    let mut client = Wire::connect(outrigger.web());
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.head().expect("the head").word(1), "200");
    go.send(()).expect("the app waits");
    assert_eq!(client.exactly(2).expect("the body"), b"ok");
}

/// Waits until a count has stood still for half a second.
fn stands_still(count: &AtomicUsize) -> usize {
    let (mut last, mut since) = (count.load(Ordering::SeqCst), Instant::now());
    eventually("the writer is held back", || {
        let now = count.load(Ordering::SeqCst);
        if now != last {
            (last, since) = (now, Instant::now());
        }
        (now > 0 && since.elapsed() > Duration::from_millis(500)).then_some(now)
    })
}

#[test]
fn a_slow_reader_holds_the_app_back_and_costs_no_memory() {
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let app = RawApp::start(move |conn| {
        let mut conn = conn.into_slow();
        conn.request();
        conn.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {LARGE}\r\n\r\n"));
        let piece = vec![b'x'; 64 * 1024];
        while count.load(Ordering::SeqCst) < LARGE && conn.send(&piece) {
            count.fetch_add(piece.len(), Ordering::SeqCst);
        }
        conn.wait_for_the_end();
    });
    let outrigger = Outrigger::before(&app, "");
    let before = outrigger.memory();
    let mut client = Wire::connect(outrigger.web()).deadline(DEADLINE * 3);
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.head().expect("the head").length(), Some(LARGE));
    let held = stands_still(&sent);
    assert!(held < LARGE, "the app was not held back");
    let grown = outrigger.memory().saturating_sub(before);
    assert!(grown < GROWTH_MAX, "grew by {grown} bytes while {held} were sent");
    let mut got = client.buffered().len();
    while got < LARGE {
        got += client.piece().expect("more of the body").len();
        let grown = outrigger.memory().saturating_sub(before);
        assert!(grown < GROWTH_MAX, "grew by {grown} bytes");
    }
    // `buffered` was counted, and then again by the first `piece`.
    assert!(got >= LARGE);
    outrigger.idle();
}

#[test]
fn a_slow_app_holds_the_client_back_and_costs_no_memory() {
    let (go, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let app = RawApp::start(move |conn| {
        let mut conn = conn.into_slow();
        if conn.head().is_err() {
            return;
        }
        let _ = wait.lock().expect("lock").recv_timeout(DEADLINE * 2);
        let mut got = 0;
        while got < LARGE {
            match conn.piece() {
                Ok(piece) => got += piece.len(),
                Err(_) => return,
            }
        }
        conn.send(OK);
    });
    let outrigger = Outrigger::before(&app, "");
    let before = outrigger.memory();
    let mut client = Wire::connect(outrigger.web()).deadline(DEADLINE * 3);
    client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {LARGE}\r\n\r\n"));
    let sent = Arc::new(AtomicUsize::new(0));
    let (count, writer) = (Arc::clone(&sent), client.stream().try_clone().expect("a second handle"));
    let writer = std::thread::spawn(move || {
        let (mut writer, piece) = (Wire::new(writer, None).deadline(DEADLINE * 3), vec![b'x'; 64 * 1024]);
        while count.load(Ordering::SeqCst) < LARGE && writer.send(&piece) {
            count.fetch_add(piece.len(), Ordering::SeqCst);
        }
    });
    let held = stands_still(&sent);
    assert!(held < LARGE, "the client was not held back");
    let grown = outrigger.memory().saturating_sub(before);
    assert!(grown < GROWTH_MAX, "grew by {grown} bytes while {held} were sent");
    go.send(()).expect("the app waits");
    writer.join().expect("the writer");
    assert_eq!(client.response("POST").status, 200);
}

#[test]
fn many_large_bodies_arrive_whole() {
    let app = RawApp::start(|mut conn| {
        while let Some(request) = conn.request() {
            let seed: usize = request.target()[1..].parse().unwrap_or(0);
            let body: Vec<u8> = (0..700_000).map(|at| ((at * 7 + seed) % 253) as u8).collect();
            let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
            let chunks: Vec<&[u8]> = body.chunks(1 + seed * 977).collect();
            if !conn.send(head) || !conn.send(crate::support::message::chunks(&chunks)) {
                return;
            }
        }
    });
    let outrigger = Outrigger::before(&app, "");
    let web = outrigger.web();
    let readers: Vec<_> = (1..9)
        .map(|seed| {
            std::thread::spawn(move || {
                let mut client = Wire::connect(web);
                for _ in 0..3 {
                    client.send(format!("GET /{seed} HTTP/1.1\r\nHost: a\r\n\r\n"));
                    let answer = client.response("GET");
                    assert_eq!((answer.status, answer.end, answer.body.len()), (200, BodyEnd::Whole, 700_000));
                    assert!(answer.body.iter().enumerate().all(|(at, byte)| *byte == ((at * 7 + seed) % 253) as u8));
                }
            })
        })
        .collect();
    for reader in readers {
        reader.join().expect("a reader");
    }
}

#[test]
fn a_stream_that_has_begun_is_exempt_from_total() {
    let app = RawApp::start(|mut conn| {
        conn.request();
        conn.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
        for _ in 0..20 {
            conn.send("1\r\nx\r\n");
            std::thread::sleep(Duration::from_millis(50));
        }
        conn.send("0\r\n\r\n");
    });
    let outrigger = Outrigger::before(&app, "timeouts: { total: 300ms, first_byte: 250ms, idle: 10s }\n");
    let mut client = Wire::connect(outrigger.web());
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let answer = client.response("GET");
    assert_eq!((answer.status, answer.body.len(), answer.end), (200, 20, BodyEnd::Whole));
}

#[test]
fn a_stream_that_falls_silent_is_cut_by_idle() {
    let app = RawApp::start(|mut conn| {
        conn.request();
        conn.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n");
        conn.wait_for_the_end();
    });
    let outrigger = Outrigger::before(&app, "timeouts: { idle: 300ms }\n");
    let mut client = Wire::connect(outrigger.web());
    client.send("GET /silent HTTP/1.1\r\nHost: a\r\n\r\n");
    let answer = client.response("GET");
    assert!(matches!(answer.end, BodyEnd::Cut | BodyEnd::Reset), "{:?}", answer.end);
    let line = outrigger.wait_for_access("the silent stream", |line| line.to_string().contains("/silent"));
    assert!(line.to_string().contains("idle"), "{line}");
    eventually("the app's connection is freed", || (app.open() == 0).then_some(()));
}
