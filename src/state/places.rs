//! An upstream's places as all workers share them: the decisions are `core::admission`'s; here are its lock, the
//! waiters' wakers, and the guard that gives a place back wherever its request ends.
//!
//! The lock is held for the decision alone, never across an await: a turn is handed over after it is released.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::clock;
use super::journal::lock;
use crate::core::admission::{Admission, Entered, Params, Told, Why};
use crate::core::priority::Priority;

type Turn = oneshot::Sender<Result<Place, Why>>;

/// The places of one upstream.
#[derive(Default)]
pub struct Places {
    admission: Mutex<Admission<Turn>>,
    /// Requests whose body had not ended when they took their place.
    uploads: AtomicUsize,
    /// Requests refused, by priority.
    refused: [AtomicU64; 4],
    /// Requests that had to wait, and for how long in all, in microseconds.
    waited: AtomicU64,
    waited_micros: AtomicU64,
}

/// One place, given back when it is dropped.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    params: Params,
    priority: Priority,
    /// Beyond the limit.
    probe: bool,
    upload: bool,
    stream: bool,
}

impl std::fmt::Debug for Places {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Places")
    }
}

/// What an operator sees.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    pub working: usize,
    pub open: usize,
    pub waiting: usize,
    /// The learned limit; `None` while there is none.
    pub limit: Option<usize>,
    pub latency: Duration,
    /// By priority.
    pub refused: [u64; 4],
    pub waited: u64,
    pub waited_total: Duration,
}

impl Places {
    /// A place at once, after a wait, or the reason why not. `upload` is for a request whose body is still coming: only
    /// half of the places are for those, and they do not wait.
    pub async fn enter(
        self: &Arc<Self>,
        priority: Priority,
        upload: bool,
        deadline: Instant,
        params: &Params,
        now: Instant,
    ) -> Result<Place, Refused> {
        let upload = match upload {
            true => Some(Upload::take(self, lock(&self.admission).max(params)).ok_or(Refused::Uploads)?),
            false => None,
        };
        let at_once = lock(&self.admission).enter_at_once(priority, params);
        let mut place = match at_once {
            true => self.place(priority, params),
            // Boxed: waiting is rare, and would otherwise be part of every request's future.
            false => Box::pin(self.enter_later(priority, deadline, params, now)).await?,
        };
        place.upload = upload.is_some_and(Upload::keep);
        Ok(place)
    }

    async fn enter_later(
        self: &Arc<Self>,
        priority: Priority,
        deadline: Instant,
        params: &Params,
        now: Instant,
    ) -> Result<Place, Refused> {
        let (turn, told_later) = oneshot::channel();
        let mut told = Vec::new();
        let entered = lock(&self.admission).enter(turn, priority, deadline, params, now, &mut told);
        self.tell(told, params);
        match entered {
            Entered::Now(_) => Ok(self.place(priority, params)),
            Entered::Refused(_, why) => Err(self.count(priority, why)),
            Entered::Waits { ticket, until } => {
                let wait = Wait { places: self, ticket, priority };
                wait.turn(told_later, until, now).await
            }
        }
    }

    /// The app is back: those that waited for it (at most `queue_max`) may wait for a place too, for up to `wait_max`.
    pub fn recover(&self, queue_max: usize, wait_max: Duration, now: Instant) {
        lock(&self.admission).recover(queue_max, wait_max, now);
    }

    /// A place beyond the limit, for the checks of the app's health; `None` when enough have one.
    pub fn enter_probe(self: &Arc<Self>, params: &Params) -> Option<Place> {
        let entered = lock(&self.admission).enter_probe(params);
        entered.then(|| {
            let mut place = self.place(Priority::Critical, params);
            place.probe = true;
            place
        })
    }

    fn place(self: &Arc<Self>, priority: Priority, params: &Params) -> Place {
        Place { places: self.clone(), params: *params, priority, probe: false, upload: false, stream: false }
    }

    fn count(&self, priority: Priority, why: Why) -> Refused {
        self.refused[priority as usize].fetch_add(1, Ordering::Relaxed);
        Refused::Why(why)
    }

    /// Hands out turns, with the lock released: a waiter that has gone gives its place straight back.
    fn tell(self: &Arc<Self>, told: Vec<Told<Turn>>, params: &Params) {
        for Told { who, priority, result } in told {
            let _ = who.send(result.map(|()| self.place(priority, params)));
        }
    }

    pub fn standing(&self, params: &Params) -> Standing {
        let admission = lock(&self.admission);
        Standing {
            working: admission.working(),
            open: admission.open(),
            waiting: admission.waiting(),
            limit: admission.limit(params),
            latency: admission.latency(),
            refused: std::array::from_fn(|place| self.refused[place].load(Ordering::Relaxed)),
            waited: self.waited.load(Ordering::Relaxed),
            waited_total: Duration::from_micros(self.waited_micros.load(Ordering::Relaxed)),
        }
    }

    pub fn open(&self) -> usize {
        lock(&self.admission).open()
    }
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    Why(Why),
    /// The places for bodies that are still coming are taken.
    Uploads,
}

impl Place {
    /// The app's latency, for the limit: to the first byte of an answer, or to the moment a request was given up.
    /// The time in which a body came says nothing of the app.
    pub fn sample(&self, latency: Duration, now: Instant) {
        if self.upload || self.stream {
            return;
        }
        let mut told = Vec::new();
        let silent = self.places.uploads.load(Ordering::Relaxed);
        lock(&self.places.admission).sample(latency, silent, &self.params, now, &mut told);
        self.places.tell(told, &self.params);
    }

    /// The client has left before there was an answer: it would have taken longer than this. Only that is news.
    pub fn given_up(&self, after: Duration, now: Instant) {
        if after > lock(&self.places.admission).latency() {
            self.sample(after, now);
        }
    }

    /// The answer is a stream: from here on it counts for the cap, and no longer for the limit.
    pub fn becomes_stream(&mut self, now: Instant) {
        if !self.stream {
            self.stream = true;
            let mut told = Vec::new();
            lock(&self.places.admission).stream(self.priority, &self.params, now, &mut told);
            self.places.tell(told, &self.params);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.upload {
            self.places.uploads.fetch_sub(1, Ordering::AcqRel);
        }
        let (now, mut told) = (clock::now(), Vec::new());
        let mut admission = lock(&self.places.admission);
        if self.stream {
            admission.leave_stream(&self.params, now, &mut told);
        } else if self.probe {
            admission.leave_probe(&self.params, now, &mut told);
        } else {
            admission.leave(self.priority, &self.params, now, &mut told);
        }
        drop(admission);
        self.places.tell(told, &self.params);
    }
}

/// A place in the queue; it is left when the request goes away.
struct Wait<'a> {
    places: &'a Arc<Places>,
    ticket: u64,
    priority: Priority,
}

impl Wait<'_> {
    async fn turn(
        self,
        mut told: oneshot::Receiver<Result<Place, Why>>,
        until: Instant,
        since: Instant,
    ) -> Result<Place, Refused> {
        let result = match tokio::time::timeout_at(until.into(), &mut told).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(Why::Full),
            // Its turn may have come in the same moment.
            Err(_) if self.leave() => Err(Why::Full),
            Err(_) => told.try_recv().unwrap_or(Err(Why::Full)),
        };
        let waited = clock::now().saturating_duration_since(since);
        self.places.waited.fetch_add(1, Ordering::Relaxed);
        let micros = u64::try_from(waited.as_micros()).unwrap_or(u64::MAX);
        self.places.waited_micros.fetch_add(micros, Ordering::Relaxed);
        result.map_err(|why| self.places.count(self.priority, why))
    }

    /// False when its turn has come already.
    fn leave(&self) -> bool {
        lock(&self.places.admission).give_up(self.ticket, self.priority).is_some()
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        self.leave();
    }
}

/// A claim to one of the places for bodies that are still coming.
struct Upload<'a>(Option<&'a Places>);

impl<'a> Upload<'a> {
    /// One of half of the `max` places.
    fn take(places: &'a Places, max: usize) -> Option<Upload<'a>> {
        let max = max.div_ceil(2);
        let taken = places.uploads.fetch_add(1, Ordering::AcqRel);
        let claim = Upload(Some(places));
        (taken < max).then_some(claim)
    }

    /// The place itself keeps it from now on.
    fn keep(mut self) -> bool {
        self.0.take().is_some()
    }
}

impl Drop for Upload<'_> {
    fn drop(&mut self) {
        if let Some(places) = self.0 {
            places.uploads.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(cap: usize) -> Params {
        Params { cap, adaptive: None, enforced: true, queue_max: 8, wait_max: Duration::from_millis(500) }
    }

    async fn enter(places: &Arc<Places>, cap: usize, upload: bool) -> Result<Place, Refused> {
        let now = clock::now();
        places.enter(Priority::Default, upload, now + Duration::from_secs(9), &params(cap), now).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_that_comes_free_is_the_next_waiters() {
        let places = Arc::new(Places::default());
        let first = enter(&places, 1, false).await.unwrap();
        let waiter = tokio::spawn({
            let places = places.clone();
            async move { enter(&places, 1, false).await }
        });
        while places.standing(&params(1)).waiting == 0 {
            tokio::task::yield_now().await;
        }
        drop(first);
        let second = waiter.await.unwrap().unwrap();
        assert_eq!(places.open(), 1);
        drop(second);
        assert_eq!(places.open(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiter_whose_time_is_over_is_refused_and_forgotten() {
        let places = Arc::new(Places::default());
        let _first = enter(&places, 1, false).await.unwrap();
        assert_eq!(enter(&places, 1, false).await.unwrap_err(), Refused::Why(Why::Full));
        let standing = places.standing(&params(1));
        assert_eq!((standing.waiting, standing.open, standing.refused), (0, 1, [0, 1, 0, 0]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_leaves_the_queue_leaves_nothing_behind() {
        let places = Arc::new(Places::default());
        let first = enter(&places, 1, false).await.unwrap();
        for _ in 0..3 {
            let gone = tokio::time::timeout(Duration::from_millis(10), enter(&places, 1, false)).await;
            assert!(gone.is_err());
        }
        assert_eq!(places.standing(&params(1)).waiting, 0);
        drop(first);
        assert_eq!(places.open(), 0);
    }

    #[tokio::test]
    async fn uploads_have_half_and_give_it_back() {
        let places = Arc::new(Places::default());
        let one = enter(&places, 2, true).await.unwrap();
        assert_eq!(enter(&places, 2, true).await.unwrap_err(), Refused::Uploads);
        let other = enter(&places, 2, false).await.unwrap();
        drop(one);
        drop(enter(&places, 2, true).await.unwrap());
        drop(other);
        assert_eq!((places.open(), places.uploads.load(Ordering::Relaxed)), (0, 0));
    }

    /// Uploads that are under way give no latency, and none is waited for: the limit is judged with the second in which
    /// it has begun, not after a minute.
    #[tokio::test]
    async fn uploads_do_not_delay_the_first_judgement() {
        for (upload, judged) in [(true, true), (false, false)] {
            let places = Arc::new(Places::default());
            let adaptive = crate::core::gradient::Params { min: 10, max: 1000 };
            let params = Params { adaptive: Some(adaptive), ..params(1024) };
            let start = clock::now();
            let deadline = start + Duration::from_secs(900);
            let enter = |upload| places.enter(Priority::Default, upload, deadline, &params, start);
            let mut under_way = Vec::new();
            for _ in 0..50 {
                under_way.push(enter(upload).await.unwrap());
            }
            // A hundred answers a second for five seconds, then the same ten times slower.
            let one = enter(false).await.unwrap();
            for (place, millis) in [[10; 500], [100; 500]].concat().into_iter().enumerate() {
                one.sample(Duration::from_millis(millis), start + Duration::from_millis(10) * place as u32);
            }
            let limit = places.standing(&params).limit.unwrap();
            assert_eq!(limit < 100, judged, "{limit}");
        }
    }

    #[tokio::test]
    async fn a_stream_frees_the_limit_and_keeps_the_cap() {
        let places = Arc::new(Places::default());
        let adaptive = crate::core::gradient::Params { min: 1, max: 1 };
        let params = Params { cap: 2, adaptive: Some(adaptive), queue_max: 0, ..params(2) };
        let enter =
            || places.enter(Priority::Default, false, clock::now() + Duration::from_secs(9), &params, clock::now());
        let mut first = enter().await.unwrap();
        assert!(enter().await.is_err());
        first.becomes_stream(clock::now());
        let second = enter().await.unwrap();
        assert!(enter().await.is_err());
        drop((first, second));
        assert_eq!(places.open(), 0);
    }
}
