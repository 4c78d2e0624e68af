//! The monotonic clock. It goes through tokio so that a test can pause it; floors above read it as `state::clock`.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::time::{Duration, Instant};

/// The monotonic time.
pub fn now() -> Instant {
    match HELD.get() {
        Held::No => read(),
        Held::At(now) => now,
        Held::Unread => {
            let now = read();
            HELD.set(Held::At(now));
            now
        }
    }
}

/// The time itself, also while the clock is held: for how long something took that may be over within one poll.
pub fn unheld() -> Instant {
    read()
}

fn read() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// The clock is read once at most during `work` on this thread, which is one poll of a task: what it decides, it
/// decides at one time. Measured times are right to the length of a poll.
fn hold<T>(work: impl FnOnce() -> T) -> T {
    let _before = Before(HELD.replace(Held::Unread));
    work()
}

/// `work`, with the clock held each time it is polled. It is only lent, so that its memory is not needed twice.
pub async fn held<F: Future>(mut work: Pin<&mut F>) -> F::Output {
    poll_fn(|cx| hold(|| work.as_mut().poll(cx))).await
}

/// For the runtime to call when it has looked at all sockets of this thread.
pub fn looked() {
    LOOKED.set(Some(read()));
}

/// Whether all sockets of this thread were looked at just now, so that nothing is learned by looking again.
pub fn is_fresh() -> bool {
    LOOKED.get().is_some_and(|at| now().saturating_duration_since(at) < FRESH)
}

/// About what the runtime needs from a look at the sockets to the task that it was made for.
const FRESH: Duration = Duration::from_micros(50);

/// The time of the poll that is under way.
#[derive(Clone, Copy)]
enum Held {
    No,
    Unread,
    At(Instant),
}

/// Puts back what held before, also when the work panics.
struct Before(Held);

impl Drop for Before {
    fn drop(&mut self) {
        HELD.set(self.0);
    }
}

thread_local! {
    static HELD: Cell<Held> = const { Cell::new(Held::No) };
    static LOOKED: Cell<Option<Instant>> = const { Cell::new(None) };
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn between_polls_time_goes_on() {
        let (first, second) = held(pin!(async {
            let first = now();
            tokio::time::sleep(Duration::from_millis(5)).await;
            (first, now())
        }))
        .await;
        assert_eq!(second - first, Duration::from_millis(5));
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_at_the_sockets_grows_old() {
        assert!(!is_fresh(), "nobody has told of one");
        looked();
        tokio::time::advance(FRESH - Duration::from_nanos(1)).await;
        assert!(is_fresh());
        tokio::time::advance(Duration::from_nanos(1)).await;
        assert!(!is_fresh());
    }

    #[test]
    fn a_held_clock_stands_until_its_work_is_over() {
        let later = |since: Instant| {
            while read() == since {}
        };
        let (first, second) = hold(|| {
            let first = now();
            later(first);
            (first, now())
        });
        assert_eq!(first, second);
        assert!(now() > first);
        let panicked = std::panic::catch_unwind(|| hold(|| assert!(now() < first, "time goes on")));
        assert!(panicked.is_err());
        let start = now();
        later(start);
        assert!(now() > start);
    }
}
