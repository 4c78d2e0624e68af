//! Outrigger beside its peers, in one run, on one machine: processor time per request, throughput, latency at a fixed
//! rate, memory, start-up time and system calls.
//!
//! `cargo bench --bench load` measures Outrigger bare (nothing but the proxying) and with its defaults and an access
//! log, and nginx, HAProxy, Envoy, Pingora and sozu when their programs are found (`BENCH_NGINX`, `BENCH_HAPROXY`,
//! `BENCH_ENVOY`, `BENCH_PINGORA`, `BENCH_SOZU`, or on the PATH; `scripts/peers.sh` builds the last two). All are measured alternating, round after round; the tables show medians and the span of the rounds,
//! and ratios are medians of the rounds' own ratios, so that a machine that is slow for a while does not decide.
//! Processor time is each process's own (user and system, from /proc). The proxies run on one processor, the load and
//! the app on the others.
//!
//! `BENCH_SCENARIOS` and `BENCH_PEERS` (names, comma-separated) choose; `BENCH_ROUNDS`, `BENCH_SECONDS`, `BENCH_RATE`
//! and `BENCH_IDLE` (connections) change the size; `BENCH_OUTRIGGER` names another build to measure. Results:
//! `target/bench/load.md`, `load.json` and one SVG for each chart.
#![allow(clippy::disallowed_methods)]

mod app;
mod chart;
mod client;
mod figures;
mod files;
mod generator;
mod grpc;
mod h2load;
mod peers;
#[path = "../ports.rs"]
mod ports;
mod process;
mod report;
mod scenario;
mod served;
mod websocket;

use std::time::Duration;

use tokio::runtime::Runtime;

use figures::{Figures, Held};
use generator::Load;
use peers::{PROCESSOR, Peer};
use process::SystemCalls;
use report::Report;
use scenario::{Kind, Scenario};

/// Starts measured for each proxy.
const STARTS: usize = 5;
/// Idle TLS connections: the clients' side of one costs us more than the proxy's.
const TLS_IDLE_MAX: usize = 2_000;
/// Allocators give back what has been free for a while.
const GIVEN_BACK: Duration = Duration::from_secs(15);
/// Open files: both ends of an idle connection are on this machine, one of them in a proxy.
const OPEN_FILES: u64 = 40_000;

struct Settings {
    rounds: u64,
    duration: Duration,
    rate: u64,
    idle: usize,
    scenarios: Vec<Scenario>,
    h2load: bool,
}

impl Settings {
    fn read() -> Settings {
        let chosen = |scenario: &Scenario| wanted("BENCH_SCENARIOS", scenario.name);
        Settings {
            rounds: number("BENCH_ROUNDS", 5),
            duration: Duration::from_secs(number("BENCH_SECONDS", 3)),
            rate: number("BENCH_RATE", 3000),
            idle: number("BENCH_IDLE", 10_000) as usize,
            scenarios: scenario::ALL.into_iter().filter(chosen).collect(),
            h2load: h2load::is_installed(),
        }
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// Named by the variable, or the variable is not set.
fn wanted(variable: &str, name: &str) -> bool {
    std::env::var(variable).map_or(true, |list| list.split(',').any(|word| word.trim() == name))
}

/// The load and the app run where the proxies do not, when there is more than one processor.
fn stay_off_the_proxy() {
    let processors = processors();
    process::pin((0..processors).filter(|processor| processors == 1 || *processor != PROCESSOR));
}

fn processors() -> usize {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    cpu.lines().filter(|line| line.starts_with("processor")).count().max(1)
}

fn main() {
    let settings = Settings::read();
    process::raise_open_files(OPEN_FILES);
    stay_off_the_proxy();
    install_tls();
    let app = app::start();
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");

    let asked = |program: &str, kind: Kind| {
        wanted("BENCH_PEERS", program) && settings.scenarios.iter().any(|scenario| scenario.kinds.contains(&kind))
    };
    let mut running: Vec<(Peer, Figures)> = Vec::new();
    for mut peer in peers::found(scratch.path(), peers::Apps { http1: app, grpc: grpc::start() }, &asked) {
        let figures = at_rest(&mut peer, &runtime, &settings);
        running.push((peer, figures));
    }
    let mut alone = Figures::default();
    for round in 0..settings.rounds {
        for scenario in &settings.scenarios {
            one_round(&mut running, &mut alone, app, scenario, &runtime, &settings);
            eprintln!("round {} of {}: {}", round + 1, settings.rounds, scenario.title);
        }
    }
    for (peer, figures) in running.iter_mut().filter(|(peer, _)| peer.kind.is_usual()) {
        count_system_calls(peer, figures, &runtime);
    }
    Report { machine: machine(&settings), alone, peers: running }.write(&settings.scenarios);
}

/// Every proxy once; a different one begins each time there is a next round.
fn one_round(
    running: &mut [(Peer, Figures)],
    alone: &mut Figures,
    app: u16,
    scenario: &Scenario,
    runtime: &Runtime,
    settings: &Settings,
) {
    running.rotate_left(1);
    for (peer, figures) in running.iter_mut().filter(|(peer, _)| peer.has(scenario)) {
        if scenario.open_loop {
            at_a_rate(peer, figures, scenario, runtime, settings);
        } else {
            saturated(peer, figures, scenario, runtime, settings);
        }
    }
    if scenario.open_loop {
        latency(alone, client::Target { port: app, tls: None }, scenario, runtime, settings);
    }
}

/// The clients' TLS is the same library whatever Outrigger was built with.
fn install_tls() {
    #[cfg(feature = "aws-lc")]
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    #[cfg(not(feature = "aws-lc"))]
    let provider = rustls::crypto::ring::default_provider();
    let _ = provider.install_default(); // the first to install wins, and nobody was before
}

/// Start-up and memory, each in a process that has done nothing else; leaves a fresh one running.
fn at_rest(peer: &mut Peer, runtime: &Runtime, settings: &Settings) -> Figures {
    let mut figures = Figures::default();
    for _ in 0..STARTS {
        peer.stop();
        let (taken, cpu) = peer.start();
        figures.start_ms.push(taken);
        figures.start_cpu_ms.push(cpu);
    }
    std::thread::sleep(Duration::from_secs(1)); // what a start leaves to do is done
    figures.idle_mib = peer.resident_mib();
    if settings.idle > 0 && peer.kind.is_usual() {
        figures.plain = Some(hold(peer, scenario::named("keepalive"), settings.idle, runtime));
        if peer.kind == Kind::Bare {
            peer.stop(); // memory that is free but not given back would hide what these connections need
            peer.start();
            figures.tls = Some(hold(peer, scenario::named("tls"), settings.idle.min(TLS_IDLE_MAX), runtime));
        }
        peer.stop();
        peer.start();
    }
    eprintln!("at rest: {}", peer.name);
    figures
}

/// Resident memory with idle connections and after them.
fn hold(peer: &Peer, scenario: &Scenario, count: usize, runtime: &Runtime) -> Held {
    let before_mib = peer.resident_mib();
    runtime.block_on(async {
        let held = generator::hold(&peer.target(scenario), scenario, count).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let (connections, with_mib) = (held.len(), peer.resident_mib());
        drop(held);
        tokio::time::sleep(GIVEN_BACK).await;
        Held { connections, before_mib, with_mib, after_mib: peer.resident_mib() }
    })
}

fn saturated(peer: &Peer, figures: &mut Figures, scenario: &Scenario, runtime: &Runtime, settings: &Settings) {
    let load = Load { target: peer.target(scenario), scenario, duration: settings.duration };
    let before = peer.cpu();
    let by_h2load = if settings.h2load && h2load::can(scenario) { h2load::saturate(&load) } else { None };
    let closed = by_h2load.unwrap_or_else(|| runtime.block_on(generator::saturate(&load)));
    let used = peer.cpu().since(before);
    let per_request = |time: Duration| time.as_secs_f64() * 1e6 / closed.requests.max(1) as f64;
    let measured = figures.of(scenario.name);
    measured.cpu.push(per_request(used.total));
    measured.user.push(per_request(used.user));
    measured.rate.push(closed.requests as f64 / closed.took.as_secs_f64());
    let body = closed.bytes as f64 / 1e6 + closed.requests as f64 * scenario.upload as f64 / 1e6;
    measured.megabytes.push(body / used.total.as_secs_f64());
    measured.errors += closed.errors;
}

fn at_a_rate(peer: &Peer, figures: &mut Figures, scenario: &Scenario, runtime: &Runtime, settings: &Settings) {
    let before = peer.cpu();
    let requests = latency(figures, peer.target(scenario), scenario, runtime, settings);
    let used = peer.cpu().since(before);
    figures.cpu_at_rate.push(used.total.as_secs_f64() * 1e6 / requests.max(1) as f64);
}

fn latency(
    figures: &mut Figures,
    target: client::Target,
    scenario: &Scenario,
    runtime: &Runtime,
    settings: &Settings,
) -> u64 {
    let load = Load { target, scenario, duration: settings.duration };
    let open = runtime.block_on(generator::at_rate(&load, settings.rate));
    for (at, values) in [(0.5, &mut figures.p50), (0.99, &mut figures.p99), (0.999, &mut figures.p999)] {
        values.push(open.latency.value_at_quantile(at) as f64);
    }
    figures.errors_at_rate += open.errors;
    open.requests
}

fn count_system_calls(peer: &Peer, figures: &mut Figures, runtime: &Runtime) {
    let scenario = scenario::named("keepalive");
    let load = Load { target: peer.target(scenario), scenario, duration: Duration::from_secs(2) };
    let Some(watch) = SystemCalls::watch(peer.pid()) else { return };
    let closed = runtime.block_on(generator::saturate(&load));
    figures.calls = watch.count().map(|calls| calls / closed.requests.max(1) as f64);
    let Some(watch) = SystemCalls::watch(peer.pid()) else { return };
    let open = runtime.block_on(generator::at_rate(&load, 1000));
    figures.calls_at_rate = watch.count().map(|calls| calls / open.requests.max(1) as f64);
}

fn machine(settings: &Settings) -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("");
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!(
        "{} processors, {}, Linux {}; {} rounds alternating, {} s each; latency at {} requests/s",
        processors(),
        model.trim_matches([' ', '\t', ':']),
        kernel.trim(),
        settings.rounds,
        settings.duration.as_secs(),
        settings.rate
    )
}
