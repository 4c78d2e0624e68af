//! Reloading: load → check → compile → prepare → swap → commit, and what to do when a step says no.
//!
//! Everything that can fail comes before the swap, so a bad file changes nothing: what ran keeps running, and the
//! problems are logged, kept for `status` and counted. A refused file is tried again now and then, because the reason
//! may be outside of it (a certificate not yet written, a port not yet free); the same problems are told only once.
//!
//! A certificate or key that changes under an unchanged configuration is taken into use without a new plan.
//! What needs a restart is said at every reload until there is one.

mod compare;
mod files;
mod read;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use files::{compiled as compiled_files, listeners as listener_files, watched};
use read::{load, read, without_origins};

use super::kept::{Found, Good, Kept};
use super::watch::{self, Content, Watcher, Why};
use crate::admin::{Board, Certificate, DiffAnswer, ReloadAnswer};
use crate::config::Loaded;
use crate::plan::Plan;
use crate::plan::compile::compile;
use crate::plan::diff::{Change, at_start, diff};
use crate::proxy::Shared;
use crate::serve::Server;
use crate::telemetry::TelemetryError;

/// Polls between two tries of a refused file (about ten seconds).
const RETRY_POLLS: u32 = 5;

/// How often it is looked whether an old plan is still in use.
const RETIRED_LOOK: Duration = Duration::from_millis(500);
/// Changes named in one line.
const TOLD_MAX: usize = 20;

/// Why a reload is tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// A watched file has changed.
    File,
    /// SIGHUP.
    Signal,
    /// `outrigger reload`, with the hash to go back to.
    Command { to: Option<String> },
}

/// The one who reloads: knows what runs, what ran before, and what the file says.
pub struct Reloader {
    /// `None` when it runs from `--upstream`: there is nothing to load again.
    file: Option<PathBuf>,
    shared: Arc<Shared>,
    board: Arc<Board>,
    running: Good,
    /// What the process started with: the measure of what needs a restart.
    started: Arc<Loaded>,
    kept: Kept,
    watcher: Watcher,
    /// Files that a plan reads when it is compiled (upstream CA, client certificates), as compiled into `running`.
    compiled: Vec<Content>,
    /// The file's text when a command went back to an earlier plan: that text is not loaded again by itself.
    overruled: Option<String>,
    refused: Option<Vec<String>>,
    /// What the listeners' certificate files said when they were refused, and why.
    bad_pair: Option<(Vec<Content>, Vec<String>)>,
    polls: u32,
    /// The last try had no file descriptor to read with.
    again: bool,
}

impl Reloader {
    /// Begins watching; needs a tokio runtime. `loaded` is what runs already.
    pub fn new(file: Option<PathBuf>, loaded: Loaded, shared: Arc<Shared>, board: Arc<Board>) -> Reloader {
        let started = Arc::new(without_origins(loaded));
        let text = file.is_some().then(|| started.text.clone());
        let running = Good { loaded: Arc::clone(&started), text };
        let mut kept = Kept::new(started.settings.state_directory.as_deref());
        kept.keep(&running);
        let watcher = Watcher::new(watched(file.as_deref(), &started));
        let compiled = watch::contents(&compiled_files(&started.settings));
        let reloader = Reloader {
            file,
            shared,
            board,
            running,
            started,
            kept,
            watcher,
            compiled,
            overruled: None,
            refused: None,
            bad_pair: None,
            polls: 0,
            again: false,
        };
        reloader.tell_board();
        reloader
    }

    /// Waits until there is a reason to call [`Reloader::reload`] with [`Asked::File`]. May be cancelled.
    pub async fn changed(&mut self) {
        loop {
            match self.watcher.changed(self.refused.is_some() || self.again).await {
                Why::Content => return,
                Why::Poll => {
                    self.polls = (self.polls + 1) % RETRY_POLLS;
                    if self.polls == 0 {
                        return;
                    }
                }
            }
        }
    }

    /// Tries to put what is asked for in force. `Err` holds every problem; what ran keeps running then.
    pub fn reload(&mut self, server: &Server, asked: &Asked) -> Result<ReloadAnswer, Vec<String>> {
        if *asked != Asked::File {
            // Else a bad file that this reads and that is mended before the watcher looks would never be seen changed.
            self.watcher.look();
        }
        // What nobody thought of must refuse a file, not end the process.
        let result = catch(|| self.apply(server, asked));
        let short = result.is_err().then(watch::shortage).flatten();
        self.again = short.is_some();
        if let Some(why) = short {
            // It says nothing of the file, which is read again soon.
            tracing::warn!("reload: {why}; it is tried again");
            return Err(vec![why]);
        }
        match &result {
            Ok(answer) => self.accepted(server, asked, answer),
            Err(problems) => self.rejected(asked, problems),
        }
        result
    }

    /// Compares a text with what runs.
    pub fn diff(&self, name: &str, base: &str, text: &str) -> Result<DiffAnswer, Vec<String>> {
        compare::compare(&self.running.loaded, name, Path::new(base), text)
    }

    fn apply(&mut self, server: &Server, asked: &Asked) -> Result<ReloadAnswer, Vec<String>> {
        let good = match asked {
            Asked::Command { to: Some(hash) } => self.earlier(hash)?,
            Asked::File if self.is_overruled() => self.running.clone(),
            Asked::File | Asked::Signal | Asked::Command { to: None } => self.read()?,
        };
        let compiled = watch::contents(&compiled_files(&good.loaded.settings));
        let mut answer = ReloadAnswer { hash: good.loaded.hash.clone(), ..ReloadAnswer::default() };
        answer.notes.extend(good.loaded.notes.iter().map(ToString::to_string));
        if good.loaded.hash != self.running.loaded.hash {
            answer.changes = diff(&self.running.loaded.settings, &good.loaded.settings);
        }
        let differs = good.loaded.hash != self.running.loaded.hash || compiled != self.compiled;
        if !differs && *asked != Asked::File {
            self.shared.telemetry.reopen_log().map_err(log_problem)?;
        }
        if differs {
            self.swap(server, &good.loaded)?;
            answer.changed = true;
            self.running = good;
            self.compiled = compiled;
        } else if self.certificates(server)? {
            answer.changed = true;
            answer.changes.push(Change { path: "certificates".to_owned(), what: "changed", needs_restart: false });
        }
        answer.notes.extend(self.needs_restart());
        Ok(answer)
    }

    /// Takes changed certificates into use. The server tells a bad pair once; it stays bad until a file changes.
    fn certificates(&mut self, server: &Server) -> Result<bool, Vec<String>> {
        let files = watch::contents(&listener_files(&self.running.loaded.settings));
        match server.reload_certificates() {
            Err(problems) => {
                let words = words(&problems);
                self.bad_pair = Some((files, words.clone()));
                Err(words)
            }
            Ok(changed) => match &self.bad_pair {
                Some((bad, words)) if !changed && *bad == files => Err(words.clone()),
                Some(_) | None => {
                    self.bad_pair = None;
                    Ok(changed)
                }
            },
        }
    }

    /// The point of no return is `plans.swap`; everything before it changes nothing.
    fn swap(&self, server: &Server, loaded: &Loaded) -> Result<(), Vec<String>> {
        let shared = &self.shared;
        let plan = compile(&loaded.settings, &loaded.hash, &shared.states, &shared.telemetry).map_err(|problems| {
            problems.iter().map(|problem| format!("{}: {}", problem.path, problem.words)).collect::<Vec<_>>()
        })?;
        let prepared = server.prepare(&plan).map_err(|problems| words(&problems))?;
        shared.telemetry.set_options(super::options::telemetry(&loaded.settings)).map_err(log_problem)?;
        let old = shared.plans.swap(Arc::new(plan));
        server.commit(prepared);
        retire(old);
        Ok(())
    }

    fn read(&self) -> Result<Good, Vec<String>> {
        match &self.file {
            Some(file) => read(file, &self.running.loaded.settings),
            None => Err(vec!["there is no file to load again: it runs from --upstream".to_owned()]),
        }
    }

    /// Whether the file still says what a command has overruled.
    fn is_overruled(&self) -> bool {
        let now = || self.file.as_ref().and_then(|file| std::fs::read_to_string(file).ok());
        self.overruled.is_some() && self.overruled == now()
    }

    fn earlier(&self, hash: &str) -> Result<Good, Vec<String>> {
        match self.kept.find(hash).map_err(|words| vec![words])? {
            Found::InMemory(good) => Ok(good),
            Found::OnDisk { hash, text } => {
                let file = self.file.clone().unwrap_or_else(|| PathBuf::from(format!("{hash}.yaml")));
                let base = file.parent().unwrap_or(Path::new("."));
                // What only the next start would meet is no reason to keep from what was good.
                let loaded = without_origins(load(&text, &file.display().to_string(), base)?);
                if loaded.hash != hash {
                    let words = format!(
                        "the text of plan {hash} is kept, but a secret file has changed since, \
                         so it would be another plan now ({})",
                        loaded.hash
                    );
                    return Err(vec![words]);
                }
                Ok(Good { loaded: Arc::new(loaded), text: Some(text) })
            }
        }
    }

    fn accepted(&mut self, server: &Server, asked: &Asked, answer: &ReloadAnswer) {
        let was_stale = self.shared.states.reload.stale.load(Ordering::Relaxed);
        let keeps_overruling = *asked == Asked::File && self.is_overruled();
        if answer.changed || (was_stale && !keeps_overruling) {
            self.shared.states.reload.took();
        }
        if !keeps_overruling {
            let back = matches!(asked, Asked::Command { to: Some(_) });
            self.overruled = if back { self.other_text() } else { None };
        }
        self.shared.states.reload.stale.store(self.overruled.is_some(), Ordering::Relaxed);
        self.refused = None;
        self.tell(asked, answer, was_stale && self.overruled.is_none());
        if answer.changed {
            self.kept.keep(&self.running);
        }
        self.watcher.follow(watched(self.file.as_deref(), &self.running.loaded));
        show(&self.board, server);
        self.tell_board();
    }

    fn tell(&self, asked: &Asked, answer: &ReloadAnswer, fresh_again: bool) {
        let journal = &self.shared.states.journal;
        if answer.changed && answer.changes.is_empty() {
            journal.record("reload", answer.hash.as_str(), "loaded: the same settings with other inputs");
        } else if answer.changed {
            journal.record("reload", answer.hash.as_str(), format!("loaded: {}", summary(&answer.changes)));
        } else if fresh_again {
            journal.record("reload", answer.hash.as_str(), "the file says again what runs");
        } else if *asked != Asked::File {
            tracing::info!(hash = answer.hash, "reload: nothing has changed");
        }
        if answer.changed || *asked != Asked::File {
            for note in &answer.notes {
                tracing::warn!(hash = answer.hash, "{note}");
            }
        }
    }

    /// The file's text, when it is another than what runs.
    fn other_text(&self) -> Option<String> {
        let text = std::fs::read_to_string(self.file.as_ref()?).unwrap_or_default();
        (self.running.text.as_ref() != Some(&text)).then_some(text)
    }

    fn rejected(&mut self, asked: &Asked, problems: &[String]) {
        // An earlier plan that cannot be gone back to says nothing about the file.
        if matches!(asked, Asked::Command { to: Some(_) }) || self.file.is_none() {
            problems.iter().for_each(|problem| tracing::warn!("reload: {problem}"));
            return;
        }
        let told = self.refused.as_deref() == Some(problems);
        if told && *asked == Asked::File {
            return;
        }
        self.shared.states.reload.refused(problems.to_vec());
        self.refused = Some(problems.to_vec());
        let subject = self.file.as_deref().map(|file| file.display().to_string()).unwrap_or_default();
        for problem in problems {
            tracing::error!(file = subject, "configuration refused: {problem}");
        }
        let words = format!("refused, {} problem(s); {} keeps running", problems.len(), self.running.loaded.hash);
        self.shared.states.journal.record("reload", subject, words);
    }

    fn needs_restart(&self) -> Vec<String> {
        let waiting = at_start(&self.started.settings, &self.running.loaded.settings);
        let waiting = waiting.into_iter().filter(|change| change.needs_restart);
        waiting.map(|change| format!("{} has changed, which takes effect only after a restart", change.path)).collect()
    }

    fn tell_board(&self) {
        let file = self.file.as_ref().map(|file| file.display().to_string());
        let plans = self.kept.hashes();
        let restart = self.needs_restart();
        self.board.update(|facts| {
            facts.config_file = file;
            facts.restart = restart;
            facts.plans = plans;
        });
    }
}

/// Tells the board where the server listens and with which certificates.
pub fn show(board: &Board, server: &Server) {
    let listeners: Vec<_> = server.addresses().into_iter().map(|(name, bound)| (name, bound.to_string())).collect();
    let certificate = |info: crate::serve::CertificateInfo| Certificate {
        listener: info.listener,
        names: info.names,
        path: info.path.display().to_string(),
        not_after: info.not_after,
    };
    let certificates = server.certificates().into_iter().map(certificate).collect();
    board.update(|facts| {
        facts.listeners.retain(|(name, _)| name == "ops" || name == "admin");
        facts.listeners.splice(0..0, listeners);
        facts.certificates = certificates;
    });
}

fn log_problem(error: TelemetryError) -> Vec<String> {
    vec![format!("{}: {}", error.path, error.words)]
}

/// A panic of `work` as a problem.
fn catch<T>(work: impl FnOnce() -> Result<T, Vec<String>>) -> Result<T, Vec<String>> {
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
    caught.unwrap_or_else(|_| Err(vec!["a defect of Outrigger was met while it was read; please report it".to_owned()]))
}

fn words(problems: &[crate::serve::ServeProblem]) -> Vec<String> {
    problems.iter().map(ToString::to_string).collect()
}

/// Frees a plan when nobody else has it. Whoever lets go of it last frees it, which takes milliseconds with thousands of
/// routes: that is to be this thread, and not a worker between two requests.
fn retire(plan: Arc<Plan>) {
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
    runtime.spawn(async move {
        while Arc::strong_count(&plan) > 1 {
            tokio::time::sleep(RETIRED_LOOK).await;
        }
    });
}

/// `routes.api changed, upstreams.search added`.
fn summary(changes: &[Change]) -> String {
    let words = changes.iter().take(TOLD_MAX).map(|change| format!("{} {}", change.path, change.what));
    let more = changes.len().saturating_sub(TOLD_MAX);
    let more = (more > 0).then(|| format!("and {more} more"));
    words.chain(more).collect::<Vec<_>>().join(", ")
}
