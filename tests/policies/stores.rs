//! Limits that replicas count together in a real Redis: exact, and without it what was declared.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use outrigger::core::bucket::{self, Decision};
use outrigger::core::store::{Ask, SCRIPT, decisions};
use rustix::process::{Pid, Signal, kill_process};

use crate::support::postgres::free_port;
use crate::support::tools::{Running, have_tool};
use crate::support::{Outrigger, RawApp, Wire, config, eventually, wire};

fn redis(port: u16, more: &[&str]) -> Running {
    let mut command = std::process::Command::new("redis-server");
    command.args(["--save", "", "--appendonly", "no", "--bind", "127.0.0.1", "--port"]).arg(port.to_string());
    let running = Running::start(command.args(more));
    eventually("Redis listens", || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
    running
}

/// A limit in a store at `url`; the budget is wide, because this machine may be busy with other tests.
fn limited(app: &RawApp, limit: &str, url: &str) -> Outrigger {
    let text = format!(
        "service: {{ name: shop }}\nstores: {{ redis: {{ url: \"{url}\", timeout: 250ms }} }}\n\
         rate_limits: {{ fleet: {{ key: [client_ip], store: redis, {limit} }} }}\n\
         routes: [{{ name: all, match: {{ path: \"/*\" }}, rate_limits: [fleet] }}]\n"
    );
    Outrigger::run(config(app.address(), &text))
}

fn store(outrigger: &Outrigger, ok: bool) {
    outrigger.status_until("the store", |status| status["stores"][0]["ok"] == ok);
}

fn events(outrigger: &Outrigger) -> Vec<String> {
    let status = outrigger.status();
    let events = status["events"].as_array().expect("events").iter().filter(|event| event["kind"] == "store");
    events.map(|event| event["words"].as_str().expect("words").to_owned()).collect()
}

/// The script decides like the core's GCRA, on a clock that the test holds.
#[test]
fn the_script_decides_like_the_bucket() {
    if !have_tool("redis-server") {
        return;
    }
    let port = free_port();
    let _server = redis(port, &[]);
    let client = redis::Client::open(format!("redis://127.0.0.1:{port}")).expect("a client");
    let mut connection = client.get_connection().expect("a connection");
    let script = SCRIPT.replace("redis.call('TIME')", "{ARGV[#ARGV - 1], ARGV[#ARGV]}");
    // The server's own clock must not forget what is still owed on the test's.
    let script = script.replace("math.ceil(ahead / 1000) + 1", "60000");
    assert!(script.contains("60000") && !script.contains("TIME"));
    let mut random = 1u64;
    let mut below = |limit: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % limit
    };
    for key in 0..40 {
        let params = bucket::Params { emission: Duration::from_micros(1 + below(200_000)), burst: 1 + below(20) };
        let (mut tat, mut now) = (0u64, 1_790_000_000_000_000 + below(1_000_000));
        for step in 0..60 {
            now += below(2 * params.emission.as_micros() as u64);
            let ask =
                Ask { key: format!("k{key}"), params, cost: 1 + below(3.min(params.burst)), enforced: step % 2 == 0 };
            let mut command = redis::cmd("EVAL");
            command.arg(&script).arg(1).arg(&ask.key).arg(&ask.arguments());
            let answer: Vec<i64> =
                command.arg(now / 1_000_000).arg(now % 1_000_000).query(&mut connection).expect("an answer");
            let theirs = decisions(std::slice::from_ref(&ask), &answer).expect("a decision")[0];
            match (bucket::check(tat, &params, now * 1000, ask.cost), theirs) {
                (Decision::Allow { tat: next, remaining, reset }, told) => {
                    tat = next;
                    assert_eq!(told, Decision::Allow { tat: 0, remaining, reset }, "key {key}, step {step}");
                }
                (refuse, told) => assert_eq!(told, refuse, "key {key}, step {step}"),
            }
        }
    }
}

#[test]
fn a_refusal_of_one_limit_costs_nothing_at_the_others() {
    if !have_tool("redis-server") {
        return;
    }
    let port = free_port();
    let _server = redis(port, &[]);
    let client = redis::Client::open(format!("redis://127.0.0.1:{port}")).expect("a client");
    let mut connection = client.get_connection().expect("a connection");
    let params = |burst| bucket::Params { emission: Duration::from_secs(60), burst };
    let mut decide = |enforced: bool| {
        let small = Ask { key: "small".to_owned(), params: params(1), cost: 1, enforced };
        let large = Ask { key: "large".to_owned(), params: params(9), cost: 1, enforced: true };
        let asks = [large, small];
        let mut command = redis::cmd("EVAL");
        command.arg(SCRIPT).arg(2).arg(&asks[0].key).arg(&asks[1].key);
        for argument in asks.iter().flat_map(Ask::arguments) {
            command.arg(argument);
        }
        let answer: Vec<i64> = command.query(&mut connection).expect("an answer");
        let left = |decision: &Decision| match decision {
            Decision::Allow { remaining, .. } => Some(*remaining),
            Decision::Refuse { .. } => None,
        };
        decisions(&asks, &answer).expect("decisions").iter().map(left).collect::<Vec<_>>()
    };
    assert_eq!(decide(true), [Some(8), Some(0)]);
    // The small one refuses: what the large one would have had left is told, and not taken.
    assert_eq!(decide(true), [Some(7), None]);
    assert_eq!(decide(true), [Some(7), None]);
    // One that only watches costs the other nothing less.
    assert_eq!(decide(false), [Some(7), None]);
    assert_eq!(decide(false), [Some(6), None]);
}

#[test]
fn four_replicas_share_one_limit_within_a_percent() {
    if !have_tool("redis-server") {
        return;
    }
    let (port, app) = (free_port(), RawApp::fine());
    let _server = redis(port, &[]);
    let url = format!("redis://127.0.0.1:{port}");
    let replicas: Vec<Outrigger> = (0..4).map(|_| limited(&app, "rate: 200/s, burst: 1000", &url)).collect();
    replicas.iter().for_each(|replica| store(replica, true));
    let empty = Barrier::new(4);
    let run = |replica: &Outrigger| {
        let mut client = Wire::connect(replica.web());
        let mut ask = || {
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            let answer = client.response("GET");
            assert!([200, 429].contains(&answer.status), "{}", answer.status);
            answer.status == 200
        };
        // From when the burst is used up to when nothing is left again, and the burst is longer than that: however slow
        // the machine is, nothing of the rate is lost to a full bucket or at the end.
        while ask() {}
        empty.wait();
        let (began, mut allowed) = (Instant::now(), 0u32);
        loop {
            match ask() {
                true => allowed += 1,
                false if began.elapsed() >= Duration::from_secs(4) => return (allowed, began.elapsed()),
                false => {}
            }
        }
    };
    let counts: Vec<(u32, Duration)> = std::thread::scope(|scope| {
        let threads: Vec<_> = replicas.iter().map(|replica| scope.spawn(|| run(replica))).collect();
        threads.into_iter().map(|thread| thread.join().expect("a client")).collect()
    });
    let fair = 200.0 * counts.iter().map(|(_, time)| time.as_secs_f64()).sum::<f64>() / 4.0;
    let total = f64::from(counts.iter().map(|(count, _)| count).sum::<u32>());
    println!("{counts:?}: {total} of {fair:.1}");
    assert!((total - fair).abs() <= 0.01 * fair, "{counts:?}: {total} of {fair:.1}");
    assert!(replicas.iter().all(|replica| events(replica).is_empty()));
}

/// Redis is killed under load, comes back, is frozen, and goes on.
#[test]
fn without_its_store_a_limit_does_what_was_declared() {
    if !have_tool("redis-server") {
        return;
    }
    let app = RawApp::fine();
    for (away, full, empty) in [("local", 200, 429), ("open", 200, 200), ("closed", 503, 503)] {
        let port = free_port();
        let server = redis(port, &[]);
        let limit = format!("rate: 1/h, burst: 1000000, when_unavailable: {away}");
        let outrigger = limited(&app, &limit, &format!("redis://127.0.0.1:{port}"));
        let few = limited(&app, &format!("rate: 1/h, burst: 1, when_unavailable: {away}"), "redis://127.0.0.1:1");
        store(&outrigger, true);
        let ended = Arc::new(AtomicBool::new(false));
        let load = {
            let (ended, address) = (ended.clone(), outrigger.web());
            std::thread::spawn(move || {
                let (mut client, mut seen) = (Wire::connect(address), std::collections::BTreeMap::new());
                while !ended.load(Ordering::Relaxed) {
                    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
                    *seen.entry(client.response("GET").status).or_insert(0u32) += 1;
                }
                seen
            })
        };
        let unasked = |count: f64| {
            eventually("requests without the store", || {
                (outrigger.metric("outrigger_store_requests_total", "unasked") > count).then_some(())
            });
        };
        drop(server);
        store(&outrigger, false);
        unasked(50.0);
        let server = redis(port, &[]);
        store(&outrigger, true);
        let answered = outrigger.metric("outrigger_store_requests_total", "answered");
        eventually("it is asked again", || {
            (outrigger.metric("outrigger_store_requests_total", "answered") > answered + 50.0).then_some(())
        });
        let id = Pid::from_raw(i32::try_from(server.id()).expect("an id")).expect("an id");
        kill_process(id, Signal::STOP).expect("frozen");
        store(&outrigger, false);
        let before = outrigger.metric("outrigger_store_requests_total", "unasked");
        unasked(before + 50.0);
        kill_process(id, Signal::CONT).expect("goes on");
        store(&outrigger, true);
        ended.store(true, Ordering::Relaxed);
        let seen = load.join().expect("the load");
        assert!(seen.keys().all(|status| [200, full].contains(status)), "{away}: {seen:?}");
        assert!(seen[&200] > 20 && seen[&full] > 20, "{away}: {seen:?}");
        let told = events(&outrigger);
        assert_eq!(told.len(), 4, "{told:?}");
        assert!(told[0].starts_with("it is away (") && told[1].starts_with("it answers again after"), "{told:?}");
        assert!(told[2].contains("no answer within 250ms"), "{told:?}");
        store(&few, false);
        let statuses = [(); 3].map(|()| wire::get(few.web(), "/").status);
        assert_eq!(statuses, [full, empty, empty], "{away}");
        assert_eq!(events(&few).len(), 1);
        if away == "closed" {
            assert_eq!(wire::get(few.web(), "/").reason(), "limit_unavailable");
        }
    }
}

/// Something else than a Redis, in several ways of being something else.
#[test]
fn a_store_that_answers_garbage_is_away_and_told_once() {
    let app = RawApp::fine();
    let answers: [&'static [u8]; 6] = [
        b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n",
        b"+OK\r\n",
        b"*99999999\r\n$3\r\n",
        b"$-7\r\n:x\r\n",
        b"\x00\xff\xfe\x01garbage\r\n",
        b"",
    ];
    for answer in answers {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("its address").port();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                std::thread::spawn(move || {
                    let mut read = [0; 4096];
                    while stream.read(&mut read).is_ok_and(|count| count > 0) && !answer.is_empty() {
                        let _ = stream.write_all(answer);
                    }
                });
            }
        });
        let outrigger = limited(&app, "rate: 1/h, burst: 2", &format!("redis://127.0.0.1:{port}"));
        store(&outrigger, false);
        let statuses = [(); 3].map(|()| wire::get(outrigger.web(), "/").status);
        assert_eq!(statuses, [200, 200, 429], "{answer:?}");
        assert_eq!(events(&outrigger).len(), 1, "{:?}", events(&outrigger));
        assert_eq!(outrigger.ops("/livez").status, 200);
    }
}

#[test]
fn the_password_of_a_store_is_read_from_a_file_and_never_shown() {
    if !have_tool("redis-server") {
        return;
    }
    let (port, app) = (free_port(), RawApp::fine());
    let _server = redis(port, &["--requirepass", "very-secret-word"]);
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), "very-secret-word\n").expect("the secret");
    let url = format!("redis://:${{file:{}}}@127.0.0.1:{port}", file.path().display());
    let outrigger = limited(&app, "rate: 1/h, burst: 2", &url);
    store(&outrigger, true);
    assert_eq!([(); 3].map(|()| wire::get(outrigger.web(), "/").status), [200, 200, 429]);
    let wrong = limited(&app, "rate: 1/h, burst: 2", &format!("redis://:not-the-secret-word@127.0.0.1:{port}"));
    store(&wrong, false);
    for outrigger in [&outrigger, &wrong] {
        let shown = format!("{}{}{}", outrigger.status(), outrigger.metrics(), outrigger.stderr());
        assert!(!shown.contains("secret-word"), "{shown}");
    }
    let words = wrong.status()["stores"][0]["words"].to_string();
    assert!(words.to_lowercase().contains("password") || words.contains("WRONGPASS"), "{words}");
}

/// A restart takes the scripts away, and so does FLUSHALL with SCRIPT FLUSH: the script comes back by itself.
#[test]
fn a_flushed_script_is_loaded_again() {
    if !have_tool("redis-server") {
        return;
    }
    let (port, app) = (free_port(), RawApp::fine());
    let _server = redis(port, &[]);
    let outrigger = limited(&app, "rate: 1/h, burst: 2", &format!("redis://127.0.0.1:{port}"));
    store(&outrigger, true);
    assert_eq!(wire::get(outrigger.web(), "/").status, 200);
    let client = redis::Client::open(format!("redis://127.0.0.1:{port}")).expect("a client");
    redis::cmd("SCRIPT").arg("FLUSH").exec(&mut client.get_connection().expect("a connection")).expect("flushed");
    assert_eq!([(); 2].map(|()| wire::get(outrigger.web(), "/").status), [200, 429]);
    assert_eq!(outrigger.metric("outrigger_store_requests_total", "answered"), 2.0, "the last was refused here");
    assert!(events(&outrigger).is_empty());
}
