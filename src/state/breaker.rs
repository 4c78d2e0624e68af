//! A circuit breaker as all workers share it: of an endpoint, or of a route on an upstream. While it is closed and
//! nothing has failed, a request costs a load and a count, no lock.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::clock;
use super::journal::{Journal, lock};
use crate::core::breaker::{Breaker, Forced, Outcome, Params, State, Ticket, Transition};
use crate::core::scope::Scope;
use crate::core::window::{Count, Window};

pub struct BreakerState {
    /// What it guards, in the words of the journal.
    pub subject: String,
    breaker: Mutex<Breaker>,
    window: Window,
    /// Targets that fail by themselves; locked only after `breaker`.
    scope: Mutex<Scope>,
    /// The breaker is closed and has counted no failure: most requests need not lock it.
    calm: AtomicBool,
    opened: AtomicU64,
    refused: AtomicU64,
}

/// The right to send one request, to be given back by [`BreakerState::record`].
pub enum Admission {
    /// Taken while the breaker was calm; no ticket was drawn.
    Calm,
    Ticket(Ticket),
}

impl BreakerState {
    pub fn new(subject: String) -> Self {
        BreakerState {
            subject,
            breaker: Mutex::new(Breaker::new()),
            window: Window::new(clock::now()),
            scope: Mutex::default(),
            calm: AtomicBool::new(true),
            opened: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    /// Asks for one request; `Err` is how long to wait before asking again.
    pub fn admit(&self, params: &Params, journal: &Journal, now: Instant) -> Result<Admission, Duration> {
        if self.calm.load(Ordering::Acquire) {
            return Ok(Admission::Calm);
        }
        let mut breaker = lock(&self.breaker);
        let change = breaker.pass(params, &self.window, now);
        let admitted = breaker.admit(params, now, clock::unit());
        self.settle_down(&breaker, now);
        drop(breaker);
        self.tell(change, "", journal);
        admitted.map(Admission::Ticket).map_err(|rejected| {
            self.refused.fetch_add(1, Ordering::Relaxed);
            rejected.retry_in
        })
    }

    /// Settles an admission; `label` says what the request came to, and `target` what it asked for, where one target
    /// that fails by itself is to be told from the whole.
    pub fn record(
        &self,
        admission: Admission,
        outcome: Outcome,
        (label, target): (&'static str, Option<&str>),
        params: &Params,
        journal: &Journal,
        now: Instant,
    ) {
        let ticket = match (admission, outcome) {
            (Admission::Calm, Outcome::Ignored) => return,
            (Admission::Calm, Outcome::Success) => return self.window.count(Count::Good, params.window, now),
            (Admission::Calm, Outcome::Slow | Outcome::Failure | Outcome::Repeated) => None,
            (Admission::Ticket(ticket), _) => Some(ticket),
        };
        let mut breaker = lock(&self.breaker);
        let Some(ticket) = ticket.or_else(|| breaker.late_ticket()) else { return };
        let mut scope = lock(&self.scope);
        let outcome = match target.map(|target| clock::hash(target.as_bytes())) {
            Some(target) => scoped(&mut scope, target, outcome, now),
            None => outcome,
        };
        let change = breaker.record(ticket, outcome, params, &self.window, now, clock::unit());
        drop(scope);
        self.settle_down(&breaker, now);
        drop(breaker);
        self.tell(change, label, journal);
    }

    /// Notes whether requests need to lock: while a target fails, whoever does well is to be seen too.
    fn settle_down(&self, breaker: &Breaker, now: Instant) {
        self.calm.store(breaker.is_calm() && lock(&self.scope).is_empty(now), Ordering::Release);
    }

    /// The state as a request at `now` would find it.
    pub fn state(&self, now: Instant) -> State {
        lock(&self.breaker).state_at(now)
    }

    /// Opens or closes it by command, for a time; `None` gives it back to its own judgement.
    pub fn force(&self, forced: Option<Forced>, until: Option<Instant>, journal: &Journal) {
        let mut breaker = lock(&self.breaker);
        let change = breaker.force(forced, until);
        self.settle_down(&breaker, clock::now());
        drop(breaker);
        self.tell(change, "", journal);
    }

    /// An active check found the app well.
    pub fn healthy(&self, journal: &Journal) {
        if self.calm.load(Ordering::Acquire) {
            return;
        }
        let mut breaker = lock(&self.breaker);
        let change = breaker.healthy();
        self.settle_down(&breaker, clock::now());
        drop(breaker);
        self.tell(change, "", journal);
    }

    /// What it guards was away and is back: what was counted before says nothing any more.
    pub fn came_back(&self, journal: &Journal) {
        let mut breaker = lock(&self.breaker);
        let change = breaker.came_back();
        self.window.clear(clock::now());
        self.settle_down(&breaker, clock::now());
        drop(breaker);
        self.tell(change, "", journal);
    }

    /// It lets everything through and nothing has failed since the last success.
    pub fn is_calm(&self) -> bool {
        self.calm.load(Ordering::Acquire)
    }

    /// How often it has opened, and how many attempts it refused (or, in shadow mode, would have refused).
    pub fn counts(&self) -> (u64, u64) {
        (self.opened.load(Ordering::Relaxed), self.refused.load(Ordering::Relaxed))
    }

    fn tell(&self, change: Option<Transition>, label: &str, journal: &Journal) {
        let Some(change) = change else { return };
        if matches!(change.to, "open" | "forced_open") {
            self.opened.fetch_add(1, Ordering::Relaxed);
        }
        let last = if label.is_empty() { String::new() } else { format!("; the last attempt: {label}") };
        journal.record("breaker", self.subject.as_str(), format!("{change}{last}"));
    }
}

/// A failure of a target that fails by itself says nothing of the whole.
fn scoped(scope: &mut Scope, target: u64, outcome: Outcome, now: Instant) -> Outcome {
    match outcome {
        Outcome::Failure | Outcome::Repeated if scope.failed(target, now) => Outcome::Ignored,
        Outcome::Success | Outcome::Slow => {
            scope.did_well(target, now);
            outcome
        }
        Outcome::Failure | Outcome::Repeated | Outcome::Ignored => outcome,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::breaker::Consecutive;

    const PARAMS: Params = Params {
        consecutive: Consecutive::Exactly(2),
        failure_rate: 0.5,
        volume_min: 20,
        slow_rate: None,
        window: Duration::from_secs(10),
        open_for_base: Duration::from_secs(5),
        open_for_max: Duration::from_secs(30),
        probes: 1,
        ramp: Duration::ZERO,
    };

    fn one(state: &BreakerState, journal: &Journal, outcome: Outcome, now: Instant) {
        let admission = state.admit(&PARAMS, journal, now).unwrap_or_else(|_| panic!("refused"));
        state.record(admission, outcome, ("reset", None), &PARAMS, journal, now);
    }

    #[test]
    fn every_change_is_an_event_and_calm_comes_back() {
        let (state, journal, now) = (BreakerState::new("app".to_owned()), Journal::default(), clock::now());
        one(&state, &journal, Outcome::Failure, now);
        assert!(!state.is_calm());
        one(&state, &journal, Outcome::Success, now);
        assert!(state.is_calm());
        one(&state, &journal, Outcome::Failure, now);
        one(&state, &journal, Outcome::Failure, now);
        assert!(state.admit(&PARAMS, &journal, now).is_err());
        one(&state, &journal, Outcome::Success, now + PARAMS.open_for_base);
        assert!(state.is_calm());
        let words: Vec<String> = journal.recent(9).into_iter().map(|event| event.words).collect();
        assert_eq!(words.len(), 3, "{words:?}");
        assert!(words[0].starts_with("breaker open (was closed): 2 failures in a row"), "{words:?}");
        assert!(words[0].ends_with("the last attempt: reset"), "{words:?}");
        assert_eq!(state.counts(), (1, 1));
    }

    #[test]
    fn what_was_admitted_while_calm_counts_unless_it_is_late() {
        let (state, journal, now) = (BreakerState::new("app".to_owned()), Journal::default(), clock::now());
        let all: Vec<_> = (0..4).filter_map(|_| state.admit(&PARAMS, &journal, now).ok()).collect();
        for admission in all {
            state.record(admission, Outcome::Failure, ("reset", None), &PARAMS, &journal, now);
        }
        assert_eq!(state.state(now).label(), "open");
        assert_eq!(journal.recent(9).len(), 1);
    }
}
