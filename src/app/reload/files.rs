//! The files that a configuration reads, beside its own text: secrets, certificates, keys and CAs.

use std::path::{Path, PathBuf};

use crate::config::Loaded;
use crate::config::settings::{CertificateFiles, ClientAuth, Settings};

/// Every file whose content matters, each once.
pub fn watched(file: Option<&Path>, loaded: &Loaded) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = file.map(Path::to_owned).into_iter().collect();
    files.extend(loaded.watch.iter().cloned());
    files.extend(listeners(&loaded.settings));
    files.extend(compiled(&loaded.settings));
    files.sort();
    files.dedup();
    files
}

/// Of the listeners: taken into use without a new plan.
pub fn listeners(settings: &Settings) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for tls in settings.listeners.iter().filter_map(|listener| listener.tls.as_ref()) {
        for CertificateFiles { certificate, key } in &tls.certificates {
            files.extend([certificate.clone(), key.clone()]);
        }
        match &tls.client_auth {
            ClientAuth::Off => {}
            ClientAuth::Request { ca } | ClientAuth::Require { ca } => files.push(ca.clone()),
        }
    }
    files
}

/// Read when a plan is compiled.
pub fn compiled(settings: &Settings) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for tls in settings.upstreams.iter().filter_map(|upstream| upstream.tls.as_ref()) {
        files.extend(tls.ca.clone());
        if let Some(CertificateFiles { certificate, key }) = &tls.client_certificate {
            files.extend([certificate.clone(), key.clone()]);
        }
    }
    files
}
