//! Requests that wait while nothing listens at any endpoint of an upstream: how long, how many, and in which order
//! they go on. An app that restarts costs latency then, and no errors.
//!
//! The upstream is away from the first refusal on until somebody finds it listening. A request may wait until it has
//! been away for `wait_max`, until it has waited so long itself (an app that comes and goes holds nobody for ever), or
//! until its own deadline. Once away for longer, requests are refused at once until it is back.
//!
//! When it is back, those that waited go on one after the other at a bounded rate, oldest first: an app that has just
//! started would lose a thousand connections at once to its own backlog.

use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Params {
    pub wait_max: Duration,
    pub requests_max: u32,
}

/// One upstream's waiting requests.
#[derive(Debug, Default)]
pub struct Hold {
    away_since: Option<Instant>,
    waiting: u32,
    /// It will not come back.
    gone: bool,
}

/// Why a request does not wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// It is back: go on.
    Back,
    /// It has been away for too long, or this request has waited long enough.
    TooLong,
    /// Too many wait already.
    Full,
    /// It will not come back.
    Gone,
}

/// A place among those that wait, to be given back by [`Hold::leave`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    pub until: Instant,
    /// How long after the return it goes on.
    pub turn: Duration,
    /// When it is too late to go on.
    pub too_late: Instant,
}

impl Hold {
    /// Nothing listens. True when that is new.
    pub fn refused(&mut self, now: Instant) -> bool {
        let new = self.away_since.is_none();
        self.away_since.get_or_insert(now);
        new
    }

    /// Something listens. For how long nothing did, when nothing did.
    pub fn back(&mut self, now: Instant) -> Option<Duration> {
        let since = self.away_since.take()?;
        Some(now.saturating_duration_since(since))
    }

    /// It has ended and nobody starts it again: nobody is to wait from here on.
    pub fn gone(&mut self) {
        self.gone = true;
    }

    /// Asks for a place; `waited` is how long this request has waited already.
    pub fn enter(
        &mut self,
        params: &Params,
        waited: Duration,
        deadline: Instant,
        now: Instant,
    ) -> Result<Waiting, Denied> {
        let since = self.away_since.ok_or(Denied::Back)?;
        if self.gone {
            return Err(Denied::Gone);
        }
        let left = params.wait_max.saturating_sub(waited);
        let longest = (since + params.wait_max.min(WAIT_LIMIT)).min(now + left.min(WAIT_LIMIT));
        // At the deadline itself there is no time left to be answered in.
        let too_late = deadline.checked_sub(ANSWER_MIN).unwrap_or(now);
        let until = longest.min(too_late);
        if until <= now {
            return Err(Denied::TooLong);
        }
        if self.waiting >= params.requests_max {
            return Err(Denied::Full);
        }
        // Those that have left hold nobody up: nobody's turn is later than that of the last of so many.
        let turn = TURN * self.waiting;
        self.waiting += 1;
        Ok(Waiting { until, turn, too_late })
    }

    pub fn leave(&mut self) {
        self.waiting = self.waiting.saturating_sub(1);
    }

    pub fn waiting(&self) -> u32 {
        self.waiting
    }

    pub fn is_away(&self) -> bool {
        self.away_since.is_some()
    }
}

/// Four requests a millisecond go on.
const TURN: Duration = Duration::from_micros(250);
/// What is left to an app that comes back at the last moment.
const ANSWER_MIN: Duration = Duration::from_millis(5);
/// So that it can be added to any clock.
const WAIT_LIMIT: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::testing::{Random, origin};

    const PARAMS: Params = Params { wait_max: Duration::from_secs(5), requests_max: 2 };
    const HOUR: Duration = Duration::from_secs(3600);
    const NANO: Duration = Duration::from_nanos(1);

    fn away() -> (Hold, Instant) {
        let (mut hold, now) = (Hold::default(), origin());
        assert!(hold.refused(now) && !hold.refused(now + NANO));
        (hold, now)
    }

    #[test]
    fn requests_wait_until_it_has_been_away_for_too_long() {
        let (mut hold, start) = away();
        let end = start + PARAMS.wait_max;
        let entered = hold.enter(&PARAMS, Duration::ZERO, start + HOUR, start).unwrap();
        assert_eq!(entered.until, end);
        assert_eq!(hold.enter(&PARAMS, Duration::ZERO, start + HOUR, end - NANO).unwrap().until, end);
        assert_eq!(hold.enter(&PARAMS, Duration::ZERO, start + HOUR, end), Err(Denied::TooLong));
        assert_eq!(hold.back(end), Some(PARAMS.wait_max));
        assert_eq!(hold.enter(&PARAMS, Duration::ZERO, start + HOUR, end), Err(Denied::Back));
        assert_eq!(hold.back(end), None);
    }

    #[test]
    fn a_request_waits_no_longer_than_its_deadline_and_its_share_allow() {
        let (mut hold, start) = away();
        let soon = start + Duration::from_secs(1);
        assert_eq!(hold.enter(&PARAMS, Duration::ZERO, soon, start).unwrap().until, soon - ANSWER_MIN);
        assert_eq!(hold.enter(&PARAMS, Duration::ZERO, start + ANSWER_MIN, start), Err(Denied::TooLong));
        let waited = Duration::from_secs(3);
        let until = hold.enter(&PARAMS, waited, start + HOUR, start).unwrap().until;
        assert_eq!(until, start + PARAMS.wait_max - waited);
        assert_eq!(hold.enter(&PARAMS, PARAMS.wait_max, start + HOUR, start), Err(Denied::TooLong));
    }

    #[test]
    fn no_more_wait_than_may_and_they_go_on_in_turn() {
        let (mut hold, start) = away();
        let mut enter = || hold.enter(&PARAMS, Duration::ZERO, start + HOUR, start);
        assert_eq!([enter().unwrap().turn, enter().unwrap().turn], [Duration::ZERO, TURN]);
        assert_eq!(enter(), Err(Denied::Full));
        hold.leave();
        assert_eq!(hold.enter(&PARAMS, Duration::ZERO, start + HOUR, start).unwrap().turn, TURN);
        hold.back(start);
        hold.refused(start);
        hold.leave();
        hold.leave();
        assert_eq!(hold.enter(&PARAMS, Duration::ZERO, start + HOUR, start).unwrap().turn, Duration::ZERO);
    }

    #[test]
    fn nobody_waits_for_what_will_not_come_back() {
        let (mut hold, start) = away();
        hold.gone();
        assert_eq!(hold.enter(&PARAMS, Duration::ZERO, start + HOUR, start), Err(Denied::Gone));
        hold.back(start);
        assert_eq!(hold.enter(&PARAMS, Duration::ZERO, start + HOUR, start), Err(Denied::Back));
    }

    #[test]
    fn a_wait_of_nothing_holds_nobody() {
        let (mut hold, start) = away();
        for wait_max in [Duration::ZERO, Duration::MAX] {
            let params = Params { wait_max, ..PARAMS };
            let entered = hold.enter(&params, Duration::ZERO, start + HOUR, start);
            assert_eq!(entered.is_ok(), !wait_max.is_zero());
        }
    }

    /// Goal: never more wait than may; nobody waits past their deadline, their own limit or the upstream's, nor for what
    /// is there; and nobody is turned away who could have waited. Method: 10,000 seeds of comings, goings, requests and
    /// deadlines against the three bounds by hand.
    #[test]
    fn simulation_bounds_every_wait() {
        for seed in 0..10_000u64 {
            let mut random = Random::new(seed);
            let params =
                Params { wait_max: Duration::from_millis(random.below(8000)), requests_max: random.below(4) as u32 };
            let (mut hold, mut now, mut inside) = (Hold::default(), origin(), 0);
            let mut since = None;
            for _ in 0..60 {
                now += Duration::from_millis(random.below(1500));
                match random.below(4) {
                    0 => {
                        assert_eq!(hold.refused(now), since.is_none(), "seed {seed}");
                        since.get_or_insert(now);
                    }
                    1 if random.once_in(3) => {
                        assert_eq!(hold.back(now), since.take().map(|since| now - since), "seed {seed}");
                    }
                    2 if inside > 0 => {
                        inside -= 1;
                        hold.leave();
                    }
                    _ => {
                        let deadline = now + Duration::from_millis(random.below(9000));
                        let waited = Duration::from_millis(random.pick(&[0, 0, 4000, 6000]));
                        let entered = hold.enter(&params, waited, deadline, now);
                        let Some(away) = since else {
                            assert_eq!(entered, Err(Denied::Back), "seed {seed}");
                            continue;
                        };
                        let last = deadline.checked_sub(ANSWER_MIN).unwrap();
                        let until =
                            (away + params.wait_max).min(last).min(now + params.wait_max.saturating_sub(waited));
                        let turn = TURN * inside;
                        match entered {
                            Ok(entered) => {
                                let known = Waiting { until, turn, too_late: last };
                                assert!(entered == known && until > now && inside < params.requests_max, "seed {seed}");
                                inside += 1;
                            }
                            Err(Denied::Full) => assert_eq!(inside, params.requests_max, "seed {seed}"),
                            Err(Denied::TooLong) => assert!(until <= now, "seed {seed}"),
                            Err(denied @ (Denied::Gone | Denied::Back)) => panic!("seed {seed}: {denied:?}"),
                        }
                    }
                }
                assert_eq!(hold.waiting(), inside, "seed {seed}");
                assert_eq!(hold.is_away(), since.is_some(), "seed {seed}");
            }
        }
    }
}
