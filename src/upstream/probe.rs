//! Health checks of one endpoint, and why it fails them in words an operator can act on.
//!
//! Every check opens a connection of its own: a check that rides on a pooled connection says nothing about whether
//! the app still accepts. The timeout covers everything from DNS to the status line. Only 2xx is healthy: a redirect
//! or a 404 means the check asks the wrong thing, which an operator must hear and not have silently accepted.
//! Futures are `Send` and need no `LocalSet`, so checks can run on the control runtime. Rise and fall are not here.

mod grpc;

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONNECTION, HOST, LOCATION, USER_AGENT};
use http::{Request, Response, StatusCode};
use http_body::Body;
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{CertificateError, Error as TlsError, InvalidMessage};

use super::connect::{Alpn, ConnectError, ConnectProblem, connect};
use super::error::source;
use super::tls::ClientTls;
use crate::core::dependency::Statuses;
use crate::core::units::Address;

pub use grpc::grpc;

/// Why an endpoint is not healthy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unhealthy {
    /// A stable word for metrics and logs, e.g. `connect_refused`, `timeout`, `not_found`, `redirected`.
    pub reason: &'static str,
    /// A sentence for people: what happened and what to look at.
    pub words: String,
}

impl fmt::Display for Unhealthy {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.words)
    }
}

impl std::error::Error for Unhealthy {}

/// `GET path` over HTTP/1.1 with this `Host`; healthy when the answer is 2xx.
pub async fn http(
    address: &Address,
    tls: Option<&ClientTls>,
    host: &str,
    path: &str,
    timeout: Duration,
) -> Result<(), Unhealthy> {
    let asked = Asked { address, host, path, timeout };
    asked.http1(tls, |res| asked.verdict(res)).await
}

/// The same, healthy when the status is among those expected.
pub async fn status(
    address: &Address,
    tls: Option<&ClientTls>,
    host: &str,
    path: &str,
    timeout: Duration,
    expect: &Statuses,
) -> Result<(), Unhealthy> {
    let asked = Asked { address, host, path, timeout };
    let verdict = |res: &Response<Incoming>| {
        let code = res.status().as_u16();
        if expect.contain(code) {
            return Ok(());
        }
        asked.verdict(res)?;
        Err(unhealthy("bad_status", format!("{code} on {path}: expected {expect}")))
    };
    asked.http1(tls, verdict).await
}

/// As [`http`], over HTTP/2 (ALPN, or prior knowledge without TLS), for endpoints that speak nothing else.
pub async fn http2(
    address: &Address,
    tls: Option<&ClientTls>,
    host: &str,
    path: &str,
    timeout: Duration,
) -> Result<(), Unhealthy> {
    let asked = Asked { address, host, path, timeout };
    let check = async {
        let scheme = if tls.is_some() { "https" } else { "http" };
        let tls = tls.map(|tls| (tls, Alpn::Http2));
        let connected = connect(address, tls, timeout).await.map_err(|error| asked.unconnected(&error))?;
        let io = TokioIo::new(connected.io);
        let (mut sender, connection) =
            http2::handshake(TokioExecutor::new(), io).await.map_err(|error| asked.unanswered(&error))?;
        let req = asked.request(&format!("{scheme}://{host}{path}"))?;
        drive(connection, async {
            let res = sender.send_request(req).await.map_err(|error| asked.unanswered(&error))?;
            asked.judge(res).await
        })
        .await
    };
    asked.within(check).await
}

/// Healthy when a connection can be opened.
pub async fn tcp(address: &Address, timeout: Duration) -> Result<(), Unhealthy> {
    let asked = Asked { address, host: "", path: "", timeout };
    connect(address, None, timeout).await.map(drop).map_err(|error| asked.unconnected(&error))
}

/// What was asked, for the words.
struct Asked<'a> {
    address: &'a Address,
    host: &'a str,
    path: &'a str,
    timeout: Duration,
}

impl Asked<'_> {
    async fn http1(
        &self,
        tls: Option<&ClientTls>,
        verdict: impl Fn(&Response<Incoming>) -> Result<(), Unhealthy>,
    ) -> Result<(), Unhealthy> {
        let check = async {
            let tls = tls.map(|tls| (tls, Alpn::Http1));
            let connected = connect(self.address, tls, self.timeout).await.map_err(|error| self.unconnected(&error))?;
            let io = TokioIo::new(connected.io);
            let (mut sender, connection) = http1::handshake(io).await.map_err(|error| self.unanswered(&error))?;
            let req = self.request(self.path)?;
            drive(connection, async {
                let res = sender.send_request(req).await.map_err(|error| self.unanswered(&error))?;
                let verdict = verdict(&res);
                drain(res.into_body()).await;
                verdict
            })
            .await
        };
        self.within(check).await
    }

    fn request(&self, target: &str) -> Result<Request<Empty<Bytes>>, Unhealthy> {
        let mut req = Request::get(target).header(USER_AGENT, AGENT).header(ACCEPT, "*/*");
        if target.starts_with('/') {
            req = req.header(HOST, self.host).header(CONNECTION, "close");
        }
        req.body(Empty::new())
            .map_err(|_| unhealthy("bad_check", format!("`{target}` or Host `{}` is not usable", self.host)))
    }

    async fn within(&self, check: impl Future<Output = Result<(), Unhealthy>>) -> Result<(), Unhealthy> {
        match tokio::time::timeout(self.timeout, check).await {
            Ok(verdict) => verdict,
            Err(_elapsed) => Err(unhealthy(
                "timeout",
                format!(
                    "timed out: {} accepted the connection but did not answer {} within {:?}",
                    self.address, self.path, self.timeout
                ),
            )),
        }
    }

    async fn judge(&self, res: Response<Incoming>) -> Result<(), Unhealthy> {
        let verdict = self.verdict(&res);
        // Reading the rest spares the app a broken pipe in its log for every check.
        drain(res.into_body()).await;
        verdict
    }

    fn verdict<B>(&self, res: &Response<B>) -> Result<(), Unhealthy> {
        let Asked { host, path, .. } = self;
        let status = res.status();
        let code = status.as_u16();
        Err(match status {
            _ if status.is_success() => return Ok(()),
            StatusCode::NOT_FOUND => {
                unhealthy("not_found", format!("404 on {path}: the app has no such page; is it the app's health path?"))
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => unhealthy(
                "unauthorized",
                format!("{code} on {path}: the health path asks for a login, or Host `{host}` is not allowed"),
            ),
            StatusCode::BAD_REQUEST | StatusCode::MISDIRECTED_REQUEST => unhealthy(
                "host_rejected",
                format!("{code} on {path}: the app may reject Host `{host}` (its allowed hosts), or expect HTTPS"),
            ),
            StatusCode::TOO_MANY_REQUESTS => {
                unhealthy("limited", format!("429 on {path}: the app limits the rate of its own health checks"))
            }
            _ if status.is_redirection() => {
                let to = res.headers().get(LOCATION).and_then(|to| to.to_str().ok()).unwrap_or("nowhere");
                unhealthy("redirected", format!("{code} on {path}: redirected to {to}; check that path, or set Host"))
            }
            _ if status.is_server_error() => {
                unhealthy("server_error", format!("{code} on {path}: the app answers, but says it is not well"))
            }
            _ => unhealthy("bad_status", format!("{code} on {path}: expected 2xx")),
        })
    }

    fn unanswered(&self, error: &hyper::Error) -> Unhealthy {
        let address = self.address;
        if error.is_parse() {
            return unhealthy(
                "not_http",
                format!("{address} answered something that is not HTTP; is it the right port, or does it speak HTTPS?"),
            );
        }
        // What h2 itself has found wrong is what the peer says; nginx answers the preface with a 400 of HTTP/1.
        if source::<h2::Error>(error).is_some_and(h2::Error::is_library) {
            let hint = "does it speak only HTTP/1? then set `protocol: http1`, or leave it at auto";
            return unhealthy("not_http2", format!("{address} does not speak HTTP/2; {hint}"));
        }
        unhealthy("closed", format!("{address} accepted the connection and closed it without an answer ({error})"))
    }

    fn unconnected(&self, error: &ConnectError) -> Unhealthy {
        let Asked { address, timeout, .. } = self;
        let words = match error.problem {
            ConnectProblem::Refused => {
                format!("connection refused: nothing listens on {address}; is the app started, on that port?")
            }
            ConnectProblem::Timeout => {
                format!("timed out: no connection to {address} within {timeout:?}; is it overloaded, or firewalled?")
            }
            ConnectProblem::Dns => format!("the name of {address} could not be resolved ({error})"),
            ConnectProblem::Unreachable => format!("{address} cannot be reached ({error})"),
            ConnectProblem::Tls => return self.unsecured(error),
            ConnectProblem::UnixMissing => {
                format!("{address} does not exist; is the app started, and the directory shared?")
            }
            ConnectProblem::Exhausted => format!("Outrigger itself is out of descriptors or ports ({error})"),
            ConnectProblem::NotHttp2 => format!("{address} does not speak HTTP/2"),
        };
        unhealthy(error.problem.label(), words)
    }

    /// What a failed handshake means. rustls has dozens of errors; these are the ones an operator can do something about.
    fn unsecured(&self, error: &ConnectError) -> Unhealthy {
        let address = self.address;
        match error.tls() {
            Some(TlsError::InvalidMessage(InvalidMessage::InvalidContentType)) => {
                unhealthy("tls_not_spoken", format!("{address} does not speak TLS on that port; is it plain http?"))
            }
            Some(TlsError::InvalidCertificate(problem)) => match problem {
                // A wrong signature is a CA of the same name that was made anew.
                CertificateError::UnknownIssuer | CertificateError::BadSignature => unhealthy(
                    "tls_untrusted",
                    format!("the certificate of {address} is signed by nobody we trust; set `tls.ca`"),
                ),
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                    unhealthy("tls_expired", format!("the certificate of {address} has expired"))
                }
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                    unhealthy("tls_not_yet", format!("the certificate of {address} is not valid yet; check the clock"))
                }
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => unhealthy(
                    "tls_name",
                    format!("the certificate of {address} is for another name ({problem}); set `tls.server_name`"),
                ),
                _ => unhealthy("tls_certificate", format!("the certificate of {address} is refused ({problem})")),
            },
            Some(TlsError::AlertReceived(alert)) => unhealthy(
                "tls_alert",
                format!("{address} ended the TLS handshake ({alert:?}); does it ask for a client certificate?"),
            ),
            Some(other) => unhealthy("connect_tls", format!("TLS with {address} failed ({other})")),
            None => unhealthy("connect_tls", format!("{address} closed the connection during the TLS handshake")),
        }
    }
}

fn unhealthy(reason: &'static str, words: String) -> Unhealthy {
    Unhealthy { reason, words }
}

/// Runs `work` while polling the connection it uses, in one task. A connection that ends first has left its error
/// with whoever waits on it.
async fn drive<C: Future, W: Future>(connection: C, work: W) -> W::Output {
    let mut connection = pin!(connection);
    let mut work = pin!(work);
    let mut open = true;
    poll_fn(|cx| {
        if let Poll::Ready(output) = work.as_mut().poll(cx) {
            return Poll::Ready(output);
        }
        if open && connection.as_mut().poll(cx).is_ready() {
            open = false;
        }
        work.as_mut().poll(cx)
    })
    .await
}

async fn drain(mut body: Incoming) {
    let mut left = DRAIN_MAX;
    while let Some(Ok(frame)) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
        if left == 0 {
            return;
        }
    }
}

const AGENT: &str = concat!("outrigger-health/", env!("CARGO_PKG_VERSION"));
/// A health page longer than this is not read to its end.
const DRAIN_MAX: usize = 64 * 1024;
