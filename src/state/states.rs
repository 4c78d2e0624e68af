//! The registry of everything that outlives a plan. A new plan adopts what has the same identity; what no plan and no
//! request holds any more is forgotten.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};

use super::budget::BudgetState;
use super::dependency::DependencyState;
use super::endpoint::{EndpointState, UpstreamState};
use super::journal::{Journal, lock};
use super::lifecycle::Lifecycle;
use super::limit::LimitState;
use super::store::StoreState;
use super::switch::SwitchState;

/// Weak references by identity.
struct Registry<K, V>(Mutex<Entries<K, V>>);

struct Entries<K, V> {
    by_identity: HashMap<K, Weak<V>>,
    /// So many entries before the forgotten ones are looked for again: adopting many costs as many steps.
    sweep_at: usize,
}

const SWEEP_AT_MIN: usize = 64;

impl<K, V> Default for Registry<K, V> {
    fn default() -> Self {
        Registry(Mutex::new(Entries { by_identity: HashMap::new(), sweep_at: SWEEP_AT_MIN }))
    }
}

impl<K: Eq + Hash, V> Registry<K, V> {
    fn adopt(&self, key: K, fresh: impl FnOnce() -> V) -> Arc<V> {
        let mut entries = lock(&self.0);
        if let Some(living) = entries.by_identity.get(&key).and_then(Weak::upgrade) {
            return living;
        }
        if entries.by_identity.len() >= entries.sweep_at {
            entries.by_identity.retain(|_, entry| entry.strong_count() > 0);
            entries.sweep_at = SWEEP_AT_MIN.max(entries.by_identity.len() * 2);
        }
        let made = Arc::new(fresh());
        entries.by_identity.insert(key, Arc::downgrade(&made));
        made
    }
}

/// All state of the process.
#[derive(Default)]
pub struct States {
    upstreams: Registry<String, UpstreamState>,
    endpoints: Registry<(String, String), EndpointState>,
    limits: Registry<String, LimitState>,
    stores: Registry<String, StoreState>,
    dependencies: Registry<String, DependencyState>,
    budgets: Registry<(String, String), BudgetState>,
    switches: Registry<(&'static str, String), SwitchState>,
    slots: Slots,
    pub lifecycle: Lifecycle,
    pub journal: Journal,
    pub reload: ReloadState,
}

impl States {
    pub fn upstream(&self, name: &str) -> Arc<UpstreamState> {
        self.upstreams.adopt(name.to_owned(), UpstreamState::default)
    }

    pub fn endpoint(&self, upstream: &str, address: &str) -> Arc<EndpointState> {
        self.endpoints
            .adopt((upstream.to_owned(), address.to_owned()), || EndpointState::new(upstream, address.to_owned()))
    }

    /// `identity` is the limit's name and key rule; rate and burst may change under it.
    pub fn limit(&self, identity: &str) -> Arc<LimitState> {
        self.limits.adopt(identity.to_owned(), LimitState::default)
    }

    /// `identity` is the store's name and where it is.
    pub fn store(&self, identity: &str) -> Arc<StoreState> {
        self.stores.adopt(identity.to_owned(), StoreState::default)
    }

    /// `identity` is the dependency's name and what is asked.
    pub fn dependency(&self, identity: &str) -> Arc<DependencyState> {
        self.dependencies.adopt(identity.to_owned(), DependencyState::default)
    }

    /// The retry budget of an upstream; `route` names the one that has its own, and is empty for the shared one.
    pub fn budget(&self, upstream: &str, route: &str) -> Arc<BudgetState> {
        self.budgets.adopt((upstream.to_owned(), route.to_owned()), BudgetState::default)
    }

    /// The switch of the service (no name), of a route, or a flag.
    pub fn switch(&self, kind: &'static str, name: &str) -> Arc<SwitchState> {
        self.switches.adopt((kind, name.to_owned()), SwitchState::default)
    }

    /// The number under which each worker keeps its pool for what `identity` describes.
    pub fn pool_slot(&self, identity: &str) -> usize {
        self.slots.of("pool", identity)
    }

    /// The number under which each worker keeps its connection to a store.
    pub fn store_slot(&self, name: &str) -> usize {
        self.slots.of("store", name)
    }

    /// The number under which a listener is known for as long as the process lives.
    pub fn listener_slot(&self, address: &str) -> usize {
        self.slots.of("listener", address)
    }
}

/// Small stable numbers for identities, so that the hot path indexes instead of looking up.
/// They are never given back: their number is bounded by the distinct identities of a process's lifetime.
#[derive(Default)]
struct Slots(Mutex<HashMap<&'static str, HashMap<String, usize>>>);

impl Slots {
    fn of(&self, kind: &'static str, identity: &str) -> usize {
        let mut kinds = lock(&self.0);
        let known = kinds.entry(kind).or_default();
        let next = known.len();
        *known.entry(identity.to_owned()).or_insert(next)
    }
}

/// How the last reloads went.
#[derive(Default)]
pub struct ReloadState {
    pub loaded: AtomicU64,
    pub refused: AtomicU64,
    /// The file says something else than what runs.
    pub stale: AtomicBool,
    problems: Mutex<Vec<String>>,
}

impl ReloadState {
    pub fn took(&self) {
        self.loaded.fetch_add(1, Ordering::Relaxed);
        self.stale.store(false, Ordering::Relaxed);
        lock(&self.problems).clear();
    }

    pub fn refused(&self, problems: Vec<String>) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        self.stale.store(true, Ordering::Relaxed);
        *lock(&self.problems) = problems;
    }

    /// Why the file is not what runs.
    pub fn problems(&self) -> Vec<String> {
        lock(&self.problems).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_identity_is_the_same_state_while_somebody_holds_it() {
        let states = States::default();
        let first = states.endpoint("app", "127.0.0.1:1");
        assert!(Arc::ptr_eq(&first, &states.endpoint("app", "127.0.0.1:1")));
        assert!(!Arc::ptr_eq(&first, &states.endpoint("other", "127.0.0.1:1")));
        first.in_flight.store(7, Ordering::Relaxed);
        drop(first);
        assert_eq!(states.endpoint("app", "127.0.0.1:1").in_flight.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn slots_are_stable() {
        let states = States::default();
        assert_eq!(states.pool_slot("a"), 0);
        assert_eq!(states.pool_slot("b"), 1);
        assert_eq!(states.pool_slot("a"), 0);
        assert_eq!(states.listener_slot("a"), 0);
    }
}
