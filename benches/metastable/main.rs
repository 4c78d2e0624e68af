//! Whether a short overload becomes a lasting one. An app of fixed capacity (a FIFO queue, 20 ms of work for each
//! request, and no notice of clients that have left) serves calls that come at 70 % of it, whatever became of those
//! before. A client gives an attempt up after one second and makes up to three more. For five seconds three times as
//! many calls come, or the app is ten times slower; then all is as before. What happens next is the question: without
//! anything between them the queue is longer than the patience of the clients, so that the app works on nothing but
//! requests that nobody waits for any more, and retries keep it so.
//!
//! `cargo bench --bench metastable` runs it without a proxy, through Outrigger with its defaults, and through nginx,
//! HAProxy and Envoy where found (`BENCH_NGINX`, `BENCH_HAPROXY`, `BENCH_ENVOY`, or on the PATH). It draws goodput over
//! time to `target/metastable-*.svg`, and fails when Outrigger does not hold what `docs/policies/concurrency.md` says.
//! `BENCH_ONLY=outrigger` runs what has that in its name.
#![allow(clippy::disallowed_methods)]

mod app;
mod chart;
mod clients;
#[allow(dead_code, reason = "as the load bench had it; this one needs less")]
mod peers;
#[allow(dead_code, reason = "as the load bench had it; this one needs less")]
#[path = "../load/process.rs"]
mod process;

use std::path::Path;

use app::App;
use clients::Run;

/// Seconds: the load is steady until the trigger, and again after it.
pub const TRIGGER: (f64, f64) = (12.0, 17.0);
pub const END: f64 = 30.0;
/// What begins is not judged: connections, the first limit.
const WARM: f64 = 2.0;
/// How long after the trigger everything must be as before.
const RECOVERY: f64 = 2.0;
const WORKERS: usize = 10;
const SERVICE_MS: u64 = 20;
pub const CAPACITY: f64 = WORKERS as f64 * 1000.0 / SERVICE_MS as f64;
const LOAD: f64 = 0.7;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Trigger {
    Load,
    Slow,
}

impl Trigger {
    fn words(self) -> &'static str {
        match self {
            Trigger::Load => "three times the load",
            Trigger::Slow => "an app ten times slower",
        }
    }

    fn file(self) -> &'static str {
        match self {
            Trigger::Load => "target/metastable-load.svg",
            Trigger::Slow => "target/metastable-slow.svg",
        }
    }

    /// Calls a second, during the trigger or not.
    pub fn rate(self, during: bool) -> f64 {
        CAPACITY * LOAD * if during && self == Trigger::Load { 3.0 } else { 1.0 }
    }

    pub fn slower(self, during: bool) -> u32 {
        if during && self == Trigger::Slow { 10 } else { 1 }
    }
}

/// What one run came to.
struct Judged {
    name: String,
    /// Refused before the trigger.
    shed: u64,
    /// Of the app's capacity during the trigger.
    goodput: f64,
    /// Of the calls that came from two seconds after the trigger on.
    recovered: f64,
    attempts: f64,
}

fn main() {
    let only = std::env::var("BENCH_ONLY").unwrap_or_default();
    println!(
        "app: {WORKERS} workers, {SERVICE_MS} ms, FIFO, {CAPACITY:.0}/s; calls: {:.0} % of that, 1 s timeout, up to 3 retries",
        LOAD * 100.0
    );
    let mut held = true;
    for trigger in [Trigger::Load, Trigger::Slow] {
        println!("\n{} for {:.0} s", trigger.words(), TRIGGER.1 - TRIGGER.0);
        println!(
            "{:<20} {:>16} {:>22} {:>22} {:>14}",
            "through", "shed before", "goodput of capacity", "success 2 s after", "attempts/call"
        );
        let mut lines = Vec::new();
        for name in ["nothing", "outrigger defaults", "nginx", "haproxy", "envoy"] {
            if !name.contains(&only) {
                continue;
            }
            let Some(run) = run(name, trigger) else { continue };
            let judged = judge(name, trigger, &run);
            println!(
                "{:<20} {:>16} {:>21.1}% {:>21.2}% {:>14.2}",
                judged.name,
                judged.shed,
                judged.goodput * 100.0,
                judged.recovered * 100.0,
                judged.attempts
            );
            if name.starts_with("outrigger") {
                held &= judged.shed == 0 && judged.goodput >= 0.9 && judged.recovered >= 0.99;
            }
            lines.push((judged.name, run.goodput()));
        }
        let svg = chart::draw(trigger.words(), &lines);
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(trigger.file());
        match std::fs::write(&file, svg) {
            Ok(()) => println!("chart: {}", trigger.file()),
            Err(problem) => println!("no chart: {problem}"),
        }
    }
    if !held {
        println!("\nOutrigger did not hold: no request shed before, goodput of 90 %, 99 % success 2 s after");
        std::process::exit(1);
    }
}

/// One contender from its start to its end; `None` when it is not installed.
fn run(name: &str, trigger: Trigger) -> Option<Run> {
    let app = App::start(WORKERS, SERVICE_MS);
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let mut peer = None;
    let port = if name == "nothing" {
        app.port
    } else {
        let found = peers::found(scratch.path(), app.port).into_iter().find(|peer| peer.name == name)?;
        let found = peer.insert(found);
        found.start();
        found.port
    };
    Some(clients::run(port, &app, trigger))
}

fn judge(name: &str, trigger: Trigger, run: &Run) -> Judged {
    let capacity = CAPACITY / f64::from(trigger.slower(true));
    let during = run.calls.iter().filter(|call| call.ended_well_in(TRIGGER.0, TRIGGER.1)).count();
    let after: Vec<_> = run.calls.iter().filter(|call| call.came >= TRIGGER.1 + RECOVERY && call.came < END).collect();
    let well = after.iter().filter(|call| call.well).count();
    Judged {
        name: name.to_owned(),
        shed: run.refused.iter().filter(|at| **at >= WARM && **at < TRIGGER.0).count() as u64,
        goodput: during as f64 / (TRIGGER.1 - TRIGGER.0) / capacity,
        recovered: well as f64 / after.len().max(1) as f64,
        attempts: run.calls.iter().map(|call| f64::from(call.attempts)).sum::<f64>() / run.calls.len().max(1) as f64,
    }
}
