//! The nearest equivalents to Outrigger's policies: timeouts, retries, a rate limit by client address that never refuses,
//! forwarding headers, a request id, security headers, a JSON access log. No passive health: Pingora's is active only.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use http::HeaderValue;
use http::header::{HOST, SERVER, USER_AGENT};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::prelude::{Error, ErrorType, HttpPeer, Result};
use pingora::proxy::{ProxyHttp, Session};
use pingora_limits::rate::Rate;

use crate::log::{Log, escape};

/// Attempts after the first.
pub const RETRIES: usize = 2;
/// Requests a second from one address.
const LIMIT: isize = 1_000_000;
const CONNECT: Duration = Duration::from_secs(2);
const SILENCE: Duration = Duration::from_secs(15);

pub struct Policies {
    app: SocketAddr,
    log: Arc<Log>,
    rate: Rate,
}

impl Policies {
    pub fn new(app: SocketAddr, log: Arc<Log>) -> Policies {
        Policies { app, log, rate: Rate::new(Duration::from_secs(1)) }
    }
}

/// Every port's.
pub struct Proxy(pub Arc<Policies>);

pub struct Request {
    began: Instant,
    id: [u8; 32],
    attempts: usize,
}

#[async_trait]
impl ProxyHttp for Proxy {
    type CTX = Request;

    fn new_ctx(&self) -> Request {
        Request { began: Instant::now(), id: hex(fastrand::u128(..)), attempts: 0 }
    }

    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    async fn request_filter(&self, session: &mut Session, _request: &mut Request) -> Result<bool> {
        let Some(client) = client(session) else { return Ok(false) };
        if self.0.rate.observe(&client, 1) <= LIMIT {
            return Ok(false);
        }
        let mut answer = ResponseHeader::build(429, None)?;
        answer.insert_header("Retry-After", "1")?;
        session.set_keepalive(None);
        session.write_response_header(Box::new(answer), true).await?;
        Ok(true)
    }

    async fn upstream_peer(&self, _session: &mut Session, request: &mut Request) -> Result<Box<HttpPeer>> {
        request.attempts += 1;
        let mut peer = Box::new(HttpPeer::new(self.0.app, false, String::new()));
        peer.options.connection_timeout = Some(CONNECT);
        peer.options.read_timeout = Some(SILENCE);
        peer.options.write_timeout = Some(SILENCE);
        Ok(peer)
    }

    fn fail_to_connect(
        &self,
        _session: &mut Session,
        _peer: &HttpPeer,
        request: &mut Request,
        mut error: Box<Error>,
    ) -> Box<Error> {
        error.set_retry(request.attempts <= RETRIES);
        error
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        head: &mut RequestHeader,
        request: &mut Request,
    ) -> Result<()> {
        if let Some(client) = client(session) {
            let before = head.headers.get("x-forwarded-for").map(HeaderValue::as_bytes).unwrap_or_default();
            let value = forwarded(before, client)?;
            head.insert_header("X-Forwarded-For", value)?;
        }
        let secure = session.digest().is_some_and(|digest| digest.ssl_digest.is_some());
        let scheme = HeaderValue::from_static(if secure { "https" } else { "http" });
        head.insert_header("X-Forwarded-Proto", scheme)?;
        if let Some(host) = head.headers.get(HOST).cloned() {
            head.insert_header("X-Forwarded-Host", host)?;
        }
        head.insert_header("X-Request-Id", &request.id[..])
    }

    /// An app that says it cannot now is asked again, when that is safe: the default of `error_while_proxy` forbids it
    /// for what is not idempotent.
    async fn upstream_response_filter(
        &self,
        _session: &mut Session,
        head: &mut ResponseHeader,
        request: &mut Request,
    ) -> Result<()> {
        let status = head.status.as_u16();
        if matches!(status, 502..=504) && request.attempts <= RETRIES {
            let mut error = Error::new(ErrorType::HTTPStatus(status)).into_up();
            error.set_retry(true);
            return Err(error);
        }
        Ok(())
    }

    async fn response_filter(
        &self,
        _session: &mut Session,
        head: &mut ResponseHeader,
        request: &mut Request,
    ) -> Result<()> {
        head.insert_header("X-Content-Type-Options", HeaderValue::from_static("nosniff"))?;
        head.insert_header("X-Frame-Options", HeaderValue::from_static("SAMEORIGIN"))?;
        head.insert_header("Referrer-Policy", HeaderValue::from_static("strict-origin-when-cross-origin"))?;
        head.insert_header("X-Request-Id", &request.id[..])?;
        head.remove_header(&SERVER);
        Ok(())
    }

    async fn logging(&self, session: &mut Session, _error: Option<&Error>, request: &mut Request) {
        self.0.log.line(|line| describe(line, session, request, self.0.app));
    }
}

fn client(session: &Session) -> Option<IpAddr> {
    Some(session.client_addr()?.as_inet()?.ip())
}

/// The addresses of the proxies before us, and the client's.
fn forwarded(before: &[u8], client: IpAddr) -> Result<HeaderValue> {
    let mut value = Vec::with_capacity(before.len() + 48);
    if !before.is_empty() {
        value.extend_from_slice(before);
        value.extend_from_slice(b", ");
    }
    let _ = write!(value, "{client}"); // into memory: cannot fail
    HeaderValue::from_maybe_shared(value).map_err(|_| Error::new(ErrorType::InvalidHTTPHeader))
}

fn describe(line: &mut Vec<u8>, session: &Session, request: &Request, app: SocketAddr) {
    let head = session.req_header();
    let status = session.response_written().map_or(0, |head| head.status.as_u16());
    let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let _ = write!(line, "{{\"time\":{}.{:03},\"id\":\"", time.as_secs(), time.subsec_millis()); // so for all here
    line.extend_from_slice(&request.id);
    line.extend_from_slice(b"\",\"client\":\"");
    if let Some(client) = client(session) {
        let _ = write!(line, "{client}");
    }
    line.extend_from_slice(b"\",\"method\":\"");
    line.extend_from_slice(head.method.as_str().as_bytes());
    line.extend_from_slice(b"\",\"path\":\"");
    escape(line, head.uri.path().as_bytes());
    let (version, bytes, seconds) = (head.version, session.body_bytes_sent(), request.began.elapsed().as_secs_f64());
    let _ =
        write!(line, "\",\"protocol\":\"{version:?}\",\"status\":{status},\"bytes\":{bytes},\"seconds\":{seconds:.6}");
    let _ = write!(line, ",\"upstream\":\"{app}\",\"host\":\"");
    let authority = head.uri.authority().map(|authority| authority.as_str().as_bytes());
    let host = head.headers.get(HOST).map(HeaderValue::as_bytes).or(authority);
    escape(line, host.unwrap_or_default());
    line.extend_from_slice(b"\",\"agent\":\"");
    escape(line, head.headers.get(USER_AGENT).map(HeaderValue::as_bytes).unwrap_or_default());
    line.extend_from_slice(b"\"}\n");
}

fn hex(number: u128) -> [u8; 32] {
    let mut text = [0; 32];
    for (place, byte) in text.iter_mut().enumerate() {
        let digit = (number >> (4 * (31 - place))) & 15;
        *byte = b"0123456789abcdef"[digit as usize];
    }
    text
}
