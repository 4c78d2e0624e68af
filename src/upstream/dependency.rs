//! Asking what the app needs whether it is there, the way the app itself would: a connection, a request, a login.
//!
//! Each check opens a connection of its own and closes it in order, so that the other side's log stays quiet. Its
//! answer is "well" or a sentence an operator can act on; nothing a peer sends can do more than that. Passwords are
//! never part of a sentence. Futures are `Send` and run on the control runtime.

mod local;
mod postgres;
mod redis;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::connect::{Alpn, ConnectProblem, connect};
use super::probe;
use super::tls::ClientTls;
use crate::core::dependency::{Server, Statuses};
use crate::core::units::Address;

/// What to ask. Two are equal when they ask the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dependency {
    /// A connection can be made.
    Tcp(Address),
    /// A GET is answered with one of these statuses.
    Http { server: Server, tls: Option<Arc<ClientTls>>, expect: Statuses },
    /// A login succeeds and the server is ready for a query.
    Postgres { server: Server, tls: Option<Arc<ClientTls>> },
    /// PING is answered PONG, after AUTH when there is a password.
    Redis { server: Server, tls: Option<Arc<ClientTls>> },
    /// The name has an address.
    Dns(String),
    /// So much of the file system is free.
    Disk { path: PathBuf, free_min: Free },
    /// The certificate in this file is valid for at least so long.
    CertificateFile { path: PathBuf, valid_min: Duration },
    /// The same for the one a server shows.
    CertificateOf { address: Address, tls: Arc<ClientTls>, valid_min: Duration },
}

/// How much must be free.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Free {
    /// 0 to 1.
    Share(f64),
    Bytes(u64),
}

impl Eq for Free {}

impl Dependency {
    pub fn kind(&self) -> &'static str {
        match self {
            Dependency::Tcp(_) => "tcp",
            Dependency::Http { .. } => "http",
            Dependency::Postgres { .. } => "postgres",
            Dependency::Redis { .. } => "redis",
            Dependency::Dns(_) => "dns",
            Dependency::Disk { .. } => "disk",
            Dependency::CertificateFile { .. } | Dependency::CertificateOf { .. } => "certificate",
        }
    }

    /// Asks once. `timeout` covers everything, `wall` is the time certificates are judged by.
    pub async fn check(&self, timeout: Duration, wall: std::time::SystemTime) -> Result<(), String> {
        let checked = tokio::time::timeout(timeout, self.ask(timeout, wall)).await;
        checked.unwrap_or_else(|_elapsed| Err(format!("timed out: no verdict within {timeout:?}")))
    }

    async fn ask(&self, timeout: Duration, wall: std::time::SystemTime) -> Result<(), String> {
        match self {
            Dependency::Tcp(address) => open(address, None, timeout).await.map(drop),
            Dependency::Http { server, tls, expect } => {
                let verdict =
                    probe::status(&server.address, tls.as_deref(), &server.authority, &server.path, timeout, expect);
                verdict.await.map_err(|unhealthy| unhealthy.words)
            }
            Dependency::Postgres { server, tls } => postgres::check(server, tls.as_deref(), timeout).await,
            Dependency::Redis { server, tls } => {
                redis::check(open(&server.address, tls.as_deref(), timeout).await?, server).await
            }
            Dependency::Dns(name) => local::dns(name).await,
            Dependency::Disk { path, free_min } => local::disk(path.clone(), *free_min).await,
            Dependency::CertificateFile { path, valid_min } => {
                local::certificate_file(path.clone(), *valid_min, wall).await
            }
            Dependency::CertificateOf { address, tls, valid_min } => {
                let io = open(address, Some(tls), timeout).await?;
                local::certificate_of(&io, address, *valid_min, wall)
            }
        }
    }
}

/// Connects, or says in words why not.
async fn open(address: &Address, tls: Option<&ClientTls>, timeout: Duration) -> Result<super::io::Io, String> {
    let tls = tls.map(|tls| (tls, Alpn::None));
    match connect(address, tls, timeout).await {
        Ok(connected) => Ok(connected.io),
        Err(error) => Err(match error.problem {
            ConnectProblem::Refused => format!("connection refused: nothing listens on {address}"),
            ConnectProblem::Timeout => format!("timed out: no connection to {address} within {timeout:?}"),
            ConnectProblem::UnixMissing => format!("{address} does not exist"),
            ConnectProblem::Exhausted => format!("Outrigger itself is out of descriptors or ports ({error})"),
            ConnectProblem::Dns | ConnectProblem::Unreachable | ConnectProblem::Tls | ConnectProblem::NotHttp2 => {
                format!("{address}: {error}")
            }
        }),
    }
}

/// Writes all of it.
async fn say<S: AsyncWrite + Unpin>(stream: &mut S, bytes: &[u8]) -> Result<(), String> {
    let told = async {
        stream.write_all(bytes).await?;
        stream.flush().await
    };
    told.await.map_err(|error| format!("the connection broke off ({error})"))
}

/// Reads more into `buffer`, which may not grow beyond what any honest answer needs.
async fn hear<S: AsyncRead + Unpin>(stream: &mut S, buffer: &mut bytes::BytesMut) -> Result<(), String> {
    if buffer.len() > ANSWER_MAX {
        return Err("the answer is far too long; is it the right port?".to_owned());
    }
    match stream.read_buf(buffer).await {
        Ok(0) => Err("it closed the connection in the middle of an answer".to_owned()),
        Ok(_) => Ok(()),
        Err(error) => Err(format!("the connection broke off ({error})")),
    }
}

/// What a peer says, fit for a log line: printable and short.
fn quoted(text: &str) -> String {
    let clean: String = text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
    match clean.char_indices().nth(QUOTED_MAX) {
        Some((end, _)) => format!("{}\u{2026}", &clean[..end]),
        None => clean,
    }
}

const ANSWER_MAX: usize = 64 * 1024;
const QUOTED_MAX: usize = 200;
