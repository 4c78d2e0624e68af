//! What `/metrics` shows of the sockets: connections of each listener, those turned away, and when certificates expire.

use std::sync::Arc;
use std::time::SystemTime;

use super::certificates::CertificateInfo;
use super::gate::{Gate, Turned};
use crate::telemetry::PrometheusWriter;

/// One listener.
pub struct Shown<'a> {
    pub name: Arc<String>,
    pub gate: &'a Gate,
    pub certificates: &'a [CertificateInfo],
}

pub fn write(listeners: &[Shown<'_>], out: &mut PrometheusWriter) {
    out.family("outrigger_listener_connections", "gauge", "Open client connections.");
    for Shown { name, gate, .. } in listeners {
        out.sample("outrigger_listener_connections", &[("listener", name)], gate.open() as f64);
    }
    out.family("outrigger_listener_connections_total", "counter", "Client connections accepted.");
    for Shown { name, gate, .. } in listeners {
        out.sample("outrigger_listener_connections_total", &[("listener", name)], gate.accepted() as f64);
    }
    let name = "outrigger_connections_closed_early_total";
    out.family(name, "counter", "Client connections that were closed without an answer of the app, and why.");
    for Shown { name: listener, gate, .. } in listeners {
        for why in Turned::ALL {
            out.sample(name, &[("listener", listener), ("reason", why.label())], gate.turned(why) as f64);
        }
    }
    if listeners.iter().any(|listener| !listener.certificates.is_empty()) {
        certificates(listeners, out);
    }
}

fn certificates(listeners: &[Shown<'_>], out: &mut PrometheusWriter) {
    let name = "outrigger_certificate_not_after_seconds";
    out.family(name, "gauge", "End of a certificate's validity, in seconds since the Unix epoch.");
    for certificate in listeners.iter().flat_map(|listener| listener.certificates) {
        let path = certificate.path.display().to_string();
        let since = certificate.not_after.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        out.sample(name, &[("listener", &certificate.listener), ("certificate", &path)], since.as_secs_f64());
    }
}
