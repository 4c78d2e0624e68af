//! Reading: through the worker's scratch area, or in place where much is expected.

use std::cell::RefCell;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

/// Read at a time through the scratch area.
const SCRATCH: usize = 16 * 1024;
/// Read at a time in place.
const IN_PLACE_MAX: usize = 64 * 1024;

thread_local! {
    static AREA: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into_boxed_slice());
}

/// Reads once and appends to `buffer`; 0 is the end of the stream. `expected`: bytes of a body that are still to come,
/// 0 where that is not known.
pub fn poll_fill<S>(
    stream: &mut S,
    cx: &mut Context<'_>,
    buffer: &mut BytesMut,
    expected: u64,
) -> Poll<io::Result<usize>>
where
    S: AsyncRead + Unpin,
{
    if expected >= SCRATCH as u64 {
        buffer.reserve(usize::try_from(expected).map_or(IN_PLACE_MAX, |expected| expected.min(IN_PLACE_MAX)));
        return pin!(stream.read_buf(buffer)).poll(cx);
    }
    AREA.with_borrow_mut(|area| {
        let mut read = ReadBuf::new(area);
        ready!(Pin::new(stream).poll_read(cx, &mut read))?;
        buffer.extend_from_slice(read.filled());
        Poll::Ready(Ok(read.filled().len()))
    })
}
