//! The last good plans, by content hash, so that `reload --to HASH` can go back.
//!
//! In memory what is kept is the checked configuration itself, secrets resolved, so going back needs nothing else. On
//! disk (`state.directory`) it is the text as typed: a later process may go back to it, as long as the secret files
//! still give the same configuration.

use std::collections::VecDeque;
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::Loaded;

/// Plans kept; the oldest goes first.
pub const PLANS_MAX: usize = 5;

/// A good configuration and the text it came from.
#[derive(Clone)]
pub struct Good {
    pub loaded: Arc<Loaded>,
    /// `None` when it came from `--upstream`.
    pub text: Option<String>,
}

/// What was found for a hash.
pub enum Found {
    InMemory(Good),
    /// Only the text, written by an earlier process.
    OnDisk {
        hash: String,
        text: String,
    },
}

/// The last good plans, the newest first.
pub struct Kept {
    plans: VecDeque<Good>,
    directory: Option<PathBuf>,
}

impl Kept {
    /// `state` is the state directory; plans go into `plans/` under it.
    pub fn new(state: Option<&Path>) -> Kept {
        Kept { plans: VecDeque::new(), directory: state.map(|state| state.join("plans")) }
    }

    /// Makes the directory, and writes into it as later plans will be; the problem in words.
    pub fn try_directory(state: Option<&Path>) -> Result<(), String> {
        let Some(state) = state else { return Ok(()) };
        let plans = state.join("plans");
        let aside = plans.join(format!(".try.{}", std::process::id()));
        let tried =
            fs::create_dir_all(&plans).and_then(|()| fs::write(&aside, "")).and_then(|()| fs::remove_file(&aside));
        tried.map_err(|cause| {
            let state = state.display();
            format!(
                "state.directory: {state} cannot be written to: {cause}; name a directory that this user may write to, \
                 or leave it out to keep the last good plans in memory"
            )
        })
    }

    /// Remembers a configuration that is in force now.
    pub fn keep(&mut self, good: &Good) {
        self.plans.retain(|kept| kept.loaded.hash != good.loaded.hash);
        self.plans.push_front(good.clone());
        self.plans.truncate(PLANS_MAX);
        if let (Some(directory), Some(text)) = (&self.directory, &good.text)
            && let Err(cause) = write(directory, &good.loaded.hash, text)
        {
            tracing::warn!(directory = %directory.display(), %cause, "the plan cannot be kept on disk");
        }
    }

    /// What can be gone back to, the newest first.
    pub fn hashes(&self) -> Vec<String> {
        let mut hashes: Vec<String> = self.plans.iter().map(|good| good.loaded.hash.clone()).collect();
        for (hash, _) in self.on_disk() {
            if !hashes.contains(&hash) {
                hashes.push(hash);
            }
        }
        hashes
    }

    /// The plan whose hash begins with `start`.
    pub fn find(&self, start: &str) -> Result<Found, String> {
        let hashes = self.hashes();
        let fitting: Vec<&String> = hashes.iter().filter(|hash| !start.is_empty() && hash.starts_with(start)).collect();
        let hash = match fitting.as_slice() {
            [] => return Err(format!("no plan {start} is kept; there is {}", hashes.join(", "))),
            [hash] => *hash,
            several => return Err(format!("{start} is the beginning of {} plans; give more of it", several.len())),
        };
        if let Some(good) = self.plans.iter().find(|good| good.loaded.hash == *hash) {
            return Ok(Found::InMemory(good.clone()));
        }
        let path = self.on_disk().into_iter().find(|(name, _)| name == hash).map(|(_, path)| path).unwrap_or_default();
        let text = fs::read_to_string(&path).map_err(|cause| format!("{} cannot be read: {cause}", path.display()))?;
        Ok(Found::OnDisk { hash: hash.clone(), text })
    }

    fn on_disk(&self) -> Vec<(String, PathBuf)> {
        self.directory.as_deref().map(files).unwrap_or_default()
    }
}

/// The kept files, the newest first.
fn files(directory: &Path) -> Vec<(String, PathBuf)> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut found: Vec<_> = entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let name = entry.file_name().into_string().ok()?;
            let hash = name.strip_suffix(".yaml")?.to_owned();
            Some((entry.metadata().ok()?.modified().ok()?, hash, entry.path()))
        })
        .collect();
    found.sort_by(|one, other| other.cmp(one));
    found.into_iter().map(|(_, hash, path)| (hash, path)).collect()
}

/// Written aside and renamed, readable by us alone: the text may hold secrets.
fn write(directory: &Path, hash: &str, text: &str) -> std::io::Result<()> {
    fs::create_dir_all(directory)?;
    let aside = directory.join(format!(".{hash}.{}", std::process::id()));
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&aside, directory.join(format!("{hash}.yaml")))?;
    for (_, old) in files(directory).into_iter().skip(PLANS_MAX) {
        fs::remove_file(old)?;
    }
    Ok(())
}
