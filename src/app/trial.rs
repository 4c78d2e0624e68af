//! What a start would meet beside the text: places to write to, and the collector's URL. It is tried ahead, so that
//! `check` and a reload refuse what the next start would refuse. A try leaves nothing behind.
//!
//! Not tried: whether ports are free and servers answer, which says nothing about the file.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use crate::config::settings::{LogTarget, Settings};
use crate::config::{Kind, Loaded, Problem};
use crate::core::units::Address;
use crate::state::clock;
use crate::telemetry;

/// A control socket is bound under a longer name first; the system takes 107 bytes.
const CONTROL_PATH_MAX: usize = 99;
const ABSENT: ErrorKind = ErrorKind::NotFound;

/// What a start itself asks ahead, for words with a place. Listeners are not asked for: they may have been lent to us
/// from where we cannot see, and they are bound at once.
pub fn at_start(loaded: &Loaded) -> Vec<Problem> {
    let mut trial = Trial { loaded, problems: Vec::new() };
    trial.places(None);
    trial.controls(None);
    trial.problems
}

/// Everything that a start with this configuration would refuse. A reload gives what is `running`: what is as it was
/// must not keep it from the rest.
pub fn problems(loaded: &Loaded, running: Option<&Settings>) -> Vec<Problem> {
    let settings = &loaded.settings;
    let mut trial = Trial { loaded, problems: Vec::new() };
    trial.places(running);
    trial.controls(running);
    for (place, listener) in settings.listeners.iter().enumerate() {
        let is = |running: &Settings| running.listeners.iter().any(|running| running.address == listener.address);
        if running.is_some_and(is) {
            continue;
        }
        trial.listener(&format!("listeners[{place}].address"), &listener.address);
    }
    trial.problems
}

struct Trial<'a> {
    loaded: &'a Loaded,
    problems: Vec<Problem>,
}

impl Trial<'_> {
    /// Where is written to, unless it is written to already.
    fn places(&mut self, running: Option<&Settings>) {
        let settings = &self.loaded.settings;
        if let Some(directory) = &settings.state_directory
            && running.is_none_or(|running| running.state_directory.as_ref() != Some(directory))
        {
            self.state(directory);
        }
        if let Some(base) = &settings.traces.otlp
            && running.is_none_or(|running| running.traces.otlp.as_ref() != Some(base))
        {
            self.collector(base);
        }
        if let LogTarget::File(path) = &settings.access_log.to
            && running.is_none_or(|running| running.access_log.to != settings.access_log.to)
        {
            self.log(path);
        }
    }

    fn problem(&mut self, path: &str, found: String, expected: &str, hint: Option<&str>) {
        self.problems.push(Problem {
            kind: Kind::Wrong,
            path: path.to_owned(),
            at: self.loaded.origins.of(path).cloned(),
            // A path may come from a variable.
            found: self.loaded.outside.hidden(&found),
            expected: expected.to_owned(),
            hint: hint.map(str::to_owned),
        });
    }

    fn controls(&mut self, running: Option<&Settings>) {
        let settings = &self.loaded.settings;
        if running.is_none_or(|running| running.ops != settings.ops) {
            self.control("ops.address", &settings.ops);
        }
        if running.is_none_or(|running| running.admin.address != settings.admin.address) {
            self.control("admin.address", &settings.admin.address);
        }
    }

    fn state(&mut self, state: &Path) {
        if let Err(cause) = writable(&state.join("plans")) {
            let expected = "a directory that this user may write to, or a place where one can be made";
            let hint = "leave it out to keep the last good plans in memory";
            let found = format!("{} cannot be written to: {cause}", state.display());
            self.problem("state.directory", found, expected, Some(hint));
        }
    }

    fn collector(&mut self, base: &str) {
        if let Err(cause) = telemetry::try_collector(base) {
            let found = format!("{base} cannot be used: {cause}");
            self.problem("telemetry.traces.otlp", found, "the URL of a collector", None);
        }
    }

    fn log(&mut self, path: &Path) {
        let tried = match fs::metadata(path) {
            Ok(found) if found.is_dir() => Err("it is a directory".to_owned()),
            Ok(found) if found.is_file() => {
                fs::OpenOptions::new().append(true).open(path).map(drop).map_err(|cause| cause.to_string())
            }
            // To open a pipe and leave again would end its reader.
            Ok(_) => Ok(()),
            Err(cause) if cause.kind() == ABSENT => parent(&led_to(path)),
            Err(cause) => Err(cause.to_string()),
        };
        if let Err(cause) = tried {
            let hint = "make its directory, or name another place; missing directories are not made for a log";
            let found = format!("{} cannot be written to: {cause}", path.display());
            self.problem("telemetry.access_log.to", found, "a file in a directory that can be written to", Some(hint));
        }
    }

    fn control(&mut self, path: &str, address: &Address) {
        let Address::Unix(socket) = address else { return };
        let length = socket.as_os_str().len();
        if length > CONTROL_PATH_MAX {
            return self.problem(path, format!("{length} bytes"), "a socket path of at most 99 bytes", None);
        }
        self.bound(path, socket, free(socket).and_then(|()| parent(socket)));
    }

    /// Who starts us may have bound it for us, so its directory need not be ours to write to.
    fn listener(&mut self, path: &str, address: &Address) {
        if let Address::Unix(socket) = address {
            self.bound(path, socket, free(socket).and_then(|()| directory_of(socket).map(drop)));
        }
    }

    fn bound(&mut self, path: &str, socket: &Path, tried: Result<(), String>) {
        if let Err(cause) = tried {
            let found = format!("{} cannot be bound: {cause}", socket.display());
            self.problem(path, found, "a socket in a directory that can be written to", None);
        }
    }
}

/// Whether nothing but a socket is there.
fn free(socket: &Path) -> Result<(), String> {
    match fs::symlink_metadata(socket) {
        Ok(found) if !found.file_type().is_socket() => Err("the path exists and is not a socket".to_owned()),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Whether a file can be made beside this one.
fn parent(path: &Path) -> Result<(), String> {
    made_in(directory_of(path)?)
}

fn directory_of(path: &Path) -> Result<&Path, String> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match fs::metadata(directory) {
        Ok(found) if found.is_dir() => Ok(directory),
        Ok(_) => Err(format!("{} is not a directory", directory.display())),
        Err(cause) if cause.kind() == ABSENT => Err(format!("there is no directory {}", directory.display())),
        Err(cause) => Err(cause.to_string()),
    }
}

/// Whether files can be made in this directory, which may have to be made itself.
fn writable(directory: &Path) -> Result<(), String> {
    let there = directory.ancestors().find(|place| fs::symlink_metadata(place).is_ok()).unwrap_or(Path::new("."));
    made_in(there)
}

/// Makes a file and takes it away. Its name is nobody else's: what was left by one that was killed is in nobody's way.
fn made_in(directory: &Path) -> Result<(), String> {
    let tried = directory.join(format!(".outrigger-try-{:016x}", clock::random()));
    let made = fs::OpenOptions::new().write(true).create_new(true).open(&tried);
    made.and_then(|_| fs::remove_file(&tried)).map_err(|cause| cause.to_string())
}

/// Where a link leads that leads nowhere yet.
fn led_to(path: &Path) -> PathBuf {
    let mut at = path.to_owned();
    for _ in 0..LINKS_MAX {
        let Ok(next) = fs::read_link(&at) else { break };
        at = at.parent().unwrap_or(Path::new(".")).join(next);
    }
    at
}

/// As the system follows them.
const LINKS_MAX: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_try_leaves_nothing_and_is_in_nobodys_way() {
        let directory = tempfile::tempdir().expect("a directory");
        let here = directory.path();
        // Many at once, each as if it had the same process id.
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..100).for_each(|_| made_in(here).expect("it can be written to")));
            }
        });
        assert_eq!(fs::read_dir(here).expect("it is there").count(), 0);
        assert!(made_in(&here.join("none")).is_err());
    }

    #[test]
    fn a_link_that_leads_nowhere_yet_is_tried_where_it_leads() {
        let directory = tempfile::tempdir().expect("a directory");
        let (link, there) = (directory.path().join("access.log"), directory.path().join("logs"));
        fs::create_dir(&there).expect("a directory");
        std::os::unix::fs::symlink("logs/real.log", &link).expect("a link");
        assert_eq!(led_to(&link), there.join("real.log"));
        let round = directory.path().join("round");
        std::os::unix::fs::symlink(&round, &round).expect("a link");
        assert_eq!(led_to(&round), round);
    }
}
