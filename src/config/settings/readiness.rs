//! What the app needs beside us.

use std::path::PathBuf;
use std::time::Duration;

use crate::core::dependency::{Server, Statuses, When};
use crate::core::units::Address;

/// One entry of `readiness.checks`.
#[derive(Clone, Debug, PartialEq)]
pub struct Dependency {
    pub name: String,
    pub kind: DependencyKind,
    pub when: When,
    pub interval: Duration,
    pub timeout: Duration,
}

#[derive(Clone, Debug, PartialEq)]
pub enum DependencyKind {
    Tcp(Address),
    Http { server: Server, expect: Statuses },
    Postgres(Server),
    Redis(Server),
    Dns(String),
    Disk { path: PathBuf, free_min: Free },
    CertificateFile { path: PathBuf, valid_min: Duration },
    CertificateOf { address: Address, authority: String, valid_min: Duration },
}

/// How much of a file system must be free.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Free {
    /// 0 to 1.
    Share(f64),
    Bytes(u64),
}
