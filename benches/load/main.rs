//! Outrigger beside its peers, in one run, on one machine: CPU per request, throughput, latency at a fixed rate,
//! memory and start-up time.
//!
//! `cargo bench --bench load` measures Outrigger bare (no policy but the proxying) and with its defaults, and nginx,
//! HAProxy and Envoy when their programs are found (`BENCH_NGINX`, `BENCH_HAPROXY`, `BENCH_ENVOY`, or on the PATH).
//! All run alternating, round after round; the table shows medians. CPU time is each process's own (user and system,
//! from /proc). The proxies run on one processor, the load and the app behind them on the others.
//! `BENCH_ROUNDS`, `BENCH_SECONDS`, `BENCH_RATE` and `BENCH_CONNECTIONS` change the size.
#![allow(clippy::disallowed_methods)]

mod generator;
mod peers;
mod process;

use std::time::Duration;

use generator::Load;
use peers::Peer;

const IDLE_CONNECTIONS: usize = 10_000;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

#[derive(Default)]
struct Figures {
    cpu_micros: Vec<f64>,
    rate: Vec<f64>,
    p50: Vec<f64>,
    p99: Vec<f64>,
    p999: Vec<f64>,
    errors: u64,
    start_ms: f64,
    idle_mib: f64,
    with_idle_connections_mib: f64,
}

fn main() {
    let rounds = setting("BENCH_ROUNDS", 5);
    let seconds = Duration::from_secs(setting("BENCH_SECONDS", 4));
    let connections = setting("BENCH_CONNECTIONS", 64) as usize;
    let rate = setting("BENCH_RATE", 3000);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let app = runtime.block_on(async { generator::app().await });
    std::thread::spawn(move || runtime.block_on(app.serve));

    let scratch = tempfile::tempdir().expect("a scratch directory");
    let mut running: Vec<(Peer, Figures)> = Vec::new();
    for mut peer in peers::found(scratch.path(), app.port) {
        let mut figures = Figures { start_ms: peer.start(), ..Figures::default() };
        figures.idle_mib = peer.resident_mib();
        running.push((peer, figures));
    }
    describe(&running, rounds, seconds, connections, rate);

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    for _ in 0..rounds {
        for (peer, figures) in &mut running {
            let load = Load { port: peer.port, connections, duration: seconds };
            let before = peer.cpu();
            let closed = runtime.block_on(generator::saturate(&load));
            let used = peer.cpu() - before;
            figures.cpu_micros.push(used.as_secs_f64() * 1e6 / closed.requests.max(1) as f64);
            figures.rate.push(closed.requests as f64 / closed.took.as_secs_f64());
            let open = runtime.block_on(generator::at_rate(&load, rate));
            figures.p50.push(open.latency.value_at_quantile(0.5) as f64);
            figures.p99.push(open.latency.value_at_quantile(0.99) as f64);
            figures.p999.push(open.latency.value_at_quantile(0.999) as f64);
            figures.errors += closed.errors + open.errors;
        }
    }
    for (peer, figures) in &mut running {
        figures.with_idle_connections_mib =
            runtime.block_on(generator::hold_idle(peer.port, IDLE_CONNECTIONS, || peer.resident_mib()));
    }
    report(&running);
}

fn describe(running: &[(Peer, Figures)], rounds: u64, seconds: Duration, connections: usize, rate: u64) {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("").trim_matches([' ', '\t', ':']);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    println!("machine: {cores} processors, {model}, Linux {}", kernel.trim());
    for (peer, _) in running {
        println!("  {}: {}", peer.name, peer.version);
    }
    println!(
        "load: {rounds} rounds alternating, each {}s closed loop on {connections} connections and {}s open loop at {rate}/s; 1 KB, keep-alive, HTTP/1.1",
        seconds.as_secs(),
        seconds.as_secs()
    );
}

fn report(running: &[(Peer, Figures)]) {
    let reference = running.iter().find(|(peer, _)| peer.name == "nginx");
    let bare = running.iter().find(|(peer, _)| peer.name == "outrigger bare");
    println!();
    println!(
        "{:<20} {:>9} {:>9} {:>9} {:>9} {:>8} {:>8} {:>8} {:>8} {:>8} {:>9} {:>7}",
        "proxy",
        "CPU µs",
        "x nginx",
        "x bare",
        "req/s",
        "p50 µs",
        "p99 µs",
        "p99.9",
        "start ms",
        "MiB",
        "10k MiB",
        "errors"
    );
    for (peer, figures) in running {
        println!(
            "{:<20} {:>9.1} {:>9} {:>9} {:>9.0} {:>8.0} {:>8.0} {:>8.0} {:>8.1} {:>8.1} {:>9.1} {:>7}",
            peer.name,
            median(&figures.cpu_micros),
            ratio(&figures.cpu_micros, reference.map(|(_, figures)| &figures.cpu_micros)),
            ratio(&figures.cpu_micros, bare.map(|(_, figures)| &figures.cpu_micros)),
            median(&figures.rate),
            median(&figures.p50),
            median(&figures.p99),
            median(&figures.p999),
            figures.start_ms,
            figures.idle_mib,
            figures.with_idle_connections_mib,
            figures.errors,
        );
    }
    println!("ratios are medians of the rounds' own ratios; latency is from the intended start (open loop)");
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

fn ratio(values: &[f64], reference: Option<&Vec<f64>>) -> String {
    let Some(reference) = reference else { return "-".to_owned() };
    let ratios: Vec<f64> = values.iter().zip(reference).map(|(value, base)| value / base).collect();
    format!("{:.2}", median(&ratios))
}
