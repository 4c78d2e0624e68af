//! Connecting: what fails and what it is called, Unix sockets, several addresses.

use tokio::net::UnixListener;

use super::*;
use crate::upstream::{ConnectProblem, SendError, Side};

#[test]
fn a_refused_connection_gives_the_request_back() {
    // Goal: nothing listens; the label says so, the request with its unread body comes back and can be sent again.
    on_a_worker(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        drop(listener);
        let pool = pool(Address::Tcp { host: "127.0.0.1".into(), port: address.port() });
        let (_sender, body) = RequestBody::channel(1);
        let mut held = request("POST", "/held", body);
        let error = pool.send(&mut held, how()).await.expect_err("refused");
        assert!(matches!(&error, SendError::ConnectRefused { cause, .. } if cause.problem == ConnectProblem::Refused));
        assert_eq!((error.label(), error.side(), error.was_never_written()), ("connect_refused", Side::App, true));
        assert_eq!(held.uri, "/held");
        assert!(matches!(&held.body, RequestBody::Channel(_)));
        assert_eq!(pool.counts(), Default::default());
    });
}

#[test]
fn localhost_reaches_an_app_on_either_family() {
    // Goal: a name with two addresses works although only one of them is served.
    on_a_worker(async {
        let (address, _app) = app(async |listener| {
            let mut stream = accept(&listener).await;
            serve(&mut stream, "v4").await;
        })
        .await;
        let Address::Tcp { port, .. } = address else { unreachable!("apps listen on TCP") };
        let pool = pool(Address::Tcp { host: "localhost".into(), port });
        assert_eq!(text(pool.send(&mut get("/"), how()).await.expect("a response")).await.expect("whole"), "v4");
    });
}

#[test]
fn a_name_without_an_address_is_a_dns_problem() {
    // Goal: RFC 6761 `.invalid` never resolves; it must not be called refused.
    on_a_worker(async {
        let pool = pool(Address::Tcp { host: "nothing.invalid".into(), port: 1 });
        let error = pool.send(&mut get("/"), how()).await.expect_err("no address");
        assert!(matches!(error, SendError::ConnectFailed { .. } | SendError::ConnectTimeout), "{error:?}");
        assert!(["connect_dns", "connect_timeout"].contains(&error.label()));
    });
}

#[test]
fn unix_sockets_serve_and_say_when_they_are_missing() {
    // Goal: missing file, stale file that nobody listens on, and a served one.
    on_a_worker(async {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("app.sock");
        let pool = pool(Address::Unix(path.clone()));
        let error = pool.send(&mut get("/"), how()).await.expect_err("missing");
        assert_eq!(error.label(), "connect_unix_missing");

        drop(UnixListener::bind(&path).expect("a socket"));
        let error = pool.send(&mut get("/"), how()).await.expect_err("stale");
        assert_eq!(error.label(), "connect_refused");

        std::fs::remove_file(&path).expect("the stale socket");
        let listener = UnixListener::bind(&path).expect("a socket");
        tokio::task::spawn_local(async move {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            read_head(&mut stream).await;
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nunix";
            stream.write_all(answer).await.expect("a writable socket");
        });
        assert_eq!(text(pool.send(&mut get("/"), how()).await.expect("a response")).await.expect("whole"), "unix");
    });
}
