//! The proxies under test: started with a configuration of their own on free ports, on one processor.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::client::Target;
use super::files::{self, Site};
use super::process::{self, Cpu};
use super::scenario::{Kind, Scenario, Wire};

/// The processor the proxies run on; the load and the app have the others.
pub const PROCESSOR: usize = 0;

/// A proxy that has not stopped in order by then is killed.
const STOP_MAX: Duration = Duration::from_secs(5);

pub struct Peer {
    pub program: &'static str,
    /// Its place in the tables.
    pub number: usize,
    /// The program and the kind.
    pub name: String,
    pub kind: Kind,
    pub version: String,
    without: &'static [&'static str],
    site: Site,
    command: Vec<String>,
    output: PathBuf,
    child: Option<Child>,
}

/// One program under test, and how it is told what to do.
struct Program {
    name: &'static str,
    /// Names the program by a path.
    variable: &'static str,
    version: &'static str,
    kinds: &'static [Kind],
    extension: &'static str,
    configuration: fn(&Site, Kind) -> String,
    /// Names of scenarios that it has no means for.
    without: &'static [&'static str],
    /// `FILE` and `FOLDER` stand for its own.
    arguments: &'static [&'static str],
}

const OTHERS: &[Kind] = &[Kind::Bare, Kind::Policies, Kind::Routes, Kind::Grpc];
const PROGRAMS: [Program; 6] = [
    Program {
        name: "outrigger",
        variable: "BENCH_OUTRIGGER",
        version: "version",
        kinds: &[Kind::Bare, Kind::Defaults, Kind::Policies, Kind::Routes, Kind::Grpc, Kind::TwoWorkers],
        extension: "yaml",
        configuration: files::outrigger,
        without: &[],
        arguments: &["run", "-c", "FILE"],
    },
    Program {
        name: "nginx",
        variable: "BENCH_NGINX",
        version: "-v",
        kinds: OTHERS,
        extension: "conf",
        configuration: files::nginx,
        without: &[],
        arguments: &["-c", "FILE", "-p", "FOLDER"],
    },
    Program {
        name: "haproxy",
        variable: "BENCH_HAPROXY",
        version: "-v",
        kinds: OTHERS,
        extension: "cfg",
        configuration: files::haproxy,
        without: &[],
        arguments: &["-db", "-f", "FILE"],
    },
    Program {
        name: "envoy",
        variable: "BENCH_ENVOY",
        version: "--version",
        kinds: OTHERS,
        extension: "yaml",
        configuration: files::envoy,
        without: &[],
        arguments: &["--concurrency", "1", "-l", "error", "--disable-hot-restart", "-c", "FILE"],
    },
    // Routes are up to the program around it.
    Program {
        name: "pingora",
        variable: "BENCH_PINGORA",
        version: "--version",
        kinds: &[Kind::Bare, Kind::Policies, Kind::Grpc],
        extension: "settings",
        configuration: files::pingora,
        without: &["routes"],
        arguments: &["FILE"],
    },
    // HTTP/2 only by ALPN.
    Program {
        name: "sozu",
        variable: "BENCH_SOZU",
        version: "--version",
        kinds: &[Kind::Bare, Kind::Policies, Kind::Routes],
        extension: "toml",
        configuration: files::sozu,
        without: &["h2c", "grpc"],
        arguments: &["start", "-c", "FILE"],
    },
];

/// Ports of what is behind the proxies.
#[derive(Clone, Copy)]
pub struct Apps {
    pub http1: u16,
    pub grpc: u16,
}

impl Apps {
    fn of(self, kind: Kind) -> u16 {
        match kind {
            Kind::Bare | Kind::Defaults | Kind::Policies | Kind::Routes | Kind::TwoWorkers => self.http1,
            Kind::Grpc => self.grpc,
        }
    }
}

/// Outrigger, and the peers whose programs are there, in the kinds that `wanted` asks for.
pub fn found(scratch: &Path, apps: Apps, wanted: &dyn Fn(&str, Kind) -> bool) -> Vec<Peer> {
    let mut peers = Vec::new();
    for program in &PROGRAMS {
        let kinds: Vec<Kind> = program.kinds.iter().copied().filter(|kind| wanted(program.name, *kind)).collect();
        if kinds.is_empty() {
            continue;
        }
        match place(program) {
            Some(place) => {
                peers.extend(kinds.into_iter().map(|kind| peer(program, &place, kind, scratch, apps.of(kind))))
            }
            None => println!("skipped: {} not installed ({} names its path)", program.name, program.variable),
        }
    }
    peers.iter_mut().enumerate().for_each(|(number, peer)| peer.number = number);
    peers
}

fn place(program: &Program) -> Option<PathBuf> {
    if let Some(path) = std::env::var_os(program.variable) {
        return Some(PathBuf::from(path)).filter(|path| path.is_file());
    }
    if program.name == "outrigger" {
        return Some(PathBuf::from(env!("CARGO_BIN_EXE_outrigger")));
    }
    let path = std::env::var_os("PATH")?;
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into()]);
    folders.map(|folder| folder.join(program.name)).find(|file| file.is_file())
}

fn peer(program: &Program, place: &Path, kind: Kind, scratch: &Path, app: u16) -> Peer {
    let said = Command::new(place).arg(program.version).output();
    let said = said.map(|out| [out.stdout, out.stderr].concat()).unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    let line = said.lines().find(|line| !line.trim().is_empty()).unwrap_or("").trim();
    // Some say the path they were started by first.
    let version = line.split_once("version: ").map_or(line, |(_, version)| version).to_owned();
    let name = format!("{} {}", program.name, kind.name());
    let site = Site::new(scratch, &name, app);
    let file = site.write(program.extension, &(program.configuration)(&site, kind));
    let folder = site.folder.display().to_string();
    let arguments = program.arguments.iter().map(|argument| match *argument {
        "FILE" => file.clone(),
        "FOLDER" => folder.clone(),
        other => other.to_owned(),
    });
    let command = std::iter::once(place.display().to_string()).chain(arguments).collect();
    let output = site.folder.join("output");
    let Program { name: program, without, .. } = *program;
    Peer { number: 0, program, name, kind, version, without, site, command, output, child: None }
}

impl Peer {
    /// Starts it and waits for its first answer through to the app; milliseconds until then, and of processor time.
    pub fn start(&mut self) -> (f64, f64) {
        let output = std::fs::File::create(&self.output).expect("a file in the scratch directory");
        let errors = output.try_clone().expect("a second handle");
        if self.kind == Kind::TwoWorkers {
            process::pin(0..super::processors());
        } else {
            process::pin([PROCESSOR]);
        }
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
        (began.elapsed().as_secs_f64() * 1e3, self.cpu().total.as_secs_f64() * 1e3)
    }

    pub fn stop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        // In order first: a build that takes notes (scripts/release.sh) writes them at its end.
        let _ = Command::new("kill").arg(child.id().to_string()).status();
        let began = Instant::now();
        while began.elapsed() < STOP_MAX {
            if matches!(child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
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

    /// Whether the scenario is for its kind of configuration, and within its means.
    pub fn has(&self, scenario: &Scenario) -> bool {
        scenario.kinds.contains(&self.kind) && !self.without.contains(&scenario.name)
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
            Wire::Plain | Wire::WebSocket => (self.plain, None),
            Wire::H2c | Wire::Grpc => (self.h2c, None),
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
