//! What is not a protocol: names, file systems, certificates. What may block, blocks a thread of its own.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Free, quoted};
use crate::core::units::Address;
use crate::upstream::io::Io;

pub(super) async fn dns(name: &str) -> Result<(), String> {
    match tokio::net::lookup_host((name, 0)).await.map(|mut found| found.next()) {
        Ok(Some(_)) => Ok(()),
        Ok(None) => Err(format!("{name} has no address")),
        Err(error) => Err(format!("{name} could not be resolved ({error})")),
    }
}

/// On a thread that may block for as long as a network file system likes to.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> Result<T, String> + Send + 'static) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| Err("the check itself failed".to_owned()))
}

pub(super) async fn disk(path: PathBuf, free_min: Free) -> Result<(), String> {
    let (free, total) = aside(move || space(&path)).await?;
    judge_space(free, total, free_min)
}

/// Bytes that anyone may use, and all of them.
fn space(path: &Path) -> Result<(u64, u64), String> {
    let found =
        rustix::fs::statvfs(path).map_err(|error| format!("{} cannot be looked at ({error})", path.display()))?;
    Ok((found.f_bavail.saturating_mul(found.f_frsize), found.f_blocks.saturating_mul(found.f_frsize)))
}

fn judge_space(free: u64, total: u64, free_min: Free) -> Result<(), String> {
    let share = if total == 0 { 1.0 } else { free as f64 / total as f64 };
    let (enough, wanted) = match free_min {
        Free::Share(least) => (share >= least, format!("{:.1}%", least * 100.0)),
        Free::Bytes(least) => (free >= least, gibibytes(least)),
    };
    let words = || {
        format!("only {} ({:.1}%) of {} is free, {wanted} is wanted", gibibytes(free), share * 100.0, gibibytes(total))
    };
    if enough { Ok(()) } else { Err(words()) }
}

fn gibibytes(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30))
}

pub(super) async fn certificate_file(path: PathBuf, valid_min: Duration, wall: SystemTime) -> Result<(), String> {
    let pem = path.clone();
    let text =
        aside(move || std::fs::read(&pem).map_err(|error| format!("{} cannot be read ({error})", pem.display())));
    let text = text.await?;
    let first = CertificateDer::pem_slice_iter(&text).next();
    let first = first.ok_or_else(|| format!("{} holds no certificate in PEM form", path.display()))?;
    let first = first.map_err(|error| format!("{} is not PEM ({error})", path.display()))?;
    judge_certificate(&first, &format!("the certificate in {}", path.display()), valid_min, wall)
}

/// Who it is for and who signed it was judged by the handshake.
pub(super) fn certificate_of(io: &Io, address: &Address, valid_min: Duration, wall: SystemTime) -> Result<(), String> {
    let shown = match io {
        Io::Tls(stream) => stream.get_ref().1.peer_certificates().and_then(<[_]>::first),
        Io::Plain(_) => None,
    };
    let shown = shown.ok_or_else(|| format!("{address} shows no certificate"))?;
    judge_certificate(shown, &format!("the certificate of {address}"), valid_min, wall)
}

fn judge_certificate(
    certificate: &CertificateDer<'_>,
    what: &str,
    valid_min: Duration,
    wall: SystemTime,
) -> Result<(), String> {
    let (_, parsed) = X509Certificate::from_der(certificate)
        .map_err(|error| format!("{what} is no X.509 ({})", quoted(&error.to_string())))?;
    let now = wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    let validity = parsed.validity();
    if validity.not_before.timestamp() > now {
        return Err(format!("{what} is not valid yet"));
    }
    let left = validity.not_after.timestamp().saturating_sub(now);
    let least = i64::try_from(valid_min.as_secs()).unwrap_or(i64::MAX);
    let day = 86_400;
    match left {
        left if left < 0 => Err(format!("{what} expired {} days ago", -left / day)),
        left if left < least => {
            Err(format!("{what} is valid for only {} days, {} are wanted", left / day, least / day))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn space_is_judged_by_share_or_bytes() {
        let gib = 1u64 << 30;
        assert_eq!(judge_space(10, 100, Free::Share(0.1)), Ok(()));
        assert_eq!(judge_space(0, 0, Free::Share(0.1)), Ok(()), "a file system without blocks has none to run out of");
        assert_eq!(judge_space(gib, 2 * gib, Free::Bytes(gib)), Ok(()));
        let words = judge_space(9 * gib, 100 * gib, Free::Share(0.1)).expect_err("9 %");
        assert_eq!(words, "only 9.0 GiB (9.0%) of 100.0 GiB is free, 10.0% is wanted");
        assert!(judge_space(gib - 1, 2 * gib, Free::Bytes(gib)).is_err());
        assert!(space(Path::new("/nonexistent")).is_err() && space(Path::new("/")).is_ok());
    }

    #[test]
    fn a_certificate_is_judged_to_the_second() {
        let made = rcgen::generate_simple_self_signed(["a.test".to_owned()]).expect("a certificate");
        let der = made.cert.der();
        let (_, parsed) = X509Certificate::from_der(der).expect("x509");
        let seconds = |at: i64| SystemTime::UNIX_EPOCH + Duration::from_secs(at as u64);
        let (begin, end) = (parsed.validity().not_before.timestamp(), parsed.validity().not_after.timestamp());
        let judged = |wall, least| judge_certificate(der, "it", Duration::from_secs(least), wall);
        assert!(judged(seconds(begin - 1), 0).expect_err("early").contains("not valid yet"));
        assert_eq!(judged(seconds(begin), 0), Ok(()));
        assert_eq!(judged(seconds(end - 100), 100), Ok(()));
        assert!(judged(seconds(end - 100), 101).expect_err("short").contains("valid for only 0 days"));
        assert!(judged(seconds(end + 86_400), 0).expect_err("late").contains("expired 1 days ago"));
        assert!(judge_certificate(&CertificateDer::from(vec![1, 2, 3]), "it", Duration::ZERO, seconds(end)).is_err());
    }
}
