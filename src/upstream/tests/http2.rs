//! HTTP/2: prior knowledge, stream limits, shared opening, GOAWAY, failing bodies.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::convert::Infallible;

use http::StatusCode;
use http_body::Frame;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::sync::{Notify, oneshot};

use super::*;
use crate::upstream::rt::LocalExecutor;
use crate::upstream::{BodyError, SendError, Side};

#[derive(Clone, Copy, Default)]
pub(super) struct Options {
    streams_max: Option<u32>,
}

/// An HTTP/2 app: `/echo` answers with the request's body, `/hold` when [`Server::release`] is notified.
pub(super) struct Server {
    pub(super) address: Address,
    /// Method and URI of each request.
    pub(super) seen: Rc<RefCell<Vec<String>>>,
    accepted: Rc<RefCell<usize>>,
    release: Rc<Notify>,
    /// Notified to end the oldest connection gracefully.
    goaways: Rc<RefCell<VecDeque<oneshot::Sender<()>>>>,
}

impl Server {
    pub(super) async fn start(options: Options) -> Server {
        let (seen, accepted) = (Rc::<RefCell<Vec<String>>>::default(), Rc::<RefCell<usize>>::default());
        let (release, goaways) = (Rc::<Notify>::default(), Rc::<RefCell<VecDeque<_>>>::default());
        let shared = (Rc::clone(&seen), Rc::clone(&accepted), Rc::clone(&release), Rc::clone(&goaways));
        let (address, _accepting) = app(async move |listener| {
            let (seen, accepted, release, goaways) = shared;
            loop {
                let stream = accept(&listener).await;
                *accepted.borrow_mut() += 1;
                let (goaway, asked) = oneshot::channel();
                goaways.borrow_mut().push_back(goaway);
                tokio::task::spawn_local(serve_http2(stream, options, Rc::clone(&seen), Rc::clone(&release), asked));
            }
        })
        .await;
        Server { address, seen, accepted, release, goaways }
    }

    fn accepted(&self) -> usize {
        *self.accepted.borrow()
    }

    fn pool(&self) -> Rc<Pool> {
        Pool::new(spec(self.address.clone(), Protocol::Http2))
    }
}

async fn serve_http2<S>(
    stream: S,
    options: Options,
    seen: Rc<RefCell<Vec<String>>>,
    release: Rc<Notify>,
    goaway: oneshot::Receiver<()>,
) where
    S: AsyncRead + tokio::io::AsyncWrite + Unpin + 'static,
{
    let service = service_fn(move |req: http::Request<Incoming>| {
        seen.borrow_mut().push(format!("{} {}", req.method(), req.uri()));
        let release = Rc::clone(&release);
        async move {
            if req.uri().path() == "/hold" {
                release.notified().await;
            }
            Ok::<_, Infallible>(http::Response::new(req.into_body()))
        }
    });
    let mut builder = http2::Builder::new(LocalExecutor);
    builder.max_concurrent_streams(options.streams_max);
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        _ = connection.as_mut() => return,
        Ok(()) = goaway => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

#[test]
fn prior_knowledge_reuses_one_connection_and_carries_bodies() {
    // Goal: authority instead of Host, body and its echo whole, one connection, also for gRPC over `Auto`.
    on_a_worker(async {
        let app = Server::start(Options::default()).await;
        let pool = pool(app.address.clone());
        let how = SendHow { want_http2: true, ..how() };
        let mut req = post("/echo", "hello");
        req.headers.insert(http::header::HOST, http::HeaderValue::from_static("shop.test"));
        let res = pool.send(&mut { req }, how).await.expect("a response");
        assert_eq!((res.version, res.body.reused()), (http::Version::HTTP_2, false));
        assert_eq!(text(res).await.expect("whole"), "hello");
        let res = pool.send(&mut get("/echo"), how).await.expect("a response");
        assert!(res.body.reused());
        text(res).await.expect("whole");
        assert_eq!(app.seen.borrow().as_slice(), ["POST http://shop.test/echo", "GET http://app.test/echo"]);
        assert_eq!((pool.counts().opened, pool.counts().reused, app.accepted()), (1, 1, 1));
        until(|| pool.counts().active == 0).await;
        assert_eq!(pool.counts().idle, 1);
    });
}

#[test]
fn another_connection_is_opened_when_the_streams_are_used_up() {
    // Goal: a limit of one stream and a held request; a second request must not queue behind it.
    on_a_worker(async {
        let app = Server::start(Options { streams_max: Some(1) }).await;
        let pool = app.pool();
        let held = tokio::task::spawn_local({
            let pool = Rc::clone(&pool);
            async move { text(pool.send(&mut post("/hold", "held"), how()).await.expect("a response")).await }
        });
        until(|| app.seen.borrow().len() == 1).await;
        assert_eq!(
            text(pool.send(&mut post("/echo", "free"), how()).await.expect("a response")).await.expect("whole"),
            "free"
        );
        assert_eq!((app.accepted(), pool.counts().opened), (2, 2));
        app.release.notify_one();
        assert_eq!(held.await.expect("the task").expect("whole"), "held");
    });
}

#[test]
fn many_requests_at_once_share_one_opening() {
    // Goal: fifty requests on a cold pool open one connection when its limit allows fifty; when it allows ten, five.
    for (streams_max, connections) in [(None, 1), (Some(10), 5)] {
        on_a_worker(async {
            let app = Server::start(Options { streams_max }).await;
            let pool = app.pool();
            let all: Vec<_> = (0..50)
                .map(|_| {
                    let pool = Rc::clone(&pool);
                    tokio::task::spawn_local(async move {
                        pool.send(&mut get("/hold"), how()).await.expect("a response").status
                    })
                })
                .collect();
            until(|| app.seen.borrow().len() == 50).await;
            assert_eq!((app.accepted(), pool.counts().active), (connections, 50));
            for _ in 0..50 {
                app.release.notify_one();
                tokio::task::yield_now().await;
            }
            app.release.notify_waiters();
            for one in all {
                assert_eq!(one.await.expect("the task"), StatusCode::OK);
            }
        });
    }
}

#[test]
fn a_failed_opening_reaches_everyone_who_waited() {
    // Goal: nobody listens; all of many waiting requests fail at once as refused, none waits for its own timeout.
    on_a_worker(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        drop(listener);
        let pool: Rc<Pool> = Pool::new(spec(Address::Tcp { host: "127.0.0.1".into(), port }, Protocol::Http2));
        let all: Vec<_> = (0..20)
            .map(|_| {
                let pool = Rc::clone(&pool);
                tokio::task::spawn_local(async move { pool.send(&mut get("/"), how()).await.expect_err("refused") })
            })
            .collect();
        for one in all {
            let error = one.await.expect("the task");
            assert_eq!(error.label(), "connect_refused");
            assert!(error.was_never_written());
        }
    });
}

#[test]
fn an_opening_that_is_given_up_is_taken_over() {
    // Goal: the request that opens the connection is dropped; one that waited opens its own and is served.
    on_a_worker(async {
        let app = Server::start(Options::default()).await;
        let pool = app.pool();
        let mut req = get("/echo");
        let mut first = Box::pin(pool.send(&mut req, how()));
        assert!(std::future::poll_fn(|cx| std::task::Poll::Ready(first.as_mut().poll(cx).is_pending())).await);
        let second = tokio::task::spawn_local({
            let pool = Rc::clone(&pool);
            async move { pool.send(&mut get("/echo"), how()).await.map(|res| res.status) }
        });
        tokio::task::yield_now().await;
        drop(first);
        assert_eq!(second.await.expect("the task").expect("a response"), StatusCode::OK);
    });
}

#[test]
fn a_goaway_moves_new_requests_to_a_new_connection() {
    // Goal: the held request of the old connection finishes there; the next one is served elsewhere, any method.
    on_a_worker(async {
        let app = Server::start(Options::default()).await;
        let pool = app.pool();
        let held = tokio::task::spawn_local({
            let pool = Rc::clone(&pool);
            async move { text(pool.send(&mut post("/hold", "held"), how()).await.expect("a response")).await }
        });
        until(|| app.seen.borrow().len() == 1).await;
        let goaway = app.goaways.borrow_mut().pop_front().expect("a connection");
        goaway.send(()).expect("still served");
        for n in 2..5 {
            let res = pool.send(&mut post("/echo", "next"), once()).await.expect("a response");
            assert_eq!(text(res).await.expect("whole"), "next", "{n}");
        }
        app.release.notify_one();
        assert_eq!(held.await.expect("the task").expect("whole"), "held");
        assert!(app.accepted() <= 2, "{}", app.accepted());
    });
}

#[test]
fn an_app_without_http2_is_named() {
    // Goal: an HTTP/1.1 answer to the preface is not "reset" but says what is wrong; the request comes back.
    on_a_worker(async {
        let (address, _app) = app(async |listener| {
            let mut stream = accept(&listener).await;
            read_head(&mut stream).await;
            say(&mut stream, "HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n").await;
            wait_for_close(&mut stream).await;
        })
        .await;
        let pool: Rc<Pool> = Pool::new(spec(address, Protocol::Http2));
        let error = pool.send(&mut get("/"), how()).await.expect_err("no HTTP/2");
        assert_eq!((error.label(), error.was_never_written()), ("connect_not_http2", true));
    });
}

#[test]
fn a_failing_request_body_is_the_clients_fault_on_http2() {
    // Goal: the stream is reset, the error names the client, the connection stays in use for others.
    on_a_worker(async {
        let app = Server::start(Options::default()).await;
        let pool = app.pool();
        let (sender, body) = RequestBody::channel(1);
        let failing = tokio::task::spawn_local({
            let pool = Rc::clone(&pool);
            async move { pool.send(&mut request("POST", "/hold", body), how()).await }
        });
        until(|| app.seen.borrow().len() == 1).await;
        sender.send(Ok(Frame::data(Bytes::from_static(b"abc")))).await.expect("room");
        sender.send(Err(BodyError { side: Side::Client, what: "cut" })).await.expect("room");
        let error = failing.await.expect("the task").expect_err("no response");
        assert!(matches!(error, SendError::RequestBody { .. }), "{error:?}");
        assert_eq!(error.side(), Side::Client);
        text(pool.send(&mut get("/echo"), how()).await.expect("a response")).await.expect("whole");
        assert_eq!(app.accepted(), 1);
        until(|| pool.counts().active == 0).await;
    });
}

#[test]
fn leaving_a_response_early_frees_its_stream() {
    // Goal: a limit of one stream; dropping the half-read response makes room for the next on the same connection.
    on_a_worker(async {
        let app = Server::start(Options { streams_max: Some(1) }).await;
        let pool = app.pool();
        let (sender, body) = RequestBody::channel(1);
        sender.send(Ok(Frame::data(Bytes::from_static(b"abc")))).await.expect("room");
        let mut res = pool.send(&mut request("POST", "/echo", body), how()).await.expect("a response");
        assert_eq!(chunk(&mut res.body).await.expect("a frame").expect("data"), "abc");
        drop(res);
        drop(sender);
        until(|| pool.counts().active == 0).await;
        text(pool.send(&mut get("/echo"), how()).await.expect("a response")).await.expect("whole");
        assert_eq!(pool.counts().opened, 1);
    });
}

#[test]
fn a_lost_connection_ends_its_streams_and_is_forgotten() {
    // Goal: the app closes the socket with a request in flight: reset, not a hang; the pool opens another.
    on_a_worker(async {
        let (address, _app) = app(async |listener| {
            let stream = accept(&listener).await;
            let (_keep, asked) = oneshot::channel();
            let seen = Rc::<RefCell<Vec<String>>>::default();
            let serving = serve_http2(stream, Options::default(), Rc::clone(&seen), Rc::default(), asked);
            tokio::select! {
                () = serving => {}
                () = until(|| !seen.borrow().is_empty()) => {}
            }
            let stream = accept(&listener).await;
            let (_keep, asked) = oneshot::channel();
            serve_http2(stream, Options::default(), seen, Rc::default(), asked).await;
        })
        .await;
        let pool: Rc<Pool> = Pool::new(spec(address, Protocol::Http2));
        let error = pool.send(&mut get("/hold"), how()).await.expect_err("lost");
        assert!(matches!(error, SendError::Reset { .. }), "{error:?}");
        assert_eq!(error.side(), Side::App);
        text(pool.send(&mut get("/echo"), how()).await.expect("a response")).await.expect("whole");
    });
}
