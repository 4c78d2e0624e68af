//! What the app needs beside us: where it is, read from the URL the app itself uses, and what its state means for
//! readiness. Asking it is [`crate::upstream::dependency`]'s; when, is the task's that does.
//!
//! A dependency that is away should rarely take the app away: an orchestrator that removes every replica because the
//! database has a hiccup turns a partial outage into a whole one. So `degraded` is the default, `required` is a choice,
//! and `startup` waits for a dependency once.

use std::fmt;
use std::ops::RangeInclusive;

use super::units::Address;

/// What a failing check means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Not ready while it fails.
    Required,
    /// Not ready until it has succeeded once; then it only degrades.
    Startup,
    /// Ready, and said to be degraded.
    Degraded,
}

impl When {
    pub fn label(self) -> &'static str {
        match self {
            When::Required => "required",
            When::Startup => "startup",
            When::Degraded => "degraded",
        }
    }

    /// What `well` (`None` until a check has decided) means; `seen_well` says whether it ever was.
    pub fn effect(self, well: Option<bool>, seen_well: bool) -> Effect {
        match (self, well) {
            (_, Some(true)) => Effect::None,
            (When::Required, Some(false) | None) => Effect::NotReady,
            (When::Startup, Some(false) | None) if !seen_well => Effect::NotReady,
            (When::Startup | When::Degraded, Some(false)) => Effect::Degraded,
            (When::Startup | When::Degraded, None) => Effect::None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    None,
    Degraded,
    NotReady,
}

/// A server named by a URL.
#[derive(Clone, PartialEq, Eq)]
pub struct Server {
    pub address: Address,
    /// The host as typed, for `Host` and for the name its certificate must have.
    pub authority: String,
    pub tls: bool,
    pub user: Option<String>,
    pub password: Option<String>,
    /// The path without its first slash.
    pub path: String,
    /// Parameters after `?`, in order.
    pub query: Vec<(String, String)>,
}

impl fmt::Debug for Server {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tls = if self.tls { " TLS" } else { "" };
        write!(out, "{}{tls} {:?} {}", self.address, self.user, self.path)
    }
}

impl Server {
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// What a URL had to be, when it is not.
pub type Expected = &'static str;

pub const POSTGRES: Expected = "a URL: postgres://user:password@host:port/database";
pub const REDIS: Expected = "a URL: redis://:password@host:port, or rediss:// for TLS";
pub const HTTP: Expected = "a URL: http://host:port/path or https://host/path";

/// `postgres://` or `postgresql://`, as libpq reads it: percent-encoding, `?sslmode=` and `?host=/directory`.
pub fn postgres(text: &str) -> Result<Server, Expected> {
    let rest = text.strip_prefix("postgres://").or_else(|| text.strip_prefix("postgresql://")).ok_or(POSTGRES)?;
    let mut server = parse(rest, 5432, Some("localhost")).ok_or(POSTGRES)?;
    server.tls = match server.parameter("sslmode") {
        None | Some("disable" | "allow" | "prefer") => false,
        Some("require" | "verify-ca" | "verify-full") => true,
        Some(_) => return Err("an sslmode of disable, prefer, require, verify-ca or verify-full"),
    };
    if let Some(directory) = server.parameter("host").filter(|host| host.starts_with('/')) {
        let port = match &server.address {
            Address::Tcp { port, .. } => *port,
            Address::Unix(_) => 5432,
        };
        server.address = Address::Unix(format!("{directory}/.s.PGSQL.{port}").into());
    }
    Ok(server)
}

pub fn redis(text: &str) -> Result<Server, Expected> {
    let (rest, tls) = match text.split_once("://") {
        Some(("redis", rest)) => (rest, false),
        Some(("rediss", rest)) => (rest, true),
        Some(_) | None => return Err(REDIS),
    };
    parse(rest, 6379, None).map(|server| Server { tls, ..server }).ok_or(REDIS)
}

/// Path and query stay as typed.
pub fn http(text: &str) -> Result<Server, Expected> {
    let (rest, tls) = match text.split_once("://") {
        Some(("http", rest)) => (rest, false),
        Some(("https", rest)) => (rest, true),
        Some(_) | None => return Err(HTTP),
    };
    if rest.split(['/', '?']).next().is_none_or(|authority| authority.contains('@')) || rest.contains('#') {
        return Err(HTTP);
    }
    let (before, target) = match rest.find(['/', '?']) {
        Some(end) => rest.split_at(end),
        None => (rest, "/"),
    };
    let mut server = parse(before, if tls { 443 } else { 80 }, None).ok_or(HTTP)?;
    server.path = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
    if !server.path.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(HTTP);
    }
    Ok(Server { tls, ..server })
}

/// `[user[:password]@][host][:port][/path][?query]`.
fn parse(rest: &str, port_default: u16, host_default: Option<&str>) -> Option<Server> {
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (identity, place) = match authority.rsplit_once('@') {
        Some((identity, place)) => (Some(identity), place),
        None => (None, authority),
    };
    let (user, password) = match identity.map(|text| text.split_once(':').map_or((text, None), |(a, b)| (a, Some(b)))) {
        Some((user, password)) => (Some(decode(user)?), password.map(decode)),
        None => (None, None),
    };
    let (host, port) = match place.rsplit_once(':').filter(|(_, port)| !port.contains(']')) {
        Some((host, port)) => (host, port.parse().ok()?),
        None => (place, port_default),
    };
    let host = if host.is_empty() { host_default? } else { host };
    let bare = host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(host);
    let named = bare.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:%".contains(&byte));
    if !named || bare.is_empty() || (bare.contains(':') && bare == host) {
        return None;
    }
    let pair = |pair: &str| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        Some((decode(key)?, decode(value)?))
    };
    let query = query.split('&').filter(|pair| !pair.is_empty()).map(pair).collect::<Option<Vec<_>>>()?;
    Some(Server {
        address: Address::Tcp { host: bare.to_owned(), port },
        authority: if place.is_empty() { host.to_owned() } else { place.to_owned() },
        tls: false,
        user: user.filter(|user| !user.is_empty()),
        password: match password {
            Some(password) => Some(password?),
            None => None,
        },
        path: decode(path)?,
        query,
    })
}

/// Percent-decoding; `None` for what is not UTF-8, not hexadecimal, or would end a protocol's string.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let mut digit = || rest.next().and_then(|byte| char::from(byte).to_digit(16));
        bytes.push(if byte == b'%' { (digit()? * 16 + digit()?) as u8 } else { byte });
    }
    String::from_utf8(bytes).ok().filter(|text| !text.contains(['\0', '\r', '\n']))
}

/// The statuses of a healthy answer: `200-299`, `200,204`, `200-299,401`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statuses(Vec<RangeInclusive<u16>>);

impl Default for Statuses {
    fn default() -> Self {
        Statuses(vec![200..=299])
    }
}

impl Statuses {
    pub fn parse(text: &str) -> Result<Statuses, Expected> {
        let status = |text: &str| text.trim().parse().ok().filter(|status| (100..=599).contains(status));
        let range = |part: &str| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            Some(status(first)?..=status(last)?).filter(|range| !range.is_empty())
        };
        text.split(',').map(range).collect::<Option<_>>().map(Statuses).ok_or("statuses: 200-299, or 200,204")
    }

    pub fn contain(&self, status: u16) -> bool {
        self.0.iter().any(|range| range.contains(&status))
    }
}

impl fmt::Display for Statuses {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, range) in self.0.iter().enumerate() {
            let comma = if place > 0 { "," } else { "" };
            match (range.start(), range.end()) {
                (first, last) if first == last => write!(out, "{comma}{first}")?,
                (first, last) => write!(out, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Random;
    use super::*;

    fn tcp(host: &str, port: u16) -> Address {
        Address::Tcp { host: host.to_owned(), port }
    }

    #[test]
    fn each_kind_of_need_has_its_effect() {
        use Effect::{Degraded, None as Nothing, NotReady};
        let states = [(None, false), (Some(false), false), (Some(true), true), (Some(false), true)];
        let effects = |when: When| states.map(|(well, seen)| when.effect(well, seen));
        assert_eq!(effects(When::Required), [NotReady, NotReady, Nothing, NotReady]);
        assert_eq!(effects(When::Startup), [NotReady, NotReady, Nothing, Degraded]);
        assert_eq!(effects(When::Degraded), [Nothing, Degraded, Nothing, Degraded]);
    }

    #[test]
    fn urls_of_postgres_are_read_as_libpq_reads_them() {
        let server = postgres("postgres://shop:p%40ss%2Fword@db.test:6543/orders?sslmode=require").unwrap();
        assert_eq!((&server.address, server.tls), (&tcp("db.test", 6543), true));
        assert_eq!((server.user.as_deref(), server.password.as_deref()), (Some("shop"), Some("p@ss/word")));
        assert_eq!(server.path, "orders");
        assert!(!format!("{server:?}").contains("p@ss"), "no dump shows a password");
        let plain = postgres("postgresql://postgres@127.0.0.1/postgres?sslmode=prefer").unwrap();
        assert_eq!((plain.address, plain.tls, plain.password), (tcp("127.0.0.1", 5432), false, None));
        let socket = postgres("postgres:///orders?host=/run/postgresql").unwrap();
        assert_eq!(socket.address, Address::Unix("/run/postgresql/.s.PGSQL.5432".into()));
        assert_eq!(postgres("postgres://[::1]:1/x").unwrap().address, tcp("::1", 1));
        for wrong in ["", "mysql://a/b", "postgres://a:b:c/x", "postgres://a b/x", "postgres://h/x?sslmode=maybe"] {
            assert!(postgres(wrong).is_err(), "{wrong}");
        }
        assert!(postgres("postgres://u:%zz@h/x").is_err() && postgres("postgres://u:a%00b@h/x").is_err());
    }

    #[test]
    fn kinds_of_need_are_known_by_their_words() {
        let kinds = [When::Required, When::Startup, When::Degraded];
        assert_eq!(kinds.map(When::label), ["required", "startup", "degraded"]);
    }

    #[test]
    fn a_dump_says_where_a_server_is_and_keeps_its_password() {
        let server = postgres("postgres://shop:secret@[::1]:6543/orders?sslmode=require").unwrap();
        assert_eq!(format!("{server:?}"), "[::1]:6543 TLS Some(\"shop\") orders");
        assert_eq!(format!("{:?}", redis("redis://:secret@cache.test/0").unwrap()), "cache.test:6379 None 0");
    }

    #[test]
    fn an_ipv6_address_stands_in_brackets() {
        assert_eq!(redis("redis://[::1]:6380").unwrap().address, tcp("::1", 6380));
        for wrong in ["redis://::1", "redis://::1:6380", "redis://[]:6380", "http://[]/", "http://::1/"] {
            assert!(redis(wrong).is_err() && http(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn urls_of_redis_and_http() {
        let server = redis("rediss://:secret@cache.test/0").unwrap();
        assert_eq!((server.address, server.tls, server.user), (tcp("cache.test", 6379), true, None));
        assert_eq!(server.password.as_deref(), Some("secret"));
        assert_eq!(redis("redis://127.0.0.1:6380").unwrap().address, tcp("127.0.0.1", 6380));
        assert!(redis("redis://").is_err() && redis("http://a").is_err() && redis("redis://a:b").is_err());
        let server = http("http://127.0.0.1:9200/_cluster/health?local=true").unwrap();
        assert_eq!((server.address, &*server.path), (tcp("127.0.0.1", 9200), "/_cluster/health?local=true"));
        let bare = http("https://search.test").unwrap();
        assert_eq!((bare.address, bare.tls, &*bare.path), (tcp("search.test", 443), true, "/"));
        assert_eq!(bare.authority, "search.test");
        for wrong in ["search.test", "http://", "http://user@a/", "http://a/#b", "http://a/\u{e4}", "ftp://a/"] {
            assert!(http(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn statuses_are_ranges_and_lists() {
        let parsed = Statuses::parse("200-299, 401").unwrap();
        assert_eq!([199, 200, 299, 300, 401].map(|status| parsed.contain(status)), [false, true, true, false, true]);
        assert_eq!(parsed.to_string(), "200-299,401");
        for wrong in ["", "200-", "299-200", "99", "600", "ok", "200;204"] {
            assert!(Statuses::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn no_text_makes_a_parser_panic() {
        let pieces = [
            "postgres", "redis", "http", "://", ":", "@", "/", "?", "=", "&", "%4", "%41", "[", "]", "\u{e4}", "a",
            "0", "",
        ];
        for seed in 0..10_000 {
            let mut random = Random::new(seed);
            let text: String = (0..random.below(12)).map(|_| random.pick(&pieces)).collect();
            let _ = (postgres(&text), redis(&text), http(&text), Statuses::parse(&text));
        }
    }
}
