//! The one way to an endpoint: takes a connection or opens one, sends, and answers with a response or a sorted error.
//!
//! One pool per worker and endpoint; nothing is shared between threads. The only retry here is the one that is always
//! safe: a request that was never written is sent again on a fresh connection. Everything that needs a budget, a
//! backoff or a judgement is above.

use std::cell::Cell;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::uri::{Authority, Scheme};
use http::{HeaderValue, StatusCode};
use http_body::Body;

use super::body::{RequestBody, Watched};
use super::clock::now;
use super::connect::{Alpn, ConnectError, ConnectProblem, Connected, To, open};
use super::error::{BoxError, SendError};
use super::h1::{Conn, Failed};
use super::h2::{Seat, Streams};
use super::idle::Idle;
use super::prepare::{self, Target};
use super::resolve::Names;
use super::response::UpstreamBody;
use super::spec::{EndpointSpec, Protocol, SendHow};
use super::tally::{Counts, Tally};
use crate::core::units::Address;
use crate::http::ResponseHead;
use crate::http::{Request, Response};

/// The connections of one worker to one endpoint. `B` is the request body; one pool sends one type of body, so that
/// none is boxed.
pub struct Pool<B = RequestBody> {
    spec: EndpointSpec,
    place: Place,
    target: Target,
    tally: Rc<Tally>,
    idle: Rc<Idle<B>>,
    streams: Rc<Streams<B>>,
    /// What the last TLS handshake that offered both chose.
    chose_http2: Cell<Option<bool>>,
}

impl<B> Pool<B>
where
    B: Body<Data = Bytes> + Default + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    pub fn new(spec: EndpointSpec) -> Rc<Pool<B>> {
        let scheme = if spec.tls.is_some() { Scheme::HTTPS } else { Scheme::HTTP };
        // Configuration has checked it; a Unix socket has none of its own.
        let authority = Authority::try_from(spec.authority.as_str()).unwrap_or(Authority::from_static("localhost"));
        let host = HeaderValue::from_str(authority.as_str()).unwrap_or(HeaderValue::from_static("localhost"));
        let tally = Rc::new(Tally::default());
        let place = match &spec.address {
            Address::Tcp { host, port } => Place::Named(Names::new(host, *port, spec.refresh)),
            Address::Unix(path) => Place::Unix(path.clone()),
        };
        Rc::new(Pool {
            place,
            target: Target { scheme, authority, host },
            idle: Idle::new(spec.idle_max, spec.idle_timeout, Rc::clone(&tally)),
            streams: Streams::new(spec.idle_timeout, Rc::clone(&tally)),
            tally,
            chose_http2: Cell::new(None),
            spec,
        })
    }

    /// Sends `req` and waits for the response head (first byte and total timers are the caller's). Dropping the future
    /// takes the request back: the HTTP/1.1 connection closes, the HTTP/2 stream is reset.
    ///
    /// The request is lent, not given: its body is taken once something of it is sent, its head stays, adapted to the
    /// protocol; whoever sends it again need not have kept a copy.
    ///
    /// Must run inside a `LocalSet`.
    pub async fn send(
        self: &Rc<Self>,
        req: &mut Request<B>,
        how: SendHow<'_>,
    ) -> Result<Response<UpstreamBody>, SendError> {
        self.tend();
        match self.choose(req, how) {
            Choice::Http1 => self.send_http1(req, how, None).await,
            // Boxed: HTTP/2 towards apps is the exception, and would make every request's future larger.
            Choice::Http2(alpn) => match Box::pin(self.send_http2(req, how, alpn)).await {
                Sent::Over(outcome) => outcome,
                Sent::NotHttp2(conn) => self.send_http1(req, how, conn).await,
            },
        }
    }

    fn choose(&self, req: &Request<B>, how: SendHow<'_>) -> Choice {
        let plain = self.spec.tls.is_none();
        match self.spec.protocol {
            Protocol::Http1 => Choice::Http1,
            Protocol::Http2 => Choice::Http2(Alpn::Http2),
            // Upgrades exist on HTTP/1.1 only (RFC 8441 is not offered).
            Protocol::Auto if req.headers.contains("upgrade") => Choice::Http1,
            Protocol::Auto if plain && how.want_http2 => Choice::Http2(Alpn::Http2),
            Protocol::Auto if plain || self.chose_http2.get() == Some(false) => Choice::Http1,
            Protocol::Auto => Choice::Http2(Alpn::Any),
        }
    }

    /// `opened`: a connection that has not served yet and is this request's.
    async fn send_http1(
        self: &Rc<Self>,
        req: &mut Request<B>,
        how: SendHow<'_>,
        mut opened: Option<Rc<Conn<B>>>,
    ) -> Result<Response<UpstreamBody>, SendError> {
        prepare::http1(req, &self.target);
        let mut reuse = !how.fresh && opened.is_none();
        loop {
            let taken = now();
            let idle = if reuse { self.idle.take(taken, how.replayable).await } else { None };
            let (conn, idle_for) = match idle {
                Some((conn, age)) => (conn, Some(age)),
                None => {
                    let conn = match opened.take() {
                        Some(conn) => Ok(conn),
                        // Boxed: connecting is rare and large, and would otherwise be part of every request's future.
                        None => Box::pin(self.open_http1(how)).await,
                    };
                    match conn {
                        Ok(conn) => (conn, None),
                        Err(cause) => return Err(SendError::connect(cause)),
                    }
                }
            };
            match conn.send(req, idle_for.is_some(), how.interim).await {
                Ok(head) => return Ok(self.answer_http1(head, conn, idle_for)),
                Err(Failed::Sent(error)) => {
                    if let (Some(age), SendError::Reset { .. }) = (idle_for, &error) {
                        self.idle.broke_after(age, now().saturating_duration_since(taken));
                    }
                    return Err(error);
                }
                Err(Failed::NeverWritten) => {}
            }
            let Some(age) = idle_for else { return Err(SendError::NeverWritten) };
            // The app closed it before we wrote: the one retry that is always safe, on a fresh connection.
            self.idle.closed_after(age);
            reuse = false;
        }
    }

    fn answer_http1(
        &self,
        head: ResponseHead,
        conn: Rc<Conn<B>>,
        idle_for: Option<Duration>,
    ) -> Response<UpstreamBody> {
        match idle_for {
            Some(age) => {
                self.idle.survived(age);
                self.tally.reused();
            }
            None => self.idle.announced(&head.headers),
        }
        let reused = idle_for.is_some();
        let body = if head.status == StatusCode::SWITCHING_PROTOCOLS {
            UpstreamBody::upgraded(conn.hand_over(), reused)
        } else {
            UpstreamBody::http1(conn, reused)
        };
        Response { status: head.status, reason: head.reason, version: head.version, headers: head.headers, body }
    }

    async fn send_http2(self: &Rc<Self>, req: &mut Request<B>, how: SendHow<'_>, alpn: Alpn) -> Sent<B> {
        for _ in 0..HTTP2_TRIES_MAX {
            let found = match self.streams.pick() {
                Some(seat) => Ok(Found::Http2(seat)),
                None => Box::pin(self.seat(how, alpn)).await,
            };
            let mut seat = match found {
                Ok(Found::Http2(seat)) => seat,
                Ok(Found::Http1(conn)) => return Sent::NotHttp2(conn),
                Err(cause) => return Sent::Over(Err(SendError::connect(cause))),
            };
            let mut given = take_body(req);
            prepare::http2(&mut given, &self.target);
            let mut error = match seat.send(given).await {
                Ok(res) => {
                    if seat.reused {
                        self.tally.reused();
                    }
                    let res = Response::from(res);
                    return Sent::Over(Ok(res.map(|body| UpstreamBody::http2(body, seat.stream, seat.reused))));
                }
                Err(error) => error,
            };
            let Some(message) = error.take_message() else {
                let error = SendError::after_write(error.into_error(), seat.stream.watch(), seat.reused);
                return Sent::Over(Err(error));
            };
            // The connection is going away (GOAWAY, closed) and had not begun with this request.
            self.streams.forget(&seat);
            req.body = message.into_body().into_inner();
        }
        Sent::Over(Err(SendError::NeverWritten))
    }

    /// A stream on a connection that has room, opening one if need be; all waiting counts as connecting.
    async fn seat(&self, how: SendHow<'_>, alpn: Alpn) -> Result<Found<B>, ConnectError> {
        let deadline = tokio::time::Instant::now() + how.connect_timeout;
        let failures = self.streams.failures();
        loop {
            if let Some(seat) = self.streams.pick() {
                return Ok(Found::Http2(seat));
            }
            if alpn == Alpn::Any && self.chose_http2.get() == Some(false) {
                return Ok(Found::Http1(None));
            }
            let Some(opening) = self.streams.begin() else {
                self.streams.wait(failures, deadline).await?;
                continue;
            };
            let opened = match self.connect(alpn, how).await {
                Ok(connected) if alpn == Alpn::Any && !connected.chose_http2 => {
                    self.chose_http2.set(Some(false));
                    drop(opening);
                    return Ok(Found::Http1(Some(Conn::new(connected.io, &self.idle))));
                }
                Ok(connected) => opening.start(connected.io, deadline).await,
                Err(error) => Err(error),
            };
            if let Err(error) = opened {
                opening.failed(&error);
                return Err(error);
            }
        }
    }

    async fn open_http1(&self, how: SendHow<'_>) -> Result<Rc<Conn<B>>, ConnectError> {
        let connected = self.connect(Alpn::Http1, how).await?;
        Ok(Conn::new(connected.io, &self.idle))
    }

    async fn connect(&self, alpn: Alpn, how: SendHow<'_>) -> Result<Connected, ConnectError> {
        let tls = self.spec.tls.as_deref().map(|tls| (tls, alpn));
        let opening = async {
            match &self.place {
                Place::Named(names) => {
                    let found = names.addresses().await;
                    let addresses = found.map_err(|error| ConnectError::new(ConnectProblem::Dns, error))?;
                    open(To::Tcp(&addresses), tls).await
                }
                Place::Unix(path) => open(To::Unix(path), tls).await,
            }
        };
        let outcome = tokio::time::timeout(how.connect_timeout, opening).await;
        let outcome = outcome.unwrap_or_else(|_elapsed| Err(ConnectError::timeout()));
        if let (Err(_), Place::Named(names)) = (&outcome, &self.place) {
            names.distrust();
        }
        outcome
    }
}

impl<B: 'static> Pool<B> {
    /// Follows a name that has moved: connections made so far are used no more.
    fn tend(&self) {
        let Place::Named(names) = &self.place else { return };
        names.tend();
        if names.moved() {
            self.close_idle();
            self.idle.retire();
        }
    }

    pub fn spec(&self) -> &EndpointSpec {
        &self.spec
    }

    /// Closes every idle connection; those in use finish.
    pub fn close_idle(&self) {
        self.idle.clear();
        self.streams.clear();
    }

    pub fn counts(&self) -> Counts {
        Counts { idle: self.idle.len() + self.streams.idle(), ..self.tally.counts() }
    }

    /// The shortest time after which the app was seen to close an idle connection, or said it would.
    pub fn learned_idle_timeout(&self) -> Option<Duration> {
        self.idle.learned()
    }
}

/// Where the endpoint is.
enum Place {
    Named(Rc<Names>),
    Unix(PathBuf),
}

/// Which half of the pool a request begins with.
enum Choice {
    Http1,
    Http2(Alpn),
}

/// What became of a request that began with HTTP/2.
enum Sent<B> {
    Over(Result<Response<UpstreamBody>, SendError>),
    /// TLS chose HTTP/1.1; with the connection that found out, for whoever opened it.
    NotHttp2(Option<Rc<Conn<B>>>),
}

/// A request of its own, in the form of the `http` crate, with the body of this one.
fn take_body<B: Default>(req: &mut Request<B>) -> http::Request<B> {
    let mut taken = http::Request::new(std::mem::take(&mut req.body));
    req.method.clone_into(taken.method_mut());
    req.uri.clone_into(taken.uri_mut());
    *taken.headers_mut() = req.headers.to_map();
    *taken.version_mut() = req.version;
    taken
}

/// What was found for a request that may go over HTTP/2.
enum Found<B> {
    Http2(Seat<B>),
    /// As [`Sent::NotHttp2`].
    Http1(Option<Rc<Conn<B>>>),
}

/// Each try takes a connection that gave the request back out of use, so this is reached only when an app closes
/// connections as fast as we open them.
const HTTP2_TRIES_MAX: usize = 4;
