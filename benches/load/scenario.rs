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
    /// Also measured with the peers' nearest equivalents to Outrigger's defaults.
    pub with_policies: bool,
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
            Wire::H2c | Wire::H2Tls => true,
            Wire::Plain | Wire::Tls => false,
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
    with_policies: true,
};

pub const ALL: [Scenario; 9] = [
    KEEP_ALIVE,
    Scenario {
        name: "connect",
        title: "new connection each, 1 KB",
        new_connection: true,
        with_policies: false,
        ..KEEP_ALIVE
    },
    Scenario {
        name: "upload",
        title: "upload, 16 KB",
        method: "POST",
        path: "/upload",
        upload: 16 * 1024,
        with_policies: false,
        ..KEEP_ALIVE
    },
    Scenario {
        name: "download64k",
        title: "download, 64 KB",
        path: "/64k",
        connections: 16,
        with_policies: false,
        ..KEEP_ALIVE
    },
    Scenario {
        name: "download10m",
        title: "download, 10 MB",
        path: "/10m",
        connections: 4,
        with_policies: false,
        ..KEEP_ALIVE
    },
    Scenario { name: "tls", title: "TLS 1.3 keep-alive, 1 KB", wire: Wire::Tls, with_policies: false, ..KEEP_ALIVE },
    Scenario {
        name: "handshake",
        title: "TLS 1.3 handshake each, 1 KB",
        wire: Wire::Tls,
        connections: 16,
        new_connection: true,
        with_policies: false,
        ..KEEP_ALIVE
    },
    Scenario {
        name: "h2c",
        title: "HTTP/2 plain, 16 connections x 32 streams, 1 KB",
        wire: Wire::H2c,
        connections: 16,
        streams: 32,
        with_policies: false,
        ..KEEP_ALIVE
    },
    Scenario {
        name: "h2",
        title: "HTTP/2 over TLS, 16 connections x 32 streams, 1 KB",
        wire: Wire::H2Tls,
        connections: 16,
        streams: 32,
        with_policies: false,
        ..KEEP_ALIVE
    },
];
