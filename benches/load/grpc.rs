//! Unary gRPC calls: an app behind the proxies that speaks HTTP/2 and answers every call with one message and trailers,
//! and the call itself, which went well only if all of that arrives.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::net::TcpStream;

use super::served;

/// A message's five bytes in front, and what the call carries and is answered with behind them.
const PREFIX: usize = 5;
const ASKED: usize = 64;
const ANSWERED: usize = 1024;

fn message(bytes: usize) -> Bytes {
    let mut message = vec![0];
    message.extend_from_slice(&(bytes as u32).to_be_bytes());
    message.resize(PREFIX + bytes, b'g');
    message.into()
}

/// Serves until the process ends; its port.
pub fn start() -> u16 {
    served::start(|| |stream| drop(tokio::task::spawn_local(serve(stream))))
}

async fn serve(stream: TcpStream) {
    let mut builder = h2::server::Builder::new();
    builder.initial_window_size(1 << 20).initial_connection_window_size(16 << 20).max_concurrent_streams(1000);
    let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await else { return };
    while let Some(Ok((request, respond))) = connection.accept().await {
        tokio::task::spawn_local(answer(request, respond));
    }
}

async fn answer(request: Request<h2::RecvStream>, mut respond: h2::server::SendResponse<Bytes>) -> Option<()> {
    let mut asked = request.into_body();
    while let Some(data) = asked.data().await {
        let _ = asked.flow_control().release_capacity(data.ok()?.len());
    }
    let head = Response::builder().header("content-type", "application/grpc").body(()).ok()?;
    let mut answer = respond.send_response(head, false).ok()?;
    answer.send_data(message(ANSWERED), false).ok()?;
    answer
        .send_trailers(HeaderMap::from_iter([(
            http::header::HeaderName::from_static("grpc-status"),
            HeaderValue::from_static("0"),
        )]))
        .ok()
}

/// One call; the bytes of the message of one that went well.
pub async fn call(sender: &mut h2::client::SendRequest<Bytes>, scheme: &str, path: &str) -> Option<usize> {
    let request = Request::post(format!("{scheme}://bench.example{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .ok()?;
    std::future::poll_fn(|cx| sender.poll_ready(cx)).await.ok()?;
    let (response, mut asked) = sender.send_request(request, false).ok()?;
    asked.send_data(message(ASKED), true).ok()?;
    let mut body = response.await.ok().filter(|response| response.status() == 200)?.into_body();
    let mut bytes = 0;
    while let Some(data) = body.data().await {
        let data = data.ok()?;
        bytes += data.len();
        let _ = body.flow_control().release_capacity(data.len());
    }
    let trailers = body.trailers().await.ok()??;
    (bytes == PREFIX + ANSWERED && trailers.get("grpc-status")? == "0").then_some(ANSWERED)
}
