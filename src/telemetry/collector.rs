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
use rustls::RootCertStore;
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
        let tls = match https {
            true => Some((connector(system_roots()?)?, ServerName::try_from(host.clone())?)),
            false => None,
        };
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

/// The system's roots, or those of `SSL_CERT_FILE` and `SSL_CERT_DIR`.
fn system_roots() -> Result<RootCertStore, HttpError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let cause = found.errors.first().map(|error| format!(": {error}")).unwrap_or_default();
        return Err(format!("no root certificates were found on this system{cause}").into());
    }
    Ok(roots)
}

fn connector(roots: RootCertStore) -> Result<TlsConnector, HttpError> {
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
/// Attempts of one export.
pub const ATTEMPTS_MAX: u32 = 3;
/// Before the second attempt; doubled for the next.
const RETRY_DELAY: Duration = Duration::from_millis(250);
/// Bytes of an answer; it only says how many spans were rejected.
const ANSWER_MAX: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use rustls::pki_types::PrivateKeyDer;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;

    fn request() -> Request<Bytes> {
        Request::post("https://localhost/v1/traces").body(Bytes::from_static(b"spans")).unwrap()
    }

    /// Reads one request and answers it.
    async fn serve(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), answer: &str) -> String {
        let mut text = Vec::new();
        while !text.ends_with(b"spans") {
            assert!(stream.read_buf(&mut text).await.unwrap() > 0);
        }
        stream.write_all(answer.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        String::from_utf8(text).unwrap()
    }

    #[tokio::test]
    async fn a_collector_behind_tls_is_reached_if_its_certificate_is_trusted() {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let certificate = made.cert.der().clone();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let config = rustls::ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut roots = RootCertStore::empty();
        roots.add(certificate).unwrap();
        let collector = |roots| Collector {
            host: "127.0.0.1".to_owned(),
            port,
            authority: HeaderValue::from_static("localhost"),
            tls: Some((connector(roots).unwrap(), ServerName::try_from("localhost").unwrap())),
            idle: Mutex::default(),
            problem: Mutex::default(),
        };
        let server = async {
            let mut stream = acceptor.accept(listener.accept().await.unwrap().0).await.unwrap();
            let text = serve(&mut stream, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
            assert!(acceptor.accept(listener.accept().await.unwrap().0).await.is_err());
            text
        };
        let client = async {
            let answer = collector(roots).attempt(&request()).await.unwrap();
            assert_eq!((answer.status().as_u16(), answer.body().as_ref()), (200, &b"ok"[..]));
            let stranger = collector(RootCertStore::empty()).attempt(&request()).await.unwrap_err();
            assert!(words(&*stranger).contains("certificate"), "{}", words(&*stranger));
        };
        let (text, ()) = tokio::join!(server, client);
        assert!(text.starts_with("POST /v1/traces HTTP/1.1\r\n") && text.contains("host: localhost\r\n"), "{text}");
    }

    #[tokio::test]
    async fn a_connection_is_kept_and_a_lost_one_replaced() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let collector = Collector::new(&format!("http://{}/v1/traces", listener.local_addr().unwrap())).unwrap();
        let answer = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        let server = async {
            let (mut first, _) = listener.accept().await.unwrap();
            serve(&mut first, answer).await;
            serve(&mut first, answer).await;
            drop(first);
            let (mut second, _) = listener.accept().await.unwrap();
            serve(&mut second, answer).await;
        };
        let client = async {
            for _ in 0..3 {
                let answer = collector.send_bytes(request()).await.unwrap();
                assert!(answer.status().is_success());
            }
        };
        tokio::join!(server, client);
        assert_eq!(collector.problem(), None);
    }

    #[tokio::test]
    async fn a_collector_that_is_not_there_is_said_to_be_so() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let collector = Collector::new(&format!("http://{address}")).unwrap();
        assert!(collector.send_bytes(request()).await.is_err());
        assert!(collector.problem().unwrap().contains("refused"), "{:?}", collector.problem());
    }

    #[tokio::test(start_paused = true)]
    async fn a_collector_that_says_nothing_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let collector = Collector::new(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        assert!(collector.send_bytes(request()).await.is_err());
        assert!(collector.problem().unwrap().contains("within 10 s"), "{:?}", collector.problem());
    }
}
