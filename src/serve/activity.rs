//! What one connection is doing, and until when it may: the facts behind the request-head timeout, the keep-alive
//! timeout, the stalled-reader timeout and the closing linger.
//!
//! hyper's own head timer allocates a boxed `Sleep` per request and also runs while the connection is idle, so it is
//! switched off. Here the IO wrapper and the service only note facts with a coarse clock (the worker's tick), and the
//! connection's one timer is moved when it fires, not when a request passes. Atomics because hyper demands `Send` of
//! an upgradeable connection's IO; in truth one thread touches them, so `Relaxed` is enough.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::gate::Place;
use super::stream::Stream;
use crate::proxy::taking::TAKE_MAX;
use crate::state::clock;
use crate::state::journal::lock;

/// How often a worker reads the time for its connections. Every deadline is late by at most this, never early.
pub const TICK: Duration = Duration::from_millis(100);
/// A client that takes nothing of its answer for this long is gone.
pub const WRITE_STALL_MAX: Duration = TAKE_MAX;
/// While closing, an idle connection is kept this long: a request that is already on its way is still answered.
pub const CLOSING_LINGER: Duration = Duration::from_millis(200);
/// An idle HTTP/2 connection that was sent GOAWAY and does not close by itself is closed after this.
pub const GOAWAY_WAIT: Duration = Duration::from_secs(5);
/// Streams a client may cancel before the share of cancelled ones is looked at (HTTP/2 rapid reset).
const CANCELLED_MIN: u32 = 200;

/// Milliseconds of the worker's coarse clock; 0 is "never".
#[derive(Default)]
pub struct Ticks(AtomicU64);

impl Ticks {
    pub fn read(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// Takes the time; called by the worker's tick.
    pub fn advance(&self) {
        self.0.store(millis(clock::now()), Relaxed);
    }
}

/// The monotonic time in whole milliseconds, never 0.
pub fn millis(now: Instant) -> u64 {
    (clock::nanos(now) / 1_000_000).max(1)
}

/// The limits of the connection's listener.
#[derive(Clone, Copy)]
pub struct Limits {
    pub head: Duration,
    pub keep_alive: Duration,
}

/// Facts about one connection, noted by its IO wrapper and its service.
pub struct Activity {
    ticks: Arc<Ticks>,
    http2: AtomicBool,
    /// Requests whose response body has not ended.
    open: AtomicU32,
    /// Those of them (HTTP/2) in which it is the client's turn: to take what there is of the answer.
    waits: AtomicU32,
    /// When a client's turn last began or ended.
    taken: AtomicU64,
    total: AtomicU32,
    cancelled: AtomicU32,
    /// Bytes of a request head have arrived and the head is not complete.
    reading: AtomicBool,
    /// When the connection became idle, or when `reading` began.
    since: AtomicU64,
    /// When the client stopped taking bytes; 0 while it takes them.
    blocked_since: AtomicU64,
    flags: AtomicU8,
    /// Where the IO wrapper leaves the stream when it is let go of.
    returned: Mutex<Option<Stream>>,
    /// Held as long as anybody uses the connection, an upgraded one included.
    _place: Place,
}

const TRUNCATED: u8 = 1;
const UPGRADED: u8 = 2;
const HAD_BODY: u8 = 4;
const HTTP_10: u8 = 8;

/// What a connection waits for when its deadline passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// The rest of a request head.
    Head,
    /// The next request.
    Idle,
    /// The client taking bytes.
    Write,
}

impl Activity {
    pub fn new(ticks: Arc<Ticks>, place: Place) -> Self {
        let since = AtomicU64::new(ticks.read());
        Activity {
            ticks,
            http2: AtomicBool::new(false),
            open: AtomicU32::new(0),
            waits: AtomicU32::new(0),
            taken: AtomicU64::new(0),
            total: AtomicU32::new(0),
            cancelled: AtomicU32::new(0),
            reading: AtomicBool::new(true),
            since,
            blocked_since: AtomicU64::new(0),
            flags: AtomicU8::new(0),
            returned: Mutex::new(None),
            _place: place,
        }
    }

    /// On HTTP/2 bytes arrive for many reasons, so that only whole streams are looked at.
    pub fn is_http2(&self) {
        self.http2.store(true, Relaxed);
        self.reading.store(false, Relaxed);
        self.since.store(self.ticks.read(), Relaxed);
    }

    #[inline]
    pub fn read_some(&self) {
        if !self.reading.load(Relaxed) && self.open.load(Relaxed) == 0 && !self.http2.load(Relaxed) {
            self.reading.store(true, Relaxed);
            self.since.store(self.ticks.read(), Relaxed);
        }
    }

    #[inline]
    pub fn wrote_some(&self) {
        self.blocked_since.store(0, Relaxed);
    }

    #[inline]
    pub fn write_blocked(&self) {
        if self.blocked_since.load(Relaxed) == 0 {
            self.blocked_since.store(self.ticks.read(), Relaxed);
        }
    }

    /// A request head is complete; the guard is dropped when its response body ends or is given up.
    pub fn request(self: &Arc<Self>, version: http::Version, has_body: bool) -> Open {
        step(&self.open, 1);
        step(&self.total, 1);
        self.reading.store(false, Relaxed);
        self.set(HAD_BODY, has_body);
        self.set(HTTP_10, version == http::Version::HTTP_10);
        Open { activity: Arc::clone(self), began: self.ticks.read(), answered: false, waits: false }
    }

    pub fn truncated(&self) {
        self.set(TRUNCATED, true);
    }

    /// The response was a 101: the IO now belongs to the tunnel.
    pub fn upgraded(&self) {
        self.set(UPGRADED, true);
    }

    pub fn is_upgraded(&self) -> bool {
        self.flags.load(Relaxed) & UPGRADED != 0
    }

    /// The last answer broke off and the client speaks HTTP/1.0, where only a reset tells so.
    pub fn needs_reset(&self) -> bool {
        self.flags.load(Relaxed) & (TRUNCATED | HTTP_10) == TRUNCATED | HTTP_10
    }

    /// The client may still be sending the last request's body.
    pub fn may_be_sending(&self) -> bool {
        self.flags.load(Relaxed) & HAD_BODY != 0
    }

    pub fn cancelled(&self) -> bool {
        self.cancelled.load(Relaxed) > 0
    }

    /// The client opens streams only to reset them.
    pub fn is_abused(&self) -> bool {
        let cancelled = self.cancelled.load(Relaxed);
        cancelled >= CANCELLED_MIN && cancelled > self.total.load(Relaxed) / 2
    }

    pub fn in_flight(&self) -> u32 {
        self.open.load(Relaxed)
    }

    /// When (in ticks) the connection is to be ended if nothing happens, and what it would have waited for.
    /// `closing` is since when the connection should end as soon as it is idle.
    pub fn due(&self, limits: &Limits, closing: Option<u64>) -> Option<(u64, Due)> {
        let blocked = self.blocked_since.load(Relaxed);
        if blocked != 0 {
            return Some((after(blocked, WRITE_STALL_MAX), Due::Write));
        }
        let open = self.open.load(Relaxed);
        if open > 0 {
            // A client that opens no window blocks no socket.
            let stalled = self.waits.load(Relaxed) == open;
            return stalled.then(|| (after(self.taken.load(Relaxed), WRITE_STALL_MAX), Due::Write));
        }
        let since = self.since.load(Relaxed);
        if self.reading.load(Relaxed) {
            return Some((after(since, limits.head), Due::Head));
        }
        let at = match closing {
            None => after(since, limits.keep_alive),
            Some(order) if self.http2.load(Relaxed) => after(since.max(order), GOAWAY_WAIT),
            Some(order) => after(since.max(order), CLOSING_LINGER),
        };
        Some((at, Due::Idle))
    }

    /// Leaves the stream to the connection's task.
    pub fn give_back(&self, stream: Stream) {
        *lock(&self.returned) = Some(stream);
    }

    pub fn take_back(&self) -> Option<Stream> {
        lock(&self.returned).take()
    }

    fn set(&self, flag: u8, on: bool) {
        let flags = self.flags.load(Relaxed);
        self.flags.store(if on { flags | flag } else { flags & !flag }, Relaxed);
    }
}

/// `since` was read from a clock that may lag by one tick, so one tick is added: late is harmless, early is not.
fn after(since: u64, wait: Duration) -> u64 {
    let wait = u64::try_from((wait + TICK).as_millis()).unwrap_or(u64::MAX);
    since.saturating_add(wait)
}

/// A connection's numbers change on its worker's thread alone; nothing can come between the load and the store.
fn step(number: &AtomicU32, by: i32) {
    number.store(number.load(Relaxed).saturating_add_signed(by), Relaxed);
}

/// One request in flight on a connection.
pub struct Open {
    activity: Arc<Activity>,
    began: u64,
    answered: bool,
    waits: bool,
}

impl Open {
    pub fn answered(&mut self) {
        self.answered = true;
    }

    pub fn activity(&self) -> &Arc<Activity> {
        &self.activity
    }

    /// Whether the client is waited for, and nobody else; said again whenever it has taken something.
    pub fn waits(&mut self, waits: bool) {
        let activity = &self.activity;
        if waits != self.waits {
            self.waits = waits;
            let count = activity.waits.load(Relaxed);
            activity.waits.store(if waits { count + 1 } else { count.saturating_sub(1) }, Relaxed);
        }
        activity.taken.store(activity.ticks.read(), Relaxed);
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if self.waits {
            self.waits(false);
        }
        let activity = &self.activity;
        let now = activity.ticks.read();
        // Only young streams count as abuse: a client that gives up after a while has waited for its answer.
        if !self.answered && now.saturating_sub(self.began) < 1000 {
            step(&activity.cancelled, 1);
        }
        activity.since.store(now, Relaxed);
        step(&activity.open, -1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::gate::Gate;

    fn activity(at: u64) -> Arc<Activity> {
        let ticks = Arc::new(Ticks::default());
        ticks.0.store(at, Relaxed);
        let place = Arc::new(Gate::default()).enter(1).expect("the gate is empty");
        Arc::new(Activity::new(ticks, place))
    }

    const LIMITS: Limits = Limits { head: Duration::from_secs(10), keep_alive: Duration::from_secs(75) };

    #[test]
    fn a_fresh_connection_owes_a_head_and_an_idle_one_the_next_request() {
        // Goal: each phase has its own deadline, one tick after the promised time.
        let activity = activity(1000);
        assert_eq!(activity.due(&LIMITS, None), Some((11_100, Due::Head)));
        let open = activity.request(http::Version::HTTP_11, false);
        assert_eq!(activity.due(&LIMITS, None), None);
        activity.ticks.0.store(5000, Relaxed);
        drop(open);
        assert_eq!(activity.due(&LIMITS, None), Some((80_100, Due::Idle)));
        assert_eq!(activity.due(&LIMITS, Some(6000)), Some((6300, Due::Idle)));
        activity.ticks.0.store(7000, Relaxed);
        activity.read_some();
        activity.ticks.0.store(9000, Relaxed);
        activity.read_some();
        assert_eq!(activity.due(&LIMITS, Some(6000)), Some((17_100, Due::Head)), "later bytes do not extend a head");
    }

    #[test]
    fn a_head_that_began_behind_another_request_has_its_time_from_the_answer_on() {
        let activity = activity(1000);
        let open = activity.request(http::Version::HTTP_11, false);
        activity.read_some();
        activity.ticks.0.store(5000, Relaxed);
        drop(open);
        activity.read_some();
        assert_eq!(activity.due(&LIMITS, None), Some((15_100, Due::Head)));
    }

    #[test]
    fn a_client_that_takes_nothing_has_a_deadline_even_with_a_request_in_flight() {
        let activity = activity(1000);
        let _open = activity.request(http::Version::HTTP_11, false);
        activity.write_blocked();
        assert_eq!(activity.due(&LIMITS, None), Some((61_100, Due::Write)));
        activity.wrote_some();
        assert_eq!(activity.due(&LIMITS, None), None);
    }

    #[test]
    fn streams_that_all_wait_for_their_client_have_a_deadline() {
        let activity = activity(1000);
        activity.is_http2();
        let (mut one, mut two) =
            (activity.request(http::Version::HTTP_2, false), activity.request(http::Version::HTTP_2, false));
        one.waits(true);
        assert_eq!(activity.due(&LIMITS, None), None, "the app is waited for");
        activity.ticks.0.store(5000, Relaxed);
        two.waits(true);
        assert_eq!(activity.due(&LIMITS, None), Some((65_100, Due::Write)));
        activity.ticks.0.store(6000, Relaxed);
        two.waits(true);
        assert_eq!(activity.due(&LIMITS, None), Some((66_100, Due::Write)), "it took something");
        drop(one);
        two.waits(false);
        assert_eq!(activity.due(&LIMITS, None), None);
        drop(two);
        assert_eq!(activity.due(&LIMITS, None), Some((81_100, Due::Idle)));
    }

    #[test]
    fn bytes_between_http2_streams_do_not_start_a_head() {
        let activity = activity(1000);
        activity.is_http2();
        activity.read_some();
        assert_eq!(activity.due(&LIMITS, None), Some((76_100, Due::Idle)));
        assert_eq!(activity.due(&LIMITS, Some(2000)), Some((7100, Due::Idle)));
    }

    #[test]
    fn only_a_majority_of_young_cancelled_streams_is_abuse() {
        let activity = activity(1000);
        for _ in 0..CANCELLED_MIN - 1 {
            drop(activity.request(http::Version::HTTP_2, false));
        }
        assert!(!activity.is_abused(), "below the minimum");
        drop(activity.request(http::Version::HTTP_2, false));
        assert!(activity.is_abused());
        for _ in 0..CANCELLED_MIN {
            activity.request(http::Version::HTTP_2, false).answered();
        }
        assert!(!activity.is_abused(), "half were answered");
        let patient = self::activity(1000);
        for _ in 0..CANCELLED_MIN {
            let open = patient.request(http::Version::HTTP_2, false);
            patient.ticks.0.fetch_add(1000, Relaxed);
            drop(open);
        }
        assert!(!patient.is_abused(), "old streams do not count");
    }

    #[test]
    fn only_a_truncated_answer_to_http_10_needs_a_reset() {
        let activity = activity(1000);
        drop(activity.request(http::Version::HTTP_11, false));
        activity.truncated();
        assert!(!activity.needs_reset());
        drop(activity.request(http::Version::HTTP_10, true));
        assert!(activity.needs_reset() && activity.may_be_sending());
    }
}
