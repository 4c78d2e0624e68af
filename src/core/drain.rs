//! The order of a shutdown as a state machine: still accepting for `delay`, then closing until nothing is in flight or
//! `timeout` is over, then saying goodbye to upgraded connections, then cutting what is left.
//!
//! It only says which phase it is. Closing ports, sending GOAWAY and close frames, and cutting are the adapter's, which
//! ticks on every change and at [`Drain::next_change`]. A phase is never left backwards.

use std::time::{Duration, Instant};

/// How long the phases last. A time too large for the clock is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Params {
    /// Not ready, still accepting: for load balancers that have not noticed yet.
    pub delay: Duration,
    /// From the end of the delay to the cut.
    pub timeout: Duration,
    /// How long upgraded connections have to say goodbye once requests are done or out of time.
    pub farewell: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    Serving,
    Delaying,
    Closing,
    /// Requests are done or out of time; upgraded connections are closed.
    Parting,
    /// Everything ended by itself.
    Finished,
    /// The time was over, or a second signal came: cut what is left.
    Aborted,
}

/// What is still open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Open {
    pub requests: usize,
    pub upgraded: usize,
}

/// One shutdown.
#[derive(Debug)]
pub struct Drain {
    phase: Phase,
    farewell: Duration,
    delay_ends: Option<Instant>,
    timeout_ends: Option<Instant>,
    farewell_ends: Option<Instant>,
    /// The last tick.
    seen: Option<Instant>,
}

impl Default for Drain {
    fn default() -> Self {
        let (phase, farewell) = (Phase::Serving, Duration::ZERO);
        Drain { phase, farewell, delay_ends: None, timeout_ends: None, farewell_ends: None, seen: None }
    }
}

impl Drain {
    pub fn new() -> Self {
        Self::default()
    }

    /// The first signal. A later start changes nothing.
    pub fn start(&mut self, params: Params, now: Instant) {
        if self.phase == Phase::Serving {
            self.farewell = params.farewell;
            self.phase = Phase::Delaying;
            self.delay_ends = now.checked_add(params.delay);
            self.timeout_ends = self.delay_ends.and_then(|end| end.checked_add(params.timeout));
        }
    }

    /// A second signal ends at once.
    pub fn signal_again(&mut self) {
        if self.phase != Phase::Finished {
            self.phase = Phase::Aborted;
        }
    }

    /// The phase at `now`, with this much open.
    pub fn tick(&mut self, now: Instant, open: Open) -> Phase {
        self.seen = Some(now);
        let over = |end: Option<Instant>| end.is_some_and(|end| now >= end);
        if self.phase == Phase::Delaying && over(self.delay_ends) {
            self.phase = Phase::Closing;
        }
        if self.phase == Phase::Closing && (open.requests == 0 || over(self.timeout_ends)) {
            self.phase = Phase::Parting;
            self.farewell_ends = now.checked_add(self.farewell);
        }
        if self.phase == Phase::Parting {
            let requests_over = open.requests == 0 || over(self.timeout_ends);
            if open.requests == 0 && open.upgraded == 0 {
                self.phase = Phase::Finished;
            } else if requests_over && (open.upgraded == 0 || over(self.farewell_ends)) {
                self.phase = Phase::Aborted;
            }
        }
        self.phase
    }

    /// When to look again if nothing ends before; later than the last tick, so that nobody waits in circles.
    pub fn next_change(&self) -> Option<Instant> {
        match self.phase {
            Phase::Serving | Phase::Finished | Phase::Aborted => None,
            Phase::Delaying => self.delay_ends,
            Phase::Closing => self.timeout_ends,
            Phase::Parting => {
                let ends = [self.farewell_ends, self.timeout_ends].into_iter().flatten();
                ends.filter(|end| Some(*end) > self.seen).min()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::testing::{Random, origin};

    const PARAMS: Params =
        Params { delay: Duration::from_secs(5), timeout: Duration::from_secs(20), farewell: Duration::from_secs(3) };
    const NOTHING: Open = Open { requests: 0, upgraded: 0 };
    const TICK: Duration = Duration::from_nanos(1);

    fn started() -> (Drain, Instant) {
        let (mut drain, now) = (Drain::new(), origin());
        drain.start(PARAMS, now);
        (drain, now)
    }

    #[test]
    fn it_accepts_for_the_whole_delay_and_ends_at_once_when_nothing_is_open() {
        let (mut drain, now) = started();
        assert_eq!(drain.tick(now + PARAMS.delay - TICK, NOTHING), Phase::Delaying);
        assert_eq!(drain.next_change(), Some(now + PARAMS.delay));
        assert_eq!(drain.tick(now + PARAMS.delay, NOTHING), Phase::Finished);
    }

    #[test]
    fn requests_have_until_the_timeout() {
        let (mut drain, now) = started();
        let open = Open { requests: 1, upgraded: 0 };
        let end = now + PARAMS.delay + PARAMS.timeout;
        assert_eq!(drain.tick(end - TICK, open), Phase::Closing);
        assert_eq!(drain.tick(end, open), Phase::Aborted);
    }

    #[test]
    fn upgraded_connections_part_when_requests_are_done() {
        let (mut drain, now) = started();
        let later = now + PARAMS.delay;
        assert_eq!(drain.tick(later, Open { requests: 1, upgraded: 2 }), Phase::Closing);
        assert_eq!(drain.tick(later, Open { requests: 0, upgraded: 2 }), Phase::Parting);
        assert_eq!(drain.tick(later + PARAMS.farewell - TICK, Open { requests: 0, upgraded: 1 }), Phase::Parting);
        assert_eq!(drain.tick(later + PARAMS.farewell, Open { requests: 0, upgraded: 1 }), Phase::Aborted);
    }

    #[test]
    fn a_second_signal_ends_at_once() {
        let (mut drain, now) = started();
        drain.signal_again();
        assert_eq!(drain.tick(now, Open { requests: 5, upgraded: 5 }), Phase::Aborted);
    }

    #[test]
    fn the_delay_ends_on_time_with_requests_open() {
        let (mut drain, now) = started();
        let open = Open { requests: 1, upgraded: 0 };
        let end = now + PARAMS.delay;
        assert_eq!(drain.tick(end - TICK, open), Phase::Delaying);
        assert_eq!(drain.tick(end, open), Phase::Closing);
        assert_eq!(drain.next_change(), Some(end + PARAMS.timeout));
        assert_eq!(drain.tick(end + TICK, open), Phase::Closing);
    }

    #[test]
    fn a_drain_that_was_not_started_serves() {
        let mut drain = Drain::new();
        let now = origin();
        assert_eq!(drain.tick(now, NOTHING), Phase::Serving);
        assert_eq!(drain.next_change(), None);
        drain.start(Params { delay: Duration::ZERO, ..PARAMS }, now);
        assert_eq!(drain.tick(now, NOTHING), Phase::Finished);
    }

    #[test]
    fn a_later_start_changes_nothing() {
        let (mut drain, now) = started();
        drain.start(Params { delay: Duration::ZERO, timeout: Duration::ZERO, farewell: Duration::ZERO }, now);
        assert_eq!(drain.tick(now, NOTHING), Phase::Delaying);
    }

    /// Requests may come again on a kept connection while others part: then the timeout is what is waited for.
    #[test]
    fn after_the_farewell_the_timeout_is_next() {
        let (mut drain, now) = started();
        let begin = now + PARAMS.delay;
        assert_eq!(drain.tick(begin, Open { requests: 0, upgraded: 1 }), Phase::Parting);
        assert_eq!(drain.next_change(), Some(begin + PARAMS.farewell));
        let busy = Open { requests: 1, upgraded: 1 };
        assert_eq!(drain.tick(begin + PARAMS.farewell, busy), Phase::Parting);
        assert_eq!(drain.next_change(), Some(begin + PARAMS.timeout));
        assert_eq!(drain.tick(begin + PARAMS.timeout, busy), Phase::Aborted);
    }

    #[test]
    fn a_time_too_large_for_the_clock_is_no_limit() {
        let (mut drain, now) = (Drain::new(), origin());
        drain.start(Params { delay: Duration::ZERO, timeout: Duration::MAX, farewell: Duration::MAX }, now);
        let later = now + Duration::from_secs(1 << 30);
        assert_eq!(drain.tick(later, Open { requests: 1, upgraded: 1 }), Phase::Closing);
        assert_eq!(drain.next_change(), None);
        assert_eq!(drain.tick(later, Open { requests: 0, upgraded: 1 }), Phase::Parting);
        assert_eq!(drain.tick(later, NOTHING), Phase::Finished);
    }

    /// Goal: phases only go forwards, nothing is cut before its time, and following `next_change` alone always ends,
    /// however much stays open. Method: 10,000 seeds of loads and ticks.
    #[test]
    fn simulation_only_goes_forwards_and_always_ends() {
        for seed in 0..10_000u64 {
            let mut random = Random::new(seed);
            let begin = origin();
            let mut seconds = |limit| Duration::from_secs(random.below(limit));
            let params = Params { delay: seconds(6), timeout: seconds(20), farewell: seconds(5) };
            let mut drain = Drain::new();
            drain.start(params, begin);
            let (mut now, mut before, mut ticks) = (begin, Phase::Serving, 0);
            let parting_at = loop {
                let open = Open { requests: random.below(3) as usize, upgraded: random.below(3) as usize };
                let phase = drain.tick(now, open);
                assert!(phase >= before, "seed {seed}: {before:?} to {phase:?}");
                assert!(phase == Phase::Delaying || now >= begin + params.delay, "seed {seed}: the delay was cut");
                match phase {
                    Phase::Finished => assert_eq!(open, NOTHING, "seed {seed}"),
                    Phase::Aborted => assert_ne!(open, NOTHING, "seed {seed}"),
                    Phase::Serving | Phase::Delaying | Phase::Closing | Phase::Parting => {}
                }
                if phase >= Phase::Finished {
                    break drain.farewell_ends;
                }
                let next = drain.next_change().unwrap();
                assert!(next > now, "seed {seed}: waits in circles");
                before = phase;
                now = if random.once_in(2) { next } else { now + Duration::from_millis(random.below(1500)) };
                ticks += 1;
                assert!(ticks < 1000, "seed {seed} does not end");
            };
            let last = begin + params.delay + params.timeout;
            let farewell = parting_at.unwrap_or(last);
            assert!(now <= last.max(farewell) + Duration::from_secs(2), "seed {seed} took too long");
        }
    }
}
