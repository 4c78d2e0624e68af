//! The bytes of one accepted connection, whatever carries them: TCP or a Unix socket, with or without TLS.
//!
//! An enum, not a trait object: the hot path reads and writes through it, and there are only these kinds. What a
//! connection is *doing* is not known here; see [`super::activity`].

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

/// What `accept` gave.
pub enum Raw {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// What HTTP is spoken over.
pub enum Stream {
    Plain(Raw),
    Tls(Box<TlsStream<Raw>>),
}

impl Raw {
    /// The address the client connected to; `None` for Unix sockets.
    pub fn local(&self) -> Option<SocketAddr> {
        match self {
            Raw::Tcp(stream) => stream.local_addr().ok(),
            Raw::Unix(_) => None,
        }
    }

    /// Copies what has arrived into `buffer` without taking it; waits for the first byte. 0 is the end of the stream.
    pub async fn peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
        use rustix::net::{RecvFlags, recv};
        let (taken, _) = match self {
            Raw::Tcp(stream) => {
                stream.async_io(Interest::READABLE, || Ok(recv(stream, &mut *buffer, RecvFlags::PEEK)?)).await?
            }
            Raw::Unix(stream) => {
                stream.async_io(Interest::READABLE, || Ok(recv(stream, &mut *buffer, RecvFlags::PEEK)?)).await?
            }
        };
        Ok(taken)
    }

    /// Makes the coming close a reset, so that the peer cannot take what it has for the whole.
    fn reset_on_close(&self) {
        let Raw::Tcp(stream) = self else { return };
        // Failing leaves an ordinary close, which is all that is left to do anyway.
        let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
    }
}

impl Stream {
    pub fn reset_on_close(&self) {
        match self {
            Stream::Plain(raw) => raw.reset_on_close(),
            Stream::Tls(tls) => tls.get_ref().0.reset_on_close(),
        }
    }
}

impl AsyncRead for Raw {
    #[inline]
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Raw::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Raw::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Raw {
    #[inline]
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Raw::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Raw::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Raw::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Raw::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    #[inline]
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(())) // sockets have no buffer of their own on this side
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Raw::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Raw::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

impl AsyncRead for Stream {
    #[inline]
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(raw) => Pin::new(raw).poll_read(cx, buffer),
            Stream::Tls(tls) => Pin::new(tls).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    #[inline]
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(raw) => Pin::new(raw).poll_write(cx, bytes),
            Stream::Tls(tls) => Pin::new(tls).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(raw) => Pin::new(raw).poll_write_vectored(cx, slices),
            Stream::Tls(tls) => Pin::new(tls).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Stream::Plain(raw) => raw.is_write_vectored(),
            Stream::Tls(tls) => tls.is_write_vectored(),
        }
    }

    #[inline]
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(raw) => Pin::new(raw).poll_flush(cx),
            Stream::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(raw) => Pin::new(raw).poll_shutdown(cx),
            Stream::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}
