//! The shutdown sequence: `core::drain` decides the order, this carries it out and counts.
//!
//! Not ready but still accepting → answers say close, GOAWAY → stop accepting, the backlog included → finish what is in
//! flight → cut what is left. A second signal ends at once.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use tokio::time::sleep;

use super::server::Server;
use crate::core::drain::{Drain, Params, Phase};
use crate::proxy::Shared;
use crate::state::clock;
use crate::state::lifecycle::Stage;

/// How often the counts are looked at.
const LOOK: Duration = Duration::from_millis(10);
/// Upgraded connections are told goodbye this long before the end, or as soon as all requests have ended: their
/// farewells are spread over two seconds, and a peer has one to answer.
const PARTING_MAX: Duration = Duration::from_millis(3200);
/// After the cut, what was cut is given this long to settle its account.
const SETTLE_MAX: Duration = Duration::from_millis(500);

/// What the drain did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct DrainReport {
    /// Requests that ended by themselves since the drain began.
    pub finished: u64,
    /// Requests that the end took away.
    pub cut: u64,
    /// A second signal ended it.
    pub forced: bool,
    /// Upgraded connections that were open when the drain began.
    pub websockets_closed: u64,
    #[serde(skip)]
    pub duration: Duration,
}

/// Drains and returns when nothing is open any more, or when `params.timeout` or `abort` has ended it. Everything
/// happens inside `delay + timeout`, the farewells to WebSockets included, so that the two can be compared with an
/// orchestrator's grace.
pub async fn drain(server: &Server, shared: &Shared, params: Params, abort: impl Future) -> DrainReport {
    let lifecycle = &shared.states.lifecycle;
    let began = clock::now();
    let end = began + params.delay + params.timeout;
    let part_at = end - PARTING_MAX.min(params.timeout / 2);
    let websockets = u64::try_from(lifecycle.upgraded()).unwrap_or(u64::MAX);
    let mut decision = Drain::new();
    decision.start(params, began);
    lifecycle.advance(Stage::Delaying);
    let mut abort = pin!(abort);
    let (mut forced, mut closing, mut parted) = (false, false, None);
    loop {
        let now = clock::now();
        let requests = lifecycle.in_flight().saturating_sub(lifecycle.upgraded());
        let phase = decision.tick(now, requests + lifecycle.connections());
        if !closing && !matches!(phase, Phase::Serving | Phase::Delaying) {
            closing = true;
            close(server, shared).await;
            continue; // the backlog may have brought new connections
        }
        let idle = requests + lifecycle.connections() == 0;
        let parted_long_enough = parted.is_some_and(|until| now >= until);
        let over = match phase {
            Phase::Serving | Phase::Delaying => false,
            Phase::Closing | Phase::Finished => idle && (lifecycle.upgraded() == 0 || parted_long_enough),
            Phase::Aborted => true,
        };
        if over || now >= end {
            break;
        }
        if parted.is_none() && ((closing && idle) || now >= part_at) {
            parted = Some(end.min(now + PARTING_MAX));
            lifecycle.advance(Stage::Parting);
        }
        tokio::select! {
            () = sleep(next(&decision, now)) => {}
            _ = &mut abort, if !forced => {
                forced = true;
                decision.signal_again();
            }
        }
    }
    cut(server, shared).await;
    let (finished, cut) = lifecycle.drained();
    DrainReport { finished, cut, forced, websockets_closed: websockets, duration: clock::now() - began }
}

/// Until the next look: the counts change without telling, so that it is never long.
fn next(decision: &Drain, now: std::time::Instant) -> Duration {
    let change = decision.next_change().map_or(LOOK, |at| at.saturating_duration_since(now));
    change.clamp(Duration::from_millis(1), LOOK)
}

async fn close(server: &Server, shared: &Shared) {
    // The stage first: from here on answers say close.
    shared.states.lifecycle.advance(Stage::Closing);
    server.close();
    server.stop_accepting().await;
}

async fn cut(server: &Server, shared: &Shared) {
    let lifecycle = &shared.states.lifecycle;
    lifecycle.advance(Stage::Cutting);
    server.cut();
    let until = clock::now() + SETTLE_MAX;
    while lifecycle.in_flight() + lifecycle.connections() > 0 && clock::now() < until {
        sleep(Duration::from_millis(1)).await;
    }
}
