//! curl as a client: everything it saw, to the last byte.

use std::process::Command;

use super::message::Head;
use super::tools;

#[derive(Clone, Debug)]
pub struct Seen {
    /// `1`, `1.1` or `2`, as curl names it.
    pub version: String,
    pub status: u16,
    /// Names in lower case.
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Whether a 100 came before.
    pub continued: bool,
}

impl Seen {
    pub fn get(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Asks for a URL; any certificate will do.
pub fn curl(arguments: &[&str], url: &str) -> Seen {
    let directory = tempfile::tempdir().expect("a directory");
    let (head, body) = (directory.path().join("head"), directory.path().join("body"));
    let mut command = Command::new("curl");
    command.args(["-sSk", "--noproxy", "*", "--max-time", "30", "-w", "%{http_version} %{http_code}"]);
    command.arg("-D").arg(&head).arg("-o").arg(&body).args(arguments).arg(url);
    let said = tools::said(&mut command);
    let (version, status) = said.trim().split_once(' ').unwrap_or_else(|| panic!("not said by curl: {said:?}"));
    let heads = heads(&std::fs::read(&head).expect("the heads"));
    let last = heads.last().unwrap_or_else(|| panic!("no head for {url}"));
    let lower = |(name, value): &(String, String)| (name.to_ascii_lowercase(), value.clone());
    Seen {
        version: version.to_owned(),
        status: status.parse().expect("a status"),
        fields: last.fields.iter().map(lower).collect(),
        // With -I, curl writes the head as if it were a body.
        body: if arguments.contains(&"-I") { Vec::new() } else { std::fs::read(&body).unwrap_or_default() },
        continued: heads.iter().any(|head| head.word(1) == "100"),
    }
}

fn heads(mut bytes: &[u8]) -> Vec<Head> {
    let mut heads = Vec::new();
    while let Some((head, used)) = Head::parse(bytes) {
        heads.push(head);
        bytes = &bytes[used..];
    }
    heads
}
