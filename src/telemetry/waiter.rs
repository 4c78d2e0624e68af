//! Waiting for other threads with one deadline for all of them: a drain has a budget, and neither a full pipe nor a
//! silent collector may spend more than that.

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use super::metrics::lock;

/// Counts promises that have not been kept.
#[derive(Debug, Default)]
pub struct Waiter {
    open: Mutex<usize>,
    changed: Condvar,
}

/// Somebody's promise to finish; kept when it is dropped.
#[derive(Debug)]
pub struct Promise(Arc<Waiter>);

impl Waiter {
    pub fn promise(self: &Arc<Self>) -> Promise {
        *lock(&self.open) += 1;
        Promise(self.clone())
    }

    /// Waits until every promise is kept; false if the time was not enough.
    pub fn wait(&self, at_most: Duration) -> bool {
        let open = lock(&self.open);
        match self.changed.wait_timeout_while(open, at_most, |open| *open > 0) {
            Ok((open, _)) => *open == 0,
            Err(poisoned) => *poisoned.into_inner().0 == 0,
        }
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        *lock(&self.0.open) -= 1;
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_ends_with_the_last_promise_or_with_the_time() {
        let waiter = Arc::new(Waiter::default());
        assert!(waiter.wait(Duration::ZERO));
        let (kept, broken) = (waiter.promise(), waiter.promise());
        let other = std::thread::spawn(move || drop(kept));
        other.join().unwrap();
        assert!(!waiter.wait(Duration::from_millis(1)));
        drop(broken);
        assert!(waiter.wait(Duration::ZERO));
    }
}
