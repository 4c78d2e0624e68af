//! Switches that stand before a route: maintenance of the whole service or of one route, read-only mode, and flags
//! that disable a route. The file says where each stands; a command overrides it until its expiry, so that nobody has
//! to remember to undo what was done at night.

/// Where a switch stands, the mildest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Position {
    /// Everything passes.
    #[default]
    Open,
    /// Safe methods pass (RFC 9110 §9.2.1).
    ReadOnly,
    /// Nothing passes.
    Closed,
}

impl Position {
    pub const ALL: [Position; 3] = [Position::Open, Position::ReadOnly, Position::Closed];

    /// The word for it where maintenance is spoken of.
    pub fn label(self) -> &'static str {
        match self {
            Position::Open => "off",
            Position::ReadOnly => "read_only",
            Position::Closed => "on",
        }
    }

    /// `read-only` is understood too, because that is how it is typed on a command line.
    pub fn parse(text: &str) -> Option<Position> {
        let text = if text == "read-only" { "read_only" } else { text };
        Position::ALL.into_iter().find(|position| position.label() == text)
    }
}

/// Why a request does not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Barred {
    Maintenance,
    ReadOnly,
    Disabled,
}

/// What stands before one route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The stricter of the service's switch and the route's.
    pub maintenance: Position,
    /// The route's flag, if it has one, is on.
    pub enabled: bool,
}

impl Standing {
    /// Nothing is thrown.
    pub const OPEN: Standing = Standing { maintenance: Position::Open, enabled: true };

    /// Whether a request is barred: `safe` is its method, `exempt` its client. An exempt client passes maintenance, so
    /// that the people who work on the service can try it, but no client passes a flag.
    pub fn bars(self, safe: bool, exempt: bool) -> Option<Barred> {
        if !self.enabled {
            return Some(Barred::Disabled);
        }
        match self.maintenance {
            Position::ReadOnly if !safe && !exempt => Some(Barred::ReadOnly),
            Position::Closed if !exempt => Some(Barred::Maintenance),
            Position::Open | Position::ReadOnly | Position::Closed => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_position_bars_what_it_says() {
        let bars = |maintenance, enabled, safe, exempt| Standing { maintenance, enabled }.bars(safe, exempt);
        for (safe, exempt) in [(true, true), (true, false), (false, true), (false, false)] {
            assert_eq!(bars(Position::Open, true, safe, exempt), None);
            for position in Position::ALL {
                assert_eq!(bars(position, false, safe, exempt), Some(Barred::Disabled));
            }
            let closed = if exempt { None } else { Some(Barred::Maintenance) };
            assert_eq!(bars(Position::Closed, true, safe, exempt), closed);
        }
        assert_eq!(bars(Position::ReadOnly, true, true, false), None);
        assert_eq!(bars(Position::ReadOnly, true, false, false), Some(Barred::ReadOnly));
        assert_eq!(bars(Position::ReadOnly, true, false, true), None);
    }

    #[test]
    fn the_stricter_of_two_is_the_greater() {
        assert_eq!(Position::ReadOnly.max(Position::Open), Position::ReadOnly);
        assert_eq!(Position::ReadOnly.max(Position::Closed), Position::Closed);
    }

    #[test]
    fn words_are_understood_as_they_are_written() {
        for position in Position::ALL {
            assert_eq!(Position::parse(position.label()), Some(position));
        }
        assert_eq!(Position::parse("read-only"), Some(Position::ReadOnly));
        assert_eq!(Position::parse("maybe"), None);
    }
}
