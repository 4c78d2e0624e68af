//! nginx as the app: files, ranges, conditions, compression, large bodies, Unix sockets and HTTP/2.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::support::curl::curl;
use crate::support::tools::{self, Running};
use crate::support::{Outrigger, config, eventually};
use crate::{bytes, same};

const LARGE: usize = 8_000_000;

pub struct Nginx {
    _running: Running,
    pub address: SocketAddr,
    pub directory: TempDir,
}

/// nginx, on a free port and two Unix sockets; nothing when it is not installed.
pub fn nginx() -> Option<Nginx> {
    if !tools::have_tool("nginx") || !tools::have_tool("curl") {
        return None;
    }
    let directory = tempfile::tempdir().expect("a directory");
    files(directory.path());
    loop {
        // nginx cannot tell a port it has chosen itself; another may take this one first.
        let address = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
        let file = directory.path().join("nginx.conf");
        std::fs::write(&file, configuration(directory.path(), address)).expect("its configuration");
        let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin";
        let mut running = Running::start(Command::new("nginx").env("PATH", path).arg("-c").arg(&file));
        let listens = eventually("nginx listens", || {
            let up = TcpStream::connect(address).is_ok();
            (running.ended() || up).then_some(up)
        });
        if listens && !running.ended() {
            return Some(Nginx { _running: running, address, directory });
        }
        let said = running.stderr.text();
        assert!(said.contains("Address already in use"), "{said}");
    }
}

fn files(directory: &Path) {
    let write = |name: &str, bytes: &[u8]| std::fs::write(directory.join(name), bytes).expect("a file");
    write("index.html", "<!doctype html><h1 id=x>from nginx</h1>".repeat(100).as_bytes());
    write("large", &bytes(LARGE));
    write("empty", b"");
    std::fs::create_dir(directory.join("folder")).expect("a folder");
    write("folder/index.html", b"in a folder");
}

/// One process: workers would outlive a master that is killed.
fn configuration(directory: &Path, address: SocketAddr) -> String {
    let here = directory.display();
    format!(
        "daemon off; master_process off; pid {here}/pid; error_log stderr warn; events {{}}\nhttp {{ access_log off; \
         client_body_temp_path {here}/b; proxy_temp_path {here}/p; fastcgi_temp_path {here}/f; uwsgi_temp_path {here}/u; \
         scgi_temp_path {here}/s; types {{ text/html html; }} gzip on; gzip_proxied any; gzip_min_length 100; absolute_redirect off;\n\
         server {{ listen {address}; listen unix:{here}/socket; root {here}; add_header X-Asked $request_uri; }}\n\
         server {{ listen unix:{here}/http2 http2; root {here}; }} }}\n"
    )
}

#[test]
fn curl_sees_the_same_with_every_version_of_http() {
    let Some(nginx) = nginx() else { return };
    let outrigger = Outrigger::run(config(nginx.address, ""));
    let (direct, through) = (format!("http://{}", nginx.address), format!("http://{}", outrigger.web()));
    for (version, shown) in [("--http1.0", "1"), ("--http1.1", "1.1"), ("--http2-prior-knowledge", "2")] {
        for path in
            ["/index.html", "/", "/large", "/empty", "/missing", "/folder/", "/folder?a=b", "/index.html?a=%20&b"]
        {
            let without = curl(&["--http1.1"], &format!("{direct}{path}"));
            let with = curl(&[version], &format!("{through}{path}"));
            // curl shows HTTP/1.0 by the answer, and answers are HTTP/1.1 to an HTTP/1.0 client too.
            assert!(with.version == shown || version == "--http1.0", "{version} {path}: {with:?}");
            same(&without, &with, &format!("{version} {path}"));
        }
    }
}

#[test]
fn ranges_conditions_head_and_gzip_are_untouched() {
    let Some(nginx) = nginx() else { return };
    let outrigger = Outrigger::run(config(nginx.address, ""));
    let etag = curl(&[], &format!("http://{}/index.html", nginx.address)).get("etag").expect("a tag").to_owned();
    let (known, other) = (format!("If-None-Match: {etag}"), format!("If-Match: {etag}x"));
    let asked: &[(&[&str], &str, u16)] = &[
        (&["-r", "0-3"], "/large", 206),
        (&["-r", "7999990-"], "/large", 206),
        (&["-r", "-5"], "/large", 206),
        (&["-r", "8000000-"], "/large", 416),
        (&["-I"], "/large", 200),
        (&["-I"], "/missing", 404),
        (&["-H", &known], "/index.html", 304),
        (&["-H", &other], "/index.html", 412),
        (&["-H", "If-Modified-Since: Sat, 01 Jan 2050 00:00:00 GMT"], "/index.html", 200),
        (&["-H", "Accept-Encoding: gzip"], "/index.html", 200),
        (&["-H", "Accept-Encoding: gzip", "-I"], "/index.html", 200),
        (&["-X", "DELETE"], "/index.html", 405),
        (&["-X", "OPTIONS"], "/index.html", 405),
        (&["-d", "body"], "/index.html", 405),
    ];
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        for (arguments, path, status) in asked {
            let without = curl(arguments, &format!("http://{}{path}", nginx.address));
            let with = curl(&[&[version], *arguments].concat(), &format!("http://{}{path}", outrigger.web()));
            same(&without, &with, &format!("{version} {arguments:?} {path}"));
            assert_eq!(with.status, *status, "{version} {arguments:?} {path}");
        }
        let zipped = curl(&[version, "-H", "Accept-Encoding: gzip"], &format!("http://{}/index.html", outrigger.web()));
        assert_eq!(zipped.get("content-encoding"), Some("gzip"));
        assert!(zipped.body.starts_with(&[0x1f, 0x8b]) && zipped.body.len() < 500, "not as nginx sent it");
    }
}

#[test]
fn a_unix_socket_serves_as_well_as_a_port() {
    let Some(nginx) = nginx() else { return };
    for (socket, protocol) in [("socket", "auto"), ("http2", "http2")] {
        let endpoint = format!("unix:{}", nginx.directory.path().join(socket).display());
        let upstreams = format!("upstreams: {{ app: {{ endpoints: [\"{endpoint}\"], protocol: {protocol} }} }}\n");
        let outrigger = Outrigger::run(config("", &upstreams));
        for (version, path) in [("--http1.1", "/index.html"), ("--http2-prior-knowledge", "/large")] {
            let with = curl(&[version], &format!("http://{}{path}", outrigger.web()));
            assert_eq!(with.status, 200, "{socket} {version}: {}", with.text());
            let file = std::fs::read(nginx.directory.path().join(&path[1..])).expect("the file");
            assert!(with.body == file, "{socket} {version}: {} bytes, not {}", with.body.len(), file.len());
        }
    }
}
