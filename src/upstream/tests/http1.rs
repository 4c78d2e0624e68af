//! HTTP/1.1: reuse, the keep-alive race, and connections that end. What messages may be is in `http1_messages`.

use http::header::HOST;
use http::{HeaderValue, StatusCode};
use http_body::Frame;
use socket2::SockRef;
use tokio::sync::oneshot;

use super::*;
use crate::upstream::{SendError, Side, UpstreamBodyProblem};

#[test]
fn a_second_request_reuses_the_connection() {
    // Goal: one accepted connection serves two requests, and the numbers say so. Host is made when there is none.
    on_a_worker(async {
        let (address, app) = app(async |listener| {
            let mut stream = accept(&listener).await;
            let first = serve(&mut stream, "one").await;
            serve(&mut stream, "two").await;
            (first, stream)
        })
        .await;
        let pool = pool(address);
        let res = pool.send(&mut get("/a"), how()).await.expect("a response");
        assert!(!res.body.reused());
        assert_eq!(text(res).await.expect("whole"), "one");
        assert_eq!((pool.counts().idle, pool.counts().active), (1, 0));
        let res = pool.send(&mut get("/b"), how()).await.expect("a response");
        assert!(res.body.reused());
        assert_eq!(pool.counts().active, 1);
        assert_eq!(text(res).await.expect("whole"), "two");
        assert_eq!((pool.counts().opened, pool.counts().reused, pool.counts().idle), (1, 1, 1));
        let (head, _open) = app.await.expect("the app");
        assert!(head.starts_with("GET /a HTTP/1.1\r\n") && head.contains("host: app.test\r\n"), "{head}");
    });
}

#[test]
fn an_answer_without_a_body_frees_the_connection_at_once() {
    // Goal: HEAD, 204 and 304 give the connection back without their body being polled or dropped.
    on_a_worker(async {
        for (method, answer) in
            [("HEAD", "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n"), ("GET", "HTTP/1.1 204 No Content\r\n\r\n")]
        {
            let (address, _app) = app(async move |listener| {
                let mut stream = accept(&listener).await;
                read_head(&mut stream).await;
                say(&mut stream, answer).await;
                stream
            })
            .await;
            let pool = pool(address);
            let _held = pool.send(&mut request(method, "/", RequestBody::Empty), how()).await.expect("a response");
            assert_eq!((pool.counts().idle, pool.counts().active), (1, 0));
        }
    });
}

#[test]
fn what_an_app_sends_behind_an_answer_without_a_body_answers_nobody() {
    // Goal: a body behind HEAD, 204 or 304 is not taken for the next request's answer, however late it comes.
    const BODY: &str = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil";
    on_a_worker(async {
        for (method, answer) in [
            ("HEAD", "HTTP/1.1 200 OK\r\ncontent-length: 42\r\n\r\n"),
            ("GET", "HTTP/1.1 204 No Content\r\n\r\n"),
            ("GET", "HTTP/1.1 304 Not Modified\r\n\r\n"),
        ] {
            let (answered, go_on) = oneshot::channel::<()>();
            let (address, _app) = app(async move |listener| {
                let mut first = accept(&listener).await;
                read_head(&mut first).await;
                say(&mut first, answer).await;
                let _ = go_on.await;
                say(&mut first, BODY).await;
                let mut second = accept(&listener).await;
                serve(&mut second, "good").await;
                (first, second)
            })
            .await;
            let pool = pool(address);
            pool.send(&mut request(method, "/", RequestBody::Empty), how()).await.expect("a response");
            let _ = answered.send(());
            let res = pool.send(&mut get("/"), how()).await.expect("a response");
            assert_eq!(text(res).await.expect("whole"), "good", "{method} {answer:?}");
        }
    });
}

#[test]
fn requests_without_pause_that_may_not_be_sent_twice_come_to_share_connections() {
    // Goal: what shows that the app keeps connections is one that rests, and load alone must not keep it from resting.
    on_a_worker(async {
        let (address, _app) = app(async |listener| {
            loop {
                let mut stream = accept(&listener).await;
                tokio::task::spawn_local(async move {
                    let mut request = [0; 1024];
                    while stream.read(&mut request).await.is_ok_and(|read| read > 0) {
                        say(&mut stream, "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\none").await;
                    }
                });
            }
        })
        .await;
        let pool = pool(address);
        let mut reused = false;
        while !reused {
            let res = pool.send(&mut post("/", "x"), once()).await.expect("a response");
            reused = res.body.reused();
            text(res).await.expect("whole");
        }
    });
}

#[test]
fn a_post_is_never_lost_to_a_connection_closed_while_idle() {
    // Goal: the app closes the idle connection; requests that may and that may not be replayed both succeed on a
    // fresh one, each served exactly once, and the pool has learned from it.
    for how in [how(), once()] {
        on_a_worker(async {
            let (close, may_close) = oneshot::channel();
            let (closed, was_closed) = oneshot::channel();
            let (address, app) = app(async |listener| {
                let mut first = accept(&listener).await;
                serve(&mut first, "one").await;
                may_close.await.expect("the connection is idle");
                drop(first);
                closed.send(()).expect("the test waits");
                let mut second = accept(&listener).await;
                serve(&mut second, "two").await
            })
            .await;
            let pool = pool(address);
            text(pool.send(&mut get("/"), how).await.expect("a response")).await.expect("whole");
            assert_eq!(pool.counts().idle, 1);
            close.send(()).expect("the app waits");
            was_closed.await.expect("the app closed");
            let res = pool.send(&mut post("/pay", "1"), how).await.expect("an invisible second try");
            assert!(!res.body.reused());
            assert_eq!(text(res).await.expect("whole"), "two");
            assert!(app.await.expect("the app").starts_with("POST /pay HTTP/1.1"));
            assert_eq!(pool.counts().opened, 2);
            until(|| pool.learned_idle_timeout().is_some()).await;
        });
    }
}

#[test]
fn a_reset_after_the_request_was_written_is_not_retried_here() {
    // Goal: the app reads the request on a reused connection and closes without answering: it may have acted on it,
    // so the error says reset and reused, is the app's, and nothing is sent again.
    on_a_worker(async {
        let (address, app) = app(async |listener| {
            let mut stream = accept(&listener).await;
            serve(&mut stream, "one").await;
            read_head(&mut stream).await;
            drop(stream);
            tokio::select! {
                biased;
                _ = listener.accept() => panic!("sent again"),
                () = tokio::task::yield_now() => {}
            }
        })
        .await;
        let pool = pool(address);
        text(pool.send(&mut get("/"), how()).await.expect("a response")).await.expect("whole");
        let error = pool.send(&mut get("/"), how()).await.expect_err("no response");
        assert!(matches!(error, SendError::Reset { reused: true, .. }), "{error:?}");
        assert_eq!((error.label(), error.side(), error.was_never_written()), ("reset", Side::App, false));
        app.await.expect("the app");
        assert_eq!(pool.counts().active, 0);
    });
}

#[test]
fn a_body_cut_short_is_an_error_and_never_a_clean_end() {
    // Goal: by length, by chunks, and by reset; none is pooled.
    const CASES: [(&str, bool, UpstreamBodyProblem); 4] = [
        ("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello", false, UpstreamBodyProblem::Truncated),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n", false, UpstreamBodyProblem::Truncated),
        ("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello", true, UpstreamBodyProblem::Reset),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n",
            false,
            UpstreamBodyProblem::Malformed,
        ),
    ];
    for (answer, reset, problem) in CASES {
        on_a_worker(async {
            let (go, gone) = oneshot::channel();
            let (address, _app) = app(async move |listener| {
                let mut stream = accept(&listener).await;
                read_head(&mut stream).await;
                say(&mut stream, answer).await;
                gone.await.expect("the test says when");
                if reset {
                    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("a socket option");
                }
            })
            .await;
            let pool = pool(address);
            let mut body = pool.send(&mut get("/"), how()).await.expect("a response").body;
            assert_eq!(chunk(&mut body).await.expect("a frame").expect("data"), "hello");
            go.send(()).expect("the app waits");
            let error = chunk(&mut body).await.expect("not a clean end").expect_err("an error");
            assert_eq!((error.problem, error.side()), (problem, Side::App), "{answer:?}");
            assert_eq!((pool.counts().idle, pool.counts().active), (0, 0));
        });
    }
}

#[test]
fn leaving_a_response_early_closes_its_connection() {
    // Goal: the reader drops the body in the middle; the app sees the end of the connection, the pool stays empty.
    on_a_worker(async {
        let (address, app) = app(async |listener| {
            let mut stream = accept(&listener).await;
            read_head(&mut stream).await;
            say(&mut stream, "HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\nhello").await;
            wait_for_close(&mut stream).await;
        })
        .await;
        let pool = pool(address);
        let mut body = pool.send(&mut get("/"), how()).await.expect("a response").body;
        assert_eq!(chunk(&mut body).await.expect("a frame").expect("data"), "hello");
        drop(body);
        app.await.expect("the app saw the close");
        assert_eq!((pool.counts().idle, pool.counts().active), (0, 0));
    });
}

#[test]
fn giving_up_before_the_response_closes_the_connection() {
    // Goal: dropping the send future (a timer above us) frees everything; the app sees the close.
    on_a_worker(async {
        let (asked, was_asked) = oneshot::channel();
        let (address, app) = app(async |listener| {
            let mut stream = accept(&listener).await;
            read_head(&mut stream).await;
            asked.send(()).expect("the test waits");
            wait_for_close(&mut stream).await;
        })
        .await;
        let pool = pool(address);
        let mut req = get("/");
        tokio::select! {
            _ = pool.send(&mut req, how()) => panic!("the app never answers"),
            _ = was_asked => {}
        }
        app.await.expect("the app saw the close");
        assert_eq!(pool.counts().active, 0);
    });
}

#[test]
fn a_connection_the_app_wants_closed_is_not_pooled() {
    // Goal: `Connection: close` and HTTP/1.0 answers end with their connection; the next request opens another.
    for answer in ["HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok", "HTTP/1.0 200 OK\r\n\r\nok"] {
        on_a_worker(async {
            let (address, _app) = app(async move |listener| {
                for _ in 0..2 {
                    let mut stream = accept(&listener).await;
                    read_head(&mut stream).await;
                    say(&mut stream, answer).await;
                }
            })
            .await;
            let pool = pool(address);
            for _ in 0..2 {
                let res = pool.send(&mut get("/"), once()).await.expect("a response");
                assert_eq!(text(res).await.expect("whole"), "ok");
            }
            assert_eq!((pool.counts().opened, pool.counts().reused), (2, 0));
        });
    }
}

#[test]
fn an_announced_idle_timeout_is_learned_and_close_idle_closes() {
    // Goal: node's `Keep-Alive: timeout=5` is evidence; close_idle ends idle connections without teaching anything.
    on_a_worker(async {
        let (address, app) = app(async |listener| {
            let mut stream = accept(&listener).await;
            read_head(&mut stream).await;
            say(&mut stream, "HTTP/1.1 200 OK\r\nkeep-alive: timeout=5\r\ncontent-length: 0\r\n\r\n").await;
            wait_for_close(&mut stream).await;
        })
        .await;
        let pool = pool(address);
        let mut req = get("/");
        req.headers.insert(HOST, HeaderValue::from_static("shop.test"));
        text(pool.send(&mut { req }, how()).await.expect("a response")).await.expect("whole");
        assert_eq!(pool.learned_idle_timeout(), Some(Duration::from_secs(5)));
        pool.close_idle();
        app.await.expect("the app saw the close");
        assert_eq!((pool.counts().idle, pool.learned_idle_timeout()), (0, Some(Duration::from_secs(5))));
    });
}

#[test]
fn a_request_in_flight_stays_small() {
    // Goal: connecting is boxed away, so that a request's future is not copied around by the kilobyte.
    on_a_worker(async {
        let pool = pool(Address::Unix("/nowhere".into()));
        let size = std::mem::size_of_val(&pool.send(&mut get("/"), how()));
        assert!(size <= 2048, "{size} bytes");
        assert!(std::mem::size_of::<UpstreamBody>() <= 64);
    });
}

#[test]
fn an_early_refusal_reaches_the_client_although_the_app_hung_up() {
    // Goal: the app answers 413 and closes with most of the upload unread, which resets the connection under our
    // writes; the answer must not be lost to the write error. The app has a thread of its own and there are many
    // rounds, because the order of events varies (199 of 200 fail when the write error counts).
    use std::io::{Read, Write};
    const ROUNDS: usize = 200;
    const FRAMES: usize = 256;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    let app = std::thread::spawn(move || {
        for _ in 0..ROUNDS {
            let (mut stream, _) = listener.accept().expect("a connection");
            stream.read_exact(&mut [0; 64]).expect("the beginning of a request");
            stream.write_all(b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 2\r\n\r\nno").expect("writable");
        }
    });
    let piece = Bytes::from(vec![b'x'; 16 << 10]);
    for _ in 0..ROUNDS {
        on_a_worker(async {
            let pool = pool(Address::Tcp { host: "127.0.0.1".into(), port });
            let (sender, body) = RequestBody::channel(FRAMES);
            for _ in 0..FRAMES {
                sender.try_send(Ok(Frame::data(piece.clone()))).expect("room");
            }
            let req = request("POST", "/", body);
            let res = pool.send(&mut { req }, once()).await.expect("the refusal");
            assert_eq!(res.status, StatusCode::PAYLOAD_TOO_LARGE);
            assert_eq!(text(res).await.expect("whole"), "no");
        });
    }
    app.join().expect("the app");
}
