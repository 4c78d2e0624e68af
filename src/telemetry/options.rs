//! What telemetry must know of the configuration. It has types of its own because rooms of one floor do not see each
//! other; `app` translates.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// All of it. The default writes no log and exports no spans: it is what tests want.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options {
    pub log: LogOptions,
    pub traces: TraceOptions,
}

#[derive(Clone, Debug, PartialEq)]
pub struct LogOptions {
    pub target: Target,
    pub format: Format,
    /// Share of successes that are logged, 0 to 1; everything else always is.
    pub sample_success: f64,
    /// Names of query parameters whose values are replaced, in the log and in spans.
    pub redact_query: Vec<String>,
}

impl Default for LogOptions {
    fn default() -> Self {
        LogOptions { target: Target::Off, format: Format::Json, sample_success: 1.0, redact_query: Vec::new() }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Stdout,
    Stderr,
    /// Appended to, made if missing, opened again at each reload.
    File(PathBuf),
    Off,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Json,
    /// The Common Log Format.
    Common,
}

/// Which spans are exported, where to, and whose they are.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TraceOptions {
    /// Base URL of an OTLP/HTTP collector, `http://host:4318`; `None` exports nothing. Fixed at the start.
    pub otlp: Option<String>,
    /// Requests at least this slow are exported whether sampled or not.
    pub keep_slow: Option<Duration>,
    /// Requests that failed are exported whether sampled or not.
    pub keep_errors: bool,
    /// The service's name; empty is `outrigger`.
    pub service: String,
    pub service_version: Option<String>,
    pub environment: Option<String>,
}

/// Why telemetry cannot start.
#[derive(Debug)]
pub struct TelemetryError {
    /// The configuration path it belongs to.
    pub path: &'static str,
    pub words: String,
}

impl TelemetryError {
    pub(super) fn log(words: String) -> Self {
        TelemetryError { path: "telemetry.access_log.to", words }
    }

    pub(super) fn traces(words: String) -> Self {
        TelemetryError { path: "telemetry.traces.otlp", words }
    }
}

impl fmt::Display for TelemetryError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.path, self.words)
    }
}

impl std::error::Error for TelemetryError {}
