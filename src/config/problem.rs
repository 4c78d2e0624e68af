//! What is wrong with a configuration, in a form that tells where, what, what was expected, and what to do.
//! A problem never shows a value that came from a variable, a file or a key that holds a secret, and never a
//! neighbouring line.

use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};

/// A place in a file; lines and columns count from 1.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Location {
    /// Shared: every value of a file has its place.
    #[serde(serialize_with = "text")]
    pub file: Arc<str>,
    pub line: usize,
    pub column: usize,
}

impl fmt::Display for Location {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}:{}", self.file, self.line, self.column)
    }
}

fn text<S: Serializer>(text: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The text is wrong, or means something impossible.
    Wrong,
    /// The key is right, but this version cannot do it yet.
    NotYet,
}

/// One problem.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    pub kind: Kind,
    /// `routes[2].retry.attempts`; empty for the file as a whole.
    pub path: String,
    pub at: Option<Location>,
    pub found: String,
    pub expected: String,
    /// What to do.
    pub hint: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(at) = &self.at {
            write!(out, "{at}: ")?;
        }
        let path = if self.path.is_empty() { "the file" } else { &self.path };
        writeln!(out, "{path}")?;
        writeln!(out, "  found:    {}", self.found)?;
        write!(out, "  expected: {}", self.expected)?;
        if let Some(hint) = &self.hint {
            write!(out, "\n  hint:     {hint}")?;
        }
        Ok(())
    }
}
