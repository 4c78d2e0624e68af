//! What the kernel says of a process and its children, and where threads may run.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_setaffinity};

/// Ticks of /proc/PID/stat per second; fixed by Linux for user space.
const TICKS: f64 = 100.0;

/// Processor time so far: all of it as the scheduler counts it, to the nanosecond, and the user's share in ticks.
#[derive(Clone, Copy, Default)]
pub struct Cpu {
    pub total: Duration,
    pub user: Duration,
}

impl Cpu {
    pub fn since(self, before: Cpu) -> Cpu {
        Cpu { total: self.total.saturating_sub(before.total), user: self.user.saturating_sub(before.user) }
    }
}

/// The process and all its descendants.
pub fn family(pid: u32) -> Vec<u32> {
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        next += 1;
        for task in tasks(parent) {
            let children = std::fs::read_to_string(task.join("children")).unwrap_or_default();
            found.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        }
    }
    found
}

/// What the whole family has used so far. A thread that ended in between is missing; proxies keep theirs.
pub fn cpu(pid: u32) -> Cpu {
    let family = family(pid);
    let tasks = family.iter().flat_map(|pid| tasks(*pid));
    Cpu {
        total: tasks.filter_map(|task| scheduled(&task)).sum(),
        user: family.iter().filter_map(|pid| user(*pid)).sum(),
    }
}

fn tasks(pid: u32) -> Vec<PathBuf> {
    let found = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    found.map(|task| task.path()).collect()
}

fn scheduled(task: &Path) -> Option<Duration> {
    let said = std::fs::read_to_string(task.join("schedstat")).ok()?;
    said.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}

fn user(pid: u32) -> Option<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let ticks: f64 = stat.rsplit_once(')')?.1.split_whitespace().nth(11)?.parse().ok()?;
    Some(Duration::from_secs_f64(ticks / TICKS))
}

/// Resident memory of the whole family.
pub fn resident_mib(pid: u32) -> f64 {
    family(pid).into_iter().filter_map(resident_kib).sum::<f64>() / 1024.0
}

fn resident_kib(pid: u32) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Lets the calling thread, and what it starts from now on, run on these processors only.
pub fn pin(processors: impl IntoIterator<Item = usize>) {
    let mut set = CpuSet::new();
    processors.into_iter().for_each(|processor| set.set(processor));
    let _ = sched_setaffinity(None, &set); // not allowed: the kernel places it, and the figures are noisier
}

/// As many open files as the system lets us have, for us and for what we start.
pub fn raise_open_files(wanted: u64) {
    let raised = Rlimit { current: Some(wanted), maximum: Some(wanted) };
    if getrlimit(Resource::Nofile).maximum.is_some_and(|maximum| maximum < wanted)
        && setrlimit(Resource::Nofile, raised).is_ok()
    {
        return;
    }
    let maximum = getrlimit(Resource::Nofile).maximum;
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

/// Open files that we and what we start may have.
pub fn open_files() -> Option<u64> {
    getrlimit(Resource::Nofile).maximum
}

/// Counts the system calls of a family with `perf`, which costs it far less than `strace` would.
pub struct SystemCalls(Child);

impl SystemCalls {
    /// None where there is no `perf` or it may not count.
    pub fn watch(pid: u32) -> Option<SystemCalls> {
        let pids: Vec<String> = family(pid).iter().map(u32::to_string).collect();
        let mut perf = Command::new("perf")
            .args(["stat", "-x", ",", "-e", "raw_syscalls:sys_enter", "-p", &pids.join(",")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .ok()?;
        std::thread::sleep(Duration::from_millis(400)); // until it is attached; a bench may wait
        match perf.try_wait() {
            Ok(None) => Some(SystemCalls(perf)),
            Ok(Some(_)) | Err(_) => None,
        }
    }

    pub fn count(mut self) -> Option<f64> {
        let _ = Command::new("kill").args(["-INT", &self.0.id().to_string()]).status();
        let mut said = String::new();
        self.0.stderr.take()?.read_to_string(&mut said).ok()?;
        let _ = self.0.wait();
        said.lines().find(|line| line.contains("sys_enter"))?.split(',').next()?.parse().ok()
    }
}
