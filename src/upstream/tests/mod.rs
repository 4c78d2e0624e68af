//! The room against real sockets: apps here are scripts that say exactly which bytes they send and when they close.
//!
//! Everything runs on one thread in a `LocalSet`, as a worker does. Steps are ordered by what was read and by
//! channels, never by sleeping; a deadline around each test turns a hang into a failure.

mod connecting;
mod grpc;
mod http1;
mod http1_messages;
mod http2;
mod probing;
mod secure;

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http_body::Body;
use http_body_util::BodyExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, LocalSet};

use super::{EndpointSpec, Pool, Protocol, RequestBody, SendHow, UpstreamBody, UpstreamBodyError};
use crate::core::units::Address;
use crate::http::{Request, Response};

/// Runs a test as a worker would.
fn on_a_worker<F: Future>(test: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime for the test");
    LocalSet::new().block_on(&runtime, async {
        tokio::time::timeout(Duration::from_secs(20), test).await.expect("the test must not hang")
    })
}

/// A scripted app: `script` gets the listener.
async fn app<F, S>(script: F) -> (Address, JoinHandle<S::Output>)
where
    F: FnOnce(TcpListener) -> S,
    S: Future + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    (Address::Tcp { host: "127.0.0.1".into(), port }, tokio::task::spawn_local(script(listener)))
}

async fn accept(listener: &TcpListener) -> TcpStream {
    listener.accept().await.expect("a connection").0
}

/// Reads a request head (without body), lower-cased up to the blank line.
async fn read_head<R: AsyncRead + Unpin>(stream: &mut R) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        let n = stream.read(&mut byte).await.expect("a readable socket");
        assert_ne!(n, 0, "closed in the head: {:?}", String::from_utf8_lossy(&head));
        head.push(byte[0]);
    }
    String::from_utf8(head).expect("text")
}

async fn say(stream: &mut TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).await.expect("a writable socket");
}

/// Serves one request with a small answer.
async fn serve(stream: &mut TcpStream, body: &str) -> String {
    let head = read_head(stream).await;
    say(stream, &format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())).await;
    head
}

/// Waits until the peer has closed (or reset) the connection.
async fn wait_for_close(stream: &mut TcpStream) {
    let mut sink = [0; 1024];
    while let Ok(n) = stream.read(&mut sink).await {
        if n == 0 {
            return;
        }
    }
}

fn spec(address: Address, protocol: Protocol) -> EndpointSpec {
    EndpointSpec {
        address,
        tls: None,
        protocol,
        authority: "app.test".into(),
        idle_max: 4,
        idle_timeout: Duration::from_secs(4),
        refresh: None,
    }
}

fn pool(address: Address) -> Rc<Pool> {
    Pool::new(spec(address, Protocol::Auto))
}

fn how() -> SendHow<'static> {
    SendHow {
        connect_timeout: Duration::from_secs(5),
        want_http2: false,
        fresh: false,
        replayable: true,
        interim: None,
    }
}

fn once() -> SendHow<'static> {
    SendHow { replayable: false, ..how() }
}

fn request(method: &str, path: &str, body: RequestBody) -> Request<RequestBody> {
    http::Request::builder().method(method).uri(path).body(body).expect("test data").into()
}

fn get(path: &str) -> Request<RequestBody> {
    request("GET", path, RequestBody::Empty)
}

fn post(path: &str, body: &'static str) -> Request<RequestBody> {
    request("POST", path, RequestBody::Full(Bytes::from_static(body.as_bytes())))
}

async fn text(res: Response<UpstreamBody>) -> Result<String, UpstreamBodyError> {
    let whole = res.body.collect().await?.to_bytes();
    Ok(String::from_utf8(whole.to_vec()).expect("text"))
}

/// The next data frame of a body.
async fn chunk<B: Body<Data = Bytes> + Unpin>(body: &mut B) -> Option<Result<Bytes, B::Error>> {
    let frame = std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await?;
    Some(frame.map(|frame| frame.into_data().unwrap_or_default()))
}

/// Lets other tasks run until `done`; the test's deadline bounds it.
async fn until(done: impl Fn() -> bool) {
    while !done() {
        tokio::task::yield_now().await;
    }
}
