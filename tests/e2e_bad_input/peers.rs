//! Rubbish at the data ports, by the thousand: the process stays, and others are served.

use crate::support::app::OK;
use crate::support::tls::Pair;
use crate::support::{End, Launch, Outrigger, RawApp, Wire, config, wire};

/// A small generator, so that a failure can be repeated.
struct Seeded(u64);

impl Seeded {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end).expect("small")).expect("small")
    }
}

#[test]
fn other_protocols_at_the_data_port_are_turned_away() {
    let app = RawApp::fine();
    let outrigger = Outrigger::before(&app, "");
    for bytes in [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa".as_slice(),
        b"SSH-2.0-OpenSSH_9.0\r\n",
        b"EHLO mail.example\r\n",
        b"*1\r\n$4\r\nPING\r\n",
        b"\0\0\0\x08\x04\xd2\x16\x2f",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a\x21\x11\x00\x0c",
    ] {
        let mut client = Wire::connect(outrigger.web());
        client.send(bytes);
        client.half_close();
        let (answer, end) = client.rest();
        assert_ne!(end, End::Deadline, "{bytes:?}");
        assert!(
            answer.is_empty() || answer.starts_with(b"HTTP/1.1 4") || answer.starts_with(b"HTTP/1.1 5"),
            "{bytes:?}: {answer:?}"
        );
    }
    assert!(app.untouched(), "{:?}", app.requests());
    assert_eq!(wire::get(outrigger.web(), "/").status, 200);
}

#[test]
fn mutated_requests_never_break_the_process() {
    // Valid requests with bytes changed, removed, doubled: whatever is answered, it is one whole answer per request,
    // and a healthy client on another connection never notices.
    let app = RawApp::fine();
    let mut outrigger = Outrigger::before(
        &app,
        "timeouts: { request_header: 1s, request_body: { rate_min: 100KiB/s, grace: 500ms } }\n",
    );
    let seeds = [
        "GET /a?b=c HTTP/1.1\r\nHost: a.example\r\nAccept: */*\r\nCookie: a=b\r\nConnection: close\r\n\r\n",
        "POST /a HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello",
        "POST /a HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n5\r\nhello\r\n0\r\nx: y\r\n\r\n",
        "GET http://b.example/x HTTP/1.1\r\nHost: a.example\r\nTE: trailers\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
    ];
    let mut random = Seeded(0x0dd_ba11);
    let mut healthy = Wire::connect(outrigger.web());
    for round in 0..600 {
        let mut bytes = seeds[random.below(seeds.len())].as_bytes().to_vec();
        for _ in 0..=random.below(3) {
            let at = random.below(bytes.len());
            match random.below(5) {
                0 => bytes[at] = u8::try_from(random.next() & 0xff).expect("a byte"),
                1 => drop(bytes.remove(at)),
                2 => bytes.insert(at, b"\r\n\0 \t:;,0"[random.below(9)]),
                3 => bytes.truncate(at.max(1)),
                _ => {
                    let piece = bytes[at..(at + 8).min(bytes.len())].to_vec();
                    bytes.splice(at..at, piece);
                }
            }
        }
        let mut client = Wire::connect(outrigger.web());
        client.send(&bytes);
        client.half_close();
        assert_ne!(client.rest().1, End::Deadline, "round {round}: {:?}", String::from_utf8_lossy(&bytes));
        if round % 20 == 0 {
            healthy.send("GET /healthy HTTP/1.1\r\nHost: a\r\n\r\n");
            assert_eq!(healthy.response("GET").status, 200, "round {round}");
        }
    }
    // What did reach the app was well formed: one Host, one framing.
    for request in app.requests() {
        assert_eq!(request.head.all("host").len(), 1, "{:?}", request.head);
        assert!(!(request.head.chunked() && request.head.has("content-length")), "{:?}", request.head);
        assert!(request.head.raw.iter().all(|byte| *byte != 0), "{:?}", request.head);
    }
    outrigger.idle();
    assert!(outrigger.running());
    assert!(!outrigger.stderr().contains("panicked"), "{}", outrigger.stderr());
}

#[test]
fn mutated_answers_of_the_app_never_break_the_process() {
    let seeds = [
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x\r\n\r\n5\r\nhello\r\n0\r\nx: y\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.0 200 OK\r\n\r\nuntil the end",
    ];
    let random = std::sync::Mutex::new(Seeded(0x5eed));
    let app = RawApp::start(move |mut conn| {
        let Some(request) = conn.request() else { return };
        if request.target() == "/healthy" {
            conn.send(OK);
            return;
        }
        let bytes = {
            let mut random = random.lock().expect("lock");
            let mut bytes = seeds[random.below(seeds.len())].as_bytes().to_vec();
            for _ in 0..=random.below(2) {
                let at = random.below(bytes.len());
                match random.below(4) {
                    0 => bytes[at] = u8::try_from(random.next() & 0xff).expect("a byte"),
                    1 => drop(bytes.remove(at)),
                    2 => bytes.insert(at, b"\r\n\0 \t:;,0"[random.below(9)]),
                    _ => bytes.truncate(at.max(1)),
                }
            }
            bytes
        };
        conn.send(bytes);
    });
    let upstreams = format!(
        "upstreams: {{ app: {{ endpoints: [\"http://{}\"], circuit_breaker: {{ mode: off }} }} }}\n",
        app.address()
    );
    let mut outrigger = Outrigger::before(&app, &(upstreams + "retry: { attempts: 1 }\n"));
    for round in 0..600 {
        let mut client = Wire::connect(outrigger.web());
        client.send("GET /odd HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let (answer, end) = client.rest();
        assert_ne!(end, End::Deadline, "round {round}");
        assert!(
            answer.is_empty() || answer.starts_with(b"HTTP/1.1 "),
            "round {round}: {:?}",
            String::from_utf8_lossy(&answer)
        );
        let head = String::from_utf8_lossy(&answer).split("\r\n\r\n").next().unwrap_or_default().replace("\r\n", "");
        assert!(!head.contains(['\r', '\n', '\0']), "round {round}: {head:?}");
        if round % 20 == 0 {
            assert_eq!(wire::get(outrigger.web(), "/healthy").text(), "ok", "round {round}");
        }
    }
    outrigger.idle();
    assert!(outrigger.running());
    assert!(!outrigger.stderr().contains("panicked"), "{}", outrigger.stderr());
}

#[test]
fn plain_http_at_a_tls_port_is_turned_away_and_handshakes_go_on() {
    let app = RawApp::fine();
    let extra = "listeners: [{ name: web, address: \"127.0.0.1:0\", tls: { certificates: [{ certificate: a.crt, key: a.key }] } }]\n";
    let launch = Launch::new(config(app.address(), extra));
    let pair = Pair::write(launch.directory(), "a", &["localhost"]);
    let outrigger = launch.start();
    for bytes in ["GET / HTTP/1.1\r\nHost: a\r\n\r\n", "\0\0\0\0\0\0\0\0\0\0", "\x16\x03\x01\x00\x05hello"] {
        let (answer, end) = wire::exchange(outrigger.web(), bytes);
        assert_ne!(end, End::Deadline, "{bytes:?}");
        assert!(!answer.starts_with(b"HTTP/1.1 200"), "{bytes:?}");
    }
    assert!(app.untouched());
    let mut client = tls_client(&outrigger, &pair);
    assert_eq!(client.get("/"), 200);
}

struct TlsClient(rustls::StreamOwned<rustls::ClientConnection, std::net::TcpStream>);

impl TlsClient {
    fn get(&mut self, path: &str) -> u16 {
        use std::io::{Read, Write};
        write!(self.0, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("write");
        let mut answer = Vec::new();
        let _ = self.0.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).get(9..12).and_then(|status| status.parse().ok()).unwrap_or(0)
    }
}

fn tls_client(outrigger: &Outrigger, pair: &Pair) -> TlsClient {
    let config = crate::support::tls::client(&[pair], &["http/1.1"]);
    let name = rustls::pki_types::ServerName::try_from("localhost").expect("a name");
    let connection = rustls::ClientConnection::new(config, name).expect("a client");
    let stream = std::net::TcpStream::connect(outrigger.web()).expect("connect");
    stream.set_read_timeout(Some(crate::support::DEADLINE)).expect("a timeout");
    TlsClient(rustls::StreamOwned::new(connection, stream))
}

#[test]
fn a_large_upload_sent_byte_by_byte_costs_no_more_than_its_bytes() {
    // Goal: what a request is remembered by before it takes a place pins little more than it holds.
    const BYTES: usize = 40_000;
    let app = RawApp::fine();
    let outrigger = Outrigger::before(&app, "");
    assert_eq!(wire::get(outrigger.web(), "/").status, 200);
    let before = outrigger.memory();
    for framing in ["Content-Length: 10000000\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n989680\r\n"] {
        let mut client = Wire::connect(outrigger.web());
        assert!(client.send(format!("PUT / HTTP/1.1\r\nHost: a\r\n{framing}")));
        for _ in 0..BYTES {
            assert!(client.send(b"x"), "{framing:?}");
        }
        let grown = outrigger.memory().saturating_sub(before) / 1024;
        assert!(grown < 12 * 1024, "{framing:?}: {BYTES} bytes took {grown} KiB");
    }
}
