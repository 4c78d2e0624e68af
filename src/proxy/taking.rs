//! Answers on HTTP/2 that wait for their clients, and until when. A client that opens no window is not a blocked socket,
//! and its body is not even polled, so that no timer of the body ends it: the worker's tick looks instead.
//!
//! Each piece has to be taken within a time, or at a rate where that gives it longer. After that the answer is cut and
//! everything it held is given back; its stream is reset as soon as it can be. No clock is read as pieces pass.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body as _, Frame};

use super::body::{Body, BodyError};

/// A client that does not take the next piece of an answer for this long is gone.
pub const TAKE_MAX: Duration = Duration::from_secs(60);
/// Bytes a second that give a large piece longer.
const RATE_MIN: u64 = 240;

/// A body, and whether it is its client's turn.
pub struct Taken {
    pub(super) body: Body,
    waits: bool,
    /// The first look that found the client waited for.
    since: Option<Instant>,
    /// Bytes of the piece that it took last, which may still be on the way.
    piece: u64,
}

/// One worker's.
#[derive(Default)]
pub struct Taking(RefCell<Vec<Weak<RefCell<Taken>>>>);

impl Taking {
    pub fn watch(&self, body: Body) -> Rc<RefCell<Taken>> {
        let taken = Rc::new(RefCell::new(Taken { body, waits: true, since: None, piece: 0 }));
        self.0.borrow_mut().push(Rc::downgrade(&taken));
        taken
    }

    /// By the worker's tick.
    pub fn look(&self, now: Instant) {
        self.0.borrow_mut().retain(|taken| {
            let Some(taken) = taken.upgrade() else { return false };
            // It is borrowed only while it is polled, and nothing is polled now.
            taken.try_borrow_mut().map_or(true, |mut taken| taken.look(now))
        });
    }
}

impl Taken {
    pub fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        self.since = None;
        self.waits = polled.is_ready();
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            self.piece = frame.data_ref().map_or(0, |data| data.len() as u64);
        }
        polled
    }

    /// Whether it is to be looked at again.
    fn look(&mut self, now: Instant) -> bool {
        if !self.waits {
            return true;
        }
        let since = *self.since.get_or_insert(now);
        let late = now.saturating_duration_since(since) >= TAKE_MAX.max(Duration::from_secs(self.piece / RATE_MIN));
        if late {
            self.body.cut(BodyError::ClientStalled);
        }
        !late
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    #[test]
    fn what_is_not_taken_in_its_time_is_cut() {
        let taking = Taking::default();
        let taken = taking.watch(Body::full(vec![b'x'; 24_000]));
        let cut = || taken.borrow_mut().poll_frame(&mut Context::from_waker(Waker::noop()));
        let start = crate::state::clock::now();
        taking.look(start);
        taking.look(start + TAKE_MAX - Duration::from_millis(1));
        assert!(matches!(cut(), Poll::Ready(Some(Ok(_)))), "taken in the last moment");
        // The piece has 100 seconds to arrive.
        taking.look(start);
        taking.look(start + Duration::from_millis(99_999));
        assert_eq!(taking.0.borrow().len(), 1);
        taking.look(start + Duration::from_secs(100));
        assert!(taking.0.borrow().is_empty());
        assert!(matches!(cut(), Poll::Ready(Some(Err(BodyError::ClientStalled)))));
    }
}
