//! What happens on one connection's wire: the request out and the answer in, by turns.

use std::io;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};
use http::{Method, StatusCode};
use http_body::{Body, Frame};
use tokio::task::AbortHandle;

use super::Failed;
use crate::core::fields::Fields;
use crate::http::Request;
use crate::http::encode;
use crate::http::wire::{Outbound, Sending, Trouble, poll_fill};
use crate::http::{self as codec, Extensions, Framing, HeadProblem, HeadReader, Piece, ResponseHead, Writing};
use crate::upstream::error::{BoxError, SendError, UpstreamBodyError, UpstreamBodyProblem};
use crate::upstream::io::Io;
use crate::upstream::spec::Interim;

pub(super) struct State<B> {
    /// `None` once closed or handed on.
    pub(super) io: Option<Io>,
    pub(super) read: BytesMut,
    /// What the last read brought.
    pub(super) flow: usize,
    pub(super) out: Outbound,
    pub(super) heads: HeadReader,
    /// What is left of the request's body.
    pub(super) upload: Option<Sending<B>>,
    /// The task that sends it after the answer's head.
    pub(super) rest: Option<AbortHandle>,
    /// The request's body failed: what follows from that is not the app's fault.
    pub(super) upload_failed: bool,
    /// Who waits for the answer's body, while `rest` runs.
    pub(super) reader: Option<Waker>,
    pub(super) body: codec::Body,
    /// Bytes that were taken may still be on this side: over TLS.
    pub(super) unflushed: bool,
    /// The connection may serve another request.
    pub(super) persists: bool,
    pub(super) interim: u32,
}

/// The method an answer is to, and who hears of what comes before it.
type Asked<'a> = (&'a Method, Option<&'a dyn Interim>);

/// How far a request's body has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    All,
    /// There is more, and it is ready.
    Some,
    /// For the body or for the socket.
    Waits,
}

impl<B> State<B> {
    pub(super) fn new(io: Io) -> Self {
        State {
            io: Some(io),
            read: BytesMut::new(),
            flow: 0,
            out: Outbound::default(),
            heads: HeadReader::new(HEAD_MAX),
            upload: None,
            rest: None,
            upload_failed: false,
            reader: None,
            body: codec::Body::new(Framing::None, Extensions::Skipped),
            unflushed: false,
            persists: false,
            interim: 0,
        }
    }

    pub(super) fn fill(&mut self, cx: &mut Context<'_>, expected: u64) -> Poll<io::Result<usize>> {
        match &mut self.io {
            Some(io) => poll_fill(io, cx, &mut self.read, expected, &mut self.flow),
            None => Poll::Ready(Ok(0)),
        }
    }
}

impl<B> State<B>
where
    B: Body<Data = Bytes> + Default + Unpin,
    B::Error: Into<BoxError>,
{
    /// Writes the head, and with it what the body has ready.
    pub(super) fn begin(&mut self, req: &mut Request<B>, cx: &mut Context<'_>) -> Result<(), Failed> {
        let writing = writing(req);
        let before = self.io.as_ref().map_or(0, Io::accepted);
        let target = req.uri.path_and_query().map_or("/", |target| target.as_str());
        encode::request_head(self.out.gather(), &req.method, target, &req.headers, writing);
        self.upload_failed = false;
        self.interim = 0;
        if req.body.is_end_stream() && writing != Writing::Chunked {
            // Nothing more is needed of it, unless it has to be given back.
            let written = self.write(cx);
            return match written {
                _ if self.is_lost(before) => Err(Failed::NeverWritten),
                Poll::Ready(Err(cause)) => Err(Failed::Sent(SendError::reset(true, cause))),
                Poll::Ready(Ok(())) => {
                    self.out.rest(); // who waits for the app holds no buffer
                    Ok(())
                }
                Poll::Pending => Ok(()),
            };
        }
        let trailers = req.headers.contains("trailer");
        self.upload = Some(Sending::new(std::mem::take(&mut req.body), writing, trailers));
        match self.upload(cx) {
            Err(error) => Err(Failed::Sent(error)),
            Ok(_) if self.is_lost(before) => Err(Failed::Sent(SendError::NeverWritten)),
            Ok(_) => Ok(()),
        }
    }

    /// Nothing of the request is left to write.
    pub(super) fn is_sent(&self) -> bool {
        self.upload.is_none() && self.out.is_empty() && !self.unflushed
    }

    /// The app had closed before it could have been sent the first byte; `before`: what had been sent until then.
    fn is_lost(&self, before: u64) -> bool {
        self.io.as_ref().is_some_and(|io| io.closed_at(before))
    }

    fn write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(io) = &mut self.io else { return Poll::Ready(Err(io::ErrorKind::NotConnected.into())) };
        let written = self.out.poll_write(io, cx);
        self.unflushed = written.is_pending();
        written
    }

    /// Sends what there is of the request, once round.
    fn upload(&mut self, cx: &mut Context<'_>) -> Result<Sent, SendError> {
        let waits = match self.upload.as_mut().map(|upload| upload.gather(&mut self.out, cx)) {
            None | Some(Ok(false)) => false,
            Some(Ok(true)) => true,
            Some(Err(trouble)) => {
                self.upload_failed = true;
                return Err(SendError::RequestBody { cause: cause(trouble) });
            }
        };
        match self.write(cx) {
            Poll::Pending => return Ok(Sent::Waits),
            Poll::Ready(Err(cause)) => return Err(SendError::reset(false, cause)),
            Poll::Ready(Ok(())) => {}
        }
        if self.upload.as_ref().is_none_or(Sending::is_ended) {
            self.upload = None;
            return Ok(Sent::All);
        }
        Ok(if waits { Sent::Waits } else { Sent::Some })
    }

    pub(super) fn poll_answer(
        &mut self,
        asked: Asked<'_>,
        reused: bool,
        cx: &mut Context<'_>,
    ) -> Poll<Result<ResponseHead, SendError>> {
        loop {
            let sent = if self.is_sent() { Sent::All } else { self.upload(cx)? };
            // Between two rounds the socket is read: a body that is always ready must not hide an early answer.
            let answer = self.poll_head(asked, reused, cx);
            if answer.is_ready() || sent != Sent::Some {
                return answer;
            }
        }
    }

    fn poll_head(
        &mut self,
        (method, interim): Asked<'_>,
        reused: bool,
        cx: &mut Context<'_>,
    ) -> Poll<Result<ResponseHead, SendError>> {
        loop {
            match self.heads.response(&mut self.read, method) {
                Ok(Some(head)) if head.status.is_informational() && head.status != StatusCode::SWITCHING_PROTOCOLS => {
                    self.interim += 1;
                    if self.interim > INTERIM_MAX {
                        return Poll::Ready(Err(bad(HeadProblem::Malformed)));
                    }
                    if let Some(interim) = interim.filter(|_| head.status != StatusCode::CONTINUE) {
                        interim.interim(head.status, head.headers);
                    }
                    continue;
                }
                Ok(Some(head)) if head.framing == Framing::Unclear => {
                    return Poll::Ready(Err(bad(HeadProblem::Malformed)));
                }
                Ok(Some(head)) => return Poll::Ready(Ok(head)),
                Ok(None) => {}
                Err(problem) => return Poll::Ready(Err(bad(problem))),
            }
            let cause = match ready!(self.fill(cx, 0)) {
                Ok(0) => io::ErrorKind::UnexpectedEof.into(),
                Err(cause) => cause,
                Ok(_) => continue,
            };
            return Poll::Ready(Err(SendError::reset(reused, cause)));
        }
    }

    /// Sends what was left of the body when the answer came.
    pub(super) fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match self.upload(cx) {
                Ok(Sent::Waits) => return Poll::Pending,
                Ok(Sent::Some) => {}
                Ok(Sent::All) => break,
                Err(_) => {
                    self.io = None;
                    break;
                }
            }
        }
        self.upload = None;
        self.rest = None;
        self.out.rest();
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
        Poll::Ready(())
    }

    pub(super) fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UpstreamBodyError>>> {
        loop {
            match self.body.read(&mut self.read) {
                Ok(Some(Piece::Data(data))) => {
                    self.body.take_end(&mut self.read);
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Ok(Some(Piece::Trailers(trailers))) => return Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
                Ok(Some(Piece::End)) => return Poll::Ready(None),
                Ok(None) => {}
                Err(cause) => {
                    return Poll::Ready(Some(Err(UpstreamBodyError::of(UpstreamBodyProblem::Malformed, cause))));
                }
            }
            if self.upload_failed {
                return Poll::Ready(Some(Err(UpstreamBodyError::request_body())));
            }
            let expected = self.body.coming();
            let filled = self.fill(cx, expected);
            if filled.is_pending() && self.rest.is_some() {
                self.reader = Some(cx.waker().clone());
            }
            match ready!(filled) {
                Ok(0) => {
                    // Without a socket it was us who ended it, after a failed write: never the end of a body.
                    if self.io.is_none() || self.body.end_of_input().is_err() {
                        return Poll::Ready(Some(Err(UpstreamBodyError::truncated())));
                    }
                }
                Ok(_) => {}
                Err(cause) => return Poll::Ready(Some(Err(UpstreamBodyError::of_io(cause)))),
            }
        }
    }
}

/// How a request's body is framed. `prepare` has put the fields of the head in order.
fn writing<B: Body>(req: &Request<B>) -> Writing {
    let (told, body) = (content_length(&req.headers), &req.body);
    if body.is_end_stream() {
        return if told.is_some() { Writing::Length(0) } else { Writing::Never };
    }
    match body.size_hint().exact().or(told) {
        Some(length) => Writing::Length(length),
        None => Writing::Chunked,
    }
}

fn content_length(headers: &Fields) -> Option<u64> {
    headers.get("content-length")?.to_str()?.parse().ok()
}

fn cause<E: Into<BoxError>>(trouble: Trouble<E>) -> BoxError {
    match trouble {
        Trouble::Body(error) => error.into(),
        Trouble::Mismatch => "the body is not as long as announced".into(),
    }
}

fn bad(problem: HeadProblem) -> SendError {
    SendError::BadResponse { cause: problem.into() }
}

/// A response head above this is refused as a bad response.
const HEAD_MAX: usize = 60 * 1024;
/// Informational answers before the final one.
const INTERIM_MAX: u32 = 64;
