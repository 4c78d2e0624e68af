//! The app behind the proxies of the benches: the same answer to every request.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

/// Bytes of an answer's body.
pub const BODY: usize = 1024;

/// 1 KB at once on every connection.
pub fn app() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {BODY}\r\n\r\n{}", "x".repeat(BODY));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = answer.clone();
            std::thread::spawn(move || answer_all(stream, answer.as_bytes()));
        }
    });
    port
}

/// A request without a body comes in one piece from the proxy.
fn answer_all(mut stream: TcpStream, answer: &[u8]) {
    let mut buffer = [0; 8192];
    let mut filled = 0;
    while let Ok(read @ 1..) = stream.read(&mut buffer[filled..]) {
        filled += read;
        if buffer[..filled].ends_with(b"\r\n\r\n") {
            filled = 0;
            if stream.write_all(answer).is_err() {
                return;
            }
        }
    }
}
