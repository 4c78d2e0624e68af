//! YAML text as a tree whose every node knows its place. Scalars stay text: what a word means is decided by the key
//! that asks, so that `1.10` is never a number by accident and `no` is never a boolean.
//!
//! The parser's events are used directly, because a deserialiser stops at the first problem and an operator wants
//! all of them. Aliases, tags and merge keys are refused: a configuration of this size does not need them, and they
//! are how small files become large ones.

use std::collections::HashMap;
use std::sync::Arc;

use granit_parser::{Event, Options, Parser, ScalarStyle, Span};

use super::problem::{Kind, Location, Problem};
use super::reader::join;
use super::words::shorten;

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

/// What could be read, and what is wrong with the text all the same.
#[derive(Debug)]
pub struct Tree {
    pub root: Node,
    /// Their values are in the tree: of a key that is there twice, the first.
    pub problems: Vec<Problem>,
}

/// Parses one document. Syntax stops at the first problem, and what stands for something else is not read; everything
/// after it would be guessed.
pub fn parse(text: &str, file: &str) -> Result<Tree, Vec<Problem>> {
    let file: Arc<str> = file.into();
    let start = Location { file: file.clone(), line: 1, column: 1 };
    if text.len() > BYTES_MAX {
        return Err(vec![problem("", start, format!("{} bytes", text.len()), "at most 1 MiB", None)]);
    }
    let mut options = Options::default();
    options.emit_comments = false;
    let mut builder =
        Builder { file: file.clone(), problems: Vec::new(), unclear: false, open: Vec::new(), done: None };
    for event in Parser::new_from_str_with_options(text, options) {
        match event {
            Ok((event, span)) => builder.take(event, &span),
            Err(error) => {
                let at = location(&file, error.marker().line(), error.marker().col());
                let hint = "check indentation, quotes and brackets just before this place".to_owned();
                let path = builder.path();
                builder.problems.push(problem(&path, at, error.info().to_string(), "YAML", Some(hint)));
                builder.unclear = true;
                break;
            }
        }
        if builder.open.len() > DEPTH_MAX {
            let found = format!("more than {DEPTH_MAX} levels");
            builder.problems.push(problem("", start.clone(), found, "fewer levels", None));
            builder.unclear = true;
            break;
        }
    }
    match builder.done {
        Some(root) if !builder.unclear => Ok(Tree { root, problems: builder.problems }),
        None if builder.problems.is_empty() => {
            let hint = "the smallest file is one line: upstream: http://127.0.0.1:3000".to_owned();
            Err(vec![problem("", start, "an empty file".to_owned(), "a configuration", Some(hint))])
        }
        Some(_) | None => Err(builder.problems),
    }
}

fn location(file: &Arc<str>, line: usize, column: usize) -> Location {
    Location { file: file.clone(), line, column: column + 1 }
}

fn problem(path: &str, at: Location, found: String, expected: &str, hint: Option<String>) -> Problem {
    Problem { kind: Kind::Wrong, path: path.to_owned(), at: Some(at), found, expected: expected.to_owned(), hint }
}

/// A collection that has begun and not ended.
enum Open {
    List(Location, Vec<Node>),
    Map(Location, Entries, Option<Asked>),
}

/// A key whose value comes next; the value of a second one of its name is left out.
struct Asked {
    key: Key,
    again: bool,
}

/// A block's entries so far.
#[derive(Default)]
struct Entries {
    list: Vec<(Key, Node)>,
    /// The names of a long one, of which every name is looked for, and their lines.
    names: HashMap<String, usize>,
}

impl Entries {
    /// The line of the name where it is there already.
    fn line(&mut self, name: &str) -> Option<usize> {
        if self.list.len() < LONG {
            return self.list.iter().find(|(known, _)| known.name == name).map(|(known, _)| known.at.line);
        }
        // Those that came since the last time.
        for (known, _) in &self.list[self.names.len()..] {
            self.names.insert(known.name.clone(), known.at.line);
        }
        self.names.get(name).copied()
    }
}

/// Entries from which on looking at all of them takes longer than remembering their names.
const LONG: usize = 32;

struct Builder {
    file: Arc<str>,
    problems: Vec<Problem>,
    /// Something in the text stands for something else: what follows from it would be guessed.
    unclear: bool,
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
                self.tell(&at, "an alias", "no aliases", Some(hint));
                self.unclear = true;
                self.add(Node { at, value: Value::Scalar { text: String::new(), plain: true } });
            }
            Event::DocumentStart(..) if self.done.is_some() => {
                self.tell(&at, "a second document", "one document in a file", None);
                self.unclear = true;
            }
            _ => {}
        }
    }

    fn plainly(&mut self, at: &Location, anchor: usize, tagged: bool) {
        if anchor != 0 {
            let hint = "write the value out where it is needed".to_owned();
            self.tell(at, "an anchor", "no anchors", Some(hint));
        }
        if tagged {
            self.tell(at, "a tag", "no tags", None);
        }
    }

    fn tell(&mut self, at: &Location, found: &str, expected: &str, hint: Option<String>) {
        let path = self.path();
        self.problems.push(problem(&path, at.clone(), found.to_owned(), expected, hint));
    }

    /// Of what comes next.
    fn path(&self) -> String {
        let mut path = String::new();
        for open in &self.open {
            match open {
                Open::List(_, items) => path.push_str(&format!("[{}]", items.len())),
                Open::Map(_, _, Some(Asked { key, .. })) => path = join(&path, &key.name),
                Open::Map(_, _, None) => {}
            }
        }
        path
    }

    fn add(&mut self, node: Node) {
        match self.open.last_mut() {
            None => {
                let nothing = node.value.word() == "nothing";
                self.done = (!nothing).then_some(node);
            }
            Some(Open::List(_, items)) => items.push(node),
            Some(Open::Map(_, entries, key)) => match key.take() {
                Some(Asked { key, again: false }) => entries.list.push((key, node)),
                Some(Asked { again: true, .. }) => {}
                None => self.ask(node),
            },
        }
    }

    /// A node in the place of a key.
    fn ask(&mut self, node: Node) {
        let Some(Open::Map(_, entries, key)) = self.open.last_mut() else { return };
        let at = node.at.clone();
        match node.value {
            Value::Scalar { text, .. } => {
                let first = entries.line(&text);
                let found = format!("the key {} a second time", shorten(&text));
                *key = Some(Asked { key: Key { at: node.at, name: text }, again: first.is_some() });
                if let Some(line) = first {
                    let hint = format!("keep one of the two; the first is in line {line}");
                    self.tell(&at, &found, "each key once", Some(hint));
                }
            }
            Value::List(_) | Value::Map(_) => {
                *key = Some(Asked { key: Key { at: node.at, name: String::new() }, again: false });
                self.tell(&at, "a collection as a key", "a word", None);
                self.unclear = true;
            }
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
            assert!(parse(&block, "f").is_ok_and(|tree| tree.problems.is_empty()), "{length}");
            for twice in [0, length / 2, length - 1] {
                let Tree { root, problems } = parse(&format!("{block}k{twice}: 2\nlast: 3\n"), "f").expect("readable");
                assert_eq!(problems.len(), 1, "{length} {twice}");
                assert_eq!(problems[0].at.as_ref().map(|at| (at.line, at.column)), Some((length + 1, 1)));
                assert_eq!(problems[0].path, format!("k{twice}"));
                let first = format!("keep one of the two; the first is in line {}", twice + 1);
                assert_eq!(problems[0].hint.as_ref(), Some(&first));
                let Value::Map(entries) = &root.value else { panic!("{root:?}") };
                assert_eq!((entries.len(), entries[length].0.name.as_str()), (length + 1, "last"));
            }
        }
    }
}
