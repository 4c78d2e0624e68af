//! The app as our child: `outrigger run … -- COMMAND`. One process owns the order of starting and stopping, so the
//! usual races of two containers do not exist.
//!
//! What it decides
//! - The child gets `PORT` (the port of its upstream's endpoint) and our standard output and error. It does not get
//!   what is meant for us alone: the systemd sockets and notify address, and the admin token.
//! - It runs in a process group of its own, so that Ctrl-C in a terminal reaches only us and the drain comes before
//!   the app's SIGTERM. A background group may not read a terminal: standard input is passed on unless it is one.
//! - SIGTERM goes to the child alone, as it would in a container of its own; SIGKILL, after the timeout, to its group.
//! - SIGUSR1 and SIGUSR2 are passed on. SIGHUP is not: it reloads our configuration.
//! - As PID 1 we reap every orphan. Otherwise only the child is waited for, because other children are not ours.
//!
//! Waiting is done here and not by `tokio::process`: as PID 1 one `wait` must see all children, and two reapers would
//! steal each other's. What it cannot do: tell the child to die should we be killed with SIGKILL, which needs unsafe
//! code between fork and exec.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::config::settings::Settings;
use crate::core::units::Address;

/// Ours alone; the app must not act on them.
const NOT_FOR_THE_APP: [&str; 5] =
    ["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "NOTIFY_SOCKET", "OUTRIGGER_ADMIN_TOKEN"];

/// How the child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Exited(i32),
    Signaled(i32),
}

impl Ended {
    /// What a shell would say: the child's code, or 128 and the signal.
    pub fn code(self) -> u8 {
        match self {
            // The kernel keeps eight bits of an exit code.
            Ended::Exited(code) => u8::try_from(code & 0xff).unwrap_or(1),
            Ended::Signaled(signal) => u8::try_from((128 + signal) & 0xff).unwrap_or(137),
        }
    }

    pub fn words(self) -> String {
        match self {
            Ended::Exited(0) => "the app ended by itself with code 0".to_owned(),
            Ended::Exited(code) => format!("the app ended with code {code}"),
            Ended::Signaled(signal) => format!("the app was killed by {}", signal_name(signal)),
        }
    }
}

/// Why the child could not be started.
#[derive(Debug)]
pub struct WrapProblem {
    pub words: String,
    /// What a shell would exit with: 127 not found, 126 not executable.
    pub code: u8,
}

/// The running child. Dropping it leaves the process alone; `stop` is the way to end it.
pub struct Child {
    pid: Pid,
    ended: watch::Receiver<Option<Ended>>,
    keeper: tokio::task::JoinHandle<()>,
}

impl Child {
    /// Starts the command; needs a tokio runtime with signals.
    pub fn spawn(command: &[OsString], port: Option<u16>) -> Result<Child, WrapProblem> {
        let orphans = rustix::process::getpid().is_init();
        let Some((program, arguments)) = command.split_first() else {
            return Err(WrapProblem { words: "there is no command after `--`".to_owned(), code: 2 });
        };
        // Listening for SIGCHLD first: a child that ends at once must not be missed.
        let signals = Signals::listen()
            .map_err(|cause| WrapProblem { words: format!("cannot listen for signals: {cause}"), code: 2 })?;
        let mut child = Command::new(program);
        child.args(arguments).process_group(0);
        for name in NOT_FOR_THE_APP {
            child.env_remove(name);
        }
        if let Some(port) = port {
            child.env("PORT", port.to_string());
        }
        if std::io::stdin().is_terminal() {
            child.stdin(Stdio::null());
        }
        let child = child.spawn().map_err(|cause| not_started(program, &cause))?;
        let pid = Pid::from_child(&child);
        let (sender, ended) = watch::channel(None);
        let keeper = tokio::spawn(keep(pid, orphans, signals, sender));
        Ok(Child { pid, ended, keeper })
    }

    pub fn id(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Waits for the end. May be cancelled and asked again.
    pub async fn exited(&mut self) -> Ended {
        loop {
            if let Some(ended) = *self.ended.borrow_and_update() {
                return ended;
            }
            if self.ended.changed().await.is_err() {
                // The keeper is gone, which happens only with its runtime: nothing is known of the child any more.
                return Ended::Signaled(Signal::KILL.as_raw());
            }
        }
    }

    /// Asks the child to end, and kills its group when it has not after `timeout`.
    pub async fn stop(&mut self, timeout: Duration) -> Ended {
        self.send(Signal::TERM);
        if let Ok(ended) = tokio::time::timeout(timeout, self.exited()).await {
            return ended;
        }
        tracing::warn!(pid = self.id(), timeout = ?timeout, "the app did not end after SIGTERM: killing it");
        if self.running() {
            // An error means that the group is gone already.
            let _ = rustix::process::kill_process_group(self.pid, Signal::KILL);
        }
        self.exited().await
    }

    fn running(&self) -> bool {
        self.ended.borrow().is_none()
    }

    fn send(&self, signal: Signal) {
        // Not after it was reaped: the number may be another process's by now.
        if self.running() {
            let _ = rustix::process::kill_process(self.pid, signal); // gone is as good as told
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

/// The port given to the app: that of the first upstream endpoint on this machine.
pub fn port_for(settings: &Settings) -> Option<u16> {
    let endpoints = settings.upstreams.iter().flat_map(|upstream| &upstream.endpoints);
    endpoints.filter(|endpoint| !endpoint.tls).find_map(|endpoint| match &endpoint.address {
        Address::Tcp { host, port } if is_local(host) => Some(*port),
        Address::Tcp { .. } | Address::Unix(_) => None,
    })
}

fn is_local(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// The signals of a parent.
struct Signals {
    child: tokio::signal::unix::Signal,
    first: tokio::signal::unix::Signal,
    second: tokio::signal::unix::Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Signals> {
        Ok(Signals {
            child: signal(SignalKind::child())?,
            first: signal(SignalKind::user_defined1())?,
            second: signal(SignalKind::user_defined2())?,
        })
    }
}

/// Reaps and forwards for as long as the process lives.
async fn keep(pid: Pid, orphans: bool, mut signals: Signals, ended: watch::Sender<Option<Ended>>) {
    loop {
        if ended.borrow().is_none() || orphans {
            reap(pid, orphans, &ended);
        }
        let forward = tokio::select! {
            _ = signals.child.recv() => None,
            _ = signals.first.recv() => Some(Signal::USR1),
            _ = signals.second.recv() => Some(Signal::USR2),
        };
        if let Some(forward) = forward
            && ended.borrow().is_none()
        {
            let _ = rustix::process::kill_process(pid, forward); // gone is as good as told
        }
    }
}

/// Takes every exit status there is: one SIGCHLD may stand for many children.
fn reap(pid: Pid, orphans: bool, ended: &watch::Sender<Option<Ended>>) {
    loop {
        let waited = if orphans {
            rustix::process::wait(WaitOptions::NOHANG)
        } else {
            rustix::process::waitpid(Some(pid), WaitOptions::NOHANG)
        };
        match waited {
            Ok(Some((dead, status))) if dead == pid => {
                if let Some(end) = end(status) {
                    ended.send_replace(Some(end));
                }
                if !orphans {
                    return;
                }
            }
            Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
            // Nobody has ended, or there is nobody.
            Ok(None) | Err(_) => return,
        }
    }
}

fn end(status: WaitStatus) -> Option<Ended> {
    let exited = status.exit_status().map(Ended::Exited);
    exited.or_else(|| status.terminating_signal().map(Ended::Signaled))
}

fn not_started(program: &OsString, cause: &std::io::Error) -> WrapProblem {
    let program = program.to_string_lossy();
    let (words, code) = match cause.kind() {
        std::io::ErrorKind::NotFound => (format!("cannot start the app: there is no command \"{program}\""), 127),
        std::io::ErrorKind::PermissionDenied => {
            (format!("cannot start the app: \"{program}\" may not be executed"), 126)
        }
        _ => (format!("cannot start the app \"{program}\": {cause}"), 126),
    };
    WrapProblem { words, code }
}

fn signal_name(number: i32) -> String {
    let name = match Signal::from_named_raw(number) {
        Some(Signal::KILL) => "SIGKILL (out of memory, perhaps)",
        Some(Signal::TERM) => "SIGTERM",
        Some(Signal::INT) => "SIGINT",
        Some(Signal::HUP) => "SIGHUP",
        Some(Signal::QUIT) => "SIGQUIT",
        Some(Signal::ABORT) => "SIGABRT",
        Some(Signal::SEGV) => "SIGSEGV (a crash)",
        Some(Signal::BUS) => "SIGBUS (a crash)",
        Some(Signal::ILL) => "SIGILL (a crash)",
        Some(Signal::FPE) => "SIGFPE (a crash)",
        Some(Signal::PIPE) => "SIGPIPE",
        Some(_) | None => return format!("signal {number}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    const SOON: Duration = Duration::from_secs(20);

    /// Signals are the whole process's, so one test at a time has a child.
    static ONE_AT_A_TIME: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

    fn shell(script: &str) -> Vec<OsString> {
        ["sh", "-c", script].iter().map(OsString::from).collect()
    }

    /// Runs a script that writes what it has to say into the file `$0` names, and gives back how it ended and the text.
    async fn run(script: &str, port: Option<u16>) -> (Ended, String) {
        let _alone = ONE_AT_A_TIME.lock().await;
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("said");
        let mut command = shell(script);
        command.push(file.clone().into());
        let mut child = Child::spawn(&command, port).unwrap();
        let ended = tokio::time::timeout(SOON, child.exited()).await.unwrap();
        (ended, std::fs::read_to_string(file).unwrap_or_default())
    }

    /// A named pipe: reading it waits until the child has opened and closed it.
    fn pipe(directory: &Path) -> std::path::PathBuf {
        let path = directory.join("pipe");
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        path
    }

    async fn hear(pipe: &Path) -> String {
        let reading = tokio::fs::read_to_string(pipe);
        tokio::time::timeout(SOON, reading).await.unwrap().unwrap()
    }

    #[tokio::test]
    async fn the_code_of_the_child_is_ours() {
        assert_eq!(run("exit 3", None).await.0, Ended::Exited(3));
        assert_eq!(Ended::Exited(3).code(), 3);
        assert_eq!(run("kill -9 $$", None).await.0, Ended::Signaled(9));
        assert_eq!(Ended::Signaled(9).code(), 137);
        assert_eq!(Ended::Signaled(15).code(), 143);
    }

    #[tokio::test]
    async fn the_child_is_told_its_port_and_nothing_that_is_ours() {
        let (ended, said) = run("echo \"$PORT ${NOTIFY_SOCKET-unset} ${LISTEN_FDS-unset}\" > $0", Some(3999)).await;
        assert_eq!((ended, said.as_str()), (Ended::Exited(0), "3999 unset unset\n"));
    }

    #[tokio::test]
    async fn a_command_that_does_not_exist_is_named() {
        let problem = Child::spawn(&[OsString::from("/no/such/app")], None).err().unwrap();
        assert_eq!(problem.code, 127);
        assert_eq!(problem.words, "cannot start the app: there is no command \"/no/such/app\"");
        assert_eq!(Child::spawn(&[], None).err().unwrap().code, 2);
    }

    // Goal: the child's own shutdown runs on SIGTERM, and asking twice gives the same answer.
    #[tokio::test]
    async fn the_child_is_asked_before_it_is_killed() {
        let _alone = ONE_AT_A_TIME.lock().await;
        let directory = tempfile::tempdir().unwrap();
        let pipe = pipe(directory.path());
        let mut command = shell("trap 'exit 7' TERM; echo up > $0; while :; do sleep 0.01; done");
        command.push(pipe.clone().into());
        let mut child = Child::spawn(&command, None).unwrap();
        assert_eq!(hear(&pipe).await, "up\n");
        assert_eq!(child.stop(SOON).await, Ended::Exited(7));
        assert_eq!(child.exited().await, Ended::Exited(7));
        assert_eq!(child.stop(SOON).await, Ended::Exited(7));
    }

    // Goal: a child that ignores SIGTERM, and what it started, are killed after the timeout.
    #[tokio::test]
    async fn a_child_that_does_not_end_is_killed_with_its_group() {
        let _alone = ONE_AT_A_TIME.lock().await;
        let directory = tempfile::tempdir().unwrap();
        let pipe = pipe(directory.path());
        let mut command = shell("trap '' TERM; sleep 1000 & echo $! > $0; wait; while :; do sleep 0.01; done");
        command.push(pipe.clone().into());
        let mut child = Child::spawn(&command, None).unwrap();
        let grandchild: i32 = hear(&pipe).await.trim().parse().unwrap();
        assert_eq!(child.stop(Duration::from_millis(50)).await, Ended::Signaled(9));
        let grandchild = Pid::from_raw(grandchild).unwrap();
        let gone = async {
            while alive(grandchild) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(SOON, gone).await.unwrap();
    }

    /// A killed orphan stays a zombie where nobody reaps it, which is as good as gone.
    fn alive(pid: Pid) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
        !stat.is_empty() && !stat.contains(") Z ")
    }

    #[tokio::test]
    async fn a_user_signal_is_passed_on() {
        let _alone = ONE_AT_A_TIME.lock().await;
        let directory = tempfile::tempdir().unwrap();
        let pipe = pipe(directory.path());
        let mut command = shell("trap 'exit 9' USR1; echo up > $0; while :; do sleep 0.01; done");
        command.push(pipe.clone().into());
        let mut child = Child::spawn(&command, None).unwrap();
        assert_eq!(hear(&pipe).await, "up\n");
        rustix::process::kill_process(rustix::process::getpid(), Signal::USR1).unwrap();
        assert_eq!(tokio::time::timeout(SOON, child.exited()).await.unwrap(), Ended::Exited(9));
    }
}
