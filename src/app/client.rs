//! A small HTTP/1 client for Outrigger's own admin and ops ports, over TCP or a Unix socket.
//!
//! One connection per request and no pool: a command asks once and ends. Every failure is turned into a sentence that
//! says what to try next, because this is what an operator reads at three in the morning. It speaks no TLS: admin
//! listens on loopback or a socket, and a token protects it elsewhere.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::core::units::Address;

/// Where admin listens unless it is told otherwise.
pub const ADMIN_DEFAULT: &str = "127.0.0.1:9901";
/// Where ops listens unless it is told otherwise, as seen from the same machine.
pub const OPS_DEFAULT: &str = "127.0.0.1:9900";
/// Answers are read whole, up to this size.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Who is asked, and how.
#[derive(Clone, Debug)]
pub struct Client {
    address: Address,
    /// What is being talked to, for messages: `admin` or `ops`.
    port: &'static str,
    token: Option<String>,
    /// For the whole exchange; `None` waits as long as it takes (`drain --wait`).
    timeout: Option<Duration>,
}

/// A complete answer.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub body: Bytes,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON, or as a string where it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| serde_json::Value::String(self.text()))
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub enum ClientError {
    Unreachable {
        port: &'static str,
        address: Address,
        cause: io::Error,
    },
    TimedOut {
        port: &'static str,
        address: Address,
        after: Duration,
    },
    /// Something answered that is not what was expected there.
    NotHttp {
        port: &'static str,
        address: Address,
        cause: String,
    },
}

impl fmt::Display for ClientError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientError::Unreachable { port, address, cause } => {
                write!(out, "cannot reach Outrigger's {port} port at {address}: {}", reason(cause))?;
                match cause.kind() {
                    io::ErrorKind::PermissionDenied => {
                        write!(out, "\n  the socket belongs to another user; run this as that user")
                    }
                    _ => write!(out, "\n  is Outrigger running, and is this its {port} address? {}", hint(port)),
                }
            }
            ClientError::TimedOut { port, address, after } => {
                write!(out, "Outrigger's {port} port at {address} did not answer within {after:?}")
            }
            ClientError::NotHttp { port, address, cause } => write!(
                out,
                "what listens at {address} does not answer like Outrigger's {port} port: {cause}\n  {}",
                hint(port)
            ),
        }
    }
}

impl std::error::Error for ClientError {}

fn hint(port: &str) -> &'static str {
    match port {
        "admin" => "Name another with --admin ADDRESS or OUTRIGGER_ADMIN (host:port or unix:/path).",
        _ => "Name another with --url.",
    }
}

/// The operating system's words without its number.
fn reason(cause: &io::Error) -> String {
    match cause.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::NotFound => "there is no such socket".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => cause.to_string(),
    }
}

impl Client {
    pub fn new(address: Address, port: &'static str, timeout: Option<Duration>) -> Client {
        Client { address, port, token: None, timeout }
    }

    pub fn with_token(mut self, token: Option<String>) -> Client {
        self.token = token.filter(|token| !token.is_empty());
        self
    }

    pub fn address(&self) -> &Address {
        &self.address
    }

    pub async fn get(&self, path: &str) -> Result<Answer, ClientError> {
        self.ask(Method::GET, path, None).await
    }

    pub async fn post(&self, path: &str, body: &serde_json::Value) -> Result<Answer, ClientError> {
        self.ask(Method::POST, path, Some(body)).await
    }

    async fn ask(&self, method: Method, path: &str, body: Option<&serde_json::Value>) -> Result<Answer, ClientError> {
        let exchange = self.exchange(method, path, body);
        let Some(timeout) = self.timeout else { return exchange.await };
        match tokio::time::timeout(timeout, exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(ClientError::TimedOut { port: self.port, address: self.address.clone(), after: timeout }),
        }
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<&serde_json::Value>,
    ) -> Result<Answer, ClientError> {
        let request = self.request(method, path, body)?;
        match &self.address {
            Address::Tcp { host, port } => {
                let stream = self.connected(TcpStream::connect((host.as_str(), *port))).await?;
                self.over(stream, request).await
            }
            Address::Unix(path) => {
                let stream = self.connected(UnixStream::connect(path)).await?;
                self.over(stream, request).await
            }
        }
    }

    async fn connected<S>(&self, connect: impl Future<Output = io::Result<S>>) -> Result<S, ClientError> {
        match tokio::time::timeout(CONNECT_TIMEOUT, connect).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(cause)) => Err(ClientError::Unreachable { port: self.port, address: self.address.clone(), cause }),
            Err(_) => {
                let after = CONNECT_TIMEOUT;
                Err(ClientError::TimedOut { port: self.port, address: self.address.clone(), after })
            }
        }
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<&serde_json::Value>,
    ) -> Result<Request<Full<Bytes>>, ClientError> {
        let host = match &self.address {
            Address::Tcp { .. } => self.address.to_string(),
            Address::Unix(_) => "localhost".to_owned(),
        };
        let mut request = Request::builder().method(method).uri(path).header(HOST, host);
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let bytes = match body {
            Some(body) => {
                request = request.header(CONTENT_TYPE, "application/json");
                Bytes::from(body.to_string())
            }
            None => Bytes::new(),
        };
        request.body(Full::new(bytes)).map_err(|cause| self.not_http(&cause))
    }

    async fn over<S>(&self, stream: S, request: Request<Full<Bytes>>) -> Result<Answer, ClientError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|cause| self.not_http(&cause))?;
        let answer = async {
            let response = sender.send_request(request).await.map_err(|cause| self.not_http(&cause))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX);
            let body = body.collect().await.map_err(|cause| self.not_http(cause.as_ref()))?;
            Ok(Answer { status, body: body.to_bytes() })
        };
        // The connection is driven here instead of in a task of its own: it ends with the exchange.
        let mut connection = std::pin::pin!(connection);
        let mut answer = std::pin::pin!(answer);
        tokio::select! {
            biased;
            answer = &mut answer => answer,
            _ = &mut connection => answer.await,
        }
    }

    fn not_http(&self, cause: &dyn std::error::Error) -> ClientError {
        let mut words = cause.to_string();
        let mut source = cause.source();
        while let Some(inner) = source {
            words = format!("{words}: {inner}");
            source = inner.source();
        }
        ClientError::NotHttp { port: self.port, address: self.address.clone(), cause: words }
    }
}

/// `host:port`, `[v6]:port`, `:port`, `unix:/path`; a leading `http://` and a trailing `/` are forgiven.
pub fn parse_address(text: &str) -> Result<Address, String> {
    let wrong = || format!("\"{text}\" is not an address; write host:port (127.0.0.1:9901) or unix:/path");
    if let Some(path) = text.strip_prefix("unix:") {
        let path = path.strip_prefix("//").unwrap_or(path);
        if !path.starts_with('/') {
            return Err(format!("\"{text}\" needs an absolute path, like unix:/run/outrigger/admin.sock"));
        }
        return Ok(Address::Unix(PathBuf::from(path)));
    }
    let bare = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
    let (host, port) = bare.rsplit_once(':').ok_or_else(wrong)?;
    let port: u16 = port.parse().map_err(|_| wrong())?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let host = if host.is_empty() { "127.0.0.1" } else { host };
    if port == 0 || host.contains('/') || (host.contains(':') && host.parse::<std::net::Ipv6Addr>().is_err()) {
        return Err(wrong());
    }
    Ok(Address::Tcp { host: host.to_owned(), port })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn tcp(host: &str, port: u16) -> Address {
        Address::Tcp { host: host.to_owned(), port }
    }

    #[test]
    fn addresses_are_read_in_every_usual_form() {
        assert_eq!(parse_address("127.0.0.1:9901"), Ok(tcp("127.0.0.1", 9901)));
        assert_eq!(parse_address(":9901"), Ok(tcp("127.0.0.1", 9901)));
        assert_eq!(parse_address("[::1]:9901"), Ok(tcp("::1", 9901)));
        assert_eq!(parse_address("http://localhost:9901/"), Ok(tcp("localhost", 9901)));
        assert_eq!(parse_address("unix:/run/a.sock"), Ok(Address::Unix("/run/a.sock".into())));
        assert_eq!(parse_address("unix:///run/a.sock"), Ok(Address::Unix("/run/a.sock".into())));
        for wrong in ["", "localhost", "localhost:", "localhost:0", "localhost:70000", "a/b:80", "a:b:80", "unix:a"] {
            assert!(parse_address(wrong).is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn a_port_where_nobody_listens_is_said_in_plain_words() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let client = Client::new(tcp("127.0.0.1", port), "admin", Some(Duration::from_secs(5)));
        let words = client.get("/status").await.unwrap_err().to_string();
        assert!(
            words.starts_with(&format!("cannot reach Outrigger's admin port at 127.0.0.1:{port}: connection refused"))
        );
        assert!(words.contains("is Outrigger running"), "{words}");
        assert!(words.contains("--admin"), "{words}");
    }

    #[tokio::test]
    async fn a_missing_unix_socket_is_said_in_plain_words() {
        let directory = tempfile::tempdir().unwrap();
        let address = Address::Unix(directory.path().join("admin.sock"));
        let words = Client::new(address, "admin", None).get("/status").await.unwrap_err().to_string();
        assert!(words.contains("there is no such socket"), "{words}");
    }

    // Goal: the request carries Host, the token and the JSON body, and the answer is read whole.
    #[tokio::test]
    async fn a_request_carries_the_token_and_the_answer_is_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("admin.sock");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut seen = Vec::new();
            while !seen.ends_with(b"{\"to\":null}") {
                let mut part = [0; 1024];
                let count = stream.read(&mut part).await.unwrap();
                seen.extend_from_slice(&part[..count]);
            }
            stream.write_all(b"HTTP/1.1 409 Conflict\r\ncontent-length: 9\r\n\r\n{\"a\":\"b\"}").await.unwrap();
            String::from_utf8(seen).unwrap()
        });
        let client = Client::new(Address::Unix(path), "admin", None).with_token(Some("secret".to_owned()));
        let answer = client.post("/reload", &serde_json::json!({"to": null})).await.unwrap();
        assert_eq!(answer.status, StatusCode::CONFLICT);
        assert_eq!(answer.json()["a"], "b");
        let seen = server.await.unwrap();
        assert!(seen.starts_with("POST /reload HTTP/1.1\r\n"), "{seen}");
        assert!(seen.contains("authorization: Bearer secret\r\n"), "{seen}");
        assert!(seen.contains("host: localhost\r\n"), "{seen}");
    }

    #[tokio::test]
    async fn something_that_is_not_http_is_named() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"SSH-2.0-OpenSSH_9.9\r\n").await.unwrap();
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).await.unwrap();
        });
        let words = Client::new(tcp("127.0.0.1", port), "admin", None).get("/status").await.unwrap_err().to_string();
        assert!(words.contains("does not answer like Outrigger's admin port"), "{words}");
    }
}
