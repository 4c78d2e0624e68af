//! A whole request through the program itself, in instructions outside the kernel: HTTP/1.1 keep-alive, 1 KB, one
//! after the other on one connection.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

const REQUESTS: [u64; 2] = [1_000, 4_000];
const REQUEST: &[u8] = b"GET /1k HTTP/1.1\r\nHost: bench.example\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n";
const BODY: usize = 1024;
/// Under valgrind everything is slow.
const SOON: Duration = Duration::from_secs(120);

pub fn name(policies: bool) -> &'static str {
    if policies { "request, defaults and access log" } else { "request, bare" }
}

/// None where the program does not run under valgrind.
pub fn instructions_each(policies: bool) -> Option<f64> {
    let app = app();
    let [few, many] = REQUESTS.map(|requests| run(app, policies, requests));
    Some((many? - few?) / (REQUESTS[1] - REQUESTS[0]) as f64)
}

fn run(app: u16, policies: bool, requests: u64) -> Option<f64> {
    let folder = tempfile::tempdir().expect("a scratch directory");
    let [port, ops, admin] = [free_port(), free_port(), free_port()];
    let rest = if policies {
        format!("telemetry: {{ access_log: {{ to: {}/log/access.log }} }}\n", folder.path().display())
    } else {
        "retry: { attempts: 1 }\nsecurity_headers: { preset: off }\ntelemetry: { access_log: { to: off } }\n".to_owned()
    };
    std::fs::create_dir(folder.path().join("log")).expect("a folder");
    let file = folder.path().join("outrigger.yaml");
    let text = format!(
        "upstream: http://127.0.0.1:{app}\nworkers: 1\ndrain: {{ delay: 0s, timeout: 1s }}\n\
         listeners: [{{ name: web, address: \"127.0.0.1:{port}\" }}]\n\
         ops: {{ address: \"127.0.0.1:{ops}\" }}\nadmin: {{ address: \"127.0.0.1:{admin}\" }}\n{rest}"
    );
    std::fs::write(&file, text).expect("a file");
    let mut child = super::callgrind()
        .arg(env!("CARGO_BIN_EXE_outrigger"))
        .args(["run", "-c"])
        .arg(&file)
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(folder.path().join("said")).expect("a file"))
        .spawn()
        .expect("valgrind starts");
    let asked = ask(port, requests);
    stop(&mut child);
    let said = std::fs::read_to_string(folder.path().join("said")).unwrap_or_default();
    if asked.is_none() {
        eprintln!("not counted: the requests were not answered under valgrind\n{said}");
    }
    asked.map(|()| super::collected(&said))
}

fn ask(port: u16, requests: u64) -> Option<()> {
    let mut stream = connect(port)?;
    let mut buffer = vec![0; 8192];
    for _ in 0..requests {
        stream.write_all(REQUEST).ok()?;
        let mut filled = 0;
        loop {
            let read = stream.read(&mut buffer[filled..]).ok().filter(|read| *read > 0)?;
            filled += read;
            let head = buffer[..filled].windows(4).position(|window| window == b"\r\n\r\n");
            if head.is_some_and(|head| filled >= head + 4 + BODY) {
                break;
            }
        }
        if !buffer.starts_with(b"HTTP/1.1 200") {
            return None;
        }
    }
    Some(())
}

fn connect(port: u16) -> Option<TcpStream> {
    let until = Instant::now() + SOON;
    while Instant::now() < until {
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

/// 1 KB at once on every connection.
fn app() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {BODY}\r\n\r\n{}", "x".repeat(BODY));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = answer.clone();
            std::thread::spawn(move || answer_all(stream, answer.as_bytes()));
        }
    });
    port
}

/// A request without a body comes in one piece from the proxy.
fn answer_all(mut stream: TcpStream, answer: &[u8]) {
    let mut buffer = [0; 8192];
    let mut filled = 0;
    while let Ok(read @ 1..) = stream.read(&mut buffer[filled..]) {
        filled += read;
        if buffer[..filled].ends_with(b"\r\n\r\n") {
            filled = 0;
            if stream.write_all(answer).is_err() {
                return;
            }
        }
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port()
}
