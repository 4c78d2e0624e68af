//! The idle HTTP/1.1 connections of a pool, and taking the right one.
//!
//! They form a stack: the most recently used is taken first, so few stay hot and the rest age out at the bottom, where
//! the sweeper finds them. One small task per pool, the warden, is woken when the app says anything on any of them:
//! that ends the connection and teaches [`super::learned`] the app's idle timeout.
//!
//! The keep-alive race: between the app's FIN and our noticing it, a request could be written to a dead connection.
//! Three answers, cheapest first. A connection gives back what it never wrote, and the pool sends that again on a fresh
//! one. Before a connection is used that has been quiet, or for a request that may not be sent twice, we yield once:
//! the runtime polls its sockets, so that a FIN that has arrived is seen; unless it has just done so. And a request that
//! may not be sent twice never takes a connection older than half of the app's learned timeout (others: three
//! quarters). After an answer without a body (HEAD, 204, 304) it rests: what an app wrongly sends behind it must not
//! answer somebody else. Measured against an app that closes after 8 ms idle: no failure in 2,000 POSTs and 2,000 replayable requests at random intervals up to
//! 12 ms; without the bound on replayable ones, 1 % of them were reset.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::task::AbortHandle;

use super::clock::{self, now};
use super::h1::Conn;
use super::learned::IdleTimeout;
use super::sweep::{Sweep, Sweeper};
use super::tally::Tally;
use crate::core::fields::Fields;

/// The idle connections of a pool, oldest first.
pub(super) struct Idle<B> {
    stack: RefCell<VecDeque<Rc<Conn<B>>>>,
    learned: RefCell<IdleTimeout>,
    /// Connections of an earlier epoch are not kept.
    epoch: Cell<u64>,
    sweeper: Sweeper,
    warden: RefCell<Option<Warden>>,
    me: Weak<Idle<B>>,
    tally: Rc<Tally>,
    max: usize,
    timeout: Duration,
}

/// Who is woken when the app says anything on an idle connection.
struct Warden {
    waker: Waker,
    task: AbortHandle,
}

impl Drop for Warden {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl<B: 'static> Idle<B> {
    pub(super) fn new(max: usize, timeout: Duration, tally: Rc<Tally>) -> Rc<Self> {
        Rc::new_cyclic(|me| Self {
            stack: RefCell::default(),
            learned: RefCell::default(),
            epoch: Cell::new(0),
            sweeper: Sweeper::default(),
            warden: RefCell::default(),
            me: me.clone(),
            tally,
            max,
            timeout,
        })
    }

    /// An idle connection that may be used now, and how long it was idle.
    pub(super) async fn take(&self, now: Instant, replayable: bool) -> Option<(Rc<Conn<B>>, Duration)> {
        loop {
            let (conn, age) = self.pop(now, replayable)?;
            if !replayable || age >= QUIET {
                // The runtime polls its sockets before it resumes us.
                if !clock::is_fresh() {
                    tokio::task::yield_now().await;
                }
                if !conn.is_alive(Waker::noop()) {
                    self.closed_after(age);
                    continue;
                }
            }
            return Some((conn, age));
        }
    }

    /// Whether the app still keeps an idle connection.
    fn is_alive(&self, conn: &Conn<B>) -> bool {
        match &*self.warden.borrow() {
            Some(warden) => conn.is_alive(&warden.waker),
            None => conn.is_alive(Waker::noop()),
        }
    }

    /// The oldest connection shows first that the app keeps them.
    fn look_at_oldest(&self, stack: &VecDeque<Rc<Conn<B>>>, now: Instant) {
        let Some(oldest) = stack.front().filter(|conn| self.is_alive(conn)) else { return };
        let since = oldest.idle_since.get();
        self.survived(since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since)));
    }

    fn pop(&self, now: Instant, replayable: bool) -> Option<(Rc<Conn<B>>, Duration)> {
        let mut stack = self.stack.borrow_mut();
        // In the stack means idle_since is present; a missing one would only make the connection look fresh.
        let age =
            |conn: &Conn<B>| conn.idle_since.get().map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        // After its rest a connection is looked at before it is used, like all that were quiet.
        let at = stack.iter().rposition(|conn| !conn.rests.get() || age(conn) >= QUIET)?;
        let age = stack.get(at).map_or(Duration::ZERO, |conn| age(conn));
        if age >= self.timeout {
            // The newest is too old, so all are.
            let expired: VecDeque<_> = stack.drain(..=at).collect();
            drop(stack);
            discard(expired);
            return None;
        }
        if !replayable && !self.learned.borrow().is_kept() {
            self.look_at_oldest(&stack, now);
        }
        let learned = self.learned.borrow();
        let bound = if replayable { learned.usable_age(self.timeout) } else { learned.trusted_age(self.timeout) };
        drop(learned);
        if age >= bound {
            // Refused, but alive: that is evidence, too, or what was learned once could never be unlearned.
            if stack.get(at).is_some_and(|conn| self.is_alive(conn)) {
                self.survived(age);
            }
            return None;
        }
        let conn = stack.remove(at)?;
        conn.idle_since.set(None);
        conn.set_busy(true);
        Some((conn, age))
    }

    pub(super) fn put(&self, conn: Rc<Conn<B>>) {
        conn.set_busy(false);
        if self.max == 0 || self.timeout.is_zero() || conn.epoch != self.epoch.get() {
            return;
        }
        self.ensure_warden();
        if !self.is_alive(&conn) {
            return self.closed_after(Duration::ZERO);
        }
        let mut stack = self.stack.borrow_mut();
        let evicted = if stack.len() < self.max {
            None
        } else if self.learned.borrow().is_kept() {
            stack.pop_front()
        } else {
            // Only a connection that rests can show that the app keeps them, and under load only the oldest does.
            return;
        };
        conn.idle_since.set(Some(now()));
        stack.push_back(conn);
        drop(stack);
        discard(evicted);
        self.sweeper.ensure(&self.me, self.timeout);
    }

    fn ensure_warden(&self) {
        if self.warden.borrow().is_some() {
            return;
        }
        let me = Weak::clone(&self.me);
        let task = tokio::task::spawn_local(poll_fn(move |cx| match me.upgrade() {
            Some(idle) => idle.look(cx),
            None => Poll::Ready(()),
        }));
        // Until it runs for the first time nobody is woken, and then it looks at all of them.
        *self.warden.borrow_mut() = Some(Warden { waker: Waker::noop().clone(), task: task.abort_handle() });
    }

    /// Takes out what the app has closed; woken when there may be more.
    fn look(&self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(warden) = &mut *self.warden.borrow_mut() {
            warden.waker.clone_from(cx.waker());
        }
        let mut gone = Vec::new();
        let mut stack = self.stack.borrow_mut();
        stack.retain(|conn| {
            let alive = conn.is_alive(cx.waker());
            if !alive {
                gone.push(Rc::clone(conn));
            }
            alive
        });
        drop(stack);
        for conn in gone {
            let since = conn.idle_since.take();
            self.closed_after(since.map_or(Duration::ZERO, |since| now().saturating_duration_since(since)));
        }
        Poll::Pending
    }

    /// The app closed a connection that had been idle for `age`.
    pub(super) fn closed_after(&self, age: Duration) {
        self.learned.borrow_mut().closed_after(age);
    }

    /// A connection that had been idle for `age` broke, without an answer, so long after a request was written to it.
    /// At once, that is the keep-alive race lost; later it is what the app made of the request.
    pub(super) fn broke_after(&self, age: Duration, written: Duration) {
        if written < RACE_MAX {
            self.closed_after(age);
        }
    }

    /// Reads `Keep-Alive: timeout=` from a response.
    pub(super) fn announced(&self, headers: &Fields) {
        if let Some(timeout) = headers.get("keep-alive").and_then(|value| keep_alive_timeout(value.as_bytes())) {
            self.learned.borrow_mut().announced(timeout);
        }
    }

    pub(super) fn learned(&self) -> Option<Duration> {
        self.learned.borrow().learned()
    }

    pub(super) fn len(&self) -> usize {
        self.stack.borrow().len()
    }

    /// Connections in use are closed when they become idle.
    pub(super) fn retire(&self) {
        self.epoch.set(self.epoch.get() + 1);
    }

    pub(super) fn clear(&self) {
        let all = std::mem::take(&mut *self.stack.borrow_mut());
        discard(all);
    }
}

impl<B> Idle<B> {
    pub(super) fn tally(&self) -> &Rc<Tally> {
        &self.tally
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch.get()
    }

    /// A connection was alive after having been idle for `age`.
    pub(super) fn survived(&self, age: Duration) {
        self.learned.borrow_mut().survived(age, now);
    }
}

impl<B> Sweep for Idle<B> {
    fn sweep(&self, now: Instant) -> bool {
        let mut expired = Vec::new();
        let mut stack = self.stack.borrow_mut();
        while let Some(since) = stack.front().and_then(|conn| conn.idle_since.get()) {
            if now.saturating_duration_since(since) < self.timeout {
                break;
            }
            self.survived(self.timeout);
            expired.extend(stack.pop_front());
        }
        let left = !stack.is_empty();
        drop(stack);
        discard(expired);
        left
    }

    fn sweeper(&self) -> &Sweeper {
        &self.sweeper
    }
}

/// Closes connections that *we* no longer want, so that their ending teaches nothing about the app.
fn discard<B>(conns: impl IntoIterator<Item = Rc<Conn<B>>>) {
    for conn in conns {
        conn.idle_since.set(None);
    }
}

/// The `timeout` parameter of a `Keep-Alive` field, in seconds (RFC 2068 §19.7.1.1).
fn keep_alive_timeout(value: &[u8]) -> Option<Duration> {
    let text = std::str::from_utf8(value).ok()?;
    text.split(',').find_map(|parameter| {
        let (name, seconds) = parameter.split_once('=')?;
        let seconds = seconds.trim().trim_matches('"').parse().ok()?;
        name.trim().eq_ignore_ascii_case("timeout").then(|| Duration::from_secs(seconds))
    })
}

/// A connection used more recently than this is taken without polling the sockets first.
const QUIET: Duration = Duration::from_millis(10);
/// How late the end of a connection that the app closed while it was idle may come, on a busy machine.
const RACE_MAX: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tokio::io::AsyncReadExt;
    use tokio::net::UnixStream;
    use tokio::runtime::Runtime;
    use tokio::task::LocalSet;

    use super::*;
    use crate::http::Request;
    use crate::upstream::RequestBody;
    use crate::upstream::h1::Failed;
    use crate::upstream::io::{Io, Socket};

    const TIMEOUT: Duration = Duration::from_secs(4);

    fn worker() -> (Runtime, LocalSet) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        (runtime, LocalSet::new())
    }

    fn idle(max: usize) -> Rc<Idle<RequestBody>> {
        Idle::new(max, TIMEOUT, Rc::default())
    }

    /// A connection that went idle `ago`, and the app's end of it.
    async fn put(idle: &Rc<Idle<RequestBody>>, ago: Duration) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
        let conn = Conn::new(Io::Plain(Socket::from(ours)), idle);
        idle.put(Rc::clone(&conn));
        // The warden must have looked once.
        tokio::task::yield_now().await;
        conn.idle_since.set(Some(now() - ago));
        theirs
    }

    async fn closed(stream: &mut UnixStream) -> bool {
        stream.read(&mut [0]).await.is_ok_and(|n| n == 0)
    }

    #[test]
    fn what_was_learned_bounds_the_age_that_is_taken() {
        // Goal: t-1, t, t+1 around half of a learned 200 ms, and around three quarters for a replayable request.
        let (runtime, local) = worker();
        local.block_on(&runtime, async {
            let idle = idle(4);
            idle.survived(Duration::from_millis(100));
            idle.closed_after(Duration::from_millis(200));
            let _theirs = put(&idle, Duration::ZERO).await;
            let since = idle.stack.borrow()[0].idle_since.get().expect("idle");
            let half = since + Duration::from_millis(100);
            let nanosecond = Duration::from_nanos(1);
            assert!(idle.pop(half, false).is_none());
            assert!(idle.pop(half + nanosecond, false).is_none());
            assert!(idle.pop(half - nanosecond, false).is_some());
            assert_eq!(idle.len(), 0);
            let _theirs = put(&idle, Duration::ZERO).await;
            let since = idle.stack.borrow()[0].idle_since.get().expect("idle");
            let most = since + Duration::from_millis(150);
            assert!(idle.pop(most, true).is_none());
            assert!(idle.pop(most - nanosecond, false).is_none());
            assert!(idle.pop(most - nanosecond, true).is_some());
            let _theirs = put(&idle, Duration::ZERO).await;
            assert!(idle.take(now(), false).await.is_some());
        });
    }

    #[test]
    fn the_newest_is_taken_the_oldest_evicted_and_the_expired_closed() {
        // Goal: a stack of at most two; expiry at exactly the timeout, by taking and by sweeping; none of it teaches.
        let (runtime, local) = worker();
        local.block_on(&runtime, async {
            let idle = idle(2);
            idle.survived(Duration::from_millis(100));
            let mut oldest = put(&idle, Duration::from_secs(3)).await;
            let mut older = put(&idle, Duration::from_secs(2)).await;
            let mut newest = put(&idle, Duration::from_secs(1)).await;
            assert_eq!(idle.len(), 2);
            assert!(closed(&mut oldest).await);

            let since = idle.stack.borrow()[0].idle_since.get().expect("idle");
            assert!(idle.sweep(since + TIMEOUT - Duration::from_nanos(1)));
            assert_eq!(idle.len(), 2);
            assert!(idle.sweep(since + TIMEOUT));
            assert_eq!(idle.len(), 1);
            assert!(closed(&mut older).await);

            let (conn, age) = idle.take(now(), true).await.expect("the newest");
            assert!((1..2).contains(&age.as_secs()));
            idle.put(conn);
            let since = idle.stack.borrow()[0].idle_since.get().expect("idle");
            assert!(idle.pop(since + TIMEOUT, true).is_none());
            assert!(closed(&mut newest).await);
            assert_eq!((idle.len(), idle.learned()), (0, None));
        });
    }

    #[test]
    fn the_oldest_stays_until_it_has_shown_that_the_app_keeps_connections() {
        let (runtime, local) = worker();
        local.block_on(&runtime, async {
            let idle = idle(2);
            let _oldest = put(&idle, Duration::from_millis(99)).await;
            let _other = put(&idle, Duration::ZERO).await;
            let mut newcomer = {
                let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
                idle.put(Conn::new(Io::Plain(Socket::from(ours)), &idle));
                theirs
            };
            assert!(closed(&mut newcomer).await);
            let since = idle.stack.borrow()[0].idle_since.get().expect("idle");
            assert!(idle.pop(since + Duration::from_millis(100), false).is_some(), "it had rested for long enough");
        });
    }

    #[test]
    fn a_connection_the_app_closed_while_idle_teaches_its_age() {
        // Goal: the FIN removes the connection and its idle age becomes what is known of the app's timeout.
        let (runtime, local) = worker();
        local.block_on(&runtime, async {
            let idle = idle(2);
            drop(put(&idle, Duration::from_secs(2)).await);
            while idle.len() > 0 {
                tokio::task::yield_now().await;
            }
            let learned = idle.learned().expect("learned");
            assert!((2..3).contains(&learned.as_secs()), "{learned:?}");
        });
    }

    #[test]
    fn a_request_that_was_never_written_comes_back() {
        // Goal: the worst order of events. The sockets have been polled (the FIN is known to the runtime) but the
        // warden has not run when the connection is taken: it must look before it writes.
        let (runtime, local) = worker();
        let idle = idle(2);
        let theirs = local.block_on(&runtime, put(&idle, Duration::ZERO));
        drop(theirs);
        // Polls the sockets without running the local tasks.
        runtime.block_on(tokio::task::yield_now());
        local.block_on(&runtime, async {
            let (conn, _age) = idle.pop(now(), true).expect("still looks alive");
            let body = RequestBody::Full(Bytes::from_static(b"1"));
            let mut req = Request::from(http::Request::post("/pay").body(body).expect("a request"));
            let Err(Failed::NeverWritten) = conn.send(&mut req, true, None).await else { panic!("not given back") };
            assert!(matches!(&req.body, RequestBody::Full(body) if body == "1"));
        });
    }

    #[test]
    fn keep_alive_parameters_are_read_in_any_order() {
        // Goal: node's, Apache's and a quoted form; nonsense is no evidence.
        let seconds = |text: &str| keep_alive_timeout(text.as_bytes()).map(|timeout| timeout.as_secs());
        assert_eq!(seconds("timeout=5"), Some(5));
        assert_eq!(seconds("max=100, Timeout=\"7\""), Some(7));
        assert_eq!(seconds("timeout=soon"), None);
        assert_eq!(seconds(""), None);
    }
}
