//! One worker: a thread, a current-thread runtime, its own proxy and pools, its own listening sockets.
//!
//! Nothing is shared between workers on a request's path, so nothing is locked and nobody is woken on another core.
//! A panic in a connection ends that connection: tokio catches it at the task, the hook logs and counts it.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use rustls::ServerConfig;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::LocalSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::activity::{TICK, Ticks, millis};
use super::call;
use super::gate::Turned;
use super::listener::{self, ListenerShared, Socket};
use super::tls;
use crate::proxy::{Proxy, Shared};
use crate::state::clock;

/// A connection that has not said anything yet is kept this long once its listener closes.
const UNSPOKEN_LINGER: Duration = Duration::from_secs(1);

/// What the control side tells a worker.
pub enum Command {
    /// Accept on this socket.
    Listen(Arc<ListenerShared>, Socket),
    /// Accept what is waiting, close the socket, end its connections when they are idle.
    Drop(usize),
    /// Accept what is waiting on every socket and close them; answered when that is done.
    StopAccepting(oneshot::Sender<()>),
    /// End connections when they are idle.
    Close,
    /// End all connections now.
    Cut,
    /// Leave the thread.
    Shutdown,
}

/// What a connection is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Serve,
    /// End when idle; since when, in milliseconds.
    Close {
        since: u64,
    },
    Cut,
}

/// One worker's things, shared by its connections.
pub struct Worker {
    pub proxy: Rc<Proxy>,
    pub ticks: Arc<Ticks>,
    /// TLS handshakes under way.
    pub turns: Semaphore,
    /// Connections of the whole process, so that descriptors are left for the app's side, ops and files.
    pub connections_max: Cell<usize>,
    /// So many workers there are.
    of: usize,
    /// Who is to be woken when an order is given.
    wakers: RefCell<HashMap<u64, Waker>>,
    next: Cell<u64>,
}

/// A listener as one worker has it.
pub struct LocalListener {
    pub shared: Arc<ListenerShared>,
    order: Cell<Order>,
    stop: RefCell<Option<oneshot::Sender<()>>>,
    stopped: RefCell<Option<oneshot::Receiver<()>>>,
}

/// A connection's seat in its worker: where orders reach it.
pub struct Seat {
    worker: Rc<Worker>,
    listener: Rc<LocalListener>,
    id: u64,
    registered: Cell<bool>,
}

impl Seat {
    pub fn new(worker: &Rc<Worker>, listener: &Rc<LocalListener>) -> Seat {
        let id = worker.next.get();
        worker.next.set(id + 1);
        worker.proxy.shared().states.lifecycle.connection_opened();
        Seat { worker: Rc::clone(worker), listener: Rc::clone(listener), id, registered: Cell::new(false) }
    }

    pub fn slot(&self) -> usize {
        self.listener.shared.slot
    }

    pub fn tls(&self) -> Option<Arc<ServerConfig>> {
        self.listener.shared.tls.load_full()
    }

    pub fn order(&self) -> Order {
        self.listener.order.get()
    }

    pub fn turn(&self, why: Turned) {
        self.listener.shared.gate.turn(why);
    }

    /// Runs `work` unless the connection is cut, or closed and nothing has come of it for a while.
    pub async fn unless_ordered<T>(&self, mut work: Pin<Box<impl Future<Output = Option<T>>>>) -> Option<T> {
        let mut patience = None;
        poll_fn(|cx| {
            if !self.registered.replace(true) {
                // The task's waker stays the same for its life, so that registering once is enough.
                self.worker.wakers.borrow_mut().insert(self.id, cx.waker().clone());
            }
            if let Poll::Ready(done) = work.as_mut().poll(cx) {
                return Poll::Ready(done);
            }
            match self.order() {
                Order::Serve => Poll::Pending,
                Order::Cut => Poll::Ready(None),
                Order::Close { .. } => {
                    let until = Instant::from_std(clock::now() + UNSPOKEN_LINGER);
                    patience.get_or_insert_with(|| Box::pin(sleep_until(until))).as_mut().poll(cx).map(|()| None)
                }
            }
        })
        .await
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.worker.wakers.borrow_mut().remove(&self.id);
        self.worker.proxy.shared().states.lifecycle.connection_closed();
    }
}

/// The body of a worker's thread, one of so many; returns when it is told to shut down or nobody commands it any more.
pub fn run(
    (index, of): (usize, usize),
    shared: Arc<Shared>,
    ticks: Arc<Ticks>,
    runtime: tokio::runtime::Runtime,
    commands: mpsc::UnboundedReceiver<Command>,
) {
    let local = LocalSet::new();
    local.block_on(&runtime, async move {
        let worker = Rc::new(Worker {
            proxy: Proxy::new(index, shared),
            ticks,
            turns: Semaphore::new(tls::HANDSHAKES_MAX),
            connections_max: Cell::new(connections_max(of)),
            of,
            wakers: RefCell::new(HashMap::new()),
            next: Cell::new(0),
        });
        let ticking = tokio::task::spawn_local(tick(Rc::clone(&worker)));
        command(&worker, commands).await;
        ticking.abort();
        worker.proxy.finish();
    });
}

/// Half of the file descriptors that this process may have, but for those it needs for itself: each client may come to
/// need another one towards the app.
fn connections_max(workers: usize) -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
    let kept = DESCRIPTORS_KEPT + workers * DESCRIPTORS_OF_A_WORKER;
    (limit - kept.min(limit / 2)) / 2
}

/// For ops, admin and files.
const DESCRIPTORS_KEPT: usize = 48;
/// For its runtime and its listeners.
const DESCRIPTORS_OF_A_WORKER: usize = 8;

async fn tick(worker: Rc<Worker>) {
    let mut every = interval(TICK);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        worker.ticks.advance();
        // The hook has logged and counted a panic; the next tick must come all the same.
        let _ = catch_unwind(AssertUnwindSafe(|| worker.proxy.tick()));
        call::trim();
    }
}

async fn command(worker: &Rc<Worker>, mut commands: mpsc::UnboundedReceiver<Command>) {
    let mut listeners: HashMap<usize, Rc<LocalListener>> = HashMap::new();
    // Listeners taken away by a reload, while they have connections.
    let mut dropped: Vec<Rc<LocalListener>> = Vec::new();
    while let Some(command) = commands.recv().await {
        match command {
            Command::Listen(shared, socket) => {
                let slot = shared.slot;
                worker.connections_max.set(connections_max(worker.of)); // the limit may have been raised since the start
                if let Some(listener) = listen(worker, shared, socket) {
                    listeners.insert(slot, listener);
                }
            }
            Command::Drop(slot) => {
                let Some(listener) = listeners.remove(&slot) else { continue };
                listener.stop().await;
                worker.order(std::iter::once(&listener), Order::Close { since: millis(clock::now()) });
                dropped.retain(|listener| Rc::strong_count(listener) > 1);
                dropped.push(listener);
            }
            Command::StopAccepting(done) => {
                for listener in listeners.values() {
                    listener.stop().await;
                }
                let _ = done.send(()); // nobody waits any more: that is fine
            }
            Command::Close => {
                let order = Order::Close { since: millis(clock::now()) };
                worker.order(listeners.values().chain(&dropped), order);
            }
            Command::Cut => worker.order(listeners.values().chain(&dropped), Order::Cut),
            Command::Shutdown => return,
        }
    }
}

impl Worker {
    fn order<'a>(&self, listeners: impl Iterator<Item = &'a Rc<LocalListener>>, order: Order) {
        for listener in listeners {
            listener.order.set(order);
        }
        for waker in self.wakers.borrow().values() {
            waker.wake_by_ref();
        }
    }
}

impl LocalListener {
    /// Returns when what was waiting is accepted and the socket is closed.
    async fn stop(&self) {
        drop(self.stop.borrow_mut().take());
        let stopped = self.stopped.borrow_mut().take();
        if let Some(stopped) = stopped {
            let _ = stopped.await; // an accept loop that ended otherwise has closed its socket too
        }
    }
}

fn listen(worker: &Rc<Worker>, shared: Arc<ListenerShared>, socket: Socket) -> Option<Rc<LocalListener>> {
    let acceptor = match socket.into_acceptor() {
        Ok(acceptor) => acceptor,
        Err(problem) => {
            tracing::error!(listener = %shared.name(), %problem, "a worker cannot listen");
            return None;
        }
    };
    let (stop, told) = oneshot::channel();
    let (done, stopped) = oneshot::channel();
    let listener = Rc::new(LocalListener {
        shared,
        order: Cell::new(Order::Serve),
        stop: RefCell::new(Some(stop)),
        stopped: RefCell::new(Some(stopped)),
    });
    let (worker, accepting) = (Rc::clone(worker), Rc::clone(&listener));
    tokio::task::spawn_local(async move {
        listener::accept(worker, accepting, acceptor, told).await;
        drop(done);
    });
    Some(listener)
}
