//! What is told of requests: metrics, access log, the ring behind `why`, spans. Everything is recorded once, when a
//! request ends, from one plain record; nothing here waits, and what cannot be kept is dropped and counted.

mod hub;

mod record;

mod cells;
mod metrics;
mod prometheus;

mod access_log;
mod ring;

mod otlp;

pub use access_log::{Format, LogOptions, Target};
pub use hub::{Options, Telemetry, TelemetryError, WorkerTelemetry};
pub use metrics::{Quantiles, RouteMetrics, RouteSnapshot, UpstreamMetrics, UpstreamSnapshot};
pub use otlp::TraceOptions;
pub use prometheus::PrometheusWriter;
pub use record::{AttemptRecord, Fate, RequestRecord};
