//! What the checks of one dependency have come to: the verdict, since when, and why. Asking for it costs a lock and
//! never a check: whoever asks for readiness, however often, is told what is known.

use std::sync::Mutex;
use std::time::SystemTime;

use super::journal::lock;
use crate::core::health::{Health, Params};

/// The living state of one dependency.
#[derive(Default)]
pub struct DependencyState(Mutex<Known>);

/// What is known.
#[derive(Clone, Debug, Default)]
pub struct Known {
    health: Health,
    /// `None` until a check has decided.
    pub well: Option<bool>,
    /// Whether it ever was.
    pub seen_well: bool,
    /// Since when the verdict is what it is.
    pub since: Option<SystemTime>,
    /// When it was last asked, and what was wrong then.
    pub asked: Option<SystemTime>,
    pub problem: Option<String>,
}

impl DependencyState {
    /// Counts one check; the new verdict when it changed.
    pub fn checked(&self, result: Result<(), String>, params: &Params, wall: SystemTime) -> Option<bool> {
        let mut known = lock(&self.0);
        let changed = known.health.record(result.is_ok(), params);
        known.asked = Some(wall);
        known.problem = result.err();
        if let Some(well) = changed {
            known.well = changed;
            known.since = Some(wall);
            known.seen_well |= well;
        }
        changed
    }

    pub fn known(&self) -> Known {
        lock(&self.0).clone()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_failure_counts_when_it_is_confirmed_and_success_at_once() {
        let params = Params { rise: 1, fall: 2 };
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let state = DependencyState::default();
        let bad = || Err("refused".to_owned());
        assert_eq!(state.checked(Ok(()), &params, at(1)), Some(true));
        assert_eq!(state.checked(bad(), &params, at(2)), None);
        assert_eq!((state.known().well, state.known().problem.as_deref()), (Some(true), Some("refused")));
        assert_eq!(state.checked(bad(), &params, at(3)), Some(false));
        assert_eq!(state.checked(bad(), &params, at(4)), None, "told once");
        let known = state.known();
        assert_eq!(
            (known.well, known.seen_well, known.since, known.asked),
            (Some(false), true, Some(at(3)), Some(at(4)))
        );
        assert_eq!(state.checked(Ok(()), &params, at(5)), Some(true));
        assert_eq!((state.known().problem, state.known().since), (None, Some(at(5))));
    }
}
