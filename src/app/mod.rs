//! app
mod client;
mod wrap;
mod watch;
mod demo { mod flaky; mod load; }
