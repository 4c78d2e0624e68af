//! The order of a shutdown as a state machine: still accepting for `delay`, then closing until nothing is in flight or
//! `timeout` is over, then saying goodbye to upgraded connections, then cutting what is left.

use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Params {
    /// Not ready, still accepting: for load balancers that have not noticed yet.
    pub delay: Duration,
    /// From the end of the delay to the cut.
    pub timeout: Duration,
    /// How long upgraded connections have to say goodbye, at most what is left of `timeout` and this.
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

#[derive(Debug)]
pub struct Drain {
    phase: Phase,
    params: Params,
    delay_ends: Option<Instant>,
    timeout_ends: Option<Instant>,
    farewell_ends: Option<Instant>,
}

impl Default for Drain {
    fn default() -> Self {
        let params = Params { delay: Duration::ZERO, timeout: Duration::ZERO, farewell: Duration::ZERO };
        Drain { phase: Phase::Serving, params, delay_ends: None, timeout_ends: None, farewell_ends: None }
    }
}

impl Drain {
    pub fn new() -> Self {
        Self::default()
    }

    /// The first signal. A later start changes nothing.
    pub fn start(&mut self, params: Params, now: Instant) {
        if self.phase == Phase::Serving {
            self.params = params;
            self.phase = Phase::Delaying;
            self.delay_ends = Some(now + params.delay);
            self.timeout_ends = Some(now + params.delay + params.timeout);
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
        let over = |end: Option<Instant>| end.is_some_and(|end| now >= end);
        if self.phase == Phase::Delaying && over(self.delay_ends) {
            self.phase = Phase::Closing;
        }
        if self.phase == Phase::Closing && (open.requests == 0 || over(self.timeout_ends)) {
            self.phase = Phase::Parting;
            self.farewell_ends = Some(now + self.params.farewell);
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

    /// When to look again if nothing ends before.
    pub fn next_change(&self) -> Option<Instant> {
        match self.phase {
            Phase::Serving | Phase::Finished | Phase::Aborted => None,
            Phase::Delaying => self.delay_ends,
            Phase::Closing => self.timeout_ends,
            Phase::Parting => self.farewell_ends,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARAMS: Params =
        Params { delay: Duration::from_secs(5), timeout: Duration::from_secs(20), farewell: Duration::from_secs(3) };
    const NOTHING: Open = Open { requests: 0, upgraded: 0 };
    const TICK: Duration = Duration::from_nanos(1);

    #[expect(clippy::disallowed_methods, reason = "an arbitrary origin")]
    fn started() -> (Drain, Instant) {
        let (mut drain, now) = (Drain::new(), Instant::now());
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
}
