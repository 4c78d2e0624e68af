//! What happens when the world is not as it should be: files, ports, apps and peers.

#![allow(clippy::disallowed_methods, reason = "tests read the real clock")]

#[path = "../support/mod.rs"]
mod support;

mod apps;
mod files;
mod limits;
mod outside;
mod peers;
mod ports;
