//! The IO that hyper and tunnels read and write: passes bytes on and notes what they tell about the connection.
//!
//! When hyper lets go of it the stream goes back to the connection's task, which decides how it ends (408, linger,
//! reset). Therefore a shutdown asked for by hyper does nothing here, except for upgraded connections, whose tunnel
//! passes a half close on.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::activity::Activity;
use super::stream::Stream;

pub struct ConnectionIo {
    /// `None` only while dropping.
    stream: Option<Stream>,
    /// Read before hyper was asked, to tell HTTP/1 from HTTP/2; or behind a request that has upgraded.
    prefix: Bytes,
    activity: Arc<Activity>,
}

impl ConnectionIo {
    pub fn new(stream: Stream, prefix: Bytes, activity: Arc<Activity>) -> Self {
        ConnectionIo { stream: Some(stream), prefix, activity }
    }

    #[inline]
    fn stream(&mut self) -> io::Result<Pin<&mut Stream>> {
        self.stream.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    #[inline]
    fn note_write(&self, written: &Poll<io::Result<usize>>) {
        match written {
            Poll::Ready(_) => self.activity.wrote_some(),
            Poll::Pending => self.activity.write_blocked(),
        }
    }
}

impl Drop for ConnectionIo {
    fn drop(&mut self) {
        if let Some(stream) = self.stream.take() {
            self.activity.give_back(stream);
        }
    }
}

impl AsyncRead for ConnectionIo {
    #[inline]
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        if !this.prefix.is_empty() {
            let taken = this.prefix.len().min(buffer.remaining());
            buffer.put_slice(&this.prefix[..taken]);
            this.prefix.advance(taken);
            if this.prefix.is_empty() {
                this.prefix = Bytes::new(); // gives the allocation back
            }
            return Poll::Ready(Ok(()));
        }
        let polled = this.stream()?.poll_read(cx, buffer);
        if buffer.filled().len() > before {
            this.activity.read_some();
        }
        polled
    }
}

impl AsyncWrite for ConnectionIo {
    #[inline]
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = this.stream()?.poll_write(cx, bytes);
        this.note_write(&written);
        written
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = this.stream()?.poll_write_vectored(cx, slices);
        this.note_write(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.as_ref().is_some_and(AsyncWrite::is_write_vectored)
    }

    #[inline]
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = this.stream()?.poll_flush(cx);
        match flushed {
            Poll::Ready(_) => this.activity.wrote_some(),
            Poll::Pending => this.activity.write_blocked(),
        }
        flushed
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.activity.is_upgraded() { this.stream()?.poll_shutdown(cx) } else { Poll::Ready(Ok(())) }
    }
}
