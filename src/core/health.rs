//! Active checks counted into a verdict: `rise` successes in a row make healthy, `fall` failures in a row unhealthy.
//! The first check of an unknown endpoint decides alone: at start nobody wants to wait for three of them.
//!
//! Why a check failed, and when the next one is due, is not known here.

/// Both at least 1; 0 counts as 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Params {
    pub rise: u32,
    pub fall: u32,
}

/// The verdict on one endpoint; unknown until the first check.
#[derive(Clone, Debug, Default)]
pub struct Health {
    verdict: Option<bool>,
    /// Checks in a row that spoke against the verdict.
    against: u32,
}

impl Health {
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts one check; the new verdict when it changed.
    pub fn record(&mut self, ok: bool, params: &Params) -> Option<bool> {
        let needed = match self.verdict {
            None => 1,
            Some(verdict) if verdict == ok => {
                self.against = 0;
                return None;
            }
            Some(true) => params.fall,
            Some(false) => params.rise,
        };
        self.against = self.against.saturating_add(1);
        if self.against < needed {
            return None;
        }
        self.against = 0;
        self.verdict = Some(ok);
        self.verdict
    }

    pub fn healthy(&self) -> Option<bool> {
        self.verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_check_decides_and_then_runs_do() {
        let params = Params { rise: 2, fall: 3 };
        let mut health = Health::new();
        assert_eq!(health.healthy(), None);
        assert_eq!(health.record(true, &params), Some(true));
        let told: Vec<_> = [false, false, true, false, false, false, true, false, true, true]
            .map(|ok| health.record(ok, &params))
            .into();
        assert_eq!(told, [None, None, None, None, None, Some(false), None, None, None, Some(true)]);
    }

    #[test]
    fn a_first_failure_makes_unhealthy_at_once() {
        let mut health = Health::new();
        assert_eq!(health.record(false, &Params { rise: 1, fall: 3 }), Some(false));
        assert_eq!(health.record(true, &Params { rise: 1, fall: 3 }), Some(true));
    }

    /// The verdict turns at exactly the run length, whatever it is, and a lowered one counts what is already seen.
    #[test]
    fn it_turns_at_the_length_and_not_before() {
        for length in [0, 1, 2, 3, 10] {
            let params = Params { rise: length, fall: length };
            let mut health = Health::new();
            health.record(true, &params);
            for _ in 1..length {
                assert_eq!(health.record(false, &params), None);
                assert_eq!(health.healthy(), Some(true));
            }
            assert_eq!(health.record(false, &params), Some(false));
        }
        let mut health = Health::new();
        health.record(true, &Params { rise: 1, fall: 9 });
        (0..4).for_each(|_| assert_eq!(health.record(false, &Params { rise: 1, fall: 9 }), None));
        assert_eq!(health.record(false, &Params { rise: 1, fall: 3 }), Some(false));
    }
}
