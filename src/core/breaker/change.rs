//! A breaker's change of state with its evidence, and the sentence an operator reads of it.

use std::fmt;
use std::time::Duration;

/// A change of state and its evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    pub from: &'static str,
    pub to: &'static str,
    pub cause: Cause,
}

/// What led to a change of state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    InARow { failures: u32, limit: u32, open_for: Duration },
    Failures { failures: u32, total: u32, open_for: Duration },
    SlowCalls { slow: u32, total: u32, open_for: Duration },
    TestFailed { openings: u32, open_for: Duration },
    TimeOver,
    TestWell,
    Checked,
    CameBack,
    RampOver,
    Command,
    CommandOver,
}

impl fmt::Display for Transition {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "breaker {} (was {}): ", self.to, self.from)?;
        match self.cause {
            Cause::InARow { failures, limit, open_for } => {
                write!(out, "{failures} failures in a row, the limit is {limit}; open for {open_for:.1?}")
            }
            Cause::Failures { failures, total, open_for } => {
                write!(out, "{failures} of {total} requests in the window failed; open for {open_for:.1?}")
            }
            Cause::SlowCalls { slow, total, open_for } => {
                write!(out, "{slow} of {total} requests in the window were slow; open for {open_for:.1?}")
            }
            Cause::TestFailed { openings, open_for } => {
                write!(out, "a test request failed; opening {openings} in a row, for {open_for:.1?}")
            }
            Cause::TimeOver => out.write_str("the open time is over"),
            Cause::TestWell => out.write_str("a test request went well"),
            Cause::Checked => out.write_str("a health check succeeded"),
            Cause::CameBack => out.write_str("it was away and listens again"),
            Cause::RampOver => out.write_str("the ramp is over"),
            Cause::Command => out.write_str("by command"),
            Cause::CommandOver => out.write_str("the command has expired"),
        }
    }
}
