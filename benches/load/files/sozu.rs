//! sozu: one worker. It tells of each request by a field of its own (`Sozu-Id`) and `X-Request-Id` in every kind, since that
//! cannot be switched off. It has no limit of requests, only of connections by address.

use std::fmt::Write;

use super::super::process::open_files;
use super::super::scenario::Kind;
use super::{ROUTES, Site};

/// Connections of clients, if there may be twice as many open files: it does not start otherwise.
const CONNECTIONS: u64 = 20_000;
/// What the clients call it; without a name there is no certificate.
const NAME: &str = "bench.example";

const HEADERS: &str = ", headers = [{ position = \"response\", key = \"X-Content-Type-Options\", value = \"nosniff\" }, \
     { position = \"response\", key = \"X-Frame-Options\", value = \"SAMEORIGIN\" }, \
     { position = \"response\", key = \"Referrer-Policy\", value = \"strict-origin-when-cross-origin\" }, \
     { position = \"response\", key = \"Server\", value = \"\" }]";
const TIMEOUTS: &str = "front_timeout = 300\nconnect_timeout = 2\nback_timeout = 15\nrequest_timeout = 10\n\
     max_connection_attempts = 3\nmax_connections_per_ip = 100000\nretry_after = 1\n";

pub fn sozu(site: &Site, kind: Kind) -> String {
    let Site { plain, tls, app, folder, .. } = site;
    let folder = folder.display();
    // The access log is of the level "info", and nothing else switches it off.
    let (log, forwarded, headers) = match kind {
        Kind::Bare | Kind::Routes | Kind::Grpc | Kind::TwoWorkers => {
            ("log_level = \"error\"\ndisable_cluster_metrics = true\n".to_owned(), "none", "")
        }
        Kind::Defaults | Kind::Policies => {
            let log =
                format!("log_level = \"info\"\naccess_logs_target = \"file://{folder}/log/access.log\"\n{TIMEOUTS}");
            (log, "x_forwarded", HEADERS)
        }
    };
    let routes = match kind {
        Kind::Bare | Kind::Defaults | Kind::Policies | Kind::Grpc | Kind::TwoWorkers => 0,
        Kind::Routes => ROUTES,
    };
    let mut frontends = String::new();
    for port in [plain, tls] {
        let _ = writeln!(frontends, "  {{ address = \"127.0.0.1:{port}\", hostname = \"{NAME}\"{headers} }},"); // into a String
    }
    for number in 0..routes {
        let path = format!("/service{number}/");
        let _ =
            writeln!(frontends, "  {{ address = \"127.0.0.1:{plain}\", hostname = \"{NAME}\", path = \"{path}\" }},");
    }
    let connections = open_files().map_or(CONNECTIONS, |files| CONNECTIONS.min(files / 2));
    format!(
        "command_socket = \"{folder}/sozu.sock\"\nlog_target = \"stdout\"\n{log}\
         worker_count = 1\nworker_automatic_restart = false\nmax_connections = {connections}\nmax_buffers = 40000\n\
         [[listeners]]\nprotocol = \"http\"\naddress = \"127.0.0.1:{plain}\"\nforwarded_headers = \"{forwarded}\"\n\
         [[listeners]]\nprotocol = \"https\"\naddress = \"127.0.0.1:{tls}\"\nforwarded_headers = \"{forwarded}\"\nstrict_sni_binding = false\n\
         certificate = \"{folder}/cert.pem\"\nkey = \"{folder}/key.pem\"\n\
         [clusters.app]\nprotocol = \"http\"\nfrontends = [\n{frontends}]\nbackends = [{{ address = \"127.0.0.1:{app}\" }}]\n"
    )
}
