//! Programs of other people. A test that needs one is skipped when it is not installed, and says so; with
//! `OUTRIGGER_TEST_REQUIRE_TOOLS=1` a missing one is a failure.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use super::process::Lines;

/// Whether a program is on the path.
pub fn have_tool(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]).any(|dir| dir.join(name).is_file());
    found || missing(name)
}

/// A Python that can import `modules`: `OUTRIGGER_TEST_PYTHON`, the one `.ci/run` makes, or `python3`.
pub fn python(modules: &[&str]) -> Option<PathBuf> {
    let home = PathBuf::from(std::env::var_os("HOME").unwrap_or_default());
    let made = home.join(".cache/outrigger-test-venv/bin/python");
    let python = match std::env::var_os("OUTRIGGER_TEST_PYTHON") {
        Some(named) => PathBuf::from(named),
        None if made.is_file() => made,
        None => PathBuf::from("python3"),
    };
    // Found, not imported: that takes a second on a busy machine.
    let find = "import importlib.util, sys; sys.exit(not all(map(importlib.util.find_spec, sys.argv[1:])))";
    let mut command = Command::new(&python);
    command.args(["-c", find]).args(modules).stdout(Stdio::null()).stderr(Stdio::null());
    if command.status().is_ok_and(|status| status.success()) {
        return Some(python);
    }
    missing(&format!("python with {}", modules.join(", ")));
    None
}

pub fn missing(name: &str) -> bool {
    eprintln!("skipped: {name} not installed");
    let required = std::env::var_os("OUTRIGGER_TEST_REQUIRE_TOOLS").is_some_and(|value| value == "1");
    assert!(!required, "{name} is not installed, and OUTRIGGER_TEST_REQUIRE_TOOLS=1");
    false
}

/// A helper script of `tests/apps`.
pub fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/apps").join(name)
}

/// A running program; killed when dropped.
pub struct Running {
    child: Child,
    family: bool,
    pub stdout: Lines,
    pub stderr: Lines,
}

impl Running {
    pub fn start(command: &mut Command) -> Running {
        Running::spawn(command, false)
    }

    /// A program with children of its own, which end with it: they are one process group.
    pub fn start_family(command: &mut Command) -> Running {
        Running::spawn(command.process_group(0), true)
    }

    fn spawn(command: &mut Command, family: bool) -> Running {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|problem| panic!("cannot start {command:?}: {problem}"));
        let (stdout, stderr) = (Lines::default(), Lines::default());
        stdout.collect(child.stdout.take().expect("piped"));
        stderr.collect(child.stderr.take().expect("piped"));
        Running { child, family, stdout, stderr }
    }

    /// The port a helper script says it listens on, as `port NUMBER`.
    pub fn port(&self) -> u16 {
        let told = |line: &str| line.strip_prefix("port ")?.trim().parse().ok();
        self.stdout.find_within(super::DEADLINE * 3, "the port of a helper", told)
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port()))
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn ended(&mut self) -> bool {
        self.child.try_wait().expect("wait").is_some()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.family {
            // Not reaped yet, so the number is still this group's.
            let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- a helper's output\n{}{}---", self.stdout.tail(), self.stderr.tail());
        }
    }
}

/// Runs a program to its end, at most a minute. What it leaves behind ends with it: an orphan that holds the pipes
/// would hold the test.
pub fn run(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn().unwrap_or_else(|problem| panic!("cannot start {command:?}: {problem}"));
    let (stdout, stderr) = (Lines::default(), Lines::default());
    let readers =
        [stdout.collect(child.stdout.take().expect("piped")), stderr.collect(child.stderr.take().expect("piped"))];
    let (pid, until) = (Pid::from_child(&child), Instant::now() + Duration::from_secs(60));
    let seen = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    while waitid(WaitId::Pid(pid), seen).expect("wait").is_none() {
        if Instant::now() > until {
            let _ = kill_process_group(pid, Signal::KILL);
            let _ = child.wait();
            panic!("{command:?} does not end:\n{}{}", stdout.text(), stderr.text());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let _ = kill_process_group(pid, Signal::KILL);
    let status = child.wait().expect("wait");
    for reader in readers {
        let _ = reader.join();
    }
    Output { status, stdout: stdout.text().into_bytes(), stderr: stderr.text().into_bytes() }
}

/// As `run`, of a program that must succeed; what it said.
pub fn said(command: &mut Command) -> String {
    let output = run(command);
    let (said, wrong) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{said}\n{wrong}", output.status);
    said.into_owned()
}

/// Runs Outrigger itself with these arguments.
pub fn outrigger<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Output {
    run(Command::new(super::process::binary()).args(arguments))
}
