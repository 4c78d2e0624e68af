//! WebSocket messages of one size: the handshake of RFC 6455 with its own example key, then frames whose length both
//! sides know, so that nothing has to be parsed.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::client::{Client, Target};

pub const PAYLOAD: usize = 1024;
pub const REQUEST: &[u8] = b"GET /ws HTTP/1.1\r\nHost: bench.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
const ACCEPTED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
/// Binary, final, with a length of two bytes; a client's frame has a mask, here of zeros.
const FROM_CLIENT: [u8; 8] = [0x82, 0x80 | 126, (PAYLOAD >> 8) as u8, PAYLOAD as u8, 0, 0, 0, 0];
const FROM_APP: [u8; 4] = [0x82, 126, (PAYLOAD >> 8) as u8, PAYLOAD as u8];

fn frame(head: &[u8]) -> Vec<u8> {
    let mut frame = head.to_vec();
    frame.resize(head.len() + PAYLOAD, b'w');
    frame
}

/// A client that has been let in, and the message it sends.
pub struct Talk {
    client: Client,
    frame: Vec<u8>,
}

impl Talk {
    pub async fn open(target: &Target) -> Option<Talk> {
        let mut client = Client::connect(target).await?;
        client.upgrade(REQUEST).await?;
        Some(Talk { client, frame: frame(&FROM_CLIENT) })
    }

    /// One message there and one back; the bytes of the one that came.
    pub async fn say(&mut self) -> Option<usize> {
        self.client.echo(&self.frame, FROM_APP.len() + PAYLOAD).await.map(|()| PAYLOAD)
    }
}

/// The app's side, until the connection ends.
pub async fn answer(mut stream: tokio::net::TcpStream, mut buffer: Vec<u8>) {
    if stream.write_all(ACCEPTED).await.is_err() {
        return;
    }
    let message = frame(&FROM_APP);
    let whole = FROM_CLIENT.len() + PAYLOAD;
    loop {
        while buffer.len() >= whole {
            buffer.drain(..whole);
            if stream.write_all(&message).await.is_err() {
                return;
            }
        }
        if !matches!(stream.read_buf(&mut buffer).await, Ok(1..)) {
            return;
        }
    }
}
