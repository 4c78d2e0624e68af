//! TLS towards the app: which roots to trust, which name to expect, which certificate to show.
//!
//! Built once when a plan is compiled and shared by all workers (session tickets with it). The provider is chosen here
//! by feature and handed to rustls explicitly: the process default panics when two providers are linked. There is
//! deliberately no switch that skips verification; a private CA is one line of configuration.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::connect::Alpn;

/// The cryptography of this build; `serve` uses the same one.
pub fn provider() -> Arc<CryptoProvider> {
    #[cfg(feature = "aws-lc")]
    return Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    #[cfg(all(feature = "ring", not(feature = "aws-lc")))]
    return Arc::new(rustls::crypto::ring::default_provider());
    #[cfg(not(any(feature = "aws-lc", feature = "ring")))]
    compile_error!("choose a TLS provider: feature `aws-lc` or feature `ring`");
}

/// Everything needed to open TLS connections to one upstream. Two are equal when they trust, show and expect the same.
pub struct ClientTls {
    name: ServerName<'static>,
    any: Arc<ClientConfig>,
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
    none: Arc<ClientConfig>,
    /// SHA-256 over name, roots and client certificate, so that a reload keeps the pools of unchanged upstreams.
    identity: [u8; 32],
}

impl ClientTls {
    /// `server_name` is what the certificate must be for; without it, the host of `authority`. `ca` is a PEM bundle
    /// that replaces the system's roots; `client` is a certificate chain and its key, both PEM.
    pub fn build(
        server_name: Option<&str>,
        authority: &str,
        ca: Option<&Path>,
        client: Option<(&Path, &Path)>,
    ) -> Result<Arc<ClientTls>, TlsProblem> {
        let mut hash = Sha256::new();
        let name = server_name.unwrap_or_else(|| host_of(authority));
        hash.update(name.as_bytes());
        let name = ServerName::try_from(name.to_owned()).map_err(|_| {
            TlsProblem::without_file(TlsTrouble::Name, format!("`{name}` is no DNS name or IP address"))
        })?;

        let roots = match ca {
            Some(path) => roots_of_file(path, &mut hash)?,
            None => system_roots()?,
        };
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsProblem::without_file(TlsTrouble::Provider, error.to_string()))?
            .with_root_certificates(roots);
        let mut config = match client {
            None => builder.with_no_client_auth(),
            Some((chain_path, key_path)) => {
                let (chain, key) = client_certificate(chain_path, key_path, &mut hash)?;
                builder
                    .with_client_auth_cert(chain, key)
                    .map_err(|error| TlsProblem::new(TlsTrouble::Pair, key_path, error.to_string()))?
            }
        };
        config.resumption = Resumption::in_memory_sessions(SESSIONS_MAX);
        Ok(Arc::new(ClientTls {
            name,
            any: offering(&config, &[b"h2", b"http/1.1"]),
            http1: offering(&config, &[b"http/1.1"]),
            http2: offering(&config, &[b"h2"]),
            none: offering(&config, &[]),
            identity: hash.finalize().into(),
        }))
    }

    /// What it trusts, shows and expects, as one number.
    pub fn identity(&self) -> &[u8; 32] {
        &self.identity
    }

    pub(super) async fn handshake<S>(&self, socket: S, alpn: Alpn) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let config = match alpn {
            Alpn::Any => &self.any,
            Alpn::Http1 => &self.http1,
            Alpn::Http2 => &self.http2,
            Alpn::None => &self.none,
        };
        TlsConnector::from(Arc::clone(config)).connect(self.name.clone(), socket).await
    }
}

impl PartialEq for ClientTls {
    fn eq(&self, other: &Self) -> bool {
        self.identity == other.identity
    }
}

impl Eq for ClientTls {}

impl std::hash::Hash for ClientTls {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.identity.hash(state);
    }
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("ClientTls").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Each offer has a session cache of its own: a session resumed under another ALPN list could pick the wrong protocol.
fn offering(config: &ClientConfig, protocols: &[&[u8]]) -> Arc<ClientConfig> {
    let mut config = config.clone();
    config.resumption = Resumption::in_memory_sessions(SESSIONS_MAX);
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    Arc::new(config)
}

/// `example.com:443` → `example.com`, `[::1]:443` → `::1`.
fn host_of(authority: &str) -> &str {
    if let Some((inside, _)) = authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return inside;
    }
    match authority.rsplit_once(':') {
        Some((host, _)) if !host.contains(':') => host,
        _ => authority,
    }
}

fn system_roots() -> Result<RootCertStore, TlsProblem> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Single broken files in a system's store are common and harmless; an empty store is not.
    let (added, _ignored) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        let why = found.errors.first().map_or_else(|| "none found".to_owned(), ToString::to_string);
        return Err(TlsProblem::without_file(TlsTrouble::SystemRoots, why));
    }
    Ok(roots)
}

fn roots_of_file(path: &Path, hash: &mut Sha256) -> Result<RootCertStore, TlsProblem> {
    let mut roots = RootCertStore::empty();
    hash.update(AS_CA);
    for certificate in certificates(path, hash)? {
        roots.add(certificate).map_err(|error| TlsProblem::new(TlsTrouble::Certificate, path, error.to_string()))?;
    }
    Ok(roots)
}

fn client_certificate(
    chain_path: &Path,
    key_path: &Path,
    hash: &mut Sha256,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsProblem> {
    hash.update(AS_CLIENT);
    let chain = certificates(chain_path, hash)?;
    let pem = read(key_path)?;
    let key = PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|_| TlsProblem::new(TlsTrouble::Key, key_path, "no private key in PEM form".to_owned()))?;
    Ok((chain, key))
}

/// Every certificate of a PEM file; at least one.
fn certificates(path: &Path, hash: &mut Sha256) -> Result<Vec<CertificateDer<'static>>, TlsProblem> {
    let pem = read(path)?;
    hash.update((pem.len() as u64).to_le_bytes());
    hash.update(&pem);
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(TlsProblem::new(TlsTrouble::Certificate, path, "no certificate in PEM form".to_owned())),
        Err(error) => Err(TlsProblem::new(TlsTrouble::Certificate, path, error.to_string())),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsProblem> {
    std::fs::read(path).map_err(|error| TlsProblem::new(TlsTrouble::File, path, error.to_string()))
}

/// What is wrong with TLS settings; never contains key material.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsProblem {
    pub trouble: TlsTrouble,
    /// The file it is about, if it is about one.
    pub file: Option<PathBuf>,
    pub detail: String,
}

/// The kind of a [`TlsProblem`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsTrouble {
    /// The server name is neither a DNS name nor an address.
    Name,
    /// A file cannot be read.
    File,
    /// A file holds no usable certificate.
    Certificate,
    /// A file holds no usable private key.
    Key,
    /// The key does not belong to the certificate.
    Pair,
    /// The system has no root certificates.
    SystemRoots,
    /// The cryptography provider of this build cannot do TLS 1.2/1.3.
    Provider,
}

impl TlsProblem {
    fn new(trouble: TlsTrouble, file: &Path, detail: String) -> Self {
        Self { trouble, file: Some(file.to_owned()), detail }
    }

    fn without_file(trouble: TlsTrouble, detail: String) -> Self {
        Self { trouble, file: None, detail }
    }
}

impl fmt::Display for TlsProblem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.trouble {
            TlsTrouble::Name => "the TLS server name is not usable",
            TlsTrouble::File => "cannot read a TLS file",
            TlsTrouble::Certificate => "no usable certificate",
            TlsTrouble::Key => "no usable private key",
            TlsTrouble::Pair => "the private key does not fit the certificate",
            TlsTrouble::SystemRoots => "the system has no root certificates; set `ca`",
            TlsTrouble::Provider => "the TLS provider is not usable",
        };
        match &self.file {
            Some(file) => write!(out, "{what}: {}: {}", file.display(), self.detail),
            None => write!(out, "{what}: {}", self.detail),
        }
    }
}

impl std::error::Error for TlsProblem {}

/// The same file means something else as what is trusted than as what is shown. No name has these bytes.
const AS_CA: &[u8] = b"\0ca\0";
const AS_CLIENT: &[u8] = b"\0client\0";

/// Sessions kept for resumption per upstream and offer.
const SESSIONS_MAX: usize = 64;
