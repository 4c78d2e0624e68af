//! What a caller says: which endpoint, and how one request is to be sent to it.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use super::tls::ClientTls;
use crate::core::fields::Fields;
use crate::core::units::Address;

/// How an endpoint is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP/2 where TLS chooses it or the request wants it ([`SendHow::want_http2`]); else HTTP/1.1.
    Auto,
    Http1,
    /// By ALPN over TLS, by prior knowledge without.
    Http2,
}

/// An endpoint and how to keep connections to it. Equality is what a pool survives a reload by: address, TLS, protocol.
#[derive(Clone, Debug)]
pub struct EndpointSpec {
    pub address: Address,
    pub tls: Option<Arc<ClientTls>>,
    pub protocol: Protocol,
    /// Sent as `Host` or `:authority` when the request has none.
    pub authority: String,
    /// Idle HTTP/1.1 connections kept; 0 keeps none.
    pub idle_max: usize,
    /// How long they are kept; below the app's own.
    pub idle_timeout: Duration,
    /// Look the name up again this often, and leave connections to addresses that are gone.
    pub refresh: Option<Duration>,
}

impl PartialEq for EndpointSpec {
    fn eq(&self, other: &Self) -> bool {
        self.address == other.address && self.tls == other.tls && self.protocol == other.protocol
    }
}

impl Eq for EndpointSpec {}

impl Hash for EndpointSpec {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.address.hash(state);
        self.tls.hash(state);
        self.protocol.hash(state);
    }
}

/// Hears of the answers that come before the answer (1xx, RFC 9110 §15.2), but 100, which is between two neighbours,
/// and 101, which is an answer. Over HTTP/2 none are heard of.
pub trait Interim {
    fn interim(&self, status: StatusCode, fields: Fields);
}

/// How one request is to be sent.
#[derive(Clone, Copy)]
pub struct SendHow<'a> {
    /// DNS, TCP and TLS together.
    pub connect_timeout: Duration,
    /// HTTP/2 even where [`Protocol::Auto`] would choose HTTP/1.1 (gRPC).
    pub want_http2: bool,
    /// Take no pooled HTTP/1.1 connection (a retry after the keep-alive race). HTTP/2 shares its connections anyway.
    pub fresh: bool,
    /// The request may be sent twice. Others never take a connection that the app may be about to close.
    pub replayable: bool,
    pub interim: Option<&'a dyn Interim>,
}
