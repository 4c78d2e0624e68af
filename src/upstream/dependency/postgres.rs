//! PostgreSQL, to the point where it would take a query: startup, login, `ReadyForQuery`, goodbye.
//!
//! Messages and SCRAM are `postgres-protocol`'s; the exchange is here because a driver would bring a pool of tasks,
//! types and a parser of rows for five messages, and would tell less of what went wrong.
//!
//! A password is never sent in clear over a connection that is neither TLS nor local.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use fallible_iterator::FallibleIterator;
use postgres_protocol::authentication::{md5_hash, sasl};
use postgres_protocol::message::backend::{Header, Message};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{ANSWER_MAX, hear, open, quoted, say};
use crate::core::dependency::Server;
use crate::core::units::Address;
use crate::upstream::connect::Alpn;
use crate::upstream::io::Io;
use crate::upstream::tls::ClientTls;

const NOT_POSTGRES: &str = "it answered something that is not PostgreSQL's protocol; is it the right port?";

pub(super) async fn check(server: &Server, tls: Option<&ClientTls>, timeout: Duration) -> Result<(), String> {
    let io = open(&server.address, None, timeout).await?;
    let mut io = match tls {
        Some(tls) => secure(io, tls).await?,
        None => io,
    };
    let user = server.user.as_deref().unwrap_or("postgres");
    let database = if server.path.is_empty() { user } else { &server.path };
    let mut out = BytesMut::new();
    let parameters =
        [("user", user), ("database", database), ("application_name", "outrigger"), ("client_encoding", "UTF8")];
    frontend::startup_message(parameters, &mut out).map_err(|error| unusable(&error))?;
    say(&mut io, &out).await?;
    let mut login = Login { server, user, tls: tls.is_some(), scram: None };
    let mut heard = BytesMut::new();
    for _ in 0..MESSAGES_MAX {
        let message = next(&mut io, &mut heard).await?;
        if let Message::ReadyForQuery(_) = message {
            out.clear();
            frontend::terminate(&mut out);
            // It is well; how the goodbye goes changes nothing.
            let _ = say(&mut io, &out).await;
            let _ = io.shutdown().await;
            return Ok(());
        }
        out.clear();
        login.answer(message, &mut out)?;
        if !out.is_empty() {
            say(&mut io, &out).await?;
        }
    }
    Err("it talks on and on and is never ready for a query".to_owned())
}

/// Asks for TLS the way PostgreSQL wants it: a request in clear, one letter back, then the handshake.
async fn secure(mut io: Io, tls: &ClientTls) -> Result<Io, String> {
    let mut out = BytesMut::new();
    frontend::ssl_request(&mut out);
    say(&mut io, &out).await?;
    let mut letter = [0];
    io.read_exact(&mut letter).await.map_err(|_| "it closed the connection when asked for TLS".to_owned())?;
    match (letter[0], io) {
        (b'S', Io::Plain(socket)) => {
            let stream = tls.handshake(socket, Alpn::None).await.map_err(|error| format!("TLS failed: {error}"))?;
            Ok(Io::Tls(Box::new(stream)))
        }
        (b'N', _) => Err("it does not offer TLS, which sslmode asks for".to_owned()),
        (_, _) => Err(NOT_POSTGRES.to_owned()),
    }
}

/// The next whole message.
async fn next(io: &mut Io, heard: &mut BytesMut) -> Result<Message, String> {
    loop {
        // The length is looked at before the message is waited for: it is the peer's word.
        let header = Header::parse(heard).map_err(|_| NOT_POSTGRES.to_owned())?;
        if header.is_some_and(|header| usize::try_from(header.len()).map_or(true, |length| length > ANSWER_MAX)) {
            return Err(NOT_POSTGRES.to_owned());
        }
        if let Some(message) = Message::parse(heard).map_err(|_| NOT_POSTGRES.to_owned())? {
            return Ok(message);
        }
        hear(io, heard).await?;
    }
}

struct Login<'a> {
    server: &'a Server,
    user: &'a str,
    tls: bool,
    scram: Option<sasl::ScramSha256>,
}

impl Login<'_> {
    /// What is to be said to a message; nothing where it only informs.
    fn answer(&mut self, message: Message, out: &mut BytesMut) -> Result<(), String> {
        match message {
            Message::AuthenticationCleartextPassword => {
                if !(self.tls || is_local(&self.server.address)) {
                    return Err(
                        "it asks for the password in clear on a connection without TLS; add sslmode=require".to_owned()
                    );
                }
                frontend::password_message(self.password()?, out).map_err(|error| unusable(&error))
            }
            Message::AuthenticationMd5Password(body) => {
                let hash = md5_hash(self.user.as_bytes(), self.password()?, body.salt());
                frontend::password_message(hash.as_bytes(), out).map_err(|error| unusable(&error))
            }
            Message::AuthenticationSasl(body) => {
                let offered = body.mechanisms().any(|name| Ok(name == sasl::SCRAM_SHA_256));
                if !offered.unwrap_or(false) {
                    return Err(
                        "it offers no way to log in that is known here (SCRAM-SHA-256, MD5, password)".to_owned()
                    );
                }
                let scram = sasl::ScramSha256::new(self.password()?, sasl::ChannelBinding::unsupported());
                let sent = frontend::sasl_initial_response(sasl::SCRAM_SHA_256, scram.message(), out);
                self.scram = Some(scram);
                sent.map_err(|error| unusable(&error))
            }
            Message::AuthenticationSaslContinue(body) => {
                let scram = self.scram.as_mut().ok_or(NOT_POSTGRES)?;
                scram
                    .update(body.data())
                    .map_err(|error| format!("the login failed: {}", quoted(&error.to_string())))?;
                frontend::sasl_response(scram.message(), out).map_err(|error| unusable(&error))
            }
            Message::AuthenticationSaslFinal(body) => {
                let scram = self.scram.as_mut().ok_or(NOT_POSTGRES)?;
                scram.finish(body.data()).map_err(|_| "the server does not know the password it checks".to_owned())
            }
            Message::ErrorResponse(body) => {
                let field = |kind: u8| {
                    let found = body.fields().find(|field| Ok(field.type_() == kind)).ok().flatten();
                    found.map(|field| String::from_utf8_lossy(field.value_bytes()).into_owned()).unwrap_or_default()
                };
                Err(refused(&field(b'C'), &field(b'M')))
            }
            Message::AuthenticationGss | Message::AuthenticationSspi | Message::AuthenticationKerberosV5 => {
                Err("it asks for a Kerberos login, which cannot be done here; use tcp: for this check".to_owned())
            }
            Message::AuthenticationOk
            | Message::ParameterStatus(_)
            | Message::BackendKeyData(_)
            | Message::NoticeResponse(_) => Ok(()),
            // Not ours: everything else belongs to queries, which were not asked.
            _ => Err(NOT_POSTGRES.to_owned()),
        }
    }

    fn password(&self) -> Result<&[u8], String> {
        let password = self.server.password.as_deref();
        password
            .map(str::as_bytes)
            .ok_or_else(|| format!("it asks for a password of {}, and the URL has none", self.user))
    }
}

fn is_local(address: &Address) -> bool {
    match address {
        Address::Unix(_) => true,
        Address::Tcp { host, .. } => {
            host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
        }
    }
}

/// The refusals an operator meets, by SQLSTATE; the server's own words behind each.
fn refused(code: &str, said: &str) -> String {
    let means = match code {
        "28P01" => "the password is wrong",
        "28000" => "this user may not log in from here (pg_hba.conf)",
        "3D000" => "there is no such database",
        "57P03" => "it is starting up or shutting down",
        "57P01" | "57P02" => "it is shutting down",
        "53300" => "it has no connection left (max_connections)",
        "53400" => "a limit of its configuration is reached",
        _ => "it refuses",
    };
    format!("{means}: {} ({})", quoted(said), quoted(code))
}

fn unusable(error: &io::Error) -> String {
    format!("the URL cannot be used: {error}")
}

/// An honest server needs about twenty.
const MESSAGES_MAX: usize = 200;
