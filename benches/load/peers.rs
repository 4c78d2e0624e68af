//! The proxies under test: started with a configuration of their own on free ports, on one processor.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::client::Target;
use super::files::{self, Site};
use super::process::{self, Cpu};
use super::scenario::{Scenario, Wire};

/// The processor the proxies run on; the load and the app have the others.
pub const PROCESSOR: usize = 0;

pub struct Peer {
    pub name: &'static str,
    pub version: String,
    /// Does what Outrigger does by default, as nearly as it can.
    pub policies: bool,
    site: Site,
    command: Vec<String>,
    output: PathBuf,
    child: Option<Child>,
}

/// Outrigger, and the peers whose programs are there and that are wanted.
pub fn found(scratch: &Path, app: u16, wanted: &dyn Fn(&str) -> bool) -> Vec<Peer> {
    let outrigger = PathBuf::from(env!("CARGO_BIN_EXE_outrigger"));
    let site = |name: &str| Site::new(scratch, name, app);
    let mut peers = Vec::new();
    for (name, policies) in [("outrigger bare", false), ("outrigger defaults", true)] {
        let site = site(name);
        let file = site.write("yaml", &files::outrigger(&site, policies));
        peers.push(peer(name, policies, &outrigger, "version", site, &["run", "-c", &file]));
    }
    if let Some(nginx) = program("BENCH_NGINX", "nginx") {
        for (name, policies) in [("nginx", false), ("nginx policies", true)] {
            let site = site(name);
            let file = site.write("conf", &files::nginx(&site, policies));
            let folder = site.folder.display().to_string();
            peers.push(peer(name, policies, &nginx, "-v", site, &["-c", &file, "-p", &folder]));
        }
    }
    if let Some(haproxy) = program("BENCH_HAPROXY", "haproxy") {
        for (name, policies) in [("haproxy", false), ("haproxy policies", true)] {
            let site = site(name);
            let file = site.write("cfg", &files::haproxy(&site, policies));
            peers.push(peer(name, policies, &haproxy, "-v", site, &["-db", "-f", &file]));
        }
    }
    if let Some(envoy) = program("BENCH_ENVOY", "envoy") {
        let site = site("envoy");
        let file = site.write("yaml", &files::envoy(&site));
        let id = site.plain.to_string();
        let arguments = ["--concurrency", "1", "-l", "error", "--base-id", &id, "-c", &file];
        peers.push(peer("envoy", false, &envoy, "--version", site, &arguments));
    }
    peers.retain(|peer| wanted(peer.name));
    peers
}

fn peer(name: &'static str, policies: bool, program: &Path, version: &str, site: Site, arguments: &[&str]) -> Peer {
    let said =
        Command::new(program).arg(version).output().map(|out| [out.stdout, out.stderr].concat()).unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    let version = said.lines().find(|line| !line.trim().is_empty()).unwrap_or("").trim().to_owned();
    let mut command = vec![program.display().to_string()];
    command.extend(arguments.iter().map(|argument| (*argument).to_owned()));
    let output = site.folder.join("output");
    Peer { name, version, policies, site, command, output, child: None }
}

impl Peer {
    /// Starts it and waits for its first answer through to the app; milliseconds.
    pub fn start(&mut self) -> f64 {
        let output = std::fs::File::create(&self.output).expect("a file in the scratch directory");
        let errors = output.try_clone().expect("a second handle");
        process::pin([PROCESSOR]);
        let began = Instant::now();
        let child = Command::new(&self.command[0])
            .args(&self.command[1..])
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .unwrap_or_else(|error| panic!("{} does not start: {error}", self.name));
        super::stay_off_the_proxy();
        self.child = Some(child);
        while !answers(self.site.plain) {
            if began.elapsed() > Duration::from_secs(10) {
                let said = std::fs::read_to_string(&self.output).unwrap_or_default();
                panic!("{} does not answer on {}:\n{said}", self.name, self.site.plain);
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        began.elapsed().as_secs_f64() * 1e3
    }

    pub fn stop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        // The parent first: one that is left would start its workers anew.
        let pids = process::family(child.id()).into_iter().map(|pid| pid.to_string());
        let _ = Command::new("kill").arg("-9").args(pids).status();
        let _ = child.wait();
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    pub fn cpu(&self) -> Cpu {
        process::cpu(self.pid())
    }

    pub fn resident_mib(&self) -> f64 {
        process::resident_mib(self.pid())
    }

    pub fn target(&self, scenario: &Scenario) -> Target {
        self.site.target(scenario.wire)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Site {
    fn target(&self, wire: Wire) -> Target {
        let (port, tls) = match wire {
            Wire::Plain => (self.plain, None),
            Wire::H2c => (self.h2c, None),
            Wire::Tls => (self.tls, Some(self.certificate.connector(&[b"http/1.1"]))),
            Wire::H2Tls => (self.tls, Some(self.certificate.connector(&[b"h2"]))),
        };
        Target { port, tls }
    }
}

fn answers(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return false };
    let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
    let asked = stream.write_all(b"GET /1k HTTP/1.1\r\nHost: bench.example\r\nConnection: close\r\n\r\n");
    let mut answer = [0; 12];
    asked.is_ok() && stream.read_exact(&mut answer).is_ok() && answer.starts_with(b"HTTP/1.1 200")
}

fn program(variable: &str, name: &str) -> Option<PathBuf> {
    if let Some(path) = std::env::var_os(variable) {
        return Some(PathBuf::from(path)).filter(|path| !path.as_os_str().is_empty());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).chain(["/usr/sbin".into()]).map(|folder| folder.join(name)).find(|file| file.is_file())
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port()
}
