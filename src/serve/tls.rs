//! TLS of a listener: which certificate for which name, who must show one, and how a changed file takes effect.
//!
//! A listener's whole rustls configuration is one `Arc`, swapped when a file changed and every check has passed; a
//! connection takes it once, when it is accepted. The key for session tickets outlives the swap, so that clients go on
//! resuming, except when the roots for client certificates changed: then a resumed session would carry an identity
//! that the new roots may not vouch for. 0-RTT stays off (a replay is not ours to judge). The crypto provider is always
//! named, never the process's default, which panics when two are compiled in.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::certificates::{self, Certificate, CertificateInfo, Fingerprint};
use super::stream::{Raw, Stream};
use crate::plan::{ClientAuth, TlsPlan};
use crate::proxy::TlsInfo;

#[cfg(feature = "aws-lc")]
use rustls::crypto::aws_lc_rs as provider;
#[cfg(all(feature = "ring", not(feature = "aws-lc")))]
use rustls::crypto::ring as provider;

/// From the first byte to the end of the handshake.
pub const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// What a handshake may take while all turns are taken.
const HANDSHAKE_FAIR: Duration = Duration::from_secs(1);
/// Handshakes in progress per worker; more wait for their turn inside their own time.
pub const HANDSHAKES_MAX: usize = 256;

/// A listener's TLS as it was loaded.
pub struct Loaded {
    pub plan: TlsPlan,
    pub config: Arc<ServerConfig>,
    pub certificates: Vec<CertificateInfo>,
    /// Of every file it was made from; the same means that nothing changed.
    pub fingerprint: Fingerprint,
    /// Of the client-auth rule and its roots.
    client_auth: Fingerprint,
}

/// Reads every file of `plan` and builds the configuration, keeping the ticket key of `previous` where that is safe.
/// All problems are returned, each with the part of the configuration it belongs to.
pub fn load(listener: &str, plan: &TlsPlan, previous: Option<&Loaded>) -> Result<Loaded, Vec<(String, String)>> {
    let provider = Arc::new(provider::default_provider());
    let mut seen = Sha256::new();
    let mut problems = Vec::new();
    let mut pairs = Vec::new();
    for (index, (certificate, key)) in plan.certificates.iter().enumerate() {
        match certificates::load(listener, certificate, key, &provider, &mut seen) {
            Ok(pair) => pairs.push(pair),
            Err(words) => problems.push((format!("certificates[{index}]"), words)),
        }
    }
    let mut auth_seen = Sha256::new();
    let roots = match roots(&plan.client_auth, &mut auth_seen) {
        Ok(roots) => roots,
        Err(words) => {
            problems.push(("client_auth.ca".to_owned(), words));
            None
        }
    };
    if !problems.is_empty() {
        return Err(problems);
    }
    let client_auth: Fingerprint = auth_seen.finalize().into();
    seen.update(client_auth);
    let infos = pairs.iter().map(|pair| pair.info.clone()).collect();
    let kept = previous.filter(|previous| previous.client_auth == client_auth);
    let ticketer = kept.map(|previous| Arc::clone(&previous.config.ticketer));
    let config = build(plan, &provider, pairs, roots, ticketer).map_err(|words| vec![(String::new(), words)])?;
    Ok(Loaded {
        plan: plan.clone(),
        config: Arc::new(config),
        certificates: infos,
        fingerprint: seen.finalize().into(),
        client_auth,
    })
}

fn roots(rule: &ClientAuth, seen: &mut Sha256) -> Result<Option<RootCertStore>, String> {
    let Some((mode, ca)) = client_auth(rule) else { return Ok(None) };
    seen.update(mode);
    let mut roots = RootCertStore::empty();
    for root in certificates::certificates(ca, &certificates::read(ca, seen)?)? {
        roots.add(root).map_err(|problem| format!("{} holds a root that cannot be used: {problem}", ca.display()))?;
    }
    Ok(Some(roots))
}

fn build(
    plan: &TlsPlan,
    provider: &Arc<CryptoProvider>,
    pairs: Vec<Certificate>,
    roots: Option<RootCertStore>,
    ticketer: Option<Arc<dyn ProducesTickets>>,
) -> Result<ServerConfig, String> {
    let both = [&rustls::version::TLS13, &rustls::version::TLS12];
    let versions = if plan.tls13_only { &both[..1] } else { &both[..] };
    let builder = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(versions)
        .map_err(|problem| problem.to_string())?;
    let builder = match roots {
        None => builder.with_no_client_auth(),
        Some(roots) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
            let verifier = match plan.client_auth {
                ClientAuth::Require(_) => verifier,
                ClientAuth::Off | ClientAuth::Request(_) => verifier.allow_unauthenticated(),
            };
            builder.with_client_cert_verifier(verifier.build().map_err(|problem| problem.to_string())?)
        }
    };
    let mut config = builder.with_cert_resolver(Arc::new(Names::new(pairs)));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ticketer = match ticketer {
        Some(ticketer) => ticketer,
        None => provider::Ticketer::new().map_err(|problem| problem.to_string())?,
    };
    // Tickets carry the sessions; a store would hold memory for each client that never comes back.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(config)
}

/// Chooses the certificate by the name the client asks for: exact, then wildcard, then the first of the file. Among
/// several for one name (RSA beside ECDSA), the first whose key the client can check.
#[derive(Debug)]
struct Names {
    exact: HashMap<String, Vec<Arc<CertifiedKey>>>,
    /// By the part after `*.`.
    wildcard: HashMap<String, Vec<Arc<CertifiedKey>>>,
    /// In the order of the file.
    all: Vec<Arc<CertifiedKey>>,
}

impl Names {
    fn new(pairs: Vec<Certificate>) -> Self {
        let mut names = Names { exact: HashMap::new(), wildcard: HashMap::new(), all: Vec::new() };
        for pair in pairs {
            let key = Arc::new(pair.key);
            for name in pair.info.names {
                let (table, name) = match name.strip_prefix("*.") {
                    Some(parent) => (&mut names.wildcard, parent.to_owned()),
                    None => (&mut names.exact, name),
                };
                table.entry(name).or_default().push(Arc::clone(&key));
            }
            names.all.push(key);
        }
        names
    }

    fn candidates(&self, name: Option<&str>) -> &[Arc<CertifiedKey>] {
        let Some(name) = name.map(|name| name.trim_end_matches('.').to_ascii_lowercase()) else { return &self.all };
        let wildcard = || self.wildcard.get(name.split_once('.')?.1);
        self.exact.get(&name).or_else(wildcard).map_or(&self.all, |found| found)
    }
}

impl ResolvesServerCert for Names {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let schemes = hello.signature_schemes();
        let candidates = self.candidates(hello.server_name());
        let fits = candidates.iter().find(|pair| pair.key.choose_scheme(schemes).is_some());
        fits.or(candidates.first()).cloned()
    }
}

/// Why there is no TLS connection.
pub enum HandshakeProblem {
    /// The client went away or sent nothing.
    Gone,
    /// The client speaks plain HTTP; the stream is given back to tell it so.
    PlainHttp(Raw),
    Failed(std::io::Error),
}

/// Makes the handshake. The caller bounds the time; `turns` bounds how many are under way.
pub async fn handshake(
    stream: Raw,
    config: Arc<ServerConfig>,
    turns: &Semaphore,
) -> Result<(Stream, TlsInfo, bool), HandshakeProblem> {
    // A client that has connected ahead of need must not hold a turn, so the first byte is waited for without one.
    let mut first = [0; 1];
    match stream.peek(&mut first).await {
        Ok(0) => return Err(HandshakeProblem::Gone),
        Ok(_) if first[0].is_ascii_uppercase() => return Err(HandshakeProblem::PlainHttp(stream)),
        Ok(_) => {}
        Err(problem) => return Err(HandshakeProblem::Failed(problem)),
    }
    // Closing the semaphore is nobody's business, so this cannot fail; if it did, the turn would not matter.
    let _turn = turns.acquire().await.ok();
    let mut accepting = pin!(TlsAcceptor::from(config).accept(stream));
    let stream = loop {
        match timeout(HANDSHAKE_FAIR, &mut accepting).await {
            Ok(done) => break done.map_err(HandshakeProblem::Failed)?,
            // Others wait, and a client in earnest would have been done: half-open handshakes must not hold them up.
            Err(_slow) if turns.available_permits() == 0 => {
                return Err(HandshakeProblem::Failed(std::io::ErrorKind::TimedOut.into()));
            }
            Err(_slow) => {}
        }
    };
    let (_, session) = stream.get_ref();
    let version = match session.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_2) => "1.2",
        _ => "1.3", // rustls speaks only these two
    };
    let client = session.peer_certificates().and_then(|chain| chain.first());
    let info = TlsInfo {
        version,
        server_name: session.server_name().map(str::to_owned),
        client_subject: client.and_then(certificates::subject),
    };
    let http2 = session.alpn_protocol() == Some(b"h2");
    Ok((Stream::Tls(Box::new(stream)), info, http2))
}

/// Every file of `plan`.
pub fn files(plan: &TlsPlan) -> Vec<PathBuf> {
    let pairs = plan.certificates.iter().flat_map(|(certificate, key)| [certificate.clone(), key.clone()]);
    pairs.chain(client_auth(&plan.client_auth).map(|(_, ca)| ca.to_owned())).collect()
}

/// What `Loaded::fingerprint` would be if the files were loaded now; `None` when one cannot be read.
pub fn fingerprint(plan: &TlsPlan) -> Option<Fingerprint> {
    let (mut seen, mut auth_seen) = (Sha256::new(), Sha256::new());
    for (certificate, key) in &plan.certificates {
        certificates::read(certificate, &mut seen).ok()?;
        certificates::read(key, &mut seen).ok()?;
    }
    if let Some((mode, ca)) = client_auth(&plan.client_auth) {
        auth_seen.update(mode);
        certificates::read(ca, &mut auth_seen).ok()?;
    }
    let client_auth: Fingerprint = auth_seen.finalize().into();
    seen.update(client_auth);
    Some(seen.finalize().into())
}

fn client_auth(client_auth: &ClientAuth) -> Option<(&'static [u8], &Path)> {
    match client_auth {
        ClientAuth::Off => None,
        ClientAuth::Request(ca) => Some((b"request", ca)),
        ClientAuth::Require(ca) => Some((b"require", ca)),
    }
}
