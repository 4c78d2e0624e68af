//! A circuit breaker. Closed, it opens on failures in a row, on a share of failures or on a share of slow calls in a
//! window with enough traffic. Open, it refuses everything for a jittered time that doubles each time it has to open
//! again. Then it lets a bounded number of test requests through; the first success begins a ramp, in which a growing
//! share passes, and at the ramp's end it is closed. (Nygard, "Release It!", 2007; rate and slow calls as in
//! resilience4j.)
//!
//! `auto`, the limit in a row, is five or one in a hundred of the window's requests, whichever is more: so many
//! failures in a row are no chance however busy the app is, and a real outage makes them within a hundredth of a window.
//!
//! An admission is a ticket of the breaker's current generation. A change of state begins a new generation, so a late
//! result of an earlier one changes nothing. A test request that is given up is recorded as [`Outcome::Ignored`] and
//! frees its place, and one that does not come to an end loses its place to another: a half-open breaker cannot wait
//! for ever for a result that never comes.
//!
//! Attempts of one request that fail one after the other are failures in a row, but `auto` wants five requests among
//! them: two requests that were tried three times each say nothing of the others yet.
//!
//! What counts as a failure is the caller's to say, and a ticket must come back: whoever holds one keeps it in a guard
//! whose drop records [`Outcome::Ignored`].

mod change;
mod run;

use std::time::{Duration, Instant};

use super::window::{Count, Volume, Window};

pub use self::change::{Cause, Transition};
pub use self::run::Consecutive;
use self::run::Run;

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Params {
    pub consecutive: Consecutive,
    /// The share of failures that opens it, of at least `volume_min` requests in the window.
    pub failure_rate: f64,
    pub volume_min: u32,
    /// The share of slow calls that opens it; `None` is never.
    pub slow_rate: Option<f64>,
    pub window: Duration,
    /// The first open time; each opening without a close in between doubles it.
    pub open_for_base: Duration,
    /// The longest open time.
    pub open_for_max: Duration,
    /// Test requests at a time while half-open; at least 1, and 0 counts as 1.
    pub probes: u32,
    /// How long a growing share passes after a test request went well; zero closes at once.
    pub ramp: Duration,
}

/// The longest open time whatever the parameters say, so that it can be added to any clock.
const OPEN_FOR_LIMIT: Duration = Duration::from_secs(24 * 3600);
/// The share that passes when a ramp begins.
const RAMP_SHARE_MIN: f64 = 0.1;
/// A test request that has no result by then loses its place, unless the open time is shorter still.
const PROBE_MAX: Duration = Duration::from_secs(10);
const PROBE_MIN: Duration = Duration::from_millis(100);

/// What an admitted request came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Success,
    /// A success that took longer than a call may.
    Slow,
    Failure,
    /// Another failure of a request that has failed before.
    Repeated,
    /// It says nothing of the app: the client left, or the failure was ours.
    Ignored,
}

/// The right to send one request.
#[derive(Debug)]
pub struct Ticket {
    generation: u64,
}

/// The breaker does not let it through.
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
    Ramp { since: Instant, until: Instant },
    Forced(Forced),
}

impl State {
    pub fn label(&self) -> &'static str {
        match self {
            State::Closed => "closed",
            State::Open { .. } => "open",
            State::HalfOpen { .. } => "half_open",
            State::Ramp { .. } => "ramp",
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

/// One breaker.
#[derive(Debug)]
pub struct Breaker {
    state: State,
    generation: u64,
    run: Run,
    /// Times it opened without having closed in between.
    openings: u32,
    /// Requests of a ramp that are under way.
    ramping: u32,
    /// When the last test request was let through.
    tested: Option<Instant>,
    /// An active check has found the app well since it opened: no ramp is needed.
    confirmed: bool,
    /// When a command expires.
    forced_until: Option<Instant>,
}

impl Default for Breaker {
    fn default() -> Self {
        Breaker {
            state: State::Closed,
            generation: 0,
            run: Run::default(),
            openings: 0,
            ramping: 0,
            tested: None,
            confirmed: false,
            forced_until: None,
        }
    }
}

impl Breaker {
    pub fn new() -> Self {
        Self::default()
    }

    /// What time alone has changed by `now`. To be called before anything else is asked.
    pub fn pass(&mut self, params: &Params, window: &Window, now: Instant) -> Option<Transition> {
        match self.state {
            State::Open { until } if now >= until => {
                self.confirmed = false;
                Some(self.change(State::HalfOpen { in_flight: 0 }, Cause::TimeOver))
            }
            State::Ramp { until, .. } if now >= until => Some(self.close(Cause::RampOver)),
            State::Forced(_) if self.forced_until.is_some_and(|until| now >= until) => {
                window.clear(now);
                Some(self.close(Cause::CommandOver))
            }
            State::HalfOpen { in_flight } if in_flight > 0 => {
                let limit = params.open_for_base.clamp(PROBE_MIN, PROBE_MAX);
                if self.tested.is_some_and(|tested| now.saturating_duration_since(tested) >= limit) {
                    self.enter(State::HalfOpen { in_flight: 0 });
                }
                None
            }
            State::Closed | State::Open { .. } | State::HalfOpen { .. } | State::Ramp { .. } | State::Forced(_) => None,
        }
    }

    /// Asks for one request at `now`; `unit`, uniform in 0..1, decides who passes in a ramp.
    pub fn admit(&mut self, params: &Params, now: Instant, unit: f64) -> Result<Ticket, Rejected> {
        match &mut self.state {
            State::Closed | State::Forced(Forced::Closed) => {}
            State::Open { until } => return Err(Rejected { retry_in: until.saturating_duration_since(now) }),
            State::Forced(Forced::Open) => {
                let left = self.forced_until.map(|until| until.saturating_duration_since(now));
                return Err(Rejected { retry_in: left.unwrap_or(params.open_for_base) });
            }
            State::HalfOpen { in_flight } if *in_flight < params.probes.max(1) => {
                *in_flight += 1;
                self.tested = Some(now);
            }
            State::HalfOpen { .. } => return Err(Rejected { retry_in: Duration::ZERO }),
            State::Ramp { since, until } => {
                let whole = until.saturating_duration_since(*since).as_secs_f64();
                let share = now.saturating_duration_since(*since).as_secs_f64() / whole;
                // A ramp never lets fewer through than testing did.
                if unit >= share.max(RAMP_SHARE_MIN) && self.ramping >= params.probes.max(1) {
                    return Err(Rejected { retry_in: Duration::ZERO });
                }
                self.ramping = self.ramping.saturating_add(1);
            }
        }
        Ok(Ticket { generation: self.generation })
    }

    /// A ticket for a request that was let through without one, while the breaker was closed and nothing had failed;
    /// `None` when it is not closed any more, so that the result is late.
    pub fn late_ticket(&self) -> Option<Ticket> {
        matches!(self.state, State::Closed).then_some(Ticket { generation: self.generation })
    }

    /// Settles a ticket. `unit`, uniform in 0..1, jitters the open time between half and all of it.
    pub fn record(
        &mut self,
        ticket: Ticket,
        outcome: Outcome,
        params: &Params,
        window: &Window,
        now: Instant,
        unit: f64,
    ) -> Option<Transition> {
        if ticket.generation != self.generation {
            return None;
        }
        match (&mut self.state, outcome) {
            (State::Open { .. } | State::Forced(_), _) => None,
            (State::HalfOpen { in_flight }, Outcome::Ignored) => {
                *in_flight = in_flight.saturating_sub(1);
                None
            }
            (State::HalfOpen { .. }, Outcome::Success | Outcome::Slow) => {
                window.clear(now);
                self.run = Run::default();
                if self.confirmed || params.ramp.is_zero() {
                    return Some(self.close(Cause::TestWell));
                }
                let until = now + params.ramp.min(OPEN_FOR_LIMIT);
                Some(self.change(State::Ramp { since: now, until }, Cause::TestWell))
            }
            (State::HalfOpen { .. }, Outcome::Failure | Outcome::Repeated) => {
                let openings = self.openings.saturating_add(1);
                Some(self.open(params, now, unit, |open_for| Cause::TestFailed { openings, open_for }))
            }
            (State::Closed | State::Ramp { .. }, _) => {
                self.ramping = self.ramping.saturating_sub(1);
                self.count(outcome, params, window, now, unit)
            }
        }
    }

    /// One more result while requests pass.
    fn count(
        &mut self,
        outcome: Outcome,
        params: &Params,
        window: &Window,
        now: Instant,
        unit: f64,
    ) -> Option<Transition> {
        let what = match outcome {
            Outcome::Ignored => return None,
            Outcome::Success => {
                window.count(Count::Good, params.window, now);
                self.run = Run::default();
                return None;
            }
            Outcome::Slow => Count::Slow,
            Outcome::Failure | Outcome::Repeated => Count::Bad,
        };
        window.count(what, params.window, now);
        self.run = match outcome {
            Outcome::Failure => self.run.and(1),
            Outcome::Repeated => self.run.and(0),
            Outcome::Success | Outcome::Slow | Outcome::Ignored => Run::default(),
        };
        let volume = window.volume(params.window, now);
        let (limit, failures) = (params.consecutive.limit(&volume), self.run.failures);
        if failures >= limit && self.run.requests >= params.consecutive.requests() {
            return Some(self.open(params, now, unit, |open_for| Cause::InARow { failures, limit, open_for }));
        }
        if volume.total < params.volume_min.max(1) {
            return None;
        }
        let reaches = |count: u32, rate: f64| f64::from(count) >= rate * f64::from(volume.total) && count > 0;
        let Volume { total, bad, slow, .. } = volume;
        if reaches(bad, params.failure_rate) {
            return Some(self.open(params, now, unit, |open_for| Cause::Failures { failures: bad, total, open_for }));
        }
        if params.slow_rate.is_some_and(|rate| reaches(slow, rate)) {
            return Some(self.open(params, now, unit, |open_for| Cause::SlowCalls { slow, total, open_for }));
        }
        None
    }

    pub fn state(&self) -> State {
        self.state
    }

    /// The state as a request at `now` would find it.
    pub fn state_at(&self, now: Instant) -> State {
        match self.state {
            State::Open { until } if now >= until => State::HalfOpen { in_flight: 0 },
            State::Ramp { until, .. } if now >= until => State::Closed,
            State::Forced(_) if self.forced_until.is_some_and(|until| now >= until) => State::Closed,
            state => state,
        }
    }

    /// Nothing has failed and everything passes.
    pub fn is_calm(&self) -> bool {
        self.state == State::Closed && self.run.failures == 0
    }

    /// Holds a state by command until `until`, or goes back to closed and to its own judgement.
    pub fn force(&mut self, forced: Option<Forced>, until: Option<Instant>) -> Option<Transition> {
        let next = match (forced, self.state) {
            (Some(forced), _) => State::Forced(forced),
            (None, State::Forced(_)) => State::Closed,
            (None, State::Closed | State::Open { .. } | State::HalfOpen { .. } | State::Ramp { .. }) => return None,
        };
        self.forced_until = until.filter(|_| forced.is_some());
        if next == self.state {
            return None;
        }
        (self.run, self.openings) = (Run::default(), 0);
        Some(self.change(next, Cause::Command))
    }

    /// An active check found the app well: an open breaker tests at once, and a ramp is over.
    pub fn healthy(&mut self) -> Option<Transition> {
        match self.state {
            State::Open { .. } => {
                self.confirmed = true;
                Some(self.change(State::HalfOpen { in_flight: 0 }, Cause::Checked))
            }
            State::HalfOpen { .. } => {
                self.confirmed = true;
                None
            }
            State::Ramp { .. } => Some(self.close(Cause::Checked)),
            State::Closed | State::Forced(_) => None,
        }
    }

    /// What it guards was away and is another one now: it is closed, unless a command holds it.
    pub fn came_back(&mut self) -> Option<Transition> {
        match self.state {
            State::Open { .. } | State::HalfOpen { .. } | State::Ramp { .. } => Some(self.close(Cause::CameBack)),
            State::Closed => {
                self.run = Run::default();
                None
            }
            State::Forced(_) => None,
        }
    }

    fn open(&mut self, params: &Params, now: Instant, unit: f64, cause: impl FnOnce(Duration) -> Cause) -> Transition {
        let doubled = params.open_for_base.saturating_mul(1 << self.openings.min(16));
        let share = if unit.is_nan() { 1.0 } else { unit.clamp(0.0, 1.0) };
        let time = doubled.min(params.open_for_max).min(OPEN_FOR_LIMIT).mul_f64(0.5 + share / 2.0);
        self.openings = self.openings.saturating_add(1);
        self.confirmed = false;
        self.change(State::Open { until: now + time }, cause(time))
    }

    fn close(&mut self, cause: Cause) -> Transition {
        (self.run, self.openings) = (Run::default(), 0);
        self.change(State::Closed, cause)
    }

    fn change(&mut self, to: State, cause: Cause) -> Transition {
        let from = self.state.label();
        self.enter(to);
        Transition { from, to: to.label(), cause }
    }

    fn enter(&mut self, state: State) {
        self.state = state;
        self.generation += 1;
        self.ramping = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::testing::{Random, origin};

    const PARAMS: Params = Params {
        consecutive: Consecutive::Exactly(3),
        failure_rate: 0.5,
        volume_min: 20,
        slow_rate: Some(0.8),
        window: Duration::from_secs(10),
        open_for_base: Duration::from_secs(5),
        open_for_max: Duration::from_secs(30),
        probes: 2,
        ramp: Duration::from_secs(10),
    };
    const NANO: Duration = Duration::from_nanos(1);

    #[test]
    fn attempts_of_few_requests_are_no_outage() {
        let few = [Outcome::Failure, Outcome::Repeated, Outcome::Repeated];
        let mut held = Held::new(Params { consecutive: Consecutive::Auto, volume_min: 100, ..PARAMS });
        for outcome in few.into_iter().cycle().take(12) {
            assert_eq!(held.one(outcome), None, "four requests");
        }
        assert!(held.one(Outcome::Failure).is_some(), "the fifth");
        let mut exact = Held::new(PARAMS);
        assert!(few.into_iter().filter_map(|outcome| exact.one(outcome)).next().is_some(), "a number is exact");
        let mut half_open = Held::new(PARAMS);
        assert!(half_open.fail(3).is_some());
        half_open.now += PARAMS.open_for_max;
        assert!(half_open.one(Outcome::Repeated).is_some(), "a test that failed");
        assert_eq!(half_open.breaker.state().label(), "open");
    }

    /// A breaker as its adapter holds it.
    struct Held {
        breaker: Breaker,
        window: Window,
        params: Params,
        now: Instant,
    }

    impl Held {
        fn new(params: Params) -> Held {
            let now = origin();
            Held { breaker: Breaker::new(), window: Window::new(now), params, now }
        }

        fn admit_at(&mut self, unit: f64) -> Result<Ticket, Rejected> {
            self.breaker.pass(&self.params, &self.window, self.now);
            self.breaker.admit(&self.params, self.now, unit)
        }

        fn admit(&mut self) -> Result<Ticket, Rejected> {
            self.admit_at(1.0)
        }

        fn record(&mut self, ticket: Ticket, outcome: Outcome) -> Option<Transition> {
            self.breaker.record(ticket, outcome, &self.params, &self.window, self.now, 1.0)
        }

        fn one(&mut self, outcome: Outcome) -> Option<Transition> {
            let ticket = self.admit().unwrap();
            self.record(ticket, outcome)
        }

        fn fail(&mut self, times: u32) -> Option<Transition> {
            (0..times).filter_map(|_| self.one(Outcome::Failure)).last()
        }

        fn opened(params: Params) -> Held {
            let mut held = Held::new(params);
            assert_eq!(held.fail(3).unwrap().to, "open");
            held
        }

        /// Opened and its time just over.
        fn testing(params: Params) -> Held {
            let mut held = Held::opened(params);
            held.now += held.params.open_for_base;
            held
        }

        fn state(&mut self) -> &'static str {
            self.breaker.pass(&self.params, &self.window, self.now);
            self.breaker.state().label()
        }
    }

    #[test]
    fn it_opens_at_the_limit_and_tests_when_its_time_is_over() {
        let mut held = Held::new(PARAMS);
        assert_eq!(held.fail(2), None);
        let change = held.fail(1).unwrap();
        let cause = Cause::InARow { failures: 3, limit: 3, open_for: PARAMS.open_for_base };
        assert_eq!(change, Transition { from: "closed", to: "open", cause });
        held.now += PARAMS.open_for_base - NANO;
        assert_eq!(held.admit().unwrap_err().retry_in, NANO);
        held.now += NANO;
        assert!(held.admit().is_ok());
        assert_eq!(held.state(), "half_open");
    }

    #[test]
    fn an_explicit_number_is_exact() {
        for limit in [0, 1, 2, 5] {
            let mut held = Held::new(Params { consecutive: Consecutive::Exactly(limit), ..PARAMS });
            assert_eq!(held.fail(limit.max(1) - 1), None, "{limit}");
            assert!(held.fail(1).is_some(), "{limit}");
        }
    }

    #[test]
    fn auto_is_five_or_a_hundredth_of_the_window() {
        for (requests, limit) in [(0, 5), (400, 5), (495, 5), (496, 6), (5000, 51)] {
            let mut held = Held::new(Params { consecutive: Consecutive::Auto, ..PARAMS });
            held.now += PARAMS.window;
            (0..requests).for_each(|_| _ = held.one(Outcome::Success));
            assert_eq!(held.fail(limit - 1), None, "{requests}");
            assert_eq!(held.fail(1).unwrap().to, "open", "{requests}");
        }
    }

    #[test]
    fn a_success_between_failures_starts_the_count_again() {
        let mut held = Held::new(Params { failure_rate: 1.1, ..PARAMS });
        for success in [Outcome::Success, Outcome::Slow] {
            for _ in 0..10 {
                held.fail(2);
                held.one(success);
            }
        }
        assert_eq!(held.state(), "closed");
    }

    #[test]
    fn a_share_of_failures_opens_it_only_with_enough_traffic() {
        let mut held = Held::new(PARAMS);
        let mut change = None;
        // Success and failure by turns: never two in a row, always half.
        for number in 1..=20 {
            assert_eq!(change, None, "after {}", number - 1);
            held.one(Outcome::Success);
            if number == 10 {
                change = held.one(Outcome::Failure);
                break;
            }
            change = held.one(Outcome::Failure);
        }
        let cause = Cause::Failures { failures: 10, total: 20, open_for: PARAMS.open_for_base };
        assert_eq!(change.unwrap().cause, cause);
        // One less than half never does.
        let mut held = Held::new(PARAMS);
        for _ in 0..100 {
            held.one(Outcome::Success);
            held.one(Outcome::Success);
            assert_eq!(held.one(Outcome::Failure), None);
        }
    }

    #[test]
    fn a_share_of_slow_calls_opens_it() {
        let mut held = Held::new(PARAMS);
        (0..4).for_each(|_| _ = held.one(Outcome::Success));
        (0..15).for_each(|_| assert_eq!(held.one(Outcome::Slow), None));
        let cause = Cause::SlowCalls { slow: 16, total: 20, open_for: PARAMS.open_for_base };
        assert_eq!(held.one(Outcome::Slow).unwrap().cause, cause);
        let mut held = Held::new(Params { slow_rate: None, ..PARAMS });
        (0..100).for_each(|_| assert_eq!(held.one(Outcome::Slow), None));
    }

    #[test]
    fn open_time_doubles_to_its_maximum_while_tests_fail() {
        let mut held = Held::opened(PARAMS);
        let mut times = Vec::new();
        for _ in 0..5 {
            let State::Open { until } = held.breaker.state() else { panic!("not open") };
            times.push((until - held.now).as_secs());
            held.now = until;
            held.fail(1);
        }
        assert_eq!(times, [5, 10, 20, 30, 30]);
    }

    #[test]
    fn a_test_request_that_is_given_up_frees_its_place() {
        let mut held = Held::testing(PARAMS);
        let first = held.admit().unwrap();
        let _second = held.admit().unwrap();
        assert_eq!(held.admit().unwrap_err().retry_in, Duration::ZERO);
        held.record(first, Outcome::Ignored);
        assert!(held.admit().is_ok() && held.admit().is_err());
    }

    #[test]
    fn a_test_request_that_never_ends_loses_its_place() {
        let mut held = Held::testing(PARAMS);
        let lost = [held.admit().unwrap(), held.admit().unwrap()];
        held.now += PARAMS.open_for_base - NANO;
        assert!(held.admit().is_err());
        held.now += NANO;
        let third = held.admit().unwrap();
        for ticket in lost {
            assert_eq!(held.record(ticket, Outcome::Failure), None);
        }
        assert_eq!(held.record(third, Outcome::Success).unwrap().to, "ramp");
    }

    #[test]
    fn after_a_good_test_a_growing_share_passes() {
        let mut held = Held::testing(PARAMS);
        assert_eq!(held.one(Outcome::Success).unwrap().to, "ramp");
        // What is under way as in testing passes whatever the draw.
        let _under_way = [held.admit().unwrap(), held.admit().unwrap()];
        for (millis, passes, refused) in [(0, 0.0999, 0.1), (1000, 0.0999, 0.1), (4000, 0.499, 0.5)] {
            held.now += Duration::from_millis(millis);
            assert!(held.admit_at(passes).is_ok() && held.admit_at(refused).is_err(), "{millis}");
        }
        held.now += Duration::from_secs(5) - NANO;
        assert_eq!(held.state(), "ramp");
        held.now += NANO;
        assert_eq!(held.state(), "closed");
    }

    #[test]
    fn failures_in_a_ramp_open_it_for_longer() {
        let mut held = Held::testing(PARAMS);
        held.one(Outcome::Success);
        assert_eq!(held.fail(2), None);
        let cause = Cause::InARow { failures: 3, limit: 3, open_for: 2 * PARAMS.open_for_base };
        assert_eq!(held.fail(1).unwrap().cause, cause);
    }

    #[test]
    fn without_a_ramp_one_good_test_closes_and_the_others_are_late() {
        let mut held = Held::testing(Params { ramp: Duration::ZERO, ..PARAMS });
        let (first, second) = (held.admit().unwrap(), held.admit().unwrap());
        assert_eq!(held.record(first, Outcome::Slow).unwrap().to, "closed");
        assert_eq!(held.record(second, Outcome::Failure), None);
        assert!(held.breaker.is_calm());
    }

    #[test]
    fn a_result_of_an_earlier_generation_changes_nothing() {
        let mut held = Held::new(PARAMS);
        let late = held.admit().unwrap();
        held.fail(3);
        assert_eq!(held.record(late, Outcome::Success), None);
        assert_eq!(held.state(), "open");
        assert!(held.breaker.late_ticket().is_none());
    }

    #[test]
    fn a_command_holds_until_it_is_taken_back_or_expires() {
        let mut held = Held::new(PARAMS);
        let until = held.now + Duration::from_secs(60);
        assert_eq!(held.breaker.force(Some(Forced::Open), Some(until)).unwrap().to, "forced_open");
        assert_eq!(held.admit().unwrap_err().retry_in, Duration::from_secs(60));
        held.breaker.force(Some(Forced::Closed), None);
        assert_eq!(held.fail(9), None);
        assert_eq!(held.breaker.force(None, None).unwrap().to, "closed");
        assert_eq!(held.breaker.force(None, None), None);
        held.breaker.force(Some(Forced::Open), Some(until));
        held.now = until - NANO;
        assert_eq!(held.state(), "forced_open");
        held.now = until;
        let over = held.breaker.pass(&PARAMS, &held.window, until).unwrap();
        assert_eq!((over.to, over.cause), ("closed", Cause::CommandOver));
    }

    #[test]
    fn a_check_that_finds_it_well_tests_early_and_ends_the_ramp() {
        let mut held = Held::opened(PARAMS);
        assert_eq!(held.breaker.healthy().unwrap().to, "half_open");
        assert_eq!(held.one(Outcome::Success).unwrap().to, "closed");
        let mut held = Held::testing(PARAMS);
        held.one(Outcome::Success);
        assert_eq!(held.breaker.healthy().unwrap().to, "closed");
        assert_eq!(held.breaker.healthy(), None);
        // A test after the time is over needs a ramp although an earlier opening was confirmed.
        let mut held = Held::opened(PARAMS);
        held.breaker.healthy();
        held.fail(1);
        held.now += 2 * PARAMS.open_for_base;
        assert_eq!(held.one(Outcome::Success).unwrap().to, "ramp");
    }

    #[test]
    fn a_new_process_is_not_judged_by_the_old_one() {
        let mut held = Held::opened(PARAMS);
        let change = held.breaker.came_back().unwrap();
        assert_eq!((change.to, change.cause), ("closed", Cause::CameBack));
        held.fail(2);
        assert_eq!(held.breaker.came_back(), None);
        assert_eq!(held.fail(2), None);
        held.breaker.force(Some(Forced::Open), None);
        assert_eq!(held.breaker.came_back(), None);
    }

    #[test]
    fn open_time_is_jittered_between_half_and_all_of_it() {
        let base = PARAMS.open_for_base;
        for (unit, time) in [(0.0, base / 2), (0.5, base * 3 / 4), (1.0, base), (f64::NAN, base), (-7.0, base / 2)] {
            let mut held = Held::new(PARAMS);
            held.fail(2);
            let ticket = held.admit().unwrap();
            held.breaker.record(ticket, Outcome::Failure, &PARAMS, &held.window, held.now, unit);
            assert_eq!(held.breaker.state(), State::Open { until: held.now + time }, "{unit}");
        }
    }

    #[test]
    fn a_request_finds_what_time_has_changed_at_that_very_moment() {
        let mut held = Held::opened(PARAMS);
        let seen = |held: &Held, at: Instant| held.breaker.state_at(at).label();
        let until = held.now + PARAMS.open_for_base;
        assert_eq!([seen(&held, until - NANO), seen(&held, until)], ["open", "half_open"]);
        held.breaker.force(Some(Forced::Open), Some(until));
        assert_eq!([seen(&held, until - NANO), seen(&held, until)], ["forced_open", "closed"]);
        held.breaker.force(Some(Forced::Open), None);
        assert_eq!(seen(&held, until + OPEN_FOR_LIMIT), "forced_open");
        let mut held = Held::testing(PARAMS);
        held.one(Outcome::Success);
        let until = held.now + PARAMS.ramp;
        assert_eq!([seen(&held, until - NANO), seen(&held, until)], ["ramp", "closed"]);
    }

    #[test]
    fn it_is_calm_while_nothing_has_failed_and_everything_passes() {
        let mut held = Held::new(PARAMS);
        assert!(held.breaker.is_calm());
        held.fail(1);
        assert!(!held.breaker.is_calm(), "closed, with a failure");
        held.one(Outcome::Success);
        assert!(held.breaker.is_calm());
        held.breaker.force(Some(Forced::Closed), None);
        assert!(!held.breaker.is_calm(), "without failures, by command");
    }

    #[test]
    fn a_request_without_a_ticket_counts_while_it_is_closed() {
        let mut held = Held::new(PARAMS);
        for _ in 0..2 {
            let ticket = held.breaker.late_ticket().unwrap();
            assert_eq!(held.record(ticket, Outcome::Failure), None);
        }
        let ticket = held.breaker.late_ticket().unwrap();
        assert_eq!(held.record(ticket, Outcome::Failure).unwrap().to, "open");
    }

    #[test]
    fn a_rate_of_nothing_needs_at_least_one() {
        let mut held =
            Held::new(Params { failure_rate: 0.0, slow_rate: None, consecutive: Consecutive::Exactly(99), ..PARAMS });
        for _ in 0..2 * PARAMS.volume_min {
            assert_eq!(held.one(Outcome::Slow), None);
        }
        assert_eq!(held.fail(1).unwrap().to, "open");
    }

    #[test]
    fn no_parameter_panics_or_sticks() {
        let params = Params {
            open_for_base: Duration::MAX,
            open_for_max: Duration::MAX,
            probes: 0,
            volume_min: 0,
            failure_rate: f64::NAN,
            ..PARAMS
        };
        let mut held = Held::opened(params);
        assert_eq!(OPEN_FOR_LIMIT.as_secs(), 86_400);
        assert_eq!(held.breaker.state(), State::Open { until: held.now + OPEN_FOR_LIMIT });
        held.now += OPEN_FOR_LIMIT;
        assert!(held.admit().is_ok() && held.admit().is_err());
    }

    #[test]
    fn every_change_says_what_led_to_it() {
        let mut held = Held::opened(PARAMS);
        held.now += PARAMS.open_for_base;
        let change = held.breaker.pass(&PARAMS, &held.window, held.now).unwrap();
        assert_eq!(change.to_string(), "breaker half_open (was open): the open time is over");
        let change = held.fail(1).unwrap().to_string();
        assert_eq!(change, "breaker open (was half_open): a test request failed; opening 2 in a row, for 10.0s");
    }

    /// What must hold of a breaker at any time, from the tickets that are out.
    fn check_invariants(held: &Held, out: &[Ticket], seed: u64) {
        let current = out.iter().filter(|ticket| ticket.generation == held.breaker.generation).count();
        match held.breaker.state {
            State::HalfOpen { in_flight } => {
                assert_eq!(in_flight as usize, current, "seed {seed}: a place is lost or given twice");
                assert!(current <= held.params.probes as usize, "seed {seed}");
            }
            State::Ramp { .. } => assert_eq!(held.breaker.ramping as usize, current, "seed {seed}"),
            State::Closed => {
                let volume = held.window.volume(held.params.window, held.now);
                // The limit of `auto` grows and shrinks with traffic; it is looked at when a failure comes.
                let exact = matches!(held.params.consecutive, Consecutive::Exactly(_));
                let below = held.breaker.run.failures < held.params.consecutive.limit(&volume);
                assert!(below || !exact, "seed {seed}: it should be open");
            }
            State::Open { .. } => assert_eq!(current, 0, "seed {seed}: admitted while open"),
            State::Forced(_) => {}
        }
    }

    /// Random admissions, outcomes, losses, commands, checks and times: test requests never exceed their number, a
    /// late result changes nothing, an open breaker admits nobody before its time, and however it goes it lets a
    /// request through again once its time is over, even when nothing that is under way ever ends.
    #[test]
    fn simulation_never_sticks_and_never_exceeds_its_probes() {
        for seed in 0..10_000u64 {
            let mut random = Random::new(seed);
            let mut held = Held::new(Params {
                consecutive: random.pick(&[Consecutive::Auto, Consecutive::Exactly(3), Consecutive::Exactly(1)]),
                volume_min: random.pick(&[1, 5, 20]),
                slow_rate: random.pick(&[None, Some(0.5)]),
                ramp: random.pick(&[Duration::ZERO, Duration::from_secs(3)]),
                ..PARAMS
            });
            let mut out = Vec::new();
            for _ in 0..100 {
                held.now += Duration::from_millis(random.below(1500));
                if random.once_in(2) {
                    held.breaker.pass(&held.params, &held.window, held.now);
                    let before = held.breaker.state;
                    let admitted = held.admit_at(random.unit());
                    let refuses = matches!(before, State::Open { .. } | State::Forced(Forced::Open));
                    assert!(!(refuses && admitted.is_ok()), "seed {seed}: admitted while {before:?}");
                    let passes = matches!(before, State::Closed | State::Forced(Forced::Closed));
                    assert!(!(passes && admitted.is_err()), "seed {seed}: refused while {before:?}");
                    out.extend(admitted);
                }
                if !out.is_empty() && random.once_in(2) {
                    let ticket = out.swap_remove(random.below(out.len() as u64) as usize);
                    let late = ticket.generation != held.breaker.generation;
                    let before = (held.breaker.state, held.breaker.run.failures, held.breaker.openings);
                    let outcomes =
                        [Outcome::Success, Outcome::Slow, Outcome::Failure, Outcome::Failure, Outcome::Ignored];
                    let change = held.record(ticket, random.pick(&outcomes));
                    if late {
                        assert_eq!(change, None, "seed {seed}");
                        let after = (held.breaker.state, held.breaker.run.failures, held.breaker.openings);
                        assert_eq!(before, after, "seed {seed}");
                    }
                }
                if random.once_in(20) {
                    held.breaker.healthy();
                }
                if random.once_in(60) {
                    held.breaker.came_back();
                    assert!(!matches!(held.breaker.state, State::Open { .. }), "seed {seed}");
                }
                if random.once_in(50) {
                    let until = random.once_in(2).then(|| held.now + Duration::from_secs(random.below(9)));
                    held.breaker.force(random.pick(&[None, Some(Forced::Open), Some(Forced::Closed)]), until);
                }
                check_invariants(&held, &out, seed);
            }
            // Whatever is out stays out for ever.
            held.breaker.force(None, None);
            held.now += held.params.open_for_max;
            held.breaker.pass(&held.params, &held.window, held.now);
            held.now += PROBE_MAX;
            assert!(held.admit_at(0.0).is_ok(), "seed {seed} sticks");
        }
    }
}
