//! Three times what an app can do, for a while: what is critical is served, what is sheddable is not. And what an app
//! that is not overloaded must never notice: steady load, streams, slow senders, checks of its health.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until, timeout};

use crate::support::{DEADLINE, Outrigger, Wire, config, http2};

/// `workers` of it work at a time, for `service` each (ten times as long on paths that say so), in order; an event
/// stream on `/events` takes none.
fn app(workers: usize, service: Duration) -> std::net::SocketAddr {
    let (give, take) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        http2::runtime().block_on(async move {
            let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
            socket.bind(([127, 0, 0, 1], 0).into()).expect("a port");
            let listener: TcpListener = socket.listen(4096).expect("a listener");
            let _ = give.send(listener.local_addr().expect("its address"));
            let workers = Arc::new(Semaphore::new(workers));
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, workers.clone(), service));
            }
        });
    });
    take.recv_timeout(DEADLINE).expect("an app")
}

async fn serve(mut stream: TcpStream, workers: Arc<Semaphore>, service: Duration) {
    let _ = stream.set_nodelay(true);
    let mut head = Vec::new();
    loop {
        while !head.windows(4).any(|end| end == b"\r\n\r\n") {
            match stream.read_buf(&mut head).await {
                Ok(read) if read > 0 => {}
                Ok(_) | Err(_) => return,
            }
        }
        let text = String::from_utf8_lossy(&head).into_owned();
        head.clear();
        if text.contains("/events") {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: 1\n\n").await;
            std::future::pending::<()>().await;
        }
        let work = workers.acquire().await.expect("open");
        tokio::time::sleep(if text.contains("/long") { service * 10 } else { service }).await;
        drop(work);
        if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.is_err() {
            return;
        }
    }
}

/// One GET on a connection of its own; the status, 0 when there was none in two seconds.
async fn get(address: std::net::SocketAddr, path: &str) -> u16 {
    let asked = async {
        let mut stream = TcpStream::connect(address).await.ok()?;
        let text = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        stream.write_all(text.as_bytes()).await.ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.ok()?;
        String::from_utf8_lossy(answer.get(9..12)?).parse().ok()
    };
    timeout(Duration::from_secs(2), asked).await.ok().flatten().unwrap_or(0)
}

/// Open loop: one request each `every`, its path by its number; statuses by path.
fn load(
    address: std::net::SocketAddr,
    every: Duration,
    lasts: Duration,
    path: impl Fn(u64) -> &'static str,
) -> BTreeMap<(&'static str, u16), u32> {
    http2::runtime().block_on(async {
        let start = Instant::now();
        let mut asked = Vec::new();
        let mut number = 0u64;
        while start.elapsed() < lasts {
            number += 1;
            sleep_until(start + every * u32::try_from(number).expect("few")).await;
            let path = path(number);
            asked.push((path, tokio::spawn(async move { get(address, path).await })));
        }
        let mut seen = BTreeMap::new();
        for (path, answer) in asked {
            let status = answer.await.expect("an answer");
            *seen.entry((path, status)).or_insert(0) += 1;
        }
        seen
    })
}

fn before(app: std::net::SocketAddr, more: &str) -> Outrigger {
    Outrigger::run(config(
        app,
        &format!(
            "routes:\n  - {{ name: critical, match: {{ path: /critical }}, priority: critical }}\n  \
             - {{ name: batch, match: {{ path: /batch }}, priority: batch }}\n  \
             - {{ name: sheddable, match: {{ path: /sheddable }}, priority: sheddable }}\n  \
             - {{ name: rest, match: {{ path: \"/*\" }} }}\n{more}"
        ),
    ))
}

#[test]
fn at_three_times_the_capacity_the_critical_are_served_and_the_sheddable_are_not() {
    // 40 a second; 120 come, 24 of them critical. Few, because machines that test are busy.
    let outrigger = before(app(4, Duration::from_millis(100)), "");
    let warm = load(outrigger.web(), Duration::from_millis(36), Duration::from_secs(6), |_| "/");
    assert!(warm.keys().all(|(_, status)| *status == 200), "at 70 %: {warm:?}");
    let kinds = ["/critical", "/sheddable", "/", "/sheddable", "/batch"];
    let every = Duration::from_micros(8_333);
    // Three seconds in which the limit comes down, then six in which it holds.
    let path = |number: u64| match (number, kinds[(number % 5) as usize]) {
        (..360, "/critical") => "/critical?onset",
        (..360, "/sheddable") => "/sheddable?onset",
        (..360, "/batch") => "/batch?onset",
        (..360, _) => "/?onset",
        (_, path) => path,
    };
    let seen = load(outrigger.web(), every, Duration::from_secs(9), path);
    let share = |path: &str| {
        let of = |fits: &dyn Fn(u16) -> bool| {
            seen.iter().filter(|((one, status), _)| *one == path && fits(*status)).map(|(_, count)| *count).sum::<u32>()
        };
        f64::from(of(&|status| status == 200)) / f64::from(of(&|_| true))
    };
    println!("{seen:?}");
    // 70 of 71 where a machine has time, 65 to 51 of them if none were handed on; `core::admission` simulates it.
    assert!(share("/critical?onset") >= 0.75, "{seen:?}");
    assert!(share("/critical") >= 0.995, "{seen:?}");
    assert!(share("/sheddable") <= 0.1, "{seen:?}");
    assert!(share("/") > share("/batch") && share("/batch") > share("/sheddable"), "{seen:?}");
    // The probes of an orchestrator go on all the while.
    assert_eq!(outrigger.ops("/readyz").status, 200);
}

#[test]
fn quick_and_slow_requests_at_seventy_percent_are_all_served() {
    // A tenth takes ten times as long: 1.9 x 50 ms on average, 0.7 x 6 workers.
    let outrigger = before(app(6, Duration::from_millis(50)), "");
    let every = Duration::from_secs_f64(0.095 / (0.7 * 6.0));
    let path = |number: u64| if number.wrapping_mul(0x9e37_79b9).is_multiple_of(10) { "/long" } else { "/" };
    let seen = load(outrigger.web(), every, Duration::from_secs(6), path);
    assert!(seen.keys().all(|(_, status)| *status == 200), "{seen:?}");
    assert!(seen.len() == 2, "both kinds came: {seen:?}");
}

#[test]
fn streams_take_no_room_from_requests_and_teach_nothing() {
    let more = format!(
        "upstreams: {{ app: {{ endpoints: [\"http://{}\"], concurrency: {{ adaptive: {{ min: 2, max: 4 }} }} }} }}\n",
        app(4, Duration::from_millis(5))
    );
    let outrigger = before(([127, 0, 0, 1], 1).into(), &more);
    let mut streams: Vec<Wire> = Vec::new();
    for _ in 0..20 {
        let mut stream = Wire::connect(outrigger.web());
        stream.send("GET /events HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(stream.piece().is_ok(), "an event stream begins");
        streams.push(stream);
    }
    assert_eq!(outrigger.metric("outrigger_upstream_in_flight", "app"), 20.0);
    let seen = load(outrigger.web(), Duration::from_millis(20), Duration::from_secs(2), |_| "/");
    assert!(seen.keys().all(|(_, status)| *status == 200), "{seen:?}");
    drop(streams);
    outrigger.idle();
}

#[test]
fn a_check_of_the_apps_health_passes_a_full_queue() {
    let text = format!(
        "upstreams: {{ app: {{ endpoints: [\"http://{}\"], health_check: {{ path: /health, interval: 60s }}, \
         concurrency: {{ adaptive: {{ min: 1, max: 1 }}, queue: {{ max: 0 }} }} }} }}\n",
        app(8, Duration::from_secs(1))
    );
    let outrigger = before(([127, 0, 0, 1], 1).into(), &text);
    let mut busy = Wire::connect(outrigger.web());
    busy.send("GET /long HTTP/1.1\r\nHost: a\r\n\r\n");
    crate::support::eventually("it works", || {
        (outrigger.metric("outrigger_upstream_in_flight", "app") == 1.0).then_some(())
    });
    assert_eq!(crate::support::wire::get(outrigger.web(), "/").reason(), "concurrency_limit");
    assert_eq!(crate::support::wire::get(outrigger.web(), "/health").status, 200);
}

// Goal: a client that asks for an answer within three milliseconds does not teach that the app takes three.
#[test]
fn a_clients_own_short_deadline_says_nothing_of_the_app() {
    let outrigger = before(app(50, Duration::from_millis(100)), "");
    let latency = || outrigger.metric("outrigger_concurrency_latency_seconds", "app");
    // Several windows of samples, were they samples.
    for _ in 0..60 {
        let asked = "GET / HTTP/1.1\r\nHost: a\r\nX-Request-Timeout-Ms: 3\r\n\r\n";
        assert_eq!(crate::support::wire::ask(outrigger.web(), asked).reason(), "total_timeout");
    }
    assert_eq!(latency(), 0.0);
    crate::support::eventually("honest answers teach", || {
        assert_eq!(crate::support::wire::get(outrigger.web(), "/").status, 200);
        (latency() >= 0.1).then_some(())
    });
}
