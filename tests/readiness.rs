//! What the app needs, asked on its behalf. Goal: real PostgreSQL and Redis servers are logged into the way an app
//! would; one that is away, refuses or talks garbage has exactly the effect that was declared, one event, and words an
//! operator can act on; and no password is ever shown. Method: the real binary and real servers, and raw sockets for
//! what no honest server says.
#![allow(clippy::disallowed_methods)]

mod support;

use std::process::Command;

use serde_json::Value;
use support::postgres::{Postgres, free_port};
use support::tools::{self, Running, have_tool};
use support::{Outrigger, RawApp, config, eventually};

/// Before an app that does not matter, with these checks, asked often.
fn before(checks: &[String]) -> Outrigger {
    let often = |check: &String| format!("    - {{ interval: 50ms, {check} }}\n");
    let checks: String = checks.iter().map(often).collect();
    Outrigger::run(config("127.0.0.1:1", &format!("readiness:\n  checks:\n{checks}")))
}

fn dependency(outrigger: &Outrigger, name: &str) -> Value {
    let report = outrigger.ops("/readyz").json();
    let found = report["dependencies"].as_array().into_iter().flatten().find(|one| one["name"] == name);
    found.cloned().unwrap_or_else(|| panic!("no dependency {name} in {report:#}"))
}

/// The verdict on a dependency, once there is one.
fn verdict(outrigger: &Outrigger, name: &str) -> (bool, String) {
    let one = eventually("a verdict", || Some(dependency(outrigger, name)).filter(|one| one["ok"].is_boolean()));
    (one["ok"] == true, one["words"].as_str().unwrap_or_default().to_owned())
}

fn becomes(outrigger: &Outrigger, name: &str, ok: bool) {
    eventually("a change of verdict", || (dependency(outrigger, name)["ok"] == ok).then_some(()));
}

fn events(outrigger: &Outrigger, name: &str) -> Vec<String> {
    let status = outrigger.status();
    let events = status["events"].as_array().into_iter().flatten();
    let own = events.filter(|event| {
        event["kind"] == "dependency" && event["subject"].as_str().is_some_and(|subject| subject.starts_with(name))
    });
    own.map(|event| event["words"].as_str().unwrap_or_default().to_owned()).collect()
}

fn no_password_is_shown(outrigger: &Outrigger) {
    let shown =
        [outrigger.status().to_string(), outrigger.ops("/readyz").text(), outrigger.stderr(), outrigger.metrics()];
    assert!(shown.iter().all(|text| !text.contains("secretpassword") && !text.contains("wrongpassword")));
}

#[test]
fn every_login_of_a_real_postgres_is_understood() {
    let Some(mut postgres) = Postgres::prepare() else { return };
    let key = rcgen::KeyPair::generate().expect("a key");
    let made =
        rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("names").self_signed(&key).expect("one");
    postgres.tls(&made.pem(), &key.serialize_pem());
    postgres.start();
    let roots = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(roots.path(), made.pem()).expect("the roots");
    let socket = postgres.socket_directory().display();
    let trusted = format!("?sslmode=require&sslrootcert={}", roots.path().display());
    let urls = [
        ("trust", postgres.url("by_trust", "")),
        ("scram", postgres.url("by_scram:secretpassword", "")),
        ("md5", postgres.url("by_md5:secretpassword", "")),
        ("clear", postgres.url("by_password:secretpassword", "")),
        ("socket", format!("postgres://by_scram:secretpassword@:{}/postgres?host={socket}", postgres.port)),
        ("tls", postgres.url("by_scram:secretpassword", &trusted)),
        ("wrong", postgres.url("by_scram:wrongpassword", "")),
        ("missing", postgres.url("by_scram", "")),
        ("nobody", postgres.url("stranger:secretpassword", "")),
        ("database", format!("postgres://by_trust@127.0.0.1:{}/nowhere", postgres.port)),
        ("untrusted", postgres.url("by_scram:secretpassword", "?sslmode=verify-full")),
    ];
    let outrigger = before(&urls.map(|(name, url)| format!("name: {name}, postgres: \"{url}\"")));
    for name in ["trust", "scram", "md5", "clear", "socket", "tls"] {
        assert_eq!(verdict(&outrigger, name), (true, String::new()), "{name}");
        assert_eq!(events(&outrigger, name), ["well"]);
    }
    for (name, words) in [
        ("wrong", "the password is wrong"),
        ("missing", "asks for a password of by_scram, and the URL has none"),
        ("nobody", "this user may not log in from here (pg_hba.conf)"),
        ("database", "there is no such database"),
        ("untrusted", "TLS failed"),
    ] {
        let (ok, told) = verdict(&outrigger, name);
        assert!(!ok && told.contains(words), "{name}: {told}");
    }
    assert_eq!(outrigger.ops("/readyz").status, 200, "degraded is the default");
    assert_eq!(outrigger.ops("/readyz").json()["degraded"], true);
    assert_eq!(outrigger.metric("outrigger_dependency_up", "dependency=\"scram\""), 1.0);
    assert_eq!(outrigger.metric("outrigger_dependency_up", "dependency=\"wrong\""), 0.0);
    no_password_is_shown(&outrigger);
}

#[test]
fn a_postgres_that_goes_and_comes_back_has_the_declared_effect() {
    let Some(mut postgres) = Postgres::prepare() else { return };
    let url = postgres.url("by_trust", "");
    let outrigger = before(
        &["required", "startup", "degraded"].map(|when| format!("name: {when}, postgres: \"{url}\", when: {when}")),
    );
    let ready = |what: &str, wanted: u16| {
        eventually(what, || (outrigger.ops("/readyz").status == wanted).then_some(()));
    };
    assert!(verdict(&outrigger, "required").1.contains("connection refused"));
    ready("not ready before it has started", 503);
    outrigger.status_until("it waits for the one of the start", |status| {
        status["waiting_for"].to_string().contains("startup (startup): connection refused")
    });
    postgres.start();
    ready("ready when it is there", 200);
    ["required", "startup", "degraded"].iter().for_each(|name| becomes(&outrigger, name, true));
    assert_eq!(outrigger.ops("/readyz").json()["degraded"], false);
    postgres.stop();
    ["required", "startup", "degraded"].iter().for_each(|name| becomes(&outrigger, name, false));
    let report = outrigger.ops("/readyz");
    assert_eq!((report.status, report.json()["degraded"] == true), (503, true));
    assert!(dependency(&outrigger, "required")["since"].as_str().is_some_and(|since| since.ends_with('Z')));
    // Without the required one, what is left only degrades.
    outrigger.write_config(&config(
        "127.0.0.1:1",
        &format!(
            "readiness: {{ checks: [{{ name: startup, postgres: \"{url}\", when: startup, interval: 50ms }}] }}\n"
        ),
    ));
    ready("only a startup dependency is away", 200);
    postgres.start();
    becomes(&outrigger, "startup", true);
    let told = events(&outrigger, "startup");
    let kinds: Vec<&str> = told.iter().map(|words| words.split(':').next().unwrap_or_default()).collect();
    assert_eq!(kinds, ["failing", "well", "failing", "well"], "one event for each change: {told:?}");
}

#[test]
fn the_health_check_tells_what_is_required_and_away() {
    let outrigger = before(&[
        "name: queue, tcp: \"127.0.0.1:1\", when: required".to_owned(),
        "name: mail, tcp: \"127.0.0.1:1\"".to_owned(),
    ]);
    ["queue", "mail"].iter().for_each(|name| becomes(&outrigger, name, false));
    let url = format!("http://{}", outrigger.address("ops"));
    let output = tools::outrigger(["healthcheck", "--url", &url]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.starts_with("/readyz answered 503: "), "{said}");
    assert!(said.contains("queue (required): connection refused"), "{said}");
    assert!(!said.contains("mail"), "it only degrades: {said}");
}

// Goal: a server cannot have this process compute for minutes. Method: a login that asks for 2^32 rounds.
#[test]
fn a_login_that_costs_too_much_is_refused() {
    let greedy = RawApp::start(|mut conn| {
        let say = |kind: u32, words: &[u8]| {
            let length = u32::try_from(8 + words.len()).expect("short");
            [b"R", &length.to_be_bytes()[..], &kind.to_be_bytes(), words].concat()
        };
        let _startup = conn.piece();
        conn.send(say(10, b"SCRAM-SHA-256\0\0"));
        let said = conn.piece().unwrap_or_default();
        let said = String::from_utf8_lossy(&said).into_owned();
        let Some((_, nonce)) = said.split_once("r=") else { return };
        conn.send(say(11, format!("r={nonce}x,s=QQ==,i=4294967295").as_bytes()));
        conn.wait_for_the_end();
    });
    let check = format!("name: greedy, postgres: \"postgres://u:secretpassword@{}/x\", timeout: 10s", greedy.address());
    let outrigger = before(&[check]);
    let (ok, words) = verdict(&outrigger, "greedy");
    assert!(!ok && words.contains("SCRAM iteration count exceeds the maximum"), "{words}");
}

#[test]
fn garbage_is_a_failure_and_nothing_worse() {
    let say = |bytes: &'static [u8]| {
        RawApp::start(move |mut conn| {
            conn.send(bytes);
            conn.wait_for_the_end();
        })
    };
    let peers = [
        ("text", say(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")),
        ("huge", say(b"R\x7f\xff\xff\xff")),
        ("negative", say(b"R\xff\xff\xff\xff")),
        ("short", say(b"R\0\0\0\x04")),
        ("scram", say(b"R\0\0\0\x0c\0\0\0\x0br=xx")),
        ("zeros", say(&[0; 9000])),
        ("error", say(b"E\0\0\0\x05\0")),
        ("endless", say(b"S\0\0\0\x08a\0b\0")),
        ("silent", say(b"")),
    ];
    let quick = |name: &str, kind: &str, scheme: &str, app: &RawApp| {
        let url = format!("{scheme}u:secretpassword@{}/x", app.address());
        format!("name: {name}-{kind}, {kind}: \"{url}\", timeout: 200ms")
    };
    let checks: Vec<String> = peers
        .iter()
        .flat_map(|(name, app)| [quick(name, "postgres", "postgres://", app), quick(name, "redis", "redis://", app)])
        .collect();
    let mut outrigger = before(&checks);
    for (name, _) in &peers {
        for kind in ["postgres", "redis"] {
            let name = format!("{name}-{kind}");
            let (ok, words) = verdict(&outrigger, &name);
            assert!(!ok && !words.is_empty(), "{name}: {words}");
        }
    }
    // Each has been asked again and again since; still one event each, it runs, and it is ready.
    let events: Vec<String> = peers.iter().flat_map(|(name, _)| events(&outrigger, &format!("{name}-"))).collect();
    assert_eq!(events.len(), peers.len() * 2, "{events:#?}");
    assert!(outrigger.running());
    assert_eq!(outrigger.ops("/readyz").status, 200);
    no_password_is_shown(&outrigger);
}

/// A Redis of its own.
fn redis(port: u16, more: &[&str]) -> Running {
    let mut command = Command::new("redis-server");
    command.args(["--save", "", "--appendonly", "no", "--bind", "127.0.0.1", "--port"]).arg(port.to_string());
    let running = Running::start(command.args(more));
    eventually("Redis listens", || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
    running
}

#[test]
fn a_real_redis_is_asked_and_its_return_is_seen() {
    if !have_tool("redis-server") {
        return;
    }
    let port = free_port();
    let server = redis(port, &["--requirepass", "secretpassword"]);
    let outrigger = before(&[
        format!("name: right, redis: \"redis://:secretpassword@127.0.0.1:{port}\", when: required"),
        format!("name: user, redis: \"redis://default:secretpassword@127.0.0.1:{port}/0\""),
        format!("name: wrong, redis: \"redis://:wrongpassword@127.0.0.1:{port}\""),
        format!("name: none, redis: \"redis://127.0.0.1:{port}\""),
    ]);
    assert_eq!(verdict(&outrigger, "right"), (true, String::new()));
    assert_eq!(verdict(&outrigger, "user"), (true, String::new()));
    assert!(verdict(&outrigger, "wrong").1.contains("the password is wrong"));
    assert!(verdict(&outrigger, "none").1.contains("asks for a password, and the URL has none"));
    no_password_is_shown(&outrigger);
    drop(server);
    becomes(&outrigger, "right", false);
    assert_eq!(outrigger.ops("/readyz").status, 503, "it was required");
    let _server = redis(port, &["--requirepass", "secretpassword"]);
    becomes(&outrigger, "right", true);
    eventually("ready again", || (outrigger.ops("/readyz").status == 200).then_some(()));
    let told = events(&outrigger, "right");
    assert!(
        matches!(&told[..], [one, two, three] if one == "well" && two.starts_with("failing: ") && three == "well"),
        "{told:?}"
    );
}

#[test]
fn the_other_kinds_are_asked_too() {
    let app = RawApp::start(|mut conn| {
        if let Some(request) = conn.request() {
            let status = if request.head.first.contains("/well") { "204 No Content" } else { "404 Not Found" };
            conn.send(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"));
        }
    });
    let address = app.address();
    // Valid for more than a day and less than ten years, whenever this runs.
    let age = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
    let mut parameters = rcgen::CertificateParams::new(vec!["a.test".to_owned()]).expect("a name");
    parameters.not_after = rcgen::date_time_ymd(1972 + (age / 31_556_952) as i32, 1, 1);
    let key = rcgen::KeyPair::generate().expect("a key");
    let soon = parameters.self_signed(&key).expect("a certificate");
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), soon.pem()).expect("the certificate");
    let file = file.path().display().to_string();
    let mut ends = rcgen::CertificateParams::new(vec!["a.test".to_owned()]).expect("parameters");
    ends.not_after = rcgen::date_time_ymd(2035, 1, 1);
    let key = rcgen::KeyPair::generate().expect("a key");
    let ending = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(ending.path(), ends.self_signed(&key).expect("a certificate").pem()).expect("the certificate");
    let ending = ending.path().display().to_string();
    let outrigger = before(&[
        format!("name: well, http: \"http://{address}/well?full=1\""),
        format!("name: gone, http: \"http://{address}/gone\""),
        format!("name: fine, http: \"http://{address}/gone\", expect: \"404\""),
        format!("name: port, tcp: \"{address}\""),
        "name: closed, tcp: \"127.0.0.1:1\"".to_owned(),
        "name: name, dns: localhost".to_owned(),
        "name: noname, dns: nothing.invalid, timeout: 5s".to_owned(),
        "name: space, disk: /, free_min: 1B".to_owned(),
        "name: full, disk: /, free_min: 100%".to_owned(),
        format!("name: file, certificate: \"{file}\", valid_min: 1d"),
        format!("name: never, certificate: \"{ending}\", valid_min: 3650d"),
        "name: nofile, certificate: /nonexistent.pem".to_owned(),
    ]);
    for name in ["well", "fine", "port", "name", "space", "file"] {
        assert_eq!(verdict(&outrigger, name), (true, String::new()), "{name}");
    }
    for (name, words) in [
        ("gone", "404 on /gone"),
        ("closed", "connection refused"),
        ("noname", "could not be resolved"),
        ("full", "100.0% is wanted"),
        ("never", "are wanted"),
        ("nofile", "cannot be read"),
    ] {
        let (ok, told) = verdict(&outrigger, name);
        assert!(!ok && told.contains(words), "{name}: {told}");
    }
    let words = outrigger.status()["dependencies"].to_string();
    assert!(words.contains("\"name\":\"closed\""), "{words}");
}
