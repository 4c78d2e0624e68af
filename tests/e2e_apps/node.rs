//! Node's own HTTP server as the app.

use std::process::Command;

use crate::support::curl::curl;
use crate::support::tools::{self, Running};
use crate::support::{Outrigger, config, wire};
use crate::{Stand, bytes, digest, same, with_tls};

fn node() -> Option<Running> {
    let there = tools::have_tool("node") && tools::have_tool("curl");
    there.then(|| {
        Running::start(Command::new("node").arg(tools::script("server.js")).env_remove("PORT").env_remove("HOST"))
    })
}

#[test]
fn curl_sees_the_same() {
    let Some(app) = node() else { return };
    let stand = Stand::new(app);
    let asked: &[(&[&str], &str)] = &[
        (&[], "/a/b?c=d&e=%2F"),
        (&[], "/chunked"),
        (&[], "/cookies"),
        (&["-b", "a=1; b=2"], "/cookies"),
        (&[], "/missing"),
        (&[], "/broken"),
        (&[], "/empty"),
        (&[], "/moved"),
        (&["-I"], "/asked"),
        (&["-d", "form=1"], "/echo"),
        (&["-F", "name=value", "-H", "Content-Type: multipart/form-data; boundary=b"], "/asked?form"),
        (&["-X", "PATCH", "-d", "x", "-H", "Content-Type: a/b"], "/echo"),
        (&["-X", "DELETE"], "/thing/1"),
        (&[], "/asked?a=b"),
        (&["-H", "Transfer-Encoding: chunked", "-d", "in chunks"], "/echo"),
    ];
    for (arguments, path) in asked {
        stand.same(&[&["-H", "Host: app.example"], *arguments].concat(), path);
    }
}

#[test]
fn early_hints_pass_but_not_over_http_2() {
    let Some(app) = node() else { return };
    let direct = app.address();
    let hints = |address| {
        let answer = wire::get(address, "/hinted");
        let links: Vec<String> = answer.interim.iter().filter_map(|hint| hint.get("link").map(str::to_owned)).collect();
        (answer.status, answer.text(), links)
    };
    let outrigger = Outrigger::run(config(direct, ""));
    assert_eq!(hints(outrigger.web()), hints(direct));
    assert_eq!(hints(direct).2, ["</a.css>; rel=preload"]);
    let (outrigger, _) = with_tls(direct);
    for version in ["--http1.1", "--http2"] {
        let seen = curl(&[version], &format!("https://{}/hinted", outrigger.web()));
        assert_eq!((seen.status, seen.text().as_str(), seen.get("link")), (200, "page", None), "{version}");
    }
}

#[test]
fn tls_with_either_protocol_is_the_same_as_none() {
    let Some(app) = node() else { return };
    let direct = app.address();
    let (outrigger, _) = with_tls(direct);
    for (version, shown) in [("--http1.1", "1.1"), ("--http2", "2")] {
        for path in ["/a?b=c", "/chunked", "/cookies", "/missing", "/empty"] {
            let with = curl(&[version], &format!("https://{}{path}", outrigger.web()));
            assert_eq!(with.version, shown);
            same(&curl(&[], &format!("http://{direct}{path}")), &with, &format!("{version} {path}"));
            assert!(with.get("strict-transport-security").is_some(), "{with:?}");
        }
    }
}

#[test]
fn an_upload_arrives_to_the_last_byte() {
    let Some(app) = node() else { return };
    let stand = Stand::new(app);
    let directory = tempfile::tempdir().expect("a directory");
    let (file, body) = (directory.path().join("upload"), bytes(8_000_000));
    std::fs::write(&file, &body).expect("a file");
    let (file, digest) = (file.display().to_string(), digest(&body));
    let url = format!("http://{}/digest", stand.web());
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        for more in [&[][..], &["-H", "Transfer-Encoding: chunked"]] {
            let with = curl(&[&[version, "-T", &file], more].concat(), &url);
            assert_eq!((with.status, with.text()), (200, digest.clone()), "{version} {more:?}");
        }
    }
    // Back again.
    let echoed = curl(&["-T", &file], &format!("http://{}/echo", stand.web()));
    assert!(echoed.body == body, "{} bytes came back", echoed.body.len());
}

#[test]
fn curl_is_told_to_continue() {
    let Some(app) = node() else { return };
    let stand = Stand::new(app);
    // Without a 100, curl would wait longer than it may.
    let wait = ["--http1.1", "--expect100-timeout", "60", "-H", "Expect: 100-continue", "-d", "the body"];
    let direct = curl(&wait, &format!("http://{}/echo", stand.direct));
    let through = curl(&wait, &format!("http://{}/echo", stand.web()));
    assert!(direct.continued && through.continued, "{direct:?} {through:?}");
    same(&direct, &through, "a body that was waited for");
}

#[test]
fn each_event_comes_before_the_next_is_made() {
    let Some(app) = node() else { return };
    let stand = Stand::new(app);
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        events(&stand, version);
    }
}

/// Reads events with curl; the app makes the next one only when it is asked to.
pub fn events(stand: &Stand, version: &str) {
    let url = format!("http://{}/events", stand.web());
    let curl = Running::start(Command::new("curl").args(["-sN", "--noproxy", "*", "--max-time", "30", version, &url]));
    let count = |text: String| text.lines().filter(|line| line.starts_with("data: event ")).count();
    for number in 1..=5 {
        crate::support::eventually("an event", || (count(curl.stdout.text()) == number).then_some(()));
        assert_eq!(wire::get(stand.direct, "/next").status, 200);
    }
    // The app sees that the client has left.
    let closed = |text: String| text.matches("app: events closed").count();
    let before = closed(stand.app.stdout.text());
    drop(curl);
    crate::support::eventually("the app is told", || (closed(stand.app.stdout.text()) > before).then_some(()));
}
