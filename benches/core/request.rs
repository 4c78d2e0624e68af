//! A whole request through the program itself, in instructions outside the kernel and in allocations: HTTP/1.1
//! keep-alive, 1 KB. Counted twice: on many connections at a time, as under load, where one wake-up of the worker
//! serves several requests; and alone, one after the other on one connection, where every step is a wake-up.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use super::plain_app::{BODY, app};
use super::ports::free_port;
use super::valgrind::{self, Counts};

const REQUESTS: [u64; 2] = [1_024, 5_120];
const CONNECTIONS: [u64; 2] = [64, 1];
const REQUEST: &[u8] = b"GET /1k HTTP/1.1\r\nHost: bench.example\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n";
/// Under valgrind everything is slow.
const SOON: Duration = Duration::from_secs(120);

/// What the request goes through.
#[derive(Clone, Copy)]
pub enum Through {
    Bare,
    Defaults,
    Policies,
    Nginx,
}

const ALL: [Through; 4] = [Through::Bare, Through::Defaults, Through::Policies, Through::Nginx];

/// Each that is wanted and can be counted. What is not there or does not run under valgrind is left out.
pub fn counted(wanted: &dyn Fn(&str) -> bool) -> Vec<(String, f64)> {
    let (mut instructions, mut allocations) = (Vec::new(), Vec::new());
    for (connections, how) in CONNECTIONS.into_iter().zip(["", " alone"]) {
        for through in ALL {
            let names = [format!("request{how}, {}", through.name()), format!("allocations{how}, {}", through.name())];
            if !names.iter().any(|name| wanted(name)) {
                continue;
            }
            let [request, allocation] = names;
            if let Some(each) = each(through, connections) {
                instructions.push((request, each.instructions));
                allocations.push((allocation, each.allocations));
            }
        }
    }
    instructions.append(&mut allocations);
    instructions
}

fn each(through: Through, connections: u64) -> Option<Counts> {
    let app = app();
    let [few, many] = REQUESTS.map(|requests| through.run(app, connections, requests));
    let (few, many, requests) = (few?, many?, (REQUESTS[1] - REQUESTS[0]) as f64);
    Some(Counts {
        instructions: (many.instructions - few.instructions) / requests,
        allocations: (many.allocations - few.allocations) / requests,
    })
}

impl Through {
    fn name(self) -> &'static str {
        match self {
            Through::Bare => "bare",
            Through::Defaults => "defaults and access log",
            Through::Policies => "all policies",
            Through::Nginx => "nginx, bare",
        }
    }

    fn run(self, app: u16, connections: u64, requests: u64) -> Option<Counts> {
        let folder = tempfile::tempdir().expect("a scratch directory");
        let port = free_port();
        let command = match self {
            Through::Bare | Through::Defaults | Through::Policies => self.outrigger(folder.path(), app, port),
            Through::Nginx => nginx(folder.path(), app, port)?,
        };
        let mut child = valgrind::command(folder.path())
            .args(command)
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(folder.path().join("said")).expect("a file"))
            .spawn()
            .expect("valgrind starts");
        let asked = ask(&mut child, port, connections, requests);
        stop(&mut child);
        if asked.is_none() {
            let said = std::fs::read_to_string(folder.path().join("said")).unwrap_or_default();
            eprintln!("not counted: the requests were not answered under valgrind\n{said}");
        }
        asked.map(|()| valgrind::counts(folder.path()))
    }

    fn outrigger(self, folder: &Path, app: u16, port: u16) -> Vec<String> {
        let [ops, admin] = [free_port(), free_port()];
        std::fs::create_dir(folder.join("log")).expect("a folder");
        let log = format!("telemetry: {{ access_log: {{ to: {}/log/access.log }} }}\n", folder.display());
        let rest = match self {
            Through::Bare | Through::Nginx => {
                "retry: { attempts: 1 }\nsecurity_headers: { preset: off }\ntelemetry: { access_log: { to: off } }\n"
                    .to_owned()
            }
            Through::Defaults => log,
            Through::Policies => format!(
                "{log}security_headers: {{ preset: strict }}\n\
                 rate_limits: {{ per-client: {{ rate: 1000000/s, burst: 1000000 }} }}\n\
                 routes: [{{ name: all, match: {{ path: \"/*\" }}, upstream: app, rate_limits: [per-client] }}]\n"
            ),
        };
        let text = format!(
            "upstreams: {{ app: {{ endpoints: [\"http://127.0.0.1:{app}\"], pool: {{ idle_max: 128 }} }} }}\nworkers: 1\n\
             drain: {{ delay: 0s, timeout: 1s }}\n\
             listeners: [{{ name: web, address: \"127.0.0.1:{port}\" }}]\n\
             ops: {{ address: \"127.0.0.1:{ops}\" }}\nadmin: {{ address: \"127.0.0.1:{admin}\" }}\n{rest}"
        );
        let program = std::env::var("BENCH_OUTRIGGER").unwrap_or(env!("CARGO_BIN_EXE_outrigger").to_owned());
        vec![program, "run".to_owned(), "-c".to_owned(), file(folder, &text)]
    }
}

fn nginx(folder: &Path, app: u16, port: u16) -> Option<Vec<String>> {
    let program = std::env::var("BENCH_NGINX").unwrap_or("/usr/sbin/nginx".to_owned());
    if !Path::new(&program).is_file() {
        return None;
    }
    let folder_named = folder.display();
    let text = format!(
        "daemon off; master_process off; pid {folder_named}/nginx.pid; error_log {folder_named}/error.log crit;\n\
         events {{ worker_connections 1000; }}\n\
         http {{ keepalive_requests 100000; access_log off; client_body_temp_path {folder_named}/b; proxy_temp_path {folder_named}/p;\n\
         fastcgi_temp_path {folder_named}/f; uwsgi_temp_path {folder_named}/u; scgi_temp_path {folder_named}/s;\n\
         proxy_set_header Connection \"\"; proxy_set_header Host $host; proxy_http_version 1.1;\n\
         upstream app {{ server 127.0.0.1:{app}; keepalive 128; keepalive_requests 100000; }}\n\
         server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://app; }} }} }}\n"
    );
    Some(vec![program, "-c".to_owned(), file(folder, &text), "-p".to_owned(), folder_named.to_string()])
}

fn file(folder: &Path, text: &str) -> String {
    let file = folder.join("configuration");
    std::fs::write(&file, text).expect("a file");
    file.display().to_string()
}

/// In waves: one request on each connection, then all the answers.
fn ask(child: &mut Child, port: u16, connections: u64, requests: u64) -> Option<()> {
    let mut streams = Vec::new();
    for _ in 0..connections {
        streams.push(connect(child, port)?);
    }
    for _ in 0..requests / connections {
        for stream in &mut streams {
            stream.write_all(REQUEST).ok()?;
        }
        for stream in &mut streams {
            answered(stream)?;
        }
    }
    Some(())
}

/// None unless the whole answer comes, and is good.
fn answered(stream: &mut TcpStream) -> Option<()> {
    let mut buffer = [0; 8192];
    let mut filled = 0;
    loop {
        filled += stream.read(&mut buffer[filled..]).ok().filter(|read| *read > 0)?;
        let head = buffer[..filled].windows(4).position(|window| window == b"\r\n\r\n");
        if head.is_some_and(|head| filled >= head + 4 + BODY) {
            return buffer.starts_with(b"HTTP/1.1 200").then_some(());
        }
    }
}

fn connect(child: &mut Child, port: u16) -> Option<TcpStream> {
    let until = Instant::now() + SOON;
    while Instant::now() < until && matches!(child.try_wait(), Ok(None)) {
        if let Ok(stream) = TcpStream::connect(("127.0.0.1", port)) {
            stream.set_read_timeout(Some(SOON)).ok()?;
            return Some(stream);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    None
}

fn stop(child: &mut Child) {
    let pid = rustix::process::Pid::from_child(child);
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    let _ = child.wait();
}
