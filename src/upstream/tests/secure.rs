//! TLS: trust, names, protocol choice, client certificates.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::upstream::tls::{TlsTrouble, provider};
use crate::upstream::{ClientTls, SendError, probe};

const LONG: Duration = Duration::from_secs(5);

/// A CA, and certificates signed by it, as files.
struct Authority {
    dir: tempfile::TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("a CA");
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("ca.pem"), issuer.pem()).expect("a file");
        Self { dir, issuer }
    }

    fn ca(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// Certificate and key files for `name`.
    fn sign(&self, name: &str) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new([name.to_owned()]).expect("a name");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let (chain_path, key_path) =
            (self.dir.path().join(format!("{name}.pem")), self.dir.path().join(format!("{name}.key")));
        std::fs::write(&chain_path, certificate.pem()).expect("a file");
        std::fs::write(&key_path, key.serialize_pem()).expect("a file");
        (chain_path, key_path)
    }

    fn acceptor(&self, name: &str, alpn: &[&str], ask_client: bool) -> TlsAcceptor {
        let (chain, key) = self.sign(name);
        let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        let builder = builder.expect("protocol versions");
        let builder = if ask_client {
            let mut roots = RootCertStore::empty();
            roots.add(self.issuer.der().clone()).expect("a root");
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).build();
            builder.with_client_cert_verifier(verifier.expect("a verifier"))
        } else {
            builder.with_no_client_auth()
        };
        let mut config = builder.with_single_cert(vec![certificate(&chain)], private_key(&key)).expect("a usable pair");
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        TlsAcceptor::from(Arc::new(config))
    }
}

fn certificate(path: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(path).expect("a certificate")
}

fn private_key(path: &Path) -> PrivateKeyDer<'static> {
    PrivateKeyDer::from_pem_file(path).expect("a key")
}

/// A TLS app that says over which protocol it was asked; its handshakes may fail.
async fn secure_app(acceptor: TlsAcceptor) -> Address {
    let (address, _app) = app(async move |listener| {
        loop {
            let stream = accept(&listener).await;
            let acceptor = acceptor.clone();
            tokio::task::spawn_local(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let io = hyper_util::rt::TokioIo::new(stream);
                let service = hyper::service::service_fn(async |req: http::Request<hyper::body::Incoming>| {
                    let said = format!("{:?}", req.version());
                    Ok::<_, std::convert::Infallible>(http::Response::new(http_body_util::Full::new(Bytes::from(said))))
                });
                if io.inner().get_ref().1.alpn_protocol() == Some(b"h2") {
                    let builder = hyper::server::conn::http2::Builder::new(crate::upstream::rt::LocalExecutor);
                    let _ = builder.serve_connection(io, service).await;
                } else {
                    let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
                }
            });
        }
    })
    .await;
    address
}

fn secure_pool(address: &Address, tls: &Arc<ClientTls>, protocol: Protocol) -> Rc<Pool> {
    Pool::new(EndpointSpec { tls: Some(Arc::clone(tls)), ..spec(address.clone(), protocol) })
}

async fn version(pool: &Rc<Pool>) -> String {
    text(pool.send(&mut get("/"), how()).await.expect("a response")).await.expect("whole")
}

#[test]
fn alpn_chooses_the_protocol() {
    // Goal: Auto takes what the server prefers; Http1 never gets HTTP/2; many requests on a cold Auto pool work
    // whatever is chosen.
    on_a_worker(async {
        let authority = Authority::new();
        let tls = ClientTls::build(Some("app.test"), "", Some(&authority.ca()), None).expect("settings");
        let both = secure_app(authority.acceptor("app.test", &["h2", "http/1.1"], false)).await;
        let only1 = secure_app(authority.acceptor("app.test", &["http/1.1"], false)).await;
        let none = secure_app(authority.acceptor("app.test", &[], false)).await;
        assert_eq!(version(&secure_pool(&both, &tls, Protocol::Auto)).await, "HTTP/2.0");
        assert_eq!(version(&secure_pool(&both, &tls, Protocol::Http2)).await, "HTTP/2.0");
        assert_eq!(version(&secure_pool(&both, &tls, Protocol::Http1)).await, "HTTP/1.1");
        assert_eq!(version(&secure_pool(&none, &tls, Protocol::Auto)).await, "HTTP/1.1");
        let pool = secure_pool(&only1, &tls, Protocol::Auto);
        let all: Vec<_> = (0..5)
            .map(|_| {
                let pool = Rc::clone(&pool);
                tokio::task::spawn_local(async move { version(&pool).await })
            })
            .collect();
        for one in all {
            assert_eq!(one.await.expect("the task"), "HTTP/1.1");
        }
        assert_eq!(version(&pool).await, "HTTP/1.1");
        assert!(pool.counts().reused >= 1);
    });
}

#[test]
fn an_untrusted_or_misnamed_certificate_is_refused() {
    // Goal: system roots or another CA do not trust ours; a wrong name is refused; the probe says which.
    on_a_worker(async {
        let (authority, other) = (Authority::new(), Authority::new());
        let address = secure_app(authority.acceptor("app.test", &[], false)).await;
        let stranger = ClientTls::build(Some("app.test"), "", Some(&other.ca()), None).expect("settings");
        let error =
            secure_pool(&address, &stranger, Protocol::Auto).send(&mut get("/"), how()).await.expect_err("untrusted");
        assert!(matches!(error, SendError::ConnectFailed { .. }));
        assert_eq!((error.label(), error.was_never_written()), ("connect_tls", true));
        let check = async |tls: &ClientTls| {
            probe::http(&address, Some(tls), "app.test", "/", LONG).await.map_err(|unhealthy| unhealthy.reason)
        };
        assert_eq!(check(&stranger).await, Err("tls_untrusted"));
        let misnamed = ClientTls::build(None, "shop.test:8443", Some(&authority.ca()), None).expect("settings");
        assert_eq!(check(&misnamed).await, Err("tls_name"));
        let right = ClientTls::build(None, "app.test:8443", Some(&authority.ca()), None).expect("settings");
        assert_eq!(check(&right).await, Ok(()));
    });
}

#[test]
fn a_client_certificate_is_shown_when_there_is_one() {
    // Goal: mTLS passes with the certificate; without it the app ends the connection and the error is the app's.
    on_a_worker(async {
        let authority = Authority::new();
        let address = secure_app(authority.acceptor("app.test", &["http/1.1"], true)).await;
        let (chain, key) = authority.sign("client.test");
        let with =
            ClientTls::build(Some("app.test"), "", Some(&authority.ca()), Some((&chain, &key))).expect("settings");
        let without = ClientTls::build(Some("app.test"), "", Some(&authority.ca()), None).expect("settings");
        assert_ne!(with, without);
        assert_eq!(version(&secure_pool(&address, &with, Protocol::Http1)).await, "HTTP/1.1");
        let error =
            secure_pool(&address, &without, Protocol::Http1).send(&mut get("/"), how()).await.expect_err("refused");
        assert_eq!(error.side(), crate::upstream::Side::App, "{error:?}");
    });
}

#[test]
fn plain_http_and_silence_are_told_apart() {
    // Goal: an app that does not speak TLS, and one that never answers the handshake within the connect timeout.
    on_a_worker(async {
        let authority = Authority::new();
        let tls = ClientTls::build(Some("app.test"), "", Some(&authority.ca()), None).expect("settings");
        let (plain, _app) = app(async |listener| {
            let mut stream = accept(&listener).await;
            let mut hello = [0; 16];
            stream.read_exact(&mut hello).await.expect("a client hello");
            say(&mut stream, "HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n").await;
            wait_for_close(&mut stream).await;
        })
        .await;
        let unhealthy = probe::http(&plain, Some(&tls), "app.test", "/", LONG).await.expect_err("plain");
        assert_eq!(unhealthy.reason, "tls_not_spoken");
        let (silent, _app) = app(async |listener| {
            let _held = [accept(&listener).await, accept(&listener).await];
            std::future::pending::<()>().await;
        })
        .await;
        let how = SendHow { connect_timeout: Duration::from_millis(50), ..how() };
        for protocol in [Protocol::Auto, Protocol::Http1] {
            let error = secure_pool(&silent, &tls, protocol).send(&mut get("/"), how).await.expect_err("silent");
            assert_eq!(error.label(), "connect_timeout");
            assert!(error.was_never_written());
        }
    });
}

#[test]
fn settings_that_cannot_work_say_which_file() {
    // Goal: each trouble by its kind and file; equality follows content, so a reload keeps unchanged pools.
    let authority = Authority::new();
    let (ca, missing) = (authority.ca(), authority.dir.path().join("missing.pem"));
    let (chain, key) = authority.sign("client.test");
    let (_, other_key) = authority.sign("other.test");
    let trouble = |name: &str, ca: &Path, client: Option<(&Path, &Path)>| {
        let problem = ClientTls::build(Some(name), "", Some(ca), client).expect_err("a problem");
        (problem.trouble, problem.file)
    };
    assert_eq!(trouble("not a name", &ca, None), (TlsTrouble::Name, None));
    assert_eq!(trouble("a.test", &missing, None), (TlsTrouble::File, Some(missing.clone())));
    assert_eq!(trouble("a.test", &key, None), (TlsTrouble::Certificate, Some(key.clone())));
    assert_eq!(trouble("a.test", &ca, Some((&chain, &chain))), (TlsTrouble::Key, Some(chain.clone())));
    assert_eq!(trouble("a.test", &ca, Some((&chain, &other_key))), (TlsTrouble::Pair, Some(other_key.clone())));
    let build = |name: &str| ClientTls::build(None, name, Some(&ca), None).expect("settings");
    assert_eq!(build("a.test:1"), build("a.test:2"));
    assert_ne!(build("a.test"), build("b.test"));
    assert_eq!(build("[::1]:443").clone(), build("::1"));
    // Trusted or shown is not the same, whatever file it is.
    match ClientTls::build(Some("a.test"), "", None, Some((&chain, &key))) {
        Ok(shown) => {
            let trusted = ClientTls::build(Some("a.test"), "", Some(&chain), None).expect("settings");
            assert_ne!(shown, trusted);
        }
        Err(problem) => assert_eq!(problem.trouble, TlsTrouble::SystemRoots, "a machine without roots"),
    }
}
