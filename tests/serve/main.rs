//! The sockets room against real sockets.

#![allow(clippy::disallowed_methods)]

mod bench;

mod connections;
mod drains;
mod http2;
mod tls;
