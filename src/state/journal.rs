//! Changes of state, as events: kept in a bounded ring for `status`, and logged as they happen.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::SystemTime;

use serde::Serialize;

use super::clock;

/// Events kept; the oldest goes first.
pub const EVENTS_MAX: usize = 512;

/// One change of state and the evidence for it.
#[derive(Clone, Debug, Serialize)]
pub struct Event {
    /// Seconds since the Unix epoch, with fraction.
    pub at: f64,
    /// The policy or room that changed: `breaker`, `health`, `reload`, `certificate`, `drain` …
    pub kind: &'static str,
    /// What it happened to: an endpoint, an upstream, a listener, a file.
    pub subject: String,
    /// One sentence for a person.
    pub words: String,
}

/// The bounded ring of events.
#[derive(Default)]
pub struct Journal {
    events: Mutex<VecDeque<Event>>,
}

impl Journal {
    /// Keeps the event and logs it.
    pub fn record(&self, kind: &'static str, subject: impl Into<String>, words: impl Into<String>) {
        let (subject, words) = (subject.into(), words.into());
        tracing::info!(event = kind, subject, "{words}");
        let since = clock::wall().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let event = Event { at: since.as_secs_f64(), kind, subject, words };
        let mut events = lock(&self.events);
        if events.len() == EVENTS_MAX {
            events.pop_front();
        }
        events.push_back(event);
    }

    /// The newest `limit` events, oldest first.
    pub fn recent(&self, limit: usize) -> Vec<Event> {
        let events = lock(&self.events);
        events.iter().skip(events.len().saturating_sub(limit)).cloned().collect()
    }
}

/// A lock whose data stays usable after another thread panicked while holding it: every critical section in `state`
/// leaves the data valid at each step.
pub fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_event_goes_when_the_ring_is_full() {
        let journal = Journal::default();
        for number in 0..=EVENTS_MAX {
            journal.record("test", number.to_string(), "");
        }
        let kept = journal.recent(usize::MAX);
        assert_eq!(kept.len(), EVENTS_MAX);
        assert_eq!(kept[0].subject, "1");
        assert_eq!(journal.recent(1)[0].subject, EVENTS_MAX.to_string());
    }
}
