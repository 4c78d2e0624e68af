//! HTTP/1 over one connection: a head is read, the proxy answers it, the answer is written, and so on.
//!
//! One task, no spawn, and one place for the request's future ([`Call`]), which is held only from head to answer so that
//! an idle connection is small. While the app works the client is watched, and the request is dropped when it leaves. An
//! answer's head and its first bytes leave together. How a connection ends is told by [`Ending`], and done in
//! `connection`.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{Method, StatusCode, Version};
use http_body::Body as _;
use tokio::sync::oneshot;

use super::activity::{Activity, Limits, Open};
use super::alarm::{Told, Watch};
use super::call::Call;
use super::http::{Ending, Front};
use super::link::Link;
use super::worker::Seat;
use crate::core::fields::Fields;
use crate::http::encode::{self, Persistence};
use crate::http::fields;
use crate::http::wire::{Outbound, Sending};
use crate::http::{Framing, Request, RequestHead, Response, Writing};
use crate::proxy::{Body, ClientBody, Feed, Inbound, inbound::Duplex};

type Upgrade = oneshot::Sender<Box<dyn Duplex>>;

/// Serves a connection's requests until it ends; the socket is left with the activity, unless a tunnel took it.
pub async fn serve(link: Rc<Link>, front: Front, seat: &Seat, limits: &Limits) -> Ending {
    let activity = Arc::clone(&front.activity);
    let feed: Rc<dyn Feed> = Rc::<Link>::clone(&link);
    front.peer.told.by(&feed);
    drop(feed);
    let mut watch = Watch::new(seat, &activity, limits);
    let ending = loop {
        match one(&link, &front, &mut watch).await {
            Ok(true) => {}
            Ok(false) => break Ending::Done,
            // Browsers connect in advance: who has said nothing has no request that is late.
            Err(Ending::HeadTimeout) if link.is_silent() => break Ending::Idle,
            Err(ending) => break ending,
        }
    };
    if ending == Ending::Cut && activity.in_flight() > 0 {
        activity.truncated();
    }
    link.give_back();
    ending
}

/// One request and its answer; whether the connection goes on.
async fn one(link: &Rc<Link>, front: &Front, watch: &mut Watch<'_>) -> Result<bool, Ending> {
    let Some((head, number)) = watched(watch, |cx| link.poll_head(cx)).await? else { return Ok(false) };
    let client = Client::of(&head);
    let mut open = front.activity.request(head.version, head.framing != Framing::None);
    let (request, upgrade) = request(head, number, link);
    let mut answer = {
        let mut call = Call::begin(&front.proxy, &front.peer, request);
        watched(watch, |cx| match call.poll(cx) {
            Poll::Ready(response) => Poll::Ready(Ok(response)),
            Poll::Pending => link.poll_gone(cx).map(Err),
        })
        .await
    }
    .map(|response| Answer::begin(response, &client, link))?;
    open.answered();
    let told = watched(watch, |cx| answer.poll(link, &front.activity, cx)).await;
    let switched = answer.switched;
    let persists = answer.persists && link.is_read(true);
    answer.out.rest();
    drop(answer);
    link.end();
    told?;
    finish(link, &open, if switched { upgrade } else { None });
    Ok(persists && !switched)
}

/// Hands the connection to its tunnel, if the app has agreed to one.
fn finish(link: &Link, open: &Open, upgrade: Option<Upgrade>) {
    let Some(upgrade) = upgrade else { return };
    open.activity().upgraded();
    if let Some(raw) = link.hand_over() {
        // Nobody takes it if the app's side has failed meanwhile; then dropping it closes it.
        let _ = upgrade.send(Box::new(raw));
    }
}

/// Polls `work`, and when that waits, the worker's orders and the connection's timer.
async fn watched<T>(
    watch: &mut Watch<'_>,
    mut work: impl FnMut(&mut Context<'_>) -> Poll<Result<T, Ending>>,
) -> Result<T, Ending> {
    poll_fn(|cx| {
        if let Poll::Ready(done) = work(cx) {
            return Poll::Ready(done);
        }
        loop {
            match ready!(watch.poll(cx)) {
                Told::Cut => return Poll::Ready(Err(Ending::Cut)),
                // HTTP/1 is not told: a request already on its way is answered, and says `Connection: close`.
                Told::Close => {}
                Told::Due(due) => return Poll::Ready(Err(due.ending())),
            }
        }
    })
    .await
}

/// The request as the proxy takes it, and where its connection goes should it upgrade.
fn request(head: RequestHead, number: u64, link: &Rc<Link>) -> (Request<ClientBody>, Option<Upgrade>) {
    let (body, upgrade) = match head.framing {
        Framing::None if head.upgrade => {
            let (sender, receiver) = oneshot::channel();
            (ClientBody::Upgrade(receiver), Some(sender))
        }
        Framing::None | Framing::Unclear => (ClientBody::Empty, None),
        Framing::Length(_) | Framing::Chunked | Framing::UntilClose => {
            let feed: Rc<dyn Feed> = Rc::<Link>::clone(link);
            (ClientBody::Http1(Inbound::new(feed, number)), None)
        }
    };
    let RequestHead { method, uri, version, headers, .. } = head;
    (Request { method, uri, version, headers, body }, upgrade)
}

/// What the answer must know of its request.
struct Client {
    version: Version,
    is_head: bool,
    persists: bool,
    trailers: bool,
}

impl Client {
    fn of(head: &RequestHead) -> Self {
        Client {
            version: head.version,
            is_head: head.method == Method::HEAD,
            persists: head.persists,
            trailers: head.trailers,
        }
    }
}

/// An answer on its way out.
struct Answer {
    out: Outbound,
    body: Sending<Body>,
    persists: bool,
    switched: bool,
    broken: bool,
}

impl Answer {
    /// Puts the head where it is written from.
    fn begin(response: Response<Body>, client: &Client, link: &Link) -> Self {
        let Response { status, reason, headers, body, .. } = response;
        let writing = writing(status, client, &body);
        let switched = status == StatusCode::SWITCHING_PROTOCOLS;
        let persists =
            client.persists && writing != Writing::UntilClose && !says_close(&headers) && link.is_read(false);
        // An answer of known length may be over before the request's body is; then the connection ends, and says so.
        let persists = persists && (writing == Writing::Chunked || !link.is_coming());
        let persistence = match (client.version, persists) {
            _ if switched => Persistence::AsIs,
            (_, false) => Persistence::Close,
            (Version::HTTP_10, true) => Persistence::KeepAlive,
            (_, true) => Persistence::Usual,
        };
        let mut out = Outbound::default();
        out.gather().extend_from_slice(&link.answering());
        encode::response_head(out.gather(), status, reason.as_deref(), &headers, (writing, persistence));
        fields::give_back(headers);
        Answer { out, body: Sending::new(body, writing, client.trailers), persists, switched, broken: false }
    }

    /// Ready when the last byte has been taken by the socket.
    fn poll(&mut self, link: &Link, activity: &Activity, cx: &mut Context<'_>) -> Poll<Result<(), Ending>> {
        loop {
            let waits = !self.broken
                && self.body.gather(&mut self.out, cx).unwrap_or_else(|_| {
                    // What was said so far is written, and then the connection ends without completing it.
                    activity.truncated();
                    self.broken = true;
                    false
                });
            ready!(link.poll_write(&mut self.out, cx))?;
            if self.broken {
                return Poll::Ready(Err(Ending::Broken));
            }
            if self.body.is_ended() {
                return Poll::Ready(Ok(()));
            }
            if waits {
                return link.poll_gone(cx).map(Err);
            }
        }
    }
}

/// How the body of an answer is framed (RFC 9112 §6.3).
fn writing(status: StatusCode, client: &Client, body: &Body) -> Writing {
    if status.is_informational() || status == StatusCode::NO_CONTENT {
        return Writing::Never;
    }
    if client.is_head || status == StatusCode::NOT_MODIFIED {
        return Writing::Nothing;
    }
    match body.size_hint().exact() {
        Some(length) => Writing::Length(length),
        None if client.version == Version::HTTP_11 => Writing::Chunked,
        None => Writing::UntilClose,
    }
}

fn says_close(headers: &Fields) -> bool {
    headers.get("connection").is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"close"))
}
