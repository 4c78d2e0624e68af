//! What matters more when not all can be served: four priorities, as operators and a request's header name them.

/// How important a request is. The order is the order of service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    Critical,
    Default,
    Batch,
    Sheddable,
}

impl Priority {
    pub const ALL: [Priority; 4] = [Priority::Critical, Priority::Default, Priority::Batch, Priority::Sheddable];

    pub fn label(self) -> &'static str {
        match self {
            Priority::Critical => "critical",
            Priority::Default => "default",
            Priority::Batch => "batch",
            Priority::Sheddable => "sheddable",
        }
    }

    pub fn parse(word: &str) -> Option<Priority> {
        Priority::ALL.into_iter().find(|priority| priority.label() == word)
    }
}

/// The share of the limit that each priority may use before a more important request goes first.
pub const SHARES: [f64; 4] = [0.0, 0.10, 0.05, 0.0];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn priorities_are_known_by_their_words() {
        let words = ["critical", "default", "batch", "sheddable"];
        assert_eq!(Priority::ALL.map(Priority::label), words);
        assert_eq!(words.map(Priority::parse), Priority::ALL.map(Some));
        assert_eq!([Priority::parse(""), Priority::parse("Critical")], [None, None]);
    }
}
