//! Files that are wrong: every problem at once, exit code 2, no port opened, no secret told; and at a reload nothing
//! changes.

use std::process::ExitStatus;
use std::time::Instant;

use rustix::process::Signal;

use crate::support::tls::Pair;
use crate::support::{Launch, Outrigger, RawApp, config, tools, wire};

/// Starts with this file, which must fail; the exit status and what was said.
fn refused(text: &str) -> (ExitStatus, String) {
    refused_by(Launch::new(text))
}

fn refused_by(launch: Launch) -> (ExitStatus, String) {
    let mut outrigger = launch.start();
    let status = outrigger.wait();
    let said = outrigger.stderr();
    assert_eq!(status.code(), Some(2), "{said}");
    assert!(!said.contains("\"listening\""), "a port was opened: {said}");
    assert!(!said.contains("panicked"), "{said}");
    (status, said)
}

#[test]
fn every_problem_is_told_with_its_place() {
    let (_, said) = refused(
        "upstreem: http://127.0.0.1:1\nlisteners:\n  - name: web\n    address: nowhere\ntimeouts:\n  total: 30\n  totl: 1s\n",
    );
    for wanted in [
        "outrigger.yaml:1:",
        "upstreem",
        "upstream",
        "listeners[0].address",
        "outrigger.yaml:4:",
        "timeouts.total",
        "30",
        "totl",
    ] {
        assert!(said.contains(wanted), "{wanted} is missing in:\n{said}");
    }
}

#[test]
fn check_says_the_same_and_run_does_not_start() {
    let bad = tempfile::NamedTempFile::with_suffix(".yaml").expect("a file");
    std::fs::write(bad.path(), "upstream: http://127.0.0.1:1\nretries: 3\n").expect("write");
    let output = tools::outrigger([std::ffi::OsStr::new("check"), bad.path().as_os_str()]);
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("retries") && said.contains(":2:"), "{said}");
    std::fs::write(bad.path(), "upstream: http://127.0.0.1:1\n").expect("write");
    let output = tools::outrigger([std::ffi::OsStr::new("check"), bad.path().as_os_str()]);
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn contradictions_are_problems() {
    for (name, text) in [
        ("first_byte above total", "timeouts: { total: 1s, first_byte: 2s }\n"),
        ("an unknown upstream", "routes: [{ match: { path: /a }, upstream: nobody }]\n"),
        ("an unknown limit", "routes: [{ match: { path: /a }, rate_limits: [nobody] }]\n"),
        ("a bare number", "drain: { timeout: 20 }\n"),
        ("a duplicate key", "workers: 1\nworkers: 2\n"),
        ("no attempts", "retry: { attempts: 0 }\n"),
    ] {
        let (_, said) = refused(&format!("upstream: http://127.0.0.1:1\n{text}"));
        assert!(said.contains("outrigger.yaml:"), "{name}: {said}");
    }
}

#[test]
fn files_that_are_no_configuration_are_refused_quickly() {
    let nested = "[".repeat(200_000);
    let laughs = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n\
        d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\n";
    let large = format!("# {}\nupstream: http://127.0.0.1:1\n", "x".repeat(4 << 20));
    for (name, text) in [
        ("empty", ""),
        ("blank", "\n\n  \n"),
        ("a comment", "# nothing\n"),
        ("a list", "- a\n- b\n"),
        ("a word", "hello"),
        ("JSON cut off", "{\"upstream\": \"http://127.0.0.1:1\""),
        ("tabs", "upstream:\n\t- a\n"),
        ("an open quote", "upstream: \"http://127.0.0.1:1\n"),
        ("NUL", "upstream: http://127.0.0.1:1\0\n"),
        ("controls", "\u{1}\u{2}\u{3}"),
        ("deep nesting", &nested),
        ("aliases of aliases", laughs),
        ("very large", &large),
    ] {
        let begun = Instant::now();
        let (_, said) = refused(text);
        assert!(begun.elapsed().as_secs() < 5, "{name} took {:?}", begun.elapsed());
        assert!(said.len() < 20_000, "{name}: {} bytes of words", said.len());
    }
    let file = Launch::new("");
    std::fs::write(file.directory().join("binary.yaml"), [0xff, 0xfe, 0x00, 0x80]).expect("write");
    let path = file.directory().join("binary.yaml");
    let output = tools::outrigger([std::ffi::OsStr::new("run"), std::ffi::OsStr::new("-c"), path.as_os_str()]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_missing_file_is_told() {
    for path in ["/nonexistent/outrigger.yaml", "/"] {
        let output = tools::outrigger(["run", "-c", path]);
        assert_eq!(output.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&output.stderr).contains(path));
    }
}

#[test]
fn missing_variables_are_told_together_and_secrets_never() {
    let launch = Launch::new(config(
        "127.0.0.1:1",
        "service: { name: \"${TEST_MISSING_ONE}\", owner: \"${TEST_MISSING_TWO:?ask the team}\" }\n\
         admin: { address: \"127.0.0.1:0\", token: \"${TEST_SECRET}\", tocken: \"hunter3-in-the-file\" }\n",
    ));
    let (_, said) = refused_by(launch.environment("TEST_SECRET", "hunter2"));
    for wanted in ["TEST_MISSING_ONE", "TEST_MISSING_TWO", "ask the team", "tocken"] {
        assert!(said.contains(wanted), "{wanted} is missing in:\n{said}");
    }
    assert!(!said.contains("hunter2"), "{said}");
}

#[test]
fn certificates_that_are_missing_or_do_not_fit_are_told() {
    let listeners = |certificate: &str, key: &str| {
        format!(
            "listeners:\n  - name: web\n    address: 127.0.0.1:0\n    tls:\n      certificates:\n        \
             - {{ certificate: {certificate}, key: {key} }}\n"
        )
    };
    for (name, certificate, key, word) in [
        ("missing", "none.crt", "none.key", "none.crt"),
        ("a key of another", "a.crt", "b.key", "key"),
        ("not PEM", "text.pem", "a.key", "text.pem"),
        ("swapped", "a.key", "a.crt", "a."),
        ("empty", "empty.pem", "a.key", "empty.pem"),
    ] {
        let launch = Launch::new(config("127.0.0.1:1", &listeners(certificate, key)));
        Pair::write(launch.directory(), "a", &["localhost"]);
        Pair::write(launch.directory(), "b", &["localhost"]);
        std::fs::write(launch.directory().join("text.pem"), "hello\n").expect("write");
        std::fs::write(launch.directory().join("empty.pem"), "").expect("write");
        let (_, said) = refused_by(launch);
        assert!(said.contains(word), "{name}: {said}");
        assert!(!said.contains("PRIVATE KEY"), "{name}: {said}");
    }
}

/// The plan's mark on every answer.
fn marked(app: &RawApp, mark: &str) -> String {
    config(
        app.address(),
        &format!(
            "routes: [{{ match: {{ path: \"/*\" }}, headers: {{ response: {{ set: {{ x-plan: {mark} }} }} }} }}]\n"
        ),
    )
}

#[test]
fn a_bad_file_at_a_reload_changes_nothing_and_says_so() {
    let app = RawApp::fine();
    let outrigger = Outrigger::run(marked(&app, "one"));
    let plan = |outrigger: &Outrigger| wire::get(outrigger.web(), "/").get("x-plan").unwrap_or_default().to_owned();
    assert_eq!(plan(&outrigger), "one");
    let hash = outrigger.status()["config"]["hash"].clone();
    for (how, text) in [
        ("command", "upstreem: x\n"),
        ("signal", "upstream: [\n"),
        ("file", "upstream: http://127.0.0.1:1\ndrain: 5\n"),
        ("empty", ""),
    ] {
        outrigger.write_config(text);
        match how {
            "command" => {
                let answer = outrigger.admin_post("/reload");
                assert_eq!(answer.status / 100, 4, "{}", answer.text());
                assert!(answer.text().contains("upstreem"), "{}", answer.text());
            }
            "signal" => outrigger.signal(Signal::HUP),
            _ => {}
        }
        let status = outrigger.status_until("the file is refused", |status| status["config"]["stale"] == true);
        assert_eq!(status["config"]["hash"], hash, "{how}");
        assert_ne!(status["config"]["problems"].as_array().map(Vec::len), Some(0), "{how}: {status:#}");
        assert_eq!(outrigger.metric("outrigger_config_stale", ""), 1.0, "{how}");
        assert_eq!(plan(&outrigger), "one", "{how}");
        assert_eq!(outrigger.ops("/readyz").status, 200, "{how}");
        outrigger.write_config(&marked(&app, "one"));
        outrigger.status_until("the good file is seen", |status| status["config"]["stale"] == false);
        assert_eq!(outrigger.metric("outrigger_config_stale", ""), 0.0, "{how}");
    }
    outrigger.write_config(&marked(&app, "two"));
    crate::support::eventually("the new plan", || (plan(&outrigger) == "two").then_some(()));
}

#[test]
fn a_reload_whose_certificate_is_missing_changes_nothing() {
    let app = RawApp::fine();
    let outrigger = Outrigger::run(marked(&app, "one"));
    outrigger.write_config(&(marked(&app, "two").replace(
        "listeners: [{ name: web, address: \"127.0.0.1:0\" }]",
        "listeners: [{ name: web, address: \"127.0.0.1:0\" }, { name: tls, address: \"127.0.0.1:0\", tls: { certificates: \
         [{ certificate: none.crt, key: none.key }] } }]",
    )));
    let answer = outrigger.admin_post("/reload");
    assert_eq!(answer.status / 100, 4, "{}", answer.text());
    assert!(answer.text().contains("none.crt"), "{}", answer.text());
    assert_eq!(wire::get(outrigger.web(), "/").get("x-plan"), Some("one"));
}

#[test]
fn usage_that_is_wrong_is_told() {
    for arguments in [
        vec!["run"],
        vec!["run", "--upstream", "not a url"],
        vec!["run", "-c", "a.yaml", "--upstream", "http://127.0.0.1:1"],
        vec!["frobnicate"],
        vec!["check"],
        vec!["explain"],
        vec![],
    ] {
        let output =
            tools::run(std::process::Command::new(crate::support::process::binary()).args(&arguments).current_dir("/"));
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(!output.stderr.is_empty() || !output.stdout.is_empty(), "{arguments:?}: no words");
    }
}

#[test]
fn verbs_that_cannot_connect_exit_with_2() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = gone.local_addr().expect("its address").to_string();
    drop(gone);
    for verb in [vec!["status"], vec!["reload"], vec!["why", "x"], vec!["drain"]] {
        let output = tools::outrigger(verb.iter().copied().chain(["--admin", address.as_str()]));
        assert_eq!(output.status.code(), Some(2), "{verb:?}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(String::from_utf8_lossy(&output.stderr).contains(&address), "{verb:?}");
    }
}
