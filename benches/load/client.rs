//! One client connection: plain or TLS, HTTP/1.1 by hand, HTTP/2 by `h2`.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use rustls::pki_types::{CertificateDer, ServerName};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;

/// How to reach one proxy's port.
#[derive(Clone)]
pub struct Target {
    pub port: u16,
    pub tls: Option<TlsConnector>,
}

/// Trusts the bench's own certificate and never resumes, so that each handshake is a full one.
pub fn connector(certificate: &CertificateDer<'static>, alpn: &[&[u8]]) -> TlsConnector {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate.clone()).expect("the bench's own certificate");
    let mut config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    TlsConnector::from(Arc::new(config))
}

pub trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}

impl Target {
    pub async fn connect(&self) -> Option<Box<dyn Stream>> {
        let stream = tcp(self.port).await?;
        let Some(connector) = &self.tls else { return Some(Box::new(stream)) };
        let name = ServerName::try_from("bench.example").expect("a valid name");
        Some(Box::new(connector.connect(name, stream).await.ok()?))
    }
}

/// From changing addresses of 127.0.0.0/8, so that ports of closed connections do not run out.
async fn tcp(port: u16) -> Option<TcpStream> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let turn = NEXT.fetch_add(1, Ordering::Relaxed) / 64 % 200;
    let source = Ipv4Addr::new(127, 0, 0, 2 + turn as u8);
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).ok()?;
    socket.set_nonblocking(true).ok()?;
    socket.bind(&SocketAddr::from((source, 0)).into()).ok()?;
    let socket = TcpSocket::from_std_stream(socket.into());
    let stream = socket.connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await.ok()?;
    stream.set_nodelay(true).ok()?;
    Some(stream)
}

pub struct Client {
    stream: Box<dyn Stream>,
    buffer: Vec<u8>,
}

impl Client {
    pub async fn connect(target: &Target) -> Option<Client> {
        Some(Client { stream: target.connect().await?, buffer: Vec::new() })
    }

    /// One request; the bytes of the body of a whole 200.
    pub async fn ask(&mut self, request: &[u8]) -> Option<usize> {
        self.buffer.clear();
        self.stream.write_all(request).await.ok()?;
        self.stream.flush().await.ok()?;
        let head = loop {
            self.more().await?;
            if let Some(head) = find(&self.buffer, b"\r\n\r\n") {
                break head;
            }
        };
        if !self.buffer.starts_with(b"HTTP/1.1 200") {
            return None;
        }
        let length = content_length(&self.buffer[..head])?;
        let mut here = self.buffer.len() - head - 4;
        while here < length {
            self.buffer.clear();
            self.more().await?;
            here += self.buffer.len();
        }
        Some(length)
    }

    /// Asks for another protocol; None unless it is granted.
    pub async fn upgrade(&mut self, request: &[u8]) -> Option<()> {
        self.stream.write_all(request).await.ok()?;
        loop {
            self.more().await?;
            if self.buffer.ends_with(b"\r\n\r\n") {
                return self.buffer.starts_with(b"HTTP/1.1 101").then_some(());
            }
        }
    }

    /// Sends a message and waits for so many bytes.
    pub async fn echo(&mut self, message: &[u8], bytes: usize) -> Option<()> {
        self.buffer.clear();
        self.stream.write_all(message).await.ok()?;
        while self.buffer.len() < bytes {
            self.more().await?;
        }
        Some(())
    }

    async fn more(&mut self) -> Option<()> {
        if self.buffer.capacity() == 0 {
            self.buffer.reserve(4096);
        } else if self.buffer.capacity() - self.buffer.len() < 2048 {
            self.buffer.reserve(128 * 1024);
        }
        matches!(self.stream.read_buf(&mut self.buffer).await, Ok(1..)).then_some(())
    }

    /// Keeps the connection, gives the buffer back.
    pub fn rest(&mut self) {
        self.buffer = Vec::new();
    }
}

/// An HTTP/2 connection; its driver runs on the local set.
pub async fn http2(target: &Target) -> Option<h2::client::SendRequest<Bytes>> {
    let stream = target.connect().await?;
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(1 << 20).initial_connection_window_size(16 << 20);
    let (sender, connection) = builder.handshake(stream).await.ok()?;
    tokio::task::spawn_local(async move {
        let _ = connection.await; // ends with the sender, or with an error that the next request reports
    });
    sender.ready().await.ok()
}

/// One stream; the bytes of the body of a whole 200.
pub async fn ask_http2(sender: &mut h2::client::SendRequest<Bytes>, scheme: &str, path: &str) -> Option<usize> {
    let request = http::Request::get(format!("{scheme}://bench.example{path}"))
        .header("user-agent", "bench")
        .header("accept", "*/*")
        .body(())
        .ok()?;
    std::future::poll_fn(|cx| sender.poll_ready(cx)).await.ok()?;
    let (response, _) = sender.send_request(request, true).ok()?;
    let mut response = response.await.ok().filter(|response| response.status() == 200)?;
    let mut bytes = 0;
    while let Some(data) = response.body_mut().data().await {
        let data = data.ok()?;
        bytes += data.len();
        let _ = response.body_mut().flow_control().release_capacity(data.len());
    }
    Some(bytes)
}

pub fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

/// Of a head that the bench's own app or one of the peers wrote.
pub fn content_length(head: &[u8]) -> Option<usize> {
    let mut lines = head.split(|byte| *byte == b'\n');
    let value = lines.find_map(|line| {
        let (name, value) = line.split_at_checked(15)?;
        name.eq_ignore_ascii_case(b"content-length:").then_some(value)
    })?;
    std::str::from_utf8(value.trim_ascii()).ok()?.parse().ok()
}
