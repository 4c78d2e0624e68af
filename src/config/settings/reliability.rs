//! Settings of the policies that keep requests going when an app fails: retries, breakers, hold.

use std::time::Duration;

use super::Mode;
use crate::core::units::{Rate, Ratio};

#[derive(Clone, Debug, PartialEq)]
pub struct CircuitBreaker {
    pub mode: Mode,
    /// `None` is auto: 5, or 1 % of the window's requests if that is more.
    pub consecutive_failures: Option<u32>,
    pub failure_rate: Ratio,
    pub slow_call: Option<SlowCall>,
    /// What failures and slow calls are counted over.
    pub window: Duration,
    /// Requests in the window below which no rate opens it.
    pub volume_min: u32,
    pub open_for_base: Duration,
    pub open_for_max: Duration,
    /// Test requests let through at a time while half-open.
    pub probes: u32,
    /// How long a growing share passes after a good test; zero closes at once.
    pub ramp: Duration,
}

#[derive(Clone, Debug, PartialEq)]
pub struct SlowCall {
    pub rate: Ratio,
    pub duration: Duration,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Retry {
    /// In all, the first included; 1 is no retry.
    pub attempts: u32,
    pub conditions: RetryConditions,
    pub per_try: Option<Duration>,
    pub backoff_base: Duration,
    pub backoff_factor: f64,
    pub backoff_max: Duration,
    pub body_max: u64,
    pub budget: RetryBudget,
}

/// How many attempts beyond the first there may be.
#[derive(Clone, Debug, PartialEq)]
pub struct RetryBudget {
    /// Of the real requests.
    pub percent: Ratio,
    /// The window they are counted over.
    pub interval: Duration,
    /// Allowed whatever the traffic.
    pub rate_min: Rate,
    /// Typed for this route, which then has a bucket of its own; else all routes of an upstream share one.
    pub own: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryConditions {
    pub connect: bool,
    pub reset: bool,
    pub per_try_timeout: bool,
    pub grpc_unavailable: bool,
    /// Response statuses, 500..=599 (and 429).
    pub statuses: Vec<u16>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    /// How long requests wait for an app that does not listen; zero holds none.
    pub wait_max: Duration,
    /// Waiting at a time, all workers together.
    pub requests_max: u32,
}
