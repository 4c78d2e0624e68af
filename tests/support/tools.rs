//! Programs of other people. A test that needs one is skipped when it is not installed, and says so; with
//! `OUTRIGGER_TEST_REQUIRE_TOOLS=1` a missing one is a failure.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use super::process::Lines;

/// Whether a program is on the path.
pub fn have_tool(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]).any(|dir| dir.join(name).is_file());
    found || missing(name)
}

/// A Python that can import `modules`: `OUTRIGGER_TEST_PYTHON`, or `python3`.
pub fn python(modules: &[&str]) -> Option<PathBuf> {
    let python = std::env::var_os("OUTRIGGER_TEST_PYTHON").map_or_else(|| PathBuf::from("python3"), PathBuf::from);
    let mut command = Command::new(&python);
    command.arg("-c").arg(format!("import {}", modules.join(", "))).stdout(Stdio::null()).stderr(Stdio::null());
    if command.status().is_ok_and(|status| status.success()) {
        return Some(python);
    }
    missing(&format!("python with {}", modules.join(", ")));
    None
}

fn missing(name: &str) -> bool {
    eprintln!("skipped: {name} not installed");
    let required = std::env::var_os("OUTRIGGER_TEST_REQUIRE_TOOLS").is_some_and(|value| value == "1");
    assert!(!required, "{name} is not installed, and OUTRIGGER_TEST_REQUIRE_TOOLS=1");
    false
}

/// A helper script of `tests/apps`.
pub fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/apps").join(name)
}

/// A running program; killed by its process id when dropped.
pub struct Running {
    child: Child,
    pub stdout: Lines,
    pub stderr: Lines,
}

impl Running {
    pub fn start(command: &mut Command) -> Running {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|problem| panic!("cannot start {command:?}: {problem}"));
        let (stdout, stderr) = (Lines::default(), Lines::default());
        stdout.collect(child.stdout.take().expect("piped"));
        stderr.collect(child.stderr.take().expect("piped"));
        Running { child, stdout, stderr }
    }

    /// The port a helper script says it listens on, as `port NUMBER`.
    pub fn port(&self) -> u16 {
        self.stdout.find("the port of a helper", |line| line.strip_prefix("port ")?.trim().parse().ok())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- a helper's output\n{}{}---", self.stdout.text(), self.stderr.text());
        }
    }
}

/// Runs a program to its end, at most a minute.
pub fn run(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|problem| panic!("cannot start {command:?}: {problem}"));
    let (stdout, stderr) = (Lines::default(), Lines::default());
    let readers =
        [stdout.collect(child.stdout.take().expect("piped")), stderr.collect(child.stderr.take().expect("piped"))];
    let until = Instant::now() + Duration::from_secs(60);
    let status = loop {
        if let Some(status) = child.try_wait().expect("wait") {
            break status;
        }
        if Instant::now() > until {
            let _ = child.kill();
            let _ = child.wait();
            panic!("{command:?} does not end:\n{}{}", stdout.text(), stderr.text());
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    for reader in readers {
        let _ = reader.join();
    }
    Output { status, stdout: stdout.text().into_bytes(), stderr: stderr.text().into_bytes() }
}

/// Runs Outrigger itself with these arguments.
pub fn outrigger<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Output {
    run(Command::new(super::process::binary()).args(arguments))
}
