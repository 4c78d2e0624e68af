//! What happens while nothing listens at an upstream: requests wait, at no place's cost, and one prober per endpoint
//! looks whether it is back. Held requests are no failures, neither to a breaker nor to the retry budget: the app has
//! not seen them.

use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::Proxy;
use super::exchange::Exchange;
use super::local::Own;
use super::refusal::Refusal;
use crate::core::hold::Denied;
use crate::plan::{EndpointPlan, UpstreamPlan};
use crate::state::clock;
use crate::state::hold::Probing;
use crate::upstream::{ConnectProblem, connect};

/// Between two looks at an endpoint; it grows by half.
const LOOK_FIRST: Duration = Duration::from_millis(5);
const LOOK_MAX: Duration = Duration::from_millis(100);
const LOOK_TIMEOUT: Duration = Duration::from_secs(1);

/// Waits until something listens at the upstream; at once when something does.
pub async fn wait(exchange: &mut Exchange, upstream: &Own<UpstreamPlan>) -> Result<(), Refusal> {
    let Some(params) = &upstream.hold else { return Ok(()) };
    let hold = &upstream.state.hold;
    let held_before = exchange.held;
    let mut waited = false;
    while hold.is_away() {
        for endpoint in &upstream.endpoints {
            look(&exchange.proxy, upstream, endpoint);
        }
        let now = clock::now();
        let place = match hold.enter(params, exchange.held, exchange.deadline, now) {
            Ok(place) => place,
            Err(Denied::Back) => break,
            Err(denied @ (Denied::TooLong | Denied::Full | Denied::Gone)) => {
                return Err(refuse(exchange, upstream, denied));
            }
        };
        waited = true;
        exchange.place = None; // somebody else may have it meanwhile
        let back = place.wait().await;
        exchange.held += clock::now().saturating_duration_since(now);
        if !back {
            return Err(refuse(exchange, upstream, Denied::TooLong));
        }
    }
    if waited {
        hold.counts.resumed.fetch_add(1, Ordering::Relaxed);
        let held = exchange.held - held_before;
        exchange.notes.push(format!("held for {held:.0?} while {} did not listen", upstream.name));
    }
    Ok(())
}

fn refuse(exchange: &mut Exchange, upstream: &UpstreamPlan, denied: Denied) -> Refusal {
    let counts = &upstream.state.hold.counts;
    let (counter, note) = match denied {
        Denied::Full => (&counts.refused, "too many requests wait already".to_owned()),
        Denied::Gone => (&counts.refused, "it has ended".to_owned()),
        Denied::TooLong | Denied::Back if exchange.held.is_zero() => {
            (&counts.refused, "it has been away for too long".to_owned())
        }
        Denied::TooLong | Denied::Back => (&counts.expired, format!("held in vain for {:.0?}", exchange.held)),
    };
    counter.fetch_add(1, Ordering::Relaxed);
    exchange.notes.push(format!("{} does not listen: {note}", upstream.name));
    Refusal::ConnectRefused
}

/// An attempt found nobody listening at `endpoint`.
pub fn refused(proxy: &Rc<Proxy>, upstream: &Own<UpstreamPlan>, endpoint: &EndpointPlan) {
    note(proxy, upstream, endpoint);
    look(proxy, upstream, endpoint);
}

fn note(proxy: &Proxy, upstream: &UpstreamPlan, endpoint: &EndpointPlan) {
    let journal = &proxy.shared().states.journal;
    if endpoint.state.listening.found(true) {
        let subject = format!("{} {}", upstream.name, endpoint.name);
        journal.record("hold", subject, "nothing listens there");
    }
    let none_listens = upstream.endpoints.iter().all(|endpoint| endpoint.state.listening.is_refusing());
    if none_listens && upstream.state.hold.refused(clock::now()) {
        let time = upstream.hold.map_or(Duration::ZERO, |params| params.wait_max);
        journal.record("hold", &*upstream.name, format!("no endpoint listens; requests wait for up to {time:?}"));
    }
}

/// Looks whether something listens at `endpoint`, and goes on looking until something does; one at a time.
fn look(proxy: &Rc<Proxy>, upstream: &Own<UpstreamPlan>, endpoint: &EndpointPlan) {
    if upstream.hold.is_none() {
        return;
    }
    let Some(probing) = Probing::begin(&endpoint.state) else { return };
    let index = upstream.endpoints.iter().position(|one| Arc::ptr_eq(&one.state, &endpoint.state));
    let (proxy, upstream) = (proxy.clone(), Arc::downgrade(upstream.shared()));
    tokio::task::spawn_local(async move {
        probe(&proxy, &upstream, index.unwrap_or_default(), probing).await;
    });
}

/// It ends when something listens, or when no plan and no request has the upstream any more; whoever waits then begins
/// another.
async fn probe(proxy: &Proxy, upstream: &Weak<UpstreamPlan>, index: usize, probing: Probing) {
    let mut pause = LOOK_FIRST;
    loop {
        let Some(plan) = upstream.upgrade() else { return };
        let Some(endpoint) = plan.endpoints.get(index) else { return };
        let spec = endpoint.spec.clone();
        let found = connect(&spec.address, None, LOOK_TIMEOUT).await.map(drop).map_err(|error| error.problem);
        match found {
            Ok(()) => {
                // First: who is refused from here on is to find nobody looking.
                drop(probing);
                return listens(proxy, &plan, endpoint);
            }
            Err(ConnectProblem::Refused | ConnectProblem::UnixMissing) => note(proxy, &plan, endpoint),
            Err(_) => {}
        }
        drop(plan);
        tokio::time::sleep(pause).await;
        pause = (pause + pause / 2).min(LOOK_MAX);
    }
}

fn listens(proxy: &Proxy, upstream: &UpstreamPlan, endpoint: &EndpointPlan) {
    let journal = &proxy.shared().states.journal;
    let news = endpoint.state.listening.found(false);
    if news {
        // What was counted against the process that is gone says nothing of the one that came.
        endpoint.state.breaker.came_back(journal);
    }
    // Even when it is no news: a refusal of another worker may have come between.
    let now = clock::now();
    if let Some(params) = upstream.hold.as_ref().filter(|_| upstream.state.hold.is_away()) {
        upstream.state.places.recover(params.requests_max as usize, params.wait_max, now);
    }
    let words = match upstream.state.hold.back(now) {
        Some((away, waiting)) => {
            format!("listens again after {away:.1?}; {waiting} requests waited")
        }
        None if news => "listens again".to_owned(),
        None => return,
    };
    journal.record("hold", format!("{} {}", upstream.name, endpoint.name), words);
}
