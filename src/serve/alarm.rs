//! What watches a connection beside its protocol: the worker's orders and the connection's one timer.
//!
//! The timer is moved when it fires or must fire earlier, never because a request passes; see `activity` for the facts.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::task::coop;
use tokio::time::{Instant, Sleep, sleep_until};

use super::activity::{Activity, Due, Limits, millis};
use super::worker::{Order, Seat};
use crate::state::clock;

/// No timer is armed.
const NEVER: u64 = u64::MAX;

/// The watch over one connection.
pub struct Watch<'a> {
    seat: &'a Seat,
    activity: &'a Activity,
    limits: &'a Limits,
    alarm: Alarm,
    /// Since when the connection is to end as soon as it is idle.
    closing: Option<u64>,
}

/// What a connection is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// To end at once.
    Cut,
    /// To end when it is idle; told once.
    Close,
    /// A deadline has passed.
    Due(Due),
}

impl<'a> Watch<'a> {
    pub fn new(seat: &'a Seat, activity: &'a Activity, limits: &'a Limits) -> Self {
        Watch { seat, activity, limits, alarm: Alarm { sleep: None, armed: NEVER }, closing: None }
    }

    /// To be polled whenever the connection has nothing else to do.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Told> {
        match self.seat.order() {
            Order::Cut => return Poll::Ready(Told::Cut),
            Order::Close { since } if self.closing.is_none() => {
                self.closing = Some(since);
                return Poll::Ready(Told::Close);
            }
            Order::Serve | Order::Close { .. } => {}
        }
        let due = self.activity.due(self.limits, self.closing);
        self.alarm.poll_due(cx, due).map(Told::Due)
    }

    pub fn is_closing(&self) -> bool {
        self.closing.is_some()
    }

    /// The connection decides by itself to end when it is idle.
    pub fn close(&mut self) {
        self.closing = Some(millis(clock::now()));
    }
}

/// The connection's one timer. A deadline that moves later costs nothing until the old one fires.
struct Alarm {
    sleep: Option<Pin<Box<Sleep>>>,
    /// What `sleep` waits for, in milliseconds.
    armed: u64,
}

impl Alarm {
    /// Ready when `due` has come. Not polling the sleep on every wake is sound because a task's waker stays the same.
    fn poll_due(&mut self, cx: &mut Context<'_>, due: Option<(u64, Due)>) -> Poll<Due> {
        if self.armed != NEVER && self.sleep.as_ref().is_some_and(|sleep| sleep.is_elapsed()) {
            self.armed = NEVER;
        }
        let Some((at, what)) = due else { return Poll::Pending };
        if at >= self.armed {
            return Poll::Pending;
        }
        let now = clock::now();
        let left = Duration::from_millis(at.saturating_sub(millis(now)));
        if left.is_zero() {
            return Poll::Ready(what);
        }
        let deadline = Instant::from_std(now + left);
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        sleep.as_mut().reset(deadline);
        // A sleep does not hear of a task that has spent its turn's budget, and such a task is polled again at once.
        self.armed = if coop::has_budget_remaining() { at } else { NEVER };
        sleep.as_mut().poll(cx).map(|()| {
            self.armed = NEVER;
            what
        })
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_task_that_has_spent_its_budget_is_woken_all_the_same() {
        let (mut alarm, at) = (Alarm { sleep: None, armed: NEVER }, millis(clock::now()) + 500);
        let mut spends = true;
        let woken = poll_fn(|cx| {
            while spends && coop::has_budget_remaining() {
                let _ = pin!(coop::consume_budget()).as_mut().poll(cx);
            }
            spends = false;
            alarm.poll_due(cx, Some((at, Due::Idle)))
        });
        let woken = tokio::time::timeout(Duration::from_secs(60), woken).await;
        assert_eq!((woken, millis(clock::now())), (Ok(Due::Idle), at), "woken by its end, and not by something else");
    }
}
