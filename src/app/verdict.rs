//! How a verb ends: an exit code, its words, and where they go.
//!
//! Exit codes are the same for every verb: 0 yes, 1 no (the check failed), 2 cannot (usage, file, no connection);
//! only to `healthcheck` nobody who answers is a no.
//! An answer goes to standard output whatever it is; what prevented an answer goes to standard error.

use std::io::{ErrorKind, Write};
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

    /// Prints it.
    pub fn print(&self) -> ExitCode {
        let newline = if self.words.is_empty() || self.words.ends_with('\n') { "" } else { "\n" };
        let text = format!("{}{newline}", self.words);
        if self.failed {
            drop(std::io::stderr().lock().write_all(text.as_bytes()));
            return ExitCode::from(self.code);
        }
        say(text.as_bytes(), self.code)
    }
}

/// Writes an answer to standard output and ends with `code`.
pub fn say(answer: &[u8], code: u8) -> ExitCode {
    let mut out = std::io::stdout().lock();
    let result = out.write_all(answer).and_then(|()| out.flush());
    written(result, code)
}

/// An answer that could not be written is none: whoever redirected it must not take half a file for the whole. A reader
/// that has gone away (`| head`) has read enough.
pub fn written(result: std::io::Result<()>, code: u8) -> ExitCode {
    match result {
        Err(cause) if cause.kind() != ErrorKind::BrokenPipe => {
            drop(writeln!(std::io::stderr().lock(), "the answer cannot be written: {cause}"));
            ExitCode::from(2)
        }
        Ok(()) | Err(_) => ExitCode::from(code),
    }
}
