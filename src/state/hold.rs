//! Who waits for an upstream that does not listen, and who looks whether an endpoint does: shared by all workers.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::journal::lock;
use crate::core::hold::{Denied, Hold, Params, Waiting};

/// Whether an endpoint listens.
#[derive(Default)]
pub struct Listening {
    refusing: AtomicBool,
    probing: AtomicBool,
}

impl Listening {
    /// Nothing listens there, as far as is known.
    pub fn is_refusing(&self) -> bool {
        self.refusing.load(Ordering::Acquire)
    }

    /// Remembers what was found; whether that is new.
    pub fn found(&self, refusing: bool) -> bool {
        self.refusing.swap(refusing, Ordering::AcqRel) != refusing
    }

    /// Becomes the one who looks, unless there is one.
    fn begin(&self) -> bool {
        !self.probing.swap(true, Ordering::AcqRel)
    }
}

/// The one who looks whether an endpoint listens; dropped, another may.
pub struct Probing(Arc<super::endpoint::EndpointState>);

impl Probing {
    pub fn begin(state: &Arc<super::endpoint::EndpointState>) -> Option<Probing> {
        state.listening.begin().then(|| Probing(state.clone()))
    }
}

impl Drop for Probing {
    fn drop(&mut self) {
        self.0.listening.probing.store(false, Ordering::Release);
    }
}

/// The requests of one upstream that wait.
pub struct HoldState {
    /// Nothing listens at any endpoint: what every request looks at.
    away: AtomicBool,
    hold: Mutex<Hold>,
    /// Counts the returns.
    returned: watch::Sender<u64>,
    pub counts: Counts,
}

/// What became of requests that met an upstream which did not listen.
#[derive(Default)]
pub struct Counts {
    /// They waited and went on.
    pub resumed: AtomicU64,
    /// They waited in vain.
    pub expired: AtomicU64,
    /// They were refused at once.
    pub refused: AtomicU64,
}

impl Default for HoldState {
    fn default() -> Self {
        HoldState {
            away: AtomicBool::new(false),
            hold: Mutex::default(),
            returned: watch::Sender::new(0),
            counts: Counts::default(),
        }
    }
}

impl HoldState {
    pub fn is_away(&self) -> bool {
        self.away.load(Ordering::Acquire)
    }

    /// Nothing listens at any endpoint. Whether that is new.
    pub fn refused(&self, now: Instant) -> bool {
        let mut hold = lock(&self.hold);
        self.away.store(true, Ordering::Release);
        hold.refused(now)
    }

    /// Something listens. For how long nothing did, when nothing did, and how many waited.
    pub fn back(&self, now: Instant) -> Option<(Duration, u32)> {
        let mut hold = lock(&self.hold);
        self.away.store(false, Ordering::Release);
        let away = hold.back(now)?;
        let waiting = hold.waiting();
        drop(hold);
        self.returned.send_modify(|count| *count += 1);
        Some((away, waiting))
    }

    /// It has ended and nobody starts it again: those that wait are woken, to be refused.
    pub fn gone(&self) {
        lock(&self.hold).gone();
        self.returned.send_modify(|count| *count += 1);
    }

    /// Asks for a place among those that wait.
    pub fn enter(
        self: &Arc<Self>,
        params: &Params,
        waited: Duration,
        deadline: Instant,
        now: Instant,
    ) -> Result<Place, Denied> {
        // Before the lock: a return after it is seen by the receiver.
        let returned = self.returned.subscribe();
        let waiting = lock(&self.hold).enter(params, waited, deadline, now)?;
        Ok(Place { hold: self.clone(), waiting, returned })
    }

    pub fn waiting(&self) -> u32 {
        lock(&self.hold).waiting()
    }
}

/// A place among those that wait.
pub struct Place {
    hold: Arc<HoldState>,
    waiting: Waiting,
    returned: watch::Receiver<u64>,
}

impl Place {
    /// Waits for the return and then for its turn; false when the time is over before.
    pub async fn wait(mut self) -> bool {
        let Waiting { until, turn, too_late } = self.waiting;
        let returned = tokio::time::timeout_at(until.into(), self.returned.changed()).await;
        if !matches!(returned, Ok(Ok(()))) {
            return false;
        }
        tokio::time::timeout_at(too_late.into(), tokio::time::sleep(turn)).await.is_ok()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.hold.hold).leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::clock;

    const PARAMS: Params = Params { wait_max: Duration::from_secs(5), requests_max: 2 };

    #[tokio::test(start_paused = true)]
    async fn those_that_wait_go_on_when_it_is_back_and_places_come_back() {
        let (hold, now) = (Arc::new(HoldState::default()), clock::now());
        let deadline = now + Duration::from_secs(60);
        assert!(hold.refused(now) && hold.is_away());
        let enter = || hold.enter(&PARAMS, Duration::ZERO, deadline, clock::now());
        let (first, second) = (enter().ok().unwrap(), enter().ok().unwrap());
        assert_eq!(enter().err(), Some(Denied::Full));
        drop(first);
        let third = enter().ok().unwrap();
        let both = tokio::spawn(async move { (second.wait().await, third.wait().await) });
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(hold.back(clock::now()), Some((Duration::from_secs(2), 2)));
        assert_eq!(both.await.unwrap(), (true, true));
        assert_eq!((hold.waiting(), hold.is_away()), (0, false));
        // A return before anybody waits wakes nobody later.
        hold.refused(clock::now());
        assert!(!enter().ok().unwrap().wait().await);
        assert_eq!(enter().err(), Some(Denied::TooLong));
    }

    #[tokio::test(start_paused = true)]
    async fn those_that_wait_are_woken_when_it_will_not_come_back() {
        let (hold, now) = (Arc::new(HoldState::default()), clock::now());
        let deadline = now + Duration::from_secs(60);
        hold.refused(now);
        let waiting = tokio::spawn(hold.enter(&PARAMS, Duration::ZERO, deadline, now).ok().unwrap().wait());
        tokio::task::yield_now().await;
        hold.gone();
        assert!(waiting.await.unwrap() && clock::now() < now + PARAMS.wait_max);
        assert_eq!(hold.enter(&PARAMS, Duration::ZERO, deadline, now).err(), Some(Denied::Gone));
    }

    #[test]
    fn one_looks_at_a_time() {
        let state = Arc::new(crate::state::endpoint::EndpointState::new("app", "a:1".to_owned()));
        let one = Probing::begin(&state).unwrap();
        assert!(Probing::begin(&state).is_none());
        drop(one);
        assert!(Probing::begin(&state).is_some());
    }
}
