//! The Prometheus text format, version 0.0.4. Names and units follow OpenTelemetry; `http_requests_total` and
//! `http_request_duration_seconds` repeat them under the names that existing rules use.

use std::fmt::Write;

use super::cells::Merged;
use super::metrics::{RouteSnapshot, UpstreamSnapshot};

/// Upper bounds in microseconds: OpenTelemetry's advice for HTTP durations, and what objectives usually name.
const BOUNDS: [u64; 17] = [
    1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 75_000, 100_000, 250_000, 300_000, 500_000, 750_000, 1_000_000,
    2_500_000, 5_000_000, 7_500_000, 10_000_000,
];

/// Writes metric families one after the other.
#[derive(Default)]
pub struct PrometheusWriter {
    text: String,
}

impl PrometheusWriter {
    pub fn into_text(self) -> String {
        self.text
    }

    /// Begins a family; its samples follow.
    pub fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}\n"); // a String takes everything
    }

    /// One sample of the family begun last.
    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        self.text.push_str(name);
        self.labels(labels, None);
        let _ = writeln!(self.text, " {value}");
    }

    /// A family of one sample without labels.
    pub fn single(&mut self, name: &str, kind: &str, help: &str, value: f64) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }

    fn labels(&mut self, labels: &[(&str, &str)], bound: Option<&str>) {
        let all = labels.iter().copied().chain(bound.map(|bound| ("le", bound)));
        let mut open = '{';
        for (name, value) in all {
            self.text.push(open);
            let _ = write!(self.text, "{name}=\"");
            for letter in value.chars() {
                match letter {
                    '\\' => self.text.push_str("\\\\"),
                    '"' => self.text.push_str("\\\""),
                    '\n' => self.text.push_str("\\n"),
                    plain => self.text.push(plain),
                }
            }
            self.text.push('"');
            open = ',';
        }
        if open == ',' {
            self.text.push('}');
        }
    }

    /// A histogram in seconds.
    pub fn histogram(&mut self, name: &str, labels: &[(&str, &str)], merged: &Merged) {
        let bucket = format!("{name}_bucket");
        for bound in BOUNDS {
            self.text.push_str(&bucket);
            self.labels(labels, Some(&(bound as f64 / 1e6).to_string()));
            let _ = writeln!(self.text, " {}", merged.count_up_to(bound));
        }
        let count = merged.count();
        self.text.push_str(&bucket);
        self.labels(labels, Some("+Inf"));
        let _ = writeln!(self.text, " {count}");
        self.sample(&format!("{name}_sum"), labels, merged.sum_micros as f64 / 1e6);
        self.sample(&format!("{name}_count"), labels, count as f64);
    }
}

/// All families of routes.
pub fn routes(out: &mut PrometheusWriter, routes: &[RouteSnapshot]) {
    let named = |route: &RouteSnapshot| if route.name.is_empty() { "none".to_owned() } else { route.name.clone() };
    for (name, help) in [
        ("http_server_request_duration_seconds", "Time from the first byte of a request to its end, by route."),
        ("http_request_duration_seconds", "The same as http_server_request_duration_seconds."),
    ] {
        out.family(name, "histogram", help);
        for route in routes {
            out.histogram(name, &[("http_route", &named(route))], &route.latency);
        }
    }
    out.family("http_requests_total", "counter", "Requests that have ended, by route, method and status class.");
    for route in routes {
        for (method, class, count) in &route.requests {
            let labels = [("route", &*named(route)), ("method", method), ("status", class)];
            out.sample("http_requests_total", &labels, *count as f64);
        }
    }
    out.family("outrigger_refusals_total", "counter", "Requests that ended by Outrigger's doing, by fate and reason.");
    for route in routes {
        for ((fate, reason), count) in &route.reasons {
            let labels = [("route", &*named(route)), ("fate", fate.label()), ("reason", reason)];
            out.sample("outrigger_refusals_total", &labels, *count as f64);
        }
    }
    for (name, help, value) in [
        (
            "outrigger_request_bytes_total",
            "Bytes of request bodies.",
            (|route| route.bytes_in) as fn(&RouteSnapshot) -> u64,
        ),
        ("outrigger_response_bytes_total", "Bytes of response bodies.", |route| route.bytes_out),
    ] {
        out.family(name, "counter", help);
        for route in routes {
            out.sample(name, &[("route", &named(route))], value(route) as f64);
        }
    }
}

/// All families of upstreams.
pub fn upstreams(out: &mut PrometheusWriter, upstreams: &[UpstreamSnapshot]) {
    let name = "outrigger_upstream_duration_seconds";
    out.family(name, "histogram", "Time of an attempt from its start to the head of the answer.");
    for upstream in upstreams {
        out.histogram(name, &[("upstream", &upstream.name)], &upstream.latency);
    }
    out.family("outrigger_attempts_total", "counter", "Attempts, by upstream and what they came to.");
    for upstream in upstreams {
        for (outcome, count) in &upstream.attempts {
            out.sample(
                "outrigger_attempts_total",
                &[("upstream", &upstream.name), ("outcome", outcome)],
                *count as f64,
            );
        }
    }
    out.family("outrigger_retries_total", "counter", "Attempts after the first.");
    for upstream in upstreams {
        out.sample("outrigger_retries_total", &[("upstream", &upstream.name)], upstream.retries as f64);
    }
    let name = "outrigger_reused_connections_total";
    out.family(name, "counter", "Attempts answered on a connection that had served before.");
    for upstream in upstreams {
        out.sample(name, &[("upstream", &upstream.name)], upstream.reused as f64);
    }
}

/// What the kernel says of this process; families it does not tell are left out.
pub fn process(out: &mut PrometheusWriter) {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let status = read("/proc/self/status");
    let kib =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse::<f64>().ok());
    if let Some(kib) = kib {
        out.single("process_resident_memory_bytes", "gauge", "Resident memory.", kib * 1024.0);
    }
    let stat = read("/proc/self/stat");
    let fields: Vec<&str> =
        stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect()).unwrap_or_default();
    let ticks = |place: usize| fields.get(place).and_then(|field| field.parse::<f64>().ok());
    if let (Some(user), Some(system)) = (ticks(11), ticks(12)) {
        // Linux fixes the ticks that user space sees at 100 a second.
        out.single("process_cpu_seconds_total", "counter", "Processor time, user and system.", (user + system) / 100.0);
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        out.single("process_open_fds", "gauge", "Open file descriptors.", open.count() as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped() {
        let mut out = PrometheusWriter::default();
        out.sample("a", &[("b", "c\"\\\nd"), ("e", "f")], 1.5);
        out.sample("a", &[], 2.0);
        assert_eq!(out.into_text(), "a{b=\"c\\\"\\\\\\nd\",e=\"f\"} 1.5\na 2\n");
    }
}
