//! The tries of a request: an endpoint whose breaker lets it through, a connection, the request, the answer's head;
//! again after a failure that may be tried again, while the deadline allows.

use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Request, Response, StatusCode};

use super::choose::{self, Turn};
use super::exchange::Exchange;
use super::identify::write_trace;
use super::refusal::Refusal;
use super::upload::{ClientBody, Upload, UploadFailure, View};
use crate::core::breaker::{Outcome, Params};
use crate::core::{backoff, deadline, framing, retry};
use crate::plan::{EndpointPlan, RoutePlan, UpstreamPlan};
use crate::state::clock;
use crate::state::endpoint::{Admission, EndpointState};
use crate::telemetry::AttemptRecord;
use crate::upstream::{SendError, SendHow, UpstreamBody};

const X_REQUEST_TIMEOUT: HeaderName = HeaderName::from_static("x-request-timeout-ms");
const X_ENVOY_TIMEOUT: HeaderName = HeaderName::from_static("x-envoy-expected-rq-timeout-ms");
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// The number of an attempt, from the second on.
const X_ATTEMPT: HeaderName = HeaderName::from_static("x-request-attempt");
/// How often the pace of an upload is looked at.
const PACE_INTERVAL: Duration = Duration::from_secs(1);
/// gRPC's UNAVAILABLE.
const GRPC_UNAVAILABLE: &[u8] = b"14";

/// What one attempt came to.
enum Tried {
    Answer(Response<UpstreamBody>),
    Failed(Refusal),
}

/// Sends the request until an attempt's answer is to be given, or none is left.
pub async fn forward(
    exchange: &mut Exchange,
    req: Request<ClientBody>,
    upgrade: Option<&str>,
) -> Result<Response<UpstreamBody>, Refusal> {
    let (Some(route), Some(upstream)) = (exchange.route.clone(), exchange.upstream.clone()) else {
        return Err(Refusal::RouteNotFound);
    };
    let may_replay = upgrade.is_none() && retry::may_replay(req.method(), req.headers());
    let run =
        Run { attempts_max: if may_replay { route.retry.attempts } else { 1 }, may_replay, upgrade, route, upstream };
    let (head, body) = req.into_parts();
    if !body.is_empty() {
        let record_max = if run.attempts_max > 1 { run.route.retry.body_max } else { 0 };
        exchange.upload = Some(Upload::new(body, record_max, run.route.body_max));
    }
    let mut head = Request::from_parts(head, ());
    let mut previous: Option<Tried> = None;
    for number in 1.. {
        let now = clock::now();
        let (endpoint, permit) = match run.choose(exchange, now) {
            Ok(chosen) => chosen,
            // The last attempt opened the breaker: the answer is what that attempt came to.
            Err(refusal) => return previous.map_or(Err(refusal), Tried::into_answer),
        };
        drop(previous.take());
        let (tried, retryable) = run.once(exchange, endpoint, permit, &mut head, number).await?;
        let again = retryable && number < run.attempts_max && exchange.upload.as_ref().is_none_or(Upload::replayable);
        let wait = backoff::delay(&run.route.retry.backoff, number, clock::unit());
        if !again || clock::now() + wait >= exchange.deadline {
            return tried.into_answer();
        }
        previous = Some(tried);
        tokio::time::sleep(wait).await;
    }
    Err(Refusal::TotalTimeout)
}

impl Tried {
    fn into_answer(self) -> Result<Response<UpstreamBody>, Refusal> {
        match self {
            Tried::Answer(response) => Ok(response),
            Tried::Failed(refusal) => Err(refusal),
        }
    }
}

/// What stays the same over a request's attempts.
struct Run<'a> {
    route: Arc<RoutePlan>,
    upstream: Arc<UpstreamPlan>,
    attempts_max: u32,
    may_replay: bool,
    upgrade: Option<&'a str>,
}

impl Run<'_> {
    /// One attempt, and whether it may be followed by another. `Err` is a refusal that no attempt would change.
    async fn once(
        &self,
        exchange: &mut Exchange,
        endpoint: &EndpointPlan,
        mut permit: Permit,
        head: &mut Request<()>,
        number: u32,
    ) -> Result<(Tried, bool), Refusal> {
        let began = permit.taken;
        exchange.forwarded.get_or_insert(began);
        exchange.turn = Turn::begin(&self.upstream, endpoint);
        let span = clock::random().max(1);
        // The last attempt takes the head, the others a copy.
        let taken = if number >= self.attempts_max { std::mem::take(head) } else { head.clone() };
        let mut request = taken.map(|()| exchange.upload.as_ref().map_or_else(View::empty, Upload::view));
        self.address(exchange, endpoint, request.headers_mut(), number, began);
        write_trace(exchange, request.headers_mut(), span);
        let how = SendHow {
            connect_timeout: self.route.timeouts.connect.min(exchange.deadline.saturating_duration_since(began)),
            want_http2: exchange.is_grpc(),
            fresh: false,
            // What nothing comes after is as careful as what may not be sent twice.
            replayable: self.may_replay && number < self.attempts_max,
        };
        let pool = exchange.proxy.pool(endpoint);
        let sent = self.wait(exchange, began, pool.send(request, how)).await;
        let ended = clock::now();
        let (tried, verdict) = judge(sent, exchange, &self.route);
        if let Tried::Answer(response) = &tried {
            exchange.first_byte = Some(ended);
            if self.upgrade.is_none() && response.status() == StatusCode::SWITCHING_PROTOCOLS {
                permit.settle(Outcome::Failure, ended);
                return Err(Refusal::UpgradeFailed);
            }
        }
        permit.settle(verdict.breaker, ended);
        let (status, reused) = match &tried {
            Tried::Answer(response) => (response.status().as_u16(), response.body().reused()),
            Tried::Failed(_) => (0, false),
        };
        let took = ended.saturating_duration_since(began);
        choose::learn(&self.upstream, endpoint, exchange, verdict.breaker, status, (took, ended));
        exchange.attempts.push(AttemptRecord {
            endpoint: endpoint.name.clone(),
            started_after: began.saturating_duration_since(exchange.started),
            duration: ended.saturating_duration_since(began),
            status,
            outcome: verdict.label,
            reused,
            span,
        });
        Ok((tried, verdict.retryable))
    }

    /// The best endpoint whose breaker lets the request through ([`choose::next`] says which are better).
    fn choose(&self, exchange: &Exchange, now: Instant) -> Result<(&EndpointPlan, Permit), Refusal> {
        let mut tried: Vec<usize> = Vec::new();
        let mut retry_after: Option<Duration> = None;
        while let Some(index) = choose::next(&self.upstream, exchange, &tried, now) {
            let endpoint = &self.upstream.endpoints[index];
            match Permit::take(endpoint, self.upstream.breaker.as_ref(), exchange, now) {
                Ok(permit) => return Ok((endpoint, permit)),
                Err(wait) => retry_after = Some(retry_after.map_or(wait, |sooner| sooner.min(wait))),
            }
            tried.push(index);
        }
        Err(Refusal::BreakerOpen { retry_after: retry_after.unwrap_or(super::RETRY_AFTER_DEFAULT) })
    }

    /// What differs from attempt to attempt in the fields the app sees: time left, number, host.
    fn address(&self, exchange: &Exchange, to: &EndpointPlan, fields: &mut HeaderMap, number: u32, now: Instant) {
        let left = exchange.deadline.saturating_duration_since(now);
        let millis = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        if fields.contains_key(&X_ENVOY_TIMEOUT) {
            fields.insert(X_ENVOY_TIMEOUT, HeaderValue::from(millis));
        }
        if !exchange.is_grpc() {
            fields.insert(X_REQUEST_TIMEOUT, HeaderValue::from(millis));
        } else if let Ok(value) = HeaderValue::try_from(deadline::format_grpc_timeout(left)) {
            fields.insert(GRPC_TIMEOUT, value);
        }
        if number > 1 {
            fields.insert(X_ATTEMPT, HeaderValue::from(number));
        }
        if exchange.outbound() {
            fields.insert(header::HOST, to.authority.clone());
        }
        if let Some(token) = self.upgrade {
            fields.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            if let Ok(token) = HeaderValue::from_str(token) {
                fields.insert(header::UPGRADE, token);
            }
        }
    }

    /// Waits for the head of the answer as long as every timer allows.
    async fn wait<F, T, B>(&self, exchange: &Exchange, began: Instant, send: F) -> Sent<T, B>
    where
        F: Future<Output = Result<T, SendError<B>>>,
    {
        let mut send = pin!(send);
        let timers =
            Timers { route: &self.route, deadline: exchange.deadline, began, upload: exchange.upload.as_ref() };
        let mut sleep = pin!(tokio::time::sleep_until(timers.next(began).into()));
        loop {
            tokio::select! {
                biased;
                result = &mut send => return result.map_err(Stop::Error),
                () = &mut sleep => {
                    let now = clock::now();
                    if let Some(refusal) = timers.fired(now) {
                        return Err(Stop::Timer(refusal));
                    }
                    sleep.as_mut().reset(timers.next(now).into());
                }
            }
        }
    }
}

type Sent<T, B> = Result<T, Stop<B>>;

/// Why there is no answer.
enum Stop<B> {
    Error(SendError<B>),
    Timer(Refusal),
}

/// The timers that run while an attempt waits for its answer.
struct Timers<'a> {
    route: &'a RoutePlan,
    deadline: Instant,
    began: Instant,
    upload: Option<&'a Upload>,
}

impl Timers<'_> {
    /// When to look again.
    fn next(&self, now: Instant) -> Instant {
        let mut next = self.deadline;
        if let Some(per_try) = self.route.retry.per_try {
            next = next.min(self.began + per_try);
        }
        match self.upload.map(Upload::ended) {
            Some(None) => next.min(now + PACE_INTERVAL),
            Some(Some(ended)) => next.min(ended.max(self.began) + self.route.timeouts.first_byte),
            None => next.min(self.began + self.route.timeouts.first_byte),
        }
    }

    /// What is over at `now`. The first-byte timer runs from the end of the upload.
    fn fired(&self, now: Instant) -> Option<Refusal> {
        if now >= self.deadline {
            return Some(Refusal::TotalTimeout);
        }
        if self.route.retry.per_try.is_some_and(|per_try| now >= self.began + per_try) {
            return Some(Refusal::PerTryTimeout);
        }
        let waiting_since = match self.upload {
            None => self.began,
            Some(upload) => match upload.ended() {
                Some(ended) => ended.max(self.began),
                None => {
                    let timeouts = &self.route.timeouts;
                    let slow = upload.too_slow(now, timeouts.request_body_rate_min, timeouts.request_body_grace);
                    return slow.then_some(Refusal::RequestBodyTimeout);
                }
            },
        };
        (now >= waiting_since + self.route.timeouts.first_byte).then_some(Refusal::FirstByteTimeout)
    }
}

/// What an attempt means to the breaker, to the record, and to a next attempt.
struct Verdict {
    breaker: Outcome,
    label: &'static str,
    retryable: bool,
}

/// Sorts out whose fault a failed attempt is: only the app's count against it.
fn judge<B>(sent: Sent<Response<UpstreamBody>, B>, exchange: &Exchange, route: &RoutePlan) -> (Tried, Verdict) {
    let retry = &route.retry;
    let failed = |refusal: Refusal, retryable| {
        let label = refusal.label();
        (Tried::Failed(refusal), Verdict { breaker: Outcome::Failure, label, retryable })
    };
    match sent {
        Ok(response) => judge_answer(response, exchange, route),
        Err(Stop::Timer(refusal)) => match refusal {
            // The client was slow, not the app.
            Refusal::RequestBodyTimeout => ours(refusal),
            Refusal::PerTryTimeout => failed(refusal, retry.per_try_timeout),
            refusal => failed(refusal, false),
        },
        Err(Stop::Error(error)) => match error {
            SendError::ConnectRefused { .. } => failed(Refusal::ConnectRefused, retry.connect),
            SendError::ConnectTimeout { .. } => failed(Refusal::ConnectTimeout, retry.connect),
            SendError::ConnectFailed { .. } => failed(Refusal::ConnectFailed, retry.connect),
            SendError::NeverWritten { .. } => failed(Refusal::Reset, retry.reset),
            SendError::Reset { .. } => failed(Refusal::Reset, retry.reset),
            SendError::BadResponse { .. } => failed(Refusal::ResponseMalformed, false),
            SendError::RequestBody { .. } => match exchange.upload.as_ref().and_then(Upload::failure) {
                Some(UploadFailure::TooLarge) => ours(Refusal::BodyTooLarge),
                Some(UploadFailure::Client) | None => ours(Refusal::RequestBroken),
            },
            SendError::Canceled => failed(Refusal::Reset, retry.reset),
        },
    }
}

/// A failure that says nothing about the app.
fn ours(refusal: Refusal) -> (Tried, Verdict) {
    let label = refusal.label();
    (Tried::Failed(refusal), Verdict { breaker: Outcome::Ignored, label, retryable: false })
}

fn judge_answer(response: Response<UpstreamBody>, exchange: &Exchange, route: &RoutePlan) -> (Tried, Verdict) {
    let status = response.status().as_u16();
    if framing::check_response(response.version(), status, response.headers()).is_err() {
        let label = Refusal::ResponseMalformed.label();
        let verdict = Verdict { breaker: Outcome::Failure, label, retryable: false };
        return (Tried::Failed(Refusal::ResponseMalformed), verdict);
    }
    let unavailable = exchange.is_grpc()
        && response.headers().get(&GRPC_STATUS).is_some_and(|code| code.as_bytes() == GRPC_UNAVAILABLE);
    // A plain 500 is one request's bug; these three say that the app as a whole is in trouble.
    let trouble = matches!(status, 502..=504) || unavailable;
    let verdict = Verdict {
        breaker: if trouble { Outcome::Failure } else { Outcome::Success },
        label: if unavailable { "grpc_unavailable" } else { "answered" },
        retryable: route.retry.statuses.contains(&status) || (unavailable && route.retry.grpc_unavailable),
    };
    (Tried::Answer(response), verdict)
}

/// The breaker's leave for one attempt. Dropped unsettled, it says nothing of the app and frees its place.
struct Permit {
    endpoint: Arc<EndpointState>,
    held: Option<(Admission, Params)>,
    proxy: Rc<super::Proxy>,
    taken: Instant,
}

impl Permit {
    fn take(
        endpoint: &EndpointPlan,
        params: Option<&Params>,
        exchange: &Exchange,
        now: Instant,
    ) -> Result<Permit, Duration> {
        let held = match params {
            Some(params) => Some((endpoint.state.admit(params, now)?, *params)),
            None => None,
        };
        Ok(Permit { endpoint: endpoint.state.clone(), held, proxy: exchange.proxy.clone(), taken: now })
    }

    fn settle(&mut self, outcome: Outcome, now: Instant) {
        let Some((admission, params)) = self.held.take() else { return };
        if let Some(change) = self.endpoint.record(admission, outcome, &params, now, clock::unit()) {
            let words =
                format!("breaker {} after {} failures in a row (was {})", change.to, change.failures, change.from);
            self.proxy.shared().states.journal.record("breaker", self.endpoint.address.clone(), words);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.held.is_some() {
            self.settle(Outcome::Ignored, clock::now());
        }
    }
}
