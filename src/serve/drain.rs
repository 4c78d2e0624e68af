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
use crate::state::lifecycle::{Lifecycle, Stage};

/// How often the counts are looked at; they change without telling.
const LOOK: Duration = Duration::from_millis(10);
/// After the cut, what was cut is given this long to settle its account.
const SETTLE_MAX: Duration = Duration::from_millis(500);
/// What upgraded connections need to part: farewells are spread over two seconds, and a peer has one to answer.
pub const FAREWELL: Duration = Duration::from_millis(3500);

/// What the drain did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct DrainReport {
    /// Requests that ended by themselves since the drain began.
    pub finished: u64,
    /// Requests that the end took away.
    pub cut: u64,
    /// A second signal ended it.
    pub forced: bool,
    /// Upgraded connections that were told goodbye, which does not include those that ended by themselves.
    pub websockets_closed: u64,
    #[serde(skip)]
    pub duration: Duration,
}

/// Drains and returns when nothing is open any more, or when the time of `params` or `abort` has ended it.
pub async fn drain(server: &Server, shared: &Shared, params: Params, abort: impl Future) -> DrainReport {
    let lifecycle = &shared.states.lifecycle;
    let began = clock::now();
    let mut decision = Drain::new();
    decision.start(params, began);
    lifecycle.advance(Stage::Delaying);
    let mut abort = pin!(abort);
    let (mut forced, mut closed) = (false, false);
    loop {
        let now = clock::now();
        let phase = decision.tick(now, open(lifecycle, closed));
        if phase >= Phase::Closing && !closed {
            close(server, shared).await;
            closed = true;
            continue;
        }
        match phase {
            Phase::Serving | Phase::Delaying | Phase::Closing => {}
            Phase::Parting => lifecycle.advance(Stage::Parting),
            Phase::Finished | Phase::Aborted => break,
        }
        let change = decision.next_change().map_or(LOOK, |at| at.saturating_duration_since(now));
        tokio::select! {
            () = sleep(change.clamp(Duration::from_millis(1), LOOK)) => {}
            _ = &mut abort, if !forced => {
                forced = true;
                decision.signal_again();
            }
        }
    }
    cut(server, shared).await;
    let (finished, cut) = lifecycle.drained();
    DrainReport { finished, cut, forced, websockets_closed: lifecycle.farewells(), duration: clock::now() - began }
}

/// A connection counts like a request: the last bytes of an answer are on it. Before the ports are closed their
/// backlog may hold anything, so that something is always open.
fn open(lifecycle: &Lifecycle, closed: bool) -> Open {
    let upgraded = lifecycle.upgraded();
    let requests = lifecycle.in_flight().saturating_sub(upgraded) + lifecycle.connections();
    Open { requests: requests.max(usize::from(!closed)), upgraded }
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
