//! Each proxy's configuration: first with nothing but the proxying, then with its nearest equivalent to what
//! Outrigger does by default (timeouts, retries, passive health, forwarding headers, request id, security headers,
//! a JSON access log). Nobody is given less than one processor's worth of connections or kept from reusing them.

use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateDer;
use tokio_rustls::TlsConnector;

use super::client;
use super::peers::free_port;

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
        let h2c = if name.starts_with("nginx") || name.starts_with("haproxy") { free_port() } else { plain };
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

pub fn outrigger(site: &Site, policies: bool) -> String {
    let Site { plain, tls, app, others: [ops, admin], folder, .. } = site;
    let folder = folder.display();
    let rest = if policies {
        format!("telemetry: {{ access_log: {{ to: {folder}/log/access.log }} }}\n")
    } else {
        "retry: { attempts: 1 }\nsecurity_headers: { preset: off }\ntelemetry: { access_log: { to: off } }\n".to_owned()
    };
    format!(
        "upstreams: {{ app: {{ endpoints: [\"http://127.0.0.1:{app}\"], pool: {{ idle_max: 512 }} }} }}\nworkers: 1\n\
         listeners:\n\
         - {{ name: plain, address: \"127.0.0.1:{plain}\", connections: {{ max: 20000 }} }}\n\
         - {{ name: tls, address: \"127.0.0.1:{tls}\", connections: {{ max: 20000 }}, tls: {{ certificates: [{{ certificate: {folder}/cert.pem, key: {folder}/key.pem }}] }} }}\n\
         ops: {{ address: \"127.0.0.1:{ops}\" }}\nadmin: {{ address: \"127.0.0.1:{admin}\" }}\n{rest}"
    )
}

pub fn nginx(site: &Site, policies: bool) -> String {
    let Site { plain, tls, h2c, app, folder, .. } = site;
    let folder = folder.display();
    let rest = if policies {
        format!(
            "log_format json escape=json '{{\"time\":\"$time_iso8601\",\"id\":\"$request_id\",\"client\":\"$remote_addr\",\"method\":\"$request_method\",\"path\":\"$uri\",\"protocol\":\"$server_protocol\",\"status\":$status,\"bytes\":$body_bytes_sent,\"seconds\":$request_time,\"upstream\":\"$upstream_addr\",\"upstream_seconds\":\"$upstream_response_time\",\"host\":\"$host\",\"agent\":\"$http_user_agent\"}}';\n\
             access_log {folder}/log/access.log json buffer=64k flush=1s;\n\
             proxy_connect_timeout 2s; proxy_send_timeout 15s; proxy_read_timeout 15s; client_header_timeout 10s; client_body_timeout 30s;\n\
             proxy_next_upstream error timeout http_502 http_503 http_504; proxy_next_upstream_tries 3;\n\
             add_header X-Content-Type-Options nosniff always; add_header X-Frame-Options SAMEORIGIN always; add_header Referrer-Policy strict-origin-when-cross-origin always; add_header X-Request-Id $request_id always; proxy_hide_header Server;\n\
             proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_set_header X-Forwarded-Proto $scheme; proxy_set_header X-Forwarded-Host $host; proxy_set_header X-Request-Id $request_id;\n"
        )
    } else {
        "access_log off;\n".to_owned()
    };
    format!(
        "daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log crit; worker_rlimit_nofile 40000;\n\
         events {{ worker_connections 39000; }}\n\
         http {{ keepalive_requests 100000000; keepalive_timeout 300s; proxy_max_temp_file_size 0;\n\
         client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;\n\
         {rest}\
         proxy_set_header Connection \"\"; proxy_set_header Host $host; proxy_http_version 1.1;\n\
         upstream app {{ server 127.0.0.1:{app}; keepalive 512; keepalive_requests 100000000; }}\n\
         server {{ listen 127.0.0.1:{plain}; listen 127.0.0.1:{h2c} http2; listen 127.0.0.1:{tls} ssl http2; ssl_protocols TLSv1.2 TLSv1.3;\n\
         ssl_certificate {folder}/cert.pem; ssl_certificate_key {folder}/key.pem;\n\
         location / {{ proxy_pass http://app; }} }} }}\n"
    )
}

pub fn haproxy(site: &Site, policies: bool) -> String {
    let Site { plain, tls, h2c, app, folder, .. } = site;
    let folder = folder.display();
    let (log, front, back) = if policies {
        (
            "  log stdout format raw local0\n",
            "  log global\n  unique-id-format %[uuid()]\n  unique-id-header X-Request-Id\n  option forwardfor\n  \
             http-request set-header X-Forwarded-Proto http\n  http-request set-header X-Forwarded-Host %[req.hdr(host)]\n  \
             http-response set-header X-Content-Type-Options nosniff\n  http-response set-header X-Frame-Options SAMEORIGIN\n  \
             http-response set-header Referrer-Policy strict-origin-when-cross-origin\n  http-response del-header Server\n  \
             http-response set-header X-Request-Id %[unique-id]\n  \
             log-format '{\"time\":\"%tr\",\"id\":\"%ID\",\"client\":\"%ci\",\"request\":%{+Q}r,\"status\":%ST,\"bytes\":%B,\"ms\":%Ta,\"backend\":\"%b\",\"server\":\"%s\",\"state\":\"%tsc\"}'\n",
            "  retries 2\n  retry-on conn-failure empty-response 502 503 504\n  option redispatch\n",
        )
    } else {
        ("", "", "")
    };
    let observe = if policies { " check observe layer7 error-limit 100 on-error mark-down inter 2s" } else { "" };
    format!(
        "global\n  nbthread 1\n  maxconn 18000\n  no strict-limits\n{log}defaults\n  mode http\n  timeout connect 2s\n  timeout client 300s\n  timeout server 15s\n  timeout http-request 10s\n  timeout http-keep-alive 300s\n\
         frontend in\n  bind 127.0.0.1:{plain}\n  bind 127.0.0.1:{h2c} proto h2\n  bind 127.0.0.1:{tls} ssl crt {folder}/both.pem alpn h2,http/1.1\n  maxconn 18000\n{front}  default_backend app\n\
         backend app\n{back}  http-reuse always\n  server app 127.0.0.1:{app}{observe}\n"
    )
}

pub fn envoy(site: &Site) -> String {
    let Site { plain, tls, app, folder, .. } = site;
    let folder = folder.display();
    let manager = "{ name: envoy.filters.network.http_connection_manager, typed_config: { \"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, stat_prefix: in, \
         http_filters: [{ name: envoy.filters.http.router, typed_config: { \"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router } }], \
         route_config: { virtual_hosts: [{ name: all, domains: [\"*\"], routes: [{ match: { prefix: / }, route: { cluster: app } }] }] } } }";
    let secure = format!(
        "{{ name: envoy.transport_sockets.tls, typed_config: {{ \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext, common_tls_context: {{ alpn_protocols: [h2, http/1.1], \
         tls_params: {{ tls_maximum_protocol_version: TLSv1_3 }}, tls_certificates: [{{ certificate_chain: {{ filename: {folder}/cert.pem }}, private_key: {{ filename: {folder}/key.pem }} }}] }} }} }}"
    );
    let address = |port: &u16| format!("{{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }}");
    format!(
        "static_resources:\n  listeners:\n\
         \x20 - {{ address: {}, filter_chains: [{{ filters: [{manager}] }}] }}\n\
         \x20 - {{ address: {}, filter_chains: [{{ filters: [{manager}], transport_socket: {secure} }}] }}\n\
         \x20 clusters:\n  - {{ name: app, connect_timeout: 2s, circuit_breakers: {{ thresholds: [{{ max_connections: 20000, max_pending_requests: 20000, max_requests: 20000 }}] }}, load_assignment: {{ cluster_name: app, endpoints: [{{ lb_endpoints: [{{ endpoint: {{ address: {} }} }}] }}] }} }}\n",
        address(plain),
        address(tls),
        address(app)
    )
}
