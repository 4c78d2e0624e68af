//! A circuit breaker on consecutive failures. Closed it counts failures in a row; at the limit it opens for a jittered
//! time that doubles each time it has to open again; then it lets a bounded number of test requests through, and one
//! success closes it.
//!
//! An admission is a ticket of the breaker's current generation. A change of state begins a new generation, so a late
//! result of an earlier one changes nothing. A test request that is given up is recorded as [`Outcome::Ignored`] and
//! frees its place: a half-open breaker cannot wait for ever for a result that never comes.
//!
//! What counts as a failure is the caller's to say, and a ticket must come back: whoever holds one keeps it in a guard
//! whose drop records [`Outcome::Ignored`].

use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Params {
    /// Failures in a row that open it; at least 1, and 0 counts as 1.
    pub consecutive_failures: u32,
    /// The first open time; each opening without a close in between doubles it.
    pub open_for_base: Duration,
    /// The longest open time.
    pub open_for_max: Duration,
    /// Test requests at a time while half-open; at least 1, and 0 counts as 1.
    pub probes: u32,
}

/// The longest open time whatever the parameters say, so that it can be added to any clock.
const OPEN_FOR_LIMIT: Duration = Duration::from_secs(24 * 3600);

/// What an admitted request came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Success,
    Failure,
    /// It says nothing of the app: the client left, or the failure was ours.
    Ignored,
}

/// The right to send one request.
#[derive(Debug)]
pub struct Ticket {
    generation: u64,
    probe: bool,
}

/// The breaker is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// Until a test request may pass; zero while test requests are under way.
    pub retry_in: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Closed,
    Open { until: Instant },
    HalfOpen { in_flight: u32 },
    Forced(Forced),
}

impl State {
    pub fn label(&self) -> &'static str {
        match self {
            State::Closed => "closed",
            State::Open { .. } => "open",
            State::HalfOpen { .. } => "half_open",
            State::Forced(Forced::Open) => "forced_open",
            State::Forced(Forced::Closed) => "forced_closed",
        }
    }
}

/// A state held by command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forced {
    Open,
    Closed,
}

/// A change of state and its evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    pub from: &'static str,
    pub to: &'static str,
    /// Failures in a row that led to it.
    pub failures: u32,
}

/// One breaker.
#[derive(Debug)]
pub struct Breaker {
    state: State,
    generation: u64,
    failures: u32,
    /// Times it opened without having closed in between.
    openings: u32,
}

impl Default for Breaker {
    fn default() -> Self {
        Breaker { state: State::Closed, generation: 0, failures: 0, openings: 0 }
    }
}

impl Breaker {
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks for one request at `now`.
    pub fn admit(&mut self, params: &Params, now: Instant) -> Result<Ticket, Rejected> {
        if let State::Open { until } = self.state
            && now >= until
        {
            self.enter(State::HalfOpen { in_flight: 0 });
        }
        match &mut self.state {
            State::Closed | State::Forced(Forced::Closed) => Ok(self.ticket(false)),
            State::Open { until } => Err(Rejected { retry_in: until.saturating_duration_since(now) }),
            State::Forced(Forced::Open) => Err(Rejected { retry_in: params.open_for_base }),
            State::HalfOpen { in_flight } if *in_flight < params.probes.max(1) => {
                *in_flight += 1;
                Ok(self.ticket(true))
            }
            State::HalfOpen { .. } => Err(Rejected { retry_in: Duration::ZERO }),
        }
    }

    /// Settles a ticket. `unit`, uniform in 0..1, jitters the open time between half and all of it.
    pub fn record(
        &mut self,
        ticket: Ticket,
        outcome: Outcome,
        params: &Params,
        now: Instant,
        unit: f64,
    ) -> Option<Transition> {
        if ticket.generation != self.generation {
            return None;
        }
        match (&mut self.state, outcome) {
            (State::Closed, Outcome::Success) => {
                self.failures = 0;
                None
            }
            (State::Closed, Outcome::Failure) => {
                self.failures = self.failures.saturating_add(1);
                (self.failures >= params.consecutive_failures).then(|| self.open(params, now, unit))
            }
            (State::HalfOpen { in_flight }, Outcome::Ignored) => {
                *in_flight = in_flight.saturating_sub(u32::from(ticket.probe));
                None
            }
            (State::HalfOpen { .. }, Outcome::Success) => {
                let failures = std::mem::take(&mut self.failures);
                self.openings = 0;
                Some(self.change(State::Closed, failures))
            }
            (State::HalfOpen { .. }, Outcome::Failure) => {
                self.failures = self.failures.saturating_add(1);
                Some(self.open(params, now, unit))
            }
            (State::Closed, Outcome::Ignored) | (State::Open { .. } | State::Forced(_), _) => None,
        }
    }

    /// The state as a request at `now` would find it.
    pub fn state(&self, now: Instant) -> State {
        match self.state {
            State::Open { until } if now >= until => State::HalfOpen { in_flight: 0 },
            state => state,
        }
    }

    /// Failures in a row so far.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Holds a state by command, or goes back to closed and to its own judgement.
    pub fn force(&mut self, forced: Option<Forced>, _now: Instant) -> Option<Transition> {
        let next = match (forced, self.state) {
            (Some(forced), _) => State::Forced(forced),
            (None, State::Forced(_)) => State::Closed,
            (None, State::Closed | State::Open { .. } | State::HalfOpen { .. }) => return None,
        };
        if next == self.state {
            return None;
        }
        let failures = std::mem::take(&mut self.failures);
        self.openings = 0;
        Some(self.change(next, failures))
    }

    /// An active check found the app well: an open breaker need not wait for its time.
    pub fn healthy(&mut self, _now: Instant) -> Option<Transition> {
        match self.state {
            State::Open { .. } => Some(self.change(State::HalfOpen { in_flight: 0 }, self.failures)),
            State::Closed | State::HalfOpen { .. } | State::Forced(_) => None,
        }
    }

    fn ticket(&self, probe: bool) -> Ticket {
        Ticket { generation: self.generation, probe }
    }

    fn open(&mut self, params: &Params, now: Instant, unit: f64) -> Transition {
        let doubled = params.open_for_base.saturating_mul(1 << self.openings.min(16));
        let share = if unit.is_nan() { 1.0 } else { unit.clamp(0.0, 1.0) };
        let time = doubled.min(params.open_for_max).min(OPEN_FOR_LIMIT).mul_f64(0.5 + share / 2.0);
        self.openings = self.openings.saturating_add(1);
        self.change(State::Open { until: now + time }, self.failures)
    }

    fn change(&mut self, to: State, failures: u32) -> Transition {
        let from = self.state.label();
        self.enter(to);
        Transition { from, to: to.label(), failures }
    }

    fn enter(&mut self, state: State) {
        self.state = state;
        self.generation += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::testing::{Random, origin};

    const PARAMS: Params = Params {
        consecutive_failures: 3,
        open_for_base: Duration::from_secs(5),
        open_for_max: Duration::from_secs(30),
        probes: 2,
    };

    fn fail(breaker: &mut Breaker, now: Instant) -> Option<Transition> {
        let ticket = breaker.admit(&PARAMS, now).unwrap();
        breaker.record(ticket, Outcome::Failure, &PARAMS, now, 1.0)
    }

    #[test]
    fn it_opens_at_the_limit_and_tests_when_its_time_is_over() {
        let (mut breaker, now) = (Breaker::new(), origin());
        assert_eq!(fail(&mut breaker, now), None);
        assert_eq!(fail(&mut breaker, now), None);
        assert_eq!(fail(&mut breaker, now), Some(Transition { from: "closed", to: "open", failures: 3 }));
        let end = now + PARAMS.open_for_base;
        let just_before = end - Duration::from_nanos(1);
        assert_eq!(breaker.admit(&PARAMS, just_before).unwrap_err().retry_in, Duration::from_nanos(1));
        assert!(breaker.admit(&PARAMS, end).is_ok());
    }

    #[test]
    fn a_success_between_failures_starts_the_count_again() {
        let (mut breaker, now) = (Breaker::new(), origin());
        for _ in 0..10 {
            fail(&mut breaker, now);
            fail(&mut breaker, now);
            let ticket = breaker.admit(&PARAMS, now).unwrap();
            breaker.record(ticket, Outcome::Success, &PARAMS, now, 1.0);
        }
        assert_eq!(breaker.state(now), State::Closed);
    }

    #[test]
    fn open_time_doubles_to_its_maximum_while_tests_fail() {
        let (mut breaker, mut now) = (Breaker::new(), origin());
        (0..2).for_each(|_| _ = fail(&mut breaker, now));
        let mut times = Vec::new();
        for _ in 0..5 {
            fail(&mut breaker, now);
            let State::Open { until } = breaker.state(now) else { panic!("not open") };
            times.push((until - now).as_secs());
            now = until;
        }
        assert_eq!(times, [5, 10, 20, 30, 30]);
    }

    #[test]
    fn a_test_request_that_is_given_up_frees_its_place() {
        let (mut breaker, now) = (Breaker::new(), origin());
        (0..3).for_each(|_| _ = fail(&mut breaker, now));
        let later = now + PARAMS.open_for_base;
        let first = breaker.admit(&PARAMS, later).unwrap();
        let _second = breaker.admit(&PARAMS, later).unwrap();
        assert_eq!(breaker.admit(&PARAMS, later).unwrap_err().retry_in, Duration::ZERO);
        breaker.record(first, Outcome::Ignored, &PARAMS, later, 0.5);
        assert!(breaker.admit(&PARAMS, later).is_ok());
    }

    #[test]
    fn a_result_of_an_earlier_generation_changes_nothing() {
        let (mut breaker, now) = (Breaker::new(), origin());
        let late = breaker.admit(&PARAMS, now).unwrap();
        (0..3).for_each(|_| _ = fail(&mut breaker, now));
        assert_eq!(breaker.record(late, Outcome::Success, &PARAMS, now, 0.5), None);
        assert_eq!(breaker.state(now).label(), "open");
    }

    #[test]
    fn a_command_holds_until_it_is_taken_back() {
        let (mut breaker, now) = (Breaker::new(), origin());
        assert_eq!(breaker.force(Some(Forced::Open), now).unwrap().to, "forced_open");
        assert!(breaker.admit(&PARAMS, now + Duration::from_secs(3600)).is_err());
        breaker.force(Some(Forced::Closed), now);
        (0..9).for_each(|_| _ = fail(&mut breaker, now));
        assert_eq!(breaker.force(None, now).unwrap().to, "closed");
        assert_eq!(breaker.force(None, now), None);
    }

    #[test]
    fn a_healthy_app_need_not_wait() {
        let (mut breaker, now) = (Breaker::new(), origin());
        assert_eq!(breaker.healthy(now), None);
        (0..3).for_each(|_| _ = fail(&mut breaker, now));
        assert_eq!(breaker.healthy(now).unwrap().to, "half_open");
        let ticket = breaker.admit(&PARAMS, now).unwrap();
        assert_eq!(breaker.record(ticket, Outcome::Success, &PARAMS, now, 0.5).unwrap().to, "closed");
    }

    #[test]
    fn open_time_is_jittered_between_half_and_all_of_it() {
        let base = PARAMS.open_for_base;
        for (unit, time) in [(0.0, base / 2), (0.5, base * 3 / 4), (1.0, base), (f64::NAN, base), (-7.0, base / 2)] {
            let (mut breaker, now) = (Breaker::new(), origin());
            (0..2).for_each(|_| _ = fail(&mut breaker, now));
            let ticket = breaker.admit(&PARAMS, now).unwrap();
            breaker.record(ticket, Outcome::Failure, &PARAMS, now, unit);
            assert_eq!(breaker.state(now), State::Open { until: now + time }, "{unit}");
        }
    }

    #[test]
    fn it_opens_at_the_limit_and_not_before_or_after() {
        for limit in [0, 1, 2, 5] {
            let params = Params { consecutive_failures: limit, ..PARAMS };
            let (mut breaker, now) = (Breaker::new(), origin());
            for _ in 1..limit {
                let ticket = breaker.admit(&params, now).unwrap();
                assert_eq!(breaker.record(ticket, Outcome::Failure, &params, now, 1.0), None);
            }
            let ticket = breaker.admit(&params, now).unwrap();
            assert!(breaker.record(ticket, Outcome::Failure, &params, now, 1.0).is_some(), "{limit}");
        }
    }

    #[test]
    fn a_lowered_limit_counts_the_failures_already_seen() {
        let (mut breaker, now) = (Breaker::new(), origin());
        let generous = Params { consecutive_failures: 100, ..PARAMS };
        for _ in 0..10 {
            let ticket = breaker.admit(&generous, now).unwrap();
            assert_eq!(breaker.record(ticket, Outcome::Failure, &generous, now, 1.0), None);
        }
        assert_eq!(fail(&mut breaker, now).unwrap().failures, 11);
    }

    #[test]
    fn one_good_test_request_closes_and_the_others_are_late() {
        let (mut breaker, now) = (Breaker::new(), origin());
        (0..3).for_each(|_| _ = fail(&mut breaker, now));
        let later = now + PARAMS.open_for_base;
        let first = breaker.admit(&PARAMS, later).unwrap();
        let second = breaker.admit(&PARAMS, later).unwrap();
        assert_eq!(breaker.record(first, Outcome::Success, &PARAMS, later, 0.5).unwrap().to, "closed");
        assert_eq!(breaker.record(second, Outcome::Failure, &PARAMS, later, 0.5), None);
        assert_eq!((breaker.state(later), breaker.failures()), (State::Closed, 0));
    }

    #[test]
    fn a_probe_limit_of_none_still_lets_one_through() {
        let params = Params { probes: 0, ..PARAMS };
        let (mut breaker, now) = (Breaker::new(), origin());
        (0..3).for_each(|_| _ = fail(&mut breaker, now));
        let later = now + PARAMS.open_for_base;
        assert!(breaker.admit(&params, later).is_ok() && breaker.admit(&params, later).is_err());
    }

    #[test]
    fn endless_open_times_end_within_a_day() {
        let params = Params { open_for_base: Duration::MAX, open_for_max: Duration::MAX, ..PARAMS };
        let (mut breaker, now) = (Breaker::new(), origin());
        for _ in 0..3 {
            let ticket = breaker.admit(&params, now).unwrap();
            breaker.record(ticket, Outcome::Failure, &params, now, 1.0);
        }
        assert_eq!(breaker.state(now), State::Open { until: now + OPEN_FOR_LIMIT });
    }

    /// What must hold of a breaker at any time, from the tickets that are out.
    fn check_invariants(breaker: &Breaker, held: &[Ticket], seed: u64) {
        let current = held.iter().filter(|ticket| ticket.generation == breaker.generation);
        let probes = current.filter(|ticket| ticket.probe).count();
        match breaker.state {
            State::HalfOpen { in_flight } => {
                assert_eq!(in_flight as usize, probes, "seed {seed}: a place is lost or given twice");
                assert!(probes <= PARAMS.probes as usize, "seed {seed}");
            }
            State::Closed => {
                assert_eq!(probes, 0, "seed {seed}");
                assert!(breaker.failures < PARAMS.consecutive_failures, "seed {seed}: it should be open");
            }
            State::Open { .. } | State::Forced(_) => assert_eq!(probes, 0, "seed {seed}"),
        }
    }

    /// Random admissions, outcomes, losses, commands, checks and times: test requests never exceed their number, a
    /// late result changes nothing, an open breaker admits nobody before its time, and however it goes it lets a
    /// request through again once its time is over and nothing is under way.
    #[test]
    fn simulation_never_sticks_and_never_exceeds_its_probes() {
        for seed in 0..1500u64 {
            let mut random = Random::new(seed);
            let (mut breaker, mut now, mut held) = (Breaker::new(), origin(), Vec::new());
            for _ in 0..150 {
                now += Duration::from_millis(random.below(2000));
                if random.once_in(2) {
                    let before = breaker.state(now);
                    let admitted = breaker.admit(&PARAMS, now);
                    let closed = matches!(before, State::Open { .. } | State::Forced(Forced::Open));
                    assert!(!(closed && admitted.is_ok()), "seed {seed}: admitted while {before:?}");
                    held.extend(admitted);
                }
                if !held.is_empty() && random.once_in(2) {
                    let ticket = held.swap_remove(random.below(held.len() as u64) as usize);
                    let late = ticket.generation != breaker.generation;
                    let before = (breaker.state, breaker.failures, breaker.openings);
                    let outcome =
                        random.pick(&[Outcome::Success, Outcome::Failure, Outcome::Failure, Outcome::Ignored]);
                    let change = breaker.record(ticket, outcome, &PARAMS, now, random.unit());
                    if late {
                        assert_eq!(change, None, "seed {seed}");
                        assert_eq!(before, (breaker.state, breaker.failures, breaker.openings), "seed {seed}");
                    }
                }
                if random.once_in(20) {
                    breaker.healthy(now);
                }
                if random.once_in(50) {
                    breaker.force(random.pick(&[None, Some(Forced::Open), Some(Forced::Closed)]), now);
                }
                check_invariants(&breaker, &held, seed);
            }
            breaker.force(None, now);
            for ticket in held {
                breaker.record(ticket, Outcome::Ignored, &PARAMS, now, 0.5);
            }
            assert!(breaker.admit(&PARAMS, now + PARAMS.open_for_max).is_ok(), "seed {seed} sticks");
        }
    }
}
