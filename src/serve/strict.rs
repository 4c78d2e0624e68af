//! What hyper's parser lets pass and a proxy must not: bare LF or CR as a line end, folded header lines, a length beside
//! a transfer coding, and chunks with extensions, odd sizes or loose ends. Two parsers in a row may read such bytes in two ways, which is what request
//! smuggling is made of, so they are refused and never tidied up (RFC 9112 §2.2, §5.2, §6.3, §7.1, §11.2).
//!
//! A tracker beside hyper: it follows heads and bodies through the bytes as they are read and judges lines only; what a
//! request means is judged elsewhere. Where it cannot know the framing (two lengths, a coding it does not know) hyper
//! or the proxy refuses the request and closes, so that it stops looking.

/// Why the bytes are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Violation {
    pub what: &'static str,
    /// In a request head: nobody has seen the request, so that the answer is ours to give.
    pub in_head: bool,
    /// Bytes of this read that come before the line and are good.
    pub good: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// Before a request line; empty lines may come first.
    Start,
    Fields,
    Body(u64),
    ChunkSize,
    ChunkData(u64),
    ChunkEnd,
    Trailers,
    /// Not looking any more.
    Off,
}

/// Follows one connection's requests.
#[derive(Debug)]
pub struct Strict {
    at: At,
    /// The beginning of a line that is not complete yet.
    carry: Vec<u8>,
    length: Option<u64>,
    chunked: bool,
}

/// A line that is longer is not looked at: hyper refuses heads of this size.
const LINE_MAX: usize = 64 * 1024;

impl Strict {
    pub fn new() -> Self {
        Strict { at: At::Start, carry: Vec::new(), length: None, chunked: false }
    }

    /// Looks at the next bytes of the connection.
    pub fn read(&mut self, all: &[u8]) -> Result<(), Violation> {
        let mut bytes = all;
        while !bytes.is_empty() {
            let good = all.len() - bytes.len();
            let (skipped, next) = match self.at {
                At::Off => return Ok(()),
                At::Body(left) => skip(left, bytes.len(), At::Start, At::Body),
                At::ChunkData(left) => skip(left, bytes.len(), At::ChunkEnd, At::ChunkData),
                At::Start | At::Fields | At::ChunkSize | At::ChunkEnd | At::Trailers => {
                    let Some(end) = bytes.iter().position(|&byte| byte == b'\n') else {
                        return self.keep(bytes).map_err(|violation| Violation { good, ..violation });
                    };
                    let next = self.complete(&bytes[..end]);
                    let next = next.map_err(|violation| Violation { good, ..violation })?;
                    (end + 1, next)
                }
            };
            self.at = next;
            bytes = &bytes[skipped..];
        }
        Ok(())
    }

    fn violation(&self, what: &'static str) -> Violation {
        Violation { what, in_head: matches!(self.at, At::Start | At::Fields), good: 0 }
    }

    /// Remembers an incomplete line. A CR that is not the last byte is bare whatever follows.
    fn keep(&mut self, bytes: &[u8]) -> Result<(), Violation> {
        self.carry.extend_from_slice(bytes);
        if self.carry.len() > LINE_MAX {
            (self.at, self.carry) = (At::Off, Vec::new());
        } else if self.carry[..self.carry.len() - 1].contains(&b'\r') {
            return Err(self.violation("bare_cr"));
        }
        Ok(())
    }

    /// Judges a line, given without its LF, and says where the connection is after it.
    fn complete(&mut self, end: &[u8]) -> Result<At, Violation> {
        if self.carry.is_empty() {
            return self.line(end);
        }
        let mut line = std::mem::take(&mut self.carry);
        line.extend_from_slice(end);
        self.line(&line)
    }

    fn line(&mut self, line: &[u8]) -> Result<At, Violation> {
        let Some(line) = line.strip_suffix(b"\r") else { return Err(self.violation("bare_lf")) };
        if line.contains(&b'\r') {
            return Err(self.violation("bare_cr"));
        }
        match self.at {
            At::Start if line.is_empty() => Ok(At::Start),
            At::Start => {
                (self.length, self.chunked) = (None, false);
                Ok(At::Fields)
            }
            At::Fields if line.is_empty() => self.after_head(),
            At::Fields | At::Trailers if line.starts_with(b" ") || line.starts_with(b"\t") => {
                Err(self.violation("obs_fold"))
            }
            At::Fields => Ok(self.field(line)),
            At::ChunkSize => self.chunk_size(line),
            At::ChunkEnd if line.is_empty() => Ok(At::ChunkSize),
            At::ChunkEnd => Err(self.violation("chunk_end")),
            At::Trailers if line.is_empty() => Ok(At::Start),
            At::Trailers => Ok(At::Trailers),
            At::Body(_) | At::ChunkData(_) | At::Off => Ok(self.at),
        }
    }

    /// Only the two fields that say how long the body is are of interest.
    fn field(&mut self, line: &[u8]) -> At {
        if let Some(value) = value(line, b"content-length") {
            let text = std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
            match text.and_then(|text| text.parse().ok()) {
                Some(length) if self.length.is_none_or(|known| known == length) => self.length = Some(length),
                _ => return At::Off,
            }
        } else if let Some(value) = value(line, b"transfer-encoding") {
            if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                return At::Off;
            }
            self.chunked = true;
        }
        At::Fields
    }

    fn after_head(&self) -> Result<At, Violation> {
        match (self.chunked, self.length) {
            (true, Some(_)) => Err(self.violation("length_twice")),
            (true, None) => Ok(At::ChunkSize),
            (false, Some(length)) if length > 0 => Ok(At::Body(length)),
            (false, _) => Ok(At::Start),
        }
    }

    /// A request head has begun and is not complete.
    pub fn in_head(&self) -> bool {
        self.at == At::Fields || (self.at == At::Start && !self.carry.is_empty())
    }

    fn chunk_size(&self, line: &[u8]) -> Result<At, Violation> {
        if line.contains(&b';') {
            return Err(self.violation("chunk_extension"));
        }
        let digits = !line.is_empty() && line.len() <= 16 && line.iter().all(u8::is_ascii_hexdigit);
        let text = std::str::from_utf8(line).ok().filter(|_| digits);
        match text.and_then(|text| u64::from_str_radix(text, 16).ok()) {
            None => Err(self.violation("chunk_size")),
            Some(0) => Ok(At::Trailers),
            Some(size) => Ok(At::ChunkData(size)),
        }
    }
}

/// The trimmed value if the line is this field.
fn value<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (found, rest) = line.split_at_checked(name.len())?;
    let value = rest.strip_prefix(b":")?;
    found.eq_ignore_ascii_case(name).then(|| value.trim_ascii())
}

/// How many of `bytes` belong to the `left` ones, and where that leads.
fn skip(left: u64, bytes: usize, done: At, more: fn(u64) -> At) -> (usize, At) {
    match usize::try_from(left) {
        Ok(left) if left <= bytes => (left, done),
        _ => (bytes, more(left - bytes as u64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every way of cutting the input in two must give the same verdict.
    fn verdict(input: &[u8]) -> Result<(), (&'static str, bool)> {
        let told = |result: Result<(), Violation>| result.map_err(|violation| (violation.what, violation.in_head));
        let whole = told(Strict::new().read(input));
        for cut in 0..input.len() {
            let mut strict = Strict::new();
            let halves = strict.read(&input[..cut]).and_then(|()| strict.read(&input[cut..]));
            assert_eq!(told(halves), whole, "cut at {cut} of {:?}", String::from_utf8_lossy(input));
        }
        let mut strict = Strict::new();
        let bytes = input.iter().try_for_each(|byte| strict.read(&[*byte]));
        assert_eq!(told(bytes), whole, "byte by byte");
        whole
    }

    #[test]
    fn what_is_well_formed_passes() {
        let good: [&[u8]; 8] = [
            b"GET / HTTP/1.1\r\nhost: a\r\n\r\n",
            b"\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n",
            b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\n\n\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            b"POST / HTTP/1.1\r\ntransfer-encoding: Chunked\r\n\r\n5\r\na\nb\rc\r\n0\r\nx: y\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n00aF\r\n",
            b"POST / HTTP/1.1\r\ncontent-length: 0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            b"POST / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\nxGET / HTTP/1.1\r\n\r\n",
            b"POST / HTTP/1.1\r\ncontent-lengthy: 9\r\nx-content-length: 9\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        ];
        for input in good {
            assert_eq!(verdict(input), Ok(()), "{:?}", String::from_utf8_lossy(input));
        }
    }

    #[test]
    fn what_two_parsers_may_read_differently_is_refused() {
        let chunked = "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n";
        let cases = [
            ("GET / HTTP/1.1\nhost: a\n\n", "bare_lf", true),
            ("GET / HTTP/1.1\r\nhost: a\n\r\n", "bare_lf", true),
            ("GET / HTTP/1.1\r\nhost: a\r\n\n", "bare_lf", true),
            ("\nGET / HTTP/1.1\r\n\r\n", "bare_lf", true),
            ("GET / HTTP/1.1\r\nx: a\rb\r\n\r\n", "bare_cr", true),
            ("GET / HTTP/1.1\r\nx: a\r\r\n\r\n", "bare_cr", true),
            ("GET / HTTP/1.1\r\nx: a\r\n b\r\n\r\n", "obs_fold", true),
            ("GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\n\n", "bare_lf", true),
            ("POST / HTTP/1.1\r\ncontent-length: 3\r\n\r\nabcGET / HTTP/1.1\n", "bare_lf", true),
            ("POST / HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n", "length_twice", true),
            ("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\ncontent-length: 0\r\n\r\n", "length_twice", true),
        ];
        let bodies = [
            ("5\nhello\r\n", "bare_lf"),
            ("5\r\nhello\n0\r\n\r\n", "bare_lf"),
            ("5;a=b\r\nhello\r\n", "chunk_extension"),
            ("5 \r\nhello\r\n", "chunk_size"),
            ("+5\r\nhello\r\n", "chunk_size"),
            ("0x5\r\nhello\r\n", "chunk_size"),
            ("\r\nhello\r\n", "chunk_size"),
            ("00000000000000005\r\nhello\r\n", "chunk_size"),
            ("5\r\nhelloX\r\n", "chunk_end"),
            ("0\r\nx: y\n\r\n", "bare_lf"),
        ];
        for (input, what, in_head) in cases {
            assert_eq!(verdict(input.as_bytes()), Err((what, in_head)), "{input:?}");
        }
        for (body, what) in bodies {
            let input = format!("{chunked}{body}");
            assert_eq!(verdict(input.as_bytes()), Err((what, false)), "{body:?}");
        }
    }

    #[test]
    fn what_comes_before_the_line_is_good() {
        let input = b"GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\n";
        assert_eq!(Strict::new().read(input).map_err(|violation| violation.good), Err(18));
        let mut strict = Strict::new();
        assert_eq!(strict.read(b"GET / "), Ok(()));
        assert_eq!(strict.read(b"HTTP/1.1\n").map_err(|violation| violation.good), Err(0));
    }

    #[test]
    fn where_the_framing_is_unknown_nothing_is_judged() {
        for head in ["content-length: 1\r\ncontent-length: 2", "content-length: x", "transfer-encoding: gzip"] {
            let input = format!("POST / HTTP/1.1\r\n{head}\r\n\r\nanything\n");
            assert_eq!(verdict(input.as_bytes()), Ok(()), "{head}");
        }
    }
}
