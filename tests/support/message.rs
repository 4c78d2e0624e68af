//! HTTP/1 messages as a careful third party reads them: heads with their bytes, bodies with the way they ended.

/// A message's first line and fields, names and values as they came (bytes as Latin-1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    pub first: String,
    pub fields: Vec<(String, String)>,
    pub raw: Vec<u8>,
}

impl Head {
    /// The head at the start of `bytes`, and how long it is; `None` while its end has not come.
    pub fn parse(bytes: &[u8]) -> Option<(Head, usize)> {
        let end = find(bytes, b"\r\n\r\n")? + 4;
        let text: String = bytes[..end - 4].iter().map(|byte| char::from(*byte)).collect();
        let mut lines = text.split("\r\n");
        let first = lines.next().unwrap_or_default().to_owned();
        let fields = lines.map(|line| {
            let (name, value) = line.split_once(':').unwrap_or((line, ""));
            (name.to_owned(), value.trim_matches([' ', '\t']).to_owned())
        });
        let fields = fields.collect();
        Some((Head { first, fields, raw: bytes[..end].to_vec() }, end))
    }

    /// The first value of a field.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Every value of a field, in order.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let named = self.fields.iter().filter(|(field, _)| field.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.as_str()).collect()
    }

    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    pub fn chunked(&self) -> bool {
        self.all("transfer-encoding").iter().any(|value| value.to_ascii_lowercase().contains("chunked"))
    }

    pub fn length(&self) -> Option<usize> {
        self.get("content-length").and_then(|value| value.parse().ok())
    }

    /// The word at a place of the first line.
    pub fn word(&self, place: usize) -> &str {
        self.first.split(' ').nth(place).unwrap_or_default()
    }
}

/// How a body ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyEnd {
    /// Its own framing said so.
    Whole,
    /// No framing; the connection was closed in order.
    Close,
    /// The connection was closed before the framing's end.
    Cut,
    /// The connection was reset.
    Reset,
    /// Nothing more came for `DEADLINE`.
    Deadline,
    /// The framing is wrong.
    Malformed,
}

#[derive(Clone, Debug)]
pub struct Request {
    pub head: Head,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
    pub end: BodyEnd,
    /// The connection it came on, from 0.
    pub connection: usize,
}

impl Request {
    pub fn method(&self) -> &str {
        self.head.word(0)
    }
    pub fn target(&self) -> &str {
        self.head.word(1)
    }
    pub fn version(&self) -> &str {
        self.head.word(2)
    }
    pub fn get(&self, name: &str) -> Option<&str> {
        self.head.get(name)
    }
}

#[derive(Clone, Debug)]
pub struct Response {
    /// 1xx heads that came before.
    pub interim: Vec<Head>,
    pub head: Head,
    pub status: u16,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
    pub end: BodyEnd,
}

impl Response {
    pub fn get(&self, name: &str) -> Option<&str> {
        self.head.get(name)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        let found = serde_json::from_slice(&self.body);
        found.unwrap_or_else(|problem| panic!("not JSON ({problem}): {:?} {}", self.head.first, self.text()))
    }

    /// The stable word of a refusal; empty when it is not one of Outrigger's.
    pub fn reason(&self) -> String {
        if self.get("content-type").is_none_or(|kind| !kind.starts_with("application/problem+json")) {
            return String::new();
        }
        self.json()["reason"].as_str().unwrap_or_default().to_owned()
    }
}

/// Decodes a chunked body at the start of `bytes`.
pub enum Chunked {
    /// More must come.
    Partial,
    Malformed,
    Whole {
        body: Vec<u8>,
        trailers: Vec<(String, String)>,
        used: usize,
    },
}

pub fn chunked(bytes: &[u8]) -> Chunked {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let Some(line) = find(&bytes[at..], b"\r\n") else { return Chunked::Partial };
        let size = String::from_utf8_lossy(&bytes[at..at + line]).into_owned();
        let digits = size.split(';').next().unwrap_or_default().trim().to_owned();
        let Ok(size) = usize::from_str_radix(&digits, 16) else { return Chunked::Malformed };
        at += line + 2;
        if size == 0 {
            return trailers(&bytes[at..], body, at);
        }
        if bytes.len() < at + size + 2 {
            return Chunked::Partial;
        }
        body.extend_from_slice(&bytes[at..at + size]);
        if &bytes[at + size..at + size + 2] != b"\r\n" {
            return Chunked::Malformed;
        }
        at += size + 2;
    }
}

fn trailers(bytes: &[u8], body: Vec<u8>, at: usize) -> Chunked {
    if bytes.starts_with(b"\r\n") {
        return Chunked::Whole { body, trailers: Vec::new(), used: at + 2 };
    }
    // A trailer section looks like a head without its first line.
    let mut head = b"x\r\n".to_vec();
    head.extend_from_slice(bytes);
    match Head::parse(&head) {
        Some((head, used)) => Chunked::Whole { body, trailers: head.fields, used: at + used - 3 },
        None => Chunked::Partial,
    }
}

/// What of a broken chunked body had come.
pub fn chunked_so_far(bytes: &[u8]) -> Vec<u8> {
    let (mut body, mut at) = (Vec::new(), 0);
    while let Some(line) = find(&bytes[at..], b"\r\n") {
        let digits = String::from_utf8_lossy(&bytes[at..at + line]).trim().to_owned();
        let Ok(size) = usize::from_str_radix(&digits, 16) else { break };
        at += line + 2;
        let end = (at + size).min(bytes.len());
        body.extend_from_slice(&bytes[at..end]);
        if end < at + size || bytes.len() < end + 2 {
            break;
        }
        at = end + 2;
    }
    body
}

/// A chunked body with one chunk per piece.
pub fn chunks(pieces: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    for piece in pieces {
        out.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        out.extend_from_slice(piece);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"0\r\n\r\n");
    out
}

pub fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes.windows(needle.len()).position(|window| window == needle)
}
