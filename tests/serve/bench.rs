//! A server in front of a scripted app, and clients that speak bytes.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use outrigger::config::settings::{self as wanted, Settings};
use outrigger::core::drain::Params;
use outrigger::core::switch::Position;
use outrigger::core::units::{Address, Rate, Ratio};
use outrigger::plan::Plan;
use outrigger::plan::compile::compile;
use outrigger::proxy::Shared;
use outrigger::serve::gate::Turned;
use outrigger::serve::listener::{Bound, Socket};
use outrigger::serve::{DrainReport, Server};
use outrigger::state::clock;
use outrigger::state::lifecycle::Stage;
use outrigger::state::states::States;
use outrigger::telemetry::{self, Telemetry};

pub const SOON: Duration = Duration::from_secs(10);

#[derive(Clone)]
pub struct Options {
    pub workers: usize,
    pub port: u16,
    pub unix: Option<PathBuf>,
    pub head: Duration,
    pub keep_alive: Duration,
    pub connections_max: usize,
    pub per_client: Option<usize>,
    pub proxy_protocol: bool,
    pub tls: Option<wanted::ServerTls>,
    /// The port comes from the service manager.
    pub inherited: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            workers: 2,
            port: 0,
            unix: None,
            head: SOON,
            keep_alive: SOON,
            connections_max: 1000,
            per_client: None,
            proxy_protocol: false,
            tls: None,
            inherited: false,
        }
    }
}

pub struct Bench {
    pub server: Server,
    pub shared: Arc<Shared>,
    app: u16,
}

fn route(name: &str, path: &str, body_max: Option<u64>) -> wanted::Route {
    wanted::Route {
        name: name.to_owned(),
        matches: wanted::RouteMatch { path: path.to_owned(), ..wanted::RouteMatch::default() },
        action: wanted::RouteAction::Forward { upstream: "app".to_owned(), rewrite_prefix: None },
        timeouts: defaults().timeouts,
        retry: defaults().retry,
        priority: outrigger::core::priority::Priority::Default,
        rate_limits: Vec::new(),
        body_max,
        flag: None,
        maintenance: Position::Open,
        request_headers: wanted::HeaderEdits::default(),
        response_headers: wanted::HeaderEdits::default(),
    }
}

fn defaults() -> wanted::RouteDefaults {
    let long = Duration::from_secs(100);
    wanted::RouteDefaults {
        timeouts: wanted::Timeouts {
            connect: SOON,
            request_body_rate_min: 1,
            request_body_grace: long,
            first_byte: long,
            idle: long,
            total: long,
        },
        retry: wanted::Retry {
            attempts: 1,
            conditions: wanted::RetryConditions {
                connect: false,
                reset: false,
                per_try_timeout: false,
                grpc_unavailable: false,
                statuses: Vec::new(),
            },
            per_try: None,
            backoff_base: Duration::ZERO,
            backoff_factor: 1.0,
            backoff_max: Duration::ZERO,
            body_max: 0,
            budget: wanted::RetryBudget {
                percent: Ratio(0.2),
                interval: Duration::from_secs(10),
                rate_min: Rate { count: 3, per: Duration::from_secs(1) },
                own: false,
            },
            hedge: wanted::Hedge { after: None, share_max: Ratio(0.01) },
        },
    }
}

fn upstream(app: u16) -> wanted::Upstream {
    let address = Address::Tcp { host: "127.0.0.1".to_owned(), port: app };
    wanted::Upstream {
        name: "app".to_owned(),
        endpoints: vec![wanted::Endpoint { authority: address.to_string(), address, tls: false }],
        protocol: wanted::UpstreamProtocol::Http1,
        health_check: None,
        balance: wanted::Balance::PeakEwma,
        resolve_refresh: None,
        pool: wanted::Pool { idle_max: 64, idle_timeout: SOON },
        circuit_breaker: wanted::CircuitBreaker {
            mode: wanted::Mode::Off,
            consecutive_failures: None,
            failure_rate: Ratio(0.5),
            slow_call: None,
            window: SOON,
            volume_min: 20,
            open_for_base: SOON,
            open_for_max: SOON,
            probes: 1,
            ramp: SOON,
        },
        hold: wanted::Hold { wait_max: Duration::ZERO, requests_max: 1 },
        concurrency_max: 10_000,
        adaptive: wanted::Adaptive { mode: wanted::Mode::Off, min: 1, max: 1 },
        queue: wanted::Queue { max: 0, wait_max: std::time::Duration::ZERO },
        tls: None,
    }
}

fn settings(options: &Options, app: u16) -> Settings {
    let here = Address::Tcp { host: "127.0.0.1".to_owned(), port: options.port };
    let proxy_protocol = if options.proxy_protocol { wanted::ProxyProtocol::Any } else { wanted::ProxyProtocol::Off };
    Settings {
        service: wanted::Service::default(),
        listeners: vec![wanted::Listener {
            name: "web".to_owned(),
            address: options.unix.clone().map_or_else(|| here.clone(), Address::Unix),
            redirect_to_https: None,
            tls: options.tls.clone(),
            proxy_protocol,
            connections_max: options.connections_max,
            connections_per_client_max: options.per_client,
            half_close: false,
            early_hints: true,
            upstream: None,
            direction: wanted::Direction::Inbound,
            request_header_timeout: options.head,
            keep_alive: options.keep_alive,
        }],
        trusted_proxies: Vec::new(),
        upstreams: vec![upstream(app)],
        rate_limits: Vec::new(),
        stores: Vec::new(),
        routes: vec![route("everything", "/*", None), route("early", "/early", Some(1000))],
        defaults: defaults(),
        security_headers: wanted::SecurityHeaders {
            preset: wanted::Preset::Off,
            set: Vec::new(),
            remove: Vec::new(),
            hsts_max_age: None,
        },
        dependencies: Vec::new(),
        health_on_listener: false,
        maintenance: wanted::Maintenance {
            mode: Position::Open,
            message: None,
            allow: Vec::new(),
            retry_after: Duration::from_secs(60),
        },
        flags: Vec::new(),
        access_log: wanted::AccessLog {
            to: wanted::LogTarget::Off,
            format: wanted::LogFormat::Json,
            sample_success: Ratio(0.0),
            redact_query: Vec::new(),
        },
        traces: wanted::Traces {
            otlp: None,
            sample: Ratio(0.0),
            keep_slow: None,
            keep_errors: false,
            propagate_b3: false,
        },
        ops: here.clone(),
        admin: wanted::Admin { address: here, token: None },
        state_directory: None,
        drain: wanted::Drain { delay: None, timeout: SOON },
        workers: None,
    }
}

fn quiet() -> telemetry::Options {
    outrigger::app::options::telemetry(&settings(&Options::default(), 1))
}

fn in_words(problems: &[outrigger::serve::ServeProblem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

impl Bench {
    pub fn start(options: Options) -> Bench {
        Bench::try_start(options).unwrap_or_else(|words| panic!("{words}"))
    }

    pub fn try_start(mut options: Options) -> Result<Bench, String> {
        let mut inherited = Vec::new();
        if options.inherited {
            let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
            options.port = socket.local_addr().expect("an address").port();
            inherited.push(Socket::Tcp(socket));
        }
        let app = app();
        let telemetry = Telemetry::start(quiet(), options.workers).map_err(|problem| problem.words)?;
        let states = Arc::new(States::default());
        let plan = compile(&settings(&options, app), "first", &states, &telemetry)
            .map_err(|problems| format!("{problems:?}"))?;
        let shared = Arc::new(Shared { states, telemetry, plans: ArcSwap::from_pointee(plan) });
        let server = Server::start(Arc::clone(&shared), options.workers, inherited).map_err(|p| p.to_string())?;
        let prepared = server.prepare(&shared.plans.load()).map_err(|problems| in_words(&problems))?;
        server.commit(prepared);
        shared.states.lifecycle.advance(Stage::Serving);
        Ok(Bench { server, shared, app })
    }

    pub fn reload(&self, options: &Options) -> Result<(), String> {
        let Shared { states, telemetry, .. } = &*self.shared;
        let plan = compile(&settings(options, self.app), "next", states, telemetry)
            .map_err(|problems| format!("{problems:?}"))?;
        let prepared = self.server.prepare(&plan).map_err(|problems| in_words(&problems))?;
        self.shared.plans.store(Arc::new(plan));
        self.server.commit(prepared);
        Ok(())
    }

    /// The plan in force, should anybody still have it.
    pub fn plan(&self) -> std::sync::Weak<Plan> {
        Arc::downgrade(&self.shared.plans.load_full())
    }

    pub fn port(&self) -> u16 {
        match &self.server.addresses()[0].1 {
            Bound::Tcp(address) => address.port(),
            Bound::Unix { .. } => 0,
        }
    }

    pub fn turned(&self, why: Turned) -> u64 {
        self.server.gates().iter().map(|(_, gate)| gate.turned(why)).sum()
    }

    pub fn open(&self) -> usize {
        self.server.gates().iter().map(|(_, gate)| gate.open()).sum()
    }

    pub fn in_flight(&self) -> usize {
        self.shared.states.lifecycle.in_flight()
    }

    pub fn stage(&self) -> String {
        format!("{:?}", self.shared.states.lifecycle.stage())
    }

    /// Waits until `condition` holds.
    pub fn until(&self, condition: impl Fn() -> bool) {
        let began = clock::now();
        while !condition() {
            assert!(clock::now() - began < SOON, "never happened");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    pub fn drain(&self, params: Params) -> DrainReport {
        self.block(outrigger::serve::drain(&self.server, &self.shared, params, std::future::pending::<()>()))
    }

    pub fn drain_aborted(&self, params: Params, after: Duration) -> DrainReport {
        self.block(async {
            outrigger::serve::drain(&self.server, &self.shared, params, tokio::time::sleep(after)).await
        })
    }

    fn block<T>(&self, work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(work)
    }

    pub fn shutdown(self) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(self.server.shutdown());
    }
}

/// An app that does what the path says, a thread for each connection.
fn app() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || drop(answers(stream)));
        }
    });
    port
}

fn answers(mut stream: TcpStream) -> std::io::Result<()> {
    loop {
        let mut head = Vec::new();
        let mut byte = [0; 1];
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let path = head.split(' ').nth(1).unwrap_or_default();
        // Read to its end: an answer before that would end the client's connection too.
        let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()?.parse().ok());
        stream.read_exact(&mut vec![0; length.unwrap_or(0)])?;
        let body = match path {
            "/truncate" => {
                stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\npart\r\n")?;
                std::thread::sleep(Duration::from_millis(50)); // so that the part is on its way alone
                return Ok(());
            }
            "/ws" => {
                stream.write_all(
                    b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
                )?;
                let mut frame = [0; 1024];
                loop {
                    let taken = stream.read(&mut frame)?;
                    stream.write_all(&frame[..taken])?;
                    if taken == 0 {
                        return Ok(());
                    }
                }
            }
            "/big" => "x".repeat(10_000_000),
            "/peer" => head.clone(),
            _ => {
                let pause = path.strip_prefix("/sleep/").and_then(|millis| millis.parse().ok());
                std::thread::sleep(Duration::from_millis(pause.unwrap_or(0)));
                "ok".to_owned()
            }
        };
        write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())?;
    }
}

pub fn connect(bench: &Bench) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", bench.port())).expect("a connection");
    stream.set_read_timeout(Some(SOON)).expect("a timeout");
    stream
}

/// One request on a kept connection.
pub fn get(client: &mut TcpStream, path: &str) -> String {
    write!(client, "GET {path} HTTP/1.1\r\nhost: a\r\n\r\n").expect("a write");
    answer(client)
}

/// One answer with a content-length.
pub fn answer(client: &mut impl Read) -> String {
    let mut all = Vec::new();
    let mut byte = [0; 1];
    while !all.ends_with(b"\r\n\r\n") {
        assert_eq!(client.read(&mut byte).expect("a byte of the head"), 1, "{}", String::from_utf8_lossy(&all));
        all.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&all).to_ascii_lowercase();
    let length = head
        .split("content-length: ")
        .nth(1)
        .and_then(|rest| rest.lines().next())
        .map_or(0, |text| text.trim().parse::<usize>().expect("a length"));
    let mut body = vec![0; length];
    client.read_exact(&mut body).expect("the body");
    all.extend(body);
    String::from_utf8_lossy(&all).into_owned()
}

pub fn read_to_end(client: &mut impl Read) -> std::io::Result<String> {
    let mut all = Vec::new();
    client.read_to_end(&mut all)?;
    Ok(String::from_utf8_lossy(&all).into_owned())
}
