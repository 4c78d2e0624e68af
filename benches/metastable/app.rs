//! The app: so many workers, a FIFO queue before them, a fixed time for each request. Like most apps it does not look
//! whether the client still waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

pub struct App {
    pub port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    workers: Semaphore,
    service: Duration,
    /// How many times slower than usual it is.
    slower: AtomicU32,
}

impl App {
    pub fn start(workers: usize, service_ms: u64) -> App {
        let shared = Arc::new(Shared {
            workers: Semaphore::new(workers),
            service: Duration::from_millis(service_ms),
            slower: AtomicU32::new(1),
        });
        let (give, take) = std::sync::mpsc::channel();
        let serving = shared.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
                socket.bind(([127, 0, 0, 1], 0).into()).expect("a port");
                let listener: TcpListener = socket.listen(4096).expect("a listener");
                let _ = give.send(listener.local_addr().expect("an address").port());
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(serve(stream, serving.clone()));
                }
            });
        });
        App { port: take.recv().expect("a port"), shared }
    }

    pub fn slower(&self, times: u32) {
        self.shared.slower.store(times, Ordering::Relaxed);
    }
}

async fn serve(mut stream: TcpStream, shared: Arc<Shared>) {
    let _ = stream.set_nodelay(true);
    let mut head = Vec::new();
    loop {
        while !head.windows(4).any(|end| end == b"\r\n\r\n") {
            match stream.read_buf(&mut head).await {
                Ok(read) if read > 0 => {}
                _ => return,
            }
        }
        head.clear(); // clients here ask once and wait
        let Ok(worker) = shared.workers.acquire().await else { return };
        tokio::time::sleep(shared.service * shared.slower.load(Ordering::Relaxed)).await;
        drop(worker);
        if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.is_err() {
            return;
        }
    }
}
