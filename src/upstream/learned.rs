//! How long the app really keeps an idle connection: learned from when it closes them.
//!
//! A request that may not be sent twice must not be written to a connection the app is about to close, and no proxy
//! can know the app's setting. The shortest idle age at which the app closed a connection is the only evidence, plus
//! `Keep-Alive: timeout=` where the app says it. Half of it is trusted, and less when that is no margin on a busy
//! machine; requests that may be repeated are content with three quarters. Pure: ages are arguments.
//!
//! Some apps close after each answer and do not say so. Until one connection was seen alive after a rest, none is
//! trusted with a request that may not be sent twice.
//!
//! A restart of the app closes connections of every age and would teach a far too short time for ever, so contrary
//! evidence counts: after [`SURVIVORS_TO_FORGET`] connections in a row were alive at an age above what was learned, the
//! shortest of those ages is believed instead.

use std::time::{Duration, Instant};

#[derive(Debug, Default)]
pub(super) struct IdleTimeout {
    shortest: Option<Duration>,
    survivors: u32,
    survivors_shortest: Duration,
    /// When the last survivor was counted.
    counted: Option<Instant>,
    /// The app keeps connections at all.
    keeps: bool,
}

impl IdleTimeout {
    /// The app closed a connection that had been idle for `age`.
    pub(super) fn closed_after(&mut self, age: Duration) {
        self.survivors = 0;
        self.shortest = Some(self.shortest.map_or(age, |shortest| shortest.min(age)));
    }

    /// The app said how long it keeps idle connections.
    pub(super) fn announced(&mut self, timeout: Duration) {
        self.keeps = true;
        self.shortest = Some(self.shortest.map_or(timeout, |shortest| shortest.min(timeout)));
    }

    /// A connection was alive after having been idle for `age`; `now` is asked only where it matters.
    pub(super) fn survived(&mut self, age: Duration, now: impl FnOnce() -> Instant) {
        self.keeps |= age >= SCHEDULING;
        let Some(shortest) = self.shortest else { return };
        if age <= shortest {
            return;
        }
        let now = now();
        if self.survivors > 0 && self.counted.is_some_and(|counted| now < counted + SCHEDULING) {
            return;
        }
        self.counted = Some(now);
        self.survivors_shortest = if self.survivors == 0 { age } else { self.survivors_shortest.min(age) };
        self.survivors += 1;
        if self.survivors >= SURVIVORS_TO_FORGET {
            self.shortest = Some(self.survivors_shortest);
            self.survivors = 0;
        }
    }

    /// The learned timeout, if anything was learned yet.
    pub(super) fn learned(&self) -> Option<Duration> {
        self.shortest
    }

    /// Whether the app is known to keep connections between requests.
    pub(super) fn is_kept(&self) -> bool {
        self.keeps
    }

    /// Idle for less than this is safe for a request that may not be sent twice. `configured` is our own idle timeout,
    /// which the operator keeps below the app's.
    pub(super) fn trusted_age(&self, configured: Duration) -> Duration {
        if !self.keeps {
            return Duration::ZERO;
        }
        let timeout = self.shortest.map_or(configured, |shortest| shortest.min(configured));
        (timeout / 2).min(timeout.saturating_sub(SCHEDULING))
    }

    /// Idle for less than this is worth trying for a request that may be sent twice: losing the race costs a retry.
    pub(super) fn usable_age(&self, configured: Duration) -> Duration {
        self.shortest.map_or(configured, |shortest| configured.min(shortest / 4 * 3))
    }
}

/// How late a busy machine may run either side. An app that closes sooner than this gets a fresh connection for each
/// request that may not be sent twice: half of a few milliseconds is no margin.
const SCHEDULING: Duration = Duration::from_millis(100);

/// How many older connections in a row outweigh what was learned, each seen [`SCHEDULING`] after the one before: when
/// a machine stalls, the app closes late, and many connections at once look older than the app would let them become.
const SURVIVORS_TO_FORGET: u32 = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::clock::now;

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn half_of_the_shortest_closing_age_is_trusted() {
        // Goal: nothing learned means half of our own timeout; then half of the minimum, never above our own.
        let mut idle = IdleTimeout::default();
        assert_eq!(idle.trusted_age(ms(4000)), ms(0), "it may close after each answer");
        idle.survived(SCHEDULING - ms(1), now);
        assert_eq!(idle.trusted_age(ms(4000)), ms(0));
        idle.survived(SCHEDULING, now);
        assert_eq!(idle.trusted_age(ms(4000)), ms(2000));
        idle.closed_after(ms(20));
        idle.closed_after(ms(900));
        assert_eq!(idle.learned(), Some(ms(20)));
        assert_eq!(idle.trusted_age(ms(4000)), ms(0), "no margin at all");
        assert_eq!(idle.usable_age(ms(4000)), ms(15));
        let mut brief = IdleTimeout { keeps: true, ..IdleTimeout::default() };
        brief.closed_after(ms(150));
        assert_eq!(brief.trusted_age(ms(4000)), ms(50));
        let mut short = IdleTimeout { keeps: true, ..IdleTimeout::default() };
        short.closed_after(ms(900));
        assert_eq!(short.trusted_age(ms(4000)), ms(450));
        let mut generous = IdleTimeout::default();
        generous.announced(ms(60_000));
        assert_eq!(generous.trusted_age(ms(4000)), ms(2000));
        assert_eq!(generous.usable_age(ms(4000)), ms(4000));
    }

    #[test]
    fn an_app_restart_does_not_poison_for_ever() {
        // Goal: exactly SURVIVORS_TO_FORGET contrary reuses relearn; one closing in between starts the count anew.
        let (mut idle, start) = (IdleTimeout::default(), now());
        let at = |n: u64| move || start + SCHEDULING * u32::try_from(n).expect("small");
        idle.closed_after(ms(1));
        for n in 1..u64::from(SURVIVORS_TO_FORGET) {
            idle.survived(ms(500), at(n));
        }
        assert_eq!(idle.learned(), Some(ms(1)));
        idle.closed_after(ms(3));
        for n in 0..u64::from(SURVIVORS_TO_FORGET) {
            assert_eq!(idle.learned(), Some(ms(1)));
            idle.survived(ms(500 - n), at(n));
        }
        assert_eq!(idle.learned(), Some(ms(493)));
        idle.survived(ms(493), at(99));
        assert_eq!(idle.survivors, 0, "an age equal to what is learned is no contrary evidence");
    }

    #[test]
    fn many_survivors_of_one_stall_are_one() {
        // Seen: twelve POSTs lost at once, after a stall of 120 ms before an app that closes after 1 to 50 ms.
        let (mut idle, start) = (IdleTimeout { keeps: true, ..IdleTimeout::default() }, now());
        idle.closed_after(ms(20));
        for _ in 0..100 {
            idle.survived(ms(170), || start);
            idle.survived(ms(170), || start + SCHEDULING - ms(1));
        }
        assert_eq!((idle.learned(), idle.trusted_age(ms(4000))), (Some(ms(20)), ms(0)));
    }
}
