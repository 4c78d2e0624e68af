//! A grpcio server and a grpcio client: the four kinds of call, metadata, trailers and errors, directly and through.

use std::path::PathBuf;
use std::process::Command;

use crate::support::eventually;
use crate::support::tools::{self, Running};
use crate::{Stand, with_tls};

fn grpc() -> Option<(PathBuf, Running)> {
    let python = tools::python(&["grpc"])?;
    let app = Running::start(Command::new(&python).arg(tools::script("grpc_app.py")).arg("serve"));
    Some((python, app))
}

fn call(python: &PathBuf, arguments: &[&str]) -> String {
    tools::said(Command::new(python).arg(tools::script("grpc_app.py")).arg("call").args(arguments))
}

#[test]
fn every_kind_of_call_is_the_same_plain_and_over_tls() {
    let Some((python, app)) = grpc() else { return };
    let stand = Stand::new(app);
    let direct = call(&python, &[&stand.direct.to_string()]);
    let through = call(&python, &[&stand.web().to_string()]);
    assert_eq!(through, direct);
    let (secure, certificate) = with_tls(stand.direct);
    let root = certificate.display().to_string();
    assert_eq!(call(&python, &[&secure.web().to_string(), &root]), direct);
    for told in ["NOT_FOUND", "no such thing: é %", "it is not there", "DATA_LOSS", "x-last", "UNIMPLEMENTED"] {
        assert!(through.contains(told), "{told}: {through}");
    }
    assert_eq!(through.lines().count(), 10, "{through}");
    // The call whose client gave up ended at the app each time.
    let ended = |text: String| text.matches("app: the call that hung has ended").count();
    eventually("the app is told", || (ended(stand.app.stdout.text()) == 3).then_some(()));
}
