//! A switch as commands have set it: over what the file says, until its expiry. Requests look at one atomic; only a
//! switch that a command holds costs them a lock.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Instant, SystemTime};

use ipnet::IpNet;

use super::clock;
use super::journal::lock;
use crate::core::switch::Position;

/// What a command has said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    pub position: Position,
    pub until: Instant,
    /// The same moment for people.
    pub until_wall: SystemTime,
    pub by: String,
    pub why: String,
    /// Clients that pass beside those the file names.
    pub allow: Vec<IpNet>,
}

/// One switch: the service's, a route's or a flag.
#[derive(Default)]
pub struct SwitchState {
    ordered: AtomicBool,
    order: Mutex<Option<Order>>,
}

impl SwitchState {
    /// The order in force, if any.
    pub fn order(&self, now: Instant) -> Option<Order> {
        if !self.ordered.load(Ordering::Acquire) {
            return None;
        }
        lock(&self.order).as_ref().filter(|order| now < order.until).cloned()
    }

    /// Sets or clears the order.
    pub fn give(&self, order: Option<Order>) {
        let mut held = lock(&self.order);
        self.ordered.store(order.is_some(), Ordering::Release);
        *held = order;
    }

    /// Takes back the order if its time is over, and returns it.
    pub fn expire(&self) -> Option<Order> {
        let mut held = lock(&self.order);
        let over = held.take_if(|order| order.until <= clock::now());
        self.ordered.store(held.is_some(), Ordering::Release);
        over
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn order(until: Instant) -> Order {
        let (by, why) = ("ann".to_owned(), String::new());
        Order { position: Position::Closed, until, until_wall: clock::wall(), by, why, allow: Vec::new() }
    }

    #[test]
    fn an_order_holds_until_its_expiry_and_is_taken_back_once() {
        let (switch, now) = (SwitchState::default(), clock::now());
        assert_eq!(switch.order(now), None);
        let until = now + Duration::from_secs(60);
        switch.give(Some(order(until)));
        assert_eq!(switch.order(now).map(|held| (held.position, held.by)), Some((Position::Closed, "ann".to_owned())));
        assert_eq!(switch.order(until), None);
        assert_eq!(switch.expire(), None, "not over yet");
        switch.give(Some(order(now)));
        assert!(switch.expire().is_some());
        assert!(switch.expire().is_none());
    }

    #[test]
    fn an_order_can_be_taken_back() {
        let (switch, now) = (SwitchState::default(), clock::now());
        switch.give(Some(order(now + Duration::from_secs(60))));
        switch.give(None);
        assert_eq!(switch.order(now), None);
    }
}
