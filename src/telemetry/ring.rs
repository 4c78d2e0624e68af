//! The last requests of each worker, for `why ID`. Slots are used again with their strings, so that a full ring
//! allocates nothing.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::SystemTime;

use serde_json::{Value, json};

use super::record::{AttemptRecord, Fate, RequestRecord};

/// Requests kept per worker.
pub const REQUESTS_MAX: usize = 2048;

struct Kept {
    id: String,
    started: SystemTime,
    route: String,
    upstream: String,
    method: String,
    target: String,
    host: String,
    client: std::net::IpAddr,
    status: u16,
    fate: Fate,
    reason: &'static str,
    seconds: f64,
    phases: Vec<(&'static str, f64)>,
    attempts: Vec<AttemptRecord>,
    trace: Option<u128>,
}

/// One worker's ring.
#[derive(Default)]
pub struct Ring(Mutex<VecDeque<Kept>>);

impl Ring {
    /// Keeps the record; while somebody reads the ring it is let go instead of waiting.
    pub fn keep(&self, record: &RequestRecord<'_>) {
        let Ok(mut kept) = self.0.try_lock() else { return };
        let mut slot = match kept.len() {
            REQUESTS_MAX => kept.pop_front(),
            _ => None,
        }
        .unwrap_or_else(|| Kept::empty(record));
        slot.fill(record);
        kept.push_back(slot);
    }

    pub fn find(&self, id: &str) -> Option<Value> {
        let kept = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        kept.iter().rev().find(|kept| kept.id == id).map(Kept::to_json)
    }

    /// The newest `limit`, newest first, with their start for sorting.
    pub fn recent(&self, limit: usize) -> Vec<(SystemTime, Value)> {
        let kept = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        kept.iter().rev().take(limit).map(|kept| (kept.started, kept.to_json())).collect()
    }
}

fn set(text: &mut String, value: &str) {
    text.clear();
    text.push_str(value);
}

impl Kept {
    fn empty(record: &RequestRecord<'_>) -> Kept {
        Kept {
            id: String::new(),
            started: record.started,
            route: String::new(),
            upstream: String::new(),
            method: String::new(),
            target: String::new(),
            host: String::new(),
            client: record.client,
            status: 0,
            fate: record.fate,
            reason: "",
            seconds: 0.0,
            phases: Vec::new(),
            attempts: Vec::new(),
            trace: None,
        }
    }

    /// The query is not kept: it may hold what must not be written down.
    fn fill(&mut self, record: &RequestRecord<'_>) {
        set(&mut self.id, record.request_id);
        set(&mut self.route, record.route);
        set(&mut self.upstream, record.upstream.unwrap_or_default());
        set(&mut self.method, record.method);
        set(&mut self.target, record.path);
        set(&mut self.host, record.host);
        self.started = record.started;
        self.client = record.client;
        self.status = record.status;
        self.fate = record.fate;
        self.reason = record.reason;
        self.seconds = record.duration.as_secs_f64();
        self.phases.clear();
        self.phases.extend(record.phases.iter().map(|(phase, time)| (*phase, time.as_secs_f64())));
        self.attempts.clear();
        self.attempts.extend_from_slice(record.attempts);
        self.trace = record.trace.map(|context| context.trace_id);
    }

    fn to_json(&self) -> Value {
        let since = self.started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let attempts: Vec<Value> = self.attempts.iter().map(attempt).collect();
        let phases: serde_json::Map<String, Value> =
            self.phases.iter().map(|(phase, seconds)| ((*phase).to_owned(), json!(seconds))).collect();
        json!({
            "request_id": self.id,
            "started": since.as_secs_f64(),
            "method": self.method,
            "host": self.host,
            "path": self.target,
            "client": self.client.to_string(),
            "route": self.route,
            "upstream": self.upstream,
            "status": self.status,
            "fate": self.fate.label(),
            "reason": self.reason,
            "words": self.fate.words(),
            "seconds": self.seconds,
            "phases": phases,
            "attempts": attempts,
            "trace_id": self.trace.map(|id| format!("{id:032x}")),
        })
    }
}

fn attempt(attempt: &AttemptRecord) -> Value {
    json!({
        "endpoint": &*attempt.endpoint,
        "after": attempt.started_after.as_secs_f64(),
        "seconds": attempt.duration.as_secs_f64(),
        "status": attempt.status,
        "outcome": attempt.outcome,
        "reused_connection": attempt.reused,
    })
}
