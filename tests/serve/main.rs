//! The sockets room against real sockets.

mod bench;

mod connections;
mod drains;
mod http2;
mod tls;
