//! Which endpoint of an upstream a request goes to: peak-EWMA with the power of two choices.
//!
//! Two endpoints are drawn at random and the cheaper one is taken (Mitzenmacher, "The Power of Two Choices in
//! Randomized Load Balancing", 2001). The cost is the latency times the requests in flight and one. The latency is a
//! moving average that jumps up to a slower answer at once and forgets it over time (Twitter Finagle's `PeakEwma`), so
//! that a stall is noticed by its first answer. What those two leave open is decided here: a refusal (429, 503, a
//! reset) is no sign of speed, so it is not a latency; it raises the share of refusals, which costs as much as a slow
//! answer does. An endpoint that has just come back takes a growing share of what it would be given (slow start).
//!
//! When an endpoint is ejected is decided in [`super::eject`]; breakers and active checks are the caller's.

use std::time::{Duration, Instant};

/// How an upstream's endpoints are chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    #[default]
    PeakEwma,
    /// The fewest in flight of two.
    LeastRequest,
    /// One after the other.
    RoundRobin,
}

/// How fast things are forgotten. The defaults are what the product uses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Params {
    /// After this long without an answer, a latency counts for 1/e of what it was.
    pub decay: Duration,
    /// The same for refusals.
    pub refusal_decay: Duration,
    /// What an endpoint that does nothing but refuse costs at least, as if it were a latency.
    pub refusal_cost: Duration,
    /// From coming back to a full share.
    pub slow_start: Duration,
}

impl Default for Params {
    fn default() -> Self {
        Params {
            decay: Duration::from_secs(10),
            refusal_decay: Duration::from_secs(5),
            refusal_cost: Duration::from_secs(1),
            slow_start: Duration::from_secs(10),
        }
    }
}

/// The share an endpoint begins with when it comes back.
pub const WARMTH_MIN: f64 = 0.1;
/// What two endpoints are compared by while neither has answered yet.
const LATENCY_UNKNOWN: f64 = 0.001;
/// A refusing endpoint costs at least this many times the latency of the one it is compared with.
const REFUSAL_FACTOR: f64 = 2.0;

/// What the answers of one endpoint have shown.
#[derive(Clone, Debug, Default)]
pub struct Load {
    /// Seconds, as of `at`; `None` until the first answer.
    latency: Option<f64>,
    /// Share of refusals, 0 to 1, as of `at`.
    refusing: f64,
    at: Option<Instant>,
    cold_since: Option<Instant>,
}

/// One endpoint at the moment of choosing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Seen {
    pub latency: Option<f64>,
    pub refusing: f64,
    pub in_flight: u32,
    /// Which part of its share it takes, above 0 and at most 1.
    pub warmth: f64,
}

impl Load {
    /// An answer of the app, `took` after the request was sent.
    pub fn answered(&mut self, took: Duration, params: &Params, now: Instant) {
        let sample = took.as_secs_f64();
        let kept = self.kept(params.decay, now);
        self.refusing *= self.kept(params.refusal_decay, now);
        self.latency = Some(match self.latency {
            Some(latency) if sample < latency => latency * kept + sample * (1.0 - kept),
            Some(_) | None => sample,
        });
        self.at = Some(now);
    }

    /// A refusal or a failure: it says how long the endpoint keeps one waiting only when that is worse than known.
    pub fn refused(&mut self, took: Duration, params: &Params, now: Instant) {
        let kept = match self.at {
            // The first answer of all counts in full, as it does for the latency.
            None => 0.0,
            // Simultaneous refusals must count for something, or a burst of them would leave no trace.
            Some(_) => self.kept(params.refusal_decay, now).min(1.0 - REFUSAL_WEIGHT_MIN),
        };
        self.refusing = self.refusing * kept + (1.0 - kept);
        let sample = took.as_secs_f64();
        let faded = self.latency.map(|latency| latency * self.kept(params.decay, now));
        self.latency = faded.map(|latency| latency.max(sample));
        self.at = Some(now);
    }

    /// It has come back, or is new among others: it gets its share in steps.
    pub fn warm_up(&mut self, now: Instant) {
        *self = Load { cold_since: Some(now), ..Load::default() };
    }

    pub fn seen(&self, in_flight: u32, params: &Params, now: Instant) -> Seen {
        Seen {
            latency: self.latency.map(|latency| latency * self.kept(params.decay, now)),
            refusing: self.refusing * self.kept(params.refusal_decay, now),
            in_flight,
            warmth: self.warmth(params.slow_start, now),
        }
    }

    fn warmth(&self, slow_start: Duration, now: Instant) -> f64 {
        let Some(since) = self.cold_since else { return 1.0 };
        let warm = now.saturating_duration_since(since);
        if warm >= slow_start { 1.0 } else { (warm.as_secs_f64() / slow_start.as_secs_f64()).max(WARMTH_MIN) }
    }

    /// How much of what was known at the last answer still counts.
    fn kept(&self, decay: Duration, now: Instant) -> f64 {
        let Some(at) = self.at else { return 0.0 };
        (-now.saturating_duration_since(at).as_secs_f64() / decay.as_secs_f64().max(f64::MIN_POSITIVE)).exp()
    }
}

/// One refusal counts for at least this much, however short after the one before.
const REFUSAL_WEIGHT_MIN: f64 = 0.02;

/// The random numbers of one choice.
#[derive(Clone, Copy, Debug)]
pub struct Draw {
    pub random: u64,
    /// Uniform in `0.0..1.0`, for slow start.
    pub unit: f64,
    /// Grows with each request of the upstream, for round robin.
    pub turn: usize,
}

/// The index of the endpoint to take among `count`, of which `usable` ones can be taken; `None` when none can.
pub fn choose(
    policy: Policy,
    params: &Params,
    count: usize,
    usable: impl Fn(usize) -> bool,
    see: impl Fn(usize) -> Seen,
    draw: Draw,
) -> Option<usize> {
    let many = (0..count).filter(|index| usable(*index)).count();
    let nth = |place: usize| (0..count).filter(|index| usable(*index)).nth(place);
    if many <= 1 || policy == Policy::RoundRobin {
        return nth(draw.turn.checked_rem(many)?);
    }
    let (one, other) = two(many, draw.random);
    let (one, other) = (nth(one)?, nth(other)?);
    let (seen_one, seen_other) = (see(one), see(other));
    let costs = match policy {
        Policy::PeakEwma => costs(&seen_one, &seen_other, params),
        Policy::LeastRequest => (f64::from(seen_one.in_flight), f64::from(seen_other.in_flight)),
        Policy::RoundRobin => (0.0, 0.0),
    };
    let (taken, left) = if costs.0 <= costs.1 { ((one, seen_one), other) } else { ((other, seen_other), one) };
    // A cold endpoint passes on what is beyond its share. The other one may be cold too: somebody has to take it.
    Some(if draw.unit < taken.1.warmth { taken.0 } else { left })
}

/// Two different numbers below `many` (at least 2), every ordered pair equally likely.
fn two(many: usize, random: u64) -> (usize, usize) {
    let many = many as u64;
    // Multiply-shift instead of a remainder: without its bias towards small numbers (Lemire, 2019).
    let below = |random: u64, limit: u64| ((random & 0xffff_ffff) * limit) >> 32;
    let one = below(random, many);
    let other = below(random >> 32, many - 1);
    (one as usize, (if other >= one { other + 1 } else { other }) as usize)
}

fn costs(one: &Seen, other: &Seen, params: &Params) -> (f64, f64) {
    // An endpoint that has not answered yet is taken to be like the other one; in flight then decides.
    let known = one.latency.into_iter().chain(other.latency).fold(0.0, f64::max);
    let unknown = if known > 0.0 { known } else { LATENCY_UNKNOWN };
    let refusal = params.refusal_cost.as_secs_f64().max(REFUSAL_FACTOR * known);
    let cost =
        |seen: &Seen| (seen.latency.unwrap_or(unknown) + seen.refusing * refusal) * (f64::from(seen.in_flight) + 1.0);
    (cost(one), cost(other))
}

#[cfg(test)]
#[path = "balance/tests.rs"]
mod tests;
