//! `outrigger run`: builds the floors bottom-up, waits for signals and commands, drains, ends.
//!
//! The order of a start: everything that can be wrong is found before a client could notice anything (configuration,
//! files, ports), and all of it is told. The order of an end is product law: drain, then the telemetry, then the app,
//! then the last answers of the control ports. Nothing about a single request is decided here.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::checks::Checks;
use super::kept::Kept;
use super::options;
use super::process::{self, Signal, Signals};
use super::reload::{self, Asked, Reloader};
use super::systemd::{self, Manager};
use super::trial;
use super::wrap::{self, Child, Ended};
use crate::admin::{self, Board, Command, Door, DrainAnswer};
use crate::config::Loaded;
use crate::config::settings::Settings;
use crate::core::drain::Params;
use crate::plan::compile::compile;
use crate::proxy::Shared;
use crate::serve::drain::FAREWELL;
use crate::serve::{DrainReport, Server};
use crate::state::clock;
use crate::state::lifecycle::Stage;
use crate::state::states::States;
use crate::telemetry::Telemetry;

/// Commands of the admin port that may wait.
const COMMANDS_MAX: usize = 16;
/// For telemetry that is still on its way at the end.
const FLUSH_MAX: Duration = Duration::from_secs(2);
/// For the app to end after SIGTERM, so that 5 s of delay, 20 s of drain and this fit into the 30 s that Kubernetes
/// gives by default; and after a second signal.
const APP_STOP_MAX: Duration = Duration::from_secs(5);
const APP_STOP_FORCED: Duration = Duration::from_secs(1);

/// What to run.
pub struct Options {
    /// The file `loaded` came from; `None` when it came from `--upstream`.
    pub config: Option<PathBuf>,
    pub loaded: Loaded,
    /// The app to start, if we are to start it.
    pub command: Vec<OsString>,
}

/// Why it cannot start.
pub(super) struct Cannot {
    pub(super) words: Vec<String>,
    code: u8,
}

impl Cannot {
    fn new(words: impl IntoIterator<Item = String>) -> Cannot {
        Cannot { words: words.into_iter().collect(), code: 2 }
    }
}

/// Runs until the end; the result is the exit code.
pub fn run(options: Options) -> u8 {
    process::log_to_stderr();
    process::report_panics();
    process::raise_descriptor_limit();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(cause) => return refuse(&Cannot::new([format!("cannot start: {cause}")])),
    };
    runtime.block_on(async {
        match Outrigger::start(options).await {
            Ok(mut outrigger) => {
                let stop = outrigger.serve().await;
                outrigger.end(stop).await
            }
            Err(cannot) => refuse(&cannot),
        }
    })
}

fn refuse(cannot: &Cannot) -> u8 {
    for words in &cannot.words {
        eprintln!("{}", words.trim_end());
    }
    process::leave_message(&cannot.words.join("\n"));
    cannot.code
}

/// Everything that runs.
pub(super) struct Outrigger {
    pub(super) shared: Arc<Shared>,
    server: Server,
    checks: Checks,
    reloader: Reloader,
    child: Option<Child>,
    control: Control,
    signals: Signals,
    manager: Manager,
}

/// The ops and admin ports.
struct Control {
    commands: mpsc::Receiver<Command>,
    stop: watch::Sender<bool>,
    ports: Vec<JoinHandle<()>>,
}

/// Why it ends.
pub(super) enum Stop {
    Signal(Signal),
    Command(oneshot::Sender<DrainAnswer>),
    App(Ended),
}

impl Outrigger {
    pub(super) async fn start(options: Options) -> Result<Outrigger, Cannot> {
        let Options { config, loaded, command } = options;
        let inherited = systemd::inherited();
        let settings = &loaded.settings;
        // First of all, so that a signal during the start is not lost.
        let signals =
            Signals::listen().map_err(|cause| Cannot::new([format!("cannot listen for signals: {cause}")]))?;
        let manager = Manager::from(&|name| std::env::var(name).ok());
        for note in &loaded.notes {
            tracing::warn!("{note}");
        }
        let problems = trial::at_start(&loaded);
        if !problems.is_empty() {
            return Err(Cannot::new(problems.iter().map(ToString::to_string)));
        }
        Kept::try_directory(settings.state_directory.as_deref()).map_err(|words| Cannot::new([words]))?;
        let workers = options::workers(settings);
        let shared = share(&loaded, workers)?;
        let server = Server::start(Arc::clone(&shared), workers, inherited)
            .map_err(|problem| Cannot::new([problem.to_string()]))?;
        let prepared = server
            .prepare(&shared.plans.load())
            .map_err(|problems| Cannot::new(problems.iter().map(ToString::to_string)))?;
        let board = Board::new(clock::now());
        let control = Control::open(settings, &shared, &board).await?;
        let child = start_child(&command, settings)?;
        board.update(|facts| facts.app = child.as_ref().map(Child::id));
        server.commit(prepared);
        server.register_metrics();
        process::register_metrics(&shared.telemetry);
        shared.states.lifecycle.advance(Stage::Serving);
        reload::show(&board, &server);
        tokio::spawn(super::memory::watch(Arc::clone(&shared)));
        let mut checks = Checks::new(Arc::clone(&shared), child.is_some());
        checks.apply();
        let reloader = Reloader::new(config, loaded, Arc::clone(&shared), board);
        // A wrapped app is part of the unit, so the unit is ready when it is; another app may be waiting for us.
        if child.is_none() || shared.states.lifecycle.app_seen() {
            manager.ready("serving");
        }
        Ok(Outrigger { shared, server, checks, reloader, child, control, signals, manager })
    }

    /// Until there is a reason to end.
    pub(super) async fn serve(&mut self) -> Stop {
        let mut beat = tokio::time::interval(self.manager.heartbeat.unwrap_or(Duration::from_secs(1)));
        let mut told_ready = self.child.is_none();
        loop {
            tokio::select! {
                signal = self.signals.next() => match signal {
                    Signal::Reload => self.reload(&Asked::Signal, None),
                    Signal::Terminate | Signal::Interrupt => return Stop::Signal(signal),
                },
                () = self.reloader.changed() => self.reload(&Asked::File, None),
                Some(command) = self.control.commands.recv() => match command {
                    Command::Reload { to, reply } => self.reload(&Asked::Command { to }, Some(reply)),
                    Command::Diff { name, base, text, reply } => {
                        let _ = reply.send(self.reloader.diff(&name, &base, &text)); // who asked may have left
                    }
                    Command::Drain { reply } => return Stop::Command(reply),
                },
                ended = exited(&mut self.child) => return Stop::App(ended),
                _ = beat.tick() => {
                    self.alive();
                    if !told_ready && self.shared.states.lifecycle.app_seen() {
                        told_ready = true;
                        self.manager.ready("serving");
                    }
                }
            }
        }
    }

    fn reload(&mut self, asked: &Asked, reply: Option<oneshot::Sender<Result<admin::ReloadAnswer, Vec<String>>>>) {
        self.manager.reloading();
        let answer = self.reloader.reload(&self.server, asked);
        self.checks.apply();
        self.manager.ready("serving");
        if let Some(reply) = reply {
            let _ = reply.send(answer); // who asked may have left
        }
    }

    /// A watchdog that is fed by a process whose workers hang would be worthless.
    fn alive(&self) {
        if self.manager.heartbeat.is_some() && self.server.is_alive() {
            self.manager.alive();
        }
    }

    /// Drains, flushes, stops the app, answers who waits for the end; the exit code.
    pub(super) async fn end(mut self, stop: Stop) -> u8 {
        let why = match &stop {
            Stop::Signal(signal) => signal.words().to_owned(),
            Stop::Command(_) => "drain was asked for at the admin port".to_owned(),
            Stop::App(ended) => ended.words(),
        };
        self.shared.states.journal.record("drain", "process", format!("draining: {why}"));
        self.manager.stopping("draining");
        if let Stop::App(_) = stop {
            // Nobody starts it again: nobody is to wait for it.
            self.shared.plans.load().upstreams.iter().for_each(|upstream| upstream.state.hold.gone());
        }
        let params = self.params(&stop);
        let (report, mut waiting) = self.drain(params).await;
        let Outrigger { shared, server, checks, child, control, mut signals, manager: _manager, .. } = self;
        drop(checks);
        tell(&report, &shared);
        server.shutdown().await;
        let telemetry = Arc::clone(&shared.telemetry);
        // Blocking, and on the side, because spans are sent by threads that may need this runtime.
        let _ = tokio::task::spawn_blocking(move || telemetry.flush(FLUSH_MAX)).await;
        let patience = if report.forced { APP_STOP_FORCED } else { APP_STOP_MAX };
        let ended = match (&stop, child) {
            (Stop::App(ended), _) => Some(*ended),
            (Stop::Signal(_) | Stop::Command(_), Some(child)) => Some(stop_child(child, patience, &mut signals).await),
            (Stop::Signal(_) | Stop::Command(_), None) => None,
        };
        if let Stop::Command(reply) = stop {
            waiting.push(reply);
        }
        for reply in waiting {
            let _ = reply.send(answer(&report)); // who asked may have left
        }
        control.close().await;
        ended.map_or(0, Ended::code)
    }

    fn params(&self, stop: &Stop) -> Params {
        let drain = self.shared.plans.load().drain;
        let delay = match stop {
            // Nobody but us can be waited for.
            Stop::App(_) => Duration::ZERO,
            Stop::Signal(Signal::Interrupt) => drain.delay.unwrap_or(Duration::ZERO),
            Stop::Signal(Signal::Terminate | Signal::Reload) | Stop::Command(_) => {
                drain.delay.unwrap_or_else(process::drain_delay)
            }
        };
        Params { delay, timeout: drain.timeout, farewell: FAREWELL }
    }

    /// Drains while the watchdog is fed and the admin port answered; who else asked for a drain waits for its end.
    async fn drain(&mut self, params: Params) -> (DrainReport, Vec<oneshot::Sender<DrainAnswer>>) {
        let mut waiting = Vec::new();
        let (second, abort) = oneshot::channel::<()>();
        let mut second = Some(second);
        let mut beat = tokio::time::interval(self.manager.heartbeat.unwrap_or(Duration::from_secs(1)));
        let draining = crate::serve::drain(&self.server, &self.shared, params, async {
            // A sender that is gone has been used, or will never be.
            if abort.await.is_err() {
                std::future::pending::<()>().await;
            }
        });
        let mut draining = std::pin::pin!(draining);
        let report = loop {
            tokio::select! {
                report = &mut draining => break report,
                signal = self.signals.next() => {
                    if signal != Signal::Reload && let Some(second) = second.take() {
                        let _ = second.send(()); // the drain has just ended by itself
                    }
                }
                Some(command) = self.control.commands.recv() => {
                    if let Command::Drain { reply } = command {
                        waiting.push(reply);
                    }
                    // Others are dropped, which says that it is too late for them.
                }
                _ = beat.tick() => if self.manager.heartbeat.is_some() && self.server.is_alive() {
                    self.manager.alive();
                },
            }
        };
        (report, waiting)
    }
}

/// State, telemetry and the first plan.
fn share(loaded: &Loaded, workers: usize) -> Result<Arc<Shared>, Cannot> {
    let settings = &loaded.settings;
    let telemetry = Telemetry::start(options::telemetry(settings), workers)
        .map_err(|problem| Cannot::new([format!("{}: {}", problem.path, problem.words)]))?;
    let states = Arc::new(States::default());
    let plan = compile(settings, &loaded.hash, &states, &telemetry).map_err(|problems| {
        Cannot::new(problems.iter().map(|problem| format!("{}: {}", problem.path, problem.words)))
    })?;
    Ok(Arc::new(Shared { states, telemetry, plans: ArcSwap::from_pointee(plan) }))
}

fn start_child(command: &[OsString], settings: &Settings) -> Result<Option<Child>, Cannot> {
    if command.is_empty() {
        return Ok(None);
    }
    match Child::spawn(command, wrap::port_for(settings)) {
        Ok(child) => Ok(Some(child)),
        Err(problem) => Err(Cannot { words: vec![problem.words], code: problem.code }),
    }
}

/// The end of the child; never, when there is none.
async fn exited(child: &mut Option<Child>) -> Ended {
    match child {
        Some(child) => child.exited().await,
        None => std::future::pending().await,
    }
}

/// SIGTERM, then patience, which a signal to us ends.
async fn stop_child(mut child: Child, patience: Duration, signals: &mut Signals) -> Ended {
    loop {
        tokio::select! {
            ended = child.stop(patience) => return ended,
            signal = signals.next() => if signal != Signal::Reload { break },
        }
    }
    child.stop(APP_STOP_FORCED).await
}

/// The report: to the log, as its last line unless a wrapped app has to be killed; to the journal, and as the termination message.
fn tell(report: &DrainReport, shared: &Shared) {
    let DrainReport { finished, cut, forced, websockets_closed, duration } = *report;
    let duration_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let words = format!("drained in {duration_ms} ms: {finished} finished, {cut} cut");
    let how = if forced { ", ended by a second signal" } else { "" };
    shared.states.journal.record("drain", "process", format!("{words}{how}"));
    tracing::info!(finished, cut, forced, websockets_closed, duration_ms, "drain report");
    process::leave_message(&format!("{words}{how}"));
}

fn answer(report: &DrainReport) -> DrainAnswer {
    DrainAnswer {
        finished: report.finished,
        cut: report.cut,
        forced: report.forced,
        websockets_closed: report.websockets_closed,
        duration_ms: u64::try_from(report.duration.as_millis()).unwrap_or(u64::MAX),
    }
}

impl Control {
    /// Binds both ports and serves them until [`Control::close`].
    async fn open(settings: &Settings, shared: &Arc<Shared>, board: &Arc<Board>) -> Result<Control, Cannot> {
        let (sender, commands) = mpsc::channel(COMMANDS_MAX);
        let (stop, stopped) = watch::channel(false);
        let token = settings.admin.token.as_ref().map(|token| token.0.as_str());
        let routers = [
            (Door::Ops, &settings.ops, admin::ops_router(Arc::clone(shared))),
            (
                Door::Admin,
                &settings.admin.address,
                admin::admin_router(Arc::clone(shared), sender, token, Arc::clone(board)),
            ),
        ];
        let (mut ports, mut problems) = (Vec::new(), Vec::new());
        for (door, address, router) in routers {
            match admin::bind(door, address).await {
                Ok(bound) => {
                    board.update(|facts| facts.listeners.push((door.name().to_owned(), bound.address())));
                    let mut stopped = stopped.clone();
                    let until = async move { drop(stopped.wait_for(|stopped| *stopped).await) };
                    ports.push(tokio::spawn(admin::serve_http(bound, router, until)));
                }
                Err(cause) => problems.push(process::not_bound(door.name(), address, &cause)),
            }
        }
        if problems.is_empty() { Ok(Control { commands, stop, ports }) } else { Err(Cannot::new(problems)) }
    }

    /// Lets open answers end, the one to `drain --wait` among them.
    async fn close(self) {
        self.stop.send_replace(true);
        for port in self.ports {
            let _ = port.await; // a panic in it was logged
        }
    }
}
