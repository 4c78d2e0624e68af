//! Tells that newcomers are turned away at a full listener, and that it is over: one event each, however many come.
//!
//! It is over when nobody had to be turned away for a while. Whichever worker's accept loop notices first tells, and
//! the same tells the end, so that no count is needed beside the gate's.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::gate::Turned;
use super::listener::ListenerShared;
use crate::state::clock;
use crate::state::journal::Journal;

/// Nobody turned away for this long: it is over.
const QUIET: Duration = Duration::from_secs(2);

/// What one accept loop knows of the crowd before its listener.
pub struct Crowd {
    shared: Arc<ListenerShared>,
    told: Option<Told>,
}

/// The crowd that this loop has told of.
struct Told {
    began: Instant,
    /// Turned away before it began, and at the last look.
    before: u64,
    seen: u64,
    look: Instant,
}

impl Crowd {
    pub fn new(shared: &Arc<ListenerShared>) -> Crowd {
        Crowd { shared: Arc::clone(shared), told: None }
    }

    /// Somebody has just been turned away.
    pub fn turned(&mut self, why: Turned, journal: &Journal) {
        let limit = match why {
            Turned::Full => "as many as connections.max allows",
            Turned::Descriptors => "as many as the file descriptors allow (ulimit -n)",
            // The others have events of their own, or are one client's.
            Turned::ClientFull
            | Turned::Memory
            | Turned::ProxyProtocol
            | Turned::Handshake
            | Turned::Malformed
            | Turned::HeadTimeout
            | Turned::Stalled
            | Turned::Abuse => return,
        };
        if self.shared.gate.crowded.swap(true, Ordering::AcqRel) {
            return;
        }
        let (now, seen) = (clock::now(), self.count());
        self.told = Some(Told { began: now, before: seen.saturating_sub(1), seen, look: now + QUIET });
        let open = self.shared.gate.open();
        let words = format!("full: {open} connections are open, {limit}; newcomers are turned away");
        journal.record("overload", self.shared.name().as_str(), words);
    }

    /// When to call [`Crowd::look`]; never, while there is nothing to look for. May be cancelled.
    pub async fn due(&self) {
        match &self.told {
            Some(told) => tokio::time::sleep_until(told.look.into()).await,
            None => std::future::pending().await,
        }
    }

    /// Ends what was told if it is over.
    pub fn look(&mut self, journal: &Journal) {
        let (now, count) = (clock::now(), self.count());
        let Some(told) = &mut self.told else { return };
        if count != told.seen {
            (told.seen, told.look) = (count, now + QUIET);
            return;
        }
        let (away, lasted) = (count - told.before, now.saturating_duration_since(told.began).as_secs());
        self.told = None;
        self.shared.gate.crowded.store(false, Ordering::Release);
        let words = format!("no longer full: {away} connections were turned away within {lasted} s");
        journal.record("overload", self.shared.name().as_str(), words);
    }

    fn count(&self) -> u64 {
        self.shared.gate.turned(Turned::Full) + self.shared.gate.turned(Turned::Descriptors)
    }
}

/// A loop that ends takes back what it has told of, or nobody could tell again.
impl Drop for Crowd {
    fn drop(&mut self) {
        if self.told.is_some() {
            self.shared.gate.crowded.store(false, Ordering::Release);
        }
    }
}
