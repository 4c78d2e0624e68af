//! Which targets of a route fail by themselves: one address that always answers 503 while the others do well says
//! nothing of the app as a whole, and must not close the route for everybody, however often somebody asks for it.
//!
//! A target is known to fail by itself once it has failed [`RUN_MIN`] times in a row and others have done well since
//! it began to. Its further failures are no evidence then, until it does well, until nobody has done well elsewhere for
//! [`HORIZON`], until it has failed [`SHARE_MAX`] times as often as others have done well, or until it has not been asked
//! for as long. When everything fails, nothing does well elsewhere, so all of it counts. Fixed memory: of more targets
//! than [`TARGETS_MAX`] at a time, every failure counts.

use std::time::{Duration, Instant};

const RUN_MIN: u32 = 5;
/// Failures for each success elsewhere: above it the target is what the app is there for, and the others are probes.
const SHARE_MAX: u32 = 20;
const TARGETS_MAX: usize = 8;
const HORIZON: Duration = Duration::from_secs(60);

/// The targets of one route that fail at present.
#[derive(Debug, Default)]
pub struct Scope {
    failing: [Option<Failing>; TARGETS_MAX],
}

#[derive(Clone, Copy, Debug)]
struct Failing {
    target: u64,
    run: u32,
    last: Instant,
    /// When another target did well, since this one began to fail, and how often.
    well_elsewhere: Option<Instant>,
    well: u32,
}

impl Scope {
    /// `target` has failed. True when that says nothing of the others.
    pub fn failed(&mut self, target: u64, now: Instant) -> bool {
        self.forget(now);
        if let Some(known) = self.failing.iter_mut().flatten().find(|known| known.target == target) {
            let alone = known.run >= RUN_MIN
                && known.run <= known.well.saturating_mul(SHARE_MAX)
                && known.well_elsewhere.is_some_and(|at| is_fresh(at, now));
            (known.run, known.last) = (known.run.saturating_add(1), now);
            return alone;
        }
        if let Some(free) = self.failing.iter_mut().find(|place| place.is_none()) {
            *free = Some(Failing { target, run: 1, last: now, well_elsewhere: None, well: 0 });
        }
        false
    }

    /// `target` has done well.
    pub fn did_well(&mut self, target: u64, now: Instant) {
        for place in &mut self.failing {
            match place {
                Some(known) if known.target == target => *place = None,
                Some(known) => (known.well_elsewhere, known.well) = (Some(now), known.well.saturating_add(1)),
                None => {}
            }
        }
    }

    /// Nothing is known to fail.
    pub fn is_empty(&mut self, now: Instant) -> bool {
        self.forget(now);
        self.failing.iter().all(Option::is_none)
    }

    fn forget(&mut self, now: Instant) {
        for place in &mut self.failing {
            if place.is_some_and(|known| !is_fresh(known.last, now)) {
                *place = None;
            }
        }
    }
}

fn is_fresh(at: Instant, now: Instant) -> bool {
    now.saturating_duration_since(at) < HORIZON
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::testing::{Random, origin};

    fn failing(times: u32, now: Instant) -> Scope {
        let mut scope = Scope::default();
        assert!((0..times).all(|_| !scope.failed(1, now)));
        scope
    }

    #[test]
    fn one_target_that_always_fails_while_others_do_well_is_alone() {
        let now = origin();
        let mut scope = failing(RUN_MIN, now);
        scope.did_well(2, now);
        assert!(scope.failed(1, now));
        // Nobody has done well elsewhere for too long.
        let late = now + HORIZON;
        scope.failing[0].as_mut().unwrap().last = late;
        assert!(!scope.failed(1, late));
    }

    #[test]
    fn what_is_nearly_all_that_is_asked_for_is_not_alone() {
        let now = origin();
        let mut scope = failing(RUN_MIN, now);
        scope.did_well(2, now);
        let alone = (0..100).take_while(|_| scope.failed(1, now)).count();
        assert_eq!(alone as u32, SHARE_MAX - RUN_MIN + 1, "one success against twenty failures");
        scope.did_well(2, now);
        assert!(scope.failed(1, now), "two against fewer than forty");
    }

    #[test]
    fn a_short_run_or_one_without_others_counts() {
        let now = origin();
        let mut scope = failing(RUN_MIN - 1, now);
        scope.did_well(2, now);
        assert!(!scope.failed(1, now));
        assert!(!failing(RUN_MIN, now).failed(1, now), "nobody did well");
        let mut scope = Scope::default();
        scope.did_well(2, now);
        assert!((0..100).all(|_| !scope.failed(1, now)), "others did well only before it began to fail");
    }

    #[test]
    fn a_target_that_does_well_again_begins_anew() {
        let now = origin();
        let mut scope = failing(RUN_MIN, now);
        scope.did_well(2, now);
        scope.did_well(1, now);
        assert!(scope.is_empty(now));
        assert!(!scope.failed(1, now));
    }

    #[test]
    fn what_nobody_asks_for_is_forgotten() {
        let now = origin();
        let mut scope = failing(RUN_MIN, now);
        assert!(!scope.is_empty(now + HORIZON - Duration::from_nanos(1)));
        assert!(scope.is_empty(now + HORIZON));
    }

    #[test]
    fn more_targets_than_are_remembered_count_each_time() {
        let now = origin();
        let mut scope = Scope::default();
        for target in 0..TARGETS_MAX as u64 {
            (0..RUN_MIN).for_each(|_| assert!(!scope.failed(target, now)));
        }
        scope.did_well(99, now);
        assert!(scope.failed(0, now));
        assert!((0..20).all(|_| !scope.failed(50, now)));
    }

    /// However targets fail and do well, an app that fails as a whole is seen to: of failures without a success
    /// anywhere, all but those of targets known before count.
    #[test]
    fn simulation_a_whole_failure_always_counts() {
        for seed in 0..10_000u64 {
            let mut random = Random::new(seed);
            let (mut scope, mut now) = (Scope::default(), origin());
            for _ in 0..random.below(60) {
                now += Duration::from_millis(random.below(2_000));
                let target = random.below(12);
                if random.once_in(2) { scope.did_well(target, now) } else { _ = scope.failed(target, now) }
            }
            let counted = (0..40).filter(|number| !scope.failed(100 + number % 10, now)).count();
            assert_eq!(counted, 40, "seed {seed}");
            now += HORIZON;
            let counted = (0..40).filter(|number| !scope.failed(number % 12, now)).count();
            assert_eq!(counted, 40, "seed {seed}");
        }
    }
}
