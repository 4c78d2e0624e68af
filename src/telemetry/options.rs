//! What telemetry must know of the configuration. It has types of its own because rooms of one floor do not see each
//! other; `app` translates.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// All of it. The default writes no log and exports no spans: it is what tests want.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options {
    pub service: Service,
    pub access_log: AccessLog,
    pub traces: Traces,
}

/// Who this is, in spans and in the exposition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// Empty is `outrigger`.
    pub name: String,
    pub version: Option<String>,
    pub environment: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct AccessLog {
    pub to: LogTarget,
    pub format: LogFormat,
    /// Share of successes that are logged, 0 to 1; everything else always is.
    pub sample_success: f64,
    /// Names of query parameters whose values are replaced, in the log and in spans.
    pub redact_query: Vec<String>,
}

impl Default for AccessLog {
    fn default() -> Self {
        AccessLog { to: LogTarget::Off, format: LogFormat::Json, sample_success: 1.0, redact_query: Vec::new() }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogTarget {
    Stdout,
    Stderr,
    /// Appended to, made if missing, opened again at each reload.
    File(PathBuf),
    Off,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Json,
    /// The Common Log Format.
    Common,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Traces {
    /// Base URL of an OTLP/HTTP collector; `None` exports nothing. Fixed at the start.
    pub otlp: Option<String>,
    /// Requests at least this slow are exported whether sampled or not.
    pub keep_slow: Option<Duration>,
    /// Requests that failed are exported whether sampled or not.
    pub keep_errors: bool,
}

/// Why telemetry cannot start.
#[derive(Debug)]
pub enum TelemetryError {
    /// The access log's file.
    LogFile {
        path: PathBuf,
        cause: std::io::Error,
    },
    /// Standard output or error.
    LogStream {
        name: &'static str,
        cause: std::io::Error,
    },
    /// The collector's address, or the TLS needed to reach it.
    Collector {
        endpoint: String,
        cause: Box<dyn std::error::Error + Send + Sync>,
    },
    Thread {
        name: &'static str,
        cause: std::io::Error,
    },
}

impl fmt::Display for TelemetryError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TelemetryError::LogFile { path, cause } => {
                write!(out, "telemetry.access_log.to: cannot open {}: {cause}", path.display())
            }
            TelemetryError::LogStream { name, cause } => {
                write!(out, "telemetry.access_log.to: cannot write to {name}: {cause}")
            }
            TelemetryError::Collector { endpoint, cause } => {
                write!(out, "telemetry.traces.otlp: {endpoint}: {cause}")
            }
            TelemetryError::Thread { name, cause } => write!(out, "cannot start the {name} thread: {cause}"),
        }
    }
}

impl std::error::Error for TelemetryError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            TelemetryError::LogFile { cause, .. }
            | TelemetryError::LogStream { cause, .. }
            | TelemetryError::Thread { cause, .. } => Some(cause),
            TelemetryError::Collector { cause, .. } => Some(&**cause),
        }
    }
}
