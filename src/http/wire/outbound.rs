//! Writing: what is small is gathered in one buffer, what is large goes out from where it lies.
//!
//! Gathering buffers belong to the worker: a connection borrows one from its first byte to its last and gives it back,
//! so that idle ones hold none, and busy ones one that has its size already.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::AsyncWrite;

/// Data of at most this size is copied behind the head.
const COPY_MAX: usize = 4 * 1024;
/// More is not gathered before it has been written.
const GATHER_MAX: usize = 16 * 1024;
/// A buffer that has grown beyond this is not kept for the next message.
const KEEP_MAX: usize = 32 * 1024;
/// Buffers kept by a worker.
const SPARE_MAX: usize = 16;

thread_local! {
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// What waits to be written to one socket.
#[derive(Default)]
pub struct Outbound {
    gathered: Vec<u8>,
    written: usize,
    /// Goes behind what is gathered.
    data: Bytes,
    /// Goes behind the data.
    tail: &'static [u8],
}

impl Outbound {
    /// Where bytes may be appended. Only while there [`is room`](Self::has_room).
    pub fn gather(&mut self) -> &mut Vec<u8> {
        if self.gathered.capacity() == 0 {
            self.gathered = SPARE.with_borrow_mut(Vec::pop).unwrap_or_default();
        }
        &mut self.gathered
    }

    /// Appends data and the bytes that follow it.
    pub fn push(&mut self, data: Bytes, tail: &'static [u8]) {
        if data.len() <= COPY_MAX {
            let gathered = self.gather();
            gathered.extend_from_slice(&data);
            gathered.extend_from_slice(tail);
        } else {
            (self.data, self.tail) = (data, tail);
        }
    }

    /// Puts something else behind data that waits to be written; false when there is none.
    pub fn replace_tail(&mut self, tail: &'static [u8]) -> bool {
        let waits = !self.data.is_empty();
        if waits {
            self.tail = tail;
        }
        waits
    }

    /// Whether more may be appended before what is here has been written.
    pub fn has_room(&self) -> bool {
        self.data.is_empty() && self.tail.is_empty() && self.gathered.len() - self.written < GATHER_MAX
    }

    pub fn is_empty(&self) -> bool {
        self.written == self.gathered.len() && self.data.is_empty() && self.tail.is_empty()
    }

    /// Writes everything; pending while the peer does not take it.
    pub fn poll_write<S>(&mut self, stream: &mut S, cx: &mut Context<'_>) -> Poll<io::Result<()>>
    where
        S: AsyncWrite + Unpin,
    {
        while !self.is_empty() {
            let gathered = &self.gathered[self.written..];
            let stream = Pin::new(&mut *stream);
            let written = if self.data.is_empty() && self.tail.is_empty() {
                ready!(stream.poll_write(cx, gathered))?
            } else {
                let slices = [IoSlice::new(gathered), IoSlice::new(&self.data), IoSlice::new(self.tail)];
                ready!(stream.poll_write_vectored(cx, &slices))?
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.advance(written);
        }
        self.gathered.clear();
        self.written = 0;
        // Over TLS, bytes that were taken may still be on this side.
        Pin::new(stream).poll_flush(cx)
    }

    fn advance(&mut self, mut written: usize) {
        let gathered = written.min(self.gathered.len() - self.written);
        self.written += gathered;
        written -= gathered;
        let data = written.min(self.data.len());
        self.data.advance(data);
        self.tail = &self.tail[(written - data).min(self.tail.len())..];
        if self.data.is_empty() {
            self.data = Bytes::new(); // gives the allocation back
        }
    }

    /// Gives the gathering buffer back to the worker, once everything is written.
    pub fn rest(&mut self) {
        if self.gathered.capacity() > 0 && self.is_empty() {
            let mut spare = std::mem::take(&mut self.gathered);
            self.written = 0;
            if spare.capacity() <= KEEP_MAX {
                spare.clear();
                SPARE.with_borrow_mut(|spares| {
                    if spares.len() < SPARE_MAX {
                        spares.push(spare);
                    }
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    /// Takes at most this many bytes at a time.
    struct Narrow(usize, Vec<u8>);

    impl AsyncWrite for Narrow {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            let taken = bytes.len().min(self.0);
            self.1.extend_from_slice(&bytes[..taken]);
            Poll::Ready(Ok(taken))
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            slices: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).take(self.0).collect();
            self.1.extend_from_slice(&bytes);
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn bytes_leave_in_their_order_whatever_the_socket_takes() {
        for width in [1, 2, 3, 7, 4999, 5003, 5004, 5005, 100_000] {
            let mut outbound = Outbound::default();
            outbound.gather().extend_from_slice(b"head");
            outbound.push(Bytes::from_static(b"small"), b"\r\n");
            assert!(outbound.has_room());
            outbound.push(vec![b'x'; 5000].into(), b"\r\n");
            assert!(!outbound.has_room());
            let mut socket = Narrow(width, Vec::new());
            let done = outbound.poll_write(&mut socket, &mut Context::from_waker(Waker::noop()));
            assert!(matches!(done, Poll::Ready(Ok(()))) && outbound.is_empty());
            let expected = [b"headsmall\r\n".as_slice(), &[b'x'; 5000], b"\r\n"].concat();
            assert!(socket.1 == expected, "{width}");
            outbound.rest();
            assert_eq!(outbound.gathered.capacity(), 0);
        }
    }
}
