//! Two attempts at a time: when the first is slow, another is sent, and the first good answer is the answer. The other
//! is taken back (its connection closed, or its stream reset) and counts neither as a failure nor as a latency: it was
//! not let come to its end.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::Method;

use super::attempt::{Came, Leg, Run, Try};
use super::exchange::Exchange;
use super::upload::View;
use crate::http::Request;
use crate::plan::HedgePlan;
use crate::state::clock;

/// What came of an attempt that may have been hedged.
pub struct Raced<'e> {
    pub leg: Leg<'e>,
    pub came: Came,
    /// The other attempt, if there was one, with its failure or given up.
    pub other: Option<(Leg<'e>, Option<Came>)>,
    /// The number of the last attempt.
    pub number: u32,
    pub note: Option<String>,
}

/// Whether a request of this kind may be hedged: GET and HEAD without a body.
pub fn may(exchange: &Exchange) -> bool {
    (exchange.method == Method::GET || exchange.method == Method::HEAD) && exchange.upload.is_none()
}

/// Which of two answered.
enum By {
    /// With what had become of the second before.
    First(Came, Option<Came>),
    /// With what had become of the first before.
    Second(Came, Option<Came>),
}

/// Sends `first`, and another attempt if it has not answered after a time.
pub async fn race<'e>(
    run: &'e Run<'_>,
    exchange: &Exchange,
    request: &mut Request<View>,
    first: Leg<'e>,
    (hedge, after): (&HedgePlan, Duration),
) -> Raced<'e> {
    let mut spare = copy(request);
    let (second, by) = {
        let mut one = pin!(run.send(exchange, request, &first));
        tokio::select! {
            biased;
            came = &mut one => (None, By::First(came, None)),
            () = tokio::time::sleep_until((first.began + after).into()) => {
                match another(run, exchange, hedge, &first) {
                    None => (None, By::First(one.await, None)),
                    Some(second) => {
                        let by = both(one, run.send(exchange, &mut spare, &second)).await;
                        (Some(second), by)
                    }
                }
            }
        }
    };
    let counts = &hedge.state.counts;
    let (leg, came, other, counter, which) = match (second, by) {
        (None, By::First(came, _) | By::Second(came, _)) => {
            return Raced { number: first.number, leg: first, came, other: None, note: None };
        }
        (Some(second), By::First(came, other)) => (first, came, (second, other), &counts.lost, "first"),
        (Some(second), By::Second(came, other)) => (second, came, (first, other), &counts.won, "second"),
    };
    counter.fetch_add(1, Ordering::Relaxed);
    let note = Some(format!("hedged after {after:.0?}: the {which} attempt was the answer"));
    Raced { number: leg.number.max(other.0.number), leg, came, other: Some(other), note }
}

/// The same request; those that are hedged have no body.
fn copy(request: &Request<View>) -> Request<View> {
    let mut copy = Request::new(View::empty());
    copy.method = request.method.clone();
    copy.uri = request.uri.clone();
    copy.version = request.version;
    copy.headers = request.headers.clone();
    copy
}

/// The first good answer ends it; after a bad one the other is waited for.
async fn both(mut one: Pin<&mut impl Future<Output = Came>>, two: impl Future<Output = Came>) -> By {
    let mut two = pin!(two);
    tokio::select! {
        biased;
        came = &mut one => if came.is_final() { By::First(came, None) } else { By::Second(two.await, Some(came)) },
        came = &mut two => if came.is_final() { By::Second(came, None) } else { By::First(one.await, Some(came)) },
    }
}

/// Another attempt, if the share, the retry budget and an endpoint's breaker allow it; rather at another endpoint.
fn another<'e>(run: &'e Run<'_>, exchange: &Exchange, hedge: &HedgePlan, first: &Leg<'_>) -> Option<Leg<'e>> {
    let now = clock::now();
    if !hedge.state.spend() {
        hedge.state.refused();
        return None;
    }
    let budget = run.route.retry.budget.as_ref();
    let chosen = run.choose(exchange, Some(first.endpoint), now).ok();
    let Some((endpoint, permit)) = chosen.filter(|_| budget.is_none_or(|own| own.state.spend(&own.params, now))) else {
        hedge.state.give_back();
        hedge.state.refused();
        return None;
    };
    Some(run.leg(endpoint, permit, Try { number: first.number + 1, fresh: false }))
}
