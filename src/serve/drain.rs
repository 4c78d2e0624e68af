//! The shutdown sequence: `core::drain` decides the order, this carries it out and counts.
//!
//! Not ready but still accepting → answers say close, GOAWAY → stop accepting, the backlog included → finish what is in
//! flight → cut what is left. A second signal ends at once.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use tokio::time::sleep;

use super::server::Server;
use crate::core::drain::{Drain, Open, Params, Phase};
use crate::proxy::Shared;
use crate::state::clock;
use crate::state::lifecycle::Stage;

/// How often the counts are looked at.
const LOOK: Duration = Duration::from_millis(10);
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

/// Drains and returns when nothing is open any more, or when `params.timeout` or `abort` has ended it.
pub async fn drain(server: &Server, shared: &Shared, params: Params, abort: impl Future) -> DrainReport {
    let lifecycle = &shared.states.lifecycle;
    let began = clock::now();
    let websockets = u64::try_from(lifecycle.upgraded()).unwrap_or(u64::MAX);
    let mut decision = Drain::new();
    decision.start(params, began);
    lifecycle.advance(Stage::Delaying);
    let mut abort = pin!(abort);
    let (mut forced, mut closing) = (false, false);
    loop {
        let now = clock::now();
        let upgraded = lifecycle.upgraded();
        let requests = lifecycle.in_flight().saturating_sub(upgraded) + lifecycle.connections();
        match decision.tick(now, Open { requests, upgraded }) {
            Phase::Serving | Phase::Delaying => {}
            Phase::Closing if closing => {}
            Phase::Closing => {
                closing = true;
                close(server, shared).await;
                continue;
            }
            Phase::Parting => lifecycle.advance(Stage::Parting),
            Phase::Finished | Phase::Aborted => break,
        }
        let wait = decision.next_change().map_or(LOOK, |at| at.saturating_duration_since(now).min(LOOK));
        tokio::select! {
            () = sleep(wait.max(Duration::from_millis(1))) => {}
            _ = &mut abort, if !forced => {
                forced = true;
                decision.signal_again();
            }
        }
    }
    if !closing {
        close(server, shared).await; // nothing was open, or nobody wants to wait
    }
    cut(server, shared).await;
    let (finished, cut) = lifecycle.drained();
    DrainReport { finished, cut, forced, websockets_closed: websockets, duration: clock::now() - began }
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
