//! The control side of all listeners: start workers, bind, load certificates, apply a plan, stop.
//!
//! A reload is two steps. [`Server::prepare`] does everything that can fail (bind, read and check certificates) and
//! changes nothing; [`Server::commit`] cannot fail. An unchanged address is never bound again, whatever else changed.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::activity::{Ticks, millis};
use super::certificates::{CertificateInfo, Fingerprint};
use super::gate::Gate;
use super::listener::{self, Bound, ListenerShared, Socket};
use super::worker::{self, Command};
use super::{metrics, tls};
use crate::core::units::Address;
use crate::plan::{ListenerPlan, Plan};
use crate::proxy::Shared;
use crate::state::clock;
use crate::state::journal::lock;

/// A worker that has not ticked for this long hangs.
const SILENCE_MAX_MS: u64 = 10_000;

/// For the workers to end.
const SHUTDOWN_MAX: Duration = Duration::from_secs(1);

/// Why a listener cannot be served, for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServeProblem {
    /// The configuration path it belongs to.
    pub path: String,
    pub words: String,
}

impl std::fmt::Display for ServeProblem {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}: {}", self.path, self.words)
    }
}

/// The workers and their listeners.
pub struct Server {
    shared: Arc<Shared>,
    workers: Vec<WorkerHandle>,
    /// Sockets given by the service manager that no listener has taken yet.
    inherited: Mutex<Vec<Socket>>,
    /// By slot.
    open: Arc<Mutex<HashMap<usize, OpenListener>>>,
}

struct WorkerHandle {
    commands: mpsc::UnboundedSender<Command>,
    ticks: Arc<Ticks>,
    thread: JoinHandle<()>,
}

struct OpenListener {
    shared: Arc<ListenerShared>,
    tls: Option<tls::Loaded>,
    /// Content of certificate files that was refused, so that it is reported once.
    refused: Option<Fingerprint>,
}

/// What a plan needs, bound and loaded. Dropped, it closes what it opened.
pub struct Prepared {
    fresh: Vec<Fresh>,
    /// (slot, name, the new TLS when it changed).
    kept: Vec<(usize, Arc<str>, TlsChange)>,
    dropped: Vec<usize>,
}

struct Fresh {
    slot: usize,
    name: Arc<str>,
    bound: Bound,
    sockets: Vec<Socket>,
    tls: Option<tls::Loaded>,
}

enum TlsChange {
    Same,
    To(Option<Box<tls::Loaded>>),
}

impl Server {
    /// Starts `workers` threads; nothing listens yet. `inherited` are listening sockets of socket activation.
    pub fn start(shared: Arc<Shared>, workers: usize, inherited: Vec<Socket>) -> Result<Server, ServeProblem> {
        let start = |index: usize| -> std::io::Result<WorkerHandle> {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().on_thread_unpark(clock::looked).build()?;
            let (commands, orders) = mpsc::unbounded_channel();
            let shared = Arc::clone(&shared);
            let ticks = Arc::new(Ticks::default());
            ticks.advance();
            let told = Arc::clone(&ticks);
            let thread = std::thread::Builder::new()
                .name(format!("worker-{index}"))
                .spawn(move || worker::run((index, workers.max(1)), shared, told, runtime, orders))?;
            Ok(WorkerHandle { commands, ticks, thread })
        };
        let workers = (0..workers.max(1)).map(start).collect::<std::io::Result<_>>().map_err(|problem| {
            ServeProblem { path: "workers".to_owned(), words: format!("a worker cannot be started: {problem}") }
        })?;
        Ok(Server { shared, workers, inherited: Mutex::new(inherited), open: Arc::default() })
    }

    /// Binds what is new and loads and checks every certificate; nothing changes yet.
    pub fn prepare(&self, plan: &Plan) -> Result<Prepared, Vec<ServeProblem>> {
        let open = lock(&self.open);
        let mut prepared = Prepared { fresh: Vec::new(), kept: Vec::new(), dropped: Vec::new() };
        let mut problems = Vec::new();
        for listener in plan.live_listeners() {
            let known = open.get(&listener.slot);
            let loaded = match load_tls(listener, known.and_then(|known| known.tls.as_ref())) {
                Ok(loaded) => loaded,
                Err(found) => {
                    problems.extend(found);
                    continue;
                }
            };
            if let Some(known) = known {
                let same = loaded.as_ref().map(|tls| (tls.fingerprint, &tls.plan))
                    == known.tls.as_ref().map(|tls| (tls.fingerprint, &tls.plan));
                let change = if same { TlsChange::Same } else { TlsChange::To(loaded.map(Box::new)) };
                prepared.kept.push((listener.slot, Arc::clone(&listener.name), change));
                continue;
            }
            match self.bind(&listener.address, &open) {
                Ok((bound, sockets)) => prepared.fresh.push(Fresh {
                    slot: listener.slot,
                    name: Arc::clone(&listener.name),
                    bound,
                    sockets,
                    tls: loaded,
                }),
                Err(words) => problems.push(problem(listener, "address", words)),
            }
        }
        prepared.dropped = open.keys().copied().filter(|slot| plan.listener(*slot).is_none()).collect();
        if problems.is_empty() {
            // Last, so that nobody connects to a socket that is given up because of another's problem.
            prepared.listen(&mut problems);
        }
        if problems.is_empty() { Ok(prepared) } else { Err(problems) }
    }

    fn bind(&self, address: &Address, open: &HashMap<usize, OpenListener>) -> Result<(Bound, Vec<Socket>), String> {
        if let Some(given) = self.take_inherited(address) {
            return listener::adopt(&given, self.workers.len())
                .map_err(|problem| format!("{address}, inherited, cannot be used: {problem}"));
        }
        let ours = |port: u16| {
            open.values().any(|known| matches!(known.shared.bound, Bound::Tcp(bound) if bound.port() == port))
        };
        listener::bind(address, self.workers.len(), ours)
    }

    /// The inherited socket that listens where `address` says.
    fn take_inherited(&self, address: &Address) -> Option<Socket> {
        let mut inherited = lock(&self.inherited);
        let index = inherited.iter().position(|socket| socket.is_at(address))?;
        Some(inherited.swap_remove(index))
    }

    /// Puts a prepared plan's listeners in force; to be called after the plan itself is.
    pub fn commit(&self, mut prepared: Prepared) {
        let mut open = lock(&self.open);
        for (slot, name, change) in std::mem::take(&mut prepared.kept) {
            let Some(known) = open.get_mut(&slot) else { continue };
            known.shared.rename(&name);
            if let TlsChange::To(loaded) = change {
                let loaded = loaded.map(|loaded| *loaded);
                known.shared.tls.store(loaded.as_ref().map(|tls| Arc::clone(&tls.config)));
                loaded.iter().for_each(warn_of_expiry);
                known.tls = loaded;
                known.refused = None;
            }
        }
        for fresh in std::mem::take(&mut prepared.fresh) {
            let config = fresh.tls.as_ref().map(|tls| Arc::clone(&tls.config));
            tracing::info!(listener = %fresh.name, address = %fresh.bound, "listening");
            fresh.tls.iter().for_each(warn_of_expiry);
            let shared = Arc::new(ListenerShared::new(fresh.slot, &fresh.name, fresh.bound, config));
            for (worker, socket) in self.workers.iter().zip(fresh.sockets) {
                worker.tell(Command::Listen(Arc::clone(&shared), socket));
            }
            open.insert(fresh.slot, OpenListener { shared, tls: fresh.tls, refused: None });
        }
        for slot in std::mem::take(&mut prepared.dropped) {
            let Some(known) = open.remove(&slot) else { continue };
            tracing::info!(listener = %known.shared.name(), address = %known.shared.bound, "no longer listening");
            known.shared.bound.clean_up();
            self.tell_all(|| Command::Drop(slot));
        }
        let unused = std::mem::take(&mut *lock(&self.inherited)).len();
        if unused > 0 {
            tracing::warn!(unused, "inherited sockets that match no listener are closed");
        }
    }

    /// Listener names and where each really listens, sorted by name.
    pub fn addresses(&self) -> Vec<(String, Bound)> {
        let open = lock(&self.open);
        let mut found: Vec<_> =
            open.values().map(|known| ((*known.shared.name()).clone(), known.shared.bound.clone())).collect();
        found.sort_by(|one, other| one.0.cmp(&other.0));
        found
    }

    /// Whether every worker has looked at the clock lately: for watchdogs.
    pub fn is_alive(&self) -> bool {
        let now = millis(clock::now());
        let lately = |worker: &WorkerHandle| now.saturating_sub(worker.ticks.read()) < SILENCE_MAX_MS;
        self.workers.iter().all(|worker| !worker.thread.is_finished() && lately(worker))
    }

    /// Listener names and the counts of their connections.
    pub fn gates(&self) -> Vec<(Arc<String>, Arc<Gate>)> {
        let open = lock(&self.open);
        open.values().map(|known| (known.shared.name(), Arc::clone(&known.shared.gate))).collect()
    }

    /// Adds the connections of each listener and the certificates to what `/metrics` shows.
    pub fn register_metrics(&self) {
        let open = Arc::clone(&self.open);
        self.shared.telemetry.register(move |out| {
            let open = lock(&open);
            let shown = open.values().map(|known| metrics::Shown {
                name: known.shared.name(),
                gate: &known.shared.gate,
                certificates: known.tls.as_ref().map_or(&[], |tls| &tls.certificates),
            });
            metrics::write(&shown.collect::<Vec<_>>(), out);
        });
    }

    /// Every certificate in use.
    pub fn certificates(&self) -> Vec<CertificateInfo> {
        let open = lock(&self.open);
        open.values().filter_map(|known| known.tls.as_ref()).flat_map(|tls| tls.certificates.clone()).collect()
    }

    /// Every file that `reload_certificates` looks at.
    pub fn certificate_files(&self) -> Vec<PathBuf> {
        let open = lock(&self.open);
        open.values().filter_map(|known| known.tls.as_ref()).flat_map(|tls| tls::files(&tls.plan)).collect()
    }

    /// Takes changed certificate, key and CA files into use; `Ok(true)` when something changed. Files that cannot be
    /// used change nothing and are reported once.
    pub fn reload_certificates(&self) -> Result<bool, Vec<ServeProblem>> {
        let mut open = lock(&self.open);
        let (mut changed, mut problems) = (false, Vec::new());
        for known in open.values_mut() {
            let Some(current) = &known.tls else { continue };
            let now = tls::fingerprint(&current.plan);
            if now == Some(current.fingerprint) || (now.is_some() && now == known.refused) {
                continue;
            }
            let name = known.shared.name();
            match tls::load(&name, &current.plan, Some(current)) {
                Ok(loaded) => {
                    known.shared.tls.store(Some(Arc::clone(&loaded.config)));
                    warn_of_expiry(&loaded);
                    let words = format!("new certificate for {}", names(&loaded.certificates));
                    self.shared.states.journal.record("certificate", name.as_str(), words);
                    known.tls = Some(loaded);
                    known.refused = None;
                    changed = true;
                }
                Err(found) => {
                    known.refused = now;
                    problems.extend(found.into_iter().map(|(part, words)| tls_problem(&name, &part, words)));
                }
            }
        }
        if problems.is_empty() { Ok(changed) } else { Err(problems) }
    }

    /// Returns when every worker has accepted what was waiting and has closed its sockets.
    pub async fn stop_accepting(&self) {
        let stopping: Vec<_> = self
            .workers
            .iter()
            .map(|worker| {
                let (done, stopped) = oneshot::channel();
                worker.tell(Command::StopAccepting(done));
                stopped
            })
            .collect();
        for stopped in stopping {
            let _ = stopped.await; // a worker that is gone accepts nothing either
        }
        for known in lock(&self.open).values() {
            known.shared.bound.clean_up();
        }
    }

    /// Ends connections as soon as they are idle; HTTP/2 clients get GOAWAY.
    pub fn close(&self) {
        self.tell_all(|| Command::Close);
    }

    /// Ends all connections now.
    pub fn cut(&self) {
        self.tell_all(|| Command::Cut);
    }

    /// Ends the workers and waits for their threads, but not for one that hangs.
    pub async fn shutdown(self) {
        self.tell_all(|| Command::Shutdown);
        let until = clock::now() + SHUTDOWN_MAX;
        for worker in self.workers {
            while !worker.thread.is_finished() && clock::now() < until {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            if worker.thread.is_finished() && worker.thread.join().is_err() {
                tracing::error!("a worker had panicked");
            }
        }
        for known in lock(&self.open).values() {
            known.shared.bound.clean_up();
        }
    }

    fn tell_all(&self, command: impl Fn() -> Command) {
        for worker in &self.workers {
            worker.tell(command());
        }
    }
}

impl WorkerHandle {
    fn tell(&self, command: Command) {
        if self.commands.send(command).is_err() {
            tracing::error!("a worker is gone");
        }
    }
}

impl Prepared {
    fn listen(&self, problems: &mut Vec<ServeProblem>) {
        for fresh in &self.fresh {
            if let Some(found) = fresh.sockets.iter().find_map(|socket| socket.listen().err()) {
                let words = format!("{} cannot be listened on: {found}", fresh.bound);
                problems.push(ServeProblem { path: format!("listeners.{}.address", fresh.name), words });
            }
        }
    }
}

impl Drop for Prepared {
    /// What was not committed leaves no socket file behind.
    fn drop(&mut self) {
        self.fresh.iter().for_each(|fresh| fresh.bound.clean_up());
    }
}

/// Not a refusal: the operator may have nothing better yet, and clients that do not look keep working.
fn warn_of_expiry(tls: &tls::Loaded) {
    let now = clock::wall();
    for certificate in tls.certificates.iter().filter(|certificate| certificate.not_after < now) {
        tracing::warn!(listener = certificate.listener, certificate = %certificate.path.display(), "expired");
    }
}

fn load_tls(listener: &ListenerPlan, previous: Option<&tls::Loaded>) -> Result<Option<tls::Loaded>, Vec<ServeProblem>> {
    let Some(plan) = &listener.tls else { return Ok(None) };
    match tls::load(&listener.name, plan, previous) {
        Ok(loaded) => Ok(Some(loaded)),
        Err(found) => Err(found.into_iter().map(|(part, words)| tls_problem(&listener.name, &part, words)).collect()),
    }
}

fn tls_problem(listener: &str, part: &str, words: String) -> ServeProblem {
    let dot = if part.is_empty() { "" } else { "." };
    ServeProblem { path: format!("listeners.{listener}.tls{dot}{part}"), words }
}

fn problem(listener: &ListenerPlan, part: &str, words: String) -> ServeProblem {
    ServeProblem { path: format!("listeners.{}.{part}", listener.name), words }
}

fn names(certificates: &[CertificateInfo]) -> String {
    let names: Vec<&str> = certificates.iter().flat_map(|info| &info.names).map(String::as_str).collect();
    if names.is_empty() { "no name".to_owned() } else { names.join(", ") }
}
