//! Certificates that change under handshakes. Goal: no handshake and no connection fails, a pair is only ever used as
//! a pair, and a bad one is not used at all.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::support::tls::{self, Pair};
use crate::support::{DEADLINE, Launch, Outrigger, RawApp, config, eventually};

const TLS: &str = "listeners: [{ name: web, address: \"127.0.0.1:0\", tls: { certificates: [{ certificate: a.crt, key: a.key }] } }]\n";

type Stream = StreamOwned<ClientConnection, TcpStream>;

fn open(address: SocketAddr, config: Arc<ClientConfig>) -> std::io::Result<Stream> {
    let name = ServerName::try_from("localhost").expect("a name");
    let mut connection = ClientConnection::new(config, name).expect("a client");
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    while connection.is_handshaking() {
        connection.complete_io(&mut stream)?;
    }
    Ok(StreamOwned::new(connection, stream))
}

fn ask(stream: &mut Stream) -> std::io::Result<bool> {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\nok") {
        let mut piece = [0; 4096];
        match stream.read(&mut piece)? {
            0 => return Ok(false),
            length => answer.extend_from_slice(&piece[..length]),
        }
    }
    Ok(answer.starts_with(b"HTTP/1.1 200"))
}

/// Copies a pair over the one in use, the two files one after the other, as tools do.
fn put(outrigger: &Outrigger, pair: &Pair) {
    for (from, to) in [(&pair.key, "a.key"), (&pair.certificate, "a.crt")] {
        let aside = outrigger.directory().join("aside");
        std::fs::copy(from, &aside).expect("copy");
        std::fs::rename(&aside, outrigger.directory().join(to)).expect("rename");
    }
}

fn started(app: &RawApp) -> (Outrigger, [Pair; 2]) {
    let launch = Launch::new(config(app.address(), TLS));
    let pairs = ["one", "two"].map(|name| Pair::write(launch.directory(), name, &["localhost"]));
    for (from, to) in [(&pairs[0].key, "a.key"), (&pairs[0].certificate, "a.crt")] {
        std::fs::copy(from, launch.directory().join(to)).expect("copy");
    }
    let outrigger = launch.start();
    outrigger.web();
    (outrigger, pairs)
}

fn served(outrigger: &Outrigger, pair: &Pair) -> bool {
    open(outrigger.web(), tls::client(&[pair], &["http/1.1"])).is_ok()
}

#[test]
fn swaps_under_handshakes_fail_nobody() {
    let app = RawApp::fine();
    let (outrigger, pairs) = started(&app);
    let address = outrigger.web();
    let (stop, good) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let both = tls::client(&[&pairs[0], &pairs[1]], &["http/1.1"]);
    let lanes: Vec<_> = (0..4)
        .map(|_| {
            let (stop, good, both) = (Arc::clone(&stop), Arc::clone(&good), Arc::clone(&both));
            std::thread::spawn(move || {
                let mut failed = Vec::new();
                while !stop.load(Ordering::SeqCst) {
                    match open(address, Arc::clone(&both)).and_then(|mut stream| ask(&mut stream)) {
                        Ok(true) => drop(good.fetch_add(1, Ordering::SeqCst)),
                        other => failed.push(format!("{other:?}")),
                    }
                }
                failed
            })
        })
        .collect();
    let mut kept = open(address, Arc::clone(&both)).expect("a connection");
    assert!(ask(&mut kept).expect("an answer"));
    for round in 1..=6 {
        let (new, old) = (&pairs[round % 2], &pairs[(round + 1) % 2]);
        put(&outrigger, new);
        eventually("the new certificate", || (served(&outrigger, new) && !served(&outrigger, old)).then_some(()));
        assert!(ask(&mut kept).expect("an answer"), "the connection made before lives on");
    }
    eventually("handshakes enough", || (good.load(Ordering::SeqCst) > 50).then_some(()));
    stop.store(true, Ordering::SeqCst);
    let failed: Vec<String> = lanes.into_iter().flat_map(|lane| lane.join().expect("a lane")).collect();
    assert!(failed.is_empty(), "{failed:?}");
}

#[test]
fn a_pair_that_does_not_fit_is_not_used_and_is_told() {
    let app = RawApp::fine();
    let (outrigger, pairs) = started(&app);
    // The key of another, then a cut certificate, then nothing at all.
    std::fs::copy(&pairs[1].key, outrigger.directory().join("a.key")).expect("copy");
    outrigger.wait_for_log("it is told", |line| line["level"] != "INFO" && line.to_string().contains("a.key"));
    assert!(served(&outrigger, &pairs[0]));
    std::fs::write(outrigger.directory().join("a.crt"), "-----BEGIN CERTIFICATE-----\nMIIB").expect("write");
    assert!(served(&outrigger, &pairs[0]));
    std::fs::remove_file(outrigger.directory().join("a.crt")).expect("remove");
    assert!(served(&outrigger, &pairs[0]));
    put(&outrigger, &pairs[1]);
    eventually("the good pair", || served(&outrigger, &pairs[1]).then_some(()));
}

#[test]
fn names_choose_certificates() {
    let app = RawApp::fine();
    let text = TLS.replace(
        "{ certificate: a.crt, key: a.key }",
        "{ certificate: a.crt, key: a.key }, { certificate: b.crt, key: b.key }",
    );
    let launch = Launch::new(config(app.address(), &text));
    let first = Pair::write(launch.directory(), "a", &["a.example"]);
    let second = Pair::write(launch.directory(), "b", &["b.example", "*.c.example"]);
    let outrigger = launch.start();
    for (name, pair) in [("a.example", &first), ("b.example", &second), ("x.c.example", &second)] {
        let config = tls::client(&[pair], &["http/1.1"]);
        let server = ServerName::try_from(name).expect("a name");
        let mut connection = ClientConnection::new(config, server).expect("a client");
        let mut stream = TcpStream::connect(outrigger.web()).expect("connect");
        while connection.is_handshaking() {
            connection.complete_io(&mut stream).unwrap_or_else(|problem| panic!("{name}: {problem}"));
        }
    }
}

#[test]
fn a_drain_ends_tls_connections_in_order() {
    let app = RawApp::fine();
    let (mut outrigger, pairs) = started(&app);
    let mut roots = RootCertStore::empty();
    roots.add(pairs[0].der.clone()).expect("a root");
    let mut kept = open(outrigger.web(), tls::client(&[&pairs[0]], &["http/1.1"])).expect("a connection");
    assert!(ask(&mut kept).expect("an answer"));
    outrigger.terminate();
    // close_notify, not a bare end: the client knows that nothing was cut off.
    let mut rest = Vec::new();
    kept.read_to_end(&mut rest).expect("an orderly end");
    assert!(rest.is_empty());
    assert!(outrigger.wait().success());
}
