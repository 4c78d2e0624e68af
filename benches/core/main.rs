//! What the decisions and a whole request cost in instructions, outside the kernel: a figure without noise, which a
//! busy machine does not change. `cargo bench --bench core` counts with `valgrind --tool=callgrind` and compares with
//! `benches/core.baseline`; with `BENCH_CHECK=1` more than 3 % above it fails. `UPDATE_BASELINE=1` writes the file anew,
//! `BENCH_CASES` and `BENCH_WITHOUT` (a part of a name) choose, `BENCH_OUTRIGGER` names another build for the whole requests.
//!
//! A figure is the difference of two runs of different length over the difference of their lengths, so what a run costs
//! once does not count. The baseline holds for one compiler and processor family; with another one the differences are
//! shown and nothing fails. Where nginx is installed the same request through it is counted too, for comparison.
#![allow(clippy::disallowed_methods)]

mod cases;
#[path = "../plain_app.rs"]
mod plain_app;
#[path = "../ports.rs"]
mod ports;
mod request;
mod valgrind;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

/// Set to `CASE=RUNS` for the run that valgrind watches.
const CHILD: &str = "BENCH_CORE_CHILD";
const RUNS: [u64; 2] = [1_000, 5_000];
const TOLERANCE: f64 = 1.03;

fn main() -> ExitCode {
    if let Ok(asked) = std::env::var(CHILD) {
        return child(&asked);
    }
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("skipped: valgrind not installed");
        return ExitCode::SUCCESS;
    }
    let [wanted, without] = ["BENCH_CASES", "BENCH_WITHOUT"].map(|name| std::env::var(name).ok());
    let is_wanted = |name: &str| {
        wanted.as_ref().is_none_or(|part| name.contains(part.as_str()))
            && without.as_ref().is_none_or(|part| !name.contains(part.as_str()))
    };
    let names = cases::NAMES.into_iter().filter(|name| is_wanted(name));
    let mut counted: Vec<(String, f64)> = names.map(|name| (name.to_owned(), instructions_each(name))).collect();
    counted.extend(request::counted(&is_wanted));
    judge(&counted, wanted.is_none() && without.is_none())
}

fn child(asked: &str) -> ExitCode {
    let case = asked.rsplit_once('=').and_then(|(name, runs)| Some((cases::prepare(name)?, runs.parse::<u64>().ok()?)));
    let Some((mut case, runs)) = case else { return ExitCode::from(2) };
    (0..runs).for_each(|_| case());
    ExitCode::SUCCESS
}

fn instructions_each(name: &str) -> f64 {
    let program = std::env::current_exe().expect("our own path");
    let folder = tempfile::tempdir().expect("a scratch directory");
    let [few, many] = RUNS.map(|runs| {
        let mut command = valgrind::command(folder.path());
        let out = command.arg(&program).env(CHILD, format!("{name}={runs}")).output().expect("valgrind starts");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        valgrind::counts(folder.path()).instructions
    });
    (many - few) / (RUNS[1] - RUNS[0]) as f64
}

fn judge(counted: &[(String, f64)], all: bool) -> ExitCode {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("benches/core.baseline");
    let known = std::fs::read_to_string(&file).unwrap_or_default();
    let same = known.lines().next() == Some(compiler().as_str());
    let baseline: BTreeMap<&str, f64> = known
        .lines()
        .filter_map(|line| line.rsplit_once('\t'))
        .filter_map(|(name, count)| Some((name, count.parse().ok()?)))
        .collect();
    let mut above = 0;
    println!("| instructions, or allocations | now | baseline | x |\n|---|---|---|---|");
    for (name, count) in counted {
        let Some(before) = baseline.get(name.as_str()) else {
            println!("| {name} | {count:.1} | - | - |");
            continue;
        };
        // Half an instruction either way is rounding, however small the case.
        let ours = !name.contains("nginx");
        let tolerance = if name.starts_with("allocations") { 1.0 } else { TOLERANCE };
        let worse = ours && *count > before * tolerance + 0.5;
        above += usize::from(worse);
        println!("| {name} | {count:.1} | {before:.1} | {:.3}{} |", count / before, if worse { " above" } else { "" });
    }
    if std::env::var_os("UPDATE_BASELINE").is_some() && all {
        let mut text = compiler() + "\n";
        for (name, count) in counted {
            let _ = writeln!(text, "{name}\t{count:.1}"); // into a String: cannot fail
        }
        std::fs::write(&file, text).expect("the baseline can be written");
        println!("written to {}", file.display());
        return ExitCode::SUCCESS;
    }
    if !same {
        println!("the baseline is of another compiler or machine: nothing is judged");
    }
    let asked = std::env::var_os("BENCH_CHECK").is_some();
    if asked && same && above > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// What the instruction counts depend on besides the code.
fn compiler() -> String {
    let out = Command::new("rustc").arg("--version").output();
    let version = out.map(|out| String::from_utf8_lossy(&out.stdout).trim().to_owned()).unwrap_or_default();
    format!("# {version}, {}, {}", std::env::consts::ARCH, processor())
}

/// The C library and the TLS library choose their code by it.
fn processor() -> String {
    let told = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let value = |name: &str| {
        let line = told.lines().find(|line| line.starts_with(name))?;
        line.split_once(':').map(|(_, value)| value.trim().to_owned())
    };
    format!("{} family {}", value("vendor_id").unwrap_or_default(), value("cpu family").unwrap_or_default())
}
