//! A worker's own handles on the plan. A request holds on to its listener, its route and its upstream, and takes these
//! handles several times; counted in the plan itself, every one of them would be a write to memory that all workers
//! share. So each worker counts for itself, and the plan only knows that the worker has it.

use std::cell::{OnceCell, RefCell};
use std::collections::{HashMap, HashSet};
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;

use crate::plan::{Action, ListenerPlan, Plan, RoutePlan, UpstreamPlan};

/// A part of the plan, counted by this worker.
#[allow(clippy::redundant_allocation, reason = "the inner count is everybody's, the outer one this worker's")]
pub struct Own<T>(Rc<Arc<T>>);

impl<T> Own<T> {
    fn of(part: &Arc<T>) -> Own<T> {
        Own(Rc::new(part.clone()))
    }

    /// For what may outlive the worker.
    pub fn shared(&self) -> &Arc<T> {
        &self.0
    }
}

impl<T> Clone for Own<T> {
    fn clone(&self) -> Own<T> {
        Own(Rc::clone(&self.0))
    }
}

impl<T> Deref for Own<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// One plan, as this worker holds it. Handles on routes and upstreams are made when a request first needs them: to make
/// ten thousand at once would be a pause.
pub struct Local {
    plan: Arc<Plan>,
    /// By slot.
    listeners: Vec<Option<Listener>>,
    upstreams: RefCell<HashMap<*const UpstreamPlan, Own<UpstreamPlan>>>,
    pools: OnceCell<HashSet<usize>>,
}

struct Listener {
    plan: Own<ListenerPlan>,
    /// By the router's index.
    routes: Box<[OnceCell<Route>]>,
}

/// A route and where it leads.
pub struct Route {
    pub plan: Own<RoutePlan>,
    /// `None` for redirects.
    pub upstream: Option<Own<UpstreamPlan>>,
}

impl Local {
    pub fn of(plan: Arc<Plan>) -> Rc<Local> {
        let listener = |plan: &Arc<ListenerPlan>| Listener {
            plan: Own::of(plan),
            routes: plan.routes.iter().map(|_| OnceCell::new()).collect(),
        };
        let listeners = plan.listeners.iter().map(|one| one.as_ref().map(listener)).collect();
        Rc::new(Local { plan, listeners, upstreams: RefCell::default(), pools: OnceCell::new() })
    }

    pub fn is(&self, plan: &Arc<Plan>) -> bool {
        Arc::ptr_eq(&self.plan, plan)
    }

    pub fn own_listener(&self, slot: usize) -> Option<&Own<ListenerPlan>> {
        self.listeners.get(slot)?.as_ref().map(|listener| &listener.plan)
    }

    /// The route with the router's index.
    pub fn route(&self, slot: usize, index: usize) -> Option<&Route> {
        let listener = self.listeners.get(slot)?.as_ref()?;
        let plan = listener.plan.routes.get(index)?;
        Some(listener.routes.get(index)?.get_or_init(|| self.own_route(plan)))
    }

    /// Whether an endpoint of the plan has its pool in this slot.
    pub fn has_pool(&self, slot: usize) -> bool {
        let endpoints = || self.plan.upstreams.iter().flat_map(|upstream| &upstream.endpoints);
        self.pools.get_or_init(|| endpoints().map(|endpoint| endpoint.pool_slot).collect()).contains(&slot)
    }

    #[cold]
    fn own_route(&self, plan: &Arc<RoutePlan>) -> Route {
        let upstream = match &plan.action {
            Action::Forward { upstream, .. } => Some(upstream),
            Action::Redirect { .. } => None,
        };
        let mut upstreams = self.upstreams.borrow_mut();
        let mut own = |upstream| upstreams.entry(Arc::as_ptr(upstream)).or_insert_with(|| Own::of(upstream)).clone();
        Route { plan: Own::of(plan), upstream: upstream.map(&mut own) }
    }
}

impl Deref for Local {
    type Target = Plan;

    fn deref(&self) -> &Plan {
        &self.plan
    }
}
