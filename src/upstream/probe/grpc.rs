//! The gRPC health check: `grpc.health.v1.Health/Check` over HTTP/2, for one service or (an empty name) the server.
//!
//! The two messages have one field each, so they are written and read here; a code generator and a gRPC stack would
//! be a large price for that. Unknown fields are passed over, as protobuf wants it.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, TE, USER_AGENT};
use http::{HeaderMap, Request, Response};
use http_body::Body;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::{AGENT, Asked, DRAIN_MAX, Unhealthy, drive, unhealthy};
use crate::core::units::Address;
use crate::upstream::connect::{Alpn, connect};
use crate::upstream::tls::ClientTls;

const PATH: &str = "/grpc.health.v1.Health/Check";

/// Healthy when the app's health service says SERVING for `service`.
pub async fn grpc(
    address: &Address,
    tls: Option<&ClientTls>,
    host: &str,
    service: &str,
    timeout: Duration,
) -> Result<(), Unhealthy> {
    let asked = Asked { address, host, path: PATH, timeout };
    let check = async {
        let scheme = if tls.is_some() { "https" } else { "http" };
        let tls = tls.map(|tls| (tls, Alpn::Http2));
        let connected = connect(address, tls, timeout).await.map_err(|error| asked.unconnected(&error))?;
        let io = TokioIo::new(connected.io);
        let not_http2 = |error: hyper::Error| {
            unhealthy("not_http2", format!("{address} does not speak HTTP/2, which gRPC needs ({error})"))
        };
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await.map_err(not_http2)?;
        let req = Request::post(format!("{scheme}://{host}{PATH}"))
            .header(USER_AGENT, AGENT)
            .header(CONTENT_TYPE, "application/grpc")
            .header(TE, "trailers")
            .body(Full::new(question(service)))
            .map_err(|_| unhealthy("bad_check", format!("Host `{host}` is not usable")))?;
        drive(connection, async {
            let res = sender.send_request(req).await.map_err(not_http2)?;
            asked.judge_grpc(res, service).await
        })
        .await
    };
    asked.within(check).await
}

impl Asked<'_> {
    async fn judge_grpc(&self, res: Response<Incoming>, service: &str) -> Result<(), Unhealthy> {
        self.verdict(&res)?;
        if !res.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc")) {
            let words =
                format!("{} answered {PATH} with something that is not gRPC; is it the right port?", self.address);
            return Err(unhealthy("not_grpc", words));
        }
        let (head, body) = res.into_parts();
        let (message, trailers) = self.read(body).await?;
        let fields = if head.headers.contains_key("grpc-status") { &head.headers } else { &trailers };
        judge_status(fields, service)?;
        judge_serving(serving(&message), service)
    }

    async fn read(&self, body: Incoming) -> Result<(Vec<u8>, HeaderMap), Unhealthy> {
        let (mut body, mut message, mut trailers) = (pin!(body), Vec::new(), HeaderMap::new());
        while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            let frame = frame.map_err(|error| self.unanswered(&error))?;
            match frame.into_data() {
                Ok(data) if message.len() + data.len() > DRAIN_MAX => {
                    return Err(unhealthy("not_grpc", "the answer is far too long for a health check".to_owned()));
                }
                Ok(data) => message.extend_from_slice(&data),
                Err(frame) => trailers = frame.into_trailers().unwrap_or_default(),
            }
        }
        Ok((message, trailers))
    }
}

/// `HealthCheckRequest { service }`, uncompressed, with gRPC's prefix.
fn question(service: &str) -> Bytes {
    let mut message = Vec::with_capacity(service.len() + 8);
    if !service.is_empty() {
        message.push(0x0a); // field 1, length-delimited
        let mut length = service.len();
        while length >= 0x80 {
            message.push((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        message.push(length as u8);
        message.extend_from_slice(service.as_bytes());
    }
    let mut framed = vec![0];
    framed.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    framed.extend(message);
    framed.into()
}

/// The `status` of a `HealthCheckResponse`; `None` when it is none. A missing field is 0, UNKNOWN.
fn serving(framed: &[u8]) -> Option<u64> {
    let (prefix, rest) = framed.split_at_checked(5)?;
    let length = u32::from_be_bytes(prefix.get(1..5)?.try_into().ok()?) as usize;
    let mut message = rest.get(..length).filter(|_| prefix.first() == Some(&0))?;
    let mut status = 0;
    while !message.is_empty() {
        let key = varint(&mut message)?;
        match (key >> 3, key & 7) {
            (1, 0) => status = varint(&mut message)?,
            (_, 0) => drop(varint(&mut message)?),
            (_, 1) => message = message.get(8..)?,
            (_, 2) => {
                let length = usize::try_from(varint(&mut message)?).ok()?;
                message = message.get(length..)?;
            }
            (_, 5) => message = message.get(4..)?,
            _ => return None,
        }
    }
    Some(status)
}

fn varint(from: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for place in 0..10 {
        let (byte, rest) = from.split_first()?;
        *from = rest;
        value |= u64::from(byte & 0x7f).checked_shl(7 * place)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn named(service: &str) -> String {
    if service.is_empty() { "the server".to_owned() } else { format!("`{service}`") }
}

fn judge_status(fields: &HeaderMap, service: &str) -> Result<(), Unhealthy> {
    let text = |name| fields.get(name).and_then(|value: &HeaderValue| value.to_str().ok()).unwrap_or_default();
    let code = text("grpc-status");
    let said = text("grpc-message");
    let (reason, words) = match code {
        "0" => return Ok(()),
        "5" => (
            "grpc_unknown_service",
            format!("the app's health service does not know {}; is it registered under that name?", named(service)),
        ),
        "12" => (
            "grpc_unimplemented",
            "the app does not implement grpc.health.v1.Health; register the health service, or check by tcp: true"
                .to_owned(),
        ),
        "7" | "16" => ("unauthorized", format!("grpc-status {code}: the health service asks for a login")),
        "14" => ("server_error", "the app answers, but says it is UNAVAILABLE".to_owned()),
        "" => ("not_grpc", "the answer has no grpc-status; is it a gRPC server?".to_owned()),
        code => ("grpc_status", format!("the health check ended with grpc-status {code} ({said})")),
    };
    Err(unhealthy(reason, words))
}

fn judge_serving(status: Option<u64>, service: &str) -> Result<(), Unhealthy> {
    let of = named(service);
    let (reason, words) = match status {
        Some(1) => return Ok(()),
        Some(2) => ("grpc_not_serving", format!("the app answers, but says that {of} is NOT_SERVING")),
        Some(3) => {
            ("grpc_unknown_service", format!("the app's health service says SERVICE_UNKNOWN of {of}; check the name"))
        }
        Some(0) => {
            ("grpc_not_serving", format!("the app answers, but has not decided yet whether {of} serves (UNKNOWN)"))
        }
        Some(_) | None => ("not_grpc", "the answer is not that of a health service".to_owned()),
    };
    Err(unhealthy(reason, words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_question_is_the_protobuf_message() {
        assert_eq!(&question("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&question("a.B")[..], [0, 0, 0, 0, 5, 0x0a, 3, b'a', b'.', b'B']);
        let long = question(&"x".repeat(200));
        assert_eq!(long[..8], [0, 0, 0, 0, 203, 0x0a, 0xc8, 0x01]);
    }

    #[test]
    fn an_answer_is_read_and_garbage_is_not() {
        assert_eq!(serving(&[0, 0, 0, 0, 2, 8, 1]), Some(1));
        assert_eq!(serving(&[0, 0, 0, 0, 0]), Some(0));
        // Unknown fields of every kind before and after.
        let message = [0x12, 2, 9, 9, 0x19, 1, 2, 3, 4, 5, 6, 7, 8, 0x25, 1, 2, 3, 4, 0x28, 7, 8, 2];
        let framed = [&[0, 0, 0, 0, message.len() as u8][..], &message].concat();
        assert_eq!(serving(&framed), Some(2));
        for garbage in [&b""[..], b"\0\0\0\0\x02\x08", &[1, 0, 0, 0, 2, 8, 1], &[0, 0, 0, 0, 1, 0x0f], &[0xff; 40]] {
            assert_eq!(serving(garbage), None, "{garbage:?}");
        }
        assert_eq!(serving(&[&[0, 0, 0, 0, 12, 8][..], &[0x80; 11]].concat()), None, "an endless number");
    }
}
