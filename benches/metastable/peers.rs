//! The proxies under test, each with a configuration of its own, started on a free port on one processor.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::process;

pub struct Peer {
    pub name: &'static str,
    pub version: String,
    pub port: u16,
    command: Vec<String>,
    child: Option<Child>,
}

/// Outrigger, and the peers whose programs are there.
pub fn found(scratch: &Path, app: u16) -> Vec<Peer> {
    let outrigger = PathBuf::from(env!("CARGO_BIN_EXE_outrigger"));
    let mut peers = vec![
        outrigger_peer("outrigger bare", &outrigger, scratch, app, BARE),
        outrigger_peer("outrigger defaults", &outrigger, scratch, app, DEFAULTS),
    ];
    if let Some(nginx) = program("BENCH_NGINX", "nginx") {
        let port = free_port();
        let file = write(scratch, "nginx.conf", &nginx_file(port, app, scratch));
        peers.push(peer("nginx", &nginx, "-v", port, &["-c", &file, "-p", &text(scratch)]));
    }
    if let Some(haproxy) = program("BENCH_HAPROXY", "haproxy") {
        let port = free_port();
        let file = write(scratch, "haproxy.cfg", &haproxy_file(port, app));
        peers.push(peer("haproxy", &haproxy, "-v", port, &["-db", "-f", &file]));
    }
    if let Some(envoy) = program("BENCH_ENVOY", "envoy") {
        let port = free_port();
        let file = write(scratch, "envoy.yaml", &envoy_file(port, app));
        let arguments = ["--concurrency", "1", "-l", "error", "--base-id", &port.to_string(), "-c", &file];
        peers.push(peer("envoy", &envoy, "--version", port, &arguments));
    }
    peers
}

const BARE: &str =
    "retry: { attempts: 1 }\nsecurity_headers: { preset: off }\ntelemetry: { access_log: { to: off } }\n";
const DEFAULTS: &str = "telemetry: { access_log: { to: ACCESS } }\n";

fn outrigger_peer(name: &'static str, program: &Path, scratch: &Path, app: u16, policies: &str) -> Peer {
    let port = free_port();
    let (ops, admin) = (free_port(), free_port());
    let log = scratch.join(format!("{}.log", name.replace(' ', "-")));
    let file = format!(
        "upstream: http://127.0.0.1:{app}\nlisteners: [{{ name: web, address: \"127.0.0.1:{port}\", connections: {{ max: 20000 }} }}]\n\
         ops: {{ address: \"127.0.0.1:{ops}\" }}\nadmin: {{ address: \"127.0.0.1:{admin}\" }}\nworkers: 1\n{}",
        policies.replace("ACCESS", &text(&log))
    );
    let file = write(scratch, &format!("{}.yaml", name.replace(' ', "-")), &file);
    peer(name, program, "version", port, &["run", "-c", &file])
}

fn peer(name: &'static str, program: &Path, version: &str, port: u16, arguments: &[&str]) -> Peer {
    let said =
        Command::new(program).arg(version).output().map(|out| [out.stdout, out.stderr].concat()).unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    let mut command: Vec<String> = Vec::new();
    if program_on_path("taskset").is_some() {
        command.extend(["taskset", "-c", "0"].map(str::to_owned));
    }
    command.push(text(program));
    command.extend(arguments.iter().map(|argument| (*argument).to_owned()));
    let version = said.lines().find(|line| !line.trim().is_empty()).unwrap_or("").trim().to_owned();
    Peer { name, version, port, command, child: None }
}

impl Peer {
    /// Starts it and waits for its first answer; milliseconds.
    pub fn start(&mut self) -> f64 {
        let began = Instant::now();
        let child = Command::new(&self.command[0])
            .args(&self.command[1..])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{} does not start: {error}", self.name));
        self.child = Some(child);
        while !answers(self.port) {
            assert!(began.elapsed() < Duration::from_secs(10), "{} does not answer on {}", self.name, self.port);
            std::thread::sleep(Duration::from_millis(1));
        }
        began.elapsed().as_secs_f64() * 1e3
    }

    fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    pub fn cpu(&self) -> Duration {
        process::cpu(self.pid()).total
    }

    pub fn resident_mib(&self) -> f64 {
        process::resident_mib(self.pid())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            for pid in process::family(child.id()).into_iter().rev() {
                let _ = Command::new("kill").args(["-9", &pid.to_string()]).status();
            }
            let _ = child.wait();
        }
    }
}

fn answers(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return false };
    let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
    let asked = stream.write_all(b"GET / HTTP/1.1\r\nHost: bench.example\r\nConnection: close\r\n\r\n");
    let mut answer = [0; 12];
    asked.is_ok() && stream.read_exact(&mut answer).is_ok() && answer.starts_with(b"HTTP/1.1 200")
}

fn program(variable: &str, name: &str) -> Option<PathBuf> {
    match std::env::var_os(variable) {
        Some(path) => Some(PathBuf::from(path)),
        None => program_on_path(name),
    }
}

fn program_on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).chain(["/usr/sbin".into()]).map(|folder| folder.join(name)).find(|file| file.is_file())
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port()
}

fn write(scratch: &Path, name: &str, content: &str) -> String {
    let file = scratch.join(name);
    std::fs::write(&file, content).expect("a file in the scratch directory");
    text(&file)
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn nginx_file(port: u16, app: u16, scratch: &Path) -> String {
    let scratch = scratch.display();
    format!(
        "daemon off; worker_processes 1; pid {scratch}/nginx.pid; error_log {scratch}/nginx.error crit; worker_rlimit_nofile 65000;\n\
         events {{ worker_connections 30000; }}\n\
         http {{ access_log off; keepalive_requests 100000000; keepalive_timeout 300s;\n\
         client_body_temp_path {scratch}/b; proxy_temp_path {scratch}/p; fastcgi_temp_path {scratch}/f; uwsgi_temp_path {scratch}/u; scgi_temp_path {scratch}/s;\n\
         upstream app {{ server 127.0.0.1:{app}; keepalive 128; keepalive_requests 100000000; }}\n\
         server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_set_header Host $host; }} }} }}\n"
    )
}

fn haproxy_file(port: u16, app: u16) -> String {
    format!(
        "global\n  nbthread 1\n  no strict-limits\n  maxconn 30000\ndefaults\n  mode http\n  timeout connect 1s\n  timeout client 300s\n  timeout server 300s\n\
         frontend in\n  bind 127.0.0.1:{port}\n  default_backend app\nbackend app\n  http-reuse always\n  server app 127.0.0.1:{app}\n"
    )
}

fn envoy_file(port: u16, app: u16) -> String {
    format!(
        "static_resources:\n  listeners:\n  - address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }}\n    filter_chains:\n    - filters:\n\
         \x20     - name: envoy.filters.network.http_connection_manager\n        typed_config:\n\
         \x20         \"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager\n\
         \x20         stat_prefix: in\n          http_filters: [{{ name: envoy.filters.http.router, typed_config: {{ \"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }} }}]\n\
         \x20         route_config: {{ virtual_hosts: [{{ name: all, domains: [\"*\"], routes: [{{ match: {{ prefix: / }}, route: {{ cluster: app }} }}] }}] }}\n\
         \x20 clusters:\n  - {{ name: app, connect_timeout: 1s, load_assignment: {{ cluster_name: app, endpoints: [{{ lb_endpoints: [{{ endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {app} }} }} }} }}] }}] }} }}\n"
    )
}
