//! What the listeners tell Prometheus: connections, those turned away, and when certificates end.

use std::collections::HashMap;
use std::time::SystemTime;

use super::gate::Turned;
use super::server::OpenListener;
use crate::telemetry::PrometheusWriter;

/// Writes the families of all open listeners, by slot.
pub(super) fn write(open: &HashMap<usize, OpenListener>, out: &mut PrometheusWriter) {
    let listeners: Vec<_> = open.values().map(|known| (known.shared.name(), &known.shared.gate)).collect();
    out.family("outrigger_listener_connections", "gauge", "Open client connections.");
    for (name, gate) in &listeners {
        out.sample("outrigger_listener_connections", &[("listener", name)], gate.open() as f64);
    }
    out.family("outrigger_listener_connections_total", "counter", "Client connections accepted.");
    for (name, gate) in &listeners {
        out.sample("outrigger_listener_connections_total", &[("listener", name)], gate.accepted() as f64);
    }
    out.family("outrigger_connections_closed_early_total", "counter", "Client connections that were turned away.");
    for (name, gate) in &listeners {
        for why in Turned::ALL {
            let labels = [("listener", name.as_str()), ("reason", why.label())];
            out.sample("outrigger_connections_closed_early_total", &labels, gate.turned(why) as f64);
        }
    }
    let certificates: Vec<_> =
        open.values().filter_map(|known| known.tls.as_ref()).flat_map(|tls| &tls.certificates).collect();
    if certificates.is_empty() {
        return;
    }
    let name = "outrigger_certificate_not_after_seconds";
    out.family(name, "gauge", "End of a certificate's validity, in seconds since the Unix epoch.");
    for certificate in certificates {
        let path = certificate.path.display().to_string();
        let since = certificate.not_after.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        out.sample(name, &[("listener", &certificate.listener), ("certificate", &path)], since.as_secs_f64());
    }
}
