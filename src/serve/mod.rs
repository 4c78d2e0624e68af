//! Sockets in: from a bound port to a request handed to the proxy, and how connections end.
//!
//! [`server`] is the control side (bind, load certificates, reload, stop); [`worker`] is one thread with its own
//! runtime, listeners and proxy; [`connection`] is one connection's life; [`drain`] ends them all in order.
//! Deliberately absent: work stealing between workers, and any knowledge of routes or of the configuration language.

pub mod drain;
pub mod server;

mod crowd;
pub mod gate;
pub mod listener;
pub mod worker;

pub mod connection;
mod http;
mod http1;
mod link;

mod activity;
mod alarm;
mod call;
mod io;
mod stream;

pub mod proxy_protocol;

mod metrics;

pub mod certificates;
pub mod tls;

pub use certificates::CertificateInfo;
pub use drain::{DrainReport, drain};
pub use server::{Prepared, ServeProblem, Server};
