//! Service managers and images: systemd's sockets and messages, and the health check without a shell.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;

use rustix::process::Signal;

use crate::support::{DEADLINE, Launch, Outrigger, RawApp, Wire, config, tools, wire};

#[test]
fn a_socket_of_the_manager_is_served_from_its_backlog_on() {
    // The socket is bound here, as systemd would; a request waits in it before the process exists.
    let app = RawApp::fine();
    let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = socket.local_addr().expect("its address");
    let mut early = Wire::connect(address);
    early.send("GET /early HTTP/1.1\r\nHost: a\r\n\r\n");
    let listeners = format!("listeners: [{{ name: web, address: \"{address}\" }}]\n");
    let launch = Launch::new(config(app.address(), &listeners)).stdin(OwnedFd::from(socket));
    let script = "export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$@\" 3<&0 0</dev/null";
    let mut outrigger = launch.through(script).start();
    assert_eq!(outrigger.web(), address);
    assert_eq!(early.response("GET").status, 200);
    assert_eq!(wire::get(address, "/late").status, 200);
    assert_eq!(app.requests()[0].target(), "/early");
    outrigger.terminate();
    assert!(outrigger.wait().success());
}

#[test]
fn sockets_meant_for_another_process_are_left_alone() {
    let app = RawApp::fine();
    let launch = Launch::new(config(app.address(), "")).environment("LISTEN_FDS", "1").environment("LISTEN_PID", "1");
    let mut outrigger = launch.start();
    assert_eq!(wire::get(outrigger.web(), "/").status, 200);
    outrigger.terminate();
    assert!(outrigger.wait().success());
}

/// The next message of the process.
fn told(socket: &UnixDatagram, word: &str) -> String {
    let mut buffer = [0; 4096];
    loop {
        let length = socket.recv(&mut buffer).unwrap_or_else(|problem| panic!("no {word}: {problem}"));
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        if text.lines().any(|line| line == word) {
            return text;
        }
    }
}

#[test]
fn the_manager_is_told_of_every_step() {
    let app = RawApp::fine();
    let launch = Launch::new(config(app.address(), "")).environment("WATCHDOG_USEC", "200000");
    let path = launch.directory().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket.set_read_timeout(Some(DEADLINE)).expect("a timeout");
    let mut outrigger = launch.environment("NOTIFY_SOCKET", &path).start();
    told(&socket, "READY=1");
    assert_eq!(wire::get(outrigger.web(), "/").status, 200, "ready means ready");
    told(&socket, "WATCHDOG=1");
    outrigger.signal(Signal::HUP);
    let reloading = told(&socket, "RELOADING=1");
    // sd_notify(3): Type=notify-reload ignores RELOADING=1 without the time it began.
    assert!(reloading.contains("MONOTONIC_USEC="), "{reloading:?}");
    told(&socket, "READY=1");
    outrigger.terminate();
    told(&socket, "STOPPING=1");
    assert!(outrigger.wait().success());
}

#[test]
fn a_manager_that_does_not_listen_stops_nobody() {
    let app = RawApp::fine();
    for path in ["/nonexistent/notify", "@nobody-is-here", "relative"] {
        let mut outrigger = Launch::new(config(app.address(), "")).environment("NOTIFY_SOCKET", path).start();
        assert_eq!(wire::get(outrigger.web(), "/").status, 200, "{path}");
        outrigger.terminate();
        assert!(outrigger.wait().success(), "{path}");
    }
}

#[test]
fn the_health_check_says_yes_no_or_cannot() {
    let app = RawApp::fine();
    let mut outrigger = Outrigger::before(&app, "drain: { delay: 20s, timeout: 5s }\n");
    let url = format!("http://{}", outrigger.address("ops"));
    let check = |more: &[&str]| tools::outrigger(["healthcheck", "--url", &url].iter().chain(more)).status.code();
    assert_eq!(check(&[]), Some(0));
    assert_eq!(check(&["--live"]), Some(0));
    outrigger.terminate();
    outrigger.status_until("it drains", |status| status["stage"] != "serving");
    assert_eq!(check(&[]), Some(1), "not ready");
    let output = tools::outrigger(["healthcheck", "--url", &url]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.starts_with("/readyz answered 503: Outrigger is draining"), "{said}");
    assert_eq!(check(&["--live"]), Some(0), "but alive");
    outrigger.terminate();
    outrigger.wait();
    assert_eq!(check(&[]), Some(1), "nobody answers");
    assert_eq!(tools::outrigger(["healthcheck", "--url", "http://[nonsense"]).status.code(), Some(2));
}

#[test]
fn the_health_check_does_not_wait_for_ever() {
    // A port that accepts and says nothing.
    let silent = RawApp::start(|mut conn| {
        let _ = conn.wait_for_the_end();
    });
    let url = format!("http://{}", silent.address());
    let begun = std::time::Instant::now();
    let output = tools::outrigger(["healthcheck", "--url", &url, "--timeout", "300ms"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(begun.elapsed() < DEADLINE / 2, "{:?}", begun.elapsed());
}
