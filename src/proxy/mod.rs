//! The path of a request. Start reading at [`handle`]: every phase of a request, top to bottom.
//! The other files are the phases and their leaves; policies decide in `core`, and live in `state`.

pub mod admit;
mod alarm;
pub mod arrive;
pub mod attempt;
pub mod body;
pub mod choose;
mod cut;
mod date;
pub mod exchange;
pub mod handle;
mod hedge;
mod hold;
pub mod identify;
pub mod inbound;
mod links;
mod local;
mod max_forwards;
mod permit;
pub mod phase;
pub mod rates;
pub mod readiness;
pub mod redirect;
pub mod refusal;
pub mod respond;
mod switches;
pub mod taking;
mod timers;
mod unread;
mod upgrade;
pub mod upload;
mod verdict;

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;

use crate::core::forwarded;
use crate::plan::{EndpointPlan, Plan};
use crate::state::clock;
use crate::state::places::Place;
use crate::state::states::States;
use crate::telemetry::{RouteMetrics, Telemetry, WorkerTelemetry};
use crate::upstream::Pool;

pub use body::{Body, BodyError};
pub use inbound::{ClientUpgrade, Feed, Inbound, Told};
use links::Links;
use local::Local;
pub use upload::ClientBody;

/// What every worker shares.
pub struct Shared {
    pub states: Arc<States>,
    pub telemetry: Arc<Telemetry>,
    pub plans: ArcSwap<Plan>,
}

/// The other end of a connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The listener's slot.
    pub slot: usize,
    /// After the PROXY protocol; 127.0.0.1:0 for a Unix socket.
    pub address: SocketAddr,
    pub local: Option<SocketAddr>,
    pub tls: Option<TlsInfo>,
    pub told: Told,
}

#[derive(Clone, Debug)]
pub struct TlsInfo {
    pub version: &'static str,
    pub server_name: Option<String>,
    /// The subject of the verified client certificate.
    pub client_subject: Option<String>,
}

type PlanCache = arc_swap::Cache<PlanSource, Arc<Plan>>;

/// Lets `arc_swap::Cache` look at the plan inside the shared record.
pub struct PlanSource(Arc<Shared>);

impl std::ops::Deref for PlanSource {
    type Target = ArcSwap<Plan>;

    fn deref(&self) -> &Self::Target {
        &self.0.plans
    }
}

/// One worker's proxy: its pools, its telemetry and its view of the plan. It lives on the worker's thread.
pub struct Proxy {
    shared: Arc<Shared>,
    telemetry: WorkerTelemetry,
    /// Metrics of requests that no route took.
    unrouted: Arc<RouteMetrics>,
    plan: RefCell<PlanCache>,
    /// The plan in force, as this worker holds it.
    local: RefCell<Rc<Local>>,
    pools: RefCell<Vec<Option<Rc<Pool<upload::View>>>>>,
    links: Links,
    /// The places of answers that take their time, since when.
    long: RefCell<Vec<(Instant, Weak<RefCell<Place>>)>>,
    /// The answers that wait for their clients.
    taking: taking::Taking,
    alarms: Rc<alarm::Alarms>,
    /// Of requests that have ended.
    memory: RefCell<Vec<exchange::Memory>>,
    /// How apps were told who asks.
    told: RefCell<forwarded::Memory>,
    /// A wall time and the monotonic time it was read at: wall times in between are computed.
    anchor: Cell<(Instant, SystemTime)>,
    dates: date::Dates,
}

impl Proxy {
    /// The proxy of worker `index`; to be made on that worker's thread.
    pub fn new(index: usize, shared: Arc<Shared>) -> Rc<Proxy> {
        Rc::new(Proxy {
            telemetry: shared.telemetry.worker(index),
            unrouted: shared.telemetry.route_metrics(""),
            plan: RefCell::new(arc_swap::Cache::new(PlanSource(shared.clone()))),
            local: RefCell::new(Local::of(shared.plans.load_full())),
            pools: RefCell::new(Vec::new()),
            links: Links::default(),
            long: RefCell::default(),
            taking: taking::Taking::default(),
            alarms: Rc::default(),
            memory: RefCell::default(),
            told: RefCell::default(),
            anchor: Cell::new((clock::now(), clock::wall())),
            dates: date::Dates::default(),
            shared,
        })
    }

    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The plan in force.
    pub fn plan(&self) -> Arc<Plan> {
        self.plan.borrow_mut().load().clone()
    }

    /// The same for a request, which takes it once.
    fn local(&self) -> Rc<Local> {
        let mut cache = self.plan.borrow_mut();
        let plan = cache.load();
        let mut local = self.local.borrow_mut();
        if !local.is(plan) {
            *local = Local::of(plan.clone());
        }
        local.clone()
    }

    /// The house-keeping of a worker, about every 100 ms.
    pub fn tick(&self) {
        self.anchor.set((clock::now(), clock::wall()));
        self.telemetry.flush();
        drop(self.local()); // an idle worker lets go of an old plan, too
        self.sweep();
        self.turn_streams(clock::now());
        self.taking.look(clock::now());
        self.links.follow(&self.plan(), &self.shared);
    }

    /// From now on, should the body take longer than [`STREAM_AFTER`], its place counts as a stream's.
    fn watch(&self, place: &Rc<RefCell<Place>>) {
        self.long.borrow_mut().push((clock::now(), Rc::downgrade(place)));
    }

    /// By the worker's tick and not by the body, which nobody polls while its client does not read.
    fn turn_streams(&self, now: Instant) {
        self.long.borrow_mut().retain(|(since, place)| {
            let Some(place) = place.upgrade() else { return false };
            let long = now.saturating_duration_since(*since) >= STREAM_AFTER;
            if long {
                place.borrow_mut().becomes_stream(now);
            }
            !long
        });
    }

    /// Hands on everything buffered; the worker is about to end.
    pub fn finish(&self) {
        self.telemetry.flush();
        self.pools.borrow_mut().clear();
        self.links.close();
    }

    /// The wall time at `at`, which may lie before the last tick; right to the clock's drift since then.
    fn wall(&self, at: Instant) -> SystemTime {
        let (then, wall) = self.anchor.get();
        match at.checked_duration_since(then) {
            Some(since) => wall + since,
            None => wall.checked_sub(then.saturating_duration_since(at)).unwrap_or(wall),
        }
    }

    /// The connections to an endpoint.
    fn pool(&self, endpoint: &EndpointPlan) -> Rc<Pool<upload::View>> {
        let mut pools = self.pools.borrow_mut();
        let slot = endpoint.pool_slot;
        if slot >= pools.len() {
            pools.resize_with(slot + 1, || None);
        }
        pools[slot].get_or_insert_with(|| Pool::new((*endpoint.spec).clone())).clone()
    }

    /// Closes the pools that no plan names any more; requests under way keep theirs to their end.
    fn sweep(&self) {
        let plan = self.local();
        for (slot, entry) in self.pools.borrow_mut().iter_mut().enumerate() {
            match entry {
                Some(pool) if !plan.has_pool(slot) => {
                    pool.close_idle();
                    *entry = None;
                }
                Some(_) | None => {}
            }
        }
    }
}

/// An answer whose body lasts longer is a stream: the app's latency says nothing of it any more.
const STREAM_AFTER: Duration = Duration::from_secs(1);
/// How long a `Retry-After` is when nothing better is known.
const RETRY_AFTER_DEFAULT: Duration = Duration::from_secs(1);
