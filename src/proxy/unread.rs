//! Heads that never became a request, because nobody could read them: they are refused like requests, with an id, a line
//! in the log, a count and a place among what `why` knows. What they would have asked for is not guessed.
//!
//! Over HTTP/1 the end of the connection follows; over HTTP/2 it costs its stream.

use std::rc::Rc;

use http::{Method, Uri, Version};

use super::body::{self, Body};
use super::exchange::Exchange;
use super::refusal::Refusal;
use super::upload::ClientBody;
use super::{Peer, Proxy, identify, respond};
use crate::http::HeadProblem;
use crate::http::{Request, Response};

impl Proxy {
    pub fn refuse_unread(self: &Rc<Self>, peer: Rc<Peer>, version: Version, problem: HeadProblem) -> Response<Body> {
        self.refuse_head(peer, version, Refusal::Unread(problem), problem.explain())
    }

    /// The rest of a head did not come in time.
    pub fn refuse_slow_head(self: &Rc<Self>, peer: Rc<Peer>) -> Response<Body> {
        let why = "The head was not complete after timeouts.request_header.";
        self.refuse_head(peer, Version::HTTP_11, Refusal::HeadTimeout, why)
    }

    fn refuse_head(self: &Rc<Self>, peer: Rc<Peer>, version: Version, refusal: Refusal, why: &str) -> Response<Body> {
        let mut req = Request::new(ClientBody::Empty);
        req.method = Method::from_bytes(b"-").unwrap_or_default();
        req.uri = Uri::from_static("*");
        req.version = version;
        let mut exchange = Exchange::open(self, peer, &req);
        identify::identify(&mut exchange, &req.headers);
        exchange.notes.push(why.to_owned());
        let mut answer = refusal.answer(&mut exchange);
        respond::dress(&exchange, &mut answer);
        body::carry(exchange, &mut answer);
        answer
    }
}
