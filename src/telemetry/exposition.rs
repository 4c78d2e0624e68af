//! Which metrics there are: names, help and labels of everything telemetry counts itself. OpenTelemetry's names for
//! requests, with aliases for rules that are written for `http_requests_total`; `outrigger_` for what only we know.

use super::metrics::{CLASSES, NO_ROUTE, Registry, RouteMetrics, STATUSES};
use super::options::Service;
use super::process;
use super::prometheus::{Kind, PrometheusWriter};
use super::shard::BucketTotals;
use super::snapshot::{RouteTotals, in_flight, labelled};

/// What lies outside the registry.
pub struct Outside<'a> {
    pub service: &'a Service,
    pub access_log_dropped: u64,
    pub spans_dropped: u64,
}

pub fn write(writer: &mut PrometheusWriter, registry: &Registry, outside: &Outside<'_>) {
    about(writer, outside.service);
    routes(writer, registry);
    upstreams(writer, registry);
    let refusals = labelled(registry.workers.iter().map(|shard| &shard.refusals));
    if writer.family("outrigger_refusals_total", "Answers made by Outrigger instead of the app.", Kind::Counter) {
        for (reason, count) in refusals {
            writer.count(&[("reason", reason)], count);
        }
    }
    if let Some(in_flight) = in_flight(registry) {
        writer.gauge("outrigger_in_flight", "Requests in progress.", in_flight as f64);
    }
    let probes = registry.total(|shard| &shard.probes);
    writer.counter("outrigger_probes_total", "Health probes answered; they are in no other metric.", probes);
    writer.counter(
        "outrigger_access_log_dropped_total",
        "Access log lines dropped because they could not be written fast enough, or at all.",
        outside.access_log_dropped,
    );
    writer.counter(
        "outrigger_otel_spans_dropped_total",
        "Spans dropped because the collector did not take them fast enough, or at all.",
        outside.spans_dropped,
    );
    process::write(writer);
}

fn about(writer: &mut PrometheusWriter, service: &Service) {
    if writer.family("outrigger_build_info", "The running build; always 1.", Kind::Gauge) {
        writer.count(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    }
    if writer.family("target_info", "The service behind this proxy; always 1.", Kind::Gauge) {
        let labels = [
            ("service_name", service.name.as_str()),
            ("service_version", service.version.as_deref().unwrap_or_default()),
            ("deployment_environment", service.environment.as_deref().unwrap_or_default()),
        ];
        let known: Vec<_> = labels.into_iter().filter(|(_, value)| !value.is_empty()).collect();
        writer.count(&known, 1);
    }
}

fn routes(writer: &mut PrometheusWriter, registry: &Registry) {
    let routes = registry.routes();
    let routes: Vec<_> = routes.iter().map(|route| (label(route), RouteTotals::of(route))).collect();
    durations(
        writer,
        &routes,
        "http_server_request_duration_seconds",
        "Duration of requests, first byte to last.",
        ["http_route", "http_request_method", "status_class"],
    );
    durations(
        writer,
        &routes,
        "http_request_duration_seconds",
        "The same as http_server_request_duration_seconds, under the name that many rules use.",
        ["route", "method", "status"],
    );
    if writer.family("http_requests_total", "Requests by route, method and status.", Kind::Counter) {
        for (route, totals) in &routes {
            for (method, status, count) in &totals.statuses {
                let status = status_label(*status);
                writer.count(&[("route", route), ("method", method), ("status", &status)], *count);
            }
        }
    }
    if writer.family("outrigger_requests_total", "Requests by route and by what became of them.", Kind::Counter) {
        for (route, totals) in &routes {
            for (fate, count) in totals.fates() {
                writer.count(&[("route", route), ("fate", fate)], count);
            }
        }
    }
    let request_bytes = |totals: &RouteTotals| totals.bytes_in;
    bytes(writer, &routes, "outrigger_request_bytes_total", "Bytes of request bodies.", request_bytes);
    let response_bytes = |totals: &RouteTotals| totals.bytes_out;
    bytes(writer, &routes, "outrigger_response_bytes_total", "Bytes of response bodies.", response_bytes);
}

fn bytes(
    writer: &mut PrometheusWriter,
    routes: &[(&str, RouteTotals)],
    name: &str,
    help: &str,
    bytes: impl Fn(&RouteTotals) -> u64,
) {
    if writer.family(name, help, Kind::Counter) {
        for (route, totals) in routes.iter().filter(|(_, totals)| totals.fates().next().is_some()) {
            writer.count(&[("route", route)], bytes(totals));
        }
    }
}

fn durations(writer: &mut PrometheusWriter, routes: &[(&str, RouteTotals)], name: &str, help: &str, labels: [&str; 3]) {
    if !writer.family(name, help, Kind::Histogram) {
        return;
    }
    for (route, totals) in routes {
        for (method, class, buckets) in &totals.buckets {
            writer.histogram(&[(labels[0], route), (labels[1], method), (labels[2], class)], buckets);
        }
    }
}

fn upstreams(writer: &mut PrometheusWriter, registry: &Registry) {
    let upstreams = registry.upstreams();
    if writer.family("outrigger_attempts_total", "Attempts by upstream and outcome.", Kind::Counter) {
        for upstream in &upstreams {
            for (outcome, count) in labelled(upstream.shards.iter().map(|shard| &shard.outcomes)) {
                writer.count(&[("upstream", &upstream.name), ("outcome", outcome)], count);
            }
        }
    }
    let help = "Attempts that went over a connection used before.";
    if writer.family("outrigger_attempts_reused_total", help, Kind::Counter) {
        for upstream in &upstreams {
            let reused = upstream.shards.iter().map(|shard| shard.reused.value()).sum();
            writer.count(&[("upstream", &upstream.name)], reused);
        }
    }
    if writer.family("outrigger_upstream_duration_seconds", "Duration of attempts.", Kind::Histogram) {
        for upstream in &upstreams {
            let mut totals = BucketTotals::default();
            for shard in &upstream.shards {
                totals.add(&shard.buckets);
            }
            if totals.count() > 0 {
                writer.histogram(&[("upstream", &upstream.name)], &totals);
            }
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
            status: 0,
            outcome: "reset",
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
            registry.workers[worker].begun.add(1);
        }
        let service = Service { name: "checkout".into(), version: Some("1\n2".into()), environment: None };
        let mut writer = PrometheusWriter::default();
        write(&mut writer, &registry, &Outside { service: &service, access_log_dropped: 5, spans_dropped: 6 });
        writer.finish()
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
            r#"outrigger_refusals_total{reason="reset"} 1"#,
            r#"outrigger_attempts_total{upstream="app",outcome="reset"} 1"#,
            r#"outrigger_upstream_duration_seconds_bucket{upstream="app",le="0.005"} 1"#,
            r#"outrigger_in_flight 3"#,
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
