//! Pingora as a reverse proxy, for the bench: the shortest program that its documentation leads to, with whatever makes it
//! quicker and costs a user one line. One file of `key value` lines says where it listens, where the app is and what it
//! is to do: `bare` (nothing but the proxying), `policies`, or `grpc` (bare, HTTP/2 to the app).
//!
//! What is ours on a request's path is in `policies`; `bare` has nothing but the choice of the app's address. Pingora has no
//! routes of its own: a program matches paths itself, so there is no mode that measures them.

mod log;
mod policies;

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use pingora::apps::HttpServerOptions;
use pingora::listeners::tls::TlsSettings;
use pingora::modules::http::HttpModules;
use pingora::prelude::{HttpPeer, Result, Server};
use pingora::proxy::{ProxyHttp, Session, http_proxy_service};
use pingora::server::configuration::ServerConf;

use log::Log;
use policies::Policies;

/// As Outrigger's.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Streams that share one connection to an app that speaks HTTP/2; one is the default.
const STREAMS: usize = 100;

struct Settings {
    plain: String,
    tls: String,
    h2c: String,
    certificate: String,
    key: String,
    app: SocketAddr,
    mode: String,
    log: String,
}

impl Settings {
    fn read(file: &str) -> Settings {
        let text = std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{file}: {error}"));
        let value = |key: &str| {
            let mut pairs = text.lines().filter_map(|line| line.split_once(' '));
            let found = pairs.find(|(name, _)| *name == key).map(|(_, value)| value.to_owned());
            found.unwrap_or_else(|| panic!("{file}: no {key}"))
        };
        Settings {
            plain: value("plain"),
            tls: value("tls"),
            h2c: value("h2c"),
            certificate: value("certificate"),
            key: value("key"),
            app: value("app").parse().expect("the app's address"),
            mode: value("mode"),
            log: value("log"),
        }
    }
}

fn main() {
    let argument = std::env::args().nth(1).expect("a file of settings, or --version");
    if argument == "--version" {
        return println!("Pingora {}", version());
    }
    let settings = Settings::read(&argument);
    let conf = ServerConf {
        threads: 1,
        // One thread has nobody to steal from; the runtime without stealing has less to do.
        work_stealing: false,
        upstream_keepalive_pool_size: 512,
        max_retries: policies::RETRIES,
        grace_period_seconds: Some(0),
        graceful_shutdown_timeout_seconds: Some(1),
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let app = settings.app;
    match settings.mode.as_str() {
        "bare" => serve(&mut server, &settings, || Bare { app, http2: false }),
        "grpc" => serve(&mut server, &settings, || Bare { app, http2: true }),
        "policies" => {
            let policies = Arc::new(Policies::new(app, Log::open(&settings.log)));
            serve(&mut server, &settings, || policies::Proxy(policies.clone()));
        }
        other => panic!("no such mode: {other}"),
    }
    server.run_forever();
}

fn version() -> &'static str {
    let lock = include_str!("../Cargo.lock");
    let after = lock.split_once("name = \"pingora\"\nversion = \"").map_or("", |(_, after)| after);
    after.split('"').next().unwrap_or("")
}

/// HTTP/2 without TLS has a port of its own: telling it from HTTP/1 is a system call more for each connection.
fn serve<P>(server: &mut Server, settings: &Settings, proxy: impl Fn() -> P)
where
    P: ProxyHttp + Send + Sync + 'static,
    P::CTX: Send + Sync,
{
    let mut usual = http_proxy_service(&server.configuration, proxy());
    usual.add_tcp(&settings.plain);
    let mut tls = TlsSettings::intermediate(&settings.certificate, &settings.key).expect("a certificate and its key");
    tls.enable_h2();
    usual.add_tls_with_settings(&settings.tls, None, tls);
    server.add_service(usual);

    let mut h2c = http_proxy_service(&server.configuration, proxy());
    let mut options = HttpServerOptions::default();
    options.h2c = true;
    h2c.app_logic_mut().expect("nobody took it").server_options = Some(options);
    h2c.add_tcp(&settings.h2c);
    server.add_service(h2c);
}

struct Bare {
    app: SocketAddr,
    http2: bool,
}

#[async_trait]
impl ProxyHttp for Bare {
    type CTX = ();

    fn new_ctx(&self) {}

    /// Without the module for compression, which is there by default and does nothing.
    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    async fn upstream_peer(&self, _session: &mut Session, _ctx: &mut ()) -> Result<Box<HttpPeer>> {
        let mut peer = Box::new(HttpPeer::new(self.app, false, String::new()));
        if self.http2 {
            peer.options.set_http_version(2, 2);
            peer.options.max_h2_streams = STREAMS;
        }
        Ok(peer)
    }
}
