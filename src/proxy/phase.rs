//! The steps of a request, in order. Their names are the metric label, the log field and the docs' headings.

/// One step; the order is part of the product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    Receive,
    Identify,
    Route,
    Redirect,
    Access,
    Validate,
    Admit,
    Attempt,
    Respond,
    Stream,
    Settle,
}

impl Phase {
    pub const ALL: [Phase; 11] = [
        Phase::Receive,
        Phase::Identify,
        Phase::Route,
        Phase::Redirect,
        Phase::Access,
        Phase::Validate,
        Phase::Admit,
        Phase::Attempt,
        Phase::Respond,
        Phase::Stream,
        Phase::Settle,
    ];

    pub fn label(self) -> &'static str {
        match self {
            Phase::Receive => "receive",
            Phase::Identify => "identify",
            Phase::Route => "route",
            Phase::Redirect => "redirect",
            Phase::Access => "access",
            Phase::Validate => "validate",
            Phase::Admit => "admit",
            Phase::Attempt => "attempt",
            Phase::Respond => "respond",
            Phase::Stream => "stream",
            Phase::Settle => "settle",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::PHASES;

    #[test]
    fn the_phases_that_are_timed_are_called_as_they_are_here() {
        assert_eq!(PHASES, [Phase::Admit, Phase::Attempt, Phase::Stream].map(Phase::label));
    }
}
