//! A Python ASGI app on uvicorn.

use std::process::Command;

use crate::support::curl::curl;
use crate::support::tools::{self, Running};
use crate::{Stand, bytes, digest, node};

pub fn uvicorn() -> Option<Running> {
    let python = tools::python(&["uvicorn", "websockets"]).filter(|_| tools::have_tool("curl"))?;
    Some(Running::start(Command::new(python).arg(tools::script("asgi_app.py"))))
}

#[test]
fn curl_sees_the_same() {
    let Some(app) = uvicorn() else { return };
    let stand = Stand::new(app);
    let asked: &[(&[&str], &str)] = &[
        (&[], "/plain?a=b"),
        (&["-I"], "/plain"),
        (&["-d", "body"], "/echo"),
        (&["-X", "PUT", "-H", "Transfer-Encoding: chunked", "-d", "body"], "/echo"),
        (&[], "/missing"),
        (&[], "/raise"),
        (&[], "/page"),
        (&[], "/download?bytes=5000000"),
    ];
    for (arguments, path) in asked {
        stand.same(arguments, path);
    }
}

#[test]
fn large_bodies_arrive_to_the_last_byte() {
    let Some(app) = uvicorn() else { return };
    let stand = Stand::new(app);
    let directory = tempfile::tempdir().expect("a directory");
    let (file, body) = (directory.path().join("upload"), bytes(5_000_000));
    std::fs::write(&file, &body).expect("a file");
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        let upload = curl(&[version, "-T", &file.display().to_string()], &format!("http://{}/digest", stand.web()));
        assert_eq!((upload.status, upload.text()), (200, digest(&body)), "{version}");
        let download = curl(&[version], &format!("http://{}/download?bytes=5000000", stand.web()));
        assert_eq!((download.status, download.body.len()), (200, 5_000_000), "{version}");
    }
}

#[test]
fn each_event_comes_before_the_next_is_made() {
    let Some(app) = uvicorn() else { return };
    let stand = Stand::new(app);
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        node::events(&stand, version);
    }
}
