//! The breaker's leave for one attempt.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::exchange::Exchange;
use crate::core::breaker::{Outcome, Params};
use crate::plan::EndpointPlan;
use crate::state::clock;
use crate::state::endpoint::{Admission, EndpointState};

/// Dropped unsettled, it says nothing of the app and frees its place.
pub struct Permit {
    endpoint: Arc<EndpointState>,
    held: Option<(Admission, Params)>,
    proxy: Rc<super::Proxy>,
    pub taken: Instant,
}

impl Permit {
    pub fn take(
        endpoint: &EndpointPlan,
        params: Option<&Params>,
        exchange: &Exchange,
        now: Instant,
    ) -> Result<Permit, Duration> {
        let held = match params {
            Some(params) => Some((endpoint.state.admit(params, now)?, *params)),
            None => None,
        };
        Ok(Permit { endpoint: endpoint.state.clone(), held, proxy: exchange.proxy.clone(), taken: now })
    }

    pub fn settle(&mut self, outcome: Outcome, label: &'static str, now: Instant) {
        let Some((admission, params)) = self.held.take() else { return };
        if let Some(change) = self.endpoint.record(admission, outcome, &params, now, clock::unit()) {
            let words = format!(
                "breaker {} after {} failures in a row (was {}; the last attempt: {label})",
                change.to, change.failures, change.from
            );
            self.proxy.shared().states.journal.record("breaker", self.endpoint.address.clone(), words);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.held.is_some() {
            self.settle(Outcome::Ignored, "given up", clock::now());
        }
    }
}
