//! Looks after memory: what this process holds against what it may hold, which is the cgroup's limit (of a container
//! or a unit) or `ulimit -m`, whichever is less. What is decided is `core::pressure`'s; who is let in, the listeners'.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use crate::core::pressure::{LOOK, Pressure};
use crate::proxy::Shared;

/// Looks again and again; without a limit, once.
pub async fn watch(shared: Arc<Shared>) {
    let mut pressure = Pressure::default();
    loop {
        let (Some(limit), Some(used)) = (limit(), used()) else { return };
        let lifecycle = &shared.states.lifecycle;
        let before = pressure.connections_max();
        pressure.look(used, limit, lifecycle.connections());
        lifecycle.memory(limit, pressure.connections_max());
        let mebibytes = |bytes: u64| bytes / (1 << 20);
        let told = match (before, pressure.connections_max()) {
            (None, Some(max)) => format!(
                "{} of {} MiB are in use: at most {max} connections until it is less",
                mebibytes(used),
                mebibytes(limit)
            ),
            (Some(_), None) => {
                format!("{} of {} MiB are in use: all are let in again", mebibytes(used), mebibytes(limit))
            }
            (None, None) | (Some(_), Some(_)) => String::new(),
        };
        if !told.is_empty() {
            shared.states.journal.record("overload", "memory", told);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Resident bytes of this process.
fn used() -> Option<u64> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// `None` when there is none.
fn limit() -> Option<u64> {
    let ulimit = rustix::process::getrlimit(rustix::process::Resource::Rss).current;
    cgroup().into_iter().chain(ulimit).min().filter(|limit| *limit > 0)
}

/// The least limit on the way from our cgroup (version 2) to the root.
fn cgroup() -> Option<u64> {
    let ours = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let path = ours.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    let folder = Path::new("/sys/fs/cgroup").join(path);
    let limits = folder.ancestors().take_while(|folder| folder.starts_with("/sys/fs/cgroup"));
    limits.filter_map(|folder| fs::read_to_string(folder.join("memory.max")).ok()?.trim().parse().ok()).min()
}
