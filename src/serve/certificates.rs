//! A certificate and its key, read from their files, checked as a pair, and what a person wants to know of them.
//!
//! Only what a server needs of X.509 is looked at: the names, the end of validity, the subject. Chains are not
//! verified here; that is the client's part.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Content of the files a TLS configuration was made from.
pub type Fingerprint = [u8; 32];

/// A certificate in use, for metrics, readiness and `status`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateInfo {
    /// Name of the listener.
    pub listener: String,
    /// DNS names and addresses of the subject alternative name.
    pub names: Vec<String>,
    pub not_after: SystemTime,
    pub path: PathBuf,
}

/// One loaded pair.
pub struct Certificate {
    pub key: CertifiedKey,
    pub info: CertificateInfo,
}

/// Reads and checks one pair; `Err` is for a person and never holds key material.
pub fn load(
    listener: &str,
    certificate: &Path,
    key: &Path,
    provider: &CryptoProvider,
    seen: &mut Sha256,
) -> Result<Certificate, String> {
    let chain = certificates(certificate, &read(certificate, seen)?)?;
    let private = PrivateKeyDer::from_pem_slice(&read(key, seen)?)
        .map_err(|problem| format!("{} holds no private key in PEM form: {problem}", key.display()))?;
    // At least one: `certificates` refuses an empty file.
    let (names, not_after) =
        inspect(&chain[0]).ok_or_else(|| format!("{} is not an X.509 certificate", certificate.display()))?;
    let pair = CertifiedKey::from_der(chain, private, provider).map_err(|problem| match problem {
        rustls::Error::InconsistentKeys(_) => {
            format!("the key in {} does not belong to the certificate in {}", key.display(), certificate.display())
        }
        other => format!("the pair {} and {} cannot be used: {other}", certificate.display(), key.display()),
    })?;
    let info = CertificateInfo { listener: listener.to_owned(), names, not_after, path: certificate.to_owned() };
    Ok(Certificate { key: pair, info })
}

/// Every certificate of a PEM text, at least one.
pub fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|problem| format!("{} is not PEM: {problem}", path.display()))?;
    if found.is_empty() { Err(format!("{} holds no certificate in PEM form", path.display())) } else { Ok(found) }
}

/// Reads a file and adds it to the fingerprint.
pub fn read(path: &Path, seen: &mut Sha256) -> Result<Vec<u8>, String> {
    let bytes = std::fs::read(path).map_err(|problem| format!("{} cannot be read: {problem}", path.display()))?;
    seen.update(u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_be_bytes());
    seen.update(&bytes);
    Ok(bytes)
}

/// The subject of a client's certificate, in the order it is written in (`CN=checkout, O=Example`).
pub fn subject(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    Some(parsed.subject().to_string())
}

fn inspect(certificate: &CertificateDer<'_>) -> Option<(Vec<String>, SystemTime)> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let seconds = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0);
    let not_after = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    let alternatives = parsed.subject_alternative_name().ok().flatten();
    let names = alternatives.map(|found| found.value.general_names.iter().filter_map(name).collect());
    Some((names.unwrap_or_default(), not_after))
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(name.trim_end_matches('.').to_ascii_lowercase()),
        GeneralName::IPAddress(octets) => {
            let v4 = <[u8; 4]>::try_from(*octets).map(std::net::IpAddr::from);
            let v6 = <[u8; 16]>::try_from(*octets).map(std::net::IpAddr::from);
            v4.or(v6).ok().map(|address| address.to_string())
        }
        // Not ours: the other kinds cannot name a server.
        _ => None,
    }
}
