//! Ports that are taken, and the control ports when strangers talk to them.

use crate::support::{End, Launch, Outrigger, RawApp, config, wire};

#[test]
fn a_port_in_use_is_told_and_its_owner_is_not_disturbed() {
    // SO_REUSEPORT would let a second process take half of the connections.
    let app = RawApp::fine();
    let first = Outrigger::before(&app, "");
    for (key, listener) in [("listeners", "web"), ("ops", "ops"), ("admin", "admin")] {
        let address = first.address(listener);
        let extra = match key {
            "listeners" => format!("listeners: [{{ name: web, address: \"{address}\" }}]\n"),
            key => format!("{key}: {{ address: \"{address}\" }}\n"),
        };
        let mut second = Launch::new(config(app.address(), &extra)).start();
        let status = second.wait();
        assert_eq!(status.code(), Some(2), "{key}");
        assert!(second.stderr().contains(&address.to_string()), "{key}: {}", second.stderr());
        for _ in 0..20 {
            assert_eq!(wire::get(first.web(), "/").status, 200, "{key}");
        }
    }
}

#[test]
fn an_address_that_is_not_ours_is_told() {
    let extra = "listeners: [{ name: web, address: \"203.0.113.7:8080\" }]\n";
    let mut outrigger = Launch::new(config("127.0.0.1:1", extra)).start();
    assert_eq!(outrigger.wait().code(), Some(2));
    assert!(outrigger.stderr().contains("203.0.113.7:8080"), "{}", outrigger.stderr());
}

#[test]
fn a_port_in_use_and_a_bad_certificate_are_told_together() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("its address");
    let tls = "tls: { certificates: [{ certificate: no.crt, key: no.key }] }";
    let extra = format!(
        "listeners: [{{ name: web, address: \"{address}\" }}, {{ name: tls, address: \"127.0.0.1:0\", {tls} }}]\n"
    );
    let launch = Launch::new(config("127.0.0.1:1", &extra));
    for name in ["no.crt", "no.key"] {
        std::fs::write(launch.directory().join(name), "nothing of use").expect("a file");
    }
    let mut outrigger = launch.start();
    assert_eq!(outrigger.wait().code(), Some(2));
    let said = outrigger.stderr();
    assert!(said.contains("in use by another process") && said.contains("no.crt holds no certificate"), "{said}");
}

#[test]
fn a_unix_socket_left_by_a_crash_is_replaced_and_a_living_one_is_not() {
    let app = RawApp::fine();
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("admin.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).expect("a socket that nobody listens to"));
    let extra = format!("admin: {{ address: \"unix:{}\" }}\n", path.display());
    let launch = Launch::new(config(app.address(), &extra));
    let outrigger = launch.start();
    outrigger.web();
    assert!(std::os::unix::net::UnixStream::connect(&path).is_ok());
    let mut second = Launch::new(config(app.address(), &extra)).start();
    assert_eq!(second.wait().code(), Some(2), "{}", second.stderr());
    assert!(std::os::unix::net::UnixStream::connect(&path).is_ok());
}

#[test]
fn probes_and_metrics_answer_and_nothing_else() {
    let app = RawApp::fine();
    let outrigger = Outrigger::before(&app, "");
    assert_eq!(wire::get(outrigger.web(), "/").status, 200);
    for path in ["/livez", "/readyz", "/startupz", "/health", "/healthz", "/ready", "/metrics"] {
        assert_eq!(outrigger.ops(path).status, 200, "{path}");
    }
    let ops = outrigger.address("ops");
    for (method, path) in [
        ("POST", "/reload"),
        ("POST", "/drain"),
        ("GET", "/status"),
        ("POST", "/livez"),
        ("PUT", "/metrics"),
        ("GET", "/"),
    ] {
        let answer = wire::ask(ops, format!("{method} {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"));
        assert!([404, 405].contains(&answer.status), "{method} {path}: {}", answer.status);
    }
    assert_eq!(outrigger.status()["stage"], "serving");
    // The data port answers none of it unless told to.
    for path in ["/livez", "/metrics", "/status"] {
        assert_eq!(wire::get(outrigger.web(), path).text(), "ok", "{path} is the app's");
    }
}

#[test]
fn admin_refuses_pages_and_strangers() {
    let app = RawApp::fine();
    let outrigger = Outrigger::before(&app, "");
    let admin = outrigger.address("admin");
    for (name, fields) in [
        ("a name that points here", "Host: evil.example\r\n"),
        ("a page of another site", "Host: localhost\r\nOrigin: https://evil.example\r\n"),
        ("no host", ""),
    ] {
        let answer = wire::ask(admin, format!("POST /drain HTTP/1.1\r\n{fields}Content-Length: 0\r\n\r\n"));
        assert_eq!(answer.status / 100, 4, "{name}");
    }
    assert_eq!(outrigger.status()["stage"], "serving");
    let answer = outrigger.admin("/why/nobody-knows");
    assert_eq!(answer.status, 404);
    assert_eq!(outrigger.admin("/nothing").status, 404);
}

#[test]
fn admin_with_a_token_needs_it() {
    let app = RawApp::fine();
    let outrigger = Outrigger::before(&app, "admin: { address: \"127.0.0.1:0\", token: \"open-sesame\" }\n");
    let admin = outrigger.address("admin");
    let ask =
        |fields: &str| wire::ask(admin, format!("GET /status HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n")).status;
    assert_eq!(ask(""), 401);
    assert_eq!(ask("Authorization: Bearer wrong\r\n"), 401);
    assert_eq!(ask("Authorization: Bearer open-sesam\r\n"), 401);
    assert_eq!(ask("Authorization: Bearer open-sesame\r\n"), 200);
    assert!(!outrigger.stderr().contains("sesame"), "{}", outrigger.stderr());
}

#[test]
fn the_control_ports_survive_rubbish() {
    let app = RawApp::fine();
    let outrigger = Outrigger::before(&app, "");
    for port in ["ops", "admin"] {
        for bytes in [
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".as_slice(),
            b"GET / HTTP/9.9\r\n\r\n",
            b"\r\n\r\n\r\n\0\0\0",
            b"POST /diff HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\nx",
        ] {
            let mut client = crate::support::Wire::connect(outrigger.address(port));
            client.send(bytes);
            client.half_close();
            assert_ne!(client.rest().1, End::Deadline, "{port} {bytes:?}");
        }
        let large = format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(1 << 20));
        let _ = wire::exchange(outrigger.address(port), large);
    }
    assert_eq!(outrigger.ops("/livez").status, 200);
    assert_eq!(outrigger.admin("/status").status, 200);
}
