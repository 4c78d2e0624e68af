//! Closing what has been idle for too long, without a task or a timer per connection.
//!
//! One small task per set of connections, alive only while the set is not empty. Being up to half an idle timeout late
//! is harmless: an expired connection is never taken, it only keeps its descriptor a little longer.

use std::cell::RefCell;
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

use tokio::task::AbortHandle;

use super::clock::now;

/// A set of connections that can be swept.
pub(super) trait Sweep {
    /// Closes what expired before `now`. Returns whether anything is left to come back for.
    fn sweep(&self, now: Instant) -> bool;
    fn sweeper(&self) -> &Sweeper;
}

/// The running task, if there is one; ends with its set.
#[derive(Default)]
pub(super) struct Sweeper(RefCell<Option<AbortHandle>>);

impl Sweeper {
    /// Starts the task unless it runs already. `timeout` is the set's idle timeout.
    pub(super) fn ensure<S: Sweep + 'static>(&self, set: &Weak<S>, timeout: Duration) {
        let mut running = self.0.borrow_mut();
        if running.is_some() {
            return;
        }
        let set = Weak::clone(set);
        let pause = (timeout / 2).clamp(PAUSE_MIN, PAUSE_MAX);
        let task = tokio::task::spawn_local(async move {
            loop {
                tokio::time::sleep(pause).await;
                let Some(set): Option<Rc<S>> = set.upgrade() else { return };
                if !set.sweep(now()) {
                    set.sweeper().0.borrow_mut().take();
                    return;
                }
            }
        });
        *running = Some(task.abort_handle());
    }
}

impl Drop for Sweeper {
    fn drop(&mut self) {
        if let Some(task) = self.0.get_mut() {
            task.abort();
        }
    }
}

const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(5);
