//! What a limit that replicas count together adds to a request, with a real Redis, and what it costs when that Redis
//! hangs (SIGSTOP, which is worse than a crash: connections stay open and nothing answers).
//!
//! `cargo bench --bench store` runs two copies of Outrigger before one app, one whose limit is its own and one whose
//! limit is in the store, and asks them in turn on the same connections' schedule, so that a machine that is slow for a
//! while is slow for both. It fails when a request ends in another way than what was declared. Latencies are told and
//! not judged: they are the machine's too, which is what the first copy is for. `BENCH_SECONDS` (10) is the time each
//! part takes, `BENCH_OUTRIGGER` names another build.
#![allow(clippy::disallowed_methods)]

#[path = "../plain_app.rs"]
mod plain_app;
#[path = "../ports.rs"]
mod ports;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use plain_app::app;
use ports::free_port;
use rustix::process::{Pid, Signal, kill_process};

/// `stores.*.timeout`, the default.
const BUDGET: Duration = Duration::from_millis(5);
/// Beyond the budget: timers of a millisecond, and being woken on a busy machine.
const MARGIN: Duration = Duration::from_millis(2);
const CLIENTS: usize = 4;
/// Each client asks both copies once in so long.
const PERIOD: Duration = Duration::from_millis(8);
const SOON: Duration = Duration::from_secs(10);
const REQUEST: &[u8] = b"GET /1k HTTP/1.1\r\nHost: bench.example\r\nAccept: */*\r\n\r\n";
/// `when_unavailable`, and the status it declares.
const DECLARED: [(&str, u16); 3] = [("local", 200), ("open", 200), ("closed", 503)];

/// One request through each copy.
struct Pair {
    own: Duration,
    shared: Duration,
    /// What the copy with the store said.
    status: u16,
}

fn main() {
    if Command::new("redis-server").arg("--version").output().is_err() {
        println!("skipped: redis-server not installed");
        return;
    }
    let seconds = std::env::var("BENCH_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(10);
    let length = Duration::from_secs(seconds);
    let app = app();
    println!(
        "{CLIENTS} connections, {:.0} requests/s to each copy, budget {BUDGET:?}; latencies in us\n",
        CLIENTS as f64 / PERIOD.as_secs_f64()
    );
    println!(
        "| when_unavailable | Redis | limit | requests | p50 | p99 | p99.9 | most | above {:?} | failed |",
        BUDGET + MARGIN
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    let mut failed = 0;
    for (declared, status) in DECLARED {
        let port = free_port();
        let redis = Running(redis(port));
        let folder = tempfile::tempdir().expect("a scratch directory");
        let (own, _own) = outrigger(folder.path(), app, None);
        let (shared, _shared) = outrigger(folder.path(), app, Some((port, declared)));
        measure(own, shared, Duration::from_secs(2)); // connections, scripts and caches
        let well = measure(own, shared, length);
        let id = Pid::from_child(&redis.0);
        kill_process(id, Signal::STOP).expect("it is ours");
        let hangs = measure(own, shared, length);
        kill_process(id, Signal::CONT).expect("it is ours");
        failed += told(declared, "well", &well, 200);
        failed += told(declared, "hangs", &hangs, status);
    }
    if failed > 0 {
        println!("\n{failed} requests ended in another way than what was declared");
        std::process::exit(1);
    }
}

/// A line for each copy; returns how many requests were not answered as declared.
fn told(declared: &str, redis: &str, pairs: &[Pair], status: u16) -> usize {
    let failed = pairs.iter().filter(|pair| pair.status != status).count();
    for (limit, failed) in [("own", 0), ("in the store", failed)] {
        let mut times: Vec<Duration> =
            pairs.iter().map(|pair| if limit == "own" { pair.own } else { pair.shared }).collect();
        times.sort();
        let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize].as_micros();
        let above = times.iter().filter(|time| **time > BUDGET + MARGIN).count();
        println!(
            "| {declared} | {redis} | {limit} | {} | {} | {} | {} | {} | {above} | {failed} |",
            times.len(),
            at(0.5),
            at(0.99),
            at(0.999),
            at(1.0)
        );
    }
    failed
}

/// All clients for so long; each asks the one and then the other, and the next time the other way round.
fn measure(own: u16, shared: u16, length: Duration) -> Vec<Pair> {
    let begin = Instant::now();
    let client = |number: usize| {
        let mut wires = [Wire::connect(own), Wire::connect(shared)];
        let mut next = begin + PERIOD.mul_f64(number as f64 / CLIENTS as f64);
        let mut pairs = Vec::new();
        while next < begin + length {
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
            let first = pairs.len() % 2;
            let (one, one_took) = wires[first].ask();
            let (other, other_took) = wires[1 - first].ask();
            let (well, status) = if first == 0 { (one, other) } else { (other, one) };
            assert_eq!(well, 200, "the copy without a store");
            let (own, shared) = if first == 0 { (one_took, other_took) } else { (other_took, one_took) };
            pairs.push(Pair { own, shared, status });
            next = (next + PERIOD).max(Instant::now()); // closed loop: a stall is one long time, not many
        }
        pairs
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..CLIENTS).map(|number| scope.spawn(move || client(number))).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("a client")).collect()
    })
}

/// A client's connection.
struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Wire {
    fn connect(port: u16) -> Wire {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
        stream.set_nodelay(true).expect("an option");
        stream.set_read_timeout(Some(SOON)).expect("an option");
        Wire { stream, buffer: vec![0; 16 * 1024] }
    }

    /// The status, and the time until the whole answer was there.
    fn ask(&mut self) -> (u16, Duration) {
        let began = Instant::now();
        self.stream.write_all(REQUEST).expect("written");
        let mut filled = 0;
        loop {
            let read = self.stream.read(&mut self.buffer[filled..]).expect("an answer");
            assert!(read > 0, "the connection was closed");
            filled += read;
            if let Some(status) = whole(&self.buffer[..filled]) {
                return (status, began.elapsed());
            }
        }
    }
}

/// The status of an answer that has come whole.
fn whole(answer: &[u8]) -> Option<u16> {
    let head = answer.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&answer[..head]).ok()?.to_ascii_lowercase();
    let length: usize = text.split("content-length: ").nth(1)?.lines().next()?.trim().parse().ok()?;
    (answer.len() >= head + length).then(|| text.split(' ').nth(1)?.parse().ok())?
}

/// A program that ends with its owner.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn redis(port: u16) -> Child {
    let mut command = Command::new("redis-server");
    command.args(["--save", "", "--appendonly", "no", "--bind", "127.0.0.1", "--port"]).arg(port.to_string());
    let child = command.stdout(Stdio::null()).spawn().expect("redis-server starts");
    until("Redis listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
    child
}

/// One worker before the app; with a port the limit is in the Redis there.
fn outrigger(folder: &Path, app: u16, store: Option<(u16, &str)>) -> (u16, Running) {
    let [web, ops, admin] = [free_port(), free_port(), free_port()];
    let (stores, limit) = match store {
        None => (String::new(), String::new()),
        Some((port, declared)) => (
            format!("stores: {{ redis: {{ url: \"redis://127.0.0.1:{port}\" }} }}\n"),
            format!(", store: redis, when_unavailable: {declared}"),
        ),
    };
    let text = format!(
        "upstreams: {{ app: {{ endpoints: [\"http://127.0.0.1:{app}\"] }} }}\nworkers: 1\nservice: {{ name: bench }}\n\
         drain: {{ delay: 0s, timeout: 1s }}\nlisteners: [{{ name: web, address: \"127.0.0.1:{web}\" }}]\n\
         ops: {{ address: \"127.0.0.1:{ops}\" }}\nadmin: {{ address: \"127.0.0.1:{admin}\" }}\n\
         telemetry: {{ access_log: {{ to: off }} }}\n{stores}\
         rate_limits: {{ fleet: {{ key: [client_ip], rate: 1000000/s, burst: 1000000{limit} }} }}\n\
         routes: [{{ name: all, match: {{ path: \"/*\" }}, upstream: app, rate_limits: [fleet] }}]\n"
    );
    let file = folder.join(format!("{web}.yaml"));
    std::fs::write(&file, text).expect("a file");
    let program = std::env::var("BENCH_OUTRIGGER").unwrap_or(env!("CARGO_BIN_EXE_outrigger").to_owned());
    let mut command = Command::new(program);
    command.arg("run").arg("-c").arg(&file).stdout(Stdio::null()).stderr(Stdio::null());
    let running = Running(command.spawn().expect("Outrigger starts"));
    until("Outrigger listens", || TcpStream::connect(("127.0.0.1", web)).is_ok());
    (web, running)
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let late = Instant::now() + SOON;
    while !holds() {
        assert!(Instant::now() < late, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
