//! One type for every kind of stream to an endpoint, so that a pool needs no boxing and no generic parameter for it.
//!
//! The TLS half is boxed once per connection: it is large, and the enum is moved around while connecting.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::client::TlsStream;

/// A socket without TLS.
#[derive(Debug)]
pub enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A connection to an endpoint, ready for HTTP.
#[derive(Debug)]
pub enum Io {
    Plain(Socket),
    Tls(Box<TlsStream<Socket>>),
}

impl Io {
    pub(super) fn is_tls(&self) -> bool {
        matches!(self, Io::Tls(_))
    }
}

/// Delegates one `AsyncWrite`/`AsyncRead` call to whichever variant is there.
macro_rules! each {
    ($self:ident, $($variant:path)|+, $stream:ident => $call:expr) => {
        match $self.get_mut() { $($variant($stream) => { let $stream = Pin::new($stream); $call })+ }
    };
}

macro_rules! delegate {
    ($name:ty, $($variant:path)|+) => {
        impl AsyncRead for $name {
            fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
                each!(self, $($variant)|+, stream => stream.poll_read(cx, buf))
            }
        }

        impl AsyncWrite for $name {
            fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
                each!(self, $($variant)|+, stream => stream.poll_write(cx, buf))
            }

            fn poll_write_vectored(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                bufs: &[IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                each!(self, $($variant)|+, stream => stream.poll_write_vectored(cx, bufs))
            }

            fn is_write_vectored(&self) -> bool {
                match self { $($variant(stream) => stream.is_write_vectored(),)+ }
            }

            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                each!(self, $($variant)|+, stream => stream.poll_flush(cx))
            }

            fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                each!(self, $($variant)|+, stream => stream.poll_shutdown(cx))
            }
        }
    };
}

delegate!(Socket, Socket::Tcp | Socket::Unix);
delegate!(Io, Io::Plain | Io::Tls);
