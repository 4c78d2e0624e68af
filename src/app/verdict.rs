//! How a verb ends: an exit code, its words, and where they go.
//!
//! Exit codes are the same for every verb: 0 yes, 1 no (the check failed), 2 cannot (usage, file, no connection).
//! An answer goes to standard output whatever it is; what prevented an answer goes to standard error.

use std::io::Write;
use std::process::ExitCode;

/// What a verb ends with.
#[derive(Debug, PartialEq, Eq)]
pub struct Verdict {
    code: u8,
    words: String,
    /// The words are what prevented an answer, not the answer.
    failed: bool,
}

impl Verdict {
    pub fn yes(words: impl Into<String>) -> Verdict {
        Verdict { code: 0, words: words.into(), failed: false }
    }

    /// The answer is no.
    pub fn no(words: impl Into<String>) -> Verdict {
        Verdict { code: 1, words: words.into(), failed: false }
    }

    /// There is no answer.
    pub fn cannot(words: impl Into<String>) -> Verdict {
        Verdict { code: 2, words: words.into(), failed: true }
    }

    /// The answer is that the file has problems: `check` exits 2, and the problems are what was asked for.
    pub fn problems(words: impl Into<String>) -> Verdict {
        Verdict { code: 2, words: words.into(), failed: false }
    }

    pub fn code(&self) -> u8 {
        self.code
    }

    pub fn words(&self) -> &str {
        &self.words
    }

    /// Prints it. A reader that has gone away (`| head`) is no failure.
    pub fn print(&self) -> ExitCode {
        let newline = if self.words.is_empty() || self.words.ends_with('\n') { "" } else { "\n" };
        let text = format!("{}{newline}", self.words);
        if self.failed {
            drop(std::io::stderr().lock().write_all(text.as_bytes()));
        } else {
            drop(std::io::stdout().lock().write_all(text.as_bytes()));
        }
        ExitCode::from(self.code)
    }
}
