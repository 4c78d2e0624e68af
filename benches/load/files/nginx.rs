//! nginx: one worker, keep-alive to the app.

use std::fmt::Write;

use super::super::scenario::Kind;
use super::{ROUTES, Site};

pub fn nginx(site: &Site, kind: Kind) -> String {
    let Site { plain, tls, h2c, app, folder, .. } = site;
    let folder = folder.display();
    let rest = match kind {
        Kind::Bare | Kind::Routes | Kind::Grpc | Kind::TwoWorkers => "access_log off;\n".to_owned(),
        Kind::Defaults | Kind::Policies => policies(site),
    };
    let routes = match kind {
        Kind::Bare | Kind::Defaults | Kind::Policies | Kind::Grpc | Kind::TwoWorkers => String::new(),
        Kind::Routes => routes(),
    };
    let pass = if kind == Kind::Grpc { "grpc_pass grpc" } else { "proxy_pass http" };
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
         location = /ws {{ proxy_set_header Connection upgrade; proxy_set_header Upgrade $http_upgrade; proxy_pass http://app; }}\n\
         {routes}location / {{ {pass}://app; }} }} }}\n"
    )
}

fn policies(site: &Site) -> String {
    let folder = site.folder.display();
    format!(
        "log_format json escape=json '{{\"time\":\"$time_iso8601\",\"id\":\"$request_id\",\"client\":\"$remote_addr\",\"method\":\"$request_method\",\"path\":\"$uri\",\"protocol\":\"$server_protocol\",\"status\":$status,\"bytes\":$body_bytes_sent,\"seconds\":$request_time,\"upstream\":\"$upstream_addr\",\"upstream_seconds\":\"$upstream_response_time\",\"host\":\"$host\",\"agent\":\"$http_user_agent\"}}';\n\
         access_log {folder}/log/access.log json buffer=64k flush=1s;\n\
         limit_req_zone $binary_remote_addr zone=per_client:10m rate=1000000r/s; limit_req zone=per_client burst=100000 nodelay;\n\
         proxy_connect_timeout 2s; proxy_send_timeout 15s; proxy_read_timeout 15s; client_header_timeout 10s; client_body_timeout 30s;\n\
         proxy_next_upstream error timeout http_502 http_503 http_504; proxy_next_upstream_tries 3;\n\
         add_header X-Content-Type-Options nosniff always; add_header X-Frame-Options SAMEORIGIN always; add_header Referrer-Policy strict-origin-when-cross-origin always; add_header X-Request-Id $request_id always; proxy_hide_header Server;\n\
         proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_set_header X-Forwarded-Proto $scheme; proxy_set_header X-Forwarded-Host $host; proxy_set_header X-Request-Id $request_id;\n"
    )
}

fn routes() -> String {
    let mut text = String::new();
    for number in 0..ROUTES {
        let _ = writeln!(text, "location /service{number}/ {{ proxy_pass http://app; }}"); // into a String: cannot fail
    }
    text
}
