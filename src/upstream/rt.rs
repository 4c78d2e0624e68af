//! The executor hyper's HTTP/2 needs, for a thread that runs a `LocalSet`.
//!
//! `spawn_local` is enough because a connection never leaves the worker that opened it; it is also what lets bodies
//! hold `Rc`. Outside a `LocalSet` it panics, which is why probes (they may run on the control runtime) do not use it.

use std::future::Future;

/// Spawns onto the current thread's `LocalSet`.
#[derive(Clone, Copy, Debug, Default)]
pub struct LocalExecutor;

impl<F> hyper::rt::Executor<F> for LocalExecutor
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}
