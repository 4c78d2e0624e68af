//! Wiring: builds the floors bottom-up, runs them, ends them. No decisions about requests are made here.

pub mod run;

pub mod checks;
pub mod reload;
pub mod wrap;

mod kept;
mod watch;

pub mod options;
pub mod process;
pub mod systemd;
