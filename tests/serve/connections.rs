//! Connections against real sockets: what is answered, what is closed and how.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use outrigger::serve::gate::Turned;
use outrigger::state::clock;

use crate::bench::{Bench, Options, answer, connect, get, read_to_end};

const QUICK: Duration = Duration::from_millis(300);

#[test]
fn a_kept_alive_connection_serves_many_requests() {
    let bench = Bench::start(Options::default());
    let mut client = connect(&bench);
    for _ in 0..3 {
        client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").expect("a write");
        let answer = answer(&mut client);
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nok"), "{answer}");
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let bench = Bench::start(Options::default());
    let mut client = connect(&bench);
    client
        .write_all(
            b"GET /sleep/50 HTTP/1.1\r\nhost: a\r\n\r\nGET /peer HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
        )
        .expect("a write");
    let all = read_to_end(&mut client).expect("an orderly end");
    assert_eq!(all.matches("HTTP/1.1 200 OK").count(), 2, "{all}");
    assert!(all.contains("GET /peer"), "{all}");
}

#[test]
fn half_a_request_head_is_answered_408_in_time() {
    let bench = Bench::start(Options { head: QUICK, ..Options::default() });
    let mut client = connect(&bench);
    client.write_all(b"GET / HTTP/1.1\r\nho").expect("a write");
    let began = clock::now();
    let all = read_to_end(&mut client).expect("an orderly end");
    assert!(all.starts_with("HTTP/1.1 408 "), "{all}");
    assert!(clock::now() - began >= QUICK, "never early");
    assert_eq!(bench.turned(Turned::HeadTimeout), 1);
}

#[test]
fn dribbling_a_head_does_not_extend_its_time() {
    let bench = Bench::start(Options { head: QUICK, ..Options::default() });
    let mut client = connect(&bench);
    client.set_read_timeout(Some(Duration::from_millis(20))).expect("a timeout");
    client.write_all(b"GET / HTTP/1.1\r\nx: ").expect("a write");
    let mut answered = String::new();
    let mut buffer = [0; 1024];
    let began = clock::now();
    while answered.is_empty() && (clock::now() - began) < Duration::from_secs(10) {
        let _ = client.write_all(b"x"); // the server may have closed meanwhile
        if let Ok(taken) = client.read(&mut buffer) {
            answered.push_str(&String::from_utf8_lossy(&buffer[..taken]));
        }
    }
    assert!(answered.starts_with("HTTP/1.1 408 "), "{answered}");
}

#[test]
fn a_second_request_has_its_own_head_time() {
    let bench = Bench::start(Options { head: QUICK, ..Options::default() });
    let mut client = connect(&bench);
    assert!(get(&mut client, "/").ends_with("ok"));
    client.write_all(b"GET / HT").expect("a write");
    let all = read_to_end(&mut client).expect("an orderly end");
    assert!(all.starts_with("HTTP/1.1 408 "), "{all}");
}

#[test]
fn silence_is_closed_without_an_answer() {
    let bench = Bench::start(Options { head: QUICK, keep_alive: QUICK, ..Options::default() });
    let mut silent = connect(&bench);
    let mut idle = connect(&bench);
    assert!(get(&mut idle, "/").ends_with("ok"));
    assert_eq!(read_to_end(&mut silent).expect("an orderly end"), "");
    assert_eq!(read_to_end(&mut idle).expect("an orderly end"), "");
}

#[test]
fn a_long_answer_is_not_cut_by_the_connections_timers() {
    let bench = Bench::start(Options { head: QUICK, keep_alive: QUICK, ..Options::default() });
    let mut client = connect(&bench);
    assert!(get(&mut client, "/sleep/900").ends_with("ok"));
}

#[test]
fn an_early_answer_reaches_a_client_that_is_still_sending() {
    // Goal: the 413 is not eaten by a reset although much of the body was never read.
    let bench = Bench::start(Options::default());
    for _ in 0..20 {
        let mut client = connect(&bench);
        client.write_all(b"POST /early HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\n").expect("a write");
        let mut sending = client.try_clone().expect("a clone");
        let sender = std::thread::spawn(move || {
            for _ in 0..12 {
                if sending.write_all(&[b'x'; 4096]).is_err() {
                    return;
                }
            }
        });
        sender.join().expect("the sender");
        let mut all = Vec::new();
        let end = client.read_to_end(&mut all);
        let all = String::from_utf8_lossy(&all);
        assert!(all.starts_with("HTTP/1.1 413 "), "{all} {end:?}");
    }
}

#[test]
fn a_truncated_answer_is_a_reset_for_http_10_and_unfinished_for_http_11() {
    let bench = Bench::start(Options::default());
    let mut old = connect(&bench);
    old.write_all(b"GET /truncate HTTP/1.0\r\n\r\n").expect("a write");
    let mut all = Vec::new();
    let end = old.read_to_end(&mut all).expect_err("a reset");
    assert_eq!(end.kind(), std::io::ErrorKind::ConnectionReset);
    let mut new = connect(&bench);
    new.write_all(b"GET /truncate HTTP/1.1\r\nhost: a\r\n\r\n").expect("a write");
    let mut all = Vec::new();
    let _ = new.read_to_end(&mut all); // an end or a reset, both are fine
    let all = String::from_utf8_lossy(&all);
    assert!(all.contains("4\r\npart\r\n") && !all.contains("0\r\n\r\n"), "{all}");
}

#[test]
fn what_is_not_http_is_told_so() {
    let bench = Bench::start(Options::default());
    let mut client = connect(&bench);
    client.write_all(b"\x16\x03\x01 hello\r\n\r\n").expect("a write");
    let all = read_to_end(&mut client).expect("an orderly end");
    assert!(all.starts_with("HTTP/1.1 400 "), "{all}");
    bench.until(|| bench.turned(Turned::Malformed) == 1);
    let mut client = connect(&bench);
    let head = format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "x".repeat(40_000));
    client.write_all(head.as_bytes()).expect("a write");
    let all = read_to_end(&mut client).expect("an orderly end");
    assert!(all.starts_with("HTTP/1.1 431 "), "{all}");
    for (lines, status) in [(99, "200"), (100, "431")] {
        let mut client = connect(&bench);
        let head = format!("GET / HTTP/1.1\r\nhost: a\r\n{}\r\n", "x: y\r\n".repeat(lines));
        client.write_all(head.as_bytes()).expect("a write");
        let answer = answer(&mut client);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{lines}: {answer}");
    }
}

#[test]
fn what_two_parsers_may_read_differently_is_refused() {
    // Goal: hyper would accept each of these; none may reach the app, and the client is told 400.
    let bench = Bench::start(Options::default());
    let chunked = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    for request in [
        "GET / HTTP/1.1\nhost: a\n\n".to_owned(),
        "GET / HTTP/1.1\r\nhost: a\nx: y\r\n\r\n".to_owned(),
        format!("{chunked}2;x=y\r\nok\r\n0\r\n\r\n"),
        format!("{chunked}2\nok\r\n0\r\n\r\n"),
        format!("{chunked}2\r\nok\n0\r\n\r\n"),
    ] {
        let mut client = connect(&bench);
        client.write_all(request.as_bytes()).expect("a write");
        let all = read_to_end(&mut client).expect("an orderly end");
        assert!(all.starts_with("HTTP/1.1 400 "), "{request:?} was answered {all}");
        assert_eq!(all.matches("HTTP/1.1 ").count(), 1, "one answer: {all}");
    }
    for pause in [Duration::ZERO, Duration::from_millis(30)] {
        let mut client = connect(&bench);
        client.write_all(b"GET /sleep/100 HTTP/1.1\r\nhost: a\r\n\r\n").expect("a write");
        std::thread::sleep(pause); // in one read with the first request, or while it is being answered
        client.write_all(b"GET / HTTP/1.1\nhost: a\n\n").expect("a write");
        assert!(answer(&mut client).ends_with("ok"), "the good one before it is answered");
        assert!(read_to_end(&mut client).expect("an orderly end").starts_with("HTTP/1.1 400 "));
    }
    let mut client = connect(&bench);
    client.write_all(format!("{chunked}2\r\nok\r\n0\r\n\r\n").as_bytes()).expect("a write");
    assert!(answer(&mut client).ends_with("ok"));
    assert!(get(&mut client, "/").ends_with("ok"), "the connection goes on");
}

#[test]
fn a_body_that_was_never_asked_for_does_not_shift_the_next_request() {
    // Goal: after a refused `Expect: 100-continue` the client may or may not send its body, so the connection ends.
    let bench = Bench::start(Options::default());
    let mut client = connect(&bench);
    client
        .write_all(b"POST /early HTTP/1.1\r\nhost: a\r\ncontent-length: 2000\r\nexpect: 100-continue\r\n\r\n")
        .expect("a write");
    let refused = answer(&mut client);
    assert!(refused.starts_with("HTTP/1.1 413 "), "{refused}");
    let _ = client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"); // the server may have closed
    assert_eq!(read_to_end(&mut client).unwrap_or_default(), "");
    let mut client = connect(&bench);
    client
        .write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\nexpect: 100-continue\r\n\r\n")
        .expect("a write");
    assert!(answer(&mut client).starts_with("HTTP/1.1 100 "));
    client.write_all(b"ok").expect("a write");
    assert!(answer(&mut client).ends_with("ok"));
    assert!(get(&mut client, "/").ends_with("ok"));
}

#[test]
fn connections_over_the_cap_are_closed_and_counted() {
    let bench = Bench::start(Options { connections_max: 2, ..Options::default() });
    let mut first = connect(&bench);
    let mut second = connect(&bench);
    assert!(get(&mut first, "/").ends_with("ok") && get(&mut second, "/").ends_with("ok"));
    let mut third = connect(&bench);
    assert_eq!(read_to_end(&mut third).unwrap_or_default(), "");
    assert_eq!(bench.turned(Turned::Full), 1);
    drop(first);
    bench.until(|| bench.open() == 1);
    assert!(get(&mut connect(&bench), "/").ends_with("ok"));
}

#[test]
fn one_client_cannot_take_every_connection() {
    let bench = Bench::start(Options { per_client: Some(1), proxy_protocol: true, ..Options::default() });
    let hello = |source: &str| {
        let mut client = connect(&bench);
        let header = format!("PROXY TCP4 {source} 127.0.0.1 1234 80\r\nGET /peer HTTP/1.1\r\nhost: a\r\n\r\n");
        client.write_all(header.as_bytes()).expect("a write");
        client
    };
    let mut first = hello("192.0.2.1");
    assert!(answer(&mut first).contains("192.0.2.1"));
    let mut again = hello("192.0.2.1");
    assert_eq!(read_to_end(&mut again).unwrap_or_default(), "");
    assert_eq!(bench.turned(Turned::ClientFull), 1);
    assert!(answer(&mut hello("192.0.2.2")).contains("192.0.2.2"));
}

#[test]
fn a_listener_with_proxy_protocol_takes_nothing_else() {
    let bench = Bench::start(Options { proxy_protocol: true, ..Options::default() });
    let mut client = connect(&bench);
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").expect("a write");
    assert_eq!(read_to_end(&mut client).unwrap_or_default(), "");
    bench.until(|| bench.turned(Turned::ProxyProtocol) == 1);
}

#[test]
fn a_unix_socket_serves_and_its_stale_file_is_replaced() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("web.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).expect("a socket left behind"));
    let bench = Bench::start(Options { unix: Some(path.clone()), ..Options::default() });
    let second = Bench::try_start(Options { unix: Some(path.clone()), ..Options::default() });
    assert!(second.err().is_some_and(|words| words.contains("in use by another process")));
    let mut client = UnixStream::connect(&path).expect("a connection");
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").expect("a write");
    let mut all = String::new();
    client.read_to_string(&mut all).expect("an orderly end");
    assert!(all.ends_with("ok"));
    bench.shutdown();
    assert!(!path.exists(), "our own socket file is removed");
}

#[test]
fn an_inherited_socket_is_accepted_on_by_every_worker() {
    let bench = Bench::start(Options { inherited: true, workers: 3, ..Options::default() });
    let mut clients: Vec<_> = (0..30).map(|_| connect(&bench)).collect();
    for client in &mut clients {
        assert!(get(client, "/").ends_with("ok"));
    }
    assert_eq!(bench.open(), 30);
}

#[test]
fn a_port_in_use_is_said_so_even_with_reuseport() {
    let first = Bench::start(Options::default());
    let words = Bench::try_start(Options { port: first.port(), ..Options::default() }).err().expect("a problem");
    assert!(words.contains("in use by another process"), "{words}");
}

#[test]
fn an_idle_worker_lets_go_of_an_old_plan() {
    // Goal: a reload ends what belonged to the old plan (its probes, its states), although no request follows.
    let bench = Bench::start(Options::default());
    let old = bench.plan();
    bench.reload(&Options::default()).expect("a good plan");
    bench.until(|| old.upgrade().is_none());
}
