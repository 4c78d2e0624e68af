//! Heads that never became a request, because nobody could read them: they are refused like requests, with an id, a line
//! in the log, a count and a place among what `why` knows. What they would have asked for is not guessed.
//!
//! One for each connection at most: its end follows.

use std::rc::Rc;

use http::{Method, Uri};

use super::body::{self, Body};
use super::exchange::Exchange;
use super::refusal::Refusal;
use super::upload::ClientBody;
use super::{Peer, Proxy, identify, respond};
use crate::http::HeadProblem;
use crate::http::{Request, Response};

impl Proxy {
    pub fn refuse_unread(self: &Rc<Self>, peer: Rc<Peer>, problem: HeadProblem) -> Response<Body> {
        let mut req = Request::new(ClientBody::Empty);
        req.method = Method::from_bytes(b"-").unwrap_or_default();
        req.uri = Uri::from_static("*");
        let mut exchange = Exchange::open(self, peer, &req);
        identify::identify(&mut exchange, &req.headers);
        exchange.notes.push(problem.explain().to_owned());
        let answer = Refusal::Unread(problem).answer(&mut exchange);
        let answer = respond::dress(&exchange, answer);
        body::carry(exchange, answer)
    }
}
