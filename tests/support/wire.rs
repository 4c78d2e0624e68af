//! One TCP connection in the hands of a test: raw bytes out, careful reading in, every step with a deadline.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::DEADLINE;
use super::message::{BodyEnd, Chunked, Head, Request, Response, chunked, chunked_so_far};

/// Why nothing more comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The peer closed in order.
    Closed,
    /// The peer reset.
    Reset,
    /// Nothing came for `DEADLINE`.
    Deadline,
}

/// Every byte that was read, for the test to look at while the connection lives.
pub type Tap = Arc<Mutex<Vec<u8>>>;

pub struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
    tap: Option<Tap>,
    deadline: Duration,
}

impl Wire {
    pub fn connect(address: SocketAddr) -> Wire {
        let stream = TcpStream::connect_timeout(&address, DEADLINE);
        Wire::new(stream.unwrap_or_else(|problem| panic!("cannot connect to {address}: {problem}")), None)
    }

    pub fn new(stream: TcpStream, tap: Option<Tap>) -> Wire {
        stream.set_nodelay(true).expect("nodelay");
        stream.set_write_timeout(Some(DEADLINE)).expect("write timeout");
        Wire { stream, buffer: Vec::new(), tap, deadline: DEADLINE }
    }

    /// Other deadlines than the usual, for transfers that are long.
    pub fn deadline(mut self, deadline: Duration) -> Wire {
        self.set_deadline(deadline);
        self
    }

    pub fn set_deadline(&mut self, deadline: Duration) {
        self.stream.set_write_timeout(Some(deadline)).expect("write timeout");
        self.deadline = deadline;
    }

    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Bytes read and not yet taken.
    pub fn buffered(&self) -> &[u8] {
        &self.buffer
    }

    /// Writes all of it; `false` when the peer is gone.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).is_ok()
    }

    pub fn half_close(&self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Ends with a reset instead of an orderly close.
    pub fn reset(self) {
        socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).expect("linger");
    }

    /// The next piece, whatever its size.
    pub fn piece(&mut self) -> Result<Vec<u8>, End> {
        if self.buffer.is_empty() {
            self.fill(Instant::now() + self.deadline)?;
        }
        Ok(std::mem::take(&mut self.buffer))
    }

    pub fn exactly(&mut self, length: usize) -> Result<Vec<u8>, End> {
        let until = Instant::now() + self.deadline;
        while self.buffer.len() < length {
            self.fill(until)?;
        }
        Ok(self.take(length))
    }

    /// Until `mark` has come; all of it, the mark included.
    pub fn until(&mut self, mark: &[u8]) -> Result<Vec<u8>, End> {
        let until = Instant::now() + self.deadline;
        loop {
            if let Some(at) = super::message::find(&self.buffer, mark) {
                return Ok(self.take(at + mark.len()));
            }
            self.fill(until)?;
        }
    }

    /// Everything until the peer ends the connection, and how it did.
    pub fn rest(&mut self) -> (Vec<u8>, End) {
        let until = Instant::now() + self.deadline;
        loop {
            if let Err(end) = self.fill(until) {
                return (std::mem::take(&mut self.buffer), end);
            }
        }
    }

    /// As `rest`, without keeping the bytes: how many.
    pub fn drain(&mut self) -> (usize, End) {
        let (until, mut total) = (Instant::now() + self.deadline, self.buffer.len());
        self.buffer.clear();
        loop {
            match self.fill(until) {
                Ok(()) => total += std::mem::take(&mut self.buffer).len(),
                Err(end) => return (total, end),
            }
        }
    }

    pub fn head(&mut self) -> Result<Head, End> {
        let until = Instant::now() + self.deadline;
        loop {
            if let Some((head, used)) = Head::parse(&self.buffer) {
                self.take(used);
                return Ok(head);
            }
            self.fill(until)?;
        }
    }

    /// A whole request; `None` when the connection ended before a head was whole.
    pub fn request(&mut self, connection: usize) -> Option<Request> {
        let head = self.head().ok()?;
        let (body, trailers, end) =
            if head.chunked() { self.chunked_body() } else { self.counted_body(head.length().unwrap_or(0)) };
        Some(Request { head, body, trailers, end, connection })
    }

    /// The answer to a request with this method, 1xx before it included.
    pub fn response(&mut self, method: &str) -> Response {
        self.try_response(method).unwrap_or_else(|end| {
            panic!("no answer to {method}: {end:?} after {:?}", String::from_utf8_lossy(&self.buffer))
        })
    }

    pub fn try_response(&mut self, method: &str) -> Result<Response, End> {
        let mut interim = Vec::new();
        let (head, status) = loop {
            let head = self.head()?;
            let status: u16 = head.word(1).parse().unwrap_or_else(|_| panic!("not a status: {:?}", head.first));
            if status >= 200 || status == 101 {
                break (head, status);
            }
            interim.push(head);
        };
        let bodiless = method == "HEAD" || status == 204 || status == 304 || status == 101;
        let (body, trailers, end) = if bodiless {
            (Vec::new(), Vec::new(), BodyEnd::Whole)
        } else if head.chunked() {
            self.chunked_body()
        } else if let Some(length) = head.length() {
            self.counted_body(length)
        } else {
            let (body, end) = self.rest();
            (body, Vec::new(), if end == End::Closed { BodyEnd::Close } else { cut(end) })
        };
        Ok(Response { interim, head, status, body, trailers, end })
    }

    fn counted_body(&mut self, length: usize) -> (Vec<u8>, Vec<(String, String)>, BodyEnd) {
        match self.exactly(length) {
            Ok(body) => (body, Vec::new(), BodyEnd::Whole),
            Err(end) => (std::mem::take(&mut self.buffer), Vec::new(), cut(end)),
        }
    }

    fn chunked_body(&mut self) -> (Vec<u8>, Vec<(String, String)>, BodyEnd) {
        let until = Instant::now() + self.deadline;
        loop {
            match chunked(&self.buffer) {
                Chunked::Whole { body, trailers, used } => {
                    self.take(used);
                    return (body, trailers, BodyEnd::Whole);
                }
                Chunked::Malformed => return (chunked_so_far(&self.buffer), Vec::new(), BodyEnd::Malformed),
                Chunked::Partial => {
                    if let Err(end) = self.fill(until) {
                        let body = chunked_so_far(&self.buffer);
                        self.buffer.clear();
                        return (body, Vec::new(), cut(end));
                    }
                }
            }
        }
    }

    fn take(&mut self, length: usize) -> Vec<u8> {
        let rest = self.buffer.split_off(length);
        std::mem::replace(&mut self.buffer, rest)
    }

    fn fill(&mut self, until: Instant) -> Result<(), End> {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(End::Deadline);
        }
        self.stream.set_read_timeout(Some(left)).expect("read timeout");
        let mut piece = [0; 64 * 1024];
        loop {
            return match self.stream.read(&mut piece) {
                Ok(0) => Err(End::Closed),
                Ok(length) => {
                    self.buffer.extend_from_slice(&piece[..length]);
                    if let Some(tap) = &self.tap {
                        tap.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&piece[..length]);
                    }
                    Ok(())
                }
                Err(problem) if problem.kind() == ErrorKind::Interrupted => continue,
                Err(problem) if matches!(problem.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    Err(End::Deadline)
                }
                Err(_) => Err(End::Reset),
            };
        }
    }
}

fn cut(end: End) -> BodyEnd {
    match end {
        End::Closed => BodyEnd::Cut,
        End::Reset => BodyEnd::Reset,
        End::Deadline => BodyEnd::Deadline,
    }
}

/// One request on its own connection; the answer.
pub fn ask(address: SocketAddr, request: impl AsRef<[u8]>) -> Response {
    let mut wire = Wire::connect(address);
    let request = request.as_ref();
    let method: String = request.iter().take_while(|byte| **byte != b' ').map(|byte| char::from(*byte)).collect();
    wire.send(request);
    wire.response(&method)
}

/// One request on its own connection; everything that came back until it was closed.
pub fn exchange(address: SocketAddr, request: impl AsRef<[u8]>) -> (Vec<u8>, End) {
    let mut wire = Wire::connect(address);
    wire.send(request);
    wire.rest()
}

/// A plain GET that closes.
pub fn get(address: SocketAddr, path: &str) -> Response {
    ask(address, format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"))
}

pub fn post(address: SocketAddr, path: &str) -> Response {
    ask(address, format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"))
}
