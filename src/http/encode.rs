//! Heads, chunks and trailers as bytes, appended to one buffer so that a head and a small body leave in one write.
//!
//! The frame written is the one that is asked for: Content-Length, Transfer-Encoding and Connection of the map give
//! way to it, so that a head can never announce another body than the one that follows (RFC 9112 §6). Everything else
//! is written as it stands in the map, in its order.

use http::header::HeaderMap;
use http::{Method, StatusCode};

use super::body::may_trail;
use crate::core::fields::{Fields, Marks};

/// How a body is framed on the way out, and what of it is still owed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writing {
    /// No body, and nothing is said of its length; a Content-Length that stands in the map tells of another method's
    /// body and stays (HEAD, 304).
    Nothing,
    /// No body, and no length may be told (1xx, 204).
    Never,
    /// This many bytes are owed.
    Length(u64),
    Chunked,
    /// The connection's end is the body's.
    UntilClose,
}

/// A body that is not what its head has announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mismatch;

/// What Connection says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persistence {
    /// What the version means by itself.
    Usual,
    Close,
    /// To an HTTP/1.0 client that asked for it.
    KeepAlive,
    /// What stands in the map: an upgrade.
    AsIs,
}

impl Writing {
    /// Counts data that is about to be written.
    pub fn owe(&mut self, data: usize) -> Result<(), Mismatch> {
        match self {
            Writing::Length(left) => {
                *left = left.checked_sub(data as u64).ok_or(Mismatch)?;
                Ok(())
            }
            Writing::Chunked | Writing::UntilClose => Ok(()),
            Writing::Nothing | Writing::Never => Err(Mismatch),
        }
    }

    /// Whether the body may end here.
    pub fn may_end(self) -> Result<(), Mismatch> {
        match self {
            Writing::Length(left) if left > 0 => Err(Mismatch),
            Writing::Length(_) | Writing::Nothing | Writing::Never | Writing::Chunked | Writing::UntilClose => Ok(()),
        }
    }

    pub fn is_chunked(self) -> bool {
        self == Writing::Chunked
    }
}

/// A response head, always of HTTP/1.1, whatever the client speaks (RFC 9112 §2.3). `reason` replaces the usual phrase.
pub fn response_head(
    out: &mut Vec<u8>,
    status: StatusCode,
    reason: Option<&[u8]>,
    headers: &Fields,
    (writing, persistence): (Writing, Persistence),
) {
    out.reserve(INITIAL + 48 * headers.len());
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    match reason {
        Some(reason) => out.extend_from_slice(reason),
        None => out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes()),
    }
    out.extend_from_slice(b"\r\n");
    fields(out, headers, writing, persistence);
}

/// A request head with its target in the form it is to be sent.
pub fn request_head(out: &mut Vec<u8>, method: &Method, target: &str, headers: &Fields, writing: Writing) {
    out.reserve(INITIAL + target.len() + 48 * headers.len());
    out.extend_from_slice(method.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    fields(out, headers, writing, Persistence::AsIs);
}

fn fields(out: &mut Vec<u8>, headers: &Fields, writing: Writing, persistence: Persistence) {
    const GIVE_WAY: Marks = Marks::of(&["connection", "transfer-encoding"]);
    let told = tells(headers, writing);
    if headers.may_have(&GIVE_WAY) || (!told && headers.contains("content-length")) {
        headers.write(out, |name| match name.length() {
            // By length first: most names are none of these. What stays behind is written below, if at all.
            10 => name.is("connection") && persistence != Persistence::AsIs,
            14 => name.is("content-length") && !told,
            17 => name.is("transfer-encoding"),
            _ => false,
        });
    } else {
        headers.write(out, |_| false);
    }
    match writing {
        Writing::Length(length) if !told => content_length(out, length),
        Writing::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        Writing::Length(_) | Writing::Nothing | Writing::Never | Writing::UntilClose => {}
    }
    match persistence {
        Persistence::Close => out.extend_from_slice(b"connection: close\r\n"),
        Persistence::KeepAlive => out.extend_from_slice(b"connection: keep-alive\r\n"),
        Persistence::Usual | Persistence::AsIs => {}
    }
    out.extend_from_slice(b"\r\n");
}

/// Whether the length that stands among the fields is the one to be written.
fn tells(headers: &Fields, writing: Writing) -> bool {
    match writing {
        Writing::Nothing => true,
        Writing::Length(length) => {
            let mut told = headers.get_all("content-length");
            let first = told.next();
            first.is_some_and(|first| first.as_bytes() == decimal(length, &mut [0; 20])) && told.next().is_none()
        }
        Writing::Never | Writing::Chunked | Writing::UntilClose => false,
    }
}

fn content_length(out: &mut Vec<u8>, length: u64) {
    out.extend_from_slice(b"content-length: ");
    out.extend_from_slice(decimal(length, &mut [0; 20]));
    out.extend_from_slice(b"\r\n");
}

/// A number's digits; 20 hold every number.
pub fn decimal(number: u64, digits: &mut [u8; 20]) -> &[u8] {
    let mut at = digits.len();
    let mut left = number;
    loop {
        at -= 1;
        digits[at] = b'0' + (left % 10) as u8; // below 10
        left /= 10;
        if left == 0 {
            return &digits[at..];
        }
    }
}

/// What stands before a chunk's data; [`CHUNK_END`] stands behind it.
pub fn chunk_head(out: &mut Vec<u8>, length: usize) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut shift = (usize::BITS - length.max(1).leading_zeros()).div_ceil(4) * 4;
    while shift > 0 {
        shift -= 4;
        out.push(DIGITS[(length >> shift) & 15]);
    }
    out.extend_from_slice(b"\r\n");
}

/// The last chunk with its trailers, less those that a trailer may not be.
pub fn last_chunk(out: &mut Vec<u8>, trailers: Option<&HeaderMap>) {
    out.extend_from_slice(b"0\r\n");
    for (name, value) in trailers.into_iter().flatten() {
        if may_trail(name) {
            out.extend_from_slice(name.as_str().as_bytes());
            out.extend_from_slice(b": ");
            out.extend_from_slice(value.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
    }
    out.extend_from_slice(b"\r\n");
}

pub const CHUNK_END: &[u8] = b"\r\n";
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
/// Room for a first line and the fields every message has.
const INITIAL: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&str, &str)| (name.parse::<http::HeaderName>().unwrap(), value.parse().unwrap());
        fields.iter().map(pair).collect()
    }

    fn response(fields: &[(&str, &str)], writing: Writing, persistence: Persistence) -> String {
        let mut out = Vec::new();
        response_head(&mut out, StatusCode::OK, None, &map(fields).into(), (writing, persistence));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_head_announces_exactly_the_body_that_follows() {
        let fields = [("x-a", "1"), ("content-length", "7"), ("transfer-encoding", "gzip"), ("connection", "x")];
        let usual = Persistence::Usual;
        let length = response(&fields, Writing::Length(5), usual);
        assert_eq!(length, "HTTP/1.1 200 OK\r\nx-a: 1\r\ncontent-length: 5\r\n\r\n");
        assert_eq!(
            response(&fields, Writing::Chunked, Persistence::Close),
            "HTTP/1.1 200 OK\r\nx-a: 1\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
        );
        assert_eq!(
            response(&fields, Writing::Nothing, usual),
            "HTTP/1.1 200 OK\r\nx-a: 1\r\ncontent-length: 7\r\n\r\n"
        );
        assert_eq!(response(&fields, Writing::Never, usual), "HTTP/1.1 200 OK\r\nx-a: 1\r\n\r\n");
        assert_eq!(
            response(&[], Writing::Length(0), Persistence::KeepAlive),
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: keep-alive\r\n\r\n"
        );
        assert_eq!(
            response(&[("connection", "upgrade")], Writing::Never, Persistence::AsIs),
            "HTTP/1.1 200 OK\r\nconnection: upgrade\r\n\r\n"
        );
    }

    #[test]
    fn numbers_are_written_without_leading_zeros() {
        for length in [0, 1, 9, 10, 15, 16, 255, 256, 4096, 65_535, 65_536, usize::MAX] {
            let mut out = Vec::new();
            chunk_head(&mut out, length);
            assert_eq!(String::from_utf8(out).unwrap(), format!("{length:x}\r\n"));
            let mut out = Vec::new();
            content_length(&mut out, length as u64);
            assert_eq!(String::from_utf8(out).unwrap(), format!("content-length: {length}\r\n"));
        }
    }

    #[test]
    fn a_trailer_cannot_frame_anything() {
        let mut out = Vec::new();
        last_chunk(&mut out, Some(&map(&[("x-sum", "1"), ("content-length", "9"), ("host", "evil")])));
        assert_eq!(out, b"0\r\nx-sum: 1\r\n\r\n");
    }

    #[test]
    fn a_body_that_is_not_as_announced_is_noticed() {
        let mut writing = Writing::Length(5);
        assert_eq!((writing.owe(3), writing.may_end()), (Ok(()), Err(Mismatch)));
        assert_eq!((writing.owe(2), writing.may_end()), (Ok(()), Ok(())));
        assert_eq!(writing.owe(1), Err(Mismatch));
        assert_eq!(Writing::Nothing.owe(1), Err(Mismatch));
    }
}
