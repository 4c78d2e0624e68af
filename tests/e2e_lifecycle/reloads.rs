//! Reloads under load. Goal: no request, no connection and no WebSocket notices. Method: kept connections must stay
//! the same ones, every answer is checked, and each plan leaves its mark on answers.

use std::os::unix::fs::symlink;
use std::sync::atomic::Ordering;

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, prlimit};

use crate::support::load::{self, Load, Mix};
use crate::support::{Launch, Outrigger, RawApp, Wire, config, eventually, wire};

fn marked(app: std::net::SocketAddr, mark: usize) -> String {
    let routes = format!(
        "routes: [{{ match: {{ path: \"/*\" }}, headers: {{ response: {{ set: {{ x-plan: \"{mark}\" }} }} }} }}]\n"
    );
    config(app, &(routes + "telemetry: { access_log: { to: off } }\n"))
}

fn plan(outrigger: &Outrigger) -> String {
    wire::get(outrigger.web(), "/fast").get("x-plan").unwrap_or_default().to_owned()
}

#[test]
fn fifty_reloads_by_every_trigger_disturb_nobody() {
    let app = load::app();
    let outrigger = Outrigger::run(marked(app, 0));
    let load = Load::start(outrigger.web(), Mix::default());
    load.flows(500);
    let mut good = 0;
    for number in 1..=50 {
        let broken = number % 5 == 0;
        let text = if broken { "upstream: [\n".to_owned() } else { marked(app, number) };
        // By its content: rewritten in place, or renamed over, as editors do.
        if number % 2 == 0 {
            std::fs::write(outrigger.file(), &text).expect("write");
        } else {
            outrigger.write_config(&text);
        }
        match number % 4 {
            0 => outrigger.signal(Signal::HUP),
            1 | 2 => assert_eq!(outrigger.admin_post("/reload").status == 200, !broken, "reload {number}"),
            _ => {} // noticed by itself
        }
        if broken {
            outrigger.status_until("it is refused", |status| status["config"]["stale"] == true);
        } else {
            good = number;
        }
        eventually("its mark", || (plan(&outrigger) == good.to_string()).then_some(()));
        load.flows(100);
    }
    // How fast it flows is the machine's affair; that every kind of traffic was there is ours.
    let lanes = ["kept", "fresh", "slow", "echo", "stream", "websocket"];
    let flowed = |lane: &&str| load.seen.by_lane().get(lane).is_some_and(|count| *count > 10);
    eventually("every lane flows", || lanes.iter().all(flowed).then_some(()));
    let seen = load.stop();
    assert_eq!(seen.failed(), Vec::<String>::new());
    assert_eq!(seen.reconnected.load(Ordering::SeqCst), 0, "connections were closed");
    assert_eq!(seen.raced.load(Ordering::SeqCst), 0, "connections were closed");
    assert!(seen.good() >= 1500, "that was no load: {}", seen.good());
    outrigger.idle();
}

#[test]
fn a_request_uses_one_plan_from_start_to_end() {
    // It starts under the first plan and ends long after the second has come.
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let app = RawApp::start(move |mut conn| {
        while let Some(request) = conn.request() {
            if request.target() == "/held" {
                let _ = wait.lock().expect("lock").recv_timeout(crate::support::DEADLINE);
            }
            conn.send(crate::support::app::OK);
        }
    });
    let outrigger = Outrigger::run(marked(app.address(), 1));
    let mut held = Wire::connect(outrigger.web());
    held.send("GET /held HTTP/1.1\r\nHost: a\r\n\r\n");
    app.wait_for_requests(1);
    outrigger.write_config(&marked(app.address(), 2));
    assert_eq!(outrigger.admin_post("/reload").status, 200);
    assert_eq!(plan(&outrigger), "2");
    go.send(()).expect("the app waits");
    assert_eq!(held.response("GET").get("x-plan"), Some("1"));
    held.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(held.response("GET").get("x-plan"), Some("2"), "the next one on the same connection");
}

#[test]
fn a_kubernetes_mount_is_followed() {
    // A ConfigMap: the file is a link through ..data, and an update swaps that link by a rename.
    let app = load::app();
    let launch = Launch::new(marked(app, 0));
    let mount = launch.directory().join("mount");
    let update = |number: usize| {
        let data = mount.join(format!("..data_{number}"));
        std::fs::create_dir_all(&data).expect("a directory");
        std::fs::write(data.join("outrigger.yaml"), marked(app, number)).expect("write");
        symlink(format!("..data_{number}"), mount.join("..data_tmp")).expect("a link");
        std::fs::rename(mount.join("..data_tmp"), mount.join("..data")).expect("the swap");
    };
    update(1);
    symlink("..data/outrigger.yaml", mount.join("outrigger.yaml")).expect("a link");
    let outrigger = launch.start_with(&mount.join("outrigger.yaml"));
    assert_eq!(plan(&outrigger), "1");
    for number in 2..5 {
        update(number);
        eventually("the new plan", || (plan(&outrigger) == number.to_string()).then_some(()));
    }
}

#[test]
fn limits_and_breakers_survive_a_reload() {
    let app = RawApp::start(|mut conn| {
        if conn.request().is_some_and(|request| request.target() == "/reset") {
            return conn.reset();
        }
        conn.send(crate::support::app::OK);
    });
    let text = |comment: &str| {
        config(
            app.address(),
            &format!(
                "upstreams: {{ app: {{ endpoints: [\"http://{}\"], circuit_breaker: {{ consecutive_failures: 2, open_for: \
                 {{ base: 60s, max: 60s }} }} }} }}\nretry: {{ attempts: 1 }}\nrate_limits: {{ few: {{ key: [client_ip], \
                 rate: 2/h, burst: 2 }} }}\nroutes:\n- {{ name: limited, match: {{ path: /limited }}, rate_limits: [few], \
                 headers: {{ response: {{ set: {{ x-plan: {comment} }} }} }} }}\n- {{ match: {{ path: \"/*\" }} }}\n",
                app.address()
            ),
        )
    };
    let outrigger = Outrigger::run(text("one"));
    assert_eq!(
        [wire::get(outrigger.web(), "/limited").status, wire::get(outrigger.web(), "/limited").status],
        [200, 200]
    );
    assert_eq!(wire::get(outrigger.web(), "/limited").status, 429);
    for _ in 0..2 {
        assert_eq!(wire::get(outrigger.web(), "/reset").status, 502);
    }
    assert_eq!(wire::get(outrigger.web(), "/other").reason(), "breaker_open");
    outrigger.write_config(&text("two"));
    let answer = outrigger.admin_post("/reload");
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(wire::get(outrigger.web(), "/limited").status, 429, "the limit was given back");
    assert_eq!(wire::get(outrigger.web(), "/other").reason(), "breaker_open", "the breaker was forgotten");
}

#[test]
fn listeners_come_and_go_and_the_others_stay() {
    let app = load::app();
    let outrigger = Outrigger::run(config(app, ""));
    let mut kept = Wire::connect(outrigger.web());
    kept.send("GET /fast HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(kept.response("GET").status, 200);
    let two = "listeners: [{ name: web, address: \"127.0.0.1:0\" }, { name: more, address: \"127.0.0.2:0\" }]\n";
    outrigger.write_config(&config(app, two));
    assert_eq!(outrigger.admin_post("/reload").status, 200);
    let more = outrigger.address("more");
    assert_eq!(wire::get(more, "/fast").status, 200);
    kept.send("GET /fast HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(kept.response("GET").status, 200, "a connection of the listener that stayed");
    outrigger.write_config(&config(app, ""));
    assert_eq!(outrigger.admin_post("/reload").status, 200);
    eventually("the listener is gone", || std::net::TcpStream::connect(more).is_err().then_some(()));
    kept.send("GET /fast HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(kept.response("GET").status, 200);
}

/// Sets the soft limit on file descriptors from outside; without one, to the hard one, which it has inherited from us.
fn descriptors(outrigger: &Outrigger, soft: Option<u64>) {
    let pid = Pid::from_raw(i32::try_from(outrigger.id()).expect("an id"));
    let maximum = getrlimit(Resource::Nofile).maximum;
    prlimit(pid, Resource::Nofile, Rlimit { current: soft.or(maximum), maximum }).expect("a limit");
}

// Goal: out of file descriptors, nothing is known of a file, which is no reason to call it bad. Method: the limit is
// taken away and given back from outside.
#[test]
fn without_descriptors_no_file_is_called_bad_and_a_change_is_taken_later() {
    let app = RawApp::fine();
    let outrigger = Outrigger::run(marked(app.address(), 1));
    assert_eq!(plan(&outrigger), "1");
    descriptors(&outrigger, Some(8));
    // The same again: an event without a change.
    outrigger.write_config(&marked(app.address(), 1));
    let told = outrigger.wait_for_log("the shortage", |line| {
        line["message"].as_str().is_some_and(|words| words.contains("changes of files are not seen for now"))
    });
    let words = told["message"].as_str().unwrap_or_default().to_owned();
    assert!(words.contains("the limit is 8 open files") && words.contains("ulimit -n"), "{words}");
    outrigger.write_config(&marked(app.address(), 2));
    outrigger.signal(Signal::HUP);
    outrigger.wait_for_log("the reload that could not be", |line| {
        line["message"].as_str().is_some_and(|words| words.contains("it is tried again"))
    });
    descriptors(&outrigger, None);
    eventually("the change", || (plan(&outrigger) == "2").then_some(()));
    let log = outrigger.stderr();
    assert!(!log.contains("configuration refused"), "{log}");
    assert_eq!(log.matches("changes of files are not seen").count(), 1, "told once: {log}");
    assert_eq!(outrigger.status()["config"]["stale"], false);
}
