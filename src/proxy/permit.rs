//! The breakers' leave for one attempt: of the route on its upstream, and of the endpoint. What the connection does
//! counts for the endpoint, what the app answers counts for the route, so that one broken route does not take the
//! others away, and one broken endpoint does not take the route away.

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::exchange::Exchange;
use super::local::Own;
use super::verdict::Verdict;
use crate::core::breaker::{Outcome, Params};
use crate::plan::{RoutePlan, UpstreamPlan};
use crate::state::breaker::{Admission, BreakerState};
use crate::state::clock;

/// What an attempt was for.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    pub path: &'a str,
    /// The request has been tried before, and the app's answer was a failure or none came.
    pub again: bool,
    /// The same endpoint has failed it before.
    pub again_there: bool,
}

/// Dropped unsettled, it says nothing of the app and frees its places.
pub struct Permit {
    upstream: Own<UpstreamPlan>,
    way: Own<RoutePlan>,
    proxy: Rc<super::Proxy>,
    route: Option<Admission>,
    /// With the endpoint's index.
    endpoint: Option<(usize, Admission)>,
    pub taken: Instant,
}

impl Permit {
    /// The leave of the route; `Err` is how long it has none to give.
    pub fn of_route(
        exchange: &Exchange,
        route: &Own<RoutePlan>,
        upstream: &Own<UpstreamPlan>,
        now: Instant,
    ) -> Result<Permit, Duration> {
        let mut permit = Permit {
            upstream: upstream.clone(),
            way: route.clone(),
            proxy: exchange.proxy.clone(),
            route: None,
            endpoint: None,
            taken: now,
        };
        if let (Some(plan), Some(breaker)) = (&upstream.breaker, &route.breaker) {
            permit.route = permit.ask(breaker, &plan.route, plan.shadow)?;
        }
        Ok(permit)
    }

    /// The endpoint's leave, beside the route's.
    pub fn of_endpoint(&mut self, index: usize) -> Result<(), Duration> {
        if let (Some(plan), Some(endpoint)) = (&self.upstream.breaker, self.upstream.endpoints.get(index)) {
            let admission = self.ask(&endpoint.state.breaker, &plan.endpoint, plan.shadow)?;
            self.endpoint = admission.map(|admission| (index, admission));
        }
        Ok(())
    }

    /// In shadow mode a refusal is only counted.
    fn ask(&self, breaker: &BreakerState, params: &Params, shadow: bool) -> Result<Option<Admission>, Duration> {
        match breaker.admit(params, &self.proxy.shared().states.journal, self.taken) {
            Ok(admission) => Ok(Some(admission)),
            Err(_) if shadow => Ok(None),
            Err(wait) => Err(wait),
        }
    }

    /// `served` is how long the app took once it had the whole request.
    pub fn settle(&mut self, verdict: &Verdict, asked: Asked<'_>, served: Duration, now: Instant) {
        let slow = self.upstream.breaker.as_ref().and_then(|plan| plan.slow).is_some_and(|limit| served >= limit);
        let answer = match verdict.answer {
            Outcome::Success if slow => Outcome::Slow,
            outcome => outcome,
        };
        let again = |again, outcome| match outcome {
            Outcome::Failure if again => Outcome::Repeated,
            outcome => outcome,
        };
        // Who could not be connected to has not been asked for anything.
        let (of_endpoint, of_route) = (verdict.reached.then_some(asked.path), Some(asked.path));
        let (transport, answer) = (again(asked.again_there, verdict.transport), again(asked.again, answer));
        self.record((transport, of_endpoint), (answer, of_route), verdict.label, now);
    }

    /// For the endpoint and for the route: what it came to, and of what that may be the fault instead.
    fn record(
        &mut self,
        (transport, of_endpoint): (Outcome, Option<&str>),
        (answer, of_route): (Outcome, Option<&str>),
        label: &'static str,
        now: Instant,
    ) {
        let Some(plan) = &self.upstream.breaker else { return };
        let journal = &self.proxy.shared().states.journal;
        let endpoint = self.endpoint.take().and_then(|(index, held)| Some((self.upstream.endpoints.get(index)?, held)));
        if let Some((endpoint, held)) = endpoint {
            endpoint.state.breaker.record(held, transport, (label, of_endpoint), &plan.endpoint, journal, now);
        }
        if let (Some(held), Some(breaker)) = (self.route.take(), &self.way.breaker) {
            breaker.record(held, answer, (label, of_route), &plan.route, journal, now);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.route.is_some() || self.endpoint.is_some() {
            self.record((Outcome::Ignored, None), (Outcome::Ignored, None), "given up", clock::now());
        }
    }
}
