//! The connection to the OTLP collector: HTTP/1.1, plain or TLS, one connection that is kept while it lives. It runs on
//! the exporter's own thread. Failures that may pass are tried again within one deadline; redirects and proxies of the
//! environment are not followed.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Request, Response, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use opentelemetry_http::{HttpClient, HttpError};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::metrics::lock;

/// A collector.
pub struct Collector {
    host: String,
    port: u16,
    authority: HeaderValue,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    /// The connection of the last export, if it can be used again.
    idle: Mutex<Option<SendRequest<Full<Bytes>>>>,
    problem: Mutex<Option<String>>,
}

impl Collector {
    /// Of an `http://` or `https://` URL.
    pub fn new(endpoint: &str) -> Result<Collector, HttpError> {
        let uri: Uri = endpoint.parse()?;
        let https = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            Some(_) | None => return Err("the URL must begin with http:// or https://".into()),
        };
        let authority = uri.authority().ok_or("the URL names no host")?;
        if authority.as_str().contains('@') {
            return Err("a user in the URL is not supported; use OTEL_EXPORTER_OTLP_HEADERS".into());
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err("the URL names no host".into());
        }
        let tls = if https { Some((connector()?, ServerName::try_from(host.clone())?)) } else { None };
        Ok(Collector {
            port: authority.port_u16().unwrap_or(if https { 443 } else { 80 }),
            authority: HeaderValue::from_str(authority.as_str())?,
            host,
            tls,
            idle: Mutex::default(),
            problem: Mutex::default(),
        })
    }

    /// What went wrong last.
    pub fn problem(&self) -> Option<String> {
        lock(&self.problem).clone()
    }

    /// Sends a request until it is answered for good; the caller bounds the time.
    async fn persist(&self, request: &Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let mut delay = RETRY_DELAY;
        for _ in 1..ATTEMPTS_MAX {
            match self.attempt(request).await {
                Ok(response) if !passes(response.status().as_u16()) => return Ok(response),
                Ok(response) => *lock(&self.problem) = Some(format!("it answered {}", response.status())),
                Err(error) => *lock(&self.problem) = Some(words(&*error)),
            }
            tokio::time::sleep(delay).await;
            delay *= 2;
        }
        self.attempt(request).await
    }

    async fn attempt(&self, request: &Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let kept = lock(&self.idle).take();
        let mut sender = match kept {
            Some(sender) if !sender.is_closed() => sender,
            Some(_) | None => self.connect().await?,
        };
        sender.ready().await?;
        let response = sender.send_request(self.dress(request)?).await?;
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_MAX).collect().await?.to_bytes();
        *lock(&self.idle) = Some(sender);
        Ok(Response::from_parts(parts, body))
    }

    /// In origin form and with a Host, as HTTP/1.1 to an origin wants it.
    fn dress(&self, request: &Request<Bytes>) -> Result<Request<Full<Bytes>>, HttpError> {
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        let mut dressed = Request::post(path).body(Full::new(request.body().clone()))?;
        *dressed.headers_mut() = request.headers().clone();
        dressed.headers_mut().insert(header::HOST, self.authority.clone());
        Ok(dressed)
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, HttpError> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        stream.set_nodelay(true)?;
        match &self.tls {
            None => handshake(stream).await,
            Some((connector, name)) => handshake(connector.connect(name.clone(), stream).await?).await,
        }
    }
}

impl HttpClient for Collector {
    // The signature that `async_trait` gives the trait's `async fn`; the macro is not worth a dependency.
    fn send_bytes<'life, 'future>(
        &'life self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'future>>
    where
        'life: 'future,
        Self: 'future,
    {
        Box::pin(async move {
            let answer = match tokio::time::timeout(EXPORT_TIMEOUT, self.persist(&request)).await {
                Ok(answer) => answer,
                Err(_) => Err(format!("it did not answer within {} s", EXPORT_TIMEOUT.as_secs()).into()),
            };
            *lock(&self.problem) = match &answer {
                Ok(response) if response.status().is_success() => None,
                Ok(response) => Some(format!("it answered {}", response.status())),
                Err(error) => Some(words(&**error)),
            };
            answer
        })
    }
}

impl fmt::Display for Collector {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}", self.host, self.port)
    }
}

impl fmt::Debug for Collector {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Collector({self})")
    }
}

async fn handshake(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
) -> Result<SendRequest<Full<Bytes>>, HttpError> {
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Its end is seen by the sender.
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender)
}

/// TLS as a client, trusting the system's roots (and `SSL_CERT_FILE`, `SSL_CERT_DIR`).
fn connector() -> Result<TlsConnector, HttpError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let cause = found.errors.first().map(|error| format!(": {error}")).unwrap_or_default();
        return Err(format!("no root certificates were found on this system{cause}").into());
    }
    let mut config = rustls::ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

#[cfg(feature = "aws-lc")]
fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

#[cfg(all(feature = "ring", not(feature = "aws-lc")))]
fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Answers after which OTLP/HTTP asks to try again.
fn passes(status: u16) -> bool {
    matches!(status, 429 | 502 | 503 | 504)
}

/// An error and its causes.
fn words(error: &(dyn std::error::Error + 'static)) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(deeper) = cause {
        words.push_str(": ");
        words.push_str(&deeper.to_string());
        cause = deeper.source();
    }
    words
}

/// For one export, all attempts together; OpenTelemetry's default.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);
const ATTEMPTS_MAX: u32 = 3;
/// Before the second attempt; doubled for the next.
const RETRY_DELAY: Duration = Duration::from_millis(250);
/// Bytes of an answer; it only says how many spans were rejected.
const ANSWER_MAX: usize = 64 * 1024;
