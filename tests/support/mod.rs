//! What the black-box tests share: the built binary with its addresses and logs, apps and clients that say and see
//! raw bytes, and the tools of other people.
//!
//! Nothing here knows the product's code. Every wait has a deadline, every port is 0, nothing is shared between
//! tests, and no test sleeps to let something happen: it waits for what it needs to see.

#![allow(dead_code, unused_imports, reason = "each test binary uses its own part")]
#![allow(clippy::disallowed_methods, reason = "tests read the real clock")]

pub mod app;
pub mod config;
pub mod curl;
pub mod frames;
pub mod http2;
pub mod load;
pub mod message;
pub mod postgres;
pub mod process;
pub mod tls;
pub mod tools;
pub mod wire;

use std::time::{Duration, Instant};

pub use app::{Conn, RawApp};
pub use config::config;
pub use message::{BodyEnd, Head, Request, Response};
pub use process::{Launch, Outrigger};
pub use wire::{End, Wire};

/// No step of a test may take longer.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// Asks again and again until the answer is `Some`, at most `DEADLINE`; for states that nobody announces.
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + DEADLINE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < until, "{what}: not within {DEADLINE:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
