//! Settings that a room takes in its own words.

use crate::config::settings::{LogFormat, LogTarget, Settings};
use crate::telemetry::{Format, LogOptions, Options, Target, TraceOptions};

/// What telemetry is to keep, log and export.
pub fn telemetry(settings: &Settings) -> Options {
    let (log, traces, service) = (&settings.access_log, &settings.traces, &settings.service);
    Options {
        log: LogOptions {
            target: match &log.to {
                LogTarget::Stdout => Target::Stdout,
                LogTarget::Stderr => Target::Stderr,
                LogTarget::File(path) => Target::File(path.clone()),
                LogTarget::Off => Target::Off,
            },
            format: match log.format {
                LogFormat::Json => Format::Json,
                LogFormat::Common => Format::Common,
            },
            sample_success: log.sample_success.0,
            redact_query: log.redact_query.clone(),
        },
        traces: TraceOptions {
            otlp: traces.otlp.clone(),
            keep_slow: traces.keep_slow,
            keep_errors: traces.keep_errors,
            service: service.name.clone(),
            service_version: service.version.clone(),
            environment: service.environment.clone(),
        },
    }
}

/// Worker threads: as configured, else the processors that this process may use (the cgroup's quota included).
pub fn workers(settings: &Settings) -> usize {
    let available = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    settings.workers.unwrap_or_else(available).max(1)
}
