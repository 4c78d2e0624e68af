//! Between a socket and the codec: how bytes are read into buffers and written out of them, on both sides of the proxy.
//!
//! What waits for a peer holds no buffer: bytes are read into the worker's one scratch area and copied into an
//! allocation of exactly their size, and only bodies of some size are read in place. A head and a small body leave in
//! one write. What the bytes mean is not known here.

mod inbound;
mod outbound;
mod sending;

pub use inbound::poll_fill;
pub use outbound::Outbound;
pub use sending::{Sending, Trouble};
