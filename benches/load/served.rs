//! A server of the bench itself, on a thread of its own: it is no part of what is measured.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};

/// Hands every connection to a free port of the loopback to `answer`, until the process ends; the port. `begin` makes
/// what answers, on that thread.
pub fn start<A: Fn(TcpStream)>(begin: impl FnOnce() -> A + Send + 'static) -> u16 {
    let listener = std::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    listener.set_nonblocking(true).expect("a socket can be non-blocking");
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        tokio::task::LocalSet::new().block_on(&runtime, async move {
            let listener = TcpListener::from_std(listener).expect("a listener in this runtime");
            let answer = begin();
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                let _ = stream.set_nodelay(true);
                answer(stream);
            }
        });
    });
    port
}
