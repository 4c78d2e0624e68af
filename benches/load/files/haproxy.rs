//! HAProxy: one thread, connections to the app shared. Its log goes to standard output: it writes no files itself.

use std::fmt::Write;

use super::super::scenario::Kind;
use super::{ROUTES, Site};

const POLICIES: &str = "  log global\n  unique-id-format %[uuid()]\n  unique-id-header X-Request-Id\n  option forwardfor\n  \
     stick-table type ip size 100k expire 30s store http_req_rate(10s)\n  http-request track-sc0 src\n  \
     http-request deny deny_status 429 if { sc_http_req_rate(0) gt 100000000 }\n  \
     http-request set-header X-Forwarded-Proto http\n  http-request set-header X-Forwarded-Host %[req.hdr(host)]\n  \
     http-response set-header X-Content-Type-Options nosniff\n  http-response set-header X-Frame-Options SAMEORIGIN\n  \
     http-response set-header Referrer-Policy strict-origin-when-cross-origin\n  http-response del-header Server\n  \
     http-response set-header X-Request-Id %[unique-id]\n  \
     log-format '{\"time\":\"%tr\",\"id\":\"%ID\",\"client\":\"%ci\",\"request\":%{+Q}r,\"status\":%ST,\"bytes\":%B,\"ms\":%Ta,\"backend\":\"%b\",\"server\":\"%s\",\"state\":\"%tsc\"}'\n";

pub fn haproxy(site: &Site, kind: Kind) -> String {
    let Site { plain, tls, h2c, app, folder, .. } = site;
    let (log, front, back, observe) = match kind {
        Kind::Bare | Kind::TwoWorkers => ("", String::new(), "", ""),
        Kind::Defaults | Kind::Policies => (
            "  log stdout format raw local0\n",
            POLICIES.to_owned(),
            "  retries 2\n  retry-on conn-failure empty-response 502 503 504\n  option redispatch\n",
            " check observe layer7 error-limit 100 on-error mark-down inter 2s",
        ),
        Kind::Routes => ("", routes(site), "", ""),
        Kind::Grpc => ("", String::new(), "", " proto h2"),
    };
    let folder = folder.display();
    format!(
        "global\n  nbthread 1\n  maxconn 18000\n  no strict-limits\n{log}defaults\n  mode http\n  timeout connect 2s\n  timeout client 300s\n  timeout server 15s\n  timeout http-request 10s\n  timeout http-keep-alive 300s\n\
         frontend in\n  bind 127.0.0.1:{plain}\n  bind 127.0.0.1:{h2c} proto h2\n  bind 127.0.0.1:{tls} ssl crt {folder}/both.pem alpn h2,http/1.1\n  maxconn 18000\n{front}  default_backend app\n\
         backend app\n{back}  http-reuse always\n  server app 127.0.0.1:{app}{observe}\n"
    )
}

/// By a map, which is its own way to many routes.
fn routes(site: &Site) -> String {
    let mut text = String::new();
    for number in 0..ROUTES {
        let _ = writeln!(text, "/service{number}/ app"); // into a String: cannot fail
    }
    let map = site.write("map", &text);
    format!("  use_backend %[path,map_beg({map},app)]\n")
}
