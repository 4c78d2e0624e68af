//! What `explain` says of retries, their budget and hedging.

use http::Method;

use super::{Rows, size, time};
use crate::config::settings::{HedgeAfter, Retry};

impl Rows {
    pub(super) fn retry(&mut self, retry: &Retry, replay: bool, method: &Method) {
        let attempts = match (retry.attempts, replay) {
            (0 | 1, _) => "1: no retry".to_owned(),
            (_, false) => format!("1: a {method} without Idempotency-Key may not be sent twice"),
            (attempts, true) => format!("{attempts} in all"),
        };
        self.inherited("retry", "attempts", "attempts", attempts);
        if !replay || retry.attempts < 2 {
            return;
        }
        let per_try = retry.per_try.map_or("not limited".to_owned(), time);
        self.inherited("retry", "per try", "per_try", per_try);
        let factor = retry.backoff_factor;
        let backoff = format!("up to {} x{factor} each, at most {}", time(retry.backoff_base), time(retry.backoff_max));
        self.inherited("retry", "pause", "backoff", backoff);
        let kinds = &retry.conditions;
        let named = [
            (kinds.connect, "connect"),
            (kinds.reset, "reset"),
            (kinds.per_try_timeout, "per_try_timeout"),
            (kinds.grpc_unavailable, "grpc-unavailable"),
        ];
        let named = named.into_iter().filter(|(on, _)| *on).map(|(_, name)| name.to_owned());
        let conditions: Vec<String> = named.chain(kinds.statuses.iter().map(u16::to_string)).collect();
        self.inherited("retry", "after", "conditions", conditions.join(", "));
        let budget = &retry.budget;
        let per = budget.rate_min.per.as_secs_f64();
        let value = format!(
            "{}% of the requests of {} and {}/s; {}",
            budget.percent.0 * 100.0,
            time(budget.interval),
            budget.rate_min.count as f64 / per,
            if budget.own { "the route's own" } else { "shared by the upstream's routes" }
        );
        self.inherited("retry", "budget", "budget", value);
        if let Some(after) = retry.hedge.after {
            let after = match after {
                HedgeAfter::Percentile(ratio) => format!("the p{} seen", ratio.0 * 100.0),
                HedgeAfter::Time(after) => time(after),
            };
            let value = format!("GET and HEAD after {after}, {}% at most", retry.hedge.share_max.0 * 100.0);
            self.inherited("retry", "hedge", "hedge", value);
        }
        self.inherited("retry", "body", "body_max", format!("replayed up to {}", size(retry.body_max)));
    }
}
