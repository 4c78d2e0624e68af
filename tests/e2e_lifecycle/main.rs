//! Nothing is lost: reloads by every trigger, drains with exact accounts, certificates, wrapped apps and service
//! managers. Method: the real binary between apps and clients made here; every answer is checked to its last byte, and
//! what the drain reports is compared with what the client counted.

#![allow(clippy::disallowed_methods, reason = "tests read the real clock")]

#[path = "../support/mod.rs"]
mod support;

mod certificates;
mod drains;
mod managers;
mod reloads;
mod wrapped;
