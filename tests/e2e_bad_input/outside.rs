//! What comes from outside the file: secrets that nobody may see, files that are none, paths that are somebody's.

use std::os::unix::net::UnixListener;

use rustix::process::Signal;
use serde_json::json;

use crate::support::{Launch, Outrigger, RawApp, config, eventually, wire};

const SECRET: &str = "s3cr3t-of-the-house";

fn diff(outrigger: &Outrigger, text: &str) -> String {
    let body = json!({ "name": "new.yaml", "base": "/", "text": text }).to_string();
    let request = format!(
        "POST /diff HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    wire::ask(outrigger.address("admin"), request).text()
}

#[test]
fn a_diff_tells_no_secret_of_ours_to_whoever_asks() {
    let app = RawApp::fine();
    let secret = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(secret.path(), SECRET).expect("write");
    let file = format!("${{file:{}}}", secret.path().display());
    let named = format!("service: {{ owner: \"{file}\", on_call: \"${{OUTRIGGER_TEST_SECRET}}\" }}\n");
    let launch = Launch::new(config(app.address(), &named)).environment("OUTRIGGER_TEST_SECRET", SECRET);
    let outrigger = launch.environment("OUTRIGGER_TEST_OTHER", "another-secret").start();
    assert_eq!(wire::get(outrigger.web(), "/").status, 200);
    for used in [file.as_str(), "${OUTRIGGER_TEST_SECRET}"] {
        for text in [
            format!("upstream: http://127.0.0.1:1\nroutes: [{{ name: \"{used}\" }}]\n"),
            format!(
                "upstreams: {{ a: {{ endpoints: [\"http://127.0.0.1:1\"] }} }}\nroutes: [{{ name: a, upstream: \"{used}\" }}]\n"
            ),
            format!("upstream: http://127.0.0.1:1\nlisteners: [{{ name: a, address: \"{used}\" }}]\n"),
            format!("upstream: http://127.0.0.1:1\nroutes: [{{ name: a, flag: \"{used}\" }}]\n"),
        ] {
            let answer = diff(&outrigger, &text);
            assert!(!answer.contains(SECRET), "{text}\n{answer}");
            assert!(answer.contains("changes") || answer.contains("problems"), "{answer}");
        }
    }
    for unused in ["${file:/etc/passwd}", "${OUTRIGGER_TEST_OTHER}", "${OUTRIGGER_TEST_OTHER:-x}"] {
        let answer = diff(&outrigger, &format!("upstream: http://127.0.0.1:1\nservice: {{ name: \"{unused}\" }}\n"));
        assert!(answer.contains("is not used by the running configuration"), "{answer}");
    }
}

#[test]
fn a_pipe_in_the_place_of_a_file_stops_nothing() {
    let app = RawApp::fine();
    let folder = tempfile::tempdir().expect("a folder");
    let pipe = folder.path().join("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR).expect("a pipe");
    let pipe = pipe.display();
    let mut outrigger = Outrigger::before(&app, "");
    for bad in [
        format!("service: {{ owner: \"${{file:{pipe}}}\" }}\n"),
        "service: { owner: \"${file:/dev/zero}\" }\n".to_owned(),
        format!(
            "listeners: [{{ name: web, address: \"127.0.0.1:0\", tls: {{ certificates: [{{ certificate: \"{pipe}\", key: \"{pipe}\" }}] }} }}]\n"
        ),
    ] {
        outrigger.write_config(&format!("upstream: http://{}\n{bad}", app.address()));
        outrigger.signal(Signal::HUP);
        let status = outrigger.status_until("it is refused", |status| {
            status["config"]["problems"].to_string().contains("not a regular file")
        });
        assert_eq!(status["config"]["stale"], true);
        assert_eq!(outrigger.ops("/livez").status, 200);
        outrigger.write_config(&config(app.address(), ""));
        outrigger.signal(Signal::HUP);
        outrigger.status_until("it is good again", |status| status["config"]["stale"] == false);
    }
    assert_eq!(outrigger.stop()["cut"], 0);
}

#[test]
fn a_listener_takes_no_path_that_is_somebodys_file() {
    let app = RawApp::fine();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("precious");
    std::fs::write(&path, "data").expect("write");
    let text = format!(
        "upstream: http://{}\nops: {{ address: \"127.0.0.1:0\" }}\nadmin: {{ address: \"127.0.0.1:0\" }}\n\
         listeners: [{{ name: web, address: \"unix:{}\" }}]\n",
        app.address(),
        path.display()
    );
    let mut outrigger = Launch::new(text.as_str()).start();
    assert_eq!(outrigger.wait().code(), Some(2));
    assert!(outrigger.stderr().contains("is not a socket"), "{}", outrigger.stderr());
    assert_eq!(std::fs::read_to_string(&path).expect("it is there"), "data");
    // A socket that a killed process left behind is taken over.
    std::fs::remove_file(&path).expect("remove");
    drop(UnixListener::bind(&path).expect("bind"));
    let mut outrigger = Launch::new(text).start();
    outrigger.status_until("it serves", |status| status["ready"] == true);
    outrigger.stop();
}

#[test]
fn a_log_is_rotated_by_a_signal_and_one_that_cannot_be_opened_refuses_the_file() {
    let app = RawApp::fine();
    let folder = tempfile::tempdir().expect("a folder");
    let log = folder.path().join("access.log");
    let text = |log: &str| format!("telemetry: {{ access_log: {{ to: \"{log}\" }} }}\n");
    let outrigger = Outrigger::run(config(app.address(), &text(log.to_str().expect("text"))));
    let lines = |path: &std::path::Path| std::fs::read_to_string(path).unwrap_or_default().lines().count();
    wire::get(outrigger.web(), "/one");
    eventually("the line is written", || (lines(&log) == 1).then_some(()));
    let moved = folder.path().join("access.log.1");
    std::fs::rename(&log, &moved).expect("rename");
    outrigger.signal(Signal::HUP);
    eventually("the file is there again", || log.exists().then_some(()));
    wire::get(outrigger.web(), "/two");
    eventually("the line is in the new file", || (lines(&log) == 1).then_some(()));
    assert_eq!(lines(&moved), 1);
    outrigger.write_config(&config(app.address(), &text("/nonexistent/access.log")));
    let status = outrigger.status_until("it is refused", |status| status["config"]["stale"] == true);
    assert!(status["config"]["problems"].to_string().contains("access.log"), "{status}");
}
