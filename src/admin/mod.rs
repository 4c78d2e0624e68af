//! The two ports that are not for clients: *ops*, read-only, for probes and scrapers, and *admin*, for people and
//! pipelines.
//!
//! They are axum routers on the control runtime, so nothing here shares a thread with a request. What only the
//! process as a whole can do (reload, diff, drain) is sent to `app` as a [`Command`]; everything else is read from
//! the shared state. Which addresses may be listened on, and that admin needs a token beyond loopback, was decided
//! when the configuration was checked.

mod commands;
mod gauges;
mod guard;
mod listen;
mod ops;
pub mod status;
pub mod switches;

use std::sync::{Arc, Mutex};
use std::time::{Instant, SystemTime};

pub use commands::{Command, DiffAnswer, DrainAnswer, ReloadAnswer, admin_router};
pub use listen::{Bound, Door, bind, serve_http};
pub use ops::ops_router;

use crate::state::journal::lock;

/// What only `app` knows and `status` tells; `app` keeps it true.
pub struct Board(Mutex<Facts>);

#[derive(Clone, Debug)]
pub struct Facts {
    pub started: Instant,
    /// `None` when it runs from `--upstream`.
    pub config_file: Option<String>,
    /// Name and bound address, ops and admin included.
    pub listeners: Vec<(String, String)>,
    pub certificates: Vec<Certificate>,
    /// Hashes that `reload --to` can go back to; the first is what runs.
    pub plans: Vec<String>,
    /// What runs only after a restart, in words.
    pub restart: Vec<String>,
    /// The wrapped app's process id.
    pub app: Option<u32>,
}

/// One certificate a listener shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    pub listener: String,
    pub names: Vec<String>,
    pub path: String,
    pub not_after: SystemTime,
}

impl Board {
    pub fn new(started: Instant) -> Arc<Board> {
        let facts = Facts {
            started,
            config_file: None,
            listeners: Vec::new(),
            certificates: Vec::new(),
            plans: Vec::new(),
            restart: Vec::new(),
            app: None,
        };
        Arc::new(Board(Mutex::new(facts)))
    }

    pub fn update(&self, change: impl FnOnce(&mut Facts)) {
        change(&mut lock(&self.0));
    }

    pub fn facts(&self) -> Facts {
        lock(&self.0).clone()
    }
}
