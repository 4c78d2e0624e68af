//! What the kernel says of a process and its children.

use std::time::Duration;

/// Ticks of /proc/PID/stat per second; fixed by Linux for user space.
const TICKS: f64 = 100.0;

/// The process and all its descendants.
pub fn family(pid: u32) -> Vec<u32> {
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        next += 1;
        let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
        found.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
    }
    found
}

/// User and system time so far.
pub fn cpu(pid: u32) -> Duration {
    let ticks: f64 = family(pid).into_iter().filter_map(ticks).sum();
    Duration::from_secs_f64(ticks / TICKS)
}

fn ticks(pid: u32) -> Option<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    Some(fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?)
}

/// Resident memory.
pub fn resident_mib(pid: u32) -> f64 {
    family(pid).into_iter().filter_map(resident_kib).sum::<f64>() / 1024.0
}

fn resident_kib(pid: u32) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}
