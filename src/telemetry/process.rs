//! What the system knows of this process, under the names that Prometheus' client libraries use. Read from /proc at
//! each scrape; where there is no /proc there are no such metrics.

use std::fs;

use super::prometheus::PrometheusWriter;

pub fn write(writer: &mut PrometheusWriter) {
    let stat = fs::read_to_string("/proc/self/stat").ok();
    let times = stat.as_deref().and_then(times);
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    if let Some(times) = &times {
        let used = times.used_ticks as f64 / TICKS_PER_SECOND;
        writer.single("process_cpu_seconds_total", "counter", "User and system CPU time spent, in seconds.", used);
    }
    if let Some(bytes) = kibibytes(&status, "VmRSS:") {
        writer.single("process_resident_memory_bytes", "gauge", "Resident memory, in bytes.", bytes);
    }
    if let Some(bytes) = kibibytes(&status, "VmSize:") {
        writer.single("process_virtual_memory_bytes", "gauge", "Virtual memory, in bytes.", bytes);
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        // One of them is the directory itself.
        let open = open.count().saturating_sub(1);
        writer.single("process_open_fds", "gauge", "Open file descriptors.", open as f64);
    }
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let limit = limit.map_or(f64::INFINITY, |limit| limit as f64);
    writer.single("process_max_fds", "gauge", "Most file descriptors that may be open.", limit);
    let boot = fs::read_to_string("/proc/stat").ok().and_then(|text| boot(&text));
    if let (Some(times), Some(boot)) = (&times, boot) {
        let start = boot as f64 + times.start_ticks as f64 / TICKS_PER_SECOND;
        writer.single("process_start_time_seconds", "gauge", "Start of the process, in seconds since 1970.", start);
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Times {
    used_ticks: u64,
    /// Since the machine's boot.
    start_ticks: u64,
}

/// Fields 14, 15 and 22 of /proc/self/stat; the second may contain anything, but ends with the last parenthesis.
fn times(stat: &str) -> Option<Times> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11).map(|field| field.parse::<u64>().ok());
    let (user, system) = (fields.next()??, fields.next()??);
    let start_ticks = fields.nth(6)??;
    Some(Times { used_ticks: user + system, start_ticks })
}

fn kibibytes(status: &str, name: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kibibytes| kibibytes as f64 * 1024.0)
}

fn boot(stat: &str) -> Option<u64> {
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

/// USER_HZ: the unit of /proc, which is 100 on every architecture that Rust's std supports.
const TICKS_PER_SECOND: f64 = 100.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_and_blanks_does_not_mislead() {
        let stat = "7 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 110 120 13 14 15 16 17 18 4242 20";
        assert_eq!(times(stat), Some(Times { used_ticks: 230, start_ticks: 4242 }));
        assert_eq!(times("7 (a"), None);
        assert_eq!(kibibytes("VmSize:\t  100 kB\nVmRSS:\t    12 kB\n", "VmRSS:"), Some(12_288.0));
        assert_eq!(kibibytes("", "VmRSS:"), None);
        assert_eq!(boot("cpu 1\nbtime 1700000000\n"), Some(1_700_000_000));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_is_described() {
        let mut writer = PrometheusWriter::default();
        write(&mut writer);
        let text = writer.into_text();
        for name in ["cpu_seconds_total", "resident_memory_bytes", "open_fds", "max_fds", "start_time_seconds"] {
            assert!(text.contains(&format!("\nprocess_{name} ")), "{name} in {text}");
        }
    }
}
