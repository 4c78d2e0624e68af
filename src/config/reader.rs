//! Asking a tree for keys. One call per key names it, says what it must be, its default and its meaning; that call
//! decodes the value, knows the key when a misspelt one needs a suggestion, and writes the key's line in the schema
//! and the reference. So none of the four can say something else than the others.

use std::cell::RefCell;
use std::path::PathBuf;
use std::time::Duration;

use super::context::Context;
use super::describe::Entry;
use super::env;
use super::not_yet;
use super::problem::Location;
use super::units::{self, Expected};
use super::words::{same, shorten, similar};
use super::yaml::{Key, Node, Value};
use crate::core::units::{Rate, Ratio};

/// A block of keys being read.
pub struct Map<'c, 'n> {
    pub context: &'c Context<'c>,
    pub path: String,
    /// The path with `[]` and `*` for list places and chosen names.
    pattern: String,
    entries: &'n [(Key, Node)],
    asked: RefCell<Vec<&'static str>>,
}

const NONE: &[(Key, Node)] = &[];

impl<'c, 'n> Map<'c, 'n> {
    pub fn root(context: &'c Context<'c>, node: Option<&'n Node>) -> Map<'c, 'n> {
        Map::open(context, String::new(), String::new(), node)
    }

    fn open(context: &'c Context<'c>, path: String, pattern: String, node: Option<&'n Node>) -> Map<'c, 'n> {
        let entries = match node.map(|node| (&node.value, node)) {
            Some((Value::Map(entries), _)) => entries.as_slice(),
            None => NONE,
            Some((value, node)) => {
                let found = value.word();
                // A block with nothing in it is the block's defaults.
                if found != "nothing" {
                    context.unreadable(&path, Some(node.at.clone()), found, "a block of keys", None);
                }
                NONE
            }
        };
        Map { context, path, pattern, entries, asked: RefCell::default() }
    }

    fn below(&self, name: &str) -> String {
        join(&self.path, name)
    }

    fn pattern_below(&self, name: &str) -> String {
        join(&self.pattern, name)
    }

    /// The block `name` below this one; where it was not typed only its description asks for its pattern.
    fn open_below(&self, name: &str, node: Option<&'n Node>) -> Map<'c, 'n> {
        let wanted = node.is_some() || self.context.describing();
        let pattern = if wanted { self.pattern_below(name) } else { String::new() };
        Map::open(self.context, self.below(name), pattern, node)
    }

    /// Whether the key was typed.
    pub fn has(&self, name: &str) -> bool {
        self.entries.iter().any(|(key, _)| key.name == name)
    }

    pub fn at(&self, name: &str) -> Option<Location> {
        self.entries.iter().find(|(key, _)| key.name == name).map(|(key, _)| key.at.clone())
    }

    /// Whether all that was typed for the key could be read, a misspelt key that means it included.
    pub fn is_read(&self, name: &str) -> bool {
        let asked = self.asked.borrow();
        let unknown = |key: &str| !asked.contains(&key);
        let misspelt =
            || self.entries.iter().any(|(key, _)| unknown(&key.name) && similar(&key.name, &[name]).is_some());
        self.context.is_read(&self.below(name)) && (self.has(name) || !misspelt())
    }

    fn ask(
        &self,
        name: &'static str,
        kind: &'static str,
        default: &'static str,
        doc: &'static str,
        choices: &'static [&'static str],
    ) -> Option<&'n Node> {
        // Most blocks of a route are not typed: nothing in them is found, and nothing is unknown.
        if self.entries.is_empty() && !self.context.describing() {
            return None;
        }
        self.asked.borrow_mut().push(name);
        if let Some(entries) = &mut *self.context.entries.borrow_mut() {
            entries.push(Entry { path: self.pattern_below(name), kind, default, doc, choices });
        }
        let (key, node) = self.entries.iter().find(|(key, _)| key.name == name)?;
        self.context.origins.borrow_mut().insert(self.below(name), key.at.clone());
        Some(node)
    }

    /// A key of a feature that this version does not have; the value is looked at only as far as its variables.
    pub fn later(&self, name: &'static str) {
        self.later_unless(name, |_| false);
    }

    /// The same, but `fine` accepts what means "off".
    pub fn later_unless(&self, name: &'static str, fine: impl Fn(&Node) -> bool) {
        let what = if self.context.describing() { not_yet::words(&self.pattern_below(name)) } else { "" };
        if self.ask(name, "not available yet", "", what, &[]).is_some() {
            self.not_yet_unless(name, fine);
        }
    }

    /// Reports a value that this version does not have, of a key that it does have.
    pub fn not_yet_unless(&self, name: &'static str, fine: impl Fn(&Node) -> bool) -> bool {
        let typed = self.entries.iter().find(|(key, _)| key.name == name);
        if typed.is_none_or(|(_, node)| fine(node)) {
            return false;
        }
        self.context.problems.borrow_mut().push(not_yet::problem(
            name,
            self.below(name),
            &self.pattern_below(name),
            self.at(name),
        ));
        self.asked.borrow_mut().push(name);
        true
    }

    /// A block of keys below this one.
    pub fn block(&self, name: &'static str, doc: &'static str) -> Map<'c, 'n> {
        let node = self.ask(name, "block", "", doc, &[]);
        self.open_below(name, node)
    }

    /// Blocks under names the operator chooses.
    pub fn named(&self, name: &'static str, doc: &'static str) -> Vec<(String, Map<'c, 'n>)> {
        let (path, pattern) = (self.below(name), format!("{}.*", self.pattern_below(name)));
        let node = self.ask(name, "named blocks", "", doc, &[]);
        if self.context.describing() {
            return vec![(String::new(), Map::open(self.context, path, pattern, None))];
        }
        let in_a_list = node.filter(|node| matches!(node.value, Value::List(_)));
        if let Some(node) = in_a_list {
            let hint = format!("without dashes, and each under its name: `{name}: {{ NAME: {{ \u{2026} }} }}`");
            self.context.unreadable(&path, Some(node.at.clone()), "a list", "blocks of keys under names", Some(hint));
            return Vec::new();
        }
        let list = Map::open(self.context, path.clone(), pattern.clone(), node);
        let open = |(key, node): &'n (Key, Node)| {
            let path = format!("{path}.{}", key.name);
            self.context.origins.borrow_mut().insert(path.clone(), key.at.clone());
            (key.name.clone(), Map::open(self.context, path, pattern.clone(), Some(node)))
        };
        list.entries.iter().map(open).collect()
    }

    /// A list of blocks.
    pub fn blocks(&self, name: &'static str, doc: &'static str) -> Vec<Map<'c, 'n>> {
        let (path, pattern) = (self.below(name), format!("{}[]", self.pattern_below(name)));
        let node = self.ask(name, "list of blocks", "", doc, &[]);
        if self.context.describing() {
            return vec![Map::open(self.context, path, pattern, None)];
        }
        let items = self.list(&path, node);
        let open = |(place, node): (usize, &'n Node)| {
            let path = format!("{path}[{place}]");
            self.context.origins.borrow_mut().insert(path.clone(), node.at.clone());
            Map::open(self.context, path, pattern.clone(), Some(node))
        };
        items.iter().enumerate().map(open).collect()
    }

    fn list(&self, path: &str, node: Option<&'n Node>) -> &'n [Node] {
        match node.map(|node| (&node.value, node)) {
            Some((Value::List(items), _)) => items,
            None => &[],
            Some((value, node)) => {
                self.context.unreadable(path, Some(node.at.clone()), value.word(), "a list: [a, b]", None);
                &[]
            }
        }
    }

    /// A scalar with its variables filled in, read by `parse`; `None` when it was not typed or is wrong.
    pub fn value<T>(
        &self,
        name: &'static str,
        kind: &'static str,
        default: &'static str,
        doc: &'static str,
        parse: impl Fn(&str) -> Result<T, Expected>,
    ) -> Option<T> {
        let node = self.ask(name, kind, default, doc, &[])?;
        self.scalar(&self.below(name), node, parse, false)
    }

    fn scalar<T>(
        &self,
        path: &str,
        node: &Node,
        parse: impl Fn(&str) -> Result<T, Expected>,
        secret: bool,
    ) -> Option<T> {
        let context = self.context;
        let Value::Scalar { text, .. } = &node.value else {
            context.unreadable(path, Some(node.at.clone()), node.value.word(), "a single value", None);
            return None;
        };
        let filled = match env::fill(text, &context.base, context.env) {
            Ok(filled) => filled,
            Err(missing) => {
                for (found, expected, hint) in missing {
                    context.unreadable(path, Some(node.at.clone()), found, expected, hint);
                }
                return None;
            }
        };
        context.files.borrow_mut().extend(filled.files);
        let from_outside = !filled.outside.is_empty();
        context.outside.borrow_mut().extend(filled.outside);
        match parse(&filled.text) {
            Ok(value) => Some(value),
            Err(expected) => {
                let found = match (secret || from_outside, filled.text.as_str()) {
                    (true, _) => "a value that is not shown, because it is secret or from outside the file".to_owned(),
                    (false, "" | "~" | "null") => "nothing".to_owned(),
                    (false, text) => shorten(text),
                };
                let hint = if secret || from_outside { None } else { units::meant(&filled.text, expected) };
                context.unreadable(path, Some(node.at.clone()), found, expected, hint);
                None
            }
        }
    }

    pub fn text(&self, name: &'static str, doc: &'static str) -> Option<String> {
        self.value(name, "text", "", doc, |text| {
            if text.is_empty() { Err("a text that is not empty") } else { Ok(text.to_owned()) }
        })
    }

    /// A text that may be empty, which is the same as not typed.
    pub fn optional_text(&self, name: &'static str, doc: &'static str) -> Option<String> {
        self.value(name, "text", "", doc, |text| Ok(text.to_owned())).filter(|text| !text.is_empty())
    }

    /// A text that no report shows.
    pub fn secret(&self, name: &'static str, doc: &'static str) -> Option<String> {
        let node = self.ask(name, "secret", "", doc, &[])?;
        self.scalar(&self.below(name), node, |text| Ok(text.to_owned()), true).filter(|text| !text.is_empty())
    }

    pub fn path_value(&self, name: &'static str, doc: &'static str) -> Option<PathBuf> {
        let text = self.value(name, "path", "", doc, |text| Ok(text.to_owned())).filter(|text| !text.is_empty());
        text.map(|text| self.context.base.join(text))
    }

    pub fn duration(&self, name: &'static str, default: &'static str, doc: &'static str) -> Option<Duration> {
        self.value(name, "duration", default, doc, units::duration)
    }

    /// A duration that is more than nothing.
    pub fn timer(&self, name: &'static str, default: &'static str, doc: &'static str) -> Option<Duration> {
        self.value(name, "duration", default, doc, units::timer)
    }

    pub fn rate(&self, name: &'static str, doc: &'static str) -> Option<Rate> {
        self.value(name, "rate", "", doc, units::rate)
    }

    pub fn ratio(&self, name: &'static str, default: &'static str, doc: &'static str) -> Option<Ratio> {
        self.value(name, "percentage", default, doc, units::ratio)
    }

    pub fn count(&self, name: &'static str, default: &'static str, doc: &'static str) -> Option<u64> {
        self.value(name, "number", default, doc, |text| {
            let expected = "a whole number of at least 1";
            text.parse().ok().filter(|count| *count > 0).ok_or(expected)
        })
    }

    pub fn boolean(&self, name: &'static str, default: &'static str, doc: &'static str) -> Option<bool> {
        self.value(name, "boolean", default, doc, |text| match text {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err("true or false"),
        })
    }

    /// One word of several; where `off` is among them, `false` means it too.
    pub fn choice(
        &self,
        name: &'static str,
        choices: &'static [&'static str],
        default: &'static str,
        doc: &'static str,
    ) -> Option<&'static str> {
        let node = self.ask(name, "choice", default, doc, choices)?;
        let path = self.below(name);
        let word = self.scalar(&path, node, |text| Ok(text.to_owned()), false)?;
        let meant = if word == "false" { "off" } else { &word };
        let found = choices.iter().find(|choice| **choice == meant).copied();
        if found.is_none() {
            let meant = same(&word, choices).or_else(|| similar(&word, choices));
            let hint = meant.map(|choice| format!("did you mean `{choice}`?"));
            let expected = format!("one of {}", choices.join(", "));
            self.context.unreadable(&path, Some(node.at.clone()), shorten(&word), expected, hint);
        }
        found
    }

    /// A list of scalars.
    pub fn values<T>(
        &self,
        name: &'static str,
        kind: &'static str,
        doc: &'static str,
        parse: impl Fn(&str) -> Result<T, Expected>,
    ) -> Option<Vec<T>> {
        let node = self.ask(name, kind, "", doc, &[])?;
        let path = self.below(name);
        let items = self.list(&path, Some(node)).iter().enumerate();
        Some(items.filter_map(|(place, node)| self.scalar(&format!("{path}[{place}]"), node, &parse, false)).collect())
    }

    /// Names the operator chooses, each with a text.
    pub fn texts(&self, name: &'static str, doc: &'static str) -> Vec<(String, String, Location)> {
        let node = self.ask(name, "names and texts", "", doc, &[]);
        if node.is_none() {
            return Vec::new();
        }
        let (map, path) = (self.open_below(name, node), self.below(name));
        let pairs = map.entries.iter().filter_map(|(key, node)| {
            let path = format!("{path}.{}", key.name);
            self.context.origins.borrow_mut().insert(path.clone(), key.at.clone());
            let value = self.scalar(&path, node, |text| Ok(text.to_owned()), false)?;
            Some((key.name.clone(), value, key.at.clone()))
        });
        pairs.collect()
    }

    /// Everything has been asked for: what is left is unknown.
    pub fn finish(self) {
        let asked = self.asked.borrow();
        for (key, _) in self.entries.iter().filter(|(key, _)| !asked.contains(&key.name.as_str())) {
            let hint = match (not_yet::feature(&key.name), similar(&key.name, &asked)) {
                (Some(feature), _) => feature,
                (None, Some(meant)) => {
                    // What stands here was meant for it.
                    self.context.not_read(&self.below(meant));
                    format!("did you mean `{meant}`?")
                }
                (None, None) => {
                    let mut known: Vec<&str> = asked.clone();
                    known.sort_unstable();
                    format!("the keys here are: {}", known.join(", "))
                }
            };
            let path = self.below(&key.name);
            self.context.problem(
                &path,
                Some(key.at.clone()),
                format!("the unknown key {}", shorten(&key.name)),
                "a key of the configuration language",
                Some(hint),
            );
        }
    }
}

pub fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { [path, ".", name].concat() }
}
