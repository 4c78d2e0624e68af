//! A WebSocket server and a client of the `websockets` library: messages, compression, pings, refusals and goodbyes.

use std::path::PathBuf;
use std::process::Command;

use crate::support::tools::{self, Running};
use crate::{Stand, with_tls};

fn websockets() -> Option<(PathBuf, Running)> {
    let python = tools::python(&["websockets"])?;
    let app = Running::start(Command::new(&python).arg(tools::script("websocket_app.py")).arg("serve"));
    Some((python, app))
}

fn talk(python: &PathBuf, url: &str) -> String {
    tools::said(Command::new(python).arg(tools::script("websocket_app.py")).args(["talk", url]))
}

#[test]
fn every_conversation_is_the_same_plain_and_over_tls() {
    let Some((python, app)) = websockets() else { return };
    let stand = Stand::new(app);
    let direct = talk(&python, &format!("ws://{}", stand.direct));
    let through = talk(&python, &format!("ws://{}", stand.web()));
    assert_eq!(through, direct);
    let (secure, _) = with_tls(stand.direct);
    assert_eq!(talk(&python, &format!("wss://{}", secure.web())), direct);
    for told in ["agreed chat.v2 ['PerMessageDeflate']", "in order True", "goodbye 4001 as agreed", "refused 403"] {
        assert!(through.contains(told), "{told}: {through}");
    }
    assert!(!through.contains("False"), "{through}");
}
