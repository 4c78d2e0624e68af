//! HTTP/1 as RFC 9110 and 9112 want it, with raw sockets on both sides of the real binary. The numbers are the rows
//! of the engineering notes' table of traps.

#![allow(clippy::disallowed_methods, reason = "tests read the real clock")]

#[path = "../support/mod.rs"]
mod support;

mod bodies;
mod clients;
mod forwarding;
mod framing;
mod harness;
mod limits;
mod races;
mod responses;
mod streams;
mod upgrades;
