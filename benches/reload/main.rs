//! What 10,000 routes cost: to be read, checked and compiled, in memory, and when they are loaded again under traffic.
//!
//! `cargo bench --bench reload`. First in this process, so that a profiler sees nothing else: each step of a load, the
//! median of some. Then a copy of Outrigger before an app, one with a single route and one with 10,000: time to the first
//! answer, resident memory, and reloads in which every route changes while a client asks all the time. The client's
//! longest wait in the second of a reload stands beside its longest wait in a second without one, in turn, because most
//! of it is the machine's. `BENCH_ROUTES` (10000), `BENCH_RELOADS` (20), `BENCH_OUTRIGGER` names another build.
#![allow(clippy::disallowed_methods)]

#[path = "../plain_app.rs"]
mod plain_app;
#[path = "../ports.rs"]
mod ports;

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use outrigger::config::load_text;
use outrigger::plan::compile::compile;
use outrigger::plan::diff::diff;
use outrigger::state::states::States;
use outrigger::telemetry::{Options, Telemetry};

use plain_app::app;
use ports::free_port;

/// Of each step in this process.
const REPEATS: usize = 9;
const SOON: Duration = Duration::from_secs(20);
const WINDOW: Duration = Duration::from_secs(1);
/// Between two requests: a pause is to be seen, and the reload is to have a processor.
const PACE: Duration = Duration::from_micros(250);

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn main() {
    let routes = number("BENCH_ROUTES", 10_000);
    steps(routes);
    let app = app();
    println!(
        "\n| routes | start to first answer, ms | idle MiB | reload without traffic, ms: median, most | the worker's CPU in its \
         second | reload | longest wait in its second | in a second without | answers | MiB after |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for routes in [1, routes] {
        println!("{}", traffic(routes, app));
    }
}

/// Each route a prefix; `total` is every route's timeout, so that two texts differ in all of them.
fn configuration(routes: usize, app: u16, total: u64) -> String {
    let mut text = format!("upstreams: {{ app: {{ endpoints: [\"http://127.0.0.1:{app}\"] }} }}\nworkers: 1\n");
    let _ = writeln!(text, "timeouts: {{ total: {total}s }}\ntelemetry: {{ access_log: {{ to: off }} }}\nroutes:");
    for number in 1..routes {
        let _ = writeln!(text, "- {{ name: s{number}, match: {{ path: \"/service{number}/*\" }}, upstream: app }}");
    }
    text.push_str("- { name: rest, match: { path: \"/*\" }, upstream: app }\n");
    text
}

fn steps(routes: usize) {
    let texts = [configuration(routes, 1, 30), configuration(routes, 1, 31)];
    let load = |text: &str| load_text(text, "bench.yaml", Path::new("/"), &|_| None).expect("a good configuration");
    let mut times: Vec<[Duration; 5]> = Vec::new();
    for turn in 0..REPEATS {
        let (states, telemetry) = (States::default(), Telemetry::start(Options::default(), 2).expect("no files"));
        let (loaded, read) = timed(|| load(&texts[turn % 2]));
        let (first, fresh) = timed(|| compile(&loaded.settings, &loaded.hash, &states, &telemetry).expect("a plan"));
        let other = load(&texts[(turn + 1) % 2]);
        let (second, again) = timed(|| compile(&other.settings, &other.hash, &states, &telemetry).expect("a plan"));
        let (changes, compared) = timed(|| diff(&loaded.settings, &other.settings));
        assert!(changes.len() >= routes, "{} changes", changes.len());
        let ((), dropped) = timed(|| drop(Arc::new(first)));
        drop(second);
        times.push([read, fresh, again, compared, dropped]);
    }
    println!("{routes} routes, {} KiB of text; the median of {REPEATS}, ms", texts[0].len() / 1024);
    println!(
        "\n| read and checked | compiled, the first time | compiled with the state it had | compared | plan let go |"
    );
    println!("|---|---|---|---|---|");
    let mut line = String::from("|");
    for step in 0..5 {
        let mut step: Vec<Duration> = times.iter().map(|times| times[step]).collect();
        step.sort();
        let _ = write!(line, " {} |", millis(step[REPEATS / 2]));
    }
    println!("{line}");
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let made = work();
    (made, start.elapsed())
}

fn millis(time: Duration) -> String {
    format!("{:.1}", time.as_secs_f64() * 1e3)
}

/// A line of the second table.
fn traffic(routes: usize, app: u16) -> String {
    let folder = tempfile::tempdir().expect("a scratch directory");
    let proxy = Proxy::start(folder.path(), routes, app);
    let idle = proxy.memory();
    let alone = alone(&proxy, routes, app);
    let mut client = Wire::connect(proxy.port);
    let (mut reloads, mut disturbed, mut quiet, mut answers) = (Vec::new(), Vec::new(), Vec::new(), 0);
    let target = format!("/service{}/x", routes / 2);
    longest(&mut client, &target, NOTHING); // caches, and the pool's connection
    for turn in 0..number("BENCH_RELOADS", 20) {
        let (wait, count, _) = longest(&mut client, &target, NOTHING);
        quiet.push(wait);
        let text = proxy.text(routes, app, 31 + turn as u64 % 2);
        let (wait, asked, took) = longest(&mut client, &target, Some(|| proxy.reload(&text)));
        disturbed.push(wait);
        reloads.extend(took);
        answers += count + asked;
    }
    format!(
        "| {routes} | {} | {:.1} | {alone} | {} | {} | {} | {answers} | {:.1} |",
        millis(proxy.started),
        idle,
        summary(&mut reloads),
        summary(&mut disturbed),
        summary(&mut quiet),
        proxy.memory()
    )
}

/// Reloads without traffic: how long they take, and what the worker's processor time is in the second of one. What that
/// is beyond its house-keeping is the longest that a request can wait, whatever else the machine does.
fn alone(proxy: &Proxy, routes: usize, app: u16) -> String {
    let (mut reloads, mut worker) = (Vec::new(), Vec::new());
    for turn in 0..number("BENCH_RELOADS", 20) {
        let before = proxy.worker();
        let text = proxy.text(routes, app, 41 + turn as u64 % 2);
        let start = Instant::now();
        reloads.push(proxy.reload(&text));
        std::thread::sleep(WINDOW.saturating_sub(start.elapsed()));
        worker.push(proxy.worker().saturating_sub(before));
    }
    format!("{} | {}", summary(&mut reloads), summary(&mut worker))
}

/// The median and the most, in milliseconds.
fn summary(times: &mut [Duration]) -> String {
    times.sort();
    format!("{}, {}", millis(times[times.len() / 2]), millis(times[times.len() - 1]))
}

/// Asks for a second; the longest wait, how many were answered, and how long a reload took.
fn longest<R>(client: &mut Wire, target: &str, reload: Option<R>) -> (Duration, usize, Option<Duration>)
where
    R: FnOnce() -> Duration + Send,
{
    let begin = Instant::now();
    std::thread::scope(|scope| {
        let reload = reload.map(|reload| {
            scope.spawn(move || {
                std::thread::sleep(WINDOW / 4);
                reload()
            })
        });
        let (mut longest, mut count) = (Duration::ZERO, 0);
        while begin.elapsed() < WINDOW || reload.as_ref().is_some_and(|reload| !reload.is_finished()) {
            longest = longest.max(client.get(target));
            count += 1;
            std::thread::sleep(PACE);
        }
        (longest, count, reload.map(|reload| reload.join().expect("the reload")))
    })
}

const NOTHING: Option<fn() -> Duration> = None;

struct Proxy {
    child: Child,
    port: u16,
    admin: u16,
    ops: u16,
    file: PathBuf,
    started: Duration,
}

impl Proxy {
    fn start(folder: &Path, routes: usize, app: u16) -> Proxy {
        let program = std::env::var("BENCH_OUTRIGGER").unwrap_or_else(|_| env!("CARGO_BIN_EXE_outrigger").to_owned());
        let file = folder.join("outrigger.yaml");
        let (port, admin, ops) = (free_port(), free_port(), free_port());
        let text = addresses(port, admin, ops) + &configuration(routes, app, 30);
        std::fs::write(&file, text).expect("the file");
        let began = Instant::now();
        let mut command = Command::new(program);
        command.arg("run").arg("-c").arg(&file).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("outrigger starts");
        let mut proxy = Proxy { child, port, admin, ops, file, started: Duration::ZERO };
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(began.elapsed() < SOON, "outrigger does not listen");
            std::thread::sleep(Duration::from_micros(500));
        }
        Wire::connect(port).get("/service0/x");
        proxy.started = began.elapsed();
        proxy
    }

    fn text(&self, routes: usize, app: u16, total: u64) -> String {
        addresses(self.port, self.admin, self.ops) + &configuration(routes, app, total)
    }

    fn reload(&self, text: &str) -> Duration {
        std::fs::write(&self.file, text).expect("the file");
        timed(|| Wire::connect(self.admin).post("/reload", r#"{"to":null}"#)).1
    }

    /// The processor time of the one worker so far.
    fn worker(&self) -> Duration {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("its threads");
        let read =
            |thread: &std::fs::DirEntry, file| std::fs::read_to_string(thread.path().join(file)).unwrap_or_default();
        let worker = threads.flatten().find(|thread| read(thread, "comm").starts_with("worker"));
        let nanos = read(&worker.expect("a worker"), "schedstat");
        Duration::from_nanos(nanos.split(' ').next().and_then(|nanos| nanos.parse().ok()).unwrap_or_default())
    }

    /// Resident, in MiB.
    fn memory(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes: f64 = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or_default();
        kilobytes / 1024.0
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn addresses(port: u16, admin: u16, ops: u16) -> String {
    format!(
        "listeners: [{{ name: web, address: \"127.0.0.1:{port}\" }}]\nops: {{ address: \"127.0.0.1:{ops}\" }}\n\
         admin: {{ address: \"127.0.0.1:{admin}\" }}\n"
    )
}

/// One connection.
struct Wire(TcpStream);

impl Wire {
    fn connect(port: u16) -> Wire {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
        stream.set_nodelay(true).expect("a socket");
        stream.set_read_timeout(Some(SOON)).expect("a socket");
        Wire(stream)
    }

    /// How long the answer took, which is a good one.
    fn get(&mut self, target: &str) -> Duration {
        let start = Instant::now();
        self.ask(&format!("GET {target} HTTP/1.1\r\nHost: bench.example\r\n\r\n"));
        start.elapsed()
    }

    fn post(&mut self, target: &str, body: &str) {
        let length = body.len();
        self.ask(&format!(
            "POST {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        ));
    }

    fn ask(&mut self, request: &str) {
        self.0.write_all(request.as_bytes()).expect("a request");
        let (mut answer, mut buffer) = (Vec::new(), [0; 16 * 1024]);
        loop {
            let read = self.0.read(&mut buffer).expect("an answer in time");
            assert!(read > 0, "the connection ended: {}", String::from_utf8_lossy(&answer));
            answer.extend_from_slice(&buffer[..read]);
            let text = String::from_utf8_lossy(&answer);
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            assert!(head.starts_with("HTTP/1.1 200"), "{text}");
            let length =
                head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
            if length.is_some_and(|length: usize| body.len() >= length) {
                return;
            }
        }
    }
}
