//! What systemd is told and gives: readiness, reloads, the watchdog (sd_notify(3)) and listening sockets
//! (sd_listen_fds(3)).
//!
//! The protocol is one datagram of text, so that a library would be larger than this file. Sockets come through
//! `listenfd`, because taking a descriptor by its number needs unsafe code, which this crate forbids.
//! Every message is best effort: a service manager that cannot be reached must not stop the service.

use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use crate::serve::listener::Socket;
use crate::state::clock;

/// The way to the service manager, if there is one.
pub struct Manager {
    socket: Option<UnixDatagram>,
    /// Half of the watchdog's patience.
    pub heartbeat: Option<Duration>,
}

impl Manager {
    /// Reads `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID` through `env`.
    pub fn from(env: &dyn Fn(&str) -> Option<String>) -> Manager {
        let socket = env("NOTIFY_SOCKET").and_then(|path| connect(&path).ok());
        let ours = env("WATCHDOG_PID").is_none_or(|pid| pid == std::process::id().to_string());
        let patience = env("WATCHDOG_USEC").filter(|_| ours).and_then(|text| text.parse::<u64>().ok());
        let heartbeat = patience.filter(|micros| *micros >= 2).map(|micros| Duration::from_micros(micros / 2));
        Manager { socket, heartbeat }
    }

    pub fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\nSTATUS={status}"));
    }

    /// With the time it began, without which `Type=notify-reload` waits for ever.
    pub fn reloading(&self) {
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={}", clock::monotonic().as_micros()));
    }

    pub fn stopping(&self, status: &str) {
        self.tell(&format!("STOPPING=1\nSTATUS={status}"));
    }

    pub fn alive(&self) {
        self.tell("WATCHDOG=1");
    }

    fn tell(&self, message: &str) {
        if let Some(socket) = &self.socket {
            let _ = socket.send(message.as_bytes());
        }
    }
}

fn connect(path: &str) -> std::io::Result<UnixDatagram> {
    use std::os::linux::net::SocketAddrExt;
    let address = match path.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(path)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect_addr(&address)?;
    Ok(socket)
}

/// Listening sockets of socket activation, TCP and Unix; what is neither is left alone. To be called once, before any
/// thread is started: `listenfd` takes the variables out of the environment.
pub fn inherited() -> Vec<Socket> {
    let mut given = listenfd::ListenFd::from_env();
    let take = |index| {
        let tcp = given.take_tcp_listener(index).ok().flatten().map(Socket::Tcp);
        tcp.or_else(|| given.take_unix_listener(index).ok().flatten().map(Socket::Unix))
    };
    (0..INHERITED_MAX).filter_map(take).collect()
}

/// Sockets taken over at most; more listeners than this have other ways.
const INHERITED_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_reach_the_manager_and_the_watchdog_is_ours_only() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("notify");
        let manager = UnixDatagram::bind(&path).expect("a socket");
        let env = |pid: &str| {
            let (path, pid) = (path.display().to_string(), pid.to_owned());
            move |name: &str| match name {
                "NOTIFY_SOCKET" => Some(path.clone()),
                "WATCHDOG_USEC" => Some("3000000".to_owned()),
                "WATCHDOG_PID" => Some(pid.clone()),
                _ => None,
            }
        };
        let told = Manager::from(&env(&std::process::id().to_string()));
        assert_eq!(told.heartbeat, Some(Duration::from_millis(1500)));
        told.ready("serving");
        told.reloading();
        told.alive();
        let mut message = [0; 100];
        let mut next = || {
            let length = manager.recv(&mut message).expect("a message");
            String::from_utf8_lossy(&message[..length]).into_owned()
        };
        assert_eq!(next(), "READY=1\nSTATUS=serving");
        let reloading = next();
        let began = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").and_then(|text| text.parse::<u64>().ok());
        assert!(began.is_some_and(|micros| micros > 0), "{reloading:?}");
        assert_eq!(next(), "WATCHDOG=1");
        assert_eq!(Manager::from(&env("1")).heartbeat, None, "somebody else's watchdog");
        assert!(Manager::from(&|_| None).socket.is_none());
    }
}
