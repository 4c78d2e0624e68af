//! What is known of one endpoint and of one upstream, whatever plan is in force: breaker, health, requests in flight.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Instant;

use super::breaker::BreakerState;
use super::journal::lock;
use crate::core::breaker::State;
use crate::core::health::{self, Health};
use crate::core::inflight;

/// One address of an upstream.
pub struct EndpointState {
    pub address: String,
    /// Of its transport: refused, reset, malformed.
    pub breaker: Arc<BreakerState>,
    health: Mutex<(Health, Option<String>)>,
    /// 0 unknown, 1 healthy, 2 unhealthy: the health as the data plane reads it.
    verdict: AtomicU8,
    pub in_flight: AtomicU32,
}

impl EndpointState {
    pub fn new(upstream: &str, address: String) -> Self {
        EndpointState {
            breaker: Arc::new(BreakerState::new(format!("{upstream} {address}"))),
            address,
            health: Mutex::new((Health::new(), None)),
            verdict: AtomicU8::new(0),
            in_flight: AtomicU32::new(0),
        }
    }

    pub fn breaker_state(&self, now: Instant) -> State {
        self.breaker.state(now)
    }

    /// Records an active check; `Some` is the new health when it changed. `words` says why it is unhealthy.
    pub fn checked(&self, result: Result<(), String>, params: &health::Params) -> Changed {
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
        self.verdict.store(verdict, Ordering::Release);
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

/// What one active check changed.
pub struct Changed {
    pub health: Option<bool>,
    /// It went well, and the one before had not.
    pub recovered: bool,
}

/// One upstream: the requests in flight and whose turn it is.
#[derive(Default)]
pub struct UpstreamState {
    in_flight: AtomicUsize,
    /// Those of them whose request body had not ended when they took their place.
    uploads: AtomicUsize,
    turn: AtomicUsize,
    /// The breakers of the routes that lead here, by route.
    routes: Mutex<BTreeMap<String, Weak<BreakerState>>>,
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

    /// The breaker of what this upstream answers on a route, adopted by name.
    pub fn route_breaker(&self, upstream: &str, route: &str) -> Arc<BreakerState> {
        let mut routes = lock(&self.routes);
        routes.retain(|_, breaker| breaker.strong_count() > 0);
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
