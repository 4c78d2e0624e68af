//! Reading: through the worker's scratch area, or in place where much is expected and much comes.
//!
//! What is read in place shares one large block, and whoever keeps a piece of it keeps the block. So a block is begun
//! only behind a sender who fills what he is given, and no other is begun before it is nearly full: a peer that sends
//! byte by byte is read through the scratch area, into allocations of the size of what came.

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
/// 0 where that is not known. `flow`: what the stream's last read brought.
pub fn poll_fill<S>(
    stream: &mut S,
    cx: &mut Context<'_>,
    buffer: &mut BytesMut,
    expected: u64,
    flow: &mut usize,
) -> Poll<io::Result<usize>>
where
    S: AsyncRead + Unpin,
{
    if expected >= SCRATCH as u64 {
        let wanted = usize::try_from(expected).map_or(IN_PLACE_MAX, |expected| expected.min(IN_PLACE_MAX));
        let has_room = buffer.try_reclaim(wanted) || buffer.capacity() - buffer.len() >= SCRATCH;
        if has_room || *flow >= SCRATCH {
            if !has_room {
                buffer.reserve(wanted);
            }
            let read = ready!(pin!(stream.read_buf(buffer)).poll(cx))?;
            *flow = read;
            return Poll::Ready(Ok(read));
        }
    }
    AREA.with_borrow_mut(|area| {
        let mut read = ReadBuf::new(area);
        ready!(Pin::new(stream).poll_read(cx, &mut read))?;
        buffer.extend_from_slice(read.filled());
        *flow = read.filled().len();
        Poll::Ready(Ok(*flow))
    })
}
