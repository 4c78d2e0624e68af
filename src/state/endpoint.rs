//! What is known of one endpoint and of one upstream, whatever plan is in force: breaker, health, requests in flight.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

use super::breaker::BreakerState;
use super::clock;
use super::hold::{HoldState, Listening};
use super::journal::lock;
use super::places::Places;
use crate::core::balance::{self, Load, Seen};
use crate::core::breaker::State;
use crate::core::eject::{self, Record, Tally};
use crate::core::health::{self, Health};

/// One address of an upstream.
pub struct EndpointState {
    pub address: String,
    /// Of its transport: refused, reset, malformed.
    pub breaker: Arc<BreakerState>,
    health: Mutex<(Health, Option<String>)>,
    /// 0 unknown, 1 healthy, 2 unhealthy: the health as the data plane reads it.
    verdict: AtomicU8,
    pub in_flight: AtomicU32,
    pub listening: Listening,
    /// What its answers say to the choice among endpoints, and of an ejection.
    answers: Mutex<(Load, Record)>,
    /// `clock::nanos` of the end of the ejection; 0 when it is not ejected.
    out_until: AtomicU64,
    /// Whether a plan has named it.
    placed: AtomicBool,
}

impl EndpointState {
    pub fn new(upstream: &str, address: String) -> Self {
        EndpointState {
            breaker: Arc::new(BreakerState::new(format!("{upstream} {address}"))),
            address,
            health: Mutex::new((Health::new(), None)),
            verdict: AtomicU8::new(0),
            in_flight: AtomicU32::new(0),
            listening: Listening::default(),
            answers: Mutex::default(),
            out_until: AtomicU64::new(0),
            placed: AtomicBool::new(false),
        }
    }

    pub fn breaker_state(&self, now: Instant) -> State {
        self.breaker.state(now)
    }

    /// Records an active check; `Some` is the new health when it changed. `words` says why it is unhealthy.
    pub fn checked(&self, result: Result<(), String>, params: &health::Params, now: Instant) -> Changed {
        let well = result.is_ok();
        let mut guard = lock(&self.health);
        let changed = guard.0.record(well, params);
        let recovered = well && guard.1.is_some();
        guard.1 = result.err();
        let verdict = match guard.0.healthy() {
            None => 0,
            Some(true) => 1,
            Some(false) => 2,
        };
        drop(guard);
        let before = self.verdict.swap(verdict, Ordering::AcqRel);
        if (before, verdict) == (2, 1) {
            lock(&self.answers).0.warm_up(now);
        }
        Changed { health: changed, recovered }
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

/// The choice among endpoints.
impl EndpointState {
    /// A plan names it; a new one among others gets its share in steps.
    pub fn place(&self, among_others: bool, now: Instant) {
        if !self.placed.swap(true, Ordering::Relaxed) && among_others {
            lock(&self.answers).0.warm_up(now);
        }
    }

    pub fn seen(&self, params: &balance::Params, now: Instant) -> Seen {
        lock(&self.answers).0.seen(self.in_flight.load(Ordering::Relaxed), params, now)
    }

    /// Counts an answer, or the lack of one. `refused` is what is no work done: every failure, and a 429.
    pub fn learn(
        &self,
        failed: bool,
        refused: bool,
        took: Duration,
        load: &balance::Params,
        eject: &eject::Params,
        now: Instant,
    ) {
        let mut answers = lock(&self.answers);
        if refused {
            answers.0.refused(took, load, now);
        } else {
            answers.0.answered(took, load, now);
        }
        answers.1.answered(failed, eject, now);
    }

    pub fn tally(&self, params: &eject::Params, now: Instant) -> Tally {
        lock(&self.answers).1.tally(params, now)
    }

    /// Leaves it out; for how long.
    pub fn eject(&self, params: &eject::Params, now: Instant) -> Duration {
        let out = lock(&self.answers).1.eject(params, now);
        self.out_until.store(clock::nanos(now + out), Ordering::Release);
        out
    }

    pub fn is_ejected(&self) -> bool {
        self.out_until.load(Ordering::Acquire) != 0
    }

    /// Ends an ejection whose time is over; true for the one who ended it.
    pub fn came_back(&self, now: Instant) -> bool {
        let until = self.out_until.load(Ordering::Acquire);
        if until == 0 || clock::nanos(now) < until {
            return false;
        }
        let ended = self.out_until.compare_exchange(until, 0, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        if ended {
            lock(&self.answers).0.warm_up(now);
        }
        ended
    }
}

/// What one active check changed.
pub struct Changed {
    pub health: Option<bool>,
    /// It went well, and the one before had not.
    pub recovered: bool,
}

/// One upstream: the requests in flight and whose turn it is.
#[derive(Default)]
pub struct UpstreamState {
    pub places: Arc<Places>,
    turn: AtomicUsize,
    /// Requests that wait while no endpoint listens.
    pub hold: Arc<HoldState>,
    /// The breakers of the routes that lead here, by route.
    routes: Mutex<BTreeMap<String, Weak<BreakerState>>>,
    planned: AtomicBool,
    ejecting: Mutex<()>,
}

impl UpstreamState {
    /// The breaker of what this upstream answers on a route, adopted by name.
    pub fn route_breaker(&self, upstream: &str, route: &str) -> Arc<BreakerState> {
        let mut routes = lock(&self.routes);
        if let Some(living) = routes.get(route).and_then(Weak::upgrade) {
            return living;
        }
        let fresh = Arc::new(BreakerState::new(format!("route {route} on {upstream}")));
        routes.insert(route.to_owned(), Arc::downgrade(&fresh));
        fresh
    }

    /// The breakers of all routes that lead here, by route.
    pub fn route_breakers(&self) -> Vec<(String, Arc<BreakerState>)> {
        let routes = lock(&self.routes);
        routes.iter().filter_map(|(name, breaker)| Some((name.clone(), breaker.upgrade()?))).collect()
    }

    pub fn in_flight(&self) -> usize {
        self.places.open()
    }

    /// A number that grows with each request, for round robin.
    pub fn turn(&self) -> usize {
        self.turn.fetch_add(1, Ordering::Relaxed)
    }

    /// A plan names it; whether an earlier one did.
    pub fn was_planned(&self) -> bool {
        lock(&self.routes).retain(|_, breaker| breaker.strong_count() > 0);
        self.planned.swap(true, Ordering::Relaxed)
    }

    /// Held while it is decided whether an endpoint is ejected.
    pub fn ejecting(&self) -> MutexGuard<'_, ()> {
        lock(&self.ejecting)
    }
}
