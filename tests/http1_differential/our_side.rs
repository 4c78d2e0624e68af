//! What our codec, and the rules every head has to pass, make of bytes.

use bytes::BytesMut;
use http::Method;
use outrigger::core::framing;
use outrigger::http::{Body, Extensions, Framing, HeadReader, Piece};

use crate::{Reading, Seen};

const HEAD_MAX: usize = 32 * 1024;

pub fn fields(headers: &http::HeaderMap) -> Vec<(String, Vec<u8>)> {
    let mut fields: Vec<_> = headers
        .iter()
        .filter(|(name, _)| *name != http::header::CONTENT_LENGTH && *name != http::header::TRANSFER_ENCODING)
        .map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()))
        .collect();
    fields.sort();
    fields
}

pub fn requests(input: &[u8]) -> Reading {
    let (mut reader, mut buffer) = (HeadReader::new(HEAD_MAX), BytesMut::from(input));
    let mut reading = Reading::default();
    loop {
        let head = match reader.request(&mut buffer) {
            Ok(Some(head)) => head,
            Ok(None) => return reading,
            Err(problem) => {
                reading.refused = Some(problem.label().to_owned());
                return reading;
            }
        };
        if let Err(ambiguity) = framing::check_request(&head.method, &head.uri, head.version, &head.headers) {
            reading.refused = Some(ambiguity.label().to_owned());
            return reading;
        }
        let (body, problem) = body(head.framing, Extensions::Refused, &mut buffer);
        let line = format!("{} {} {:?}", head.method, head.uri, head.version);
        let whole = body.is_some();
        reading.messages.push(Seen { line, fields: fields(&head.headers.to_map()), body });
        reading.refused = problem;
        reading.closed = whole && !head.persists;
        if !head.persists || !whole {
            return reading;
        }
    }
}

pub fn response(input: &[u8]) -> Reading {
    let (mut reader, mut buffer) = (HeadReader::new(HEAD_MAX), BytesMut::from(input));
    let mut reading = Reading::default();
    loop {
        let head = match reader.response(&mut buffer, &Method::GET) {
            Ok(Some(head)) => head,
            Ok(None) => return reading,
            Err(problem) => {
                reading.refused = Some(problem.label().to_owned());
                return reading;
            }
        };
        let status = head.status.as_u16();
        if head.status.is_informational() && status != 101 {
            continue;
        }
        if let Err(why) = framing::check_response(head.version, status, &head.headers) {
            reading.refused = Some(why.to_owned());
            return reading;
        }
        let (body, problem) = body(head.framing, Extensions::Skipped, &mut buffer);
        let line = format!("{status} {:?}", head.version);
        reading.messages.push(Seen { line, fields: fields(&head.headers.to_map()), body });
        reading.refused = problem;
        return reading;
    }
}

fn body(framing: Framing, extensions: Extensions, buffer: &mut BytesMut) -> (Option<Vec<u8>>, Option<String>) {
    let (mut body, mut data) = (Body::new(framing, extensions), Vec::new());
    loop {
        match body.read(buffer) {
            Ok(Some(Piece::Data(bytes))) => data.extend_from_slice(&bytes),
            Ok(Some(Piece::Trailers(_) | Piece::End)) => return (Some(data), None),
            Ok(None) => match body.end_of_input() {
                Ok(()) => return (Some(data), None),
                Err(problem) => return (None, Some(problem.label().to_owned())),
            },
            Err(problem) => return (None, Some(problem.label().to_owned())),
        }
    }
}
