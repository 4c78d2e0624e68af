//! A real PostgreSQL of its own: a fresh cluster in a directory of its own, on a port of its own.

use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;

use super::tools;

/// PostgreSQL refuses to run as root; this user owns nothing.
const NOBODY: u32 = 65534;

/// Who may log in how, by user.
const HBA: &str = "\
host  all by_md5 all md5
host  all by_password all password
host  all by_scram all scram-sha-256
host  all by_trust all trust
local all all scram-sha-256
";
const SQL: &str = "\
CREATE ROLE by_trust LOGIN;
CREATE ROLE by_scram LOGIN PASSWORD 'secretpassword';
CREATE ROLE by_password LOGIN PASSWORD 'secretpassword';
SET password_encryption = 'md5';
CREATE ROLE by_md5 LOGIN PASSWORD 'secretpassword';
";

pub struct Postgres {
    programs: PathBuf,
    directory: TempDir,
    pub port: u16,
    running: Option<Child>,
}

impl Postgres {
    /// A cluster that does not run yet; `None` when PostgreSQL is not installed.
    pub fn prepare() -> Option<Postgres> {
        let programs = programs()?;
        let directory = tempfile::Builder::new().prefix("outrigger-postgres-").tempdir().expect("a directory");
        let postgres = Postgres { programs, directory, port: free_port(), running: None };
        postgres.give(postgres.directory.path());
        let data = postgres.data();
        let mut initdb = postgres.command("initdb");
        initdb.args(["--no-sync", "-E", "UTF8", "--locale=C", "-A", "trust", "-U", "postgres", "-D"]).arg(&data);
        let made = tools::run(&mut initdb);
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let mut single = postgres.command("postgres");
        single.args(["--single", "-D"]).arg(&data).arg("postgres");
        let mut single = single.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("postgres --single");
        single.stdin.take().expect("piped").write_all(SQL.as_bytes()).expect("the roles");
        assert!(single.wait().expect("postgres --single").success());
        std::fs::write(data.join("pg_hba.conf"), HBA).expect("pg_hba.conf");
        Some(postgres)
    }

    /// A certificate and key (PEM) for connections that ask for TLS.
    pub fn tls(&self, certificate: &str, key: &str) {
        for (name, text) in [("server.crt", certificate), ("server.key", key)] {
            let file = self.data().join(name);
            std::fs::write(&file, text).expect("a TLS file");
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("permissions");
            self.give(&file);
        }
        std::fs::write(self.data().join("postgresql.auto.conf"), "ssl = on\n").expect("postgresql.auto.conf");
        self.give(&self.data().join("postgresql.auto.conf"));
    }

    pub fn start(&mut self) {
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.data()).args(["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]);
        command.arg("-c").arg(format!("port={}", self.port));
        command.arg("-c").arg(format!("unix_socket_directories={}", self.socket_directory().display()));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.running = Some(command.spawn().expect("postgres"));
        super::eventually("PostgreSQL listens", || std::net::TcpStream::connect(("127.0.0.1", self.port)).ok());
    }

    /// At once, as a crash would be, but without leaving processes behind.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.running.take() {
            let _ = kill_process(Pid::from_child(&child), Signal::QUIT);
            let _ = child.wait();
        }
    }

    pub fn url(&self, user: &str, rest: &str) -> String {
        format!("postgres://{user}@127.0.0.1:{}/postgres{rest}", self.port)
    }

    pub fn socket_directory(&self) -> &Path {
        self.directory.path()
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn command(&self, program: &str) -> Command {
        let program = self.programs.join(program);
        if !geteuid().is_root() {
            return Command::new(program);
        }
        let mut command = Command::new("setpriv");
        command.args([format!("--reuid={NOBODY}"), format!("--regid={NOBODY}"), "--clear-groups".to_owned()]);
        command.arg(program).current_dir("/");
        command
    }

    fn give(&self, path: &Path) {
        if geteuid().is_root() {
            chown(path, Some(NOBODY), Some(NOBODY)).expect("chown");
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Debian keeps the server's programs off the path.
fn programs() -> Option<PathBuf> {
    let debian = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places: Vec<PathBuf> =
        debian.map(|version| version.path().join("bin")).chain(std::env::split_paths(&path)).collect();
    let found = places.into_iter().find(|place| place.join("initdb").is_file() && place.join("postgres").is_file());
    if found.is_none() {
        tools::missing("postgres");
    }
    found
}

/// Free a moment ago: neither PostgreSQL nor Redis tells which port it took when asked for any.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port()
}
