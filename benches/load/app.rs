//! The app behind every proxy: small, fast, the same for all. It answers at once, on kept-alive connections, what the
//! path asks for: `/1k`, `/64k`, `/10m`; a request's body is read and dropped. `/ws` becomes a WebSocket that answers
//! each message of [`websocket::PAYLOAD`] bytes with one as long.

use std::rc::Rc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::client::{content_length, find};
use super::{served, websocket};

const SIZES: [(&str, usize); 3] = [("/1k", 1024), ("/64k", 64 * 1024), ("/10m", 10 * 1024 * 1024)];

/// Bytes of the body that the path is answered with.
pub fn size(path: &str) -> usize {
    SIZES.iter().find(|(name, _)| *name == path).unwrap_or(&SIZES[0]).1
}

/// Serves until the process ends; its port.
pub fn start() -> u16 {
    served::start(|| {
        let answers: Rc<Vec<(&str, Vec<u8>)>> = Rc::new(SIZES.map(|(path, size)| (path, answer(size))).into());
        move |stream| drop(tokio::task::spawn_local(answer_all(stream, answers.clone())))
    })
}

fn answer(size: usize) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {size}\r\n\r\n");
    [head.into_bytes(), vec![b'x'; size]].concat()
}

async fn answer_all(mut stream: TcpStream, answers: Rc<Vec<(&str, Vec<u8>)>>) {
    let mut buffer = Vec::with_capacity(32 * 1024);
    loop {
        match stream.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        while let Some(end) = find(&buffer, b"\r\n\r\n") {
            let path = buffer.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
            let chosen = answers.iter().find(|(name, _)| name.as_bytes() == path).unwrap_or(&answers[0]);
            let mut left = content_length(&buffer[..end]).unwrap_or(0);
            let is_websocket = path == b"/ws";
            buffer.drain(..end + 4);
            if is_websocket {
                return websocket::answer(stream, buffer).await;
            }
            loop {
                let here = left.min(buffer.len());
                buffer.drain(..here);
                left -= here;
                if left == 0 {
                    break;
                }
                if !matches!(stream.read_buf(&mut buffer).await, Ok(1..)) {
                    return;
                }
            }
            if stream.write_all(&chosen.1).await.is_err() {
                return;
            }
        }
    }
}
