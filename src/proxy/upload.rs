//! The request body on its way to the app: counted, bounded, watched for slow senders, and remembered while it is
//! small enough to be sent again.
//!
//! All attempts of a request look at one [`Upload`] through a [`View`] each. What one attempt has read is recorded up
//! to the route's cap; a later attempt replays the record and goes on reading where the first one stopped. Before a
//! place is taken only a bounded prefix is collected ([`Upload::gather`]); past it the first attempt streams, with the
//! app's back-pressure reaching the client. Small pieces are put together, so that a body sent byte by byte costs no
//! more than one that comes at once.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;

use super::inbound::{Broken, ClientUpgrade, Inbound};
use crate::core::forwarded;
use crate::state::clock;

/// The body of a request as the client sends it.
pub enum ClientBody {
    Empty,
    /// From an HTTP/1 connection.
    Http1(Inbound),
    /// From an HTTP/2 stream.
    Http2(Incoming),
    /// None; but the client asks for its connection to become something else.
    Upgrade(ClientUpgrade),
    /// For callers without a socket.
    Full(Option<Bytes>),
}

impl From<Incoming> for ClientBody {
    fn from(body: Incoming) -> Self {
        if body.is_end_stream() { ClientBody::Empty } else { ClientBody::Http2(body) }
    }
}

impl ClientBody {
    /// The wish to upgrade, if that is what it is.
    pub fn take_upgrade(&mut self) -> Option<ClientUpgrade> {
        match std::mem::replace(self, ClientBody::Empty) {
            ClientBody::Upgrade(upgrade) => Some(upgrade),
            other => {
                *self = other;
                None
            }
        }
    }

    /// No byte and no trailer will come.
    pub fn is_empty(&self) -> bool {
        match self {
            ClientBody::Empty | ClientBody::Upgrade(_) => true,
            ClientBody::Http1(body) => body.is_ended(),
            ClientBody::Http2(body) => body.is_end_stream(),
            ClientBody::Full(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
        }
    }

    fn length(&self) -> Option<u64> {
        match self {
            ClientBody::Empty | ClientBody::Upgrade(_) => Some(0),
            ClientBody::Http1(body) => body.left(),
            ClientBody::Http2(body) => body.size_hint().exact(),
            ClientBody::Full(bytes) => Some(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
        }
    }

    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match self {
            ClientBody::Empty | ClientBody::Upgrade(_) => Poll::Ready(None),
            ClientBody::Http1(body) => body.poll_frame(context),
            ClientBody::Http2(body) => {
                Pin::new(body).poll_frame(context).map(|frame| frame.map(|frame| frame.map_err(|_| Broken)))
            }
            ClientBody::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
        }
    }
}

/// Why an upload could not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UploadFailure {
    /// The client left, or its framing broke.
    Client,
    TooLarge,
}

impl std::fmt::Display for UploadFailure {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(match self {
            UploadFailure::Client => "the client's request body ended wrongly",
            UploadFailure::TooLarge => "the request body is larger than allowed",
        })
    }
}

impl std::error::Error for UploadFailure {}

/// Pieces are put together up to this many bytes: two neighbours are always larger, which bounds how many there are.
const TOGETHER_MAX: usize = 4 * 1024;

/// One request's body, shared by its attempts.
#[derive(Clone)]
pub struct Upload(Rc<RefCell<State>>);

struct State {
    body: ClientBody,
    length: Option<u64>,
    /// What has been read and is still needed: by the first attempt, which has not sent it yet, or by a later one.
    record: VecDeque<Bytes>,
    /// The number of the record's first piece.
    first: usize,
    /// The most that is kept to be sent again.
    replay_max: u64,
    /// Nothing that was sent has been forgotten.
    replayable: bool,
    trailers: Option<HeaderMap>,
    ended: Option<Instant>,
    bytes: u64,
    bytes_max: u64,
    /// Time spent waiting for the client, not for the app.
    waited: Duration,
    waiting_since: Option<Instant>,
    failure: Option<UploadFailure>,
}

impl Upload {
    /// `replay_max` is 0 for requests that may not be sent twice.
    pub fn new(body: ClientBody, replay_max: u64, bytes_max: Option<u64>) -> Upload {
        Upload(Rc::new(RefCell::new(State {
            length: body.length(),
            body,
            record: VecDeque::new(),
            first: 0,
            replay_max,
            replayable: replay_max > 0,
            trailers: None,
            ended: None,
            bytes: 0,
            bytes_max: bytes_max.unwrap_or(u64::MAX),
            waited: Duration::ZERO,
            waiting_since: None,
            failure: None,
        })))
    }

    /// Reads ahead until the body has ended or `max` bytes are here.
    pub async fn gather(&self, max: u64) -> Result<(), UploadFailure> {
        poll_fn(|context| {
            let mut state = self.0.borrow_mut();
            while state.ended.is_none() && state.bytes < max {
                if let Some(Err(failure)) = std::task::ready!(state.read(context)) {
                    return Poll::Ready(Err(failure));
                }
            }
            Poll::Ready(Ok(()))
        })
        .await
    }

    /// A fresh look at the body from its first byte; only while [`Upload::replayable`], or for the first attempt.
    pub fn view(&self) -> View {
        let sent = self.0.borrow().length;
        View { source: Some(self.0.clone()), next: 0, taken: 0, left: sent, trailers_sent: false }
    }

    /// Whether another attempt could send the whole body again.
    pub fn replayable(&self) -> bool {
        let state = self.0.borrow();
        state.failure.is_none() && (state.replayable || state.bytes == 0)
    }

    /// Whether every byte read so far is still here: enough for a request that was never written.
    pub fn whole(&self) -> bool {
        let state = self.0.borrow();
        state.failure.is_none() && state.first == 0
    }

    pub fn bytes(&self) -> u64 {
        self.0.borrow().bytes
    }

    pub fn failure(&self) -> Option<UploadFailure> {
        self.0.borrow().failure
    }

    /// When the last byte was read from the client.
    pub fn ended(&self) -> Option<Instant> {
        self.0.borrow().ended
    }

    /// Whether the client has sent less than `rate` bytes a second of the time we waited for it, after `grace`.
    pub fn too_slow(&self, now: Instant, rate: u64, grace: Duration) -> bool {
        let state = self.0.borrow();
        let waiting = state.waiting_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        let counted = (state.waited + waiting).saturating_sub(grace);
        state.ended.is_none() && !counted.is_zero() && (state.bytes as f64) < rate as f64 * counted.as_secs_f64()
    }
}

impl State {
    /// Reads one frame into the record; `None` at the end.
    fn read(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<(), UploadFailure>>> {
        if let Some(failure) = self.failure {
            return Poll::Ready(Some(Err(failure)));
        }
        let polled = self.body.poll_frame(context);
        match (&polled, self.waiting_since) {
            (Poll::Pending, None) => self.waiting_since = Some(clock::now()),
            (Poll::Ready(_), Some(since)) => {
                self.waited += clock::now().saturating_duration_since(since);
                self.waiting_since = None;
            }
            (Poll::Pending, Some(_)) | (Poll::Ready(_), None) => {}
        }
        let frame = match std::task::ready!(polled) {
            None => {
                self.end();
                return Poll::Ready(None);
            }
            Some(Err(_)) => return Poll::Ready(Some(Err(self.fail(UploadFailure::Client)))),
            Some(Ok(frame)) => frame,
        };
        Poll::Ready(match frame.into_data() {
            Ok(data) => Some(self.take(data)),
            Err(frame) => {
                self.trailers = frame.into_trailers().ok().map(forwarded::clean_trailers);
                self.end();
                None
            }
        })
    }

    fn take(&mut self, data: Bytes) -> Result<(), UploadFailure> {
        self.bytes += data.len() as u64;
        if self.bytes > self.bytes_max {
            return Err(self.fail(UploadFailure::TooLarge));
        }
        self.replayable = self.replayable && self.bytes <= self.replay_max;
        match self.record.back_mut() {
            Some(last) if last.len() + data.len() <= TOGETHER_MAX => *last = [&**last, &*data].concat().into(),
            Some(_) | None => self.record.push_back(data),
        }
        if self.body.is_empty() {
            self.end();
        }
        Ok(())
    }

    /// What has been read behind the first `taken` bytes of the piece with the number `next`; moves both behind it.
    fn next(&mut self, next: &mut usize, taken: &mut usize) -> Option<Bytes> {
        loop {
            let at = next.checked_sub(self.first)?;
            let piece = self.record.get(at)?;
            if *taken < piece.len() {
                let data = if *taken == 0 { piece.clone() } else { piece.slice(*taken..) };
                *taken = piece.len();
                return Some(data);
            }
            // The last piece may grow while it is here.
            if self.replayable && at + 1 == self.record.len() {
                return None;
            }
            (*next, *taken) = (*next + 1, 0);
            if !self.replayable {
                self.record.drain(..=at);
                self.first = *next;
            }
        }
    }

    fn end(&mut self) {
        if self.ended.is_none() {
            self.ended = Some(clock::now());
        }
    }

    fn fail(&mut self, failure: UploadFailure) -> UploadFailure {
        self.failure = Some(failure);
        failure
    }
}

/// One attempt's look at the body; an empty one for requests without a body.
pub struct View {
    source: Option<Rc<RefCell<State>>>,
    /// The piece of the record that is looked at, and how much of it has been sent.
    next: usize,
    taken: usize,
    /// Bytes left to send, where the length is known.
    left: Option<u64>,
    trailers_sent: bool,
}

impl Default for View {
    fn default() -> Self {
        View::empty()
    }
}

impl View {
    pub fn empty() -> View {
        View { source: None, next: 0, taken: 0, left: Some(0), trailers_sent: true }
    }
}

impl http_body::Body for View {
    type Data = Bytes;
    type Error = UploadFailure;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UploadFailure>>> {
        let view = &mut *self;
        let Some(source) = &view.source else { return Poll::Ready(None) };
        let mut state = source.borrow_mut();
        loop {
            if let Some(data) = state.next(&mut view.next, &mut view.taken) {
                view.left = view.left.map(|left| left.saturating_sub(data.len() as u64));
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
            if state.ended.is_some() {
                let trailers = if view.trailers_sent { None } else { state.trailers.clone() };
                view.trailers_sent = true;
                return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
            }
            if let Some(Err(failure)) = std::task::ready!(state.read(context)) {
                return Poll::Ready(Some(Err(failure)));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.left == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    fn body(text: &'static str) -> ClientBody {
        ClientBody::Full(Some(Bytes::from_static(text.as_bytes())))
    }

    async fn read(view: View) -> Result<Bytes, UploadFailure> {
        Ok(view.collect().await?.to_bytes())
    }

    #[tokio::test]
    async fn a_recorded_body_is_sent_again() {
        let upload = Upload::new(body("hello"), 5, None);
        assert_eq!(read(upload.view()).await, Ok(Bytes::from_static(b"hello")));
        assert!(upload.replayable());
        assert_eq!(read(upload.view()).await, Ok(Bytes::from_static(b"hello")));
        assert_eq!(upload.bytes(), 5);
        assert!(upload.ended().is_some());
    }

    #[tokio::test]
    async fn a_body_over_the_cap_is_sent_once() {
        let upload = Upload::new(body("hello"), 4, None);
        assert!(upload.replayable());
        assert_eq!(read(upload.view()).await, Ok(Bytes::from_static(b"hello")));
        assert!(!upload.replayable());
    }

    #[tokio::test]
    async fn a_body_over_the_limit_fails_every_attempt() {
        let upload = Upload::new(body("hello"), 10, Some(4));
        assert_eq!(read(upload.view()).await, Err(UploadFailure::TooLarge));
        assert_eq!(upload.failure(), Some(UploadFailure::TooLarge));
        assert!(!upload.replayable());
    }

    #[tokio::test]
    async fn the_length_is_announced_from_the_first_byte_of_each_view() {
        let upload = Upload::new(body("hello"), 10, None);
        let mut first = upload.view();
        assert_eq!(first.size_hint().exact(), Some(5));
        assert!(first.frame().await.is_some());
        assert!(first.is_end_stream());
        assert_eq!(upload.view().size_hint().exact(), Some(5));
    }

    #[tokio::test]
    async fn what_was_gathered_is_sent_whether_or_not_it_may_be_sent_again() {
        for (replay_max, again) in [(5, true), (4, false), (0, false)] {
            let upload = Upload::new(body("hello"), replay_max, None);
            assert_eq!(upload.gather(3).await, Ok(()));
            assert_eq!((upload.bytes(), upload.ended().is_some()), (5, true));
            assert_eq!((upload.replayable(), upload.whole()), (again, true));
            assert_eq!(read(upload.view()).await, Ok(Bytes::from_static(b"hello")));
        }
        let upload = Upload::new(body("hello"), 10, Some(4));
        assert_eq!(upload.gather(100).await, Err(UploadFailure::TooLarge));
        assert_eq!(read(upload.view()).await, Err(UploadFailure::TooLarge));
    }

    #[tokio::test]
    async fn pieces_that_come_byte_by_byte_are_put_together() {
        // Goal: views see every byte once, whatever was put together meanwhile, and there are few pieces.
        const BYTES: usize = 3 * TOGETHER_MAX;
        for replay_max in [BYTES as u64, 0] {
            let upload = Upload::new(ClientBody::Empty, replay_max, None);
            let expected: Vec<u8> = (0..BYTES).map(|at| at as u8).collect();
            let (mut view, mut seen) = (upload.view(), Vec::new());
            for (at, byte) in expected.iter().enumerate() {
                let mut state = upload.0.borrow_mut();
                state.ended = None; // an empty body has ended already
                assert_eq!(state.take(Bytes::copy_from_slice(&[*byte])), Ok(()));
                if at % 3 == 0 {
                    while let Some(data) = state.next(&mut view.next, &mut view.taken) {
                        seen.extend_from_slice(&data);
                    }
                }
                assert!(state.record.len() <= 2 * BYTES / TOGETHER_MAX + 1, "{}", state.record.len());
            }
            seen.extend_from_slice(&read(view).await.expect("a body"));
            assert!(seen == expected, "{replay_max}");
            if replay_max > 0 {
                assert!(read(upload.view()).await.is_ok_and(|again| again == expected));
            }
        }
    }

    #[test]
    fn a_sender_is_slow_only_after_the_grace_and_only_below_the_rate() {
        let upload = Upload::new(body("hello"), 0, None);
        let start = clock::now();
        upload.0.borrow_mut().waiting_since = Some(start);
        let grace = Duration::from_secs(5);
        assert!(!upload.too_slow(start + grace, 240, grace));
        assert!(upload.too_slow(start + grace + Duration::from_millis(1), 240, grace));
        upload.0.borrow_mut().bytes = 240;
        assert!(!upload.too_slow(start + grace + Duration::from_secs(1), 240, grace));
        assert!(upload.too_slow(start + grace + Duration::from_millis(1001), 240, grace));
    }
}
