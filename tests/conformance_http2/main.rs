//! HTTP/2 as RFC 9113 wants it, over cleartext with prior knowledge: the h2 crate as a client, frames by hand for what
//! it refuses to send, and apps that speak HTTP/1 or HTTP/2.

#![allow(clippy::disallowed_methods, reason = "tests read the real clock")]

#[path = "../support/mod.rs"]
mod support;

mod bodies;
mod forwarding;
mod limits;
mod malformed;
mod to_http2;
