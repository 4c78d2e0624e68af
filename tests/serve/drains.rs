//! The end: what is still answered, what is cut, and what the report says.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use outrigger::core::drain::Params;

use crate::bench::{Bench, Options, SOON, answer, connect, get, read_to_end};

const QUICK: Duration = Duration::from_millis(300);

#[test]
fn a_drain_loses_no_request() {
    // Goal: during the delay everything is accepted; after it an idle connection's last request is still answered.
    let bench = Bench::start(Options::default());
    let mut busy = connect(&bench);
    busy.write_all(b"GET /sleep/700 HTTP/1.1\r\nhost: a\r\n\r\n").expect("a write");
    let mut idle = connect(&bench);
    assert!(get(&mut idle, "/").ends_with("ok"));
    bench.until(|| bench.in_flight() == 1);
    let delay = Duration::from_millis(200);
    let report = std::thread::scope(|scope| {
        let draining =
            scope.spawn(|| bench.drain(Params { delay, timeout: Duration::from_secs(10), farewell: Duration::ZERO }));
        bench.until(|| bench.stage() == "Delaying");
        assert!(get(&mut connect(&bench), "/").ends_with("ok"), "still accepting");
        bench.until(|| bench.stage() == "Closing");
        let last = get(&mut idle, "/");
        assert!(last.ends_with("ok") && last.to_ascii_lowercase().contains("connection: close"), "{last}");
        assert!(answer(&mut busy).ends_with("ok"));
        draining.join().expect("the drain")
    });
    assert!(TcpStream::connect(("127.0.0.1", bench.port())).is_err(), "nobody listens any more");
    assert_eq!((report.cut, report.forced), (0, false));
    assert!(report.finished >= 3, "{report:?}");
}

#[test]
fn what_does_not_end_in_time_is_cut_and_counted() {
    // What the app may be at work on is not asked for again.
    for (method, status, again) in [("GET", "503", true), ("POST", "502", false)] {
        let bench = Bench::start(Options::default());
        let mut busy = connect(&bench);
        let asked = format!("{method} /sleep/60000 HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n");
        busy.write_all(asked.as_bytes()).expect("a write");
        bench.until(|| bench.in_flight() == 1);
        let report = bench.drain(Params { delay: Duration::ZERO, timeout: QUICK, farewell: Duration::ZERO });
        assert_eq!((report.cut, report.forced), (1, false), "{report:?}");
        let said = read_to_end(&mut busy).expect("an orderly end").to_ascii_lowercase();
        assert!(
            said.starts_with(&format!("http/1.1 {status} ")) && said.contains("\"reason\":\"drain_cut\""),
            "{said}"
        );
        assert_eq!(said.contains("retry-after"), again, "{said}");
    }
}

#[test]
fn a_second_signal_ends_at_once() {
    let bench = Bench::start(Options::default());
    let mut busy = connect(&bench);
    busy.write_all(b"GET /sleep/60000 HTTP/1.1\r\nhost: a\r\n\r\n").expect("a write");
    bench.until(|| bench.in_flight() == 1);
    let long = Duration::from_secs(60);
    let report = bench.drain_aborted(Params { delay: long, timeout: long, farewell: Duration::ZERO }, QUICK);
    assert_eq!((report.cut, report.forced), (1, true), "{report:?}");
    assert!(report.duration < Duration::from_secs(10));
}

#[test]
fn a_backlog_is_accepted_before_the_listener_closes() {
    // Goal: whoever has connected before the port closes is answered, although nobody had accepted it yet.
    // Method: one worker, many connections at the moment the drain closes the port.
    let bench = Bench::start(Options { workers: 1, connections_max: 8000, ..Options::default() });
    let mut clients: Vec<TcpStream> = Vec::new();
    let report = std::thread::scope(|scope| {
        let draining = scope.spawn(|| {
            bench.drain(Params {
                delay: Duration::from_millis(50),
                timeout: Duration::from_secs(10),
                farewell: Duration::ZERO,
            })
        });
        // The port refuses in the end; until then everybody who gets in is answered.
        while clients.len() < 4000
            && let Ok(mut client) = TcpStream::connect(("127.0.0.1", bench.port()))
        {
            client.set_read_timeout(Some(SOON)).expect("a timeout");
            client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").expect("a write");
            clients.push(client);
        }
        for client in &mut clients {
            assert!(answer(client).ends_with("ok"));
        }
        draining.join().expect("the drain")
    });
    assert_eq!(report.cut, 0, "{report:?}");
    assert!(report.finished > 0);
}

#[test]
fn a_websocket_keeps_its_place_and_is_told_goodbye() {
    // Goal: an upgraded connection counts against the cap, is not closed by the drain's first part, and gets 1001.
    let bench = Bench::start(Options { connections_max: 1, ..Options::default() });
    let mut client = connect(&bench);
    client
        .write_all(b"GET /ws HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
        .expect("a write");
    assert!(answer(&mut client).starts_with("HTTP/1.1 101 "));
    let hello = [0x82, 0x83, 0, 0, 0, 0, 1, 2, 3];
    let mut echo = [0; 9];
    client.write_all(&hello).expect("a write");
    std::io::Read::read_exact(&mut client, &mut echo).expect("the echo");
    assert_eq!(echo, hello);
    assert_eq!(read_to_end(&mut connect(&bench)).unwrap_or_default(), "", "its place is taken");
    let params = Params { delay: Duration::ZERO, timeout: Duration::from_secs(10), farewell: Duration::from_secs(5) };
    let report = bench.drain(params);
    assert_eq!((report.cut, report.websockets_closed), (0, 1), "{report:?}");
    let mut rest = Vec::new();
    let _ = std::io::Read::read_to_end(&mut client, &mut rest); // what follows the farewell does not matter
    assert!(rest.starts_with(&[0x88, 2, 0x03, 0xe9]), "a close frame with 1001: {rest:?}");
    bench.until(|| bench.open() == 0);
}
