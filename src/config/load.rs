//! A file, or a URL on the command line, to settings.

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::context::Context;
use super::problem::{Kind, Location, Problem};
use super::reader::Map;
use super::settings::Settings;
use super::{check, read, units, yaml};

/// Tells how long the orchestrator waits after SIGTERM before it kills, as a duration.
const GRACE_VARIABLE: &str = "OUTRIGGER_TERMINATION_GRACE";
/// Hexadecimal digits of a content hash; 48 bits tell the plans of one process apart.
const HASH_DIGITS: usize = 12;

/// A configuration without problems.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub settings: Settings,
    /// Of the text and of every secret file it names.
    pub hash: String,
    /// The text itself, to be kept as the last good one.
    pub text: String,
    /// What a change of must be noticed: the file and the secret files.
    pub watch: Vec<PathBuf>,
    pub origins: Origins,
    /// Worth knowing, but no reason to refuse.
    pub notes: Vec<Problem>,
    pub outside: Outside,
}

/// Values from variables and secret files: they may be secret wherever they turn up, a route's name included.
#[derive(Clone, Default)]
pub struct Outside(Vec<String>);

/// Shorter ones are no secrets, and hiding them would hide every other word.
const HIDDEN_MIN: usize = 4;

impl Outside {
    /// The text without any of the values.
    pub fn hidden(&self, text: &str) -> String {
        let long = self.0.iter().filter(|value| value.len() >= HIDDEN_MIN);
        long.fold(text.to_owned(), |text, value| text.replace(value.as_str(), "[not shown]"))
    }

    fn hide(&self, problem: &mut Problem) {
        for text in [&mut problem.path, &mut problem.found, &mut problem.expected] {
            *text = self.hidden(text);
        }
        problem.hint = problem.hint.take().map(|hint| self.hidden(&hint));
    }
}

impl std::fmt::Debug for Outside {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{} values", self.0.len())
    }
}

/// Where each value that was typed stands; a value that is not here is a default.
#[derive(Clone, Debug, Default)]
pub struct Origins(HashMap<String, Location>);

impl Origins {
    pub fn of(&self, path: &str) -> Option<&Location> {
        self.0.get(path)
    }
}

/// Reads and checks a file with the process's environment.
pub fn load_file(path: &Path) -> Result<Loaded, Vec<Problem>> {
    let name = path.display().to_string();
    let unreadable = |found: String, hint: Option<&str>| {
        let hint = hint.map(str::to_owned);
        let expected = "a readable YAML file".to_owned();
        vec![Problem {
            kind: Kind::Wrong,
            path: String::new(),
            at: None,
            found: format!("{name}: {found}"),
            expected,
            hint,
        }]
    };
    let bytes = read_bounded(path).map_err(|error| {
        let missing = error.kind() == std::io::ErrorKind::NotFound;
        unreadable(
            error.to_string(),
            missing.then_some("is the path right? It is looked for from the current directory"),
        )
    })?;
    if bytes.len() > yaml::BYTES_MAX {
        return Err(unreadable("more than 1 MiB".to_owned(), None));
    }
    let text = String::from_utf8(bytes).map_err(|_| unreadable("not UTF-8 text".to_owned(), None))?;
    // The same file means the same whichever way it is named.
    let base = std::path::absolute(path).ok().and_then(|path| Some(path.parent()?.to_owned())).unwrap_or_default();
    let mut loaded = load_text(&text, &name, &base, &|name| std::env::var(name).ok())?;
    loaded.watch.insert(0, path.to_owned());
    Ok(loaded)
}

/// One byte more than is allowed at most, so that an endless file is only too long.
fn read_bounded(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(yaml::BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Checks a text. `name` is what problems call it, `base` what relative paths are relative to.
pub fn load_text(
    text: &str,
    name: &str,
    base: &Path,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Loaded, Vec<Problem>> {
    let tree = yaml::parse(text, name)?;
    let context = Context::new(base, env);
    for problem in &tree.problems {
        context.not_read(&problem.path);
    }
    context.problems.borrow_mut().extend(tree.problems);
    let root = Map::root(&context, Some(&tree.root));
    let settings = read::settings(&root);
    root.finish();
    let grace = env(GRACE_VARIABLE).and_then(|text| match units::duration(&text) {
        Ok(grace) => Some(grace),
        Err(expected) => {
            let path = format!("environment variable {GRACE_VARIABLE}");
            context.problem(&path, None, text, expected, None);
            None
        }
    });
    check::check(&settings, &context, grace.or(Some(Duration::MAX)));
    let mut problems = context.problems.into_inner();
    let outside = Outside(context.outside.into_inner());
    if !problems.is_empty() {
        problems.iter_mut().for_each(|problem| outside.hide(problem));
        problems.sort_by(|one, other| one.at.cmp(&other.at).then_with(|| one.path.cmp(&other.path)));
        problems.dedup();
        return Err(problems);
    }
    let mut files = context.files.into_inner();
    files.sort();
    files.dedup();
    let hash = hash(text, files.iter().map(|(_, text)| text.as_str()));
    let mut watch: Vec<PathBuf> = files.into_iter().map(|(path, _)| path).collect();
    watch.dedup();
    let origins = Origins(context.origins.into_inner());
    Ok(Loaded { settings, hash, text: text.to_owned(), watch, origins, notes: Vec::new(), outside })
}

/// The configuration of `run --upstream URL --listen ADDRESS`.
pub fn from_upstream(url: &str, listen: Option<&str>) -> Result<Loaded, Vec<Problem>> {
    let mut text = format!("upstream: {}\n", quoted(url));
    if let Some(address) = listen {
        text.push_str(&format!("listeners: [{{ name: web, address: {} }}]\n", quoted(address)));
    }
    load_text(&text, "command line", Path::new(""), &|name| std::env::var(name).ok())
}

/// As a YAML double-quoted scalar, whatever it holds.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string() // a JSON string is a YAML string
}

/// Of the text and of what its secret files held when they were read for the settings: looked at a second time they
/// might hold something else, or not be there any more.
fn hash<'a>(text: &str, files: impl Iterator<Item = &'a str>) -> String {
    let mut digest = Sha256::new();
    digest.update(text);
    for text in files {
        digest.update(text);
    }
    digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect::<String>()[..HASH_DIGITS].to_owned()
}
