//! Wiring: builds the floors bottom-up, runs them, ends them; and the verbs that ask a running process.
//! No decisions about requests are made here.

pub mod cli;
mod verdict;

pub mod run;
mod start;

pub mod checks;
mod dependencies;
mod memory;
pub mod reload;
pub mod wrap;

mod kept;
mod trial;
mod watch;

pub mod options;
pub mod process;
pub mod systemd;

mod demo;

mod check;
mod explain;

mod client;
mod healthcheck;
mod render;
mod switches;
mod verbs;
