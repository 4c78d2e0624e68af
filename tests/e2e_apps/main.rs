//! Real apps nobody here wrote, behind the real binary, asked by real clients. Goal: everything works as it does
//! without Outrigger. Method: the same client asks the app directly and through Outrigger, and what it saw is
//! compared; what must be different (hops, the product's own headers) is listed here and nothing else is allowed.

#![allow(clippy::disallowed_methods, reason = "tests read the real clock")]

#[path = "../support/mod.rs"]
mod support;

mod browser;
mod clients;
mod grpc;
mod nginx;
mod node;
mod python;
mod websocket;

use std::net::SocketAddr;
use std::path::PathBuf;

use support::curl::{Seen, curl};
use support::tls::Pair;
use support::tools::Running;
use support::{Launch, Outrigger, config};

/// Fields of an answer that belong to one hop, or to one moment.
const HOP: [&str; 5] = ["connection", "keep-alive", "transfer-encoding", "trailer", "date"];
/// What the default configuration removes from answers.
const REMOVED: [&str; 2] = ["server", "x-powered-by"];
/// What the default configuration adds to answers.
const ADDED: [&str; 8] = [
    "via",
    "x-request-id",
    "x-content-type-options",
    "x-frame-options",
    "referrer-policy",
    "strict-transport-security",
    "cross-origin-opener-policy",
    "permissions-policy",
];

const TLS: &str = "listeners: [{ name: web, address: \"127.0.0.1:0\", tls: { certificates: [{ certificate: a.crt, key: a.key }] } }]\n";

/// An app with Outrigger in front of it, which is dropped first.
struct Stand {
    outrigger: Outrigger,
    direct: SocketAddr,
    app: Running,
}

impl Stand {
    fn new(app: Running) -> Stand {
        let direct = app.address();
        Stand { outrigger: Outrigger::run(config(direct, "")), direct, app }
    }

    fn web(&self) -> SocketAddr {
        self.outrigger.web()
    }

    /// Asks both with the same words and compares; the answer through Outrigger.
    fn same(&self, arguments: &[&str], path: &str) -> Seen {
        let direct = curl(arguments, &format!("http://{}{path}", self.direct));
        let through = curl(arguments, &format!("http://{}{path}", self.web()));
        assert_eq!(through.version, direct.version, "{path} {arguments:?}");
        same(&direct, &through, path);
        through
    }
}

/// With TLS; and the certificate.
fn with_tls(address: SocketAddr) -> (Outrigger, PathBuf) {
    let launch = Launch::new(config(address, TLS));
    let pair = Pair::write(launch.directory(), "a", &["localhost"]);
    let outrigger = launch.start();
    outrigger.web();
    (outrigger, pair.certificate)
}

fn same(direct: &Seen, through: &Seen, what: &str) {
    assert_eq!((through.status, &direct.status), (direct.status, &through.status), "{what}");
    assert_eq!(fields(through, &ADDED), fields(direct, &REMOVED), "{what}");
    assert!(through.body == direct.body, "{what}: {} bytes, not {}", through.body.len(), direct.body.len());
}

/// All but the hop's and those named.
fn fields(seen: &Seen, without: &[&str]) -> Vec<(String, String)> {
    let kept = |(name, _): &&(String, String)| !HOP.contains(&name.as_str()) && !without.contains(&name.as_str());
    let mut fields: Vec<_> = seen.fields.iter().filter(kept).cloned().collect();
    // The order of different fields means nothing; that of the values of one does.
    fields.sort_by(|one, other| one.0.cmp(&other.0));
    fields
}

/// Bytes that are different at every place.
fn bytes(length: usize) -> Vec<u8> {
    (0_u32..).flat_map(u32::to_be_bytes).take(length).collect()
}

/// `SHA-256 LENGTH`, as the apps tell it.
fn digest(bytes: &[u8]) -> String {
    use sha2::Digest;
    let hash: String = sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{hash} {}", bytes.len())
}
