//! Small quantities that carry their unit in their type, shared by configuration, plan and policies.

use std::time::Duration;

/// A share between 0 and 1 (`20%` is 0.2).
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Ratio(pub f64);

/// A number of events per period (`100/s`, `10/m`, `5/h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Events, at least 1.
    pub count: u64,
    /// The period they are counted over: one second, minute or hour.
    pub per: Duration,
}

/// Where something listens or is reached.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// A host name or literal IP address (without brackets) and a port.
    Tcp { host: String, port: u16 },
    /// A Unix domain socket at this path.
    Unix(std::path::PathBuf),
}

impl std::fmt::Display for Address {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Address::Tcp { host, port } if host.contains(':') => write!(out, "[{host}]:{port}"),
            Address::Tcp { host, port } => write!(out, "{host}:{port}"),
            Address::Unix(path) => write!(out, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_as_it_is_written() {
        let tcp = |host: &str| Address::Tcp { host: host.to_owned(), port: 80 }.to_string();
        assert_eq!([tcp("app.test"), tcp("::1")], ["app.test:80", "[::1]:80"]);
        assert_eq!(Address::Unix("/run/app.sock".into()).to_string(), "unix:/run/app.sock");
    }
}
