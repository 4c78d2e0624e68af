//! Pure decisions, one small file each. Nothing here reads a clock, draws a random number, logs, locks or sleeps:
//! time, randomness and parameters are arguments, so every decision can be simulated exactly.

pub mod units;
