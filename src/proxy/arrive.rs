//! A request body's arrival, before the request takes a place at the app: slow senders must not hold the places that
//! others need.
//!
//! A small body of known length is waited for whole, a large one for its first part; only then a place is taken. What
//! is still coming by then streams, under a limit of its own (`admit::place`). A body of unknown length is waited for
//! only a moment, and one that the client holds back until it is asked (`Expect`) not at all: it may be one half of a
//! conversation, and the app may have something to say first.

use std::pin::pin;
use std::time::{Duration, Instant};

use super::exchange::Exchange;
use super::refusal::Refusal;
use super::upload::{ClientBody, Upload, UploadFailure};
use crate::core::retry;
use crate::http::Request;
use crate::plan::RoutePlan;
use crate::state::clock;

/// What a body must have sent, unless it ends before, before the request goes on.
const PREFIX: u64 = 64 * 1024;
/// How long a body of unknown length is waited for.
const PREFIX_WAIT: Duration = Duration::from_millis(20);
/// How often the pace of an arriving body is looked at.
const PACE_INTERVAL: Duration = Duration::from_secs(1);

/// Takes the request's body over into the exchange and waits for as much of it as its kind allows.
pub async fn body(exchange: &mut Exchange, route: &RoutePlan, req: &mut Request<ClientBody>) -> Result<(), Refusal> {
    // A gRPC call is kept although it may not be replayed: HTTP/2 says of a request that it was not looked at only after
    // its body has left.
    let again = route.retry.attempts > 1 && (retry::may_replay(&req.method, &req.headers) || exchange.is_grpc());
    let held_back = req.headers.contains("expect");
    let known = req.headers.contains("content-length");
    let body = std::mem::replace(&mut req.body, ClientBody::Empty);
    let upload = Upload::new(body, if again { route.retry.body_max } else { 0 }, route.body_max);
    exchange.upload = Some(upload.clone());
    if held_back {
        return Ok(());
    }
    let wait_until = (!known).then(|| clock::now() + PREFIX_WAIT);
    wait(exchange, route, &upload, wait_until).await
}

/// Until the prefix is here, `wait_until`, or a timer of the request.
async fn wait(
    exchange: &Exchange,
    route: &RoutePlan,
    upload: &Upload,
    wait_until: Option<Instant>,
) -> Result<(), Refusal> {
    let mut gather = pin!(upload.gather(PREFIX));
    loop {
        let look = (clock::now() + PACE_INTERVAL).min(exchange.deadline);
        let until = wait_until.map_or(look, |until| until.min(look));
        match tokio::time::timeout_at(until.into(), &mut gather).await {
            Ok(gathered) => return gathered.map_err(refusal),
            Err(_) => {
                let now = clock::now();
                let timeouts = &route.timeouts;
                if now >= exchange.deadline {
                    return Err(Refusal::TotalTimeout);
                }
                if upload.too_slow(now, timeouts.request_body_rate_min, timeouts.request_body_grace) {
                    return Err(Refusal::RequestBodyTimeout);
                }
                if wait_until.is_some_and(|until| now >= until) {
                    return Ok(());
                }
            }
        }
    }
}

fn refusal(failure: UploadFailure) -> Refusal {
    match failure {
        UploadFailure::TooLarge => Refusal::BodyTooLarge,
        UploadFailure::Client => Refusal::RequestBroken,
    }
}
