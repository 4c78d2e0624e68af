//! HTTP/2 with the h2 crate: a client whose connection lives in a thread of its own, and an app.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::mpsc::{self, Receiver};
use std::thread;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::task::LocalSet;

use super::DEADLINE;

pub struct Client {
    sender: SendRequest<Bytes>,
    runtime: Runtime,
    /// How the connection ended.
    pub ended: Receiver<Result<(), h2::Error>>,
}

/// A whole answer, or as much as came.
#[derive(Debug)]
pub struct Answer {
    pub head: http::response::Parts,
    pub body: Vec<u8>,
    pub trailers: Option<HeaderMap>,
    /// Why it is not whole.
    pub broken: Option<h2::Error>,
}

impl Answer {
    pub fn status(&self) -> u16 {
        self.head.status.as_u16()
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.head.headers.get(name).and_then(|value| value.to_str().ok())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn reason(&self) -> String {
        let body: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_default();
        body["reason"].as_str().unwrap_or_default().to_owned()
    }
}

pub fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

impl Client {
    pub fn connect(address: SocketAddr) -> Client {
        let (give, take) = mpsc::channel();
        let (tell, ended) = mpsc::channel();
        thread::spawn(move || {
            runtime().block_on(async move {
                let stream = TcpStream::connect(address).await.expect("connect");
                stream.set_nodelay(true).expect("nodelay");
                // One stream that is not read must not hold up the others.
                let mut builder = h2::client::Builder::new();
                builder.initial_connection_window_size(16 << 20);
                let (sender, connection) = builder.handshake(stream).await.expect("handshake");
                let _ = give.send(sender);
                let _ = tell.send(connection.await);
            });
        });
        let sender = take.recv_timeout(DEADLINE).expect("an HTTP/2 connection");
        Client { sender, runtime: runtime(), ended }
    }

    /// Runs to the end, at most three deadlines.
    pub fn run<T>(&self, future: impl Future<Output = T>) -> T {
        let bounded = async { tokio::time::timeout(DEADLINE * 3, future).await };
        self.runtime.block_on(bounded).expect("within the deadline")
    }

    pub fn open(&self, request: Request<()>, end: bool) -> (ResponseFuture, SendStream<Bytes>) {
        let sender = self.run(self.sender.clone().ready()).expect("a stream");
        let mut sender = sender;
        sender.send_request(request, end).expect("a request")
    }

    /// Sends a request with a body, and waits for the whole answer.
    pub fn ask(&self, request: Request<()>, body: &[u8], trailers: Option<HeaderMap>) -> Result<Answer, h2::Error> {
        let (response, mut stream) = self.open(request, body.is_empty() && trailers.is_none());
        if !body.is_empty() || trailers.is_some() {
            let _ = stream.send_data(Bytes::copy_from_slice(body), trailers.is_none());
            if let Some(trailers) = trailers {
                let _ = stream.send_trailers(trailers);
            }
        }
        self.run(collect(response))
    }

    pub fn get(&self, path: &str) -> Answer {
        self.ask(request("GET", path), &[], None).unwrap_or_else(|problem| panic!("GET {path}: {problem}"))
    }
}

pub fn request(method: &str, path: &str) -> Request<()> {
    let uri = format!("http://a.example{path}");
    Request::builder().method(method).uri(uri).body(()).expect("a request")
}

pub async fn collect(response: ResponseFuture) -> Result<Answer, h2::Error> {
    let (head, mut body) = response.await?.into_parts();
    let mut answer = Answer { head, body: Vec::new(), trailers: None, broken: None };
    while let Some(piece) = body.data().await {
        match piece {
            Ok(piece) => {
                let _ = body.flow_control().release_capacity(piece.len());
                answer.body.extend_from_slice(&piece);
            }
            Err(problem) => {
                answer.broken = Some(problem);
                return Ok(answer);
            }
        }
    }
    match body.trailers().await {
        Ok(trailers) => answer.trailers = trailers,
        Err(problem) => answer.broken = Some(problem),
    }
    Ok(answer)
}

type Handling = Pin<Box<dyn Future<Output = ()>>>;

/// An app that speaks HTTP/2 without TLS.
pub struct App {
    pub address: SocketAddr,
}

impl App {
    pub fn start<F>(handler: impl Fn(Request<RecvStream>, SendResponse<Bytes>) -> F + Send + 'static) -> App
    where
        F: Future<Output = ()> + 'static,
    {
        let (give, take) = mpsc::channel();
        thread::spawn(move || {
            let handler: Rc<dyn Fn(Request<RecvStream>, SendResponse<Bytes>) -> Handling> =
                Rc::new(move |request, respond| Box::pin(handler(request, respond)));
            LocalSet::new().block_on(&runtime(), async move {
                let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port for the app");
                let _ = give.send(listener.local_addr().expect("its address"));
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::task::spawn_local(connection(stream, Rc::clone(&handler)));
                }
            });
        });
        App { address: take.recv_timeout(DEADLINE).expect("an app") }
    }
}

async fn connection(stream: TcpStream, handler: Rc<dyn Fn(Request<RecvStream>, SendResponse<Bytes>) -> Handling>) {
    let _ = stream.set_nodelay(true);
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((request, respond))) = connection.accept().await {
        tokio::task::spawn_local(handler(request, respond));
    }
}

/// Reads a request's body and trailers.
pub async fn read(mut body: RecvStream) -> (Result<Vec<u8>, h2::Error>, Option<HeaderMap>) {
    let mut all = Vec::new();
    while let Some(piece) = body.data().await {
        match piece {
            Ok(piece) => {
                let _ = body.flow_control().release_capacity(piece.len());
                all.extend_from_slice(&piece);
            }
            Err(problem) => return (Err(problem), None),
        }
    }
    (Ok(all), body.trailers().await.ok().flatten())
}

pub fn answer(status: u16, fields: &[(&'static str, &str)]) -> Response<()> {
    let mut response = Response::builder().status(status);
    for (name, value) in fields {
        response = response.header(*name, *value);
    }
    response.body(()).expect("a response")
}
