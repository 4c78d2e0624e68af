//! The tries of a request: an endpoint whose breaker lets it through, a connection, the request, the answer's head;
//! again after a failure that may be tried again, while the deadline allows.

mod address;

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Poll, ready};
use std::time::{Duration, Instant};

use http::StatusCode;

use super::admit;
use super::alarm::Alarm;
use super::choose::{self, Turn};
use super::exchange::Exchange;
use super::hedge;
use super::hold;
use super::identify::write_trace;
use super::local::Own;
use super::permit::{Asked, Permit};
use super::refusal::Refusal;
use super::timers::Timers;
use super::upload::{ClientBody, Upload, View};
use super::verdict::{Again, Sent, Stop, Tried, Verdict, judge};
use crate::core::breaker::Outcome;
use crate::core::{backoff, deadline, retry};
use crate::http::fields;
use crate::http::{Request, Response};
use crate::plan::{EndpointPlan, HedgePlan, RoutePlan, UpstreamPlan};
use crate::state::clock;
use crate::telemetry::{ABANDONED, AttemptRecord};
use crate::upstream::{SendError, SendHow, UpstreamBody};

/// The tries of one request.
pub async fn forward(
    exchange: &mut Exchange,
    req: Request<ClientBody>,
    upgrade: Option<&str>,
) -> Result<Response<UpstreamBody>, Refusal> {
    let (Some(route), Some(upstream)) = (exchange.route.clone(), exchange.upstream.clone()) else {
        return Err(Refusal::RouteNotFound);
    };
    let previous = retry::previous_attempts(&req.headers);
    let run = Run {
        attempts_max: retry::attempts_left(route.retry.attempts, previous),
        may_replay: upgrade.is_none() && retry::may_replay(&req.method, &req.headers),
        previous,
        upgrade,
        route,
        upstream,
    };
    if let Some(budget) = &run.route.retry.budget {
        budget.state.request(&budget.params, exchange.started);
    }
    let mut request = req.map(|_| View::empty()); // the body is the exchange's since it began to arrive
    let answer = run.tries(exchange, &mut request).await;
    fields::give_back(request.headers);
    answer
}

/// What stays the same over a request's attempts.
pub(super) struct Run<'a> {
    pub(super) route: Own<RoutePlan>,
    pub(super) upstream: Own<UpstreamPlan>,
    attempts_max: u32,
    may_replay: bool,
    /// Attempts that somebody before us has made.
    previous: u32,
    upgrade: Option<&'a str>,
}

/// How often a request may find nobody listening: an app that comes and goes keeps nobody for ever.
const REFUSALS_MAX: u32 = 16;

/// One attempt among the others.
#[derive(Clone, Copy)]
pub(super) struct Try {
    /// From 1; an attempt that cost nothing is not counted.
    pub number: u32,
    /// Take no pooled connection.
    pub fresh: bool,
}

/// An attempt under way.
pub(super) struct Leg<'e> {
    pub endpoint: &'e EndpointPlan,
    permit: Permit,
    in_flight: Option<Turn>,
    pub began: Instant,
    pub number: u32,
    fresh: bool,
    span: u64,
}

impl Leg<'_> {
    /// The record of an attempt that comes to nothing of its own: no failure, and no latency.
    fn record(&self, exchange: &Exchange, outcome: &'static str) -> AttemptRecord {
        AttemptRecord {
            endpoint: self.endpoint.name.clone(),
            started_after: self.began.saturating_duration_since(exchange.started),
            duration: Duration::ZERO,
            status: 0,
            outcome,
            reused: false,
            span: self.span,
        }
    }
}

/// What an attempt came to, and when.
pub(super) struct Came {
    tried: Tried,
    verdict: Verdict,
    served: Duration,
    ended: Instant,
    /// What was wrong with an answer, in words.
    note: Option<String>,
}

impl Came {
    /// Nothing better is to be expected of another attempt.
    pub fn is_final(&self) -> bool {
        matches!(self.tried, Tried::Answer(_)) && self.verdict.again == Again::No
    }
}

/// What comes after an attempt.
enum Next {
    Stop,
    /// Again at once, as if the last one had not been.
    Fresh,
    /// Again when something listens, as if the last one had not been.
    Held,
    After(Duration),
}

impl Run<'_> {
    /// Sends the request until an attempt's answer is to be given, or none is left.
    async fn tries(
        &self,
        exchange: &mut Exchange,
        request: &mut Request<View>,
    ) -> Result<Response<UpstreamBody>, Refusal> {
        let mut previous: Option<Tried> = None;
        let mut turn = Try { number: 1, fresh: false };
        let mut refusals = 0;
        loop {
            if self.upstream.state.hold.is_away() {
                if let Err(refusal) = Box::pin(hold::wait(exchange, &self.upstream)).await {
                    return previous.map_or(Err(refusal), Tried::into_answer);
                }
                if exchange.place.is_none() {
                    Box::pin(admit::place(exchange, &self.upstream)).await?;
                }
            }
            let now = clock::now();
            let (endpoint, permit) = match self.choose(exchange, None, now) {
                Ok(chosen) => chosen,
                // The last attempt opened the breaker: the answer is what that attempt came to.
                Err(refusal) => {
                    let Some(previous) = previous else { return Err(refusal) };
                    exchange.notes.push(format!("a breaker of {} was open: no further attempt", self.upstream.name));
                    return previous.into_answer();
                }
            };
            drop(previous.take());
            let (tried, again) = self.once(exchange, endpoint, permit, request, &mut turn).await?;
            match self.next(exchange, again, turn) {
                Next::Stop => return tried.into_answer(),
                Next::Fresh => turn.fresh = true,
                Next::Held if refusals >= REFUSALS_MAX => return tried.into_answer(),
                Next::Held => refusals += 1,
                Next::After(wait) => {
                    turn = Try { number: turn.number + 1, fresh: false };
                    tokio::time::sleep(wait).await;
                }
            }
            previous = Some(tried);
        }
    }

    /// Whether, and when, another attempt follows one that came to `again`.
    fn next(&self, exchange: &mut Exchange, again: Again, turn: Try) -> Next {
        let unwritten = matches!(again, Again::Fresh | Again::Unwritten | Again::Refused);
        let can = |upload: &Upload| if unwritten { upload.whole() } else { upload.replayable() };
        if !exchange.upload.as_ref().is_none_or(can) {
            return Next::Stop;
        }
        let backoff = || backoff::delay(&self.route.retry.backoff, turn.number, clock::unit());
        let wait = match again {
            Again::No => return Next::Stop,
            Again::Fresh if !turn.fresh => return Next::Fresh,
            Again::Refused => return Next::Held,
            Again::Replay { .. } | Again::Pushback { .. } if !self.may_replay => return Next::Stop,
            Again::Fresh | Again::Unwritten => backoff(),
            Again::Replay { after } => backoff().max(after),
            Again::Pushback { after } => after,
        };
        if turn.number >= self.attempts_max {
            return Next::Stop;
        }
        let now = clock::now();
        if !(deadline::Deadline { at: exchange.deadline }).fits(now, wait) {
            exchange.notes.push("no time was left for another attempt".to_owned());
            return Next::Stop;
        }
        if let Some(budget) = &self.route.retry.budget
            && !budget.state.spend(&budget.params, now)
        {
            exchange.notes.push(format!("the retry budget of {} was spent: no further attempt", self.upstream.name));
            return Next::Stop;
        }
        Next::After(wait)
    }

    /// One attempt, or two at a time, and whether it may be followed by another. `Err` is a refusal that no attempt
    /// would change.
    async fn once<'e>(
        &'e self,
        exchange: &mut Exchange,
        endpoint: &'e EndpointPlan,
        permit: Permit,
        request: &mut Request<View>,
        turn: &mut Try,
    ) -> Result<(Tried, Again), Refusal> {
        exchange.forwarded.get_or_insert(permit.taken);
        exchange.turn = None;
        let first = self.leg(endpoint, permit, *turn);
        exchange.under_way = Some(first.record(exchange, ABANDONED));
        let Some((hedge, after)) = self.hedge(exchange, &first) else {
            let came = self.send(exchange, request, &first).await;
            return self.settle(exchange, first, came);
        };
        // Boxed: only routes that hedge pay for the second future.
        let raced = Box::pin(hedge::race(self, exchange, request, first, (hedge, after))).await;
        turn.number = raced.number;
        exchange.notes.extend(raced.note);
        match raced.other {
            // What failed before the other answered is a failure as any; what was given up says nothing.
            Some((leg, Some(came))) => drop(self.settle(exchange, leg, came)?),
            Some((leg, None)) => {
                let took = clock::now().saturating_duration_since(leg.began);
                exchange.attempts.push(AttemptRecord { duration: took, ..leg.record(exchange, "overtaken") });
            }
            None => {}
        }
        self.settle(exchange, raced.leg, raced.came)
    }

    pub(super) fn leg<'e>(&self, endpoint: &'e EndpointPlan, permit: Permit, turn: Try) -> Leg<'e> {
        let Try { number, fresh } = turn;
        let in_flight = Turn::begin(&self.upstream, endpoint);
        Leg { endpoint, began: permit.taken, permit, in_flight, number, fresh, span: clock::random().max(1) }
    }

    /// Sends one attempt, and judges what comes of it.
    pub(super) async fn send(&self, exchange: &Exchange, request: &mut Request<View>, leg: &Leg<'_>) -> Came {
        request.body = exchange.upload.as_ref().map_or_else(View::empty, Upload::view);
        self.address(exchange, leg.endpoint, &mut request.headers, leg.number, leg.began);
        write_trace(exchange, &mut request.headers, leg.span);
        let how = SendHow {
            connect_timeout: self.route.timeouts.connect.min(exchange.deadline.saturating_duration_since(leg.began)),
            want_http2: exchange.is_grpc(),
            fresh: leg.fresh,
            // What nothing comes after is as careful as what may not be sent twice.
            replayable: self.may_replay && leg.number < self.attempts_max,
            interim: Some(exchange),
        };
        let pool = exchange.proxy.pool(leg.endpoint);
        let sending = pin!(pool.send(request, how));
        let sent = self.wait(exchange, leg.began, sending).await;
        let ended = clock::now();
        let served = self.timers(exchange, leg.began).served(ended);
        let note = match &sent {
            Err(Stop::Error(error @ SendError::BadResponse { .. })) => Some(format!("{}: {error}", leg.endpoint.name)),
            Ok(_) | Err(_) => None,
        };
        let (tried, verdict) = judge(sent, exchange, &self.route);
        Came { tried, verdict, served, ended, note }
    }

    /// Tells breakers, balance and record what an attempt came to.
    fn settle(&self, exchange: &mut Exchange, leg: Leg<'_>, came: Came) -> Result<(Tried, Again), Refusal> {
        let Leg { endpoint, mut permit, in_flight, began, span, .. } = leg;
        let Came { tried, verdict, served, ended, note } = came;
        exchange.notes.extend(note);
        exchange.turn = in_flight;
        let failed = |attempt: &&AttemptRecord| attempt.status == 0 || attempt.status >= 500;
        let mut failed = exchange.attempts.iter().filter(failed);
        let asked = Asked {
            path: exchange.uri.path(),
            again: failed.clone().next().is_some(),
            again_there: failed.any(|attempt| attempt.status == 0 && attempt.endpoint == endpoint.name),
        };
        if let Tried::Answer(response) = &tried {
            exchange.first_byte = Some(ended);
            if self.upgrade.is_none() && response.status == StatusCode::SWITCHING_PROTOCOLS {
                let verdict = Verdict { answer: Outcome::Failure, label: "upgrade_failed", ..verdict };
                permit.settle(&verdict, asked, served, ended);
                exchange.under_way.iter_mut().for_each(|record| record.outcome = verdict.label);
                return Err(Refusal::UpgradeFailed);
            }
        }
        permit.settle(&verdict, asked, served, ended);
        if verdict.again == Again::Refused {
            hold::refused(&exchange.proxy, &self.upstream, endpoint);
        }
        let (status, reused) = match &tried {
            Tried::Answer(response) => (response.status.as_u16(), response.body.reused()),
            Tried::Failed(_) => (0, false),
        };
        let took = ended.saturating_duration_since(began);
        choose::learn(&self.upstream, endpoint, exchange, verdict.outcome(), status, (took, ended));
        if let Some(hedge) = &self.route.retry.hedge
            && hedge::may(exchange)
            && verdict.outcome() == Outcome::Success
        {
            hedge.state.learn(&hedge.params, took, ended);
        }
        let endpoint = match exchange.under_way.take() {
            Some(record) if record.span == span => record.endpoint,
            Some(_) | None => endpoint.name.clone(), // hedged
        };
        exchange.attempts.push(AttemptRecord {
            endpoint,
            started_after: began.saturating_duration_since(exchange.started),
            duration: took,
            status,
            outcome: verdict.label,
            reused,
            span,
        });
        Ok((tried, verdict.again))
    }

    /// After how long this attempt is hedged, if it is.
    fn hedge(&self, exchange: &Exchange, first: &Leg<'_>) -> Option<(&HedgePlan, Duration)> {
        let hedge = self.route.retry.hedge.as_ref()?;
        let alone = first.number == 1 && !first.fresh && self.upgrade.is_none() && self.attempts_max > 1;
        let after = (alone && hedge::may(exchange)).then(|| hedge.state.request(&hedge.params, first.began))??;
        (first.began + after < exchange.deadline).then_some((hedge, after))
    }

    /// The best endpoint whose breaker lets the request through ([`choose::next`] says which are better).
    /// `beside` is passed over when there are others.
    pub(super) fn choose(
        &self,
        exchange: &Exchange,
        beside: Option<&EndpointPlan>,
        now: Instant,
    ) -> Result<(&EndpointPlan, Permit), Refusal> {
        let refused = |retry_after| Refusal::BreakerOpen { retry_after };
        let mut permit = Permit::of_route(exchange, &self.route, &self.upstream, now).map_err(refused)?;
        let endpoints = &self.upstream.endpoints;
        let is_beside = |endpoint: &EndpointPlan| beside.is_some_and(|beside| std::ptr::eq(endpoint, beside));
        let mut tried: Vec<usize> = Vec::new();
        if endpoints.len() > 1 {
            tried.extend(endpoints.iter().position(is_beside));
        }
        let mut retry_after: Option<Duration> = None;
        while let Some(index) = choose::next(&self.upstream, exchange, &tried, now) {
            let endpoint = &endpoints[index];
            match permit.of_endpoint(index) {
                Ok(()) => return Ok((endpoint, permit)),
                Err(wait) => retry_after = Some(retry_after.map_or(wait, |sooner| sooner.min(wait))),
            }
            tried.push(index);
        }
        Err(refused(retry_after.unwrap_or(super::RETRY_AFTER_DEFAULT)))
    }

    fn timers<'x>(&'x self, exchange: &'x Exchange, began: Instant) -> Timers<'x> {
        Timers { route: &self.route, deadline: exchange.deadline, began, upload: exchange.upload.as_ref() }
    }

    /// Waits for the head of the answer as long as every timer allows.
    async fn wait<F, T>(&self, exchange: &Exchange, began: Instant, mut send: Pin<&mut F>) -> Sent<T>
    where
        F: Future<Output = Result<T, SendError>>,
    {
        let timers = self.timers(exchange, began);
        let mut alarm = Alarm::new(&exchange.proxy.alarms, timers.next(began));
        poll_fn(|cx| {
            if let Poll::Ready(result) = send.as_mut().poll(cx) {
                return Poll::Ready(result.map_err(Stop::Error));
            }
            loop {
                ready!(alarm.poll(cx));
                let now = clock::now();
                if let Some(refusal) = timers.fired(now) {
                    return Poll::Ready(Err(Stop::Timer { refusal, served: timers.served(now) }));
                }
                alarm.set(timers.next(now));
            }
        })
        .await
    }
}
