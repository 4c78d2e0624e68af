//! What is asked of every proxy. A scenario is the same bytes to each of them, and its figure is the processor time of
//! the proxy for one of its requests (or, for large bodies, the bytes it moves in a second of processor time).

/// How a client reaches the proxy.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    Plain,
    Tls,
    /// HTTP/2 with prior knowledge.
    H2c,
    /// HTTP/2 by ALPN.
    H2Tls,
    WebSocket,
    /// gRPC over HTTP/2 with prior knowledge.
    Grpc,
}

/// What a proxy is configured to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing but the proxying.
    Bare,
    /// Outrigger's defaults, its metrics and an access log; no other proxy has as much by default.
    Defaults,
    /// Every policy there is on top of that; of the others, the nearest equivalents.
    Policies,
    /// As [`Kind::Bare`], with 10,000 routes.
    Routes,
    /// As [`Kind::Bare`], before an app that speaks HTTP/2.
    Grpc,
    /// As [`Kind::Bare`], with two workers on all processors.
    TwoWorkers,
}

impl Kind {
    /// Whether it is also measured at rest and for its system calls.
    pub fn is_usual(self) -> bool {
        match self {
            Kind::Bare | Kind::Defaults | Kind::Policies => true,
            Kind::Routes | Kind::Grpc | Kind::TwoWorkers => false,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Kind::Bare => "bare",
            Kind::Defaults => "defaults",
            Kind::Policies => "policies",
            Kind::Routes => "10k routes",
            Kind::Grpc => "grpc",
            Kind::TwoWorkers => "2 workers",
        }
    }
}

#[derive(Clone, Copy)]
pub struct Scenario {
    pub name: &'static str,
    pub title: &'static str,
    pub wire: Wire,
    pub method: &'static str,
    pub path: &'static str,
    /// Bytes of the request's body.
    pub upload: usize,
    pub connections: usize,
    /// Requests at a time on one HTTP/2 connection.
    pub streams: usize,
    /// A new connection for every request.
    pub new_connection: bool,
    /// At a fixed rate, for latency, instead of as much as the connections carry.
    pub open_loop: bool,
    /// The kinds of configuration it is measured with.
    pub kinds: &'static [Kind],
}

impl Scenario {
    pub fn request(&self) -> Vec<u8> {
        let Scenario { method, path, .. } = self;
        let mut head =
            format!("{method} {path} HTTP/1.1\r\nHost: bench.example\r\nUser-Agent: bench\r\nAccept: */*\r\n");
        if self.upload > 0 {
            head.push_str(&format!("Content-Type: application/octet-stream\r\nContent-Length: {}\r\n", self.upload));
        }
        if self.new_connection {
            head.push_str("Connection: close\r\n");
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.resize(bytes.len() + self.upload, b'u');
        bytes
    }

    pub fn is_http2(&self) -> bool {
        match self.wire {
            Wire::H2c | Wire::H2Tls | Wire::Grpc => true,
            Wire::Plain | Wire::Tls | Wire::WebSocket => false,
        }
    }
}

const KEEP_ALIVE: Scenario = Scenario {
    name: "keepalive",
    title: "keep-alive, 1 KB",
    wire: Wire::Plain,
    method: "GET",
    path: "/1k",
    upload: 0,
    connections: 64,
    streams: 1,
    new_connection: false,
    open_loop: false,
    kinds: &[Kind::Bare, Kind::Defaults, Kind::Policies],
};

/// One of [`ALL`].
pub fn named(name: &str) -> &'static Scenario {
    ALL.iter().find(|scenario| scenario.name == name).expect("a scenario of the list")
}

pub static ALL: [Scenario; 14] = [
    KEEP_ALIVE,
    Scenario { name: "rate", title: "latency at a fixed rate, keep-alive, 1 KB", open_loop: true, ..KEEP_ALIVE },
    Scenario {
        name: "connect",
        title: "new connection each, 1 KB",
        new_connection: true,
        kinds: &[Kind::Bare],
        ..KEEP_ALIVE
    },
    Scenario {
        name: "upload",
        title: "upload, 16 KB",
        method: "POST",
        path: "/upload",
        upload: 16 * 1024,
        kinds: &[Kind::Bare],
        ..KEEP_ALIVE
    },
    Scenario {
        name: "download64k",
        title: "download, 64 KB",
        path: "/64k",
        connections: 16,
        kinds: &[Kind::Bare],
        ..KEEP_ALIVE
    },
    Scenario {
        name: "download10m",
        title: "download, 10 MB",
        path: "/10m",
        connections: 4,
        kinds: &[Kind::Bare],
        ..KEEP_ALIVE
    },
    Scenario { name: "tls", title: "TLS 1.3 keep-alive, 1 KB", wire: Wire::Tls, kinds: &[Kind::Bare], ..KEEP_ALIVE },
    Scenario {
        name: "handshake",
        title: "TLS 1.3 handshake each, 1 KB",
        wire: Wire::Tls,
        connections: 16,
        new_connection: true,
        kinds: &[Kind::Bare],
        ..KEEP_ALIVE
    },
    Scenario {
        name: "h2c",
        title: "HTTP/2 plain, 16 connections x 32 streams, 1 KB",
        wire: Wire::H2c,
        connections: 16,
        streams: 32,
        kinds: &[Kind::Bare],
        ..KEEP_ALIVE
    },
    Scenario {
        name: "h2",
        title: "HTTP/2 over TLS, 16 connections x 32 streams, 1 KB",
        wire: Wire::H2Tls,
        connections: 16,
        streams: 32,
        kinds: &[Kind::Bare],
        ..KEEP_ALIVE
    },
    Scenario {
        name: "grpc",
        title: "gRPC unary, 16 connections x 32 streams, 1 KB",
        wire: Wire::Grpc,
        path: "/bench.Echo/Say",
        connections: 16,
        streams: 32,
        kinds: &[Kind::Grpc],
        ..KEEP_ALIVE
    },
    Scenario {
        name: "websocket",
        title: "WebSocket messages, 1 KB each way",
        wire: Wire::WebSocket,
        kinds: &[Kind::Bare],
        ..KEEP_ALIVE
    },
    Scenario {
        name: "workers",
        title: "two workers, keep-alive, 1 KB",
        kinds: &[Kind::Bare, Kind::TwoWorkers],
        ..KEEP_ALIVE
    },
    Scenario {
        name: "routes",
        title: "10,000 routes, keep-alive, 1 KB",
        path: "/service5000/orders",
        kinds: &[Kind::Bare, Kind::Routes],
        ..KEEP_ALIVE
    },
];
