//! HTTP/1.1: what a message may be: bodies of unknown length, trailers, early answers, upgrades, and what is not HTTP.

use http::header::{CONNECTION, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use http_body::Frame;

use super::*;
use crate::upstream::{BodyError, SendError, Side};

#[test]
fn a_get_body_of_unknown_length_arrives() {
    // Goal: trap 1: hyper would drop it silently; here it is chunked, and reaches the app whole.
    on_a_worker(async {
        let (address, app) = app(async |listener| {
            let mut stream = accept(&listener).await;
            let head = read_head(&mut stream).await;
            let mut body = vec![0; "3\r\nabc\r\n0\r\n\r\n".len()];
            stream.read_exact(&mut body).await.expect("the body");
            say(&mut stream, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
            (head, String::from_utf8(body).expect("text"))
        })
        .await;
        let pool = pool(address);
        let (sender, body) = RequestBody::channel(1);
        sender.send(Ok(Frame::data(Bytes::from_static(b"abc")))).await.expect("room");
        drop(sender);
        let res = pool.send(&mut request("GET", "/search", body), how()).await.expect("a response");
        text(res).await.expect("whole");
        let (head, body) = app.await.expect("the app");
        assert!(head.contains("transfer-encoding: chunked\r\n"), "{head}");
        assert_eq!(body, "3\r\nabc\r\n0\r\n\r\n");
    });
}

#[test]
fn trailers_pass_in_both_directions() {
    // Goal: request trailers named by `trailer`, response trailers asked for by `te`.
    on_a_worker(async {
        let (address, app) = app(async |listener| {
            let mut stream = accept(&listener).await;
            let head = read_head(&mut stream).await;
            let trailers = read_head(&mut stream).await;
            say(
                &mut stream,
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: sum\r\n\r\n2\r\nok\r\n0\r\nsum: 7\r\n\r\n",
            )
            .await;
            (head, trailers, stream)
        })
        .await;
        let pool = pool(address);
        let (sender, body) = RequestBody::channel(2);
        let mut trailers = HeaderMap::new();
        trailers.insert("sum", HeaderValue::from_static("5"));
        sender.send(Ok(Frame::data(Bytes::from_static(b"abc")))).await.expect("room");
        sender.send(Ok(Frame::trailers(trailers))).await.expect("room");
        drop(sender);
        let mut req = request("POST", "/", body);
        req.headers.insert(HeaderName::from_static("trailer"), HeaderValue::from_static("sum"));
        req.headers.insert(HeaderName::from_static("te"), HeaderValue::from_static("trailers"));
        let res = pool.send(&mut { req }, how()).await.expect("a response");
        let collected = res.body.collect().await.expect("whole");
        assert_eq!(collected.trailers().and_then(|trailers| trailers.get("sum")), Some(&HeaderValue::from_static("7")));
        let (head, sent, _open) = app.await.expect("the app");
        assert!(head.contains("te: trailers\r\n"), "{head}");
        assert!(sent.ends_with("0\r\nsum: 5\r\n\r\n"), "{sent:?}");
        assert_eq!(pool.counts().idle, 1);
    });
}

#[test]
fn a_failing_request_body_is_the_clients_fault() {
    // Goal: the upload breaks off; the error names the client, keeps the body's own label, and the app is not blamed.
    on_a_worker(async {
        let (address, app) = app(async |listener| {
            let mut stream = accept(&listener).await;
            wait_for_close(&mut stream).await;
        })
        .await;
        let pool = pool(address);
        let (sender, body) = RequestBody::channel(2);
        sender.send(Ok(Frame::data(Bytes::from_static(b"abc")))).await.expect("room");
        sender.send(Err(BodyError { side: Side::Client, what: "cut" })).await.expect("room");
        let error = pool.send(&mut request("PUT", "/", body), how()).await.expect_err("no response");
        assert!(matches!(error, SendError::RequestBody { .. }), "{error:?}");
        assert_eq!((error.label(), error.side()), ("request_body", Side::Client));
        assert_eq!(error.body_error().map(|error| error.what), Some("cut"));
        app.await.expect("the app saw the close");
    });
}

#[test]
fn an_early_answer_does_not_pool_a_connection_that_is_still_sending() {
    // Goal: the app refuses the upload with 413 before it has arrived; the answer passes, the next request gets a
    // connection of its own.
    on_a_worker(async {
        let (address, _app) = app(async |listener| {
            let mut first = accept(&listener).await;
            read_head(&mut first).await;
            say(&mut first, "HTTP/1.1 413 Content Too Large\r\ncontent-length: 2\r\n\r\nno").await;
            let mut second = accept(&listener).await;
            serve(&mut second, "yes").await;
        })
        .await;
        let pool = pool(address);
        let (_sender, body) = RequestBody::channel(1);
        let res = pool.send(&mut request("POST", "/", body), how()).await.expect("a response");
        assert_eq!(res.status, StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(text(res).await.expect("whole"), "no");
        assert_eq!(pool.counts().idle, 0);
        let res = pool.send(&mut get("/"), how()).await.expect("a response");
        assert!(!res.body.reused());
        assert_eq!(text(res).await.expect("whole"), "yes");
    });
}

#[test]
fn what_is_not_http_is_a_bad_response() {
    // Goal: garbage, two lengths, an endless head.
    let endless = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(61 * 1024));
    let cases =
        ["SSH-2.0-OpenSSH_9\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n", &endless];
    for answer in cases {
        on_a_worker(async {
            let answer = answer.to_owned();
            let (address, _app) = app(async move |listener| {
                let mut stream = accept(&listener).await;
                read_head(&mut stream).await;
                // The other side may close before all of it is written.
                let _ = stream.write_all(answer.as_bytes()).await;
                wait_for_close(&mut stream).await;
            })
            .await;
            let error = pool(address).send(&mut get("/"), how()).await.expect_err("no response");
            assert!(matches!(error, SendError::BadResponse { .. }), "{error:?}");
            assert_eq!((error.label(), error.side()), ("bad_response", Side::App));
        });
    }
}

#[test]
fn an_upgrade_passes_and_its_connection_is_never_pooled() {
    // Goal: after the app's 101 both sides speak freely, including bytes that came with the 101.
    on_a_worker(async {
        let (address, app) = app(async |listener| {
            let mut stream = accept(&listener).await;
            let head = read_head(&mut stream).await;
            say(&mut stream, "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\nhi")
                .await;
            let mut word = [0; 4];
            stream.read_exact(&mut word).await.expect("the client's word");
            say(&mut stream, "pong").await;
            (head, word)
        })
        .await;
        let pool = pool(address);
        let mut req = get("/chat");
        req.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        req.headers.insert(UPGRADE, HeaderValue::from_static("echo"));
        let mut res = pool.send(&mut { req }, how()).await.expect("a response");
        assert_eq!(res.status, StatusCode::SWITCHING_PROTOCOLS);
        let mut upgraded = res.body.take_upgraded().expect("an upgrade");
        upgraded.write_all(b"ping").await.expect("writable");
        let mut said = [0; 6];
        upgraded.read_exact(&mut said).await.expect("readable");
        assert_eq!(&said, b"hipong");
        let (head, word) = app.await.expect("the app");
        assert!(head.contains("upgrade: echo\r\n") && &word == b"ping");
        assert_eq!((pool.counts().idle, pool.counts().active), (0, 0));
    });
}

#[test]
fn informational_answers_are_skipped() {
    // Goal: 100 and 103 do not become the answer, and the connection stays usable.
    on_a_worker(async {
        let (address, _app) = app(async |listener| {
            let mut stream = accept(&listener).await;
            read_head(&mut stream).await;
            say(&mut stream, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n").await;
            say(&mut stream, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        })
        .await;
        let pool = pool(address);
        let res = pool.send(&mut get("/"), how()).await.expect("a response");
        assert_eq!(res.status, StatusCode::OK);
        assert_eq!(text(res).await.expect("whole"), "ok");
    });
}
