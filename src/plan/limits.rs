//! Limits as a request meets them: of its rate (what its key is made of, and the buckets that all workers share), and
//! of the requests in flight.

use std::sync::Arc;

use http::HeaderName;

use super::{LimitPlan, RateKey, headers};
use crate::config::settings as wanted;
use crate::core::{admission, bucket, gradient};
use crate::state::states::States;

/// `None` for a limit that is off.
pub fn limit(limit: &wanted::RateLimit, states: &States) -> Option<Arc<LimitPlan>> {
    let key = limit.key.iter().filter_map(|part| match part {
        wanted::RateKey::ClientIp => Some(RateKey::ClientIp),
        wanted::RateKey::Route => Some(RateKey::Route),
        wanted::RateKey::Header(name) => HeaderName::from_bytes(name.as_bytes()).ok().map(RateKey::Header),
        wanted::RateKey::Cookie(name) => Some(RateKey::Cookie(name.clone())),
    });
    (limit.mode != wanted::Mode::Off).then(|| {
        Arc::new(LimitPlan {
            label: headers::quoted(&limit.name),
            name: limit.name.as_str().into(),
            key: key.collect(),
            params: bucket::params(limit.rate, limit.burst),
            cost: limit.cost,
            enforced: limit.mode == wanted::Mode::Enforce,
            state: states.limit(&format!("{} {:?}", limit.name, limit.key)),
        })
    })
}

/// An upstream's places and queue.
pub fn admission(upstream: &wanted::Upstream) -> admission::Params {
    let wanted::Adaptive { mode, min, max } = upstream.adaptive;
    admission::Params {
        cap: upstream.concurrency_max,
        adaptive: (mode != wanted::Mode::Off).then_some(gradient::Params { min, max }),
        enforced: mode == wanted::Mode::Enforce,
        queue_max: upstream.queue.max,
        wait_max: upstream.queue.wait_max,
    }
}
