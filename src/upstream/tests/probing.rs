//! Health checks: each way an app can be unhealthy has its word.

use super::*;
use crate::upstream::probe::{self, Unhealthy};

const SHORT: Duration = Duration::from_millis(50);
const LONG: Duration = Duration::from_secs(5);

/// What `probe::http` says about an app that answers `answer` to anything.
fn verdict_on(answer: &'static str) -> Result<(), Unhealthy> {
    on_a_worker(async {
        let (address, app) = app(async move |listener| {
            let mut stream = accept(&listener).await;
            let head = read_head(&mut stream).await;
            say(&mut stream, answer).await;
            head
        })
        .await;
        let verdict = probe::http(&address, None, "shop.test", "/healthz", LONG).await;
        let head = app.await.expect("the app");
        assert!(head.starts_with("GET /healthz HTTP/1.1\r\n") && head.contains("host: shop.test\r\n"), "{head}");
        verdict
    })
}

fn reason(answer: &'static str) -> &'static str {
    verdict_on(answer).expect_err("unhealthy").reason
}

#[test]
fn only_2xx_is_healthy() {
    // Goal: 2xx with and without a body; each other status by its word.
    assert_eq!(verdict_on("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"), Ok(()));
    assert_eq!(verdict_on("HTTP/1.1 204 No Content\r\n\r\n"), Ok(()));
    assert_eq!(verdict_on("HTTP/1.0 200 OK\r\n\r\nok"), Ok(()));
    assert_eq!(reason("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"), "not_found");
    assert_eq!(reason("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n"), "host_rejected");
    assert_eq!(reason("HTTP/1.1 421 Misdirected Request\r\ncontent-length: 0\r\n\r\n"), "host_rejected");
    assert_eq!(reason("HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n"), "unauthorized");
    assert_eq!(reason("HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\n\r\n"), "limited");
    assert_eq!(reason("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"), "server_error");
    assert_eq!(reason("HTTP/1.1 418 Teapot\r\ncontent-length: 0\r\n\r\n"), "bad_status");
    assert_eq!(reason("SSH-2.0-OpenSSH_9.2\r\n"), "not_http");
    assert_eq!(reason(""), "closed");
}

#[test]
fn a_redirect_says_where_to() {
    // Goal: the operator sees the new place in the words.
    let unhealthy =
        verdict_on("HTTP/1.1 301 Moved\r\nlocation: https://shop.test/healthz\r\ncontent-length: 0\r\n\r\n");
    let unhealthy = unhealthy.expect_err("a redirect is not healthy");
    assert_eq!(unhealthy.reason, "redirected");
    assert!(unhealthy.words.contains("redirected to https://shop.test/healthz"), "{unhealthy}");
}

#[test]
fn nobody_listening_names_the_address() {
    // Goal: refused for HTTP and TCP; an accepting socket is all a TCP check asks for.
    on_a_worker(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let address = Address::Tcp { host: "127.0.0.1".into(), port };
        assert_eq!(probe::tcp(&address, LONG).await, Ok(()));
        drop(listener);
        for verdict in [probe::tcp(&address, LONG).await, probe::http(&address, None, "x", "/", LONG).await] {
            let unhealthy = verdict.expect_err("nothing listens");
            assert_eq!(unhealthy.reason, "connect_refused");
            assert!(unhealthy.words.contains(&format!("nothing listens on 127.0.0.1:{port}")), "{unhealthy}");
        }
        let missing = Address::Unix("/nonexistent/app.sock".into());
        assert_eq!(probe::tcp(&missing, LONG).await.expect_err("missing").reason, "connect_unix_missing");
    });
}

#[test]
fn an_app_that_hangs_times_out() {
    // Goal: accepted but never answered is told apart from not connected.
    on_a_worker(async {
        let (address, _app) = app(async |listener| {
            let mut stream = accept(&listener).await;
            wait_for_close(&mut stream).await;
        })
        .await;
        let unhealthy = probe::http(&address, None, "x", "/slow", SHORT).await.expect_err("no answer");
        assert_eq!(unhealthy.reason, "timeout");
        assert!(unhealthy.words.contains("did not answer /slow"), "{unhealthy}");
    });
}

#[test]
fn an_http2_endpoint_is_checked_with_http2() {
    // Goal: prior knowledge; an HTTP/1.1 app is unhealthy for an HTTP/2 check.
    on_a_worker(async {
        let app = http2::Server::start(http2::Options::default()).await;
        assert_eq!(probe::http2(&app.address, None, "shop.test", "/echo", LONG).await, Ok(()));
        assert_eq!(app.seen.borrow().as_slice(), ["GET http://shop.test/echo"]);
        let (address, _app) = super::app(async |listener| {
            let mut stream = accept(&listener).await;
            say(&mut stream, "HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n").await;
        })
        .await;
        let unhealthy = probe::http2(&address, None, "x", "/", LONG).await.expect_err("HTTP/1.1");
        assert_eq!(unhealthy.reason, "not_http2", "{unhealthy}");
        assert!(unhealthy.words.contains("does not speak HTTP/2") && unhealthy.words.contains("protocol: http1"));
        // Who says nothing at all has not shown what it speaks.
        let (address, _app) = super::app(async |listener| drop(accept(&listener).await)).await;
        assert_eq!(probe::http2(&address, None, "x", "/", LONG).await.expect_err("nothing").reason, "closed");
    });
}

#[test]
fn checks_can_run_on_any_runtime() {
    // Goal: the futures are Send.
    fn is_send<T: Send>(_: &T) {}
    let address = Address::Unix("/nonexistent".into());
    is_send(&probe::http(&address, None, "x", "/", SHORT));
    is_send(&probe::http2(&address, None, "x", "/", SHORT));
    is_send(&probe::tcp(&address, SHORT));
    is_send(&probe::grpc(&address, None, "x", "", SHORT));
}
