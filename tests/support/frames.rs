//! HTTP/2 by hand: frames with any content, for what the h2 crate refuses to send.

use std::net::SocketAddr;

use super::wire::{End, Wire};

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a frame").to_be_bytes();
    let mut out = length[1..].to_vec();
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
    out
}

/// A header block of literals that nobody indexes; names and values as given.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        out.push(0);
        for text in [name, value] {
            string(&mut out, text.as_bytes());
        }
    }
    out
}

fn string(out: &mut Vec<u8>, bytes: &[u8]) {
    if bytes.len() < 127 {
        out.push(u8::try_from(bytes.len()).expect("short"));
    } else {
        out.push(127);
        let mut rest = bytes.len() - 127;
        while rest >= 128 {
            out.push(u8::try_from(rest % 128).expect("seven bits") | 128);
            rest /= 128;
        }
        out.push(u8::try_from(rest).expect("seven bits"));
    }
    out.extend_from_slice(bytes);
}

/// The fields every request needs.
pub const GET: &[(&str, &str)] = &[(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/")];

/// A connection whose preface and settings have been exchanged.
pub struct Frames {
    pub wire: Wire,
}

impl Frames {
    pub fn connect(address: SocketAddr) -> Frames {
        let mut wire = Wire::connect(address);
        wire.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        wire.send(frame(SETTINGS, 0, 0, &[]));
        Frames { wire }
    }

    pub fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> bool {
        self.wire.send(frame(kind, flags, stream, payload))
    }

    pub fn headers(&mut self, stream: u32, fields: &[(&str, &str)], end: bool) -> bool {
        self.send(HEADERS, END_HEADERS | if end { END_STREAM } else { 0 }, stream, &block(fields))
    }

    pub fn next(&mut self) -> Result<Frame, End> {
        let head = self.wire.exactly(9)?;
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
        let payload = self.wire.exactly(length)?;
        let frame = Frame { kind: head[3], flags: head[4], stream, payload };
        if frame.kind == SETTINGS && frame.flags == 0 {
            self.send(SETTINGS, 1, 0, &[]);
        }
        Ok(frame)
    }

    /// What became of a stream.
    pub fn outcome(&mut self, stream: u32) -> Outcome {
        let mut status = 0;
        loop {
            match self.next() {
                Ok(frame) if frame.kind == GOAWAY && error(&frame.payload[4..]) != 0 => return Outcome::Goaway,
                Ok(frame) if frame.kind == RST_STREAM && frame.stream == stream => {
                    return if status == 0 { Outcome::Reset } else { Outcome::ResetAfter(status) };
                }
                Ok(frame) if frame.stream == stream && (frame.kind == HEADERS || frame.kind == DATA) => {
                    if frame.kind == HEADERS && status == 0 {
                        status = status_of(&frame.payload);
                    }
                    if frame.flags & END_STREAM != 0 {
                        return Outcome::Answer(status);
                    }
                }
                Ok(_) => {}
                Err(End::Deadline) => return Outcome::Silence,
                Err(_) => return Outcome::Closed,
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A whole answer with this status.
    Answer(u16),
    Reset,
    ResetAfter(u16),
    Goaway,
    Closed,
    Silence,
}

impl Outcome {
    /// Refused in one of the ways that RFC 9113 knows.
    pub fn refused(self) -> bool {
        match self {
            Outcome::Answer(status) | Outcome::ResetAfter(status) => (400..500).contains(&status),
            Outcome::Reset | Outcome::Goaway | Outcome::Closed => true,
            Outcome::Silence => false,
        }
    }
}

fn error(bytes: &[u8]) -> u32 {
    bytes.get(..4).map_or(0, |code| u32::from_be_bytes([code[0], code[1], code[2], code[3]]))
}

/// The status of an answer's block: RFC 7541's static table, or a literal of three digits, plain or Huffman.
fn status_of(block: &[u8]) -> u16 {
    // A change of the table's size may stand first.
    let at = block.iter().position(|byte| byte & 0xe0 != 0x20).unwrap_or(0);
    let block = &block[at..];
    match block.first() {
        Some(index @ 0x88..=0x8e) => [200, 204, 206, 304, 400, 404, 500][usize::from(index - 0x88)],
        Some(_) => {
            let Some(length) = block.get(1) else { return 1 };
            let plain = length & 0x80 == 0;
            let text = block.get(2..2 + usize::from(length & 0x7f)).unwrap_or_default();
            if plain { String::from_utf8_lossy(text).parse().unwrap_or(1) } else { digits(text) }
        }
        None => 1,
    }
}

/// Three Huffman-coded digits: 0, 1 and 2 have five bits, the others six.
fn digits(bytes: &[u8]) -> u16 {
    let bits: Vec<u8> = bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1)).collect();
    let (mut at, mut status) = (0, 0);
    let code = |at: usize, length: usize| -> Option<u8> {
        Some(bits.get(at..at + length)?.iter().fold(0, |code, bit| code << 1 | bit))
    };
    for _ in 0..3 {
        if let Some(code @ 0..=2) = code(at, 5) {
            (at, status) = (at + 5, status * 10 + u16::from(code));
        } else if let Some(code @ 0x19..=0x1f) = code(at, 6) {
            (at, status) = (at + 6, status * 10 + u16::from(code - 0x19 + 3));
        } else {
            return 1;
        }
    }
    status
}
