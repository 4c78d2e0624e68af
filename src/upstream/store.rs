//! A connection to a Redis or Valkey that holds limits for all replicas: opened with our own sockets and TLS, proved
//! by running the script once, then shared by all requests of a worker, pipelined by the crate `redis`.
//!
//! When it is opened and what becomes of requests without it is decided above. No words of a failure hold the password.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, RedisConnectionInfo, RedisError, Value};
use tokio::time::timeout;

use super::{Alpn, ClientTls, connect};
use crate::core::bucket::{Decision, Params};
use crate::core::dependency::Server;
use crate::core::store::{Ask, SCRIPT, decisions};

/// How long connecting, AUTH and loading the script may take, all together.
const OPEN_TIMEOUT: Duration = Duration::from_secs(1);
/// The key that is asked for to prove that the script runs.
const PROBE_KEY: &str = "outrigger:probe";
/// Answers that must come within the budget before a store is relied on.
const PROOFS: usize = 3;
/// The longest answer of a server that is shown.
const SHOWN_MAX: usize = 120;

/// What keeps a connection going; it ends when the connection does.
pub type Driver = Pin<Box<dyn Future<Output = ()>>>;

/// An open connection. Clones share it.
#[derive(Clone)]
pub struct Store {
    connection: MultiplexedConnection,
    sha: Arc<str>,
}

impl Store {
    /// Connects and proves that limits can be decided, each proof within `budget`. The driver must be
    /// polled.
    pub async fn open(server: &Server, tls: Option<&ClientTls>, budget: Duration) -> Result<(Store, Driver), String> {
        let connected = connect(&server.address, tls.map(|tls| (tls, Alpn::None)), OPEN_TIMEOUT).await;
        let io = connected.map_err(|error| error.to_string())?.io;
        let mut identity = RedisConnectionInfo::default().set_skip_set_lib_name();
        if let Some(user) = &server.user {
            identity = identity.set_username(user);
        }
        if let Some(password) = &server.password {
            identity = identity.set_password(password);
        }
        if let Ok(database) = server.path.parse() {
            identity = identity.set_db(database);
        }
        // The budget of whoever asks governs, and nothing else.
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        let greeted = timeout(OPEN_TIMEOUT, MultiplexedConnection::new_with_config(&identity, io, config)).await;
        let (connection, driver) = greeted.map_err(|_| late(OPEN_TIMEOUT))?.map_err(|error| words(&error, server))?;
        let mut driver: Driver = Box::pin(driver);
        let proving = async {
            let mut store = Store { connection, sha: "".into() };
            store.load(server).await?;
            store.prove(budget, server).await.map(|()| store)
        };
        let store = tokio::select! {
            // The driver goes first, so that what has arrived is read before a timer is believed.
            biased;
            () = &mut driver => Err("it closed the connection".to_owned()),
            proved = timeout(OPEN_TIMEOUT, proving) => proved.map_err(|_| late(OPEN_TIMEOUT))?,
        }?;
        Ok((store, driver))
    }

    async fn load(&mut self, server: &Server) -> Result<(), String> {
        let mut load = Cmd::new();
        load.arg("SCRIPT").arg("LOAD").arg(SCRIPT);
        match self.connection.send_packed_command(&load).await {
            Ok(Value::BulkString(sha)) if sha.len() == 40 => {
                self.sha = String::from_utf8_lossy(&sha).into();
                Ok(())
            }
            Ok(Value::ServerError(error)) => Err(words(&error.into(), server)),
            Ok(_) => Err("it does not answer like a Redis".to_owned()),
            Err(error) => Err(words(&error, server)),
        }
    }

    /// A Redis that may not write, or is too slow, is of no use: found out here and not by requests.
    async fn prove(&self, budget: Duration, server: &Server) -> Result<(), String> {
        let params = Params { emission: Duration::from_millis(1), burst: 1000 };
        let ask = [Ask { key: PROBE_KEY.to_owned(), params, cost: 1, enforced: true }];
        for _ in 0..PROOFS {
            let asked = timeout(budget, self.decide(&ask)).await;
            asked.map_err(|_| late(budget))?.map_err(|failure| failure.words(server))?;
        }
        Ok(())
    }

    /// Decides over all of a request's limits at once.
    pub async fn decide(&self, asks: &[Ask]) -> Result<Vec<Decision>, Failure> {
        let answer = match self.run("EVALSHA", &self.sha, asks).await {
            // Somebody has flushed its scripts; it keeps this one again.
            Ok(Value::ServerError(error)) if error.code() == "NOSCRIPT" => self.run("EVAL", SCRIPT, asks).await,
            answer => answer,
        };
        let values = match answer.map_err(Failure::Lost)? {
            Value::Array(values) => values,
            Value::ServerError(error) => return Err(Failure::Refused(error.into())),
            _ => return Err(Failure::Nonsense),
        };
        let numbers: Option<Vec<i64>> = values.iter().map(number).collect();
        numbers.and_then(|numbers| decisions(asks, &numbers)).ok_or(Failure::Nonsense)
    }

    async fn run(&self, how: &str, what: &str, asks: &[Ask]) -> Result<Value, RedisError> {
        let mut command = Cmd::new();
        command.arg(how).arg(what).arg(asks.len());
        asks.iter().for_each(|ask| {
            command.arg(&ask.key);
        });
        asks.iter().flat_map(Ask::arguments).for_each(|argument| {
            command.arg(argument);
        });
        self.connection.clone().send_packed_command(&command).await
    }
}

fn number(value: &Value) -> Option<i64> {
    if let Value::Int(number) = value { Some(*number) } else { None }
}

/// Why a store did not decide.
#[derive(Debug)]
pub enum Failure {
    /// The connection ended, or what came over it is not Redis's protocol.
    Lost(RedisError),
    /// It said no.
    Refused(RedisError),
    /// It answered something else than was asked.
    Nonsense,
}

impl Failure {
    pub fn words(&self, server: &Server) -> String {
        match self {
            Failure::Lost(error) | Failure::Refused(error) => words(error, server),
            Failure::Nonsense => "it does not answer like a Redis".to_owned(),
        }
    }
}

pub fn late(budget: Duration) -> String {
    format!("no answer within {budget:?}")
}

/// A server may repeat what it was sent, the password too.
fn words(error: &RedisError, server: &Server) -> String {
    let mut text = error.to_string();
    if let Some(password) = server.password.as_deref().filter(|password| !password.is_empty()) {
        text = text.replace(password, "…");
    }
    text.chars().map(|one| if one.is_control() { ' ' } else { one }).take(SHOWN_MAX).collect()
}
