//! A worker's connections to the stores in which replicas count together. One is kept open for each, so that a request
//! never waits for a connection; while there is none, nobody waits at all.
//!
//! A connection that ends, answers nonsense, or is late three times in a row is given up, and another is tried for,
//! later and later. It is relied on again when it has proved itself (`upstream::store`).

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::{AbortHandle, spawn_local, yield_now};
use tokio::time::timeout;

use super::Shared;
use crate::core::bucket::Decision;
use crate::core::store::{Ask, Patience};
use crate::plan::{Plan, StorePlan};
use crate::state::clock;
use crate::state::store::StoreState;
use crate::upstream::store::{self, Failure, Store};

/// Turns given to the connection after a budget is spent, to read what has come by then.
const GRACE_TURNS: usize = 2;

/// By the store's slot.
#[derive(Default)]
pub struct Links(RefCell<Vec<Option<Rc<Link>>>>);

/// One worker's connection to one store, or the attempts to get it.
pub struct Link {
    plan: Arc<StorePlan>,
    shared: Arc<Shared>,
    store: RefCell<Option<Store>>,
    patience: Cell<Patience>,
    /// Counts connections, so that late news of an old one harms no new one.
    generation: Cell<u64>,
    lost: RefCell<Option<String>>,
    news: Notify,
    keeper: RefCell<Option<AbortHandle>>,
}

impl Links {
    /// Opens what the plan names, and leaves what it does not name any more.
    pub fn follow(&self, plan: &Plan, shared: &Arc<Shared>) {
        let mut links = self.0.borrow_mut();
        for entry in links.iter_mut() {
            let named = |link: &Rc<Link>| plan.stores.iter().any(|store| store.asks_the_same(&link.plan));
            if let Some(link) = entry.take_if(|link| !named(link)) {
                link.close();
            }
        }
        for store in &plan.stores {
            if store.slot >= links.len() {
                links.resize_with(store.slot + 1, || None);
            }
            links[store.slot].get_or_insert_with(|| Link::open(store.clone(), shared.clone()));
        }
    }

    pub fn get(&self, store: &StorePlan) -> Option<Rc<Link>> {
        self.0.borrow().get(store.slot)?.clone()
    }

    pub fn close(&self) {
        self.0.borrow_mut().drain(..).flatten().for_each(|link| link.close());
    }
}

impl Link {
    fn open(plan: Arc<StorePlan>, shared: Arc<Shared>) -> Rc<Link> {
        plan.state.joined();
        let link = Rc::new(Link {
            plan,
            shared,
            store: RefCell::default(),
            patience: Cell::default(),
            generation: Cell::default(),
            lost: RefCell::default(),
            news: Notify::new(),
            keeper: RefCell::default(),
        });
        let keeper = spawn_local(keep(link.clone()));
        *link.keeper.borrow_mut() = Some(keeper.abort_handle());
        link
    }

    /// No further connection; the task gives its share of the link back.
    fn close(&self) {
        if let Some(keeper) = self.keeper.borrow_mut().take() {
            keeper.abort();
        }
    }

    pub fn is_up(&self) -> bool {
        self.store.borrow().is_some()
    }

    /// The store's decisions; `None` when it does not give them in time.
    pub async fn ask(&self, asks: &[Ask]) -> Option<Vec<Decision>> {
        let state = &self.plan.state;
        let Some(store) = self.store.borrow().clone() else {
            StoreState::count(&state.unasked);
            return None;
        };
        let generation = self.generation.get();
        let problem = match within(self.plan.timeout, pin!(store.decide(asks))).await {
            Some(Ok(decisions)) => {
                self.be_patient(|patience| patience.answered());
                StoreState::count(&state.answered);
                return Some(decisions);
            }
            Some(Err(failure)) => Some(failure.words(&self.plan.server)),
            None => self.be_patient(Patience::late).then(|| store::late(self.plan.timeout)),
        };
        StoreState::count(&state.failed);
        if let Some(words) = problem
            && generation == self.generation.get()
        {
            *self.lost.borrow_mut() = Some(words);
            *self.store.borrow_mut() = None;
            self.news.notify_one();
        }
        None
    }

    fn be_patient<T>(&self, act: impl FnOnce(&mut Patience) -> T) -> T {
        let mut patience = self.patience.get();
        let result = act(&mut patience);
        self.patience.set(patience);
        result
    }

    fn up(&self, store: Store) {
        self.generation.set(self.generation.get() + 1);
        *self.lost.borrow_mut() = None;
        *self.store.borrow_mut() = Some(store);
        if let Some(away) = self.plan.state.up(clock::now()) {
            let words = format!("it answers again after {:.1} s: replicas count together", away.as_secs_f64());
            self.shared.states.journal.record("store", &*self.plan.name, words);
        }
    }

    fn away(&self, was_up: bool, words: String) {
        *self.store.borrow_mut() = None;
        let event = format!("it is away ({words}): limits do what when_unavailable says");
        if self.plan.state.away(was_up, words, clock::now(), clock::wall()) {
            self.shared.states.journal.record("store", &*self.plan.name, event);
        }
    }

    /// Until there is a reason to give the connection up.
    async fn given_up(&self) -> String {
        loop {
            if let Some(words) = self.lost.borrow_mut().take() {
                return words;
            }
            self.news.notified().await;
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.plan.state.left(self.store.get_mut().is_some());
    }
}

/// One connection after the other, until the link is closed.
async fn keep(link: Rc<Link>) {
    loop {
        let lasted = connection(&link).await;
        let wait = link.be_patient(|patience| patience.lost(lasted, clock::unit()));
        tokio::time::sleep(wait).await;
    }
}

/// One connection from its beginning to its end; how long it lasted.
async fn connection(link: &Link) -> Duration {
    let plan = &link.plan;
    match Store::open(&plan.server, plan.tls.as_deref(), plan.timeout).await {
        Ok((store, driver)) => {
            let since = clock::now();
            link.up(store);
            let words = tokio::select! {
                biased;
                words = link.given_up() => words,
                () = driver => "it closed the connection".to_owned(),
            };
            link.away(true, words);
            clock::now().saturating_duration_since(since)
        }
        Err(words) => {
            link.away(false, words);
            Duration::ZERO
        }
    }
}

type Decided = Result<Vec<Decision>, Failure>;

/// The answer, when it comes within `budget`. This thread may be late itself: what has come by then counts.
async fn within(budget: Duration, mut asked: Pin<&mut impl Future<Output = Decided>>) -> Option<Decided> {
    if let Ok(answer) = timeout(budget, &mut asked).await {
        return Some(answer);
    }
    for _ in 0..GRACE_TURNS {
        yield_now().await;
        let once = poll_fn(|context| match asked.as_mut().poll(context) {
            Poll::Ready(answer) => Poll::Ready(Some(answer)),
            Poll::Pending => Poll::Ready(None),
        });
        if let Some(answer) = once.await {
            return Some(answer);
        }
    }
    None
}
