//! Pingora: a library, so what is configured is our program around it, `benches/peers/pingora`. One worker.

use super::super::scenario::Kind;
use super::Site;

pub fn pingora(site: &Site, kind: Kind) -> String {
    let Site { plain, tls, h2c, app, folder, .. } = site;
    let folder = folder.display();
    let mode = match kind {
        Kind::Bare | Kind::Routes | Kind::TwoWorkers => "bare",
        Kind::Defaults | Kind::Policies => "policies",
        Kind::Grpc => "grpc",
    };
    format!(
        "plain 127.0.0.1:{plain}\ntls 127.0.0.1:{tls}\nh2c 127.0.0.1:{h2c}\ncertificate {folder}/cert.pem\nkey {folder}/key.pem\n\
         app 127.0.0.1:{app}\nmode {mode}\nlog {folder}/log/access.log\n"
    )
}
