//! Switches of the file: maintenance, and flags.

use std::time::Duration;

use ipnet::IpNet;

use crate::core::switch::Position;

/// The service's own switch, and what is said while one is thrown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Maintenance {
    pub mode: Position,
    /// For the page and the problem's detail.
    pub message: Option<String>,
    /// Clients that pass.
    pub allow: Vec<IpNet>,
    /// The Retry-After of what is refused; sooner when a command ends sooner.
    pub retry_after: Duration,
}

/// One flag; routes that name it answer only while it is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flag {
    pub name: String,
    pub on: bool,
}
