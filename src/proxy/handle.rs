//! A request's path, every phase from top to bottom. The order is part of the product.

use std::borrow::Cow;
use std::pin::pin;
use std::rc::Rc;

use http::{Method, Uri};

use super::body::{self, Body};
use super::exchange::Exchange;
use super::identify::Way;
use super::refusal::Refusal;
use super::upload::ClientBody;
use super::{
    Peer, Proxy, admit, arrive, attempt, hold, identify, max_forwards, rates, readiness, redirect, respond, switches,
};
use crate::core::path::{self, PathProblem};
use crate::core::{forwarded, framing};
use crate::http::{Request, Response};
use crate::plan::{Action, ListenerPlan};

/// How often a request may pass proxies of our name: sidecars stand in chains, but not in such long ones.
const PASSES_MAX: usize = 10;

impl Proxy {
    /// One request to its answer. It never fails: what goes wrong is an answer too.
    pub async fn handle(self: Rc<Self>, peer: Rc<Peer>, req: Request<ClientBody>) -> Response<Body> {
        let mut exchange = Exchange::open(&self, peer, &req);
        let served = {
            let work = pin!(serve(&mut exchange, req));
            self.unless_cut(work).await
        };
        let mut answer = match served {
            Ok(response) => response,
            Err(refusal) => {
                let refusal = match refusal {
                    Refusal::DrainCut { .. } => Refusal::DrainCut { sent: exchange.may_be_acted_on() },
                    other => other,
                };
                refusal.answer(&mut exchange) // the only place that invents a response
            }
        };
        respond::dress(&exchange, &mut answer);
        let http2 = !exchange.is_http1();
        body::carry(exchange, &mut answer);
        if http2 { body::hold(answer).await } else { answer }
    }
}

/// The phases, in the order of [`super::phase::Phase`].
async fn serve(exchange: &mut Exchange, mut req: Request<ClientBody>) -> Result<Response<Body>, Refusal> {
    // receive: refuse what could be read in two ways
    let judged = framing::check_request(&req.method, &req.uri, req.version, &req.headers);
    if let Ok(authority) = &judged {
        authority.as_str().clone_into(&mut exchange.host);
    }

    // identify: even a refused request has an id and a trace
    identify::identify(exchange, &req.headers);
    judged.map_err(Refusal::Ambiguous)?;
    if forwarded::has_via_loop(&req.headers, PASSES_MAX) {
        return Err(Refusal::LoopDetected);
    }
    if let Some(answer) = max_forwards::count(&req.method, &mut req.headers)? {
        return Ok(answer);
    }
    let plan = exchange.plan.clone();
    let listener = exchange.listener.clone().ok_or(Refusal::ListenerGone)?;

    // route
    let received = std::mem::take(&mut req.uri); // made again by `prepare`
    let normalised = normalise(&received, &listener)?;
    if let Some(answer) = by_listener(exchange, &listener, &req.method, &normalised)? {
        return Ok(answer);
    }
    let asked = (&req.method, &req.headers, received.query());
    let chosen = admit::route(&listener, exchange, asked, &normalised)?;
    let Some(led) = plan.route(listener.slot, chosen.index) else { return Err(Refusal::RouteNotFound) };
    let route = &led.plan;
    exchange.route = Some(route.clone());
    exchange.deadline = admit::deadline(exchange.started, &route.timeouts, &req.headers);

    switches::check(exchange, route, &req.method)?;

    // redirect
    let rewrite = match &route.action {
        Action::Redirect { to, status } => {
            return Ok(redirect::to_target(to, *status, &chosen.params, received.query()));
        }
        Action::Forward { rewrite, .. } => rewrite,
    };
    let Some(upstream) = &led.upstream else { return Err(Refusal::RouteNotFound) };

    // validate and admit: limits before a byte of the body is asked for, a place only when a small body is here
    admit::body_length(route, &req.headers)?;
    if !route.limits.is_empty() {
        rates::check(exchange, route, &req.headers).await?;
    }
    if !req.body.is_empty() {
        arrive::body(exchange, route, &mut req).await?;
    }
    exchange.priority = admit::priority(exchange, &req.headers);
    if upstream.state.hold.is_away() {
        hold::wait(exchange, upstream).await?;
    }
    admit::place(exchange, upstream).await?;

    // attempt, then respond
    let judged = !listener.router.is_blind_to_paths();
    let way = Way { received: &received, normalised: &normalised, judged, rewrite: rewrite.as_ref() };
    let upgrade = identify::prepare(exchange, &mut req, way);
    let answered = attempt::forward(exchange, req, upgrade.as_deref()).await;
    admit::learn(exchange, &answered);
    respond::answer(exchange, answered?, upgrade)
}

/// What a listener answers without asking routes: probes, and the way to HTTPS.
fn by_listener(
    exchange: &mut Exchange,
    listener: &ListenerPlan,
    method: &Method,
    path: &str,
) -> Result<Option<Response<Body>>, Refusal> {
    if exchange.plan.health_on_listener
        && let Some(answer) = readiness::answer(exchange, method, path)
    {
        return Ok(Some(answer));
    }
    match &listener.redirect_to_https {
        Some(https) => redirect::to_https(https, exchange, path),
        None => Ok(None),
    }
}

/// The path as routes see it.
fn normalise<'u>(uri: &'u Uri, listener: &ListenerPlan) -> Result<Cow<'u, str>, Refusal> {
    match path::normalise(uri.path()) {
        Ok(normalised) => Ok(normalised),
        // Every path takes the same route, so nobody can be fooled: the app decides what it means.
        Err(PathProblem::Ambiguous) if listener.router.is_blind_to_paths() => Ok(uri.path().into()),
        Err(_) => Err(Refusal::Ambiguous(framing::Ambiguity::PathInvalid)),
    }
}
