//! The gRPC health check against a health service that says what it is told to.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::task::{Context, Poll};

use http::{HeaderMap, HeaderValue};
use http_body::Frame;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

use super::*;
use crate::upstream::probe::{self, Unhealthy};
use crate::upstream::rt::LocalExecutor;

const LONG: Duration = Duration::from_secs(5);

/// What the service answers: HTTP status, content type, message, grpc-status in the trailers.
type Script = (u16, &'static str, &'static [u8], &'static str);

/// The verdict on such a service, and the question it was asked.
fn asked(script: Script, service: &'static str) -> (Result<(), Unhealthy>, Vec<u8>) {
    on_a_worker(async {
        let (address, app) = app(async move |listener| {
            let stream = accept(&listener).await;
            let (tell, told) = tokio::sync::mpsc::unbounded_channel();
            let service = service_fn(move |req: http::Request<Incoming>| {
                let tell = tell.clone();
                async move {
                    assert_eq!((req.method().as_str(), req.uri().path()), ("POST", "/grpc.health.v1.Health/Check"));
                    assert_eq!(req.headers()["content-type"], "application/grpc");
                    assert_eq!(req.headers()["te"], "trailers");
                    let question = req.into_body().collect().await.expect("the question").to_bytes();
                    tell.send(question.to_vec()).expect("the test listens");
                    Ok::<_, Infallible>(answer(script))
                }
            });
            let _ = http2::Builder::new(LocalExecutor).serve_connection(TokioIo::new(stream), service).await;
            let mut told = told;
            told.recv().await.unwrap_or_default()
        })
        .await;
        let verdict = probe::grpc(&address, None, "shop.test", service, LONG).await;
        (verdict, app.await.expect("the app"))
    })
}

fn answer((status, kind, message, code): Script) -> http::Response<Frames> {
    let mut trailers = HeaderMap::new();
    if !code.is_empty() {
        trailers.insert("grpc-status", HeaderValue::from_static(code));
    }
    let frames = Frames([Frame::data(Bytes::from_static(message)), Frame::trailers(trailers)].into());
    http::Response::builder().status(status).header("content-type", kind).body(frames).expect("test data")
}

struct Frames(VecDeque<Frame<Bytes>>);

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(Ok))
    }
}

const GRPC: &str = "application/grpc";
const SERVING: &[u8] = &[0, 0, 0, 0, 2, 8, 1];

#[test]
fn only_serving_is_healthy() {
    // Goal: the question names the service; each other answer has its word and says what to look at.
    let (verdict, question) = asked((200, GRPC, SERVING, "0"), "shop.Cart");
    assert_eq!((verdict, &question[..]), (Ok(()), &b"\0\0\0\0\x0b\x0a\x09shop.Cart"[..]));
    assert_eq!(asked((200, "application/grpc+proto", SERVING, "0"), ""), (Ok(()), vec![0; 5]));
    let reason = |script| asked(script, "shop.Cart").0.expect_err("unhealthy");
    for (script, word, hint) in [
        ((200, GRPC, &[0, 0, 0, 0, 2, 8, 2][..], "0"), "grpc_not_serving", "`shop.Cart` is NOT_SERVING"),
        ((200, GRPC, &[0, 0, 0, 0, 0][..], "0"), "grpc_not_serving", "has not decided yet"),
        ((200, GRPC, &[0, 0, 0, 0, 2, 8, 3][..], "0"), "grpc_unknown_service", "check the name"),
        ((200, GRPC, &[][..], "5"), "grpc_unknown_service", "registered under that name"),
        ((200, GRPC, &[][..], "12"), "grpc_unimplemented", "register the health service"),
        ((200, GRPC, &[][..], "16"), "unauthorized", "asks for a login"),
        ((200, GRPC, &[][..], "14"), "server_error", "UNAVAILABLE"),
        ((200, GRPC, &[][..], "13"), "grpc_status", "grpc-status 13"),
        ((200, GRPC, SERVING, ""), "not_grpc", "no grpc-status"),
        ((200, GRPC, b"garbage", "0"), "not_grpc", "not that of a health service"),
        ((200, "text/html", SERVING, "0"), "not_grpc", "not gRPC"),
        ((404, "text/html", &[][..], ""), "not_found", "404 on /grpc.health.v1.Health/Check"),
    ] {
        let unhealthy = reason(script);
        assert_eq!(unhealthy.reason, word, "{unhealthy}");
        assert!(unhealthy.words.contains(hint), "{unhealthy}");
    }
}

#[test]
fn an_app_without_http2_cannot_speak_grpc() {
    on_a_worker(async {
        let (address, _app) = app(async |listener| {
            let mut stream = accept(&listener).await;
            say(&mut stream, "HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n").await;
        })
        .await;
        let unhealthy = probe::grpc(&address, None, "x", "", LONG).await.expect_err("HTTP/1.1");
        assert_eq!(unhealthy.reason, "not_http2", "{unhealthy}");
    });
}
