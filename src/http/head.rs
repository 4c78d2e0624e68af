//! Heads of requests and responses: parsed by `httparse`, then judged for what it lets pass (bare LF, RFC 9112 §2.2)
//! and framed (§6.3).
//!
//! A head that is not complete is parsed again only when another line has ended, so that dribbling one costs at most
//! one walk per line. Numbers of lines and bytes are bounded.

use std::mem::MaybeUninit;

use bytes::{Bytes, BytesMut};
use http::{Method, StatusCode, Uri, Version};
use httparse::{Error, ParserConfig, Status};

use super::fields::{self, FIELDS_MAX};
use crate::core::fields::Fields;

/// How the end of a body is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    None,
    /// More than 0.
    Length(u64),
    Chunked,
    /// A response that ends with its connection.
    UntilClose,
    /// It can be read in more than one way: nothing after the head may be taken for anything.
    Unclear,
}

impl Framing {
    pub fn length(length: u64) -> Framing {
        if length == 0 { Framing::None } else { Framing::Length(length) }
    }
}

/// Why a head is refused before anybody has seen it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadProblem {
    BareLf,
    BareCr,
    /// A field line that is folded into the next (RFC 9112 §5.2).
    Fold,
    TooLarge,
    TooManyFields,
    /// Neither HTTP/1.0 nor HTTP/1.1.
    Version,
    Malformed,
}

impl HeadProblem {
    /// The stable word.
    pub fn label(self) -> &'static str {
        match self {
            HeadProblem::BareLf => "bare_lf",
            HeadProblem::BareCr => "bare_cr",
            HeadProblem::Fold => "obs_fold",
            HeadProblem::TooLarge => "head_too_large",
            HeadProblem::TooManyFields => "too_many_fields",
            HeadProblem::Version => "version",
            HeadProblem::Malformed => "head_malformed",
        }
    }

    /// In plain words; a whole sentence for whoever sent it.
    pub fn explain(self) -> &'static str {
        match self {
            HeadProblem::BareLf => "A line of the head ends with a line feed alone.",
            HeadProblem::BareCr => "There is a carriage return inside a line of the head.",
            HeadProblem::Fold => "A field of the head is folded over several lines.",
            HeadProblem::TooLarge => "The head, with its target and fields, is too large.",
            HeadProblem::TooManyFields => "The head has too many fields.",
            HeadProblem::Version => "The version is neither HTTP/1.0 nor HTTP/1.1.",
            HeadProblem::Malformed => "The head is not HTTP.",
        }
    }

    /// What a client that sent it is told.
    pub fn status(self) -> StatusCode {
        match self {
            HeadProblem::TooLarge | HeadProblem::TooManyFields => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            HeadProblem::BareLf
            | HeadProblem::BareCr
            | HeadProblem::Fold
            | HeadProblem::Version
            | HeadProblem::Malformed => StatusCode::BAD_REQUEST,
        }
    }
}

impl std::fmt::Display for HeadProblem {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(self.explain())
    }
}

impl std::error::Error for HeadProblem {}

/// A request's head and what it means for its connection.
#[derive(Debug)]
pub struct RequestHead {
    pub method: Method,
    pub uri: Uri,
    pub version: Version,
    pub headers: Fields,
    pub framing: Framing,
    /// The client wants the connection to go on.
    pub persists: bool,
    /// The client waits for 100 before it sends its body.
    pub continues: bool,
    pub upgrade: bool,
    /// The client reads trailers.
    pub trailers: bool,
}

/// A response's head and what it means for its connection.
#[derive(Debug)]
pub struct ResponseHead {
    pub status: StatusCode,
    /// As sent, where it is not the usual one.
    pub reason: Option<Bytes>,
    pub version: Version,
    pub headers: Fields,
    pub framing: Framing,
    pub persists: bool,
}

/// Reads the heads of one direction of one connection.
#[derive(Debug)]
pub struct HeadReader {
    bytes_max: usize,
    /// How much of the buffer has been looked at without finding the head's end.
    seen: usize,
}

type Found<'b> = [MaybeUninit<httparse::Header<'b>>; FIELDS_MAX];

impl HeadReader {
    pub fn new(bytes_max: usize) -> Self {
        HeadReader { bytes_max, seen: 0 }
    }

    /// The next request head; `None` when more bytes are needed. Empty lines before it are dropped (RFC 9112 §2.2).
    pub fn request(&mut self, buffer: &mut BytesMut) -> Result<Option<RequestHead>, HeadProblem> {
        skip_empty_lines(buffer);
        if !self.may_be_complete(buffer)? {
            return Ok(None);
        }
        let mut found: Found<'_> = [const { MaybeUninit::uninit() }; FIELDS_MAX];
        let mut parsed = httparse::Request::new(&mut []);
        let status = ParserConfig::default().parse_request_with_uninit_headers(&mut parsed, buffer, &mut found);
        let Some(length) = self.judge(buffer, status, parsed.headers)? else { return Ok(None) };
        // All present in a complete head.
        let (Some(method), Some(target), Some(minor)) = (parsed.method, parsed.path, parsed.version) else {
            return Err(HeadProblem::Malformed);
        };
        let method = Method::from_bytes(method.as_bytes()).map_err(|_| HeadProblem::Malformed)?;
        let start = target.as_ptr() as usize - buffer.as_ptr() as usize;
        let target = start..start + target.len();
        let (mut headers, told) = fields::read(buffer, parsed.headers);
        let head = buffer.split_to(length).freeze();
        let uri = Uri::from_maybe_shared(head.slice(target)).map_err(|_| HeadProblem::Malformed)?;
        headers.lie_in(head);
        let http_11 = minor == 1;
        let framing = told.framing(http_11, Framing::None);
        Ok(Some(RequestHead {
            method,
            uri,
            version: version(http_11),
            headers,
            framing,
            persists: told.persists(http_11) && framing != Framing::Unclear,
            continues: told.continues && http_11,
            upgrade: told.upgrade && http_11,
            trailers: told.trailers && http_11,
        }))
    }

    /// The next response head to a request with `method`, an informational one included.
    pub fn response(&mut self, buffer: &mut BytesMut, method: &Method) -> Result<Option<ResponseHead>, HeadProblem> {
        if !self.may_be_complete(buffer)? {
            return Ok(None);
        }
        let mut found: Found<'_> = [const { MaybeUninit::uninit() }; FIELDS_MAX];
        let mut parsed = httparse::Response::new(&mut []);
        let status = ParserConfig::default().parse_response_with_uninit_headers(&mut parsed, buffer, &mut found);
        let Some(length) = self.judge(buffer, status, parsed.headers)? else { return Ok(None) };
        let (Some(code), Some(minor)) = (parsed.code, parsed.version) else { return Err(HeadProblem::Malformed) };
        let status = StatusCode::from_u16(code).map_err(|_| HeadProblem::Malformed)?;
        let reason = parsed.reason.filter(|reason| Some(*reason) != status.canonical_reason());
        let reason = reason.map(|reason| Bytes::copy_from_slice(reason.as_bytes()));
        let (mut headers, told) = fields::read(buffer, parsed.headers);
        headers.lie_in(buffer.split_to(length).freeze());
        let http_11 = minor == 1;
        let bodiless = *method == Method::HEAD || status.is_informational() || matches!(code, 204 | 304);
        let framing = told.framing(http_11, Framing::UntilClose);
        let clear = framing != Framing::Unclear;
        let framing = if bodiless { Framing::None } else { framing };
        Ok(Some(ResponseHead {
            status,
            reason,
            version: version(http_11),
            headers,
            framing,
            persists: told.persists(http_11) && clear && framing != Framing::UntilClose && code != 101,
        }))
    }

    /// Whether it makes sense to parse: the first time, and whenever another line has ended.
    fn may_be_complete(&self, buffer: &BytesMut) -> Result<bool, HeadProblem> {
        if buffer.is_empty() {
            return Ok(false);
        }
        let worth = self.seen == 0 || buffer.get(self.seen..).is_some_and(|new| new.contains(&b'\n'));
        if !worth && buffer.len() >= self.bytes_max {
            return Err(HeadProblem::TooLarge);
        }
        Ok(worth)
    }

    /// The length of a complete head that is good.
    fn judge(
        &mut self,
        buffer: &BytesMut,
        status: Result<Status<usize>, Error>,
        fields: &[httparse::Header<'_>],
    ) -> Result<Option<usize>, HeadProblem> {
        match status {
            Ok(Status::Complete(length)) => {
                self.seen = 0;
                if length > self.bytes_max {
                    return Err(HeadProblem::TooLarge);
                }
                let head = &buffer[..length];
                let bare = !lines_end_in_crlf(head, fields) && has_bare_lf(head);
                if bare { Err(HeadProblem::BareLf) } else { Ok(Some(length)) }
            }
            Ok(Status::Partial) => {
                if has_bare_lf(buffer) {
                    return Err(HeadProblem::BareLf);
                }
                if buffer.len() >= self.bytes_max {
                    return Err(HeadProblem::TooLarge);
                }
                self.seen = buffer.len();
                Ok(None)
            }
            Err(error) => Err(name_problem(buffer, error)),
        }
    }
}

fn version(http_11: bool) -> Version {
    if http_11 { Version::HTTP_11 } else { Version::HTTP_10 }
}

/// RFC 9112 §2.2: at least one empty line before a request line is ignored; some clients end a body with one.
fn skip_empty_lines(buffer: &mut BytesMut) {
    while buffer.starts_with(b"\r\n") {
        let _ = buffer.split_to(2);
    }
}

/// Whether it is plain from the places of the fields that every line of a complete head ends with CRLF. A LF ends a line
/// wherever it stands, so that each one is before a field's name or at the end of the head.
fn lines_end_in_crlf(head: &[u8], fields: &[httparse::Header<'_>]) -> bool {
    let after_crlf = |field: &httparse::Header<'_>| {
        let start = (field.name.as_ptr() as usize).saturating_sub(head.as_ptr() as usize);
        head.get(..start).is_some_and(|before| before.ends_with(b"\r\n"))
    };
    // An empty line that the parser passed over is looked at closely.
    let begins = !matches!(head.first(), Some(b'\r' | b'\n'));
    begins && head.ends_with(b"\r\n\r\n") && fields.iter().all(after_crlf)
}

/// Whether a line ends with LF alone.
pub(super) fn has_bare_lf(bytes: &[u8]) -> bool {
    bytes.first() == Some(&b'\n') || bytes.windows(2).any(|pair| pair[1] == b'\n' && pair[0] != b'\r')
}

/// Gives what the parser stumbled over the name that helps whoever wrote the peer.
fn name_problem(buffer: &[u8], error: Error) -> HeadProblem {
    match error {
        Error::TooManyHeaders => return HeadProblem::TooManyFields,
        Error::Version => return HeadProblem::Version,
        Error::HeaderName | Error::HeaderValue | Error::NewLine | Error::Status | Error::Token => {}
    }
    let head = buffer.windows(4).position(|end| end == b"\r\n\r\n").map_or(buffer, |end| &buffer[..end + 4]);
    if head.windows(2).any(|pair| pair[0] == b'\r' && pair[1] != b'\n') {
        return HeadProblem::BareCr;
    }
    if has_bare_lf(head) {
        return HeadProblem::BareLf;
    }
    if head.windows(3).any(|three| three == b"\r\n " || three == b"\r\n\t") {
        return HeadProblem::Fold;
    }
    HeadProblem::Malformed
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 1024;

    fn read(input: &str) -> Result<Option<RequestHead>, HeadProblem> {
        HeadReader::new(MAX).request(&mut BytesMut::from(input))
    }

    fn problem(input: &str) -> Option<HeadProblem> {
        read(input).err()
    }

    /// However the input is cut in two, or byte by byte, the verdict is the same.
    fn in_pieces(input: &str) -> Option<HeadProblem> {
        let whole = problem(input);
        let feed = |pieces: &mut dyn Iterator<Item = &[u8]>| {
            let (mut reader, mut buffer) = (HeadReader::new(MAX), BytesMut::new());
            for piece in pieces {
                buffer.extend_from_slice(piece);
                match reader.request(&mut buffer) {
                    Ok(None) => {}
                    Ok(Some(_)) => return None,
                    Err(problem) => return Some(problem),
                }
            }
            None
        };
        for cut in 0..input.len() {
            let (first, second) = input.as_bytes().split_at(cut);
            let cut_in_two = feed(&mut [first, second].into_iter());
            assert_eq!(
                cut_in_two.is_some(),
                whole.is_some(),
                "cut at {cut} of {input:?}: {cut_in_two:?}, not {whole:?}"
            );
        }
        let bytes = feed(&mut input.as_bytes().chunks(1));
        assert_eq!(bytes.is_some(), whole.is_some(), "byte by byte {input:?}: {bytes:?}, not {whole:?}");
        whole
    }

    #[test]
    fn a_head_is_taken_apart() {
        let mut buffer = BytesMut::from(
            "\r\n\r\nPOST /a?b HTTP/1.1\r\nHost: x\r\nX-Two: 1\r\ncontent-length: 2\r\nX-two: 2\r\n\r\nokGET",
        );
        let head = HeadReader::new(MAX).request(&mut buffer).unwrap().unwrap();
        assert_eq!((head.method.as_str(), head.uri.to_string().as_str()), ("POST", "/a?b"));
        assert_eq!((head.version, head.framing, head.persists), (Version::HTTP_11, Framing::Length(2), true));
        let two: Vec<_> = head.headers.get_all("x-two").collect();
        assert_eq!(two, ["1", "2"]);
        assert_eq!(&buffer[..], b"okGET", "what follows stays");
        let names: Vec<_> = head.headers.names().map(|name| name.as_bytes()).collect();
        assert_eq!(names, [&b"Host"[..], b"X-Two", b"content-length", b"X-two"], "spelled and ordered as they came");
    }

    #[test]
    fn what_it_says_of_the_connection_is_noted() {
        let head = |fields: &str| read(&format!("GET / HTTP/1.1\r\n{fields}\r\n")).unwrap().unwrap();
        assert!(head("").persists && !head("connection: close\r\n").persists);
        assert!(head("expect: 100-Continue\r\n").continues && !head("expect: x\r\n").continues);
        assert!(head("upgrade: websocket\r\n").upgrade && head("te: x, Trailers\r\n").trailers);
        assert!(!head("content-length: 1\r\ntransfer-encoding: chunked\r\n").persists);
        let old = read("GET / HTTP/1.0\r\nexpect: 100-continue\r\nupgrade: x\r\n\r\n").unwrap().unwrap();
        assert!(!old.persists && !old.continues && !old.upgrade);
    }

    #[test]
    fn what_two_parsers_may_read_differently_has_its_name() {
        for (input, named) in [
            ("GET / HTTP/1.1\nhost: a\n\n", HeadProblem::BareLf),
            ("GET / HTTP/1.1\r\nhost: a\nx: y\r\n\r\n", HeadProblem::BareLf),
            ("GET / HTTP/1.1\r\nhost: a\r\n\n", HeadProblem::BareLf),
            ("\nGET / HTTP/1.1\r\nhost: a\r\n\r\n", HeadProblem::BareLf),
            ("GET / HTTP/1.1\rhost: a\r\n\r\n", HeadProblem::BareCr),
            ("GET / HTTP/1.1\r\nx: a\rb\r\n\r\n", HeadProblem::BareCr),
            ("GET / HTTP/1.1\r\nx: a\r\r\n\r\n", HeadProblem::BareCr),
            ("GET / HTTP/1.1\r\nx: a\r\n b\r\n\r\n", HeadProblem::Fold),
            ("GET / HTTP/1.1\r\n\tx: a\r\n\r\n", HeadProblem::Fold),
            ("GET / HTTP/1.2\r\n\r\n", HeadProblem::Version),
            ("GET / HTTP/2.0\r\n\r\n", HeadProblem::Version),
            ("GET /\r\n\r\n", HeadProblem::Malformed),
            ("GET  / HTTP/1.1\r\n\r\n", HeadProblem::Malformed),
            ("GET / HTTP/1.1\r\nx : a\r\n\r\n", HeadProblem::Malformed),
            ("GET / HTTP/1.1\r\nx: a\0b\r\n\r\n", HeadProblem::Malformed),
            ("GET / HTTP/1.1\r\nno colon\r\n\r\n", HeadProblem::Malformed),
        ] {
            assert_eq!(in_pieces(input), Some(named), "{input:?}");
        }
        assert_eq!(in_pieces("GET / HTTP/1.1\r\nhost: a\r\nx: y\r\n\r\n"), None);
    }

    #[test]
    fn heads_are_bounded_in_bytes_and_lines() {
        let of = |size: usize| {
            let frame = "GET / HTTP/1.1\r\nx: \r\n\r\n".len();
            format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "x".repeat(size - frame))
        };
        assert!(matches!(read(&of(MAX)), Ok(Some(_))));
        assert_eq!(problem(&of(MAX + 1)), Some(HeadProblem::TooLarge));
        assert_eq!(problem(&of(MAX + 1)[..MAX]), Some(HeadProblem::TooLarge), "without its end");
        assert!(matches!(read(&of(MAX + 1)[..MAX - 1]), Ok(None)));
        let lines = |count: usize| format!("GET / HTTP/1.1\r\n{}\r\n", "a:b\r\n".repeat(count));
        assert!(matches!(read(&lines(FIELDS_MAX)), Ok(Some(_))));
        assert_eq!(problem(&lines(FIELDS_MAX + 1)), Some(HeadProblem::TooManyFields));
    }

    #[test]
    fn an_answer_is_framed_by_its_status_its_request_and_its_fields() {
        let framing = |method: Method, input: &str| {
            let head = HeadReader::new(MAX).response(&mut BytesMut::from(input), &method).unwrap().unwrap();
            (head.framing, head.persists)
        };
        for (input, expected) in [
            ("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n", (Framing::Length(3), true)),
            ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", (Framing::None, true)),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", (Framing::Chunked, true)),
            ("HTTP/1.1 200 OK\r\n\r\n", (Framing::UntilClose, false)),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n", (Framing::Unclear, false)),
            ("HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n", (Framing::Unclear, false)),
            ("HTTP/1.1 204 No Content\r\n\r\n", (Framing::None, true)),
            ("HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n", (Framing::None, true)),
            ("HTTP/1.1 103 Early Hints\r\n\r\n", (Framing::None, true)),
            ("HTTP/1.1 101 Switching Protocols\r\n\r\n", (Framing::None, false)),
            ("HTTP/1.0 200 OK\r\ncontent-length: 3\r\n\r\n", (Framing::Length(3), false)),
            ("HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 3\r\n\r\n", (Framing::Length(3), true)),
            ("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 3\r\n\r\n", (Framing::Length(3), false)),
        ] {
            assert_eq!(framing(Method::GET, input), expected, "{input:?}");
        }
        assert_eq!(framing(Method::HEAD, "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n"), (Framing::None, true));
        let head =
            |input: &str| HeadReader::new(MAX).response(&mut BytesMut::from(input), &Method::GET).unwrap().unwrap();
        assert_eq!(head("HTTP/1.1 200 OK\r\n\r\n").reason, None);
        assert_eq!(head("HTTP/1.1 999 Blocked By Me\r\n\r\n").reason.as_deref(), Some(&b"Blocked By Me"[..]));
    }
}
