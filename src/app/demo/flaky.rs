//! The app of the demo: an honest little HTTP server that has a bad day on a timetable.
//!
//! It lives on its own thread and runtime, as an app is another process, and fails on purpose in the ways apps do:
//! slow answers, 503s, connections closed without an answer, and a restart during which nobody listens. A timetable
//! and not pure chance, so that ten seconds show everything.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinSet;

use crate::state::clock;

/// What the app is like for a while.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mood {
    pub words: &'static str,
    pub lasts: Duration,
    /// Shares of answers, 0 to 1.
    fails: f64,
    resets: f64,
    slow: f64,
    pub listens: bool,
}

const fn mood(words: &'static str, millis: u64, fails: f64, resets: f64, slow: f64) -> Mood {
    Mood { words, lasts: Duration::from_millis(millis), fails, resets, slow, listens: true }
}

/// One round; it begins again at its end.
pub const TIMETABLE: [Mood; 7] = [
    mood("well", 1_500, 0.0, 0.0, 0.0),
    mood("failing: 15% of its answers are 503", 2_000, 0.15, 0.0, 0.0),
    mood("slow: 20% of its answers take 300ms", 1_500, 0.0, 0.0, 0.20),
    mood("dropping 10% of its connections unanswered", 1_500, 0.0, 0.10, 0.0),
    Mood { listens: false, ..mood("restarting: nobody listens", 500, 0.0, 0.0, 0.0) },
    mood("well again", 1_200, 0.0, 0.0, 0.0),
    mood("broken: all of its answers are 503", 1_500, 1.0, 0.0, 0.0),
];
const SLOW: Duration = Duration::from_millis(300);
const BODY_BYTES_MAX: usize = 64 * 1024;

impl Mood {
    /// Nothing gets a good answer, however often it is sent.
    pub fn broken(&self) -> bool {
        self.fails >= 1.0
    }
}

/// What the app did, for the summary.
#[derive(Default)]
pub struct Deeds {
    pub answered: AtomicU64,
    pub failed: AtomicU64,
    pub reset: AtomicU64,
    /// Of these two, those that were the first attempt at a request while the app was not broken outright: what clients
    /// would have seen by themselves.
    pub first_attempts_lost: AtomicU64,
    pub slow: AtomicU64,
    pub restarts: AtomicU64,
}

/// The running app. It ends with the process.
pub struct FlakyApp {
    pub address: SocketAddr,
    pub deeds: Arc<Deeds>,
    mood: Arc<AtomicU64>,
}

impl FlakyApp {
    /// Starts the app on a free port of this machine.
    pub fn start() -> std::io::Result<FlakyApp> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
        let address = listener.local_addr()?;
        let (deeds, mood) = (Arc::new(Deeds::default()), Arc::new(AtomicU64::new(0)));
        let app = FlakyApp { address, deeds: Arc::clone(&deeds), mood: Arc::clone(&mood) };
        let life = live(listener, address, deeds, mood);
        std::thread::Builder::new().name("demo-app".to_owned()).spawn(move || runtime.block_on(life))?;
        Ok(app)
    }

    /// The mood of this moment, for whoever holds on to it.
    pub fn watch(&self) -> impl Fn() -> Mood + 'static {
        let mood = Arc::clone(&self.mood);
        move || TIMETABLE[usize::try_from(mood.load(Relaxed)).unwrap_or(0) % TIMETABLE.len()]
    }
}

/// Follows the timetable for ever.
async fn live(first: TcpListener, address: SocketAddr, deeds: Arc<Deeds>, now: Arc<AtomicU64>) {
    let mut listener = Some(first);
    for round in 0u64.. {
        let index = round % (TIMETABLE.len() as u64);
        let mood = TIMETABLE[usize::try_from(index).unwrap_or(0)];
        now.store(index, Relaxed);
        let over = tokio::time::sleep(mood.lasts);
        if !mood.listens {
            // Dropping the listener closes the port: that is what a restart looks like from outside.
            listener = None;
            deeds.restarts.fetch_add(1, Relaxed);
            over.await;
            continue;
        }
        if listener.is_none() {
            listener = listen_again(address).ok();
        }
        match &listener {
            Some(listener) => serve(listener, mood, &deeds, over).await,
            None => over.await,
        }
    }
}

/// The same port as before; connections of the last life may still be closing on it.
fn listen_again(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(1024)
}

async fn serve(listener: &TcpListener, mood: Mood, deeds: &Arc<Deeds>, over: impl Future<Output = ()>) {
    let mut over = std::pin::pin!(over);
    // Connections end with the mood, as they would with a new process.
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = &mut over => return,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else { continue };
        let deeds = Arc::clone(deeds);
        let service = service_fn(move |request| answer(request, mood, Arc::clone(&deeds)));
        connections.spawn(async move {
            // An error here is our own dropping of a connection.
            drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
        });
    }
}

/// Closing without an answer is what hyper does when a service fails.
#[derive(Debug)]
struct Dropped;

impl std::fmt::Display for Dropped {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("dropped on purpose")
    }
}

impl std::error::Error for Dropped {}

async fn answer(request: Request<Incoming>, mood: Mood, deeds: Arc<Deeds>) -> Result<Response<Full<Bytes>>, Dropped> {
    let path = request.uri().path().to_owned();
    // Outrigger numbers attempts from the second on.
    let first = !request.headers().contains_key("x-request-attempt");
    if path == "/health" {
        return Ok(if mood.broken() { unwell() } else { Response::new(Full::from("ok\n")) });
    }
    let body = http_body_util::Limited::new(request.into_body(), BODY_BYTES_MAX);
    let Ok(_) = body.collect().await else { return Err(Dropped) };
    let lot = clock::unit();
    let lost = lot < mood.resets || (lot >= mood.resets + mood.slow && lot < mood.resets + mood.slow + mood.fails);
    if lost && first && !mood.broken() {
        deeds.first_attempts_lost.fetch_add(1, Relaxed);
    }
    if lot < mood.resets {
        deeds.reset.fetch_add(1, Relaxed);
        return Err(Dropped);
    }
    if lot < mood.resets + mood.slow {
        deeds.slow.fetch_add(1, Relaxed);
        tokio::time::sleep(SLOW).await;
    } else if lot < mood.resets + mood.slow + mood.fails {
        deeds.failed.fetch_add(1, Relaxed);
        return Ok(unwell());
    }
    deeds.answered.fetch_add(1, Relaxed);
    Ok(good(&path))
}

fn unwell() -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from("the app is having a bad moment\n"));
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    response
}

fn good(path: &str) -> Response<Full<Bytes>> {
    let (kind, body) = match path {
        "/" => ("text/html; charset=utf-8", PAGE),
        _ => ("application/json", "{\"orders\":[{\"id\":1,\"item\":\"paddle\"},{\"id\":2,\"item\":\"float\"}]}\n"),
    };
    let mut response = Response::new(Full::from(body));
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
    response
}

const PAGE: &str = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>The flaky app</title>\
<body style=\"font:16px/1.5 system-ui,sans-serif;max-width:36em;margin:15vh auto;padding:0 1em\">\
<h1>Hello from the flaky app</h1><p>It is slow, failing, dropping connections and restarting. Reload this page as often \
as you like: what you see went through Outrigger.</p><p><a href=\"/api/orders\">/api/orders</a></p></body></html>\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_seconds_show_everything() {
        let round: Duration = TIMETABLE.iter().map(|mood| mood.lasts).sum();
        assert!(round <= Duration::from_secs(10), "{round:?}");
        assert!(TIMETABLE.iter().any(|mood| !mood.listens));
        assert!(TIMETABLE.iter().any(|mood| mood.resets > 0.0));
        assert!(TIMETABLE.iter().any(|mood| mood.slow > 0.0));
        assert!(TIMETABLE.iter().all(|mood| mood.fails + mood.resets + mood.slow <= 1.0));
    }

    #[tokio::test]
    async fn the_port_can_be_listened_on_again() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let client = tokio::net::TcpStream::connect(address).await.unwrap();
        let (served, _) = listener.accept().await.unwrap();
        drop((listener, served));
        assert_eq!(listen_again(address).unwrap().local_addr().unwrap(), address);
        drop(client);
    }
}
