//! Each proxy's configuration, for each kind of it. "Policies" is, for the others, the nearest equivalent to what
//! Outrigger does: timeouts, retries, passive health, forwarding headers, request id, security headers, a rate limit by
//! client address that never refuses, a JSON access log into a file or a pipe. What only Outrigger has (deadlines, trace
//! context, histograms, the breaker's windows, metrics by route) they go without. Nobody is given less than one
//! processor's worth of connections or kept from reusing them.

mod envoy;
mod haproxy;
mod nginx;
mod outrigger;
mod pingora;
mod sozu;

use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateDer;
use tokio_rustls::TlsConnector;

use super::client;
use super::ports::free_port;

pub use self::envoy::envoy;
pub use self::haproxy::haproxy;
pub use self::nginx::nginx;
pub use self::outrigger::outrigger;
pub use self::pingora::pingora;
pub use self::sozu::sozu;

/// Routes of [`super::scenario::Kind::Routes`].
const ROUTES: usize = 10_000;

/// The certificate all the proxies show.
#[derive(Clone)]
pub struct Certificate {
    der: CertificateDer<'static>,
    pem: String,
    key: String,
}

impl Certificate {
    pub fn new() -> Certificate {
        let made = rcgen::generate_simple_self_signed(vec!["bench.example".to_owned()]).expect("a certificate");
        Certificate { der: made.cert.der().clone(), pem: made.cert.pem(), key: made.signing_key.serialize_pem() }
    }

    pub fn connector(&self, alpn: &[&[u8]]) -> TlsConnector {
        client::connector(&self.der, alpn)
    }
}

/// Where one proxy listens, and its files.
pub struct Site {
    pub folder: PathBuf,
    pub plain: u16,
    pub tls: u16,
    /// The same as `plain` where a proxy tells HTTP/2 from HTTP/1 itself.
    pub h2c: u16,
    pub certificate: Certificate,
    app: u16,
    others: [u16; 2],
}

impl Site {
    pub fn new(scratch: &Path, name: &str, app: u16) -> Site {
        let folder = scratch.join(name.replace(' ', "-"));
        // The log has a folder of its own: Outrigger watches the one its configuration is in.
        std::fs::create_dir_all(folder.join("log")).expect("a folder in the scratch directory");
        let (plain, tls) = (free_port(), free_port());
        let of_its_own = ["nginx", "haproxy", "pingora"].iter().any(|program| name.starts_with(program));
        let h2c = if of_its_own { free_port() } else { plain };
        let certificate = Certificate::new();
        let site = Site { folder, plain, tls, h2c, certificate, app, others: [free_port(), free_port()] };
        std::fs::write(site.folder.join("cert.pem"), &site.certificate.pem).expect("a file");
        std::fs::write(site.folder.join("key.pem"), &site.certificate.key).expect("a file");
        let both = [site.certificate.pem.as_str(), site.certificate.key.as_str()].concat();
        std::fs::write(site.folder.join("both.pem"), both).expect("a file");
        site
    }

    pub fn write(&self, kind: &str, content: &str) -> String {
        let file = self.folder.join(format!("config.{kind}"));
        std::fs::write(&file, content).expect("a file in the scratch directory");
        file.display().to_string()
    }
}
