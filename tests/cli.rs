//! The program as it is typed: exit codes, words, and a whole life from start to drain.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);
/// Each try is a process of its own, so this is seconds.
const TRIES_MAX: usize = 2000;

fn outrigger(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_outrigger"));
    command
        .args(arguments)
        .env_remove("OUTRIGGER_ADMIN")
        .env_remove("OUTRIGGER_CONFIG")
        .env_remove("OUTRIGGER_UPSTREAM");
    command.env_remove("OUTRIGGER_ADMIN_TOKEN").stdin(Stdio::null());
    command
}

fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    said(&outrigger(arguments).output().unwrap())
}

/// An app that answers every request with `ok`, until the test ends.
fn app() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok");
        }
    });
    port
}

fn configuration(directory: &Path, app: u16) -> String {
    let here = directory.display();
    format!(
        "service: {{ name: shop }}\nlisteners: [{{ name: web, address: \"127.0.0.1:0\" }}]\n\
         upstream: http://127.0.0.1:{app}\n\
         telemetry: {{ access_log: {{ to: off }} }}\nops: {{ address: \"unix:{here}/ops.sock\" }}\n\
         admin: {{ address: \"unix:{here}/admin.sock\" }}\ndrain: {{ delay: 0s, timeout: 5s }}\n"
    )
}

/// A running proxy and where it listens.
struct Running {
    child: Child,
    web: String,
    admin: String,
    ops: String,
}

impl Running {
    fn start(directory: &Path, more: &[&str]) -> Running {
        let file = directory.join("outrigger.yaml").display().to_string();
        let mut child = outrigger(&[&["run", "-c", &file], more].concat())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || log.lines().map_while(Result::ok).for_each(|line| drop(sender.send(line))));
        let web = loop {
            let line = lines.recv_timeout(SOON).expect("it listens");
            let line: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
            if line["message"] == "listening" && line["listener"] == "web" {
                break line["address"].as_str().unwrap().to_owned();
            }
        };
        let socket = |name: &str| format!("unix:{}/{name}.sock", directory.display());
        Running { child, web, admin: socket("admin"), ops: socket("ops") }
    }

    fn ask(&self, verb: &[&str]) -> (Option<i32>, String, String) {
        run(&[verb, &["--admin", &self.admin]].concat())
    }

    /// Waits for readiness by asking the ops port.
    fn ready(&self) {
        let ready = (0..TRIES_MAX).any(|_| run(&["healthcheck", "--url", &self.ops]).0 == Some(0));
        assert!(ready, "it becomes ready");
    }

    fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(&self.web).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended as it should
        let _ = self.child.wait();
    }
}

#[test]
fn a_good_file_is_a_yes_and_a_bad_one_is_told_whole() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a.yaml");
    let name = file.display().to_string();
    std::fs::write(&file, "upstream: http://127.0.0.1:3000\n").unwrap();
    let (code, out, _) = run(&["check", &name]);
    assert_eq!(code, Some(0), "{out}");
    assert_eq!(out, format!("{name}: good; 1 listener, 1 upstream, 1 route, 0 rate limits\n"));
    std::fs::write(&file, "upstream: http://127.0.0.1:3000\ntimeouts: { totl: 5s, idle: 5 }\n").unwrap();
    let (code, out, _) = run(&["check", &name]);
    assert_eq!(code, Some(2));
    assert!(out.contains(&format!("{name}:2:")) && out.contains("did you mean") && out.contains("2 problems"), "{out}");
    let (code, out, _) = run(&["check", &name, "--output", "json"]);
    assert_eq!(code, Some(2));
    let value: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(value["problems"].as_array().unwrap().len(), 2, "{value}");
    let (code, _, err) = run(&["run", "-c", &name]);
    assert_eq!(code, Some(2));
    assert!(err.contains("did you mean"), "a start tells the same problems: {err}");
}

#[test]
fn explain_names_the_route_the_lines_and_the_worst_case() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a.yaml");
    let text = "upstreams: { app: { endpoints: [\"http://127.0.0.1:3000\"] } }\ntimeouts: { first_byte: 2s }\nroutes:\n\
                - name: api\n  match: { path: \"/api/*\", methods: [GET] }\n  upstream: app\n  timeouts: { total: 5s }\n";
    std::fs::write(&file, text).unwrap();
    let name = file.display().to_string();
    let (code, out, err) = run(&["explain", "GET", "/api/x", "-c", &name]);
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains(&format!("{name}:7")) && out.contains(&format!("{name}:2")), "{out}");
    assert!(out.contains("waits at most 5s") && out.contains("3 times the load") && out.contains("default"), "{out}");
    for told in [
        "opens after 5 failures in a row (or 1% of the requests in 10s, if more)",
        "opens when 50% of at least 20 requests in 10s fail",
        "stays open for 5s to 30s",
    ] {
        assert!(out.contains(told), "{told}\n{out}");
    }
    let (code, out, _) = run(&["explain", "POST", "/api/x", "-c", &name]);
    assert_eq!((code, out.contains("405") && out.contains("GET")), (Some(1), true), "{out}");
    let (code, out, _) = run(&["explain", "GET", "/other", "-c", &name]);
    assert_eq!((code, out.contains("route_not_found")), (Some(1), true), "{out}");
    let (_, out, _) = run(&["explain", "GET", "/api/x", "-c", &name, "--output", "json"]);
    let value: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(value["worst_case"]["answer_ms"], 5000, "{value}");
}

#[test]
fn explain_says_what_answers_before_the_route() {
    // Goal: it says what a request would really meet. Method: a file with every switch, asked for what each one bars
    // and for what it lets pass; exit code and words.
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a.yaml");
    let name = file.display().to_string();
    let text = |maintenance: &str| {
        format!(
            "listeners:\n- {{ name: web, address: \"127.0.0.1:0\" }}\n\
             - {{ name: plain, address: \"127.0.0.1:0\", redirect_to_https: {{ hosts: [shop.example], port: 8443 }} }}\n\
             - {{ name: out, address: \"127.0.0.1:0\", upstream: app, direction: outbound }}\n\
             upstreams: {{ app: {{ endpoints: [\"http://127.0.0.1:3000\"], circuit_breaker: {{ mode: off }} }} }}\n\
             flags: {{ old: false, new: true }}\nmaintenance: {{ {maintenance} }}\ntrusted_proxies: [10.0.0.1]\nroutes:\n\
             - {{ name: old, match: {{ path: /old }}, flag: old }}\n- {{ name: new, match: {{ path: /new }}, flag: new }}\n\
             - {{ name: work, match: {{ path: /work }}, maintenance: on }}\n\
             - {{ name: read, match: {{ path: /read }}, maintenance: read_only }}\n- {{ match: {{ path: \"/*\" }} }}\n"
        )
    };
    std::fs::write(&file, text("mode: off")).unwrap();
    let explain = |asked: &[&str]| {
        let (code, out, err) = run(&[&["explain"], asked, &["-c", &name]].concat());
        (code, out + &err)
    };
    let plain = |host: &'static str| ["GET", "/a?b=c", "--listener", "plain", "--host", host];
    let through = [&plain("other.example")[..], &["--header", "x-forwarded-proto: https"]].concat();
    for (asked, code, told) in [
        (&["GET", "/old"][..], 1, &format!("503 route_disabled: the flag old is off ({name}:6)") as &str),
        (&["GET", "/new"], 0, "route       new"),
        (&["GET", "/work"], 1, &format!("503 maintenance: maintenance is on, of route work ({name}:12)")),
        (&["POST", "/read"], 1, &format!("503 read_only: maintenance is read_only, of route read ({name}:13)")),
        (&["GET", "/read"], 0, "route       read"),
        (&["CONNECT", "/x"], 1, "405 connect_refused_here"),
        (&["CONNECT", "a.example:443"], 1, "405 connect_refused_here"),
        (&["GET", "/", "--host", "bad host"], 2, "\"bad host\" is not a host"),
        (&["GET", "/", "--host", "shop.example:http"], 2, "with or without a port: shop.example.com"),
        (&["GET", "/", "--header", "transfer-encoding: gzip"], 1, "501 transfer_encoding"),
        (&plain("Shop.example:80"), 0, "308 to https://shop.example:8443/a?b=c"),
        (&plain("other.example"), 1, "421 misdirected: listener plain redirects to HTTPS, and only for shop.example"),
        (
            &["GET", "/", "--listener", "plain"],
            0,
            "308 to https://HOST:8443/ for the hosts shop.example; 421 misdirected",
        ),
        (&["GET", "/.well-known/acme-challenge/x", "--listener", "plain"], 0, "upstream    app"),
        (&through, 0, "upstream    app"),
        (&["GET", "/"], 0, "3 times the load; no breaker ends that"),
    ] {
        let (found, words) = explain(asked);
        assert_eq!(found, Some(code), "{asked:?}: {words}");
        assert!(words.contains(told) && !words.contains("until its breaker"), "{asked:?}: {words}");
    }
    std::fs::write(&file, text("mode: read_only, allow: [10.0.0.0/8]")).unwrap();
    let (code, words) = explain(&["POST", "/"]);
    assert_eq!(code, Some(1), "{words}");
    assert!(words.contains("503 read_only") && words.contains("of the service"), "{words}");
    assert!(words.contains(&format!("({name}:7)")) && words.contains("clients of 10.0.0.0/8 pass"), "{words}");
    assert_eq!(explain(&["GET", "/"]).0, Some(0));
    assert_eq!(explain(&["POST", "/", "--listener", "out"]).0, Some(0), "the app may call others");
    let (_, out, _) = run(&["explain", "GET", "/", "--listener", "plain", "-c", &name, "--output", "json"]);
    let value: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert!(value["answer"].as_str().is_some_and(|answer| answer.starts_with("308 to")), "{value}");
}

#[test]
fn what_is_not_running_is_a_cannot_with_advice() {
    let directory = tempfile::tempdir().unwrap();
    let admin = format!("unix:{}/admin.sock", directory.path().display());
    for verb in [&["status"][..], &["why", "x"], &["reload"], &["drain"], &["breaker", "open", "app"]] {
        let (code, out, err) = run(&[verb, &["--admin", &admin]].concat());
        assert_eq!((code, out.as_str()), (Some(2), ""), "{verb:?}");
        assert!(err.contains("cannot reach Outrigger's admin port") && err.contains("--admin"), "{err}");
    }
    let ops = format!("unix:{}/ops.sock", directory.path().display());
    assert_eq!(run(&["healthcheck", "--url", &ops]).0, Some(1), "who asks must act on it");
    assert_eq!(run(&["run"]).0, Some(2));
    assert_eq!(run(&["generate", "alerts"]).0, Some(2));
}

#[test]
fn what_the_program_writes_is_what_it_is() {
    let (code, out, _) = run(&["generate", "schema"]);
    assert_eq!(code, Some(0));
    assert!(serde_json::from_str::<serde_json::Value>(&out).unwrap()["properties"]["upstreams"].is_object());
    assert!(run(&["completions", "bash"]).1.contains("healthcheck"));
    assert_eq!(run(&["version"]).1, format!("outrigger {}\n", env!("CARGO_PKG_VERSION")));
    let (code, out, _) = run(&["--help"]);
    assert_eq!(code, Some(0));
    for verb in
        ["run", "demo", "check", "explain", "diff", "reload", "status", "why", "drain", "breaker", "healthcheck"]
    {
        assert!(out.contains(&format!("\n  {verb} ")), "{verb}");
    }
}

// Goal: half a file is never taken for a whole one, and `| head` is no failure.
#[test]
fn an_answer_that_cannot_be_written_is_a_cannot() {
    let verbs = [&["generate", "schema"][..], &["completions", "bash"], &["version"], &["--help"], &["run", "--help"]];
    for verb in verbs {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = outrigger(verb).stdout(full).stderr(Stdio::piped()).output().unwrap();
        let (code, _, err) = said(&output);
        assert_eq!(code, Some(2), "{verb:?}");
        assert!(err.contains("the answer cannot be written: No space left on device"), "{err}");
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = outrigger(verb).stdout(writer).stderr(Stdio::piped()).output().unwrap();
        assert_eq!(said(&output), (Some(0), String::new(), String::new()), "{verb:?}");
    }
}

#[test]
fn nothing_behind_the_dashes_is_refused() {
    let (code, out, err) = run(&["run", "--upstream", "http://127.0.0.1:1", "--"]);
    assert_eq!((code, out.as_str()), (Some(2), ""));
    assert!(err.contains("there is nothing behind `--`") && err.contains("outrigger run -- node server.js"), "{err}");
}

#[test]
fn a_state_directory_that_cannot_be_is_refused_before_anything_starts() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("outrigger.yaml");
    let named = file.display().to_string();
    std::fs::write(directory.path().join("occupied"), "").unwrap();
    let with = |state: &str| {
        let text = configuration(directory.path(), 1) + &format!("state: {{ directory: {state} }}\n");
        std::fs::write(&file, text).unwrap();
    };
    // What can be seen without touching anything is a problem of the file.
    for occupied in ["occupied", "occupied/below"] {
        with(occupied);
        for verb in [&["check", &named][..], &["run", "-c", &named]] {
            let (code, out, err) = run(verb);
            let words = out + &err;
            assert_eq!(code, Some(2), "{verb:?}");
            assert!(words.contains("state.directory") && words.contains("not a directory"), "{words}");
            assert!(words.contains("outrigger.yaml:8"), "the line: {words}");
        }
    }
    // So is what only a try can tell; the try leaves nothing behind.
    with("/proc/outrigger");
    for verb in [&["check", &named][..], &["run", "-c", &named]] {
        let (code, out, err) = run(verb);
        let words = out + &err;
        assert_eq!(code, Some(2), "{verb:?}");
        assert!(
            words.contains("outrigger.yaml:8") && words.contains("/proc/outrigger cannot be written to"),
            "{words}"
        );
        assert!(words.contains("leave it out") && !words.contains("listening"), "{words}");
    }
    with("made/below");
    assert_eq!(run(&["check", &named]).0, Some(0));
    assert!(!directory.path().join("made").exists());
}

#[test]
fn what_a_start_would_refuse_is_refused_by_check_and_by_a_reload() {
    // Goal: no file is called good, or taken up, that ends the process at its next start. Method: each bad value is
    // checked, reloaded and started with; the place, the value and what to do are told each time.
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("outrigger.yaml");
    let named = file.display().to_string();
    let good = configuration(directory.path(), app());
    std::fs::write(&file, &good).unwrap();
    std::fs::write(directory.path().join("occupied"), "").unwrap();
    let running = Running::start(directory.path(), &[]);
    let log = "telemetry: { access_log: { to: off } }";
    let here = directory.path().display().to_string();
    let (admin, long) = (format!("{here}/admin.sock"), format!("{here}/{}", "x".repeat(99 - here.len())));
    let cases = [
        (
            log,
            "telemetry: { access_log: { to: off }, traces: { otlp: \"localhost:4317\" } }",
            4,
            "write `http://localhost:4318`",
        ),
        (log, "telemetry: { access_log: { to: off }, traces: { otlp: \"https://-a\" } }", 4, "cannot be used"),
        (log, "telemetry: { access_log: { to: /no/such/x.log } }", 4, "no directory /no/such"),
        (log, &format!("telemetry: {{ access_log: {{ to: {here} }} }}"), 4, "is a directory"),
        (log, &format!("telemetry: {{ access_log: {{ to: {here}/occupied/x.log }} }}"), 4, "ot a directory"),
        ("drain: {", "state: { directory: /proc/outrigger }\ndrain: {", 7, "leave it out"),
        (&admin, "/no/such/admin.sock", 6, "no directory /no/such"),
        (&admin, &format!("{here}/occupied"), 6, "not a socket"),
        (&admin, &long, 6, "at most 99 bytes"),
    ];
    for (from, to, line, told) in cases {
        let bad = good.replace(from, to);
        assert_ne!(bad, good, "{to}");
        std::fs::write(&file, bad).unwrap();
        for (verb, code) in
            [(&["check", &named][..], 2), (&["reload", "--admin", &running.admin], 1), (&["run", "-c", &named], 2)]
        {
            let (said, out, err) = run(verb);
            let words = out + &err;
            assert_eq!(said, Some(code), "{verb:?} {to}: {words}");
            let placed = words.contains(&format!("{named}:{line}:"));
            assert!(placed && words.contains(told), "{verb:?} {to}: {words}");
        }
    }
    std::fs::write(&file, &good).unwrap();
    assert_eq!(running.ask(&["reload"]).0, Some(0));
}

#[test]
fn what_this_user_may_not_write_is_found_by_check() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    // Root may write everywhere, so this runs as another where it can: a copy of the program, where all may read it.
    let directory = tempfile::tempdir().unwrap();
    let allow = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    allow(directory.path(), 0o755);
    let program = directory.path().join("outrigger");
    std::fs::copy(env!("CARGO_BIN_EXE_outrigger"), &program).unwrap();
    let file = directory.path().join("a.yaml");
    let closed = directory.path().join("closed");
    std::fs::create_dir(&closed).unwrap();
    std::fs::write(closed.join("old.log"), "").unwrap();
    allow(&closed.join("old.log"), 0o444);
    allow(&closed, 0o555);
    let check = |more: &str| {
        std::fs::write(&file, format!("upstream: http://127.0.0.1:1\n{more}\n")).unwrap();
        let mut command = Command::new(&program);
        command.arg("check").arg(&file);
        if rustix::process::geteuid().is_root() {
            command.uid(65_534).gid(65_534);
        }
        said(&command.output().unwrap())
    };
    for (more, path) in [
        ("state: { directory: closed }", "state.directory"),
        ("state: { directory: closed/below }", "state.directory"),
        (&format!("telemetry: {{ access_log: {{ to: {}/x.log }} }}", closed.display()), "telemetry.access_log.to"),
        (&format!("telemetry: {{ access_log: {{ to: {}/old.log }} }}", closed.display()), "telemetry.access_log.to"),
        (&format!("ops: {{ address: \"unix:{}/x.sock\" }}", closed.display()), "ops.address"),
    ] {
        let (code, out, err) = check(more);
        assert_eq!(code, Some(2), "{more}: {out}{err}");
        assert!(out.contains(":2:") && out.contains(path) && out.contains("Permission denied"), "{more}: {out}");
    }
    assert_eq!(check("workers: 1").0, Some(0));
}

#[test]
fn a_port_that_is_taken_is_named_with_the_command_that_finds_its_owner() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("outrigger.yaml");
    std::fs::write(&file, configuration(directory.path(), 1)).unwrap();
    let _taken = std::os::unix::net::UnixListener::bind(directory.path().join("admin.sock")).unwrap();
    let (code, _, err) = run(&["run", "-c", &file.display().to_string()]);
    assert_eq!(code, Some(2));
    assert!(err.contains("admin.sock is in use by another process; stop it (`ss -lxp` names it)"), "{err}");
}

// Goal: every verb against a running proxy, to its end by `drain --wait`.
#[test]
fn a_whole_life_from_start_to_drain() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let file = directory.join("outrigger.yaml");
    let good = configuration(directory, app());
    std::fs::write(&file, &good).unwrap();
    let mut running = Running::start(directory, &[]);
    running.ready();
    let answer = running.get("/x");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok"), "{answer}");
    let id = answer.lines().find_map(|line| line.strip_prefix("x-request-id: ")).unwrap().to_owned();
    let fate = (0..TRIES_MAX).map(|_| running.ask(&["why", &id])).find(|(code, ..)| *code == Some(0));
    let (_, fate, _) = fate.expect("the request is remembered");
    assert!(fate.starts_with("GET a/x: 200 in ") && fate.contains("attempts"), "{fate}");
    let (code, out, _) = running.ask(&["why", "nope"]);
    assert_eq!((code, out.contains("Only the last requests are: ")), (Some(1), true), "{out}");
    let (code, out, _) = running.ask(&["status"]);
    assert_eq!(code, Some(0));
    assert!(out.contains("service shop: ready, serving") && out.contains(&running.web), "{out}");
    let name = file.display().to_string();
    assert_eq!(running.ask(&["diff", &name]), (Some(0), "no difference\n".to_owned(), String::new()));
    std::fs::write(&file, format!("{good}timeouts: {{ total: 9s, first_byte: 1s }}\n")).unwrap();
    let (code, out, _) = running.ask(&["reload"]);
    assert_eq!(code, Some(0), "{out}");
    std::fs::write(directory.join("other.yaml"), &good).unwrap();
    let (code, out, _) = running.ask(&["diff", &directory.join("other.yaml").display().to_string()]);
    assert_eq!((code, out.contains("~ timeouts")), (Some(1), true), "{out}");
    std::fs::write(&file, "nonsense: 1\n").unwrap();
    let (code, out, _) = running.ask(&["reload"]);
    assert_eq!((code, out.contains("what ran keeps running")), (Some(1), true), "{out}");
    assert!(running.ask(&["status"]).1.contains("STALE"));
    assert_eq!(running.ask(&["breaker", "open", "app"]).0, Some(0));
    assert!(running.get("/x").starts_with("HTTP/1.1 503"));
    let told = (0..TRIES_MAX).map(|_| running.ask(&["status", "--all"]).1).any(|out| out.contains("1  breaker_open"));
    assert!(told, "the refusal and its reason");
    assert_eq!(running.ask(&["breaker", "auto", "app"]).0, Some(0));
    assert!(running.get("/x").starts_with("HTTP/1.1 200"));
    let (code, out, _) = running.ask(&["drain", "--wait"]);
    assert_eq!((code, out.starts_with("drained in ")), (Some(0), true), "{out}");
    assert_eq!(running.child.wait().unwrap().code(), Some(0));
    assert!(!directory.join("admin.sock").exists(), "sockets are cleaned up");
}

// Goal: the app is started with its port, the drain comes before its SIGTERM, and its code is ours.
#[test]
fn a_wrapped_app_decides_the_exit_code() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    std::fs::write(directory.join("outrigger.yaml"), configuration(directory, app())).unwrap();
    let stop = "trap 'exit 7' TERM; while :; do sleep 0.01; done";
    let mut running = Running::start(directory, &["--", "sh", "-c", stop]);
    running.ready();
    assert!(running.get("/").starts_with("HTTP/1.1 200"));
    assert_eq!(running.ask(&["drain"]).0, Some(0));
    assert_eq!(running.child.wait().unwrap().code(), Some(7));
    let mut died = Running::start(directory, &["--", "sh", "-c", "exit 3"]);
    assert_eq!(died.child.wait().unwrap().code(), Some(3), "an app that ends by itself ends us");
    let (code, _, err) =
        run(&["run", "-c", &directory.join("outrigger.yaml").display().to_string(), "--", "/no/such/app"]);
    assert_eq!((code, err.contains("there is no command")), (Some(127), true), "{err}");
}

#[test]
fn the_demo_ends_by_itself_with_a_summary() {
    let (code, out, err) = run(&["demo", "--for", "2s"]);
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("http://127.0.0.1:") && out.contains("   1s  clients: "), "{out}");
    assert!(out.contains("Not the defaults") && out.contains("200 failures in a row instead of 5"), "{out}");
    assert!(out.contains("Alone, the app would have failed") && !out.contains('\x1b'), "{out}");
}

// Goal: as PID 1, whoever lost its parent is reaped. Method: a PID namespace; the app makes an orphan that ends, and
// looks for zombies.
#[test]
fn orphans_are_reaped_as_pid_1() {
    let namespace = ["--user", "--map-root-user", "--pid", "--fork", "--mount-proc"];
    let possible =
        Command::new("unshare").args(namespace).arg("true").output().is_ok_and(|tried| tried.status.success());
    if !possible {
        println!("skipped: unshare not permitted");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let file = directory.join("outrigger.yaml");
    std::fs::write(&file, configuration(directory, app())).unwrap();
    let script = "sh -c 'sleep 0.05 & exit 0'; \
                  for i in $(seq 500); do \
                      sleep 0.02; \
                      [ $(cat /proc/[0-9]*/stat 2>/dev/null | grep -c -e ') Z ' -e '(sleep) S 1 ') = 0 ] && exit 5; \
                  done; exit 6";
    let mut command = Command::new("unshare");
    command
        .args(namespace)
        .arg(env!("CARGO_BIN_EXE_outrigger"))
        .args(["run", "-c"])
        .arg(&file)
        .args(["--", "sh", "-c", script]);
    let (code, _, err) = said(&command.stdin(Stdio::null()).output().unwrap());
    assert_eq!(code, Some(5), "{err}");
}
