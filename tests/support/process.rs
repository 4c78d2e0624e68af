//! The built binary as its operator sees it: a configuration file, signals, logs, ports, an exit code.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use super::app::RawApp;
use super::message::Response;
use super::{DEADLINE, eventually, wire};

/// The binary under test: what cargo built, or what `OUTRIGGER_TEST_BINARY` names (a release, an image's).
pub fn binary() -> PathBuf {
    std::env::var_os("OUTRIGGER_TEST_BINARY").map_or_else(|| env!("CARGO_BIN_EXE_outrigger").into(), PathBuf::from)
}

/// How to start it.
pub struct Launch {
    config: String,
    command: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    directory: TempDir,
    stdin: Option<Stdio>,
    through: Option<String>,
}

impl Launch {
    pub fn new(config: impl Into<String>) -> Launch {
        let directory = tempfile::Builder::new().prefix("outrigger-test-").tempdir().expect("a directory");
        let (command, environment) = (Vec::new(), Vec::new());
        Launch { config: config.into(), command, environment, directory, stdin: None, through: None }
    }

    /// Where its configuration file lies; other files may be put beside it before the start.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Adds to the configuration.
    pub fn extra(mut self, text: &str) -> Launch {
        self.config.push_str(text);
        self
    }

    pub fn environment(mut self, name: &str, value: impl Into<OsString>) -> Launch {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// The app to wrap: what stands after `--`.
    pub fn wrap<S: Into<OsString>>(mut self, command: impl IntoIterator<Item = S>) -> Launch {
        self.command = command.into_iter().map(Into::into).collect();
        self
    }

    pub fn stdin(mut self, stdin: impl Into<Stdio>) -> Launch {
        self.stdin = Some(stdin.into());
        self
    }

    /// Started by `sh -c SCRIPT`, in which "$@" is the command line of Outrigger.
    pub fn through(mut self, script: &str) -> Launch {
        self.through = Some(script.to_owned());
        self
    }

    pub fn start(self) -> Outrigger {
        let file = self.directory.path().join("outrigger.yaml");
        std::fs::write(&file, &self.config).expect("the configuration file");
        self.start_with(&file)
    }

    /// With a file that lies somewhere already.
    pub fn start_with(self, file: &Path) -> Outrigger {
        let file = file.to_owned();
        let mut command = match &self.through {
            Some(script) => {
                let mut shell = Command::new("sh");
                shell.args(["-c", script, "sh"]).arg(binary());
                shell
            }
            None => Command::new(binary()),
        };
        command.args(["run", "-c"]).arg(&file);
        if !self.command.is_empty() {
            command.arg("--").args(&self.command);
        }
        command.envs(self.environment).current_dir(self.directory.path());
        command.stdin(self.stdin.unwrap_or_else(Stdio::null)).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|problem| panic!("cannot start {:?}: {problem}", binary()));
        let (stdout, stderr) = (Lines::default(), Lines::default());
        let readers = vec![
            stdout.collect(child.stdout.take().expect("piped")),
            stderr.collect(child.stderr.take().expect("piped")),
        ];
        let directory = self.directory;
        Outrigger { child, stdout, stderr, file, readers, exited: None, addresses: Mutex::default(), directory }
    }
}

/// A running Outrigger; killed by its process id when dropped.
pub struct Outrigger {
    child: Child,
    stdout: Lines,
    stderr: Lines,
    file: PathBuf,
    readers: Vec<JoinHandle<()>>,
    exited: Option<ExitStatus>,
    addresses: Mutex<HashMap<String, SocketAddr>>,
    directory: TempDir,
}

impl Outrigger {
    /// In front of an app, with `extra` top-level keys; listening when this returns.
    pub fn before(app: &RawApp, extra: &str) -> Outrigger {
        Outrigger::run(super::config(app.address(), extra))
    }

    pub fn run(config: impl Into<String>) -> Outrigger {
        let outrigger = Launch::new(config).start();
        for name in ["web", "ops", "admin"] {
            outrigger.address(name);
        }
        outrigger
    }

    /// Where a listener listens, as soon as the log says so.
    pub fn address(&self, listener: &str) -> SocketAddr {
        if let Some(known) = lock(&self.addresses).get(listener) {
            return *known;
        }
        let line = self.wait_for_log(&format!("listener {listener} listens"), |line| {
            line["message"] == "listening" && line["listener"] == listener
        });
        let address = line["address"].as_str().and_then(|address| address.parse().ok());
        let address = address.unwrap_or_else(|| panic!("no address in {line}"));
        lock(&self.addresses).insert(listener.to_owned(), address);
        address
    }

    pub fn web(&self) -> SocketAddr {
        self.address("web")
    }

    pub fn file(&self) -> &Path {
        &self.file
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Replaces the configuration file the way editors do.
    pub fn write_config(&self, text: &str) {
        let aside = self.file.with_extension("new");
        std::fs::write(&aside, text).expect("write the configuration");
        std::fs::rename(&aside, &self.file).expect("rename the configuration");
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("signal");
    }

    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Waits for the end of the process; its status.
    pub fn wait(&mut self) -> ExitStatus {
        if let Some(status) = self.exited {
            return status;
        }
        let stderr = self.stderr.clone();
        let until = Instant::now() + DEADLINE * 3;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("wait") {
                break status;
            }
            assert!(Instant::now() < until, "it does not end; its log:\n{}", stderr.text());
            thread::sleep(Duration::from_millis(5));
        };
        self.exited = Some(status);
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
        status
    }

    pub fn running(&mut self) -> bool {
        self.exited.is_none() && self.child.try_wait().expect("wait").is_none()
    }

    /// SIGTERM, wait, and the final report.
    pub fn stop(&mut self) -> Value {
        self.terminate();
        self.wait();
        self.drain_report()
    }

    pub fn drain_report(&self) -> Value {
        self.wait_for_log("the drain report", |line| line["message"] == "drain report")
    }

    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// The first line of the diagnostics that fits.
    pub fn wait_for_log(&self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        self.stderr.wait(what, fits)
    }

    /// The access log's first line that fits.
    pub fn wait_for_access(&self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        self.stdout.wait(what, fits)
    }

    /// Waits for a line of the output, which a wrapped app shares.
    pub fn wait_for_output(&self, what: &str, words: &str) {
        self.stdout.find(what, |line| line.contains(words).then_some(()));
    }

    pub fn ops(&self, path: &str) -> Response {
        wire::get(self.address("ops"), path)
    }

    pub fn admin(&self, path: &str) -> Response {
        wire::get(self.address("admin"), path)
    }

    pub fn admin_post(&self, path: &str) -> Response {
        wire::post(self.address("admin"), path)
    }

    pub fn status(&self) -> Value {
        self.admin("/status").json()
    }

    /// Waits until `/status` is as wanted.
    pub fn status_until(&self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        let until = Instant::now() + DEADLINE;
        loop {
            let status = self.status();
            if fits(&status) {
                return status;
            }
            if Instant::now() > until {
                panic!("{what}: not within {DEADLINE:?}: {last:#}");
            }
            last = status;
            thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn idle(&self) -> Value {
        self.status_until("nothing is in flight", |status| status["in_flight"] == 0)
    }

    pub fn metrics(&self) -> String {
        self.ops("/metrics").text()
    }

    /// The sum of a metric's samples whose labels contain `with`.
    pub fn metric(&self, name: &str, with: &str) -> f64 {
        let fits = |line: &&str| {
            let rest = line.strip_prefix(name).unwrap_or("x");
            (rest.starts_with('{') || rest.starts_with(' ')) && line.contains(with)
        };
        let value = |line: &str| line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok());
        self.metrics().lines().filter(fits).filter_map(value).sum()
    }

    pub fn why(&self, id: &str) -> Value {
        eventually("the fate of a request", || {
            let answer = self.admin(&format!("/why/{id}"));
            (answer.status == 200).then(|| answer.json())
        })
    }

    /// What `outrigger why` prints.
    pub fn why_told(&self, answer: &Response) -> String {
        let id = answer.get("x-request-id").expect("an id");
        self.why(id);
        let output = super::tools::outrigger(["why", id, "--admin", &self.address("admin").to_string()]);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("text")
    }

    /// Resident memory, in bytes.
    pub fn memory(&self) -> usize {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.id())).expect("its /proc");
        let line = text.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<usize>().ok()).expect("a number") * 1024
    }
}

impl Drop for Outrigger {
    fn drop(&mut self) {
        if self.exited.is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if thread::panicking() {
            eprintln!("--- outrigger's log\n{}--- its output\n{}---", self.stderr.tail(), self.stdout.tail());
        }
    }
}

/// Lines of a stream, collected by a thread.
#[derive(Clone, Default)]
pub struct Lines(Arc<(Mutex<Collected>, Condvar)>);

#[derive(Default)]
struct Collected {
    lines: Vec<String>,
    ended: bool,
}

impl Lines {
    pub fn collect(&self, from: impl std::io::Read + Send + 'static) -> JoinHandle<()> {
        let shared = Arc::clone(&self.0);
        thread::spawn(move || {
            let mut from = BufReader::new(from);
            let mut line = Vec::new();
            while from.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                lock(&shared.0).lines.push(text);
                shared.1.notify_all();
                line.clear();
            }
            lock(&shared.0).ended = true;
            shared.1.notify_all();
        })
    }

    pub fn text(&self) -> String {
        lock(&self.0.0).lines.iter().map(|line| format!("{line}\n")).collect()
    }

    /// The last lines, for a report.
    pub fn tail(&self) -> String {
        let collected = lock(&self.0.0);
        let skipped = collected.lines.len().saturating_sub(TAIL);
        let more = if skipped > 0 { format!("… {skipped} lines before\n") } else { String::new() };
        more + &collected.lines[skipped..].iter().map(|line| format!("{line}\n")).collect::<String>()
    }

    /// The first JSON line that fits.
    pub fn wait(&self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        self.find(what, |line| serde_json::from_str(line).ok().filter(|value| fits(value)))
    }

    /// The first line for which `found` answers, waiting for it.
    pub fn find<T>(&self, what: &str, found: impl Fn(&str) -> Option<T>) -> T {
        self.find_within(DEADLINE, what, found)
    }

    pub fn find_within<T>(&self, deadline: Duration, what: &str, found: impl Fn(&str) -> Option<T>) -> T {
        let (until, mut seen) = (Instant::now() + deadline, 0);
        let mut collected = lock(&self.0.0);
        loop {
            for line in &collected.lines[seen..] {
                if let Some(answer) = found(line) {
                    return answer;
                }
            }
            seen = collected.lines.len();
            let left = until.saturating_duration_since(Instant::now());
            if collected.ended || left.is_zero() {
                let text = collected.lines.join("\n");
                panic!("{what}: not seen{}:\n{text}", if collected.ended { " before the end" } else { "" });
            }
            let waited = self.0.1.wait_timeout(collected, left);
            collected = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Lines of each log that a failed test shows.
const TAIL: usize = 12;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
