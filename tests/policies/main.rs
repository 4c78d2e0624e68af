//! The reliability policies, each seen from outside: the real binary, an app that fails as it is told, and what the
//! client, the app, the metrics and `why` say of it.
#![allow(clippy::disallowed_methods, reason = "tests read the real clock")]

#[path = "../support/mod.rs"]
mod support;

mod breakers;
mod hold;
mod overload;
mod places;
mod priorities;
mod retries;
mod stores;
mod switches;
