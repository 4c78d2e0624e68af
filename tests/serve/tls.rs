//! TLS: which certificate, which protocol, who may come in, and how a changed file takes effect.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use outrigger::config::settings::{CertificateFiles, ClientAuth, ServerTls, TlsVersion};
use outrigger::serve::gate::Turned;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
#[cfg(feature = "aws-lc")]
use rustls::crypto::aws_lc_rs as provider;
#[cfg(not(feature = "aws-lc"))]
use rustls::crypto::ring as provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tempfile::TempDir;

use crate::bench::{Bench, Options, answer, connect, read_to_end};

struct Files {
    directory: TempDir,
    ca: CertifiedIssuer<'static, KeyPair>,
}

impl Files {
    fn new() -> Files {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a CA");
        let directory = tempfile::tempdir().expect("a directory");
        fs::write(directory.path().join("ca.crt"), ca.pem()).expect("a file");
        Files { directory, ca }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes `NAME.crt` and `NAME.key` for these names and tells where.
    fn issue(&self, name: &str, names: &[&str]) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().expect("a key");
        let mut params =
            CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>()).expect("names");
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let certificate = params.signed_by(&key, &self.ca).expect("a certificate");
        let (crt, pem) = (self.path(&format!("{name}.crt")), self.path(&format!("{name}.key")));
        fs::write(&crt, certificate.pem()).expect("a file");
        fs::write(&pem, key.serialize_pem()).expect("a file");
        (crt, pem)
    }

    fn plan(&self, pairs: Vec<(PathBuf, PathBuf)>) -> ServerTls {
        let certificates = pairs.into_iter().map(|(certificate, key)| CertificateFiles { certificate, key }).collect();
        ServerTls { certificates, min_version: TlsVersion::Tls12, client_auth: ClientAuth::Off }
    }

    fn client(&self, identity: Option<(&Path, &Path)>, alpn: &[&[u8]], tls12: bool) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.ca.der().clone()).expect("a root");
        let versions: &[_] = if tls12 { &[&rustls::version::TLS12] } else { &[&rustls::version::TLS13] };
        let provider = Arc::new(provider::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).expect("versions");
        let builder = builder.with_root_certificates(roots);
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some((crt, key)) => {
                let chain = vec![CertificateDer::from_pem_file(crt).expect("a certificate")];
                builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(key).expect("a key")).expect("a pair")
            }
        };
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        Arc::new(config)
    }
}

type Tls = StreamOwned<ClientConnection, TcpStream>;

fn hello(bench: &Bench, config: Arc<ClientConfig>, name: &str) -> Result<Tls, std::io::Error> {
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let mut session = ClientConnection::new(config, name).map_err(std::io::Error::other)?;
    let mut stream = connect(bench);
    while session.is_handshaking() {
        session.complete_io(&mut stream)?;
    }
    Ok(StreamOwned::new(session, stream))
}

fn get(client: &mut Tls, path: &str) -> String {
    write!(client, "GET {path} HTTP/1.1\r\nhost: a\r\n\r\n").expect("a write");
    answer(client)
}

/// The common name of the certificate that the server showed.
fn shown(client: &Tls) -> String {
    let chain = client.conn.peer_certificates().expect("a certificate");
    let (_, parsed) = x509_parser::parse_x509_certificate(&chain[0]).expect("a certificate");
    parsed.subject().iter_common_name().next().and_then(|name| name.as_str().ok()).unwrap_or_default().to_owned()
}

fn start(tls: ServerTls) -> Bench {
    Bench::start(Options { tls: Some(tls), ..Options::default() })
}

#[test]
fn the_certificate_is_chosen_by_name() {
    let files = Files::new();
    let shop = files.issue("shop", &["shop.example.com", "localhost"]);
    let wild = files.issue("wild", &["*.example.org"]);
    let exact = files.issue("exact", &["api.example.org"]);
    let bench = start(files.plan(vec![shop, wild, exact]));
    let cases = [
        ("shop.example.com", "shop"),
        ("www.example.org", "wild"),
        ("api.example.org", "exact"),
        ("localhost", "shop"),
    ];
    for (name, expected) in cases {
        let mut client = hello(&bench, files.client(None, &[], false), name).expect("a handshake");
        assert_eq!(shown(&client), expected, "{name}");
        assert!(get(&mut client, "/peer").contains("x-forwarded-proto: https"));
    }
    // Not covered by any certificate: the first is shown, and the client judges.
    assert!(hello(&bench, files.client(None, &[], false), "a.b.example.org").is_err());
}

#[test]
fn both_versions_and_both_protocols() {
    let files = Files::new();
    let pair = files.issue("web", &["localhost"]);
    let bench = start(files.plan(vec![pair.clone()]));
    let mut old = hello(&bench, files.client(None, &[b"http/1.1"], true), "localhost").expect("TLS 1.2");
    assert!(get(&mut old, "/").ends_with("ok"));
    let new = hello(&bench, files.client(None, &[b"h2", b"http/1.1"], false), "localhost").expect("TLS 1.3");
    assert_eq!(new.conn.alpn_protocol(), Some(&b"h2"[..]));
    let strict = start(ServerTls { min_version: TlsVersion::Tls13, ..files.plan(vec![pair]) });
    assert!(hello(&strict, files.client(None, &[], true), "localhost").is_err());
}

#[test]
fn a_client_certificate_is_required_or_requested() {
    let files = Files::new();
    let web = files.issue("web", &["localhost"]);
    let (crt, key) = files.issue("caller", &["caller"]);
    let require =
        ServerTls { client_auth: ClientAuth::Require { ca: files.path("ca.crt") }, ..files.plan(vec![web.clone()]) };
    let bench = start(require);
    let known = files.client(Some((&crt, &key)), &[], false);
    let mut client = hello(&bench, known.clone(), "localhost").expect("a handshake");
    assert!(get(&mut client, "/").ends_with("ok"));
    // TLS 1.3: the client learns of the refusal with its first read.
    let unknown = hello(&bench, files.client(None, &[], false), "localhost");
    assert!(unknown.and_then(|mut client| client.read(&mut [0; 1])).is_err());
    let stranger = Files::new();
    let (other_crt, other_key) = stranger.issue("stranger", &["stranger"]);
    let config = files.client(Some((&other_crt, &other_key)), &[], false);
    assert!(hello(&bench, config, "localhost").and_then(|mut client| client.read(&mut [0; 1])).is_err());
    bench.until(|| bench.turned(Turned::Handshake) == 2);
    let bench =
        start(ServerTls { client_auth: ClientAuth::Request { ca: files.path("ca.crt") }, ..files.plan(vec![web]) });
    let mut anonymous = hello(&bench, files.client(None, &[], false), "localhost").expect("a handshake");
    assert!(get(&mut anonymous, "/").ends_with("ok"));
    let mut client = hello(&bench, known, "localhost").expect("a handshake");
    assert!(get(&mut client, "/").ends_with("ok"));
}

#[test]
fn a_changed_certificate_is_taken_and_connections_stay() {
    let files = Files::new();
    let pair = files.issue("web", &["localhost"]);
    let bench = start(files.plan(vec![pair.clone()]));
    let config = files.client(None, &[], false);
    let mut before = hello(&bench, config, "localhost").expect("a handshake");
    assert!(get(&mut before, "/").ends_with("ok"));
    assert_eq!(bench.server.reload_certificates(), Ok(false), "nothing has changed");
    let expiry = bench.server.certificates()[0].not_after;
    assert!(expiry > outrigger::state::clock::wall());
    let old = before.conn.peer_certificates().expect("a certificate")[0].clone().into_owned();

    // The key alone: the pair does not match, the old one stays, and it is said once.
    let (_, other_key) = files.issue("other", &["localhost"]);
    let kept = fs::read(&pair.1).expect("the key");
    fs::copy(&other_key, &pair.1).expect("a copy");
    let problems = bench.server.reload_certificates().expect_err("a mismatch");
    assert!(problems[0].words.contains("does not belong to the certificate"), "{problems:?}");
    assert_eq!(problems[0].path, "listeners.web.tls.certificates[0]");
    assert_eq!(bench.server.reload_certificates(), Ok(false), "the same content is not reported again");
    fs::write(&pair.1, kept).expect("a file");

    files.issue("web", &["localhost"]);
    assert_eq!(bench.server.reload_certificates(), Ok(true));
    // A new client: one that resumes is not shown a certificate again.
    let after = hello(&bench, files.client(None, &[], false), "localhost").expect("a handshake");
    assert_ne!(after.conn.peer_certificates().expect("a certificate")[0], old);
    assert!(get(&mut before, "/").ends_with("ok"), "the old connection goes on");
}

#[test]
fn sessions_resume_across_workers_and_reloads() {
    let files = Files::new();
    let pair = files.issue("web", &["localhost"]);
    let bench = start(files.plan(vec![pair]));
    let config = files.client(None, &[], false);
    let resumed = |config: &Arc<ClientConfig>| {
        let mut client = hello(&bench, config.clone(), "localhost").expect("a handshake");
        assert!(get(&mut client, "/").ends_with("ok")); // takes the tickets in, too
        client.conn.handshake_kind() == Some(rustls::HandshakeKind::Resumed)
    };
    assert!(!resumed(&config));
    for _ in 0..8 {
        assert!(resumed(&config), "whichever worker accepts");
    }
    files.issue("web", &["localhost"]);
    assert_eq!(bench.server.reload_certificates(), Ok(true));
    assert!(resumed(&config), "the ticket key outlives the certificate");
}

#[test]
fn new_roots_for_client_certificates_end_resumption() {
    let files = Files::new();
    let web = files.issue("web", &["localhost"]);
    let (crt, key) = files.issue("caller", &["caller"]);
    let plan = ServerTls { client_auth: ClientAuth::Request { ca: files.path("ca.crt") }, ..files.plan(vec![web]) };
    let bench = start(plan);
    let config = files.client(Some((&crt, &key)), &[], false);
    let resumed = |config: &Arc<ClientConfig>| {
        let mut client = hello(&bench, config.clone(), "localhost").expect("a handshake");
        assert!(get(&mut client, "/").ends_with("ok"));
        client.conn.handshake_kind() == Some(rustls::HandshakeKind::Resumed)
    };
    assert!(!resumed(&config) && resumed(&config));
    let both = format!("{}{}", Files::new().ca.pem(), files.ca.pem());
    fs::write(files.path("ca.crt"), both).expect("a file");
    assert_eq!(bench.server.reload_certificates(), Ok(true));
    assert!(!resumed(&config), "a session from before the change must not be trusted");
}

#[test]
fn every_missing_or_wrong_file_is_a_problem_before_anything_changes() {
    let files = Files::new();
    let good = files.issue("web", &["localhost"]);
    fs::write(files.path("junk"), "nothing of use").expect("a file");
    let bad = vec![
        good.clone(),
        (files.path("missing.crt"), good.1.clone()),
        (files.path("junk"), good.1.clone()),
        (good.0.clone(), files.path("junk")),
        (files.path("ca.crt"), good.1.clone()),
    ];
    let plan = ServerTls { client_auth: ClientAuth::Require { ca: files.path("junk") }, ..files.plan(bad) };
    let words = Bench::try_start(Options { tls: Some(plan), ..Options::default() }).err().expect("problems");
    for expected in [
        "certificates[1]: ",
        "missing.crt cannot be read",
        "certificates[2]: ",
        "junk holds no certificate in PEM form",
        "certificates[3]: ",
        "junk holds no private key in PEM form",
        "certificates[4]: ",
        "does not belong to the certificate",
        "client_auth.ca: ",
    ] {
        assert!(words.contains(expected), "{expected} is not in\n{words}");
    }
    assert!(!words.contains("certificates[0]"));
}

#[test]
fn a_reload_keeps_the_socket_and_may_turn_tls_on() {
    let files = Files::new();
    let pair = files.issue("web", &["localhost"]);
    let bench = Bench::start(Options::default());
    let port = bench.port();
    let mut plain = connect(&bench);
    assert!(crate::bench::get(&mut plain, "/").ends_with("ok"));
    bench.reload(&Options { tls: Some(files.plan(vec![pair])), ..Options::default() }).expect("a good plan");
    assert_eq!(bench.port(), port, "an unchanged address is not bound again");
    let mut secured = hello(&bench, files.client(None, &[], false), "localhost").expect("a handshake");
    assert!(get(&mut secured, "/").ends_with("ok"));
    assert!(crate::bench::get(&mut plain, "/").ends_with("ok"), "the old connection goes on");
    let broken = files.plan(vec![(files.path("no"), files.path("no"))]);
    assert!(bench.reload(&Options { tls: Some(broken), ..Options::default() }).is_err());
    assert!(get(&mut secured, "/").ends_with("ok"));
}

#[test]
fn plain_http_on_a_tls_port_is_told_so_and_garbage_is_counted() {
    let files = Files::new();
    let bench = start(files.plan(vec![files.issue("web", &["localhost"])]));
    let mut plain = connect(&bench);
    plain.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").expect("a write");
    let told = read_to_end(&mut plain).expect("an orderly end");
    assert!(told.starts_with("HTTP/1.1 400 ") && told.contains("https://"), "{told}");
    let mut garbage = connect(&bench);
    garbage.write_all(&[0x16, 3, 1, 0, 5, 1, 2, 3, 4, 5, 6, 7]).expect("a write");
    let _ = read_to_end(&mut garbage); // an alert, then the end
    bench.until(|| bench.turned(Turned::Handshake) == 2);
}

#[test]
fn the_end_of_a_tls_connection_is_said() {
    // Goal: close_notify, so that a client can tell the end from a truncation.
    let files = Files::new();
    let bench = start(files.plan(vec![files.issue("web", &["localhost"])]));
    let mut client = hello(&bench, files.client(None, &[], false), "localhost").expect("a handshake");
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").expect("a write");
    let mut all = String::new();
    client.read_to_string(&mut all).expect("rustls reports a missing close_notify as an error");
    assert!(all.ends_with("ok"));
}

#[test]
fn idle_and_half_open_handshakes_do_not_block_others() {
    let files = Files::new();
    let pair = files.issue("web", &["localhost"]);
    // Goal: neither clients that say nothing nor more half-open handshakes than there are turns keep others out.
    let bench = Bench::start(Options { tls: Some(files.plan(vec![pair])), workers: 1, ..Options::default() });
    let silent: Vec<TcpStream> = (0..300).map(|_| connect(&bench)).collect();
    let mut half: Vec<TcpStream> = (0..300).map(|_| connect(&bench)).collect();
    for stream in &mut half {
        stream.write_all(&[0x16, 3, 1]).expect("a write");
    }
    let mut client = hello(&bench, files.client(None, &[], false), "localhost").expect("a handshake");
    client.sock.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
    assert!(get(&mut client, "/").ends_with("ok"));
    drop((silent, half));
}
