//! Where a body ends, and what is in it: by length, chunked, or until the connection closes (RFC 9112 §6, §7).
//!
//! Data is handed out as it stands in the buffer, without copying. Chunk sizes are hexadecimal digits and nothing
//! else; extensions are refused or bounded, as the caller wishes; trailers are bounded, and fields that a trailer may
//! not carry are dropped (RFC 9110 §6.5.1).

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::fields::FIELDS_MAX;
use super::head::{Framing, has_bare_lf};

/// Bytes of a line with a chunk's size.
pub const SIZE_LINE_MAX: usize = 1024;
/// Bytes of chunk extensions by which a body may be ahead of its data.
pub const EXTENSIONS_MAX: usize = 16 * 1024;
/// Bytes of a trailer section.
pub const TRAILERS_MAX: usize = 16 * 1024;

/// Chunk extensions, which nobody uses but those who look for a parser that skips them wrongly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extensions {
    Refused,
    /// Skipped, up to [`EXTENSIONS_MAX`].
    Skipped,
}

/// Why a body cannot be read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyProblem {
    ChunkSize,
    ChunkExtension,
    /// Something else than CRLF after a chunk's data.
    ChunkEnd,
    BareLf,
    Trailers,
    /// The connection ended before the body.
    Cut,
}

impl BodyProblem {
    /// The stable word.
    pub fn label(self) -> &'static str {
        match self {
            BodyProblem::ChunkSize => "chunk_size",
            BodyProblem::ChunkExtension => "chunk_extension",
            BodyProblem::ChunkEnd => "chunk_end",
            BodyProblem::BareLf => "bare_lf",
            BodyProblem::Trailers => "trailers",
            BodyProblem::Cut => "body_cut",
        }
    }
}

impl std::fmt::Display for BodyProblem {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(self.label())
    }
}

impl std::error::Error for BodyProblem {}

/// The next thing in a body.
#[derive(Debug)]
pub enum Piece {
    Data(Bytes),
    /// The last thing.
    Trailers(HeaderMap),
    End,
}

/// Reads one message's body.
#[derive(Debug)]
pub struct Body {
    at: At,
    extensions: Extensions,
    extension_bytes: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Length(u64),
    UntilClose,
    ChunkSize,
    ChunkData(u64),
    ChunkEnd,
    Trailers,
    Ended,
    Failed(BodyProblem),
}

impl Body {
    pub fn new(framing: Framing, extensions: Extensions) -> Self {
        let at = match framing {
            // Of an unclear body nothing is read.
            Framing::None | Framing::Unclear => At::Ended,
            Framing::Length(length) => At::Length(length),
            Framing::Chunked => At::ChunkSize,
            Framing::UntilClose => At::UntilClose,
        };
        Body { at, extensions, extension_bytes: 0 }
    }

    pub fn is_ended(&self) -> bool {
        self.at == At::Ended
    }

    /// Bytes still to come, where that is known.
    pub fn left(&self) -> Option<u64> {
        match self.at {
            At::Length(left) => Some(left),
            At::Ended => Some(0),
            At::UntilClose | At::ChunkSize | At::ChunkData(_) | At::ChunkEnd | At::Trailers | At::Failed(_) => None,
        }
    }

    /// The next piece in `buffer`; `None` when more bytes are needed. Bytes behind the body stay where they are.
    pub fn read(&mut self, buffer: &mut BytesMut) -> Result<Option<Piece>, BodyProblem> {
        self.step(buffer).inspect_err(|problem| self.at = At::Failed(*problem))
    }

    fn step(&mut self, buffer: &mut BytesMut) -> Result<Option<Piece>, BodyProblem> {
        loop {
            match self.at {
                At::Ended => return Ok(Some(Piece::End)),
                At::Failed(problem) => return Err(problem),
                At::Length(left) => {
                    let Some(data) = take(buffer, left) else { return Ok(None) };
                    let left = left - data.len() as u64;
                    self.at = if left == 0 { At::Ended } else { At::Length(left) };
                    return Ok(Some(Piece::Data(data)));
                }
                At::UntilClose => return Ok(take(buffer, u64::MAX).map(Piece::Data)),
                At::ChunkSize => {
                    let Some(line) = line(buffer, SIZE_LINE_MAX, BodyProblem::ChunkSize)? else { return Ok(None) };
                    self.at = match self.size(&line)? {
                        0 => At::Trailers,
                        size => At::ChunkData(size),
                    };
                }
                At::ChunkData(left) => {
                    let Some(data) = take(buffer, left) else { return Ok(None) };
                    let left = left - data.len() as u64;
                    self.at = if left == 0 { At::ChunkEnd } else { At::ChunkData(left) };
                    self.extension_bytes = self.extension_bytes.saturating_sub(data.len());
                    return Ok(Some(Piece::Data(data)));
                }
                At::ChunkEnd => match (buffer.first(), buffer.get(1)) {
                    (Some(b'\r'), Some(b'\n')) => {
                        let _ = buffer.split_to(2);
                        self.at = At::ChunkSize;
                    }
                    (None, _) | (Some(b'\r'), None) => return Ok(None),
                    (Some(_), _) => return Err(BodyProblem::ChunkEnd),
                },
                At::Trailers => {
                    let trailers = trailers(buffer)?;
                    if trailers.is_some() {
                        self.at = At::Ended;
                    }
                    let piece = |map: HeaderMap| if map.is_empty() { Piece::End } else { Piece::Trailers(map) };
                    return Ok(trailers.map(piece));
                }
            }
        }
    }

    /// Takes the end of a chunked body if it lies in `buffer` right behind the data that was read last, so that whoever
    /// passes that data on knows that nothing follows.
    pub fn take_end(&mut self, buffer: &mut BytesMut) {
        if self.at == At::ChunkEnd && buffer.starts_with(b"\r\n0\r\n\r\n") {
            let _ = buffer.split_to(7);
            self.at = At::Ended;
        }
    }

    /// Bytes that are sure to come before anything has to be understood again.
    pub fn coming(&self) -> u64 {
        match self.at {
            At::Length(left) | At::ChunkData(left) => left,
            At::UntilClose | At::ChunkSize | At::ChunkEnd | At::Trailers | At::Ended | At::Failed(_) => 0,
        }
    }

    /// The connection has ended: fine for a body that ends with it, a truncation for every other.
    pub fn end_of_input(&mut self) -> Result<(), BodyProblem> {
        match self.at {
            At::Ended | At::UntilClose => {
                self.at = At::Ended;
                Ok(())
            }
            At::Failed(problem) => Err(problem),
            At::Length(_) | At::ChunkSize | At::ChunkData(_) | At::ChunkEnd | At::Trailers => {
                self.at = At::Failed(BodyProblem::Cut);
                Err(BodyProblem::Cut)
            }
        }
    }

    /// RFC 9112 §7.1: hexadecimal digits, and extensions if they are allowed.
    fn size(&mut self, line: &[u8]) -> Result<u64, BodyProblem> {
        let digits = match line.iter().position(|byte| *byte == b';') {
            // Old servers pad the size with blanks.
            None if self.extensions == Extensions::Skipped => trim_blanks(line),
            None => line,
            Some(_) if self.extensions == Extensions::Refused => return Err(BodyProblem::ChunkExtension),
            Some(at) => {
                let extension = &line[at..];
                self.extension_bytes += extension.len();
                let plain = extension.iter().all(|byte| *byte == b'\t' || (*byte >= 0x20 && *byte != 0x7f));
                if self.extension_bytes > EXTENSIONS_MAX || !plain {
                    return Err(BodyProblem::ChunkExtension);
                }
                // BWS before an extension (RFC 9112 §7.1.1) belongs to it.
                trim_blanks(&line[..at])
            }
        };
        if digits.is_empty() || digits.len() > 16 {
            return Err(BodyProblem::ChunkSize);
        }
        digits.iter().try_fold(0u64, |size, digit| {
            let digit = char::from(*digit).to_digit(16).ok_or(BodyProblem::ChunkSize)?;
            Ok(size << 4 | u64::from(digit))
        })
    }
}

/// Without the blanks and tabs at its end; what else ASCII calls white is not for a line.
fn trim_blanks(mut line: &[u8]) -> &[u8] {
    while let [rest @ .., b' ' | b'\t'] = line {
        line = rest;
    }
    line
}

/// At most `left` bytes of what there is.
fn take(buffer: &mut BytesMut, left: u64) -> Option<Bytes> {
    if buffer.is_empty() {
        return None;
    }
    let count = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
    Some(buffer.split_to(count).freeze())
}

/// The next line without its CRLF.
fn line(buffer: &mut BytesMut, max: usize, too_long: BodyProblem) -> Result<Option<BytesMut>, BodyProblem> {
    let Some(end) = buffer.iter().take(max).position(|byte| *byte == b'\n') else {
        // A CR that is not the last byte is bare whatever follows.
        let bare = buffer.len() > 1 && buffer[..buffer.len() - 1].iter().take(max).any(|byte| *byte == b'\r');
        return if buffer.len() >= max || bare { Err(too_long) } else { Ok(None) };
    };
    let mut line = buffer.split_to(end + 1);
    if end == 0 || line[end - 1] != b'\r' {
        return Err(BodyProblem::BareLf);
    }
    line.truncate(end - 1);
    Ok(Some(line))
}

/// The trailer section, once it is complete.
fn trailers(buffer: &mut BytesMut) -> Result<Option<HeaderMap>, BodyProblem> {
    if buffer.starts_with(b"\r\n") {
        let _ = buffer.split_to(2);
        return Ok(Some(HeaderMap::new()));
    }
    let mut found = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let (length, map) = match httparse::parse_headers(buffer, &mut found) {
        Ok(httparse::Status::Complete((length, fields))) => (length, trailer_map(fields)?),
        Ok(httparse::Status::Partial) if buffer.len() >= TRAILERS_MAX => return Err(BodyProblem::Trailers),
        Ok(httparse::Status::Partial) if has_bare_lf(buffer) => return Err(BodyProblem::BareLf),
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(BodyProblem::Trailers),
    };
    if length > TRAILERS_MAX {
        return Err(BodyProblem::Trailers);
    }
    if has_bare_lf(&buffer[..length]) {
        return Err(BodyProblem::BareLf);
    }
    let _ = buffer.split_to(length);
    Ok(Some(map))
}

/// Copied: trailers are rare and outlive the buffer.
fn trailer_map(fields: &[httparse::Header<'_>]) -> Result<HeaderMap, BodyProblem> {
    let mut map = HeaderMap::with_capacity(fields.len());
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| BodyProblem::Trailers)?;
        let value = HeaderValue::from_bytes(field.value).map_err(|_| BodyProblem::Trailers)?;
        if may_trail(&name) {
            map.append(name, value);
        }
    }
    Ok(map)
}

/// RFC 9110 §6.5.1: what frames, routes, authenticates or describes the content must come before it.
pub(super) fn may_trail(name: &HeaderName) -> bool {
    const NEVER: [HeaderName; 16] = [
        header::TRANSFER_ENCODING,
        header::CONTENT_LENGTH,
        header::HOST,
        header::CONNECTION,
        header::UPGRADE,
        header::TE,
        header::TRAILER,
        header::CONTENT_TYPE,
        header::CONTENT_ENCODING,
        header::CONTENT_RANGE,
        header::CACHE_CONTROL,
        header::EXPECT,
        header::AUTHORIZATION,
        header::COOKIE,
        header::SET_COOKIE,
        header::LOCATION,
    ];
    !NEVER.contains(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Read = Result<(Vec<u8>, Option<HeaderMap>, Vec<u8>), BodyProblem>;

    /// Reads a body that comes in these pieces: its data, its trailers, and what is behind it.
    fn feed<'a>(framing: Framing, extensions: Extensions, pieces: impl Iterator<Item = &'a [u8]>) -> Read {
        let (mut body, mut buffer, mut data) = (Body::new(framing, extensions), BytesMut::new(), Vec::new());
        let (mut trailers, mut ended) = (None, body.is_ended());
        for piece in pieces {
            buffer.extend_from_slice(piece);
            while !ended {
                match body.read(&mut buffer)? {
                    None => break,
                    Some(Piece::Data(bytes)) => data.extend_from_slice(&bytes),
                    Some(Piece::Trailers(map)) => (trailers, ended) = (Some(map), true),
                    Some(Piece::End) => ended = true,
                }
            }
        }
        if !ended {
            body.end_of_input()?;
        }
        Ok((data, trailers, buffer.to_vec()))
    }

    /// However the input is cut in two, or byte by byte, it means the same.
    fn read(framing: Framing, extensions: Extensions, input: &str) -> Read {
        let input = input.as_bytes();
        let whole = feed(framing, extensions, std::iter::once(input));
        for cut in 0..input.len() {
            let (first, second) = input.split_at(cut);
            assert_eq!(feed(framing, extensions, [first, second].into_iter()).is_ok(), whole.is_ok(), "cut at {cut}");
        }
        let bytes = feed(framing, extensions, input.chunks(1));
        match (&bytes, &whole) {
            (Ok(bytes), Ok(whole)) => assert_eq!(bytes, whole, "byte by byte"),
            (bytes, whole) => assert_eq!(bytes.is_ok(), whole.is_ok(), "{bytes:?} {whole:?}"),
        }
        whole
    }

    fn chunked(input: &str) -> Read {
        read(Framing::Chunked, Extensions::Refused, input)
    }

    #[test]
    fn a_body_ends_where_its_frame_says() {
        let data = |read: Read| read.map(|(data, _, behind)| (data, behind));
        let is = |data: &str, behind: &str| Ok((data.as_bytes().to_vec(), behind.as_bytes().to_vec()));
        let refused = Extensions::Refused;
        assert_eq!(data(read(Framing::Length(3), refused, "abcdef")), is("abc", "def"));
        assert_eq!(data(read(Framing::Length(7), refused, "abcdef")), Err(BodyProblem::Cut));
        assert_eq!(data(read(Framing::UntilClose, refused, "abc")), is("abc", ""));
        assert_eq!(data(read(Framing::None, refused, "abc")), is("", "abc"));
        assert_eq!(data(read(Framing::Unclear, refused, "abc")), is("", "abc"));
        assert_eq!(data(chunked("3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\nGET")), is("abc0123456789", "GET"));
        assert_eq!(data(chunked("3\r\nabc\r\n0\r\n")), Err(BodyProblem::Cut));
    }

    #[test]
    fn a_chunk_is_its_size_its_data_and_crlf() {
        for (input, problem) in [
            ("5;a=b\r\nhello\r\n0\r\n\r\n", BodyProblem::ChunkExtension),
            ("5 \r\nhello\r\n0\r\n\r\n", BodyProblem::ChunkSize),
            (" 5\r\nhello\r\n0\r\n\r\n", BodyProblem::ChunkSize),
            ("+5\r\nhello\r\n0\r\n\r\n", BodyProblem::ChunkSize),
            ("0x5\r\nhello\r\n0\r\n\r\n", BodyProblem::ChunkSize),
            ("\r\nhello\r\n0\r\n\r\n", BodyProblem::ChunkSize),
            ("00000000000000005\r\nhello\r\n0\r\n\r\n", BodyProblem::ChunkSize),
            ("5\nhello\r\n0\r\n\r\n", BodyProblem::BareLf),
            ("5\r\nhello\n0\r\n\r\n", BodyProblem::ChunkEnd),
            ("5\r\nhelloX\r\n0\r\n\r\n", BodyProblem::ChunkEnd),
            ("0\r\nx: y\n\r\n", BodyProblem::BareLf),
            ("0\r\nx: a\r\n b\r\n\r\n", BodyProblem::Trailers),
            ("0\r\nx: a\x01\r\n\r\n", BodyProblem::Trailers),
        ] {
            assert_eq!(chunked(input), Err(problem), "{input:?}");
        }
        assert!(chunked("fffffffffffffff0\r\nx").is_err(), "cut, not overflowed");
    }

    #[test]
    fn extensions_are_bounded_where_they_are_skipped() {
        let skipped = |input: &str| feed(Framing::Chunked, Extensions::Skipped, std::iter::once(input.as_bytes()));
        assert_eq!(skipped("5 ;a=\"b\"\r\nhello\r\n0;x\r\n\r\n").map(|read| read.0), Ok(b"hello".to_vec()));
        assert_eq!(skipped("5;a\rb\r\nhello\r\n"), Err(BodyProblem::ChunkExtension));
        // Blanks may pad a size; what else ASCII calls white, a bare CR first, is read differently by others.
        assert_eq!(skipped("5 \t\r\nhello\r\n0\r\n\r\n").map(|read| read.0), Ok(b"hello".to_vec()));
        for white in ["\t\r\t", "\r", "\x0c", "\r;a", " \x0c ;a"] {
            let input = format!("5{white}\r\nhello\r\n0\r\n\r\n");
            assert_eq!(skipped(&input), Err(BodyProblem::ChunkSize), "{white:?}");
        }
        assert!(skipped(&format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(SIZE_LINE_MAX))).is_err());
        let many = |count: usize, data: &str| {
            let chunk = format!("{:x};{}\r\n{data}\r\n", data.len(), "x".repeat(512));
            format!("{}0\r\n\r\n", chunk.repeat(count))
        };
        assert!(skipped(&many(EXTENSIONS_MAX / 513, "x")).is_ok());
        assert!(skipped(&many(EXTENSIONS_MAX / 512 + 1, "x")).is_err());
        assert!(skipped(&many(EXTENSIONS_MAX / 512 + 1, &"x".repeat(600))).is_ok(), "as much data as extensions");
        assert_eq!(skipped("5  \r\nhello\r\n0 \r\n\r\n").map(|read| read.0), Ok(b"hello".to_vec()));
    }

    #[test]
    fn trailers_are_bounded_and_frame_nothing() {
        let (_, trailers, behind) = chunked("0\r\nX-Sum: 1\r\ncontent-length: 9\r\nx-sum: 2\r\n\r\nGET").unwrap();
        let trailers = trailers.unwrap();
        assert_eq!((trailers.len(), behind.as_slice()), (2, b"GET".as_slice()));
        assert!(trailers.get("content-length").is_none());
        let long = format!("0\r\nx: {}\r\n\r\n", "x".repeat(TRAILERS_MAX));
        assert_eq!(
            feed(Framing::Chunked, Extensions::Refused, std::iter::once(long.as_bytes())),
            Err(BodyProblem::Trailers)
        );
        let many = format!("0\r\n{}\r\n", "x:y\r\n".repeat(FIELDS_MAX + 1));
        assert_eq!(
            feed(Framing::Chunked, Extensions::Refused, std::iter::once(many.as_bytes())),
            Err(BodyProblem::Trailers)
        );
    }
}
