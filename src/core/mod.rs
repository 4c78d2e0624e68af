//! Pure decisions, one small file each. Nothing here reads a clock, draws a random number, logs, locks or sleeps:
//! time, randomness and parameters are arguments, so every decision can be simulated exactly.

pub mod fields;
pub mod units;

pub mod framing;
pub mod headers;
pub mod path;
pub mod route;

pub mod calendar;
pub mod deadline;
pub mod dependency;
pub mod forwarded;
pub mod priority;
pub mod redact;
pub mod request_id;
pub mod switch;
pub mod trace;
pub mod websocket;

pub mod admission;
pub mod backoff;
pub mod balance;
pub mod breaker;
pub mod bucket;
pub mod budget;
pub mod drain;
pub mod eject;
pub mod frequent;
pub mod gradient;
pub mod health;
pub mod hedge;
pub mod hex;
pub mod histogram;
pub mod hold;
pub mod keyed;
pub mod pressure;
pub mod retry;
pub mod scope;
pub mod store;
pub mod window;

#[cfg(test)]
mod testing;
