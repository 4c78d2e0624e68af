//! What the whole reading of a configuration shares: where it stands, what may be looked up, and what was found.

use std::cell::RefCell;
use std::collections::HashMap;
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
    pub files: RefCell<Vec<PathBuf>>,
    /// What variables and secret files were filled in with.
    pub outside: RefCell<Vec<String>>,
    /// Filled when the keys are described instead of read.
    pub entries: RefCell<Option<Vec<Entry>>>,
}

impl<'e> Context<'e> {
    pub fn new(base: &Path, env: &'e dyn Fn(&str) -> Option<String>) -> Self {
        Context {
            base: base.to_owned(),
            env,
            problems: RefCell::default(),
            origins: RefCell::default(),
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

    fn nearest(&self, path: &str) -> Option<Location> {
        let origins = self.origins.borrow();
        let mut place = path;
        while !place.is_empty() {
            if let Some(at) = origins.get(place) {
                return Some(at.clone());
            }
            place = place.rfind(['.', '[']).map_or("", |end| &place[..end]);
        }
        None
    }

    pub fn describing(&self) -> bool {
        self.entries.borrow().is_some()
    }
}
