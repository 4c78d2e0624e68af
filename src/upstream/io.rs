//! One type for every kind of stream to an endpoint, so that a pool needs no boxing and no generic parameter for it.
//!
//! The TLS half is boxed once per connection: it is large, and the enum is moved around while connecting.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::client::TlsStream;

/// A socket without TLS.
///
/// Writing never fails on it: an app may answer early and close while we still send (413 to an upload), and an error
/// from our write would take the place of the answer that is already waiting to be read. So once the peer has closed, what
/// is written is discarded, and reading tells the truth: the answer first, then the end or the reset.
#[derive(Debug)]
pub struct Socket {
    stream: Stream,
    peer_closed: bool,
    /// Bytes that the system has taken.
    accepted: u64,
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    /// Passes a write's outcome on, or pretends when the peer has closed.
    fn written(&mut self, outcome: Poll<io::Result<usize>>, offered: usize) -> Poll<io::Result<usize>> {
        match outcome {
            Poll::Ready(Err(error)) if is_peer_gone(&error) => {
                self.peer_closed = true;
                Poll::Ready(Ok(offered))
            }
            Poll::Ready(Ok(written)) => {
                self.accepted += written as u64;
                Poll::Ready(Ok(written))
            }
            outcome => outcome,
        }
    }
}

fn is_peer_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

impl From<TcpStream> for Socket {
    fn from(stream: TcpStream) -> Self {
        Self { stream: Stream::Tcp(stream), peer_closed: false, accepted: 0 }
    }
}

impl From<UnixStream> for Socket {
    fn from(stream: UnixStream) -> Self {
        Self { stream: Stream::Unix(stream), peer_closed: false, accepted: 0 }
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.peer_closed {
            return Poll::Ready(Ok(buf.len()));
        }
        let outcome = Pin::new(&mut this.stream).poll_write(cx, buf);
        this.written(outcome, buf.len())
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let offered = bufs.iter().map(|buf| buf.len()).sum();
        if this.peer_closed {
            return Poll::Ready(Ok(offered));
        }
        let outcome = Pin::new(&mut this.stream).poll_write_vectored(cx, bufs);
        this.written(outcome, offered)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

/// A connection to an endpoint, ready for HTTP.
#[derive(Debug)]
pub enum Io {
    Plain(Socket),
    Tls(Box<TlsStream<Socket>>),
}

impl Io {
    fn socket(&self) -> &Socket {
        match self {
            Io::Plain(socket) => socket,
            Io::Tls(tls) => tls.get_ref().0,
        }
    }

    /// Bytes that the system has taken so far; over TLS, encrypted.
    pub(super) fn accepted(&self) -> u64 {
        self.socket().accepted
    }

    /// A write has shown that the peer had closed before it took anything after its first `accepted` bytes.
    pub(super) fn closed_at(&self, accepted: u64) -> bool {
        let socket = self.socket();
        socket.peer_closed && socket.accepted == accepted
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

delegate!(Stream, Stream::Tcp | Stream::Unix);
delegate!(Io, Io::Plain | Io::Tls);

/// A connection after its 101: what came behind the head first, then the socket.
#[derive(Debug)]
pub struct Upgraded {
    io: Io,
    read: Bytes,
}

impl Upgraded {
    pub(super) fn new(io: Io, read: Bytes) -> Self {
        Self { io, read }
    }
}

impl AsyncRead for Upgraded {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.read.is_empty() {
            return Pin::new(&mut this.io).poll_read(cx, buf);
        }
        let taken = this.read.split_to(this.read.len().min(buf.remaining()));
        buf.put_slice(&taken);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Upgraded {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test]
    async fn what_was_taken_before_the_end_is_not_forgotten() {
        // Goal: a request of which the first bytes have left is not called unwritten when the next write fails.
        let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
        let mut io = Io::Plain(Socket::from(ours));
        assert_eq!(io.write(b"0123456789").await.expect("taken"), 10);
        drop(theirs);
        assert_eq!(io.write(b"rest").await.expect("pretended"), 4);
        assert_eq!((io.closed_at(0), io.closed_at(10), io.accepted()), (false, true, 10));
    }
}
