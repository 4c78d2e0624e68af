//! An app that says exactly the bytes it is told to say, and remembers every byte it was sent.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::{Deref, DerefMut};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use super::eventually;
use super::message::Request;
use super::wire::{Tap, Wire};

pub struct RawApp {
    address: SocketAddr,
    memory: Arc<Memory>,
}

#[derive(Default)]
struct Memory {
    requests: Mutex<Vec<Request>>,
    taps: Mutex<HashMap<usize, Tap>>,
    accepted: AtomicUsize,
    open: AtomicUsize,
    stop: AtomicBool,
    panics: Mutex<Vec<String>>,
}

/// A connection to the app. Everything of `Wire`, and requests are remembered.
pub struct Conn {
    wire: Wire,
    memory: Arc<Memory>,
    /// From 0, in order of arrival.
    pub number: usize,
}

impl Conn {
    /// The next request, whole; `None` when the connection ended instead.
    pub fn request(&mut self) -> Option<Request> {
        let request = self.wire.request(self.number)?;
        lock(&self.memory.requests).push(request.clone());
        Some(request)
    }

    /// How the peer ended the connection, read until then.
    pub fn wait_for_the_end(&mut self) -> super::End {
        self.wire.rest().1
    }

    pub fn reset(self) {
        self.wire.reset();
    }

    /// With longer deadlines, for a peer that is meant to be slow.
    pub fn into_slow(mut self) -> Conn {
        self.wire.set_deadline(super::DEADLINE * 3);
        self
    }
}

impl Deref for Conn {
    type Target = Wire;
    fn deref(&self) -> &Wire {
        &self.wire
    }
}

impl DerefMut for Conn {
    fn deref_mut(&mut self) -> &mut Wire {
        &mut self.wire
    }
}

impl RawApp {
    /// Each connection is given to `handler` in a thread of its own, and closed when it returns.
    pub fn start(handler: impl Fn(Conn) + Send + Sync + 'static) -> RawApp {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port for the app");
        RawApp::on(listener, handler)
    }

    pub fn on(listener: TcpListener, handler: impl Fn(Conn) + Send + Sync + 'static) -> RawApp {
        let address = listener.local_addr().expect("the app's address");
        let memory = Arc::new(Memory::default());
        let (shared, handler) = (Arc::clone(&memory), Arc::new(handler));
        thread::spawn(move || {
            for stream in listener.incoming() {
                if shared.stop.load(Ordering::SeqCst) {
                    return;
                }
                if let Ok(stream) = stream {
                    serve(stream, &shared, Arc::clone(&handler));
                }
            }
        });
        RawApp { address, memory }
    }

    /// Answers every request with the same bytes, and keeps the connection.
    pub fn answering(answer: impl AsRef<[u8]>) -> RawApp {
        let answer = answer.as_ref().to_vec();
        RawApp::start(move |mut conn| while conn.request().is_some() && conn.send(&answer) {})
    }

    /// Answers each request with the same bytes and closes.
    pub fn answering_and_closing(answer: impl AsRef<[u8]>) -> RawApp {
        let answer = answer.as_ref().to_vec();
        RawApp::start(move |mut conn| {
            if conn.request().is_some() {
                conn.send(&answer);
            }
        })
    }

    /// Answers 200 with `ok`.
    pub fn fine() -> RawApp {
        RawApp::answering(OK)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The requests read whole so far.
    pub fn requests(&self) -> Vec<Request> {
        lock(&self.memory.requests).clone()
    }

    /// The only request there should be.
    pub fn only_request(&self) -> Request {
        let requests = self.requests();
        assert_eq!(requests.len(), 1, "requests at the app: {requests:#?}");
        requests.into_iter().next().expect("one")
    }

    pub fn wait_for_requests(&self, count: usize) -> Vec<Request> {
        eventually(&format!("{count} requests at the app"), || Some(self.requests()).filter(|all| all.len() >= count))
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.memory.accepted.load(Ordering::SeqCst)
    }

    /// Connections whose handler has not returned.
    pub fn open(&self) -> usize {
        self.memory.open.load(Ordering::SeqCst)
    }

    /// Every byte that came, by connection.
    pub fn received(&self) -> Vec<Vec<u8>> {
        let taps = lock(&self.memory.taps);
        let mut all: Vec<_> = taps.iter().map(|(number, tap)| (*number, lock(tap).clone())).collect();
        all.sort_by_key(|(number, _)| *number);
        all.into_iter().map(|(_, bytes)| bytes).collect()
    }

    /// No byte came.
    pub fn untouched(&self) -> bool {
        self.received().iter().all(Vec::is_empty)
    }
}

impl Drop for RawApp {
    fn drop(&mut self) {
        self.memory.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        let panics = lock(&self.memory.panics).clone();
        assert!(panics.is_empty() || thread::panicking(), "the app's handler failed: {panics:?}");
    }
}

fn serve(stream: TcpStream, memory: &Arc<Memory>, handler: Arc<impl Fn(Conn) + Send + Sync + 'static>) {
    let memory = Arc::clone(memory);
    let number = memory.accepted.fetch_add(1, Ordering::SeqCst);
    memory.open.fetch_add(1, Ordering::SeqCst);
    let tap = Tap::default();
    lock(&memory.taps).insert(number, Arc::clone(&tap));
    thread::spawn(move || {
        let conn = Conn { wire: Wire::new(stream, Some(tap)), memory: Arc::clone(&memory), number };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| handler(conn))) {
            let words = panic.downcast_ref::<String>().cloned();
            let words = words.or_else(|| panic.downcast_ref::<&str>().map(|words| (*words).to_owned()));
            lock(&memory.panics).push(words.unwrap_or_default());
        }
        memory.open.fetch_sub(1, Ordering::SeqCst);
    });
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
