//! A host name to socket addresses.
//!
//! Literals skip the resolver altogether (the usual sidecar case: `127.0.0.1`). Names use the system's resolver, so
//! that `/etc/hosts`, search domains and nsswitch work; it tells no TTL, so answers are believed for [`FRESH`].
//! It also blocks a thread that nobody can cancel: when DNS hangs, a look-up per connection attempt would pile up
//! threads. So a pool's [`Names`] has at most one look-up running, and everyone waits for that one. When a look-up
//! fails or hangs, the last good answer serves. With a schedule (`resolve.refresh`) the name is also looked up while
//! connections are reused, and [`Names::moved`] tells when an address is gone: missing from [`LOOKS_MISSED_MAX`] answers
//! in a row, because many resolvers give another part of a long list each time. Families alternate (RFC 8305 §4): one broken family costs one attempt.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::clock::now;

/// One look-up: at least one address, at most [`ADDRESSES_MAX`], in the order to try them.
pub(super) async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if let Some(address) = literal(host) {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let found = interleave(tokio::net::lookup_host((host, port)).await?);
    if found.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
    }
    Ok(found)
}

/// What one pool knows of its endpoint's name.
pub(super) struct Names {
    host: Arc<str>,
    port: u16,
    known: RefCell<Option<Rc<[SocketAddr]>>>,
    /// `None`: look it up before the next use. Literals are fresh for ever.
    fresh_until: Cell<Option<Until>>,
    /// The schedule, and when the next look-up is due.
    refresh: Option<Duration>,
    due: Cell<Option<Instant>>,
    /// Addresses of former answers, and how many answers they have been missing from.
    missed: RefCell<Vec<(SocketAddr, u32)>>,
    moved: Cell<bool>,
    looking: Cell<bool>,
    failure: RefCell<Option<Arc<io::Error>>>,
    looked: Notify,
}

#[derive(Clone, Copy)]
enum Until {
    Ever,
    Then(Instant),
}

impl Names {
    pub(super) fn new(host: &str, port: u16, refresh: Option<Duration>) -> Rc<Self> {
        let known = literal(host).map(|address| Rc::from([SocketAddr::new(address, port)]));
        Rc::new(Self {
            host: host.into(),
            port,
            fresh_until: Cell::new(known.is_some().then_some(Until::Ever)),
            // A literal stays what it is.
            refresh: refresh.filter(|_| known.is_none()),
            known: RefCell::new(known),
            due: Cell::new(None),
            missed: RefCell::default(),
            moved: Cell::new(false),
            looking: Cell::new(false),
            failure: RefCell::default(),
            looked: Notify::new(),
        })
    }

    /// The addresses to try. Waits for a look-up when what is known is not fresh; the caller's timeout bounds it.
    pub(super) async fn addresses(self: &Rc<Self>) -> Result<Rc<[SocketAddr]>, Arc<io::Error>> {
        if self.is_fresh()
            && let Some(known) = &*self.known.borrow()
        {
            return Ok(Rc::clone(known));
        }
        let looked = self.looked.notified();
        if !self.looking.replace(true) {
            tokio::task::spawn_local(Rc::clone(self).look());
        }
        if self.known.borrow().is_some() {
            // An old answer beats a hanging resolver.
            let _ = tokio::time::timeout(STALE_WAIT, looked).await;
        } else {
            looked.await;
        }
        match (&*self.known.borrow(), &*self.failure.borrow()) {
            (Some(known), _) => Ok(Rc::clone(known)),
            (None, Some(failure)) => Err(Arc::clone(failure)),
            (None, None) => Err(Arc::new(io::ErrorKind::NotFound.into())),
        }
    }

    /// Looks the name up when the schedule says so, without waiting for it.
    pub(super) fn tend(self: &Rc<Self>) {
        let Some(refresh) = self.refresh else { return };
        let now = now();
        if self.due.get().is_none_or(|due| now >= due) {
            let first = self.due.replace(Some(now + refresh)).is_none();
            if !first && !self.looking.replace(true) {
                tokio::task::spawn_local(Rc::clone(self).look());
            }
        }
    }

    /// True once after an address has gone: connections made so far may lead to it.
    pub(super) fn moved(&self) -> bool {
        self.moved.take()
    }

    /// Nothing answered at these addresses: ask again before the next connection.
    pub(super) fn distrust(&self) {
        if matches!(self.fresh_until.get(), Some(Until::Then(_))) {
            self.fresh_until.set(None);
        }
    }

    fn is_fresh(&self) -> bool {
        match self.fresh_until.get() {
            Some(Until::Ever) => true,
            Some(Until::Then(then)) => now() < then,
            None => false,
        }
    }

    async fn look(self: Rc<Self>) {
        self.learn(resolve(&self.host, self.port).await);
    }

    fn learn(&self, outcome: io::Result<Vec<SocketAddr>>) {
        match outcome {
            Ok(found) => {
                if self.refresh.is_some() {
                    self.compare(&found);
                }
                *self.known.borrow_mut() = Some(found.into());
                *self.failure.borrow_mut() = None;
                self.fresh_until.set(Some(Until::Then(now() + self.refresh.unwrap_or(FRESH))));
            }
            Err(error) => {
                *self.failure.borrow_mut() = Some(Arc::new(error));
                if self.known.borrow().is_some() {
                    self.fresh_until.set(Some(Until::Then(now() + FRESH_AFTER_FAILURE)));
                }
            }
        }
        self.looking.set(false);
        self.looked.notify_waiters();
    }
}

impl Names {
    fn compare(&self, found: &[SocketAddr]) {
        let mut missed = self.missed.borrow_mut();
        for (address, looks) in missed.iter_mut() {
            *looks = if found.contains(address) { 0 } else { *looks + 1 };
        }
        let before = missed.len();
        missed.retain(|(_, looks)| *looks < LOOKS_MISSED_MAX);
        if missed.len() < before {
            self.moved.set(true);
        }
        for address in found {
            if missed.len() < ADDRESSES_KNOWN_MAX && !missed.iter().any(|(known, _)| known == address) {
                missed.push((*address, 0));
            }
        }
    }
}

fn literal(host: &str) -> Option<IpAddr> {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    bare.parse().ok()
}

/// Alternates families, beginning with the family the resolver put first, and drops repeats.
fn interleave(addresses: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let mut rest: Vec<SocketAddr> = Vec::new();
    for address in addresses {
        if !rest.contains(&address) {
            rest.push(address);
        }
    }
    let mut ordered = Vec::with_capacity(rest.len().min(ADDRESSES_MAX));
    while ordered.len() < ADDRESSES_MAX && !rest.is_empty() {
        let other = ordered.last().map(|last: &SocketAddr| !last.is_ipv4());
        let next = other.and_then(|v4| rest.iter().position(|a| a.is_ipv4() == v4)).unwrap_or(0);
        ordered.push(rest.remove(next));
    }
    ordered
}

/// How long an answer of the resolver is believed; failing to connect ends it at once.
const FRESH: Duration = Duration::from_secs(5);
/// How long an old answer serves before the resolver is asked again after it failed.
const FRESH_AFTER_FAILURE: Duration = Duration::from_secs(1);
/// How long a connection waits for a new answer when there is an old one.
const STALE_WAIT: Duration = Duration::from_millis(100);
/// More addresses than this are not tried: the connect timeout would be over long before.
const ADDRESSES_MAX: usize = 8;
/// An address missing from this many answers in a row is gone.
const LOOKS_MISSED_MAX: u32 = 2;
/// Addresses remembered per name.
const ADDRESSES_KNOWN_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(list: &[&str]) -> Vec<SocketAddr> {
        list.iter().map(|address| address.parse().expect("test data")).collect()
    }

    #[test]
    fn families_alternate_and_repeats_vanish() {
        // Goal: RFC 8305 §4 order, beginning with the resolver's first choice.
        let given = addresses(&["[::1]:1", "[::2]:1", "1.1.1.1:1", "[::1]:1", "2.2.2.2:1", "[::3]:1"]);
        let wanted = addresses(&["[::1]:1", "1.1.1.1:1", "[::2]:1", "2.2.2.2:1", "[::3]:1"]);
        assert_eq!(interleave(given.into_iter()), wanted);
        assert!(interleave(std::iter::empty()).is_empty());
    }

    #[test]
    fn literals_need_no_resolver() {
        assert_eq!(literal("127.0.0.1"), Some(IpAddr::from([127, 0, 0, 1])));
        assert!(literal("::1").is_some() && literal("[::1]").is_some());
        assert_eq!(literal("localhost"), None);
        let names = Names::new("::1", 80, Some(FRESH));
        names.distrust();
        assert!(names.is_fresh(), "a literal is never looked up");
        names.tend();
        assert!(!names.looking.get(), "not on a schedule either");
    }

    #[test]
    fn an_address_that_two_answers_lack_is_gone() {
        let names = Names::new("app.test", 80, Some(Duration::from_secs(30)));
        let learn = |list: &[&str]| {
            names.learn(Ok(addresses(list)));
            names.moved()
        };
        assert!(!learn(&["1.1.1.1:80", "2.2.2.2:80"]));
        assert!(!learn(&["2.2.2.2:80", "3.3.3.3:80"]), "missing once: the resolver may rotate");
        assert!(!learn(&["1.1.1.1:80"]), "it was not gone");
        assert!(learn(&["1.1.1.1:80"]), "2.2.2.2 and 3.3.3.3 are");
        assert!(!names.moved(), "told once");
        names.learn(Err(io::ErrorKind::TimedOut.into()));
        assert!(!names.moved(), "a failed look-up says nothing of addresses");
    }

    #[test]
    fn a_name_is_looked_up_on_its_schedule() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime.expect("a runtime"), async {
            let names = Names::new("app.test", 80, Some(Duration::from_secs(30)));
            names.tend();
            assert!(!names.looking.get(), "the first connection looks it up anyway");
            tokio::time::advance(Duration::from_millis(29_999)).await;
            names.tend();
            assert!(!names.looking.get());
            tokio::time::advance(Duration::from_millis(1)).await;
            names.tend();
            assert!(names.looking.get());
        });
    }

    #[test]
    fn the_last_good_answer_outlives_failures() {
        // Goal: everyone waits for one look-up; fresh answers are not asked for again; distrust asks again; a failed
        // look-up is an error only when nothing was ever known. The test plays the resolver.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime.expect("a runtime"), async {
            let names = Names::new("app.test", 80, None);
            let ask = |names: &Rc<Names>| {
                names.looking.set(true);
                let names = Rc::clone(names);
                tokio::task::spawn_local(async move { names.addresses().await.map_err(|error| error.kind()) })
            };
            let (one, two) = (ask(&names), ask(&names));
            tokio::task::yield_now().await;
            names.learn(Err(io::ErrorKind::TimedOut.into()));
            assert_eq!(one.await.expect("the task"), Err(io::ErrorKind::TimedOut));
            assert_eq!(two.await.expect("the task"), Err(io::ErrorKind::TimedOut));

            let one = ask(&names);
            tokio::task::yield_now().await;
            names.learn(Ok(addresses(&["1.1.1.1:80"])));
            assert_eq!(one.await.expect("the task").as_deref(), Ok(addresses(&["1.1.1.1:80"]).as_slice()));
            tokio::time::advance(FRESH - Duration::from_millis(1)).await;
            assert!(names.is_fresh());
            tokio::time::advance(Duration::from_millis(1)).await;
            assert!(!names.is_fresh());

            let one = ask(&names);
            tokio::task::yield_now().await;
            names.learn(Err(io::ErrorKind::TimedOut.into()));
            assert_eq!(one.await.expect("the task").as_deref(), Ok(addresses(&["1.1.1.1:80"]).as_slice()));
            assert!(names.is_fresh(), "a failed look-up is not repeated at once");
            names.distrust();
            assert!(!names.is_fresh());
            let hanging = ask(&names);
            assert_eq!(hanging.await.expect("the task").as_deref(), Ok(addresses(&["1.1.1.1:80"]).as_slice()));
        });
    }
}
