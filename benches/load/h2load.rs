//! Load by nghttp2's `h2load`, where it is installed: it spends less of the clients' processor on a request than our own
//! client does, so the proxy is the one that is saturated. It keeps its connections and sends no bodies; what needs
//! either is left to our own.

use std::process::{Command, Stdio};

use super::generator::{Closed, Load};
use super::scenario::{Scenario, Wire};

pub fn is_installed() -> bool {
    let asked = Command::new("h2load").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    asked.is_ok_and(|status| status.success())
}

pub fn can(scenario: &Scenario) -> bool {
    !scenario.new_connection && scenario.upload == 0 && !matches!(scenario.wire, Wire::WebSocket | Wire::Grpc)
}

/// None when it cannot say how many requests went well.
pub fn saturate(load: &Load<'_>) -> Option<Closed> {
    let Scenario { connections, streams, path, wire, .. } = load.scenario;
    let scheme = match wire {
        Wire::Plain | Wire::H2c | Wire::WebSocket | Wire::Grpc => "http",
        Wire::Tls | Wire::H2Tls => "https",
    };
    let out = Command::new("h2load")
        .args(["-c", &connections.to_string(), "-m", &streams.to_string(), "-t", "1"])
        .args(["-D", &load.duration.as_secs().max(1).to_string()])
        .args((!load.scenario.is_http2()).then_some("--h1"))
        .arg(format!("--connect-to=127.0.0.1:{}", load.target.port)) // by name, as our own client asks
        .arg(format!("{scheme}://bench.example:{}{path}", load.target.port))
        .stdin(Stdio::null())
        .output()
        .ok()?;
    let said = String::from_utf8_lossy(&out.stdout);
    // requests: 1000 total, 1000 started, 1000 done, 1000 succeeded, 0 failed, 0 errored, 0 timeout
    let line = said.lines().find(|line| line.starts_with("requests:"))?;
    let count = |word: &str| -> Option<u64> {
        let part = line.split([',', ':']).find(|part| part.ends_with(word))?;
        part.split_whitespace().next()?.parse().ok()
    };
    let requests = count("succeeded")?;
    let errors = count("failed")? + count("errored")? + count("timeout")?;
    let bytes = requests * super::app::size(path) as u64;
    Some(Closed { requests, errors, bytes, took: load.duration })
}
