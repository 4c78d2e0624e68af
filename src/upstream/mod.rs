//! The outgoing half of the proxy: how one worker reaches one endpoint of an upstream.
//!
//! A [`Pool`] belongs to one worker thread and one endpoint (nothing here is shared between threads except
//! [`ClientTls`]), and [`Pool::send`] is the only way a request leaves. It owns what is mechanical about an attempt:
//! connecting, choosing HTTP/1.1 or HTTP/2, reusing connections without losing a request to the keep-alive race, and
//! saying on which side a failure lies. It owns no policy: retries with backoff, breakers, health and deadlines belong
//! to the floors above, which read them from [`SendError`].
//!
//! Reading order: [`Pool`] (`pool`), its two halves (`h1` with `idle`, `h2`), what comes back (`response`), how sockets are opened
//! (`connect`, `io`, `resolve`, `tls`), then [`probe`].
//!
//! HTTP/1.1 is our own codec, HTTP/2 is hyper's. Informational answers of HTTP/1.1 apps are told to whoever sends
//! ([`Interim`]), but for 100; those over HTTP/2 are skipped.

pub mod clock;
mod pool;
mod spec;

mod h1;
mod h2;
mod idle;
mod learned;
mod prepare;
mod sweep;
mod tally;

mod body;
mod error;
mod response;

mod connect;
mod io;
mod resolve;
pub mod tls;

pub mod dependency;
pub mod probe;
pub mod rt;
pub mod store;

pub use body::{BodyError, BodySender, RequestBody, Side};
pub use connect::{Alpn, ConnectError, ConnectProblem, Connected, connect};
pub use error::{SendError, UpstreamBodyError, UpstreamBodyProblem};
pub use io::{Io, Upgraded};
pub use pool::Pool;
pub use response::UpstreamBody;
pub use spec::{EndpointSpec, Interim, Protocol, SendHow};
pub use tally::Counts;
pub use tls::{ClientTls, TlsProblem, TlsTrouble};

#[cfg(test)]
mod tests;
