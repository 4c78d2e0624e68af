//! Certificates made on the spot, and clients that trust them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

/// A self-signed certificate and its key, as files.
pub struct Pair {
    pub certificate: PathBuf,
    pub key: PathBuf,
    pub der: CertificateDer<'static>,
}

impl Pair {
    /// Writes `NAME.crt` and `NAME.key` for these host names into `directory`, each file by a rename.
    pub fn write(directory: &Path, name: &str, hosts: &[&str]) -> Pair {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(hosts).expect("a certificate");
        let (certificate, key) = (directory.join(format!("{name}.crt")), directory.join(format!("{name}.key")));
        for (path, text) in [(&certificate, made.cert.pem()), (&key, made.signing_key.serialize_pem())] {
            let aside = path.with_extension("new");
            std::fs::write(&aside, text).expect("write a PEM file");
            std::fs::rename(&aside, path).expect("rename a PEM file");
        }
        let der = CertificateDer::from_pem_file(&certificate).expect("our own PEM");
        Pair { certificate, key, der }
    }
}

/// A client that trusts only these certificates.
pub fn client(trusted: &[&Pair], protocols: &[&str]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for pair in trusted {
        roots.add(pair.der.clone()).expect("a root");
    }
    let provider = Arc::new(provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config = builder.expect("versions").with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    Arc::new(config)
}

#[cfg(feature = "aws-lc")]
fn provider() -> rustls::crypto::CryptoProvider {
    rustls::crypto::aws_lc_rs::default_provider()
}

#[cfg(not(feature = "aws-lc"))]
fn provider() -> rustls::crypto::CryptoProvider {
    rustls::crypto::ring::default_provider()
}
