//! From the file to a configuration that can be put in force, and started with again.

use std::path::Path;
use std::sync::Arc;

use super::super::kept::Good;
use super::super::trial;
use crate::config::settings::Settings;
use crate::config::{self, Loaded};

/// The file as it is now; `running` is what need not be tried again.
pub fn read(file: &Path, running: &Settings) -> Result<Good, Vec<String>> {
    let unreadable = |cause: &dyn std::fmt::Display| vec![format!("{} cannot be read: {cause}", file.display())];
    // A pipe in its place would stop this thread, and with it probes and shutdown.
    if !std::fs::metadata(file).map_err(|cause| unreadable(&cause))?.is_file() {
        return Err(unreadable(&"not a regular file"));
    }
    let text = std::fs::read_to_string(file).map_err(|cause| unreadable(&cause))?;
    if text.trim().is_empty() {
        return Err(vec![format!("{} is empty: probably caught while it was being written", file.display())]);
    }
    let base = std::path::absolute(file).ok().and_then(|file| Some(file.parent()?.to_owned())).unwrap_or_default();
    let loaded = tried(load(&text, &file.display().to_string(), &base)?, running)?;
    Ok(Good { loaded: Arc::new(loaded), text: Some(text) })
}

pub fn load(text: &str, name: &str, base: &Path) -> Result<Loaded, Vec<String>> {
    config::load_text(text, name, base, &|variable| std::env::var(variable).ok())
        .map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

/// What the next start would refuse is refused now, while somebody looks.
fn tried(loaded: Loaded, running: &Settings) -> Result<Loaded, Vec<String>> {
    let problems = trial::problems(&loaded, Some(running));
    if problems.is_empty() {
        Ok(without_origins(loaded))
    } else {
        Err(problems.iter().map(ToString::to_string).collect())
    }
}

/// Where each value was typed is for those who explain a file; what runs keeps several, and needs none of it.
pub fn without_origins(mut loaded: Loaded) -> Loaded {
    loaded.origins = config::Origins::default();
    loaded
}
