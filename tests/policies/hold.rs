//! Requests that wait for an app which does not listen.

use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{Outrigger, RawApp, config, eventually, wire};

/// An address where nobody listens yet, which nobody else is given.
fn reserved() -> (SocketAddr, socket2::Socket) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().expect("an address").into()).expect("bind");
    (socket.local_addr().expect("its address").as_socket().expect("IPv4"), socket)
}

fn listen(socket: socket2::Socket) -> RawApp {
    socket.listen(128).expect("listen");
    RawApp::on(
        TcpListener::from(socket),
        |mut conn| {
            while conn.request().is_some() && conn.send(crate::support::app::OK) {}
        },
    )
}

fn before(address: SocketAddr, hold: &str) -> Outrigger {
    let upstreams = format!("upstreams: {{ app: {{ endpoints: [\"http://{address}\"], hold: {{ {hold} }} }} }}\n");
    Outrigger::run(config("", &upstreams))
}

fn post(address: SocketAddr) -> crate::support::Response {
    wire::ask(address, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello")
}

#[test]
fn requests_of_every_method_wait_for_the_app_and_reach_it_once() {
    let (address, socket) = reserved();
    let outrigger = before(address, "wait_max: 10s");
    let web = outrigger.web();
    let waiting = [thread::spawn(move || wire::get(web, "/")), thread::spawn(move || post(web))];
    eventually("two wait", || (outrigger.metric("outrigger_hold_waiting", "app") == 2.0).then_some(()));
    let app = listen(socket);
    for asked in waiting {
        let answer = asked.join().expect("an answer");
        assert_eq!(answer.status, 200);
        let told = outrigger.why_told(&answer);
        let held = told.lines().any(|line| line.starts_with("note: held for ") && line.ends_with("app did not listen"));
        assert!(held, "{told}");
    }
    assert_eq!(app.requests().len(), 2);
    assert_eq!(outrigger.metric("outrigger_hold_requests_total", "result=\"resumed\""), 2.0);
    assert_eq!(outrigger.metric("outrigger_hold_waiting", "app"), 0.0);
    let status = outrigger.status();
    assert_eq!(status["upstreams"][0]["endpoints"][0]["breaker"], "closed");
    let kinds: Vec<_> = status["events"].as_array().expect("events").iter().map(|event| &event["kind"]).collect();
    assert!(!kinds.iter().any(|kind| *kind == "breaker") && kinds.iter().any(|kind| *kind == "hold"), "{kinds:?}");
}

#[test]
fn an_app_that_is_away_for_longer_is_refused_at_once_until_it_is_back() {
    let (address, socket) = reserved();
    let outrigger = before(address, "wait_max: 300ms");
    let answer = wire::get(outrigger.web(), "/");
    assert_eq!((answer.status, answer.reason().as_str()), (502, "connect_refused"));
    let told = outrigger.why_told(&answer);
    assert!(told.contains("\nnote: app does not listen: held in vain for "), "{told}");
    let began = Instant::now();
    for _ in 0..10 {
        assert_eq!(post(outrigger.web()).reason(), "connect_refused");
    }
    assert!(began.elapsed() < Duration::from_millis(1500), "{:?}", began.elapsed());
    assert!(outrigger.metric("outrigger_hold_requests_total", "result=\"refused\"") >= 10.0);
    assert_eq!(outrigger.metric("outrigger_hold_requests_total", "result=\"expired\""), 1.0);
    let _app = listen(socket);
    eventually("it is back", || (wire::get(outrigger.web(), "/").status == 200).then_some(()));
}

#[test]
fn a_unix_socket_that_is_missing_is_an_app_that_does_not_listen() {
    let directory = tempfile::tempdir().expect("a directory");
    let socket = directory.path().join("app.sock");
    for hold in ["wait_max: 100ms", "wait_max: 0s"] {
        let upstreams =
            format!("upstreams: {{ app: {{ endpoints: [\"unix:{}\"], hold: {{ {hold} }} }} }}\n", socket.display());
        let outrigger = Outrigger::run(config("", &upstreams));
        for which in ["first", "second"] {
            let answer = wire::get(outrigger.web(), "/");
            assert_eq!((answer.status, answer.reason().as_str()), (502, "connect_refused"), "{hold}: the {which}");
        }
    }
}

#[test]
fn a_request_waits_no_longer_than_its_deadline() {
    let (address, _socket) = reserved();
    let outrigger = before(address, "wait_max: 60s");
    let began = Instant::now();
    let answer = wire::ask(outrigger.web(), "GET / HTTP/1.1\r\nHost: a\r\nx-request-timeout-ms: 200\r\n\r\n");
    assert_eq!(answer.reason(), "connect_refused");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[test]
fn no_more_wait_than_may() {
    let (address, socket) = reserved();
    let outrigger = before(address, "wait_max: 10s, requests_max: 1");
    let web = outrigger.web();
    let waiting = thread::spawn(move || wire::get(web, "/"));
    eventually("one waits", || (outrigger.metric("outrigger_hold_waiting", "app") == 1.0).then_some(()));
    assert_eq!(wire::get(web, "/").reason(), "connect_refused");
    let _app = listen(socket);
    assert_eq!(waiting.join().expect("an answer").status, 200);
}

/// Python's own threaded server, with a keep-alive it ends at will.
const PYTHON: &str = "
import http.server, sys
class App(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def do_GET(self):
        self.send_response(200); self.send_header('content-length', '2'); self.end_headers(); self.wfile.write(b'ok')
    def do_POST(self):
        self.rfile.read(int(self.headers['content-length'])); self.do_GET()
    def log_message(self, *args): pass
class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 1024
    daemon_threads = True
Server(('127.0.0.1', int(sys.argv[1])), App).serve_forever()
";
const NODE: &str = "
require('http').createServer((req, res) => { req.resume(); req.on('end', () => res.end('ok')) })
  .listen(+process.argv[1], '127.0.0.1');
";

struct App(Child);

impl App {
    fn start(command: &[&str], port: u16) -> App {
        let mut child = Command::new(command[0]);
        child.args(&command[1..]).arg(port.to_string()).stdin(Stdio::null());
        App(child.spawn().expect("the app starts"))
    }
}

impl Drop for App {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Four clients ask without pause while the app is killed, stays away for `away` and comes back.
fn restart(command: &[&str], away: Duration) {
    if Command::new(command[0]).arg("--version").output().is_err() {
        println!("skipped: {} not installed", command[0]);
        return;
    }
    let (address, socket) = reserved();
    drop(socket); // from here on the port is the app's, also while it is away
    let app = App::start(command, address.port());
    let outrigger = before(address, "wait_max: 8s");
    assert_eq!(wire::get(outrigger.web(), "/").status, 200);
    let stop = Arc::new(AtomicBool::new(false));
    let asked = Arc::new(AtomicUsize::new(0));
    let web = outrigger.web();
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (stop, asked) = (Arc::clone(&stop), Arc::clone(&asked));
            thread::spawn(move || {
                let (mut failed, mut slowest) = (Vec::new(), Duration::ZERO);
                while !stop.load(Ordering::SeqCst) {
                    let began = Instant::now();
                    let answer = wire::get(web, "/");
                    if answer.status != 200 {
                        failed.push((answer.status, answer.reason()));
                    }
                    slowest = slowest.max(began.elapsed());
                    asked.fetch_add(1, Ordering::SeqCst);
                }
                (failed, slowest)
            })
        })
        .collect();
    let reach = |count: usize| eventually("requests", || (asked.load(Ordering::SeqCst) >= count).then_some(()));
    reach(100);
    drop(app);
    eventually("they wait", || (outrigger.metric("outrigger_hold_waiting", "app") == 4.0).then_some(()));
    thread::sleep(away);
    let _app = App::start(command, address.port());
    reach(asked.load(Ordering::SeqCst) + 100);
    stop.store(true, Ordering::SeqCst);
    let results: Vec<_> = clients.into_iter().map(|client| client.join().expect("a client")).collect();
    let failed: Vec<_> = results.iter().flat_map(|(failed, _)| failed).collect();
    let slowest = results.iter().map(|(_, slowest)| *slowest).max().unwrap_or_default();
    println!("{}: {} requests, {} failed, slowest {slowest:?}", command[0], asked.load(Ordering::SeqCst), failed.len());
    assert!(failed.is_empty(), "{failed:?}\n{}", outrigger.stderr());
    assert!(slowest >= away, "nobody waited");
}

#[test]
fn a_python_app_that_restarts_costs_latency_and_no_errors() {
    restart(&["python3", "-c", PYTHON], Duration::from_secs(1));
}

#[test]
fn a_node_app_that_restarts_costs_latency_and_no_errors() {
    restart(&["node", "-e", NODE, "--"], Duration::from_secs(1));
}
