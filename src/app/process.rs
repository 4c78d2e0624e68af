//! What the process needs of the operating system: signals, the diagnostics log, panics, limits, the last message.

use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{self, SignalKind};

use crate::core::units::Address;
use crate::telemetry::Telemetry;

/// Where Kubernetes looks for the last words of a container.
const TERMINATION_LOG: &str = "/dev/termination-log";
/// Panics caught since the start.
static PANICS: AtomicU64 = AtomicU64::new(0);

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM.
    Terminate,
    /// SIGINT: somebody at a terminal.
    Interrupt,
    /// SIGHUP.
    Reload,
}

impl Signal {
    pub fn words(self) -> &'static str {
        match self {
            Signal::Terminate => "SIGTERM",
            Signal::Interrupt => "SIGINT",
            Signal::Reload => "SIGHUP",
        }
    }
}

/// The signals a process must handle, above all as PID 1, which has no default handlers.
pub struct Signals {
    terminate: unix::Signal,
    interrupt: unix::Signal,
    reload: unix::Signal,
}

impl Signals {
    pub fn listen() -> std::io::Result<Signals> {
        Ok(Signals {
            terminate: unix::signal(SignalKind::terminate())?,
            interrupt: unix::signal(SignalKind::interrupt())?,
            reload: unix::signal(SignalKind::hangup())?,
        })
    }

    /// The next one. May be cancelled.
    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::Terminate,
            _ = self.interrupt.recv() => Signal::Interrupt,
            _ = self.reload.recv() => Signal::Reload,
        }
    }
}

/// JSON lines on standard error; `OUTRIGGER_LOG` takes a filter (`debug`, `outrigger::serve=trace`).
pub fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("OUTRIGGER_LOG");
    let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().json().flatten_event(true).with_writer(std::io::stderr).with_env_filter(filter);
    drop(log.try_init()); // a test has one already
}

/// A panic ends one connection or one task, never the process; it is logged as what it is, a fault of ours.
pub fn report_panics() {
    std::panic::set_hook(Box::new(|panic| {
        PANICS.fetch_add(1, Ordering::Relaxed);
        let location = panic.location().map(ToString::to_string).unwrap_or_default();
        let words = panic.payload_as_str().unwrap_or("no message");
        tracing::error!(location, "panic: {words}");
    }));
}

pub fn register_metrics(telemetry: &Telemetry) {
    telemetry.register(|out| {
        let panics = PANICS.load(Ordering::Relaxed);
        out.single("outrigger_panics_total", "counter", "Faults of Outrigger itself that ended a task.", panics as f64);
    });
}

/// Takes as many file descriptors as the hard limit allows: the soft limit is a relic of `select`.
pub fn raise_descriptor_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        let _ = setrlimit(Resource::Nofile, limit); // fewer connections, then
    }
}

/// `drain.delay: auto`: an orchestrator goes on sending for seconds after it has told us to stop.
pub fn drain_delay() -> Duration {
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let orchestrated = is_set("KUBERNETES_SERVICE_HOST") || is_set("ECS_CONTAINER_METADATA_URI_V4");
    Duration::from_secs(if orchestrated { 5 } else { 1 })
}

/// Says why it ended where Kubernetes shows it; elsewhere the file does not exist and is not made.
pub fn leave_message(words: &str) {
    if let Ok(mut file) = std::fs::OpenOptions::new().write(true).truncate(true).open(TERMINATION_LOG) {
        drop(file.write_all(words.as_bytes()));
    }
}

/// Why a control port cannot be had.
pub fn not_bound(name: &str, address: &Address, cause: &std::io::Error) -> String {
    match cause.kind() {
        std::io::ErrorKind::AddrInUse => {
            let (names, other) = match address {
                Address::Tcp { .. } => ("ss -ltnp", "address"),
                Address::Unix(_) => ("ss -lxp", "path"),
            };
            format!(
                "{name}.address: {address} is in use by another process; stop it (`{names}` names it) or choose another {other}"
            )
        }
        _ => format!("{name}.address: {address} cannot be bound: {cause}"),
    }
}
