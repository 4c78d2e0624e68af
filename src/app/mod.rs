//! Wiring: from the command line to a running process, and the verbs that ask a running one.

pub mod cli;

mod demo;
mod start;

mod kept;
pub mod options;
pub mod reload;
mod watch;
pub mod wrap;

mod check;
mod explain;

mod client;
mod healthcheck;
mod render;
mod verbs;
