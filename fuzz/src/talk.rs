//! What our engine makes of one direction of a connection, fed in pieces: every head, body and trailer, and where in
//! the bytes each message began and ended. The limits it promises are asserted on the way.

use bytes::BytesMut;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version};
use outrigger::core::fields::Fields;
use outrigger::core::framing;
use outrigger::http::body::TRAILERS_MAX;
use outrigger::http::encode::{self, Persistence};
use outrigger::http::fields::FIELDS_MAX;
use outrigger::http::{Body, Extensions, Framing, HeadReader, Piece, RequestHead, ResponseHead, Writing};

pub const HEAD_MAX: usize = 32 * 1024;

/// The first byte: how many splits, and whether the end of a chunked body is looked for ahead; then two bytes a split.
pub struct Input<'a> {
    pub ahead: bool,
    /// Three bits for what a target wishes.
    pub option: u8,
    pub whole: &'a [u8],
    pub pieces: Vec<&'a [u8]>,
}

impl<'a> Input<'a> {
    pub fn of(data: &'a [u8]) -> Option<Self> {
        let (&first, rest) = data.split_first()?;
        let (places, whole) = rest.split_at_checked(2 * usize::from(first & 7))?;
        let place = |two: &[u8]| usize::from(u16::from_be_bytes([two[0], two[1]])) % (whole.len() + 1);
        let mut places: Vec<usize> = places.chunks_exact(2).map(place).collect();
        places.sort_unstable();
        let (mut pieces, mut start) = (Vec::new(), 0);
        for place in places {
            pieces.push(&whole[start..place]);
            start = place;
        }
        pieces.push(&whole[start..]);
        Some(Input { ahead: first & 8 != 0, option: first >> 4 & 7, whole, pieces })
    }
}

/// Which side has sent the bytes.
#[derive(Clone)]
pub enum Sender {
    Client,
    /// In answer to this method.
    App(Method),
}

#[derive(Clone, Debug, PartialEq)]
pub enum First {
    Request(Method, String, Version),
    Response(StatusCode, Option<Vec<u8>>, Version),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Whole,
    /// Refused or cut.
    Broken,
}

#[derive(Clone, Debug)]
pub struct Message {
    pub first: First,
    pub headers: Fields,
    pub framing: Framing,
    pub persists: bool,
    /// The rules that every head has to pass found nothing.
    pub sound: bool,
    pub body: Vec<u8>,
    pub trailers: HeaderMap,
    pub ended: Ended,
    /// Where the head begins (empty lines before it included), where the body does, and where it ends.
    pub at: (usize, usize, usize),
}

impl Message {
    /// As whoever compares two readings of the same bytes sees it.
    pub fn meaning(&self) -> impl PartialEq + std::fmt::Debug + '_ {
        (&self.first, self.lines(), self.framing, self.persists, self.sound, &self.body, &self.trailers, self.ended)
    }

    fn lines(&self) -> Vec<(String, Vec<u8>)> {
        let line = |(name, value): (outrigger::core::fields::Name<'_>, outrigger::core::fields::Value<'_>)| {
            (String::from_utf8_lossy(name.as_bytes()).to_lowercase(), value.as_bytes().to_vec())
        };
        self.headers.iter().map(line).collect()
    }

    /// The lines that are the same whoever wrote the message: no framing, no Host.
    pub fn plain_lines(&self) -> Vec<(String, Vec<u8>)> {
        let framing = |name: &str| matches!(name, "content-length" | "transfer-encoding" | "host");
        self.lines().into_iter().filter(|(name, _)| !framing(name)).collect()
    }
}

/// Reads until a message is refused, the connection is not to go on, or the bytes are at their end.
pub fn read(pieces: &[&[u8]], sender: &Sender, ahead: bool) -> Vec<Message> {
    let mut talk =
        Talk { reader: HeadReader::new(HEAD_MAX), buffer: BytesMut::new(), fed: 0, messages: Vec::new(), body: None };
    for piece in pieces {
        talk.buffer.extend_from_slice(piece);
        talk.fed += piece.len();
        if !talk.go_on(sender, ahead) {
            return talk.messages;
        }
    }
    if let (Some(mut body), Some(message)) = (talk.body, talk.messages.last_mut()) {
        message.ended = if body.end_of_input().is_ok() { Ended::Whole } else { Ended::Broken };
        message.at.2 = talk.fed;
    }
    talk.messages
}

struct Talk {
    reader: HeadReader,
    buffer: BytesMut,
    fed: usize,
    messages: Vec<Message>,
    body: Option<Body>,
}

impl Talk {
    /// Takes what there is; false when nothing more is to be read.
    fn go_on(&mut self, sender: &Sender, ahead: bool) -> bool {
        // Each turn takes at least a byte, or is the last of its message.
        let turns_max = 2 * self.buffer.len() + 4;
        for _ in 0..turns_max {
            let before = self.fed - self.buffer.len();
            let Some(body) = &mut self.body else {
                match self.head(sender, before) {
                    Ok(true) => continue,
                    Ok(false) => return true,
                    Err(()) => return false,
                }
            };
            let message = self.messages.last_mut().expect("its head came first");
            match body.read(&mut self.buffer) {
                Ok(Some(Piece::Data(data))) => {
                    assert!(!data.is_empty(), "a piece of nothing is no progress");
                    message.body.extend_from_slice(&data);
                    if ahead {
                        body.take_end(&mut self.buffer);
                    }
                }
                Ok(Some(Piece::Trailers(trailers))) => {
                    let bytes: usize = trailers.iter().map(|(name, value)| name.as_str().len() + value.len() + 3).sum();
                    assert!(bytes <= TRAILERS_MAX && trailers.len() <= FIELDS_MAX, "trailers beyond their limit");
                    message.trailers = trailers;
                }
                Ok(Some(Piece::End)) => {}
                Ok(None) => return true,
                Err(_) => return false,
            }
            let message = self.messages.last_mut().expect("its head came first");
            message.at.2 = self.fed - self.buffer.len();
            if body.is_ended() {
                message.ended = Ended::Whole;
                self.body = None;
                let informational = matches!(message.first, First::Response(status, ..) if status.is_informational());
                if !(message.persists || informational) {
                    return false;
                }
            }
        }
        panic!("{turns_max} turns and no end");
    }

    /// `Ok(false)`: more bytes are needed. `Err`: refused.
    fn head(&mut self, sender: &Sender, before: usize) -> Result<bool, ()> {
        let (mut message, extensions) = match sender {
            Sender::Client => match self.reader.request(&mut self.buffer).map_err(drop)? {
                Some(head) => (of_request(head), Extensions::Refused),
                None => return Ok(false),
            },
            Sender::App(method) => match self.reader.response(&mut self.buffer, method).map_err(drop)? {
                Some(head) => (of_response(head), Extensions::Skipped),
                None => return Ok(false),
            },
        };
        let after = self.fed - self.buffer.len();
        assert!(after > before, "a head of no bytes");
        assert!(message.headers.len() <= FIELDS_MAX, "{} fields", message.headers.len());
        message.at = (before, after, after);
        let (framing, sound) = (message.framing, message.sound);
        self.messages.push(message);
        self.body = Some(Body::new(framing, extensions));
        if sound && framing != Framing::Unclear { Ok(true) } else { Err(()) }
    }
}

fn of_request(head: RequestHead) -> Message {
    let sound = framing::check_request(&head.method, &head.uri, head.version, &head.headers).is_ok();
    let first = First::Request(head.method, head.uri.to_string(), head.version);
    message(first, head.headers, head.framing, head.persists, sound)
}

fn of_response(head: ResponseHead) -> Message {
    let status = head.status;
    let interim = status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS;
    let sound = interim || framing::check_response(head.version, status.as_u16(), &head.headers).is_ok();
    let first = First::Response(status, head.reason.map(|reason| reason.to_vec()), head.version);
    message(first, head.headers, head.framing, head.persists, sound)
}

fn message(first: First, headers: Fields, framing: Framing, persists: bool, sound: bool) -> Message {
    let bytes: usize = headers.iter().map(|(name, value)| name.as_bytes().len() + value.as_bytes().len() + 3).sum();
    assert!(bytes <= HEAD_MAX, "a head beyond its limit");
    let (body, trailers) = (Vec::new(), HeaderMap::new());
    Message { first, headers, framing, persists, sound, body, trailers, ended: Ended::Broken, at: (0, 0, 0) }
}

/// What hyper does not look into: two lengths that it keeps for purposes of its own (nobody can send such a body), and a
/// Connection with bytes above 127, of which it knows neither `close` nor `keep-alive`.
pub fn is_beyond_hyper(messages: &[Message]) -> bool {
    let odd = |message: &Message| message.headers.get_all("connection").any(|value| !value.as_bytes().is_ascii());
    let long = |message: &Message| matches!(message.framing, Framing::Length(length) if length >= u64::MAX - 1);
    messages.iter().any(|message| odd(message) || long(message))
}

/// The message as we would write it for the next reader. `method`: what an answer is to.
pub fn encode(message: &Message, method: &Method) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writing = match (&message.framing, &message.first) {
        (Framing::Length(length), _) => Writing::Length(*length),
        (Framing::Chunked, _) => Writing::Chunked,
        (Framing::UntilClose, _) => Writing::UntilClose,
        (Framing::None | Framing::Unclear, First::Request(..)) => Writing::Never,
        (Framing::None | Framing::Unclear, First::Response(status, ..)) => match status.as_u16() {
            100..=199 | 204 => Writing::Never,
            304 => Writing::Nothing,
            _ if *method == Method::HEAD => Writing::Nothing,
            _ => Writing::Length(0),
        },
    };
    match &message.first {
        First::Request(method, target, _) => {
            let mut headers = message.headers.clone();
            if !headers.contains("host") {
                // Of HTTP/1.0; the next reader is spoken to in HTTP/1.1.
                headers.append("host", HeaderValue::from_static("a"));
            }
            encode::request_head(&mut out, method, target, &headers, writing);
        }
        First::Response(status, reason, _) => {
            let how = (writing, Persistence::AsIs);
            encode::response_head(&mut out, *status, reason.as_deref(), &message.headers, how);
        }
    }
    let owed = message.body.is_empty() || writing.owe(message.body.len()).is_ok();
    assert!(owed, "the body is not the announced one");
    assert!(writing.may_end().is_ok(), "the body is not the announced one");
    if writing.is_chunked() {
        if !message.body.is_empty() {
            encode::chunk_head(&mut out, message.body.len());
            out.extend_from_slice(&message.body);
            out.extend_from_slice(encode::CHUNK_END);
        }
        encode::last_chunk(&mut out, Some(&message.trailers));
    } else {
        out.extend_from_slice(&message.body);
    }
    out
}
