//! One worker's timers for what nearly always ends before its time: the waits of attempts.
//!
//! A timer of the runtime is put into its wheel and taken out again for each request. Here a place is only told when it
//! is due, and looked at when its time of before has come: places that requests follow each other in are in the queue
//! once, however many requests pass. The runtime sees one timer, for the first place in the queue.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker, ready};
use std::time::Instant;

use tokio::task::AbortHandle;
use tokio::time::{Sleep, sleep_until};

use crate::state::clock;

/// The timers of one worker; they work on a `LocalSet`.
#[derive(Default)]
pub struct Alarms(RefCell<Queue>);

#[derive(Default)]
struct Queue {
    places: Vec<Place>,
    free: Vec<usize>,
    /// When to look at which place, soonest first.
    looks: BinaryHeap<Reverse<(Instant, usize)>>,
    keeper: Option<Keeper>,
}

struct Place {
    /// `None` while nobody waits here.
    due: Option<Instant>,
    /// Its soonest look in the queue; older ones there mean nothing.
    look: Option<Instant>,
    waker: Waker,
}

/// So many looks are few.
const LOOKS_MIN: usize = 64;

/// The task that looks.
struct Keeper {
    task: AbortHandle,
    waker: Waker,
    /// What its own timer is set to.
    set_to: Option<Instant>,
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One timer; it may be set again and again. Dropped, its place is the next one's.
pub struct Alarm {
    alarms: Rc<Alarms>,
    place: usize,
    due: Instant,
    /// The place has been told.
    told: bool,
}

impl Alarm {
    /// Goes off at `due`, to within the runtime's millisecond.
    pub fn new(alarms: &Rc<Alarms>, due: Instant) -> Alarm {
        Alarm { alarms: Rc::clone(alarms), place: alarms.0.borrow_mut().take(), due, told: false }
    }

    pub fn set(&mut self, due: Instant) {
        self.due = due;
        self.told = false;
    }

    /// Ready once it is due.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if clock::now() >= self.due {
            return Poll::Ready(());
        }
        let mut queue = self.alarms.0.borrow_mut();
        queue.tell(self.place, self.due, self.told, cx);
        self.told = true;
        if queue.keeper.is_none() {
            queue.keeper = Some(keeper(&self.alarms));
        }
        Poll::Pending
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        self.alarms.0.borrow_mut().give_back(self.place);
    }
}

impl Queue {
    fn take(&mut self) -> usize {
        self.free.pop().unwrap_or_else(|| {
            self.places.push(Place { due: None, look: None, waker: Waker::noop().clone() });
            self.places.len() - 1
        })
    }

    fn give_back(&mut self, at: usize) {
        if let Some(place) = self.places.get_mut(at) {
            place.due = None;
            place.waker = Waker::noop().clone(); // else the task's memory would stay
            self.free.push(at);
        }
    }

    /// `again`: only the waker may be another.
    fn tell(&mut self, at: usize, due: Instant, again: bool, cx: &Context<'_>) {
        let Some(place) = self.places.get_mut(at) else { return };
        place.waker.clone_from(cx.waker());
        if again {
            return;
        }
        place.due = Some(due);
        if place.look.is_none_or(|look| due < look) {
            place.look = Some(due);
            self.looks.push(Reverse((due, at)));
            self.drop_old_looks();
            if let Some(keeper) = &self.keeper
                && keeper.set_to.is_none_or(|set_to| due < set_to)
            {
                keeper.waker.wake_by_ref();
            }
        }
    }

    /// Where waits of hours and of milliseconds follow each other in a place, looks that were moved forward would stay in
    /// the queue for hours.
    fn drop_old_looks(&mut self) {
        if self.looks.len() > 2 * self.places.len() + LOOKS_MIN {
            let places = &self.places;
            self.looks.retain(|Reverse((look, at))| places.get(*at).is_some_and(|place| place.look == Some(*look)));
        }
    }

    /// Wakes who is due, and says when to look again.
    fn look(&mut self, now: Instant) -> Option<Instant> {
        while let Some(Reverse((look, at))) = self.looks.peek().copied() {
            if look > now {
                return Some(look);
            }
            self.looks.pop();
            let Some(place) = self.places.get_mut(at).filter(|place| place.look == Some(look)) else { continue };
            place.look = None;
            match place.due {
                None => {}
                Some(due) if due <= now => {
                    place.due = None;
                    place.waker.wake_by_ref();
                }
                Some(due) => {
                    place.look = Some(due);
                    self.looks.push(Reverse((due, at)));
                }
            }
        }
        None
    }
}

fn keeper(alarms: &Rc<Alarms>) -> Keeper {
    let alarms = Rc::downgrade(alarms);
    let task = tokio::task::spawn_local(async move {
        let mut sleep = pin!(sleep_until(clock::now().into()));
        poll_fn(|cx| keep(&alarms, sleep.as_mut(), cx)).await;
    });
    Keeper { task: task.abort_handle(), waker: Waker::noop().clone(), set_to: None }
}

fn keep(alarms: &Weak<Alarms>, mut sleep: Pin<&mut Sleep>, cx: &mut Context<'_>) -> Poll<()> {
    let Some(alarms) = alarms.upgrade() else { return Poll::Ready(()) };
    loop {
        let mut queue = alarms.0.borrow_mut();
        let next = queue.look(clock::now());
        if let Some(keeper) = &mut queue.keeper {
            keeper.waker.clone_from(cx.waker());
            keeper.set_to = next;
        }
        drop(queue);
        let Some(next) = next else { return Poll::Pending };
        sleep.as_mut().reset(next.into());
        ready!(sleep.as_mut().poll(cx));
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::time::Duration;

    use tokio::task::LocalSet;

    use super::*;

    fn on_a_worker<F: Future>(test: F) -> F::Output {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        LocalSet::new().block_on(&runtime.expect("a runtime for the test"), test)
    }

    async fn rings(alarm: &mut Alarm) -> Instant {
        poll_fn(|cx| alarm.poll(cx)).await;
        clock::now()
    }

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn each_goes_off_at_its_time_whatever_the_others_do() {
        on_a_worker(async {
            let (alarms, start) = (Rc::new(Alarms::default()), clock::now());
            let (gone_off, mut tasks) = (Rc::new(Cell::new(0)), Vec::new());
            for number in 0..500u64 {
                let (wait, gives_up) = (number * 7_919 % 2_000, number % 3 == 0);
                let (alarms, gone_off) = (Rc::clone(&alarms), Rc::clone(&gone_off));
                tasks.push(tokio::task::spawn_local(async move {
                    tokio::time::sleep(ms(number * 3)).await;
                    let due = clock::now() + ms(wait);
                    let mut alarm = Alarm::new(&alarms, due);
                    if gives_up {
                        let given_up = tokio::time::timeout(ms(wait / 2), rings(&mut alarm)).await;
                        assert!(wait == 0 || given_up.is_err(), "early");
                        return;
                    }
                    let rang = rings(&mut alarm).await;
                    assert!(rang >= due && rang <= due + ms(2), "{:?} late", rang.saturating_duration_since(due));
                    gone_off.set(gone_off.get() + 1);
                }));
            }
            for task in tasks {
                task.await.expect("every alarm goes off at its time");
            }
            assert!(gone_off.get() > 250, "{}", gone_off.get());
            assert!(clock::now() < start + ms(4_000));
            let queue = alarms.0.borrow();
            assert_eq!(queue.free.len(), queue.places.len());
        });
    }

    #[test]
    fn requests_that_follow_each_other_are_in_the_queue_once() {
        on_a_worker(async {
            let alarms = Rc::new(Alarms::default());
            for _ in 0..1_000 {
                let mut alarm = Alarm::new(&alarms, clock::now() + ms(30_000));
                assert!(tokio::time::timeout(ms(1), rings(&mut alarm)).await.is_err());
            }
            let queue = alarms.0.borrow();
            assert_eq!((queue.places.len(), queue.looks.len()), (1, 1));
        });
    }

    #[test]
    fn long_waits_and_short_ones_by_turns_do_not_fill_the_queue() {
        on_a_worker(async {
            let (alarms, mut most) = (Rc::new(Alarms::default()), 0);
            for _ in 0..1_000 {
                let mut long = Alarm::new(&alarms, clock::now() + ms(3_600_000));
                assert!(poll_fn(|cx| Poll::Ready(long.poll(cx))).await.is_pending());
                drop(long);
                let due = clock::now() + ms(2);
                assert_eq!(rings(&mut Alarm::new(&alarms, due)).await, due);
                tokio::time::sleep(ms(1)).await; // the look that was due is over
                most = most.max(alarms.0.borrow().looks.len());
            }
            assert!(most > LOOKS_MIN && most <= LOOKS_MIN + 2, "{most}");
        });
    }

    #[test]
    fn a_time_that_is_moved_holds_whether_sooner_or_later() {
        on_a_worker(async {
            let (alarms, start) = (Rc::new(Alarms::default()), clock::now());
            let mut alarm = Alarm::new(&alarms, start + ms(1_000));
            assert!(tokio::time::timeout(ms(10), rings(&mut alarm)).await.is_err());
            alarm.set(start + ms(100));
            assert_eq!(rings(&mut alarm).await, start + ms(100));
            alarm.set(start + ms(1_500));
            assert_eq!(rings(&mut alarm).await, start + ms(1_500));
            alarm.set(start);
            assert_eq!(rings(&mut alarm).await, start + ms(1_500), "what is over is over at once");
        });
    }

    #[test]
    fn the_task_ends_with_its_worker() {
        on_a_worker(async {
            let alarms = Rc::new(Alarms::default());
            let mut alarm = Alarm::new(&alarms, clock::now() + ms(1_000));
            assert!(tokio::time::timeout(ms(10), rings(&mut alarm)).await.is_err());
            let task = alarms.0.borrow().keeper.as_ref().map(|keeper| keeper.task.clone()).expect("it runs");
            drop((alarm, alarms));
            while !task.is_finished() {
                tokio::task::yield_now().await;
            }
        });
    }
}
