//! What the whole reading of a configuration shares: where it stands, what may be looked up, and what was found.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::describe::Entry;
use super::problem::{Kind, Location, Problem};

/// What the whole reading shares.
pub struct Context<'e> {
    pub base: PathBuf,
    pub env: &'e dyn Fn(&str) -> Option<String>,
    pub problems: RefCell<Vec<Problem>>,
    /// Where each value that was typed stands.
    pub origins: RefCell<HashMap<String, Location>>,
    /// Paths of what could not be read, and of all blocks around it.
    unread: RefCell<Unread>,
    /// Secret files, and what was in them when they were read.
    pub files: RefCell<Vec<(PathBuf, String)>>,
    /// What variables and secret files were filled in with.
    pub outside: RefCell<Vec<String>>,
    /// Filled when the keys are described instead of read.
    pub entries: RefCell<Option<Vec<Entry>>>,
}

#[derive(Default)]
struct Unread {
    paths: HashSet<String>,
    around: HashSet<String>,
}

impl<'e> Context<'e> {
    pub fn new(base: &Path, env: &'e dyn Fn(&str) -> Option<String>) -> Self {
        Context {
            base: base.to_owned(),
            env,
            problems: RefCell::default(),
            origins: RefCell::default(),
            unread: RefCell::default(),
            files: RefCell::default(),
            outside: RefCell::default(),
            entries: RefCell::new(None),
        }
    }

    /// Reports a problem; without a place of its own it gets that of the nearest key around it that was typed.
    pub fn problem(
        &self,
        path: &str,
        at: Option<Location>,
        found: impl Into<String>,
        expected: impl Into<String>,
        hint: Option<String>,
    ) {
        let at = at.or_else(|| self.nearest(path));
        let (found, expected) = (found.into(), expected.into());
        self.problems.borrow_mut().push(Problem {
            kind: Kind::Wrong,
            path: path.to_owned(),
            at,
            found,
            expected,
            hint,
        });
    }

    /// Reports what could not be read: nothing is compared with the default that stands there instead.
    pub fn unreadable(
        &self,
        path: &str,
        at: Option<Location>,
        found: impl Into<String>,
        expected: impl Into<String>,
        hint: Option<String>,
    ) {
        self.problem(path, at, found, expected, hint);
        self.not_read(path);
    }

    /// What was meant for this path could not be read.
    pub fn not_read(&self, path: &str) {
        let mut unread = self.unread.borrow_mut();
        unread.around.extend(blocks(path).skip(1).map(str::to_owned));
        unread.paths.insert(path.to_owned());
    }

    /// Whether all that was typed at this path could be read.
    pub fn is_read(&self, path: &str) -> bool {
        let unread = self.unread.borrow();
        !unread.around.contains(path) && !blocks(path).any(|block| unread.paths.contains(block))
    }

    fn nearest(&self, path: &str) -> Option<Location> {
        let origins = self.origins.borrow();
        blocks(path).find_map(|place| origins.get(place).cloned())
    }

    pub fn describing(&self) -> bool {
        self.entries.borrow().is_some()
    }
}

/// The path and those of the blocks around it, from within.
fn blocks(path: &str) -> impl Iterator<Item = &str> {
    let around = |place: &str| place.rfind(['.', '[']).unwrap_or(0);
    let ends = std::iter::successors(Some(path.len()), move |end| Some(around(&path[..*end])));
    ends.take_while(|end| *end > 0).map(|end| &path[..end])
}
