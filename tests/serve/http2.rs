//! HTTP/2 without TLS: the preface is recognised, a drain says GOAWAY, resets are bounded.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use outrigger::core::drain::Params;
use outrigger::serve::gate::Turned;
use tokio::net::TcpStream;

use crate::bench::{Bench, Options};

type Client = SendRequest<Empty<Bytes>>;
type Connection = tokio::task::JoinHandle<hyper::Result<()>>;

async fn client(bench: &Bench) -> (Client, Connection) {
    let stream = TcpStream::connect(("127.0.0.1", bench.port())).await.expect("a connection");
    let (client, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("a handshake");
    (client, tokio::spawn(connection))
}

fn request(path: &str) -> http::Request<Empty<Bytes>> {
    http::Request::get(format!("http://a{path}")).body(Empty::new()).expect("a request")
}

async fn get(client: &mut Client, path: &str) -> String {
    let response = client.send_request(request(path)).await.expect("an answer");
    assert_eq!(response.version(), http::Version::HTTP_2);
    let body = response.into_body().collect().await.expect("a body").to_bytes();
    String::from_utf8_lossy(&body).into_owned()
}

#[tokio::test]
async fn prior_knowledge_is_recognised() {
    let bench = Bench::start(Options::default());
    let (mut client, _connection) = client(&bench).await;
    assert_eq!(get(&mut client, "/").await, "ok");
    assert_eq!(get(&mut client, "/big").await.len(), 10_000_000);
}

#[tokio::test]
async fn an_idle_connection_is_told_goaway_after_the_keep_alive_time() {
    let keep_alive = Duration::from_millis(300);
    let bench = Bench::start(Options { keep_alive, ..Options::default() });
    let (mut client, connection) = client(&bench).await;
    assert_eq!(get(&mut client, "/sleep/700").await, "ok", "a request in flight is not idle");
    let ended = tokio::time::timeout(Duration::from_secs(10), connection).await.expect("an end in time");
    assert!(ended.expect("the task").is_ok(), "an orderly end");
}

#[tokio::test]
async fn a_drain_says_goaway_and_finishes_streams() {
    let bench = Bench::start(Options::default());
    let (mut client, connection) = client(&bench).await;
    assert_eq!(get(&mut client, "/").await, "ok");
    let slow = client.send_request(request("/sleep/600"));
    let sending = tokio::spawn(async move { slow.await.expect("an answer").into_body().collect().await });
    while bench.in_flight() == 0 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let params = Params { delay: Duration::ZERO, timeout: Duration::from_secs(10), farewell: Duration::ZERO };
    let never = std::future::pending::<()>();
    let report = outrigger::serve::drain(&bench.server, &bench.shared, params, never).await;
    assert_eq!((report.finished, report.cut), (1, 0), "{report:?}");
    assert_eq!(sending.await.expect("the task").expect("a whole body").to_bytes(), "ok");
    assert!(connection.await.expect("the task").is_ok(), "an orderly end");
    drop(client);
}

#[tokio::test]
async fn a_client_that_only_resets_streams_is_cut_off() {
    let bench = Bench::start(Options { workers: 1, ..Options::default() });
    let (mut client, connection) = client(&bench).await;
    let flood = async {
        for sent in 0..2000 {
            if client.ready().await.is_err() {
                return sent;
            }
            let sending = client.send_request(request("/sleep/60000"));
            // Given up before the answer: a RST_STREAM follows the HEADERS.
            let _ = tokio::time::timeout(Duration::from_millis(1), sending).await;
        }
        2000
    };
    let sent = tokio::time::timeout(Duration::from_secs(20), flood).await.expect("a bounded flood");
    assert!(sent < 2000, "cut off by our count of cancelled streams, or by h2's of those not yet accepted");
    let _ = connection.await.expect("the task"); // the connection broke, however that shows
    assert!(bench.turned(Turned::Abuse) <= 1);
    let (mut other, _connection) = self::client(&bench).await;
    assert_eq!(get(&mut other, "/").await, "ok", "others are served");
}
