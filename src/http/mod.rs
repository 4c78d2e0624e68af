//! HTTP/1 as a pure codec: bytes in, events out; heads and pieces of bodies in, bytes out. No clock; no sockets but in
//! [`wire`], which moves the bytes for both sides of the proxy.
//!
//! Both sides of the proxy are built on it, so that one reading of RFC 9112 decides where a message begins and ends.
//! It is strict where two readers could differ (bare LF or CR, folded lines, odd chunk sizes) and only notes what is
//! judged elsewhere with a better answer: two lengths, unknown codings and bad hosts make the framing
//! [`Framing::Unclear`], and whoever holds the head refuses it (`core::framing`).
//!
//! Start with [`head`] and [`body`] for reading, [`encode`] for writing. A head's fields are places in one shared buffer
//! ([`crate::core::fields`]); what nobody changes leaves as it came. [`message`] is what the floors above pass along.

pub mod body;
pub mod encode;
pub mod fields;
pub mod head;
pub mod message;
pub mod wire;

pub use body::{Body, BodyProblem, Extensions, Piece};
pub use encode::Writing;
pub use head::{Framing, HeadProblem, HeadReader, RequestHead, ResponseHead};
pub use message::{Request, Response};
