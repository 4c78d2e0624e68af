//! What hyper makes of bytes: its server for requests, its client for responses, over a pipe in memory.

use std::cell::RefCell;
use std::convert::Infallible;
use std::rc::Rc;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use crate::our_side::fields;
use crate::{Reading, Seen};

/// Holds any input of the corpus, so that writing it never waits.
const PIPE: usize = 1 << 20;

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, work)
}

async fn whole(body: Incoming) -> Option<Vec<u8>> {
    body.collect().await.ok().map(|body| body.to_bytes().to_vec())
}

pub fn requests(input: &[u8]) -> Reading {
    block_on(async {
        let (mut client, server) = duplex(PIPE);
        client.write_all(input).await.expect("room");
        client.shutdown().await.expect("an end");
        let seen: Rc<RefCell<Vec<Seen>>> = Rc::default();
        let noted = Rc::clone(&seen);
        let service = service_fn(move |req: http::Request<Incoming>| {
            let noted = Rc::clone(&noted);
            async move {
                let (head, body) = req.into_parts();
                let line = format!("{} {} {:?}", head.method, head.uri, head.version);
                let fields = fields(&head.headers);
                let place = noted.borrow().len();
                noted.borrow_mut().push(Seen { line, fields, body: None });
                let body = whole(body).await;
                noted.borrow_mut()[place].body = body;
                Ok::<_, Infallible>(http::Response::new(Empty::<Bytes>::new()))
            }
        });
        let mut builder = hyper::server::conn::http1::Builder::new();
        builder.half_close(true).max_header_size(32 * 1024).max_buf_size(64 * 1024).header_read_timeout(None);
        let served = builder.serve_connection(TokioIo::new(server), service).await;
        let mut refused = served.err().filter(hyper::Error::is_parse).map(|error| error.to_string());
        let mut answers = Vec::new();
        let _ = client.read_to_end(&mut answers).await;
        let messages = seen.borrow().clone();
        if messages.last().is_some_and(|last| last.body.is_none()) && refused.is_none() {
            refused = Some("body".to_owned());
        }
        Reading { messages, refused, closed: false }
    })
}

pub fn response(input: &[u8]) -> Reading {
    block_on(async {
        let (client, mut server) = duplex(PIPE);
        let mut builder = hyper::client::conn::http1::Builder::new();
        builder.max_header_size(32 * 1024).max_buf_size(64 * 1024);
        let (mut sender, connection) = builder.handshake(TokioIo::new(client)).await.expect("no input is needed");
        tokio::task::spawn_local(async move { drop(connection.with_upgrades().await) });
        let request = http::Request::get("/").header("host", "a").body(Empty::<Bytes>::new()).expect("valid");
        let answer = sender.send_request(request);
        let asking = async {
            let mut asked = [0; 1024];
            let _ = server.read(&mut asked).await;
            server.write_all(input).await.expect("room");
            server.shutdown().await.expect("an end");
        };
        let (answer, ()) = tokio::join!(answer, asking);
        match answer {
            Err(error) if error.is_parse() => {
                Reading { messages: Vec::new(), refused: Some(error.to_string()), closed: false }
            }
            Err(_) => Reading::default(),
            Ok(response) => {
                let (head, body) = response.into_parts();
                let line = format!("{} {:?}", head.status.as_u16(), head.version);
                let fields = fields(&head.headers);
                let body = if head.status == 101 { Some(Vec::new()) } else { whole(body).await };
                let refused = body.is_none().then(|| "body".to_owned());
                Reading { messages: vec![Seen { line, fields, body }], refused, closed: false }
            }
        }
    })
}
