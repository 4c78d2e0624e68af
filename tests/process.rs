//! The program itself: what it says when it cannot start, what a signal does, what the service manager hears, and that
//! the end is in order. Every port is 0; addresses are read from the log.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use outrigger::state::clock;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(20);

/// A running `outrigger run` and its log so far.
struct Process {
    child: Child,
    log: BufReader<std::process::ChildStderr>,
    lines: Vec<Value>,
}

impl Process {
    fn start(directory: &Path, configuration: &str, prepare: impl FnOnce(&mut Command)) -> Process {
        let file = directory.join("outrigger.yaml");
        std::fs::write(&file, configuration).expect("a file");
        let mut command = Command::new(env!("CARGO_BIN_EXE_outrigger"));
        command.args(["run", "-c"]).arg(file).stdout(Stdio::null()).stderr(Stdio::piped());
        command.env_remove("KUBERNETES_SERVICE_HOST").env_remove("NOTIFY_SOCKET");
        prepare(&mut command);
        let mut child = command.spawn().expect("the program");
        let log = BufReader::new(child.stderr.take().expect("a pipe"));
        Process { child, log, lines: Vec::new() }
    }

    /// The next line of the log whose message is this.
    fn line(&mut self, message: &str) -> Value {
        loop {
            let mut text = String::new();
            assert!(self.log.read_line(&mut text).expect("a line") > 0, "the log ended: {:#?}", self.lines);
            let line: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("not JSON: {text}"));
            self.lines.push(line.clone());
            if line["message"] == message {
                return line;
            }
        }
    }

    /// Where a listener listens.
    fn address(&mut self, listener: &str) -> String {
        let known = |line: &&Value| line["message"] == "listening" && line["listener"] == listener;
        loop {
            if let Some(line) = self.lines.iter().find(known) {
                return line["address"].as_str().expect("an address").to_owned();
            }
            self.line("listening");
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a pid")).expect("a pid");
        kill_process(pid, signal).expect("a signal");
    }

    fn end(mut self) -> Option<i32> {
        self.child.wait().expect("an end").code()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it has ended in good tests
        let _ = self.child.wait();
    }
}

/// An app that answers every request after `pause`.
fn app(pause: Duration) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut bytes = [0; 4096];
                while stream.read(&mut bytes).is_ok_and(|taken| taken > 0) {
                    std::thread::sleep(pause);
                    if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").is_err() {
                        return;
                    }
                }
            });
        }
    });
    port
}

fn configuration(app: u16, more: &str) -> String {
    format!(
        "upstream: http://127.0.0.1:{app}\nlisteners: [{{ name: web, address: \"127.0.0.1:0\" }}]\n\
         ops: {{ address: \"127.0.0.1:0\" }}\nadmin: {{ address: \"127.0.0.1:0\" }}\n\
         telemetry: {{ access_log: {{ to: off }} }}\n{more}\n"
    )
}

fn send(address: &str) -> TcpStream {
    let mut client = TcpStream::connect(address).expect("a connection");
    client.set_read_timeout(Some(SOON)).expect("a timeout");
    client.write_all(b"GET /readyz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").expect("a write");
    client
}

fn get(address: &str) -> String {
    let mut all = String::new();
    send(address).read_to_string(&mut all).expect("an answer");
    all
}

fn until(condition: impl Fn() -> bool) {
    let began = clock::now();
    while !condition() {
        assert!(clock::now() - began < SOON, "never happened");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn sigterm_finishes_what_is_in_flight_and_reports() {
    let directory = tempfile::tempdir().expect("a directory");
    let text = configuration(app(Duration::from_millis(500)), "drain: { delay: 100ms, timeout: 10s }");
    let mut process = Process::start(directory.path(), &text, |_| {});
    let (web, ops) = (process.address("web"), process.address("ops"));
    until(|| get(&ops).starts_with("HTTP/1.1 200"));
    let mut slow = send(&web);
    until(|| get(&ops.clone()).contains("\"ready\":true"));
    process.signal(Signal::TERM);
    process.line("draining: SIGTERM");
    assert!(get(&ops).starts_with("HTTP/1.1 503"), "not ready at once");
    let mut answer = String::new();
    slow.read_to_string(&mut answer).expect("an answer");
    assert!(answer.ends_with("ok"), "{answer}");
    let report = process.line("drain report");
    assert_eq!((&report["finished"], &report["cut"], &report["forced"]), (&1.into(), &0.into(), &false.into()));
    assert_eq!(process.end(), Some(0));
}

#[test]
fn a_second_signal_ends_at_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let text = configuration(app(SOON * 10), "drain: { delay: 60s, timeout: 60s }");
    let mut process = Process::start(directory.path(), &text, |_| {});
    let web = process.address("web");
    let _slow = send(&web);
    process.signal(Signal::TERM);
    process.line("draining: SIGTERM");
    process.signal(Signal::INT);
    let report = process.line("drain report");
    assert_eq!(report["forced"], true, "{report}");
    assert_eq!(process.end(), Some(0));
}

#[test]
fn what_cannot_be_had_is_said_and_the_exit_code_is_2() {
    let directory = tempfile::tempdir().expect("a directory");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port();
    for name in ["no.crt", "no.key"] {
        std::fs::write(directory.path().join(name), "nothing of use").expect("a file");
    }
    let certificates = "[{ certificate: no.crt, key: no.key }]";
    let text = configuration(1, "").replace(
        "listeners: [{ name: web, address: \"127.0.0.1:0\" }]",
        &format!(
            "listeners: [{{ name: web, address: \"127.0.0.1:{port}\" }}, \
             {{ name: tls, address: \"127.0.0.1:0\", tls: {{ certificates: {certificates} }} }}]"
        ),
    );
    let mut process = Process::start(directory.path(), &text, |_| {});
    let mut said = String::new();
    process.log.read_to_string(&mut said).expect("the messages");
    assert_eq!(process.end(), Some(2), "{said}");
    assert!(said.contains("in use by another process"), "{said}");
    assert!(said.contains("no.crt holds no certificate"), "{said}");
}

#[test]
fn sighup_opens_a_new_listener_and_a_bad_file_changes_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let text = configuration(app(Duration::ZERO), "");
    let mut process = Process::start(directory.path(), &text, |_| {});
    let web = process.address("web");
    let more = text.replace("127.0.0.1:0\" }]", "127.0.0.1:0\" }, { name: more, address: \"127.0.0.2:0\" }]");
    std::fs::write(directory.path().join("outrigger.yaml"), more).expect("a file");
    process.signal(Signal::HUP);
    let new = process.address("more");
    assert!(get(&new).ends_with("ok") && get(&web).ends_with("ok"));
    std::fs::write(directory.path().join("outrigger.yaml"), "upstreem: x").expect("a file");
    process.signal(Signal::HUP);
    until(|| get(&new).ends_with("ok"));
    process.signal(Signal::INT);
    process.line("drain report");
    let refused =
        process.lines.iter().any(|line| line["message"].as_str().is_some_and(|text| text.contains("refused")));
    assert!(refused, "{:#?}", process.lines);
    assert_eq!(process.end(), Some(0));
}

#[test]
fn the_service_manager_hears_of_start_life_and_end() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("notify");
    let manager = UnixDatagram::bind(&path).expect("a socket");
    manager.set_read_timeout(Some(SOON)).expect("a timeout");
    let text = configuration(app(Duration::ZERO), "");
    let process = Process::start(directory.path(), &text, |command| {
        command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "100000");
    });
    let mut buffer = [0; 200];
    let mut hear = |start: &str| loop {
        let length = manager.recv(&mut buffer).expect("a message");
        if String::from_utf8_lossy(&buffer[..length]).starts_with(start) {
            return;
        }
    };
    hear("READY=1");
    hear("WATCHDOG=1");
    hear("WATCHDOG=1");
    process.signal(Signal::INT);
    hear("STOPPING=1");
    assert_eq!(process.end(), Some(0));
}

#[test]
fn a_wrapped_app_decides_readiness_and_the_exit_code() {
    let directory = tempfile::tempdir().expect("a directory");
    let gate = directory.path().join("go");
    let port = app(Duration::ZERO);
    // The port answers already, so that only the end is the shell's; it ends when told to by a file.
    let script = format!("while [ ! -e {} ]; do sleep 0.02; done; exit 7", gate.display());
    let mut process = Process::start(directory.path(), &configuration(port, ""), |command| {
        command.args(["--", "sh", "-c", &script]);
    });
    let ops = process.address("ops");
    until(|| get(&ops).starts_with("HTTP/1.1 200"));
    std::fs::write(gate, "").expect("a file");
    process.line("drain report");
    assert_eq!(process.end(), Some(7));
}
