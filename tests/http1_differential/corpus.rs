//! The messages: put together from parts that are right, odd and wrong, and mutations of them by a seeded generator.

/// Request lines.
const LINES: &[&str] = &[
    "GET / HTTP/1.1",
    "POST /a/b?c=d HTTP/1.1",
    "GET http://a/x HTTP/1.1",
    "OPTIONS * HTTP/1.1",
    "GET / HTTP/1.0",
    "get / HTTP/1.1",
    "M-SEARCH /%41?x=%20 HTTP/1.1",
    "CONNECT a:80 HTTP/1.1",
    "GET / HTTP/1.2",
    "GET / HTTP/2.0",
    "GET / http/1.1",
    "GET /",
    "GET  / HTTP/1.1",
    "GET /a b HTTP/1.1",
    "GET / HTTP/1.1 ",
    " GET / HTTP/1.1",
    "GET /a\tb HTTP/1.1",
    "GET /\u{e9} HTTP/1.1",
    "GET /{}|\"<> HTTP/1.1",
    "G(T / HTTP/1.1",
    "GET a HTTP/1.1",
    "",
];

/// Field lines beside Host.
const FIELDS: &[&str] = &[
    "",
    "X-One: 1",
    "x-one:1\r\nX-ONE:  2  ",
    "X: \t a b\t",
    "X:",
    "X: a\u{e9}b",
    "X : 1",
    "X y: 1",
    ": 1",
    "no colon",
    "X: a\0b",
    "X: a\x01b",
    "X: a\x7fb",
    "X: a\rb",
    "X: a\r\n b",
    "X: a\r\n\tb",
    " X: a",
    "X: a\nY: b",
    "X: a\r\r",
    "Host: b",
    "Connection: close",
    "Connection: keep-alive",
    "Connection: close, keep-alive\r\nConnection: x",
    "Expect: 100-continue",
    "Expect: a-pony",
    "TE: trailers",
    "Upgrade: websocket\r\nConnection: upgrade",
    "Upgrade: h2c\r\nConnection: upgrade",
];

/// Framing fields and the bytes that follow the head.
const BODIES: &[(&str, &str)] = &[
    ("", ""),
    ("Content-Length: 5", "hello"),
    ("Content-Length: 0", ""),
    ("content-length:005", "hello"),
    ("Content-Length: 5", "hel"),
    ("Content-Length: 5\r\nContent-Length: 5", "hello"),
    ("Content-Length: 5\r\nContent-Length: 6", "hello!"),
    ("Content-Length: 5, 5", "hello"),
    ("Content-Length: +5", "hello"),
    ("Content-Length: -5", "hello"),
    ("Content-Length: 0x5", "hello"),
    ("Content-Length: 5 5", "hello"),
    ("Content-Length:", "hello"),
    ("Content-Length: 18446744073709551616", "hello"),
    ("Transfer-Encoding: chunked", "5\r\nhello\r\n0\r\n\r\n"),
    ("Transfer-Encoding: Chunked", "5\r\nhello\r\nA\r\n0123456789\r\n0\r\n\r\n"),
    ("Transfer-Encoding: chunked", "5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n"),
    ("Transfer-Encoding: chunked", "0005\r\nhello\r\n000\r\n\r\n"),
    ("Transfer-Encoding: chunked", "5;a=b\r\nhello\r\n0\r\n\r\n"),
    ("Transfer-Encoding: chunked", "5 \r\nhello\r\n0\r\n\r\n"),
    ("Transfer-Encoding: chunked", " 5\r\nhello\r\n0\r\n\r\n"),
    ("Transfer-Encoding: chunked", "0x5\r\nhello\r\n0\r\n\r\n"),
    ("Transfer-Encoding: chunked", "5\nhello\r\n0\r\n\r\n"),
    ("Transfer-Encoding: chunked", "5\r\nhello\n0\r\n\r\n"),
    ("Transfer-Encoding: chunked", "5\r\nhelloX\r\n0\r\n\r\n"),
    ("Transfer-Encoding: chunked", "5\r\nhello\r\n0\r\n"),
    ("Transfer-Encoding: chunked", "5\r\nhel"),
    ("Transfer-Encoding: chunked", "fffffffffffffffff\r\nhello\r\n"),
    ("Transfer-Encoding: chunked", "5\r\nhello\r\n0\r\nx: a\x01\r\n\r\n"),
    ("Transfer-Encoding: chunked\r\nContent-Length: 5", "5\r\nhello\r\n0\r\n\r\n"),
    ("Content-Length: 5\r\nTransfer-Encoding: chunked", "0\r\n\r\n"),
    ("Transfer-Encoding: gzip, chunked", "0\r\n\r\n"),
    ("Transfer-Encoding: chunked, gzip", "0\r\n\r\n"),
    ("Transfer-Encoding: identity", "hello"),
    ("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked", "0\r\n\r\n"),
    ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "0\r\n\r\n"),
    ("Transfer-Encoding: xchunked", "0\r\n\r\n"),
    ("Transfer-Encoding: \x0bchunked", "0\r\n\r\n"),
    ("Transfer-Encoding:", "0\r\n\r\n"),
];

const STATUS_LINES: &[&str] = &[
    "HTTP/1.1 200 OK",
    "HTTP/1.1 200",
    "HTTP/1.1 200 ",
    "HTTP/1.0 200 OK",
    "HTTP/1.1 204 No Content",
    "HTTP/1.1 304 Not Modified",
    "HTTP/1.1 999 Blocked By Me",
    "HTTP/1.1 404 N\u{e9}",
    "HTTP/1.1 099 Low",
    "HTTP/1.1 20 Short",
    "HTTP/1.1 2000 Long",
    "HTTP/1.2 200 OK",
    "http/1.1 200 OK",
    "HTTP/1.1  200 OK",
    "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK",
    "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK",
    "ICY 200 OK",
];

/// What follows each request, so that a wrong end of it shows.
const BEHIND: &str = "GET /behind HTTP/1.1\r\nHost: behind\r\n\r\n";

fn message(line: &str, fields: &[&str], body: &str) -> Vec<u8> {
    let mut text = format!("{line}\r\n");
    for field in fields.iter().filter(|field| !field.is_empty()) {
        text.push_str(field);
        text.push_str("\r\n");
    }
    // Latin 1, so that bytes above 127 are one byte.
    format!("{text}\r\n{body}").chars().map(|letter| letter as u32 as u8).collect()
}

pub fn requests() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    let body = |body: &str| format!("{body}{BEHIND}");
    for line in LINES {
        for (frame, bytes) in BODIES {
            all.push(message(line, &["Host: a", frame], &body(bytes)));
        }
        for field in FIELDS {
            all.push(message(line, &["Host: a", field], &body("")));
        }
    }
    for line in &LINES[..5] {
        for field in FIELDS {
            for (frame, bytes) in &BODIES[..20] {
                all.push(message(line, &[field, "Host: a", frame], &body(bytes)));
            }
        }
    }
    for host in ["", "Host:", "Host: a b", "Host: u@a", "Host: [::1]:80", "Host: a:99999", "HOST: A.example."] {
        all.push(message("GET / HTTP/1.1", &[host], BEHIND));
        all.push(message("GET / HTTP/1.0", &[host], BEHIND));
    }
    for start in ["\r\n", "\r\n\r\n", "\n", "\r", " \r\n"] {
        all.push([start.as_bytes(), &message("GET / HTTP/1.1", &["Host: a"], BEHIND)].concat());
    }
    let good = message("POST / HTTP/1.1", &["Host: a", "X: 1", "Content-Length: 5"], "hello");
    all.extend((0..good.len()).map(|cut| good[..cut].to_vec()));
    for count in [98, 99, 100, 101] {
        let fields = vec!["x: y"; count];
        all.push(message("GET / HTTP/1.1", &[&["Host: a"], fields.as_slice()].concat(), BEHIND));
    }
    for size in [32_000, 32_768, 33_000, 70_000] {
        all.push(message("GET / HTTP/1.1", &["Host: a", &format!("x: {}", "x".repeat(size))], BEHIND));
    }
    all
}

pub fn responses() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for line in STATUS_LINES {
        for (frame, bytes) in BODIES {
            all.push(message(line, &["Server: x", frame], bytes));
        }
        for field in FIELDS {
            all.push(message(line, &[field], "until the end"));
        }
    }
    let good = message("HTTP/1.1 200 OK", &["X: 1", "Content-Length: 5"], "hello");
    all.extend((0..good.len()).map(|cut| good[..cut].to_vec()));
    all
}

/// `count` seeded mutations: bytes changed, dropped, doubled, and pieces of other messages put in.
pub fn mutations(corpus: &[Vec<u8>], count: usize, seed: u64) -> impl Iterator<Item = Vec<u8>> {
    let small: Vec<Vec<u8>> = corpus.iter().filter(|input| input.len() < 1000 && input.len() > 2).cloned().collect();
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as usize % below.max(1)
    };
    const ODD: &[u8] = b"\r\n\t \0\x0b\x7f\x80\xff:;,0159afAF-+_\"/%#?@[]{}chunkedHTTP";
    (0..count).map(move |_| {
        let mut bytes = small[random(small.len())].clone();
        for _ in 0..=random(3) {
            let at = random(bytes.len());
            match random(6) {
                0 => bytes[at] = ODD[random(ODD.len())],
                1 => bytes[at] = random(256) as u8,
                2 => drop(bytes.remove(at)),
                3 => bytes.insert(at, ODD[random(ODD.len())]),
                4 => {
                    let end = (at + 1 + random(20)).min(bytes.len());
                    let piece = bytes[at..end].to_vec();
                    bytes.splice(at..at, piece);
                }
                _ => {
                    let other = &small[random(small.len())];
                    let from = random(other.len());
                    let piece = other[from..(from + random(30)).min(other.len())].to_vec();
                    bytes.splice(at..at, piece);
                }
            }
            if bytes.is_empty() {
                bytes.push(b'\r');
            }
        }
        bytes
    })
}
