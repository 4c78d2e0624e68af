//! The record of one request from its first byte to its one end: who asked, what was decided, how long it took, what
//! it holds. It settles when it is dropped, wherever that happens: a client that leaves frees everything.

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Uri, Version};

use super::choose::Turn;
use super::inbound::ClientUpgrade;
use super::local::{Local, Own};
use super::rates::Standing;
use super::upgrade::Tunnel;
use super::upload::Upload;
use super::{ClientBody, Peer, Proxy};
use crate::core::fields::{Fields, Value};
use crate::core::priority::Priority;
use crate::core::request_id::RequestId;
use crate::core::{retry, trace};
use crate::http::Request;
use crate::plan::{ListenerPlan, RoutePlan, UpstreamPlan};
use crate::state::clock;
use crate::state::lifecycle::Stage;
use crate::state::places::Place;
use crate::telemetry::{AttemptRecord, Fate, RequestRecord};

/// In which form a refusal is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Json,
    Html,
    Grpc,
}

/// One request.
pub struct Exchange {
    pub proxy: Rc<Proxy>,
    pub plan: Rc<Local>,
    pub peer: Rc<Peer>,
    pub listener: Option<Own<ListenerPlan>>,
    pub route: Option<Own<RoutePlan>>,
    pub upstream: Option<Own<UpstreamPlan>>,
    pub started: Instant,
    pub method: Method,
    pub uri: Uri,
    pub version: Version,
    /// The effective host, with its port if one was named.
    pub host: String,
    pub client: IpAddr,
    pub peer_trusted: bool,
    pub scheme: &'static str,
    user_agent: Option<Bytes>,
    form: Form,
    pub request_id: RequestId,
    pub trace: Option<trace::Context>,
    /// Our server span, and the caller's.
    pub span: u64,
    pub parent_span: u64,
    /// No work of this request goes on past it; `None` once a stream has begun.
    pub deadline: Instant,
    pub upload: Option<Upload>,
    pub attempts: Vec<AttemptRecord>,
    /// The attempt that has not come to anything yet, as it is told should the request end first.
    pub under_way: Option<AttemptRecord>,
    /// What a policy decided, in words for whoever asks `why`.
    pub notes: Vec<String>,
    /// The endpoint whose answer is awaited or passed on.
    pub turn: Option<Turn>,
    /// Waited for an app that did not listen.
    pub held: Duration,
    /// When the first attempt began.
    pub forwarded: Option<Instant>,
    /// When the app's head arrived.
    pub first_byte: Option<Instant>,
    pub status: u16,
    pub bytes_out: u64,
    fate: Fate,
    reason: &'static str,
    pub priority: Priority,
    /// A place among the upstream's requests in flight.
    pub place: Option<Rc<RefCell<Place>>>,
    /// What the nearest of the route's limits says of itself.
    pub rate: Option<Standing>,
    /// The client's side of an upgrade, should the app agree to it.
    pub client_upgrade: Option<ClientUpgrade>,
    pub upgraded: bool,
    pub tunnel: Option<Tunnel>,
    settled: bool,
}

/// What a request's record allocates, for the worker's next request.
#[derive(Default)]
pub struct Memory {
    host: String,
    attempts: Vec<AttemptRecord>,
}

/// Of so many requests a worker keeps the memory.
const MEMORIES_MAX: usize = 64;
/// Memory of so many bytes, or attempts, is not kept.
const HOST_BYTES_MAX: usize = 256;
const ATTEMPTS_MAX: usize = 16;

impl Memory {
    fn give_back(mut self, proxy: &Proxy) {
        let mut memory = proxy.memory.borrow_mut();
        let small = self.host.capacity() <= HOST_BYTES_MAX && self.attempts.capacity() <= ATTEMPTS_MAX;
        if small && memory.len() < MEMORIES_MAX {
            self.host.clear();
            self.attempts.clear();
            memory.push(self);
        }
    }
}

impl Exchange {
    /// Begins the record of a request that has just been read.
    pub fn open(proxy: &Rc<Proxy>, peer: Rc<Peer>, req: &Request<ClientBody>) -> Box<Exchange> {
        let plan = proxy.local();
        let started = clock::now();
        let listener = plan.own_listener(peer.slot).cloned();
        proxy.shared().states.lifecycle.request_began();
        let headers = &req.headers;
        let Memory { host, attempts } = proxy.memory.borrow_mut().pop().unwrap_or_default();
        Box::new(Exchange {
            proxy: proxy.clone(),
            scheme: listener.as_ref().map_or("http", |listener| listener.scheme()),
            listener,
            route: None,
            upstream: None,
            started,
            method: req.method.clone(),
            uri: req.uri.clone(),
            version: req.version,
            host,
            client: peer.address.ip(),
            peer_trusted: plan.trusts(peer.address.ip()),
            user_agent: headers.share_bytes("user-agent"),
            form: form(headers),
            request_id: RequestId::None,
            trace: None,
            span: 0,
            parent_span: 0,
            deadline: started + Duration::from_secs(30),
            upload: None,
            attempts,
            under_way: None,
            notes: Vec::new(),
            turn: None,
            held: Duration::ZERO,
            forwarded: None,
            first_byte: None,
            status: 0,
            bytes_out: 0,
            // Until something better is known, a request that goes away has been left by its client.
            fate: Fate::ClientGone,
            reason: "",
            priority: Priority::Default,
            place: None,
            rate: None,
            client_upgrade: None,
            upgraded: false,
            tunnel: None,
            settled: false,
            peer,
            plan,
        })
    }

    pub fn request_id(&self) -> &str {
        self.request_id.as_str()
    }

    pub fn form(&self) -> Form {
        self.form
    }

    pub fn is_grpc(&self) -> bool {
        self.form == Form::Grpc
    }

    pub fn is_http1(&self) -> bool {
        self.version < Version::HTTP_2
    }

    pub fn outbound(&self) -> bool {
        self.listener.as_ref().is_some_and(|listener| listener.outbound)
    }

    pub fn upstream_name(&self) -> &str {
        self.upstream.as_ref().map_or("", |upstream| &upstream.name)
    }

    pub fn wall_now(&self) -> std::time::SystemTime {
        self.proxy.wall(clock::now())
    }

    /// The app may have had it, and it is not one that may be sent twice.
    pub fn may_be_acted_on(&self) -> bool {
        self.forwarded.is_some() && !retry::is_idempotent(&self.method)
    }

    pub fn time_left(&self) -> Duration {
        self.deadline.saturating_duration_since(clock::now())
    }

    /// The answer is ours, for this reason.
    pub fn refused(&mut self, fate: Fate, reason: &'static str) {
        self.fate = fate;
        self.reason = reason;
    }

    /// What the response's status says of the app, until the body tells otherwise.
    pub fn answered(&mut self, status: u16) {
        self.status = status;
        if self.reason.is_empty() && !self.upgraded {
            self.fate = if status >= 500 { Fate::AppError } else { Fate::Ok };
        }
    }

    /// The body ended before its end: `fate` replaces what the head promised, unless a refusal was being told.
    pub fn ended_early(&mut self, fate: Fate, reason: &'static str) {
        if self.reason.is_empty() {
            self.fate = fate;
            self.reason = reason;
        }
    }

    /// Ends the record, once.
    pub fn settle(&mut self) {
        if self.settled {
            return;
        }
        self.settled = true;
        self.turn = None;
        let proxy = self.proxy.clone();
        let lifecycle = &proxy.shared().states.lifecycle;
        if let (Some(place), Some(since), None) = (self.place.take(), self.forwarded, self.first_byte)
            && self.fate == Fate::ClientGone
        {
            let now = clock::now();
            place.borrow().given_up(now.saturating_duration_since(since), now);
        }
        if self.upgraded {
            lifecycle.upgrade_ended();
        }
        let gone = lifecycle.stage() == Stage::Cutting && matches!(self.fate, Fate::ClientGone | Fate::Truncated);
        if gone {
            self.reason = DRAIN_CUT;
        }
        let cut = self.reason == DRAIN_CUT;
        lifecycle.request_ended(cut);
        let ended = clock::unheld();
        if let Some(mut attempt) = self.under_way.take() {
            attempt.duration = ended.saturating_duration_since(self.started + attempt.started_after);
            self.attempts.push(attempt);
        }
        self.record(ended);
        let memory = Memory { host: std::mem::take(&mut self.host), attempts: std::mem::take(&mut self.attempts) };
        memory.give_back(&proxy);
    }

    fn record(&self, ended: Instant) {
        let at = |instant: Option<Instant>| instant.map(|at| at.saturating_duration_since(self.started));
        let duration = ended.saturating_duration_since(self.started);
        let route = self.route.as_deref();
        let none = &self.proxy.unrouted;
        let record = RequestRecord {
            request_id: self.request_id(),
            started: self.proxy.wall(self.started),
            duration,
            forwarded: at(self.forwarded),
            first_byte: at(self.first_byte),
            listener: self.listener.as_ref().map_or("", |listener| &listener.name),
            route: route.map_or("", |route| &route.name),
            upstream: self.upstream.as_ref().map(|upstream| &*upstream.name),
            endpoint: self.attempts.last().map(|attempt| &*attempt.endpoint),
            method: self.method.as_str(),
            scheme: self.scheme,
            host: &self.host,
            path: self.uri.path(),
            query: self.uri.query(),
            version: self.version,
            client: self.client,
            user_agent: self.user_agent.as_deref().and_then(|value| Value::of(value).to_str()),
            status: self.status,
            fate: self.fate,
            reason: self.reason,
            bytes_in: self.upload.as_ref().map_or(0, Upload::bytes),
            bytes_out: self.bytes_out,
            attempts: &self.attempts,
            trace: self.trace,
            parent_span: self.parent_span,
            span: self.span,
            sampled: self.trace.is_some_and(|context| context.sampled),
            probe: false,
            notes: &self.notes,
        };
        let metrics = route.map_or(&**none, |route| &*route.metrics);
        let upstream = self.upstream.as_ref().map(|upstream| &*upstream.metrics);
        self.proxy.telemetry.settle(&record, metrics, upstream);
    }
}

/// The drain's time was over.
pub const DRAIN_CUT: &str = "drain_cut";

impl Drop for Exchange {
    fn drop(&mut self) {
        self.settle();
    }
}

fn form(headers: &Fields) -> Form {
    let begins =
        |value: Option<Value<'_>>, prefix: &[u8]| value.is_some_and(|value| value.as_bytes().starts_with(prefix));
    if begins(headers.get("content-type"), b"application/grpc") {
        Form::Grpc
    } else if begins(headers.get("accept"), b"text/html") {
        Form::Html
    } else {
        Form::Json
    }
}
