//! YAML text as a tree whose every node knows its place. Scalars stay text: what a word means is decided by the key
//! that asks, so that `1.10` is never a number by accident and `no` is never a boolean.
//!
//! The parser's events are used directly, because a deserialiser stops at the first problem and an operator wants
//! all of them. Aliases, tags and merge keys are refused: a configuration of this size does not need them, and they
//! are how small files become large ones.

use std::collections::HashSet;
use std::sync::Arc;

use granit_parser::{Event, Options, Parser, ScalarStyle, Span};

use super::problem::{Kind, Location, Problem};

/// The largest file read.
pub const BYTES_MAX: usize = 1024 * 1024;
const DEPTH_MAX: usize = 32;

#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    pub at: Location,
    pub value: Value,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Scalar { text: String, plain: bool },
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Key {
    pub at: Location,
    pub name: String,
}

impl Value {
    /// What it is, without what is in it.
    pub fn word(&self) -> &'static str {
        match self {
            Value::Scalar { text, plain: true } if matches!(text.as_str(), "" | "~" | "null") => "nothing",
            Value::Scalar { .. } => "a value",
            Value::List(_) => "a list",
            Value::Map(_) => "a block of keys",
        }
    }
}

/// Parses one document. Syntax stops at the first problem; everything after it would be guessed.
pub fn parse(text: &str, file: &str) -> Result<Node, Vec<Problem>> {
    let file: Arc<str> = file.into();
    let start = Location { file: file.clone(), line: 1, column: 1 };
    if text.len() > BYTES_MAX {
        return Err(vec![problem(start, format!("{} bytes", text.len()), "at most 1 MiB", None)]);
    }
    let mut options = Options::default();
    options.emit_comments = false;
    let mut builder = Builder { file: file.clone(), problems: Vec::new(), open: Vec::new(), done: None };
    for event in Parser::new_from_str_with_options(text, options) {
        match event {
            Ok((event, span)) => builder.take(event, &span),
            Err(error) => {
                let at = location(&file, error.marker().line(), error.marker().col());
                let hint = "check indentation, quotes and brackets just before this place".to_owned();
                builder.problems.push(problem(at, error.info().to_string(), "YAML", Some(hint)));
                break;
            }
        }
        if builder.open.len() > DEPTH_MAX {
            builder.problems.push(problem(
                start.clone(),
                format!("more than {DEPTH_MAX} levels"),
                "fewer levels",
                None,
            ));
            break;
        }
    }
    if !builder.problems.is_empty() {
        return Err(builder.problems);
    }
    builder.done.ok_or_else(|| {
        let hint = "the smallest file is one line: upstream: http://127.0.0.1:3000".to_owned();
        vec![problem(start, "an empty file".to_owned(), "a configuration", Some(hint))]
    })
}

fn location(file: &Arc<str>, line: usize, column: usize) -> Location {
    Location { file: file.clone(), line, column: column + 1 }
}

fn problem(at: Location, found: String, expected: &str, hint: Option<String>) -> Problem {
    Problem { kind: Kind::Wrong, path: String::new(), at: Some(at), found, expected: expected.to_owned(), hint }
}

/// A collection that has begun and not ended.
enum Open {
    List(Location, Vec<Node>),
    Map(Location, Entries, Option<Key>),
}

/// A block's entries so far.
#[derive(Default)]
struct Entries {
    list: Vec<(Key, Node)>,
    /// The names of a long one, of which every name is looked for.
    names: HashSet<String>,
}

impl Entries {
    /// Whether the name is there already; it is going to be.
    fn has(&mut self, name: &str) -> bool {
        if self.list.len() < LONG {
            return self.list.iter().any(|(known, _)| known.name == name);
        }
        if self.names.is_empty() {
            self.names.extend(self.list.iter().map(|(known, _)| known.name.clone()));
        }
        !self.names.insert(name.to_owned())
    }
}

/// Entries from which on looking at all of them takes longer than remembering their names.
const LONG: usize = 32;

struct Builder {
    file: Arc<str>,
    problems: Vec<Problem>,
    open: Vec<Open>,
    done: Option<Node>,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, span: &Span) {
        let at = location(&self.file, span.start.line(), span.start.col());
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.plainly(&at, anchor, tag.is_some());
                let plain = style == ScalarStyle::Plain;
                self.add(Node { at, value: Value::Scalar { text: text.into_owned(), plain } });
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.plainly(&at, anchor, tag.is_some());
                self.open.push(Open::List(at, Vec::new()));
            }
            Event::MappingStart(_, anchor, tag) => {
                self.plainly(&at, anchor, tag.is_some());
                self.open.push(Open::Map(at, Entries::default(), None));
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open::List(at, items)) => self.add(Node { at, value: Value::List(items) }),
                Some(Open::Map(at, entries, _)) => self.add(Node { at, value: Value::Map(entries.list) }),
                None => {}
            },
            Event::Alias(_) | Event::UnresolvedAlias(_) => {
                let hint = "write the value out".to_owned();
                self.problems.push(problem(at.clone(), "an alias".to_owned(), "no aliases", Some(hint)));
                self.add(Node { at, value: Value::Scalar { text: String::new(), plain: true } });
            }
            Event::DocumentStart(..) if self.done.is_some() => {
                self.problems.push(problem(at, "a second document".to_owned(), "one document in a file", None));
            }
            _ => {}
        }
    }

    fn plainly(&mut self, at: &Location, anchor: usize, tagged: bool) {
        if anchor != 0 {
            let hint = "write the value out where it is needed".to_owned();
            self.problems.push(problem(at.clone(), "an anchor".to_owned(), "no anchors", Some(hint)));
        }
        if tagged {
            self.problems.push(problem(at.clone(), "a tag".to_owned(), "no tags", None));
        }
    }

    fn add(&mut self, node: Node) {
        match self.open.last_mut() {
            None => {
                let nothing = node.value.word() == "nothing";
                self.done = (!nothing).then_some(node);
            }
            Some(Open::List(_, items)) => items.push(node),
            Some(Open::Map(_, entries, key)) => match key.take() {
                Some(key) => entries.list.push((key, node)),
                None => match node.value {
                    Value::Scalar { text, .. } => {
                        if entries.has(&text) {
                            let hint = "keep one of the two".to_owned();
                            let found = format!("the key {text} a second time");
                            self.problems.push(problem(node.at.clone(), found, "each key once", Some(hint)));
                        }
                        *key = Some(Key { at: node.at, name: text });
                    }
                    Value::List(_) | Value::Map(_) => {
                        self.problems.push(problem(
                            node.at.clone(),
                            "a collection as a key".to_owned(),
                            "a word",
                            None,
                        ));
                        *key = Some(Key { at: node.at, name: String::new() });
                    }
                },
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_stands_there_twice_is_found_in_blocks_of_any_length() {
        for length in [2, LONG - 1, LONG, LONG + 1, 3 * LONG] {
            let block: String = (0..length).map(|key| format!("k{key}: 1\n")).collect();
            assert!(parse(&block, "f").is_ok(), "{length}");
            for twice in [0, length / 2, length - 1] {
                let problems = parse(&format!("{block}k{twice}: 2\nlast: 3\n"), "f").expect_err("twice");
                assert_eq!(problems.len(), 1, "{length} {twice}");
                assert_eq!(problems[0].at.as_ref().map(|at| at.line), Some(length + 1));
            }
        }
    }
}
