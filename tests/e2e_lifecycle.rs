//! Nothing is lost when it is reloaded or stopped. Goal: under a mixed load, reloads (broken ones too), a certificate
//! swap and SIGTERM cost no request, no WebSocket and no handshake. Method: the real binary between an app and a
//! client made here, both on plain sockets; every answer is checked, and the drain's report is compared with what the
//! client counted.
#![allow(clippy::disallowed_methods)]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

const SOON: Duration = Duration::from_secs(20);
/// Requests a second of the load, open loop.
const RATE: u64 = 1000;

/// An app: `/fast` at once, `/slow` after 100 ms, `/stream` in pieces, and an echo after an upgrade.
async fn app() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    port
}

async fn serve(mut stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let mut buffer = Vec::new();
    loop {
        let Some(head) = read_head(&mut stream, &mut buffer).await else { return };
        let answered = if head.to_ascii_lowercase().contains("upgrade: websocket") {
            let switched = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
            if stream.write_all(switched).await.is_err() {
                return;
            }
            return echo(stream).await;
        } else if head.starts_with("GET /stream") {
            let mut sent = stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
            for _ in 0..5 {
                tokio::time::sleep(Duration::from_millis(20)).await;
                sent = sent.and(stream.write_all(b"5\r\nhello\r\n").await);
            }
            sent.and(stream.write_all(b"0\r\n\r\n").await)
        } else {
            if head.starts_with("GET /slow") {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 25\r\n\r\nhellohellohellohellohello").await
        };
        if answered.is_err() {
            return;
        }
    }
}

async fn echo(mut stream: TcpStream) {
    let mut buffer = [0; 1024];
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        // A client's frames are masked, with a key of zero here: unmasked they are the same with one bit less.
        let mut frame = buffer[..count].to_vec();
        if count >= 6 {
            frame[1] &= 0x7f;
            frame.drain(2..6);
        }
        if stream.write_all(&frame).await.is_err() {
            return;
        }
    }
}

async fn read_head(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<String> {
    loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            let head: Vec<u8> = buffer.drain(..end + 4).collect();
            return String::from_utf8(head).ok();
        }
        match stream.read_buf(buffer).await {
            Ok(1..) => {}
            Ok(0) | Err(_) => return None,
        }
    }
}

/// The running binary and what it has said.
struct Outrigger {
    child: Child,
    web: u16,
    admin: String,
    file: PathBuf,
    said: Arc<Mutex<Vec<String>>>,
    _folder: tempfile::TempDir,
}

impl Outrigger {
    fn start(app: u16, extra: &str, files: impl Fn(&Path)) -> Outrigger {
        let folder = tempfile::tempdir().unwrap();
        files(folder.path());
        let file = folder.path().join("outrigger.yaml");
        std::fs::write(&file, configuration(app, extra)).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_outrigger"))
            .args(["run", "-c"])
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = Arc::new(Mutex::new(Vec::new()));
        let (lines, (sender, receiver)) = (said.clone(), mpsc::channel());
        let errors = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in errors.lines().map_while(Result::ok) {
                lines.lock().unwrap().push(line.clone());
                let _ = sender.send(line);
            }
        });
        let mut addresses = std::collections::HashMap::new();
        let until = Instant::now() + SOON;
        while addresses.len() < 3 {
            let line = receiver.recv_timeout(until.saturating_duration_since(Instant::now())).expect("three listeners");
            let value: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
            if value["message"] == "listening" {
                let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
                addresses.insert(text("listener"), text("address"));
            }
        }
        let web = addresses["web"].rsplit(':').next().unwrap().parse().unwrap();
        Outrigger { child, web, admin: addresses["admin"].clone(), file, said, _folder: folder }
    }

    fn reload(&self) -> bool {
        let reload = Command::new(env!("CARGO_BIN_EXE_outrigger")).args(["reload", "--admin", &self.admin]).output();
        reload.unwrap().status.success()
    }

    fn terminate(&self) {
        let killed = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(killed.success());
    }

    fn wait(&mut self) -> i32 {
        let until = Instant::now() + 2 * SOON;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().unwrap_or(-1);
            }
            assert!(Instant::now() < until, "it does not end: {:?}", self.said.lock().unwrap());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn report(&self) -> serde_json::Value {
        let said = self.said.lock().unwrap();
        let mut values = said.iter().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        values.find(|value| value["message"] == "drain report").expect("a drain report")
    }
}

impl Drop for Outrigger {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn configuration(app: u16, extra: &str) -> String {
    format!(
        "upstream: http://127.0.0.1:{app}\nops: {{ address: \"127.0.0.1:0\" }}\nadmin: {{ address: \"127.0.0.1:0\" }}\n\
         telemetry: {{ access_log: {{ to: off }} }}\ndrain: {{ delay: 500ms, timeout: 10s }}\n{}",
        if extra.is_empty() { "listeners: [{ name: web, address: \"127.0.0.1:0\" }]\n" } else { extra }
    )
}

/// What the load saw.
#[derive(Default)]
struct Seen {
    good: AtomicU64,
    failed: Mutex<Vec<String>>,
    /// No new request is sent, and open connections are closed when they are idle.
    stop: AtomicBool,
}

impl Seen {
    fn fail(&self, what: &str) {
        self.failed.lock().unwrap().push(what.to_owned());
    }

    fn good(&self) -> u64 {
        self.good.load(Ordering::Relaxed)
    }
}

/// One answer, whole; whether the connection may be used again.
async fn ask(stream: &mut TcpStream, path: &str) -> Result<bool, String> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: a.example\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(|error| format!("{path}: not sent: {error}"))?;
    let mut buffer = Vec::new();
    let head = read_head(stream, &mut buffer).await.ok_or(format!("{path}: no answer"))?;
    if !head.starts_with("HTTP/1.1 200") {
        return Err(format!("{path}: {}", head.lines().next().unwrap_or_default()));
    }
    let lower = head.to_ascii_lowercase();
    loop {
        let whole = if lower.contains("chunked") { buffer.ends_with(b"0\r\n\r\n") } else { buffer.len() >= 25 };
        if whole {
            return Ok(!lower.contains("connection: close"));
        }
        match stream.read_buf(&mut buffer).await {
            Ok(1..) => {}
            Ok(0) | Err(_) => return Err(format!("{path}: cut after {} bytes", buffer.len())),
        }
    }
}

/// `RATE` requests a second over 60 connections until told to stop; one in twenty is slow, one in twenty a stream.
fn load(port: u16, seen: &Arc<Seen>) -> JoinSet<()> {
    let mut lanes = JoinSet::new();
    let count = 60;
    for lane in 0..count {
        let seen = seen.clone();
        lanes.spawn(async move {
            let mut ticks = tokio::time::interval(Duration::from_micros(1_000_000 * count / RATE));
            let mut stream: Option<TcpStream> = None;
            for number in lane.. {
                ticks.tick().await;
                if seen.stop.load(Ordering::Relaxed) {
                    return;
                }
                let path = ["/fast", "/slow", "/stream"][match number % 20 {
                    7 => 1,
                    13 => 2,
                    _ => 0,
                }];
                let mut open = match stream.take() {
                    Some(open) => open,
                    None => match TcpStream::connect(("127.0.0.1", port)).await {
                        Ok(open) => open,
                        // The listener is closed: nothing was sent, nothing is lost.
                        Err(_) => return,
                    },
                };
                match ask(&mut open, path).await {
                    Ok(again) => {
                        seen.good.fetch_add(1, Ordering::Relaxed);
                        stream = again.then_some(open);
                    }
                    Err(words) => seen.fail(&words),
                }
            }
        });
    }
    lanes
}

/// A WebSocket that sends a frame and waits for it to come back, again and again; how it ended.
async fn websocket(port: u16, seen: Arc<Seen>) -> Result<u64, String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.map_err(|error| error.to_string())?;
    let request = "GET /ws HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    stream.write_all(request.as_bytes()).await.map_err(|error| error.to_string())?;
    let mut buffer = Vec::new();
    let head = read_head(&mut stream, &mut buffer).await.ok_or("no answer to the upgrade")?;
    if !head.starts_with("HTTP/1.1 101") {
        return Err(head);
    }
    let mut echoed = 0;
    while !seen.stop.load(Ordering::Relaxed) {
        let sent = stream.write_all(&[0x82, 0x85, 0, 0, 0, 0, b'h', b'e', b'l', b'l', b'o']).await;
        let mut answer = [0; 7];
        let back = stream.read_exact(&mut answer).await;
        if sent.is_err() || back.is_err() || &answer[2..] != b"hello" {
            return Err(format!("dropped after {echoed} frames: {back:?}"));
        }
        echoed += 1;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(echoed)
}

/// Waits until the load has had `count` good answers more, or says what failed.
async fn until_good(seen: &Seen, count: u64) {
    let (wanted, until) = (seen.good() + count, Instant::now() + SOON);
    while seen.good() < wanted {
        assert!(Instant::now() < until, "only {} of {wanted}: {:?}", seen.good(), seen.failed.lock().unwrap());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_reloads_under_load_lose_nothing() {
    let port = app().await;
    let outrigger = Outrigger::start(port, "", |_| {});
    let seen = Arc::new(Seen::default());
    let mut lanes = load(outrigger.web, &seen);
    let mut sockets = JoinSet::new();
    for _ in 0..5 {
        sockets.spawn(websocket(outrigger.web, seen.clone()));
    }
    until_good(&seen, 200).await;
    for number in 0..50 {
        let broken = number % 5 == 4;
        let text = configuration(port, "") + if broken { "nonsense: 1\n" } else { "" };
        std::fs::write(&outrigger.file, format!("{text}timeouts: {{ total: {}s }}\n", 30 + number)).unwrap();
        let took = tokio::task::block_in_place(|| outrigger.reload());
        assert_eq!(took, !broken, "reload {number}");
        until_good(&seen, 20).await;
    }
    seen.stop.store(true, Ordering::Relaxed);
    while let Some(ended) = sockets.join_next().await {
        assert!(ended.unwrap().expect("a WebSocket was dropped") > 0);
    }
    while lanes.join_next().await.is_some() {}
    assert_eq!(*seen.failed.lock().unwrap(), Vec::<String>::new());
    assert!(seen.good() > 1000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_finishes_all_that_was_sent_and_counts_it() {
    let port = app().await;
    let mut outrigger = Outrigger::start(port, "", |_| {});
    let seen = Arc::new(Seen::default());
    let mut lanes = load(outrigger.web, &seen);
    until_good(&seen, 500).await;
    let before = seen.good();
    outrigger.terminate();
    while lanes.join_next().await.is_some() {}
    let code = tokio::task::block_in_place(|| outrigger.wait());
    assert_eq!(*seen.failed.lock().unwrap(), Vec::<String>::new());
    let report = outrigger.report();
    assert_eq!((code, &report["cut"], &report["forced"]), (0, &0.into(), &false.into()), "{report}");
    let finished = report["finished"].as_u64().unwrap();
    let (during, in_flight) = (seen.good() - before, 60);
    // The client's count was taken a moment before the signal arrived: what ended in between is in its count only,
    // and what was in flight then is in both.
    assert!(finished <= during && during - finished <= in_flight + RATE / 10, "{finished} reported, {during} seen");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_is_told_goodbye_by_a_drain() {
    let port = app().await;
    let mut outrigger = Outrigger::start(port, "", |_| {});
    let mut stream = TcpStream::connect(("127.0.0.1", outrigger.web)).await.unwrap();
    let request = "GET /ws HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut buffer = Vec::new();
    assert!(read_head(&mut stream, &mut buffer).await.unwrap().starts_with("HTTP/1.1 101"));
    outrigger.terminate();
    let mut rest = Vec::new();
    tokio::time::timeout(SOON, stream.read_to_end(&mut rest)).await.unwrap().unwrap();
    assert_eq!(rest, [0x88, 0x02, 0x03, 0xe9], "a close frame with 1001");
    assert_eq!(tokio::task::block_in_place(|| outrigger.wait()), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_swap_costs_no_handshake() {
    let port = app().await;
    let made = |folder: &Path| {
        let pair = rcgen::generate_simple_self_signed(vec!["a.example".to_owned()]).unwrap();
        std::fs::write(folder.join("a.key"), pair.signing_key.serialize_pem()).unwrap();
        std::fs::write(folder.join("a.crt"), pair.cert.pem()).unwrap();
    };
    let listener = "listeners: [{ name: web, address: \"127.0.0.1:0\", tls: { certificates: [{ certificate: a.crt, key: a.key }] } }]\n";
    let outrigger = Outrigger::start(port, listener, made);
    let (stop, web) = (Arc::new(AtomicBool::new(false)), outrigger.web);
    let stopped = stop.clone();
    let curls = std::thread::spawn(move || {
        let (mut done, mut failed) = (0, Vec::new());
        while !stopped.load(Ordering::Relaxed) {
            let url = format!("https://127.0.0.1:{web}/fast");
            let asked =
                Command::new("curl").args(["-sk", "--max-time", "10", "-o", "/dev/null", &url]).output().unwrap();
            done += 1;
            if !asked.status.success() {
                failed.push(asked.status.to_string());
            }
        }
        (done, failed)
    });
    for _ in 0..5 {
        made(outrigger.file.parent().unwrap());
        assert!(tokio::task::block_in_place(|| outrigger.reload()));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    stop.store(true, Ordering::Relaxed);
    let (done, failed) = tokio::task::block_in_place(|| curls.join().unwrap());
    assert!(failed.is_empty() && done > 5, "{done} handshakes, failed: {failed:?}");
}
