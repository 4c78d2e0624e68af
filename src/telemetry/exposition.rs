//! Which metrics there are: names, help and labels of everything telemetry counts itself. OpenTelemetry's names for
//! requests, with aliases for rules that are written for `http_requests_total`; `outrigger_` for what only we know.
//! docs/metrics.md has a line for each.

use super::metrics::{CLASSES, NO_ROUTE, Registry, RouteMetrics, STATUSES, UpstreamMetrics, UpstreamShard};
use super::options::TraceOptions;
use super::process;
use super::prometheus::PrometheusWriter;
use super::shard::{BucketTotals, Counter};
use super::snapshot::{RouteTotals, labelled};

/// What lies outside the registry.
pub struct Outside<'a> {
    pub service: &'a TraceOptions,
    pub access_log_dropped: u64,
    pub spans_dropped: u64,
}

pub fn write(writer: &mut PrometheusWriter, registry: &Registry, outside: &Outside<'_>) {
    about(writer, outside.service);
    routes(writer, registry);
    upstreams(writer, &registry.upstreams());
    let name = "outrigger_probes_total";
    writer.family(name, "counter", "Health probes answered on data listeners; they are in no other metric.");
    writer.count(name, &[], registry.total(|shard| &shard.probes));
    let name = "outrigger_access_log_dropped_total";
    writer.family(name, "counter", "Access log lines lost to a slow or broken target.");
    writer.count(name, &[], outside.access_log_dropped);
    let name = "outrigger_otel_spans_dropped_total";
    writer.family(name, "counter", "Spans lost to a slow or broken collector.");
    writer.count(name, &[], outside.spans_dropped);
    process::write(writer);
}

fn about(writer: &mut PrometheusWriter, service: &TraceOptions) {
    let name = "outrigger_build_info";
    writer.family(name, "gauge", "The version that runs; always 1.");
    writer.count(name, &[("version", env!("CARGO_PKG_VERSION"))], 1);
    writer.family("target_info", "gauge", "The service behind this proxy; always 1.");
    let labels = [
        ("service_name", service.service.as_str()),
        ("service_version", service.service_version.as_deref().unwrap_or_default()),
        ("deployment_environment", service.environment.as_deref().unwrap_or_default()),
    ];
    let known: Vec<_> = labels.into_iter().filter(|(_, value)| !value.is_empty()).collect();
    writer.count("target_info", &known, 1);
}

fn routes(writer: &mut PrometheusWriter, registry: &Registry) {
    let routes = registry.routes();
    let routes: Vec<_> = routes.iter().map(|route| (label(route), RouteTotals::of(route))).collect();
    let name = "http_server_request_duration_seconds";
    writer.family(name, "histogram", "Time from the first byte of a request to the end of its answer.");
    durations(writer, name, &routes, ["http_route", "http_request_method", "status_class"]);
    let name = "http_request_duration_seconds";
    writer.family(name, "histogram", "The same as http_server_request_duration_seconds, with short labels.");
    durations(writer, name, &routes, ["route", "method", "status"]);
    let name = "http_requests_total";
    writer.family(name, "counter", "Requests that have ended, by route, method and status.");
    for (route, totals) in &routes {
        for (method, status, count) in &totals.statuses {
            let status = status_label(*status);
            writer.count(name, &[("route", route), ("method", method), ("status", &status)], *count);
        }
    }
    let name = "outrigger_requests_total";
    writer.family(name, "counter", "Requests that have ended, by route and by what became of them.");
    for (route, totals) in &routes {
        for (fate, count) in &totals.fates {
            writer.count(name, &[("route", route), ("fate", fate.label())], *count);
        }
    }
    let name = "outrigger_refusals_total";
    writer.family(name, "counter", "Requests that ended for a reason of ours, by route, fate and reason.");
    for (route, totals) in &routes {
        for ((fate, reason), count) in &totals.reasons {
            writer.count(name, &[("route", route), ("fate", fate.label()), ("reason", reason)], *count);
        }
    }
    let name = "outrigger_request_bytes_total";
    writer.family(name, "counter", "Bytes of request bodies.");
    bytes(writer, name, &routes, |totals| totals.bytes_in);
    let name = "outrigger_response_bytes_total";
    writer.family(name, "counter", "Bytes of response bodies.");
    bytes(writer, name, &routes, |totals| totals.bytes_out);
}

fn durations(writer: &mut PrometheusWriter, name: &str, routes: &[(&str, RouteTotals)], labels: [&str; 3]) {
    for (route, totals) in routes {
        for (method, class, buckets) in &totals.buckets {
            writer.histogram(name, &[(labels[0], route), (labels[1], method), (labels[2], class)], buckets);
        }
    }
}

fn bytes(
    writer: &mut PrometheusWriter,
    name: &str,
    routes: &[(&str, RouteTotals)],
    bytes: impl Fn(&RouteTotals) -> u64,
) {
    for (route, totals) in routes.iter().filter(|(_, totals)| !totals.fates.is_empty()) {
        writer.count(name, &[("route", route)], bytes(totals));
    }
}

fn upstreams(writer: &mut PrometheusWriter, upstreams: &[std::sync::Arc<UpstreamMetrics>]) {
    let name = "outrigger_attempts_total";
    writer.family(name, "counter", "Attempts, by upstream and what they came to.");
    for upstream in upstreams {
        for (outcome, count) in labelled(upstream.shards.iter().map(|shard| &shard.outcomes)) {
            writer.count(name, &[("upstream", &upstream.name), ("outcome", outcome)], count);
        }
    }
    let sum = |upstream: &UpstreamMetrics, counter: fn(&UpstreamShard) -> &Counter| -> u64 {
        upstream.shards.iter().map(|shard| counter(shard).value()).sum()
    };
    let name = "outrigger_retries_total";
    writer.family(name, "counter", "Attempts after the first.");
    for upstream in upstreams {
        writer.count(name, &[("upstream", &upstream.name)], sum(upstream, |shard| &shard.retries));
    }
    let name = "outrigger_reused_connections_total";
    writer.family(name, "counter", "Attempts on a connection that had served before.");
    for upstream in upstreams {
        writer.count(name, &[("upstream", &upstream.name)], sum(upstream, |shard| &shard.reused));
    }
    let name = "outrigger_upstream_duration_seconds";
    writer.family(name, "histogram", "Time of an attempt from its start to the head of the answer.");
    for upstream in upstreams {
        let mut totals = BucketTotals::default();
        for shard in &upstream.shards {
            totals.add(&shard.buckets);
        }
        if totals.count() > 0 {
            writer.histogram(name, &[("upstream", &upstream.name)], &totals);
        }
    }
}

/// An empty label value is no label to Prometheus; requests without a route deserve one.
fn label(route: &RouteMetrics) -> &str {
    match route.name.as_str() {
        "" => NO_ROUTE,
        name => name,
    }
}

/// The status itself, or the class of the ones that are not counted by themselves: `5..` matches either.
fn status_label(place: usize) -> String {
    match STATUSES.get(place) {
        Some(status) => status.to_string(),
        None => CLASSES.get(place - STATUSES.len()).copied().unwrap_or_default().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::{Command, Stdio};
    use std::sync::Arc;
    use std::time::Duration;

    use super::super::record::tests::record;
    use super::super::record::{AttemptRecord, Fate, RequestRecord};
    use super::*;

    fn text() -> String {
        let registry = Registry::new(2);
        let attempts = [AttemptRecord {
            endpoint: Arc::from("127.0.0.1:3000"),
            started_after: Duration::ZERO,
            duration: Duration::from_millis(3),
            status: 503,
            outcome: "answered",
            reused: true,
            span: 0,
        }];
        let failed =
            RequestRecord { fate: Fate::Unreachable, status: 502, reason: "reset", attempts: &attempts, ..record() };
        for (worker, record) in [(0, record()), (1, record()), (1, failed)] {
            registry.route("odd \"name\"\\").settle(worker, &record);
            registry.route("").settle(worker, &RequestRecord { status: 599, ..record });
            registry.upstream("app").settle(worker, record.attempts);
            registry.workers[worker].settle(&record);
        }
        let service = TraceOptions {
            service: "checkout".into(),
            service_version: Some("1\n2".into()),
            ..TraceOptions::default()
        };
        let mut writer = PrometheusWriter::default();
        write(&mut writer, &registry, &Outside { service: &service, access_log_dropped: 5, spans_dropped: 6 });
        writer.into_text()
    }

    #[test]
    fn every_promised_metric_is_there() {
        let text = text();
        for line in [
            r#"http_server_request_duration_seconds_bucket{http_route="odd \"name\"\\",http_request_method="GET",status_class="2xx",le="0.025"} 2"#,
            r#"http_request_duration_seconds_count{route="odd \"name\"\\",method="GET",status="5xx"} 1"#,
            r#"http_requests_total{route="odd \"name\"\\",method="GET",status="502"} 1"#,
            r#"http_requests_total{route="(none)",method="GET",status="5xx"} 3"#,
            r#"outrigger_requests_total{route="(none)",fate="unreachable"} 1"#,
            r#"outrigger_refusals_total{route="(none)",fate="unreachable",reason="reset"} 1"#,
            r#"outrigger_attempts_total{upstream="app",outcome="answered"} 1"#,
            r#"outrigger_retries_total{upstream="app"} 0"#,
            r#"outrigger_reused_connections_total{upstream="app"} 1"#,
            r#"outrigger_probes_total 0"#,
            r#"outrigger_upstream_duration_seconds_bucket{upstream="app",le="0.005"} 1"#,
            r#"outrigger_access_log_dropped_total 5"#,
            r#"outrigger_otel_spans_dropped_total 6"#,
            r#"target_info{service_name="checkout",service_version="1\n2"} 1"#,
            concat!(r#"outrigger_build_info{version=""#, env!("CARGO_PKG_VERSION"), r#""} 1"#),
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }

    #[test]
    fn promtool_accepts_the_exposition() {
        let spawned = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut promtool = match spawned {
            Ok(promtool) => promtool,
            Err(_) if std::env::var_os("OUTRIGGER_TEST_REQUIRE_TOOLS").is_none_or(|required| required != "1") => {
                println!("skipped: promtool not installed");
                return;
            }
            Err(error) => panic!("promtool is required: {error}"),
        };
        promtool.stdin.take().unwrap().write_all(text().as_bytes()).unwrap();
        let done = promtool.wait_with_output().unwrap();
        let said = [done.stdout, done.stderr].concat();
        assert!(done.status.success() && said.is_empty(), "{}", String::from_utf8_lossy(&said));
    }
}
