//! Active checks counted into a verdict: `rise` successes in a row make healthy, `fall` failures in a row unhealthy.
//! The first check of an unknown endpoint decides alone: at start nobody wants to wait for three of them.

/// Both at least 1.
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
        self.against += 1;
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
}
