//! The text of a configuration through all that `outrigger check` does: read, checked, compiled. Asserts: no panic on any
//! text; each problem says something, and its place lies in the text; a file that is refused has a problem; the same text
//! gives the same answer. Secret files are not looked for.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use outrigger::config::{Problem, load_text};
use outrigger::plan::compile::compile;
use outrigger::state::states::States;
use outrigger::telemetry::{Options, Telemetry};

const NAME: &str = "fuzzed.yaml";

fuzz_target!(|text: &str| {
    if text.contains("file:") {
        return;
    }
    let env = |name: &str| (name == "SET").then(|| "a value".to_owned());
    let load = || load_text(text, NAME, Path::new("/does/not/exist"), &env);
    match load() {
        Err(problems) => {
            assert!(!problems.is_empty(), "refused without a problem");
            problems.iter().for_each(|problem| judge(problem, text));
            assert_eq!(load().err(), Some(problems));
        }
        Ok(loaded) => {
            let telemetry = Telemetry::start(Options::default(), 1).expect("nothing is written anywhere");
            if let Err(problems) = compile(&loaded.settings, &loaded.hash, &States::default(), &telemetry) {
                assert!(problems.iter().all(|problem| !problem.words.is_empty()));
                assert!(!problems.is_empty(), "refused without a problem");
            }
        }
    }
});

fn judge(problem: &Problem, text: &str) {
    assert!(!problem.found.is_empty() && !problem.expected.is_empty(), "{problem:?}");
    assert!(!problem.to_string().is_empty());
    let Some(at) = &problem.at else { return };
    assert_eq!(&*at.file, NAME);
    // YAML 1.2 §5.4 knows CR, LF and CRLF; the place behind the last line is the end of the text.
    let mut lines = vec![String::new()];
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '\r' if letters.peek() == Some(&'\n') => {}
            '\r' | '\n' => lines.push(String::new()),
            other => lines.last_mut().expect("one at least").push(other),
        }
    }
    let line = at.line.checked_sub(1).and_then(|line| lines.get(line));
    let Some(line) = line else { panic!("line {} of {}: {problem:?}", at.line, lines.len()) };
    assert!(at.column >= 1 && at.column <= line.chars().count() + 2, "column {} of {line:?}: {problem:?}", at.column);
}
