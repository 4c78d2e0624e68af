//! What is known of one endpoint and of one upstream, whatever plan is in force: breaker, health, requests in flight.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::journal::lock;
use crate::core::breaker::{Breaker, Forced, Outcome, Params, State, Ticket, Transition};
use crate::core::health::{self, Health};
use crate::core::inflight;

/// One address of an upstream.
pub struct EndpointState {
    pub address: String,
    breaker: Mutex<Breaker>,
    /// The breaker is closed and has counted no failure: most requests need not lock it.
    calm: AtomicBool,
    health: Mutex<(Health, Option<String>)>,
    /// 0 unknown, 1 healthy, 2 unhealthy: the health as the data plane reads it.
    verdict: AtomicU8,
    pub in_flight: AtomicU32,
}

/// The right to send one request, to be given back by [`EndpointState::record`].
pub enum Admission {
    /// Taken while the breaker was calm; no ticket was drawn.
    Calm,
    Ticket(Ticket),
}

impl EndpointState {
    pub fn new(address: String) -> Self {
        EndpointState {
            address,
            breaker: Mutex::new(Breaker::new()),
            calm: AtomicBool::new(true),
            health: Mutex::new((Health::new(), None)),
            verdict: AtomicU8::new(0),
            in_flight: AtomicU32::new(0),
        }
    }

    /// Asks the breaker for one request; `Err` is how long it will stay open.
    pub fn admit(&self, params: &Params, now: Instant) -> Result<Admission, Duration> {
        if self.calm.load(Ordering::Acquire) {
            return Ok(Admission::Calm);
        }
        let mut breaker = lock(&self.breaker);
        breaker.admit(params, now).map(Admission::Ticket).map_err(|rejected| rejected.retry_in)
    }

    /// Settles an admission. A transition is to be written to the journal by the caller.
    pub fn record(
        &self,
        admission: Admission,
        outcome: Outcome,
        params: &Params,
        now: Instant,
        unit: f64,
    ) -> Option<Transition> {
        let ticket = match admission {
            Admission::Calm if !matches!(outcome, Outcome::Failure) => return None,
            Admission::Calm => None,
            Admission::Ticket(ticket) => Some(ticket),
        };
        let mut breaker = lock(&self.breaker);
        let ticket = match ticket {
            Some(ticket) => ticket,
            // Admitted while calm and failed since: it counts now, unless the breaker has opened meanwhile.
            None if matches!(breaker.state(now), State::Closed) => breaker.admit(params, now).ok()?,
            None => return None,
        };
        let failed = matches!(outcome, Outcome::Failure);
        let transition = breaker.record(ticket, outcome, params, now, unit);
        let calm = !failed && matches!(breaker.state(now), State::Closed) && breaker.failures() == 0;
        self.calm.store(calm, Ordering::Release);
        transition
    }

    pub fn breaker_state(&self, now: Instant) -> State {
        lock(&self.breaker).state(now)
    }

    /// Opens or closes the breaker by command; `None` gives it back to its own judgement.
    pub fn force(&self, forced: Option<Forced>, now: Instant) -> Option<Transition> {
        let mut breaker = lock(&self.breaker);
        let transition = breaker.force(forced, now);
        self.calm.store(false, Ordering::Release);
        transition
    }

    /// Records an active check; `Some` is the new health when it changed. `words` says why it is unhealthy.
    pub fn checked(&self, result: Result<(), String>, params: &health::Params, now: Instant) -> Changed {
        let well = result.is_ok();
        let mut guard = lock(&self.health);
        let changed = guard.0.record(well, params);
        guard.1 = result.err();
        let verdict = match guard.0.healthy() {
            None => 0,
            Some(true) => 1,
            Some(false) => 2,
        };
        drop(guard);
        self.verdict.store(verdict, Ordering::Release);
        let breaker = if well { lock(&self.breaker).healthy(now) } else { None };
        Changed { health: changed, breaker }
    }

    /// `None` while no active check has decided.
    pub fn healthy(&self) -> Option<bool> {
        match self.verdict.load(Ordering::Acquire) {
            0 => None,
            verdict => Some(verdict == 1),
        }
    }

    /// Why the last active check failed, in plain words.
    pub fn last_problem(&self) -> Option<String> {
        lock(&self.health).1.clone()
    }
}

/// What one active check changed.
pub struct Changed {
    pub health: Option<bool>,
    pub breaker: Option<Transition>,
}

/// One upstream: the requests in flight and whose turn it is.
#[derive(Default)]
pub struct UpstreamState {
    in_flight: AtomicUsize,
    /// Those of them whose request body had not ended when they took their place.
    uploads: AtomicUsize,
    turn: AtomicUsize,
}

/// A place among an upstream's requests in flight, given back when it is dropped.
pub struct Place {
    upstream: Arc<UpstreamState>,
    upload: bool,
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.upload {
            self.upstream.uploads.fetch_sub(1, Ordering::AcqRel);
        }
        self.upstream.in_flight.fetch_sub(1, Ordering::AcqRel);
    }
}

impl UpstreamState {
    /// Takes a place among at most `max` requests; `None` when there is none.
    pub fn enter(self: &Arc<Self>, max: usize) -> Option<Place> {
        take(&self.in_flight, max).then(|| Place { upstream: self.clone(), upload: false })
    }

    /// The same for a request whose body is still coming: one of at most `uploads_max` among the `max`.
    pub fn enter_upload(self: &Arc<Self>, max: usize, uploads_max: usize) -> Option<Place> {
        if !take(&self.uploads, uploads_max) {
            return None;
        }
        if !take(&self.in_flight, max) {
            self.uploads.fetch_sub(1, Ordering::AcqRel);
            return None;
        }
        Some(Place { upstream: self.clone(), upload: true })
    }

    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Acquire)
    }

    /// A number that grows with each request, for round robin.
    pub fn turn(&self) -> usize {
        self.turn.fetch_add(1, Ordering::Relaxed)
    }
}

/// Counts one more, unless there are `max` already.
fn take(count: &AtomicUsize, max: usize) -> bool {
    let admitted = inflight::admit(count.fetch_add(1, Ordering::AcqRel), max);
    if !admitted {
        count.fetch_sub(1, Ordering::AcqRel);
    }
    admitted
}
