//! Too much for Outrigger itself: connections and memory. What is there is served, what is too much is turned away at
//! once, and the ops port answers all the while.

use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::support::{Launch, Outrigger, RawApp, Wire, config, eventually, wire};

/// Whether a connection is served.
fn served(client: &mut Wire) -> bool {
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        && client.try_response("GET").is_ok_and(|answer| answer.status == 200)
}

fn connect(outrigger: &Outrigger, count: usize) -> Vec<Wire> {
    (0..count).map(|_| Wire::connect(outrigger.web())).collect()
}

#[test]
fn connections_above_the_cap_are_turned_away_and_ops_answers() {
    let app = RawApp::fine();
    let listeners = "listeners: [{ name: web, address: \"127.0.0.1:0\", connections: { max: 5 } }]\n";
    let outrigger = Outrigger::run(config(app.address(), listeners));
    let mut kept = connect(&outrigger, 5);
    assert!(kept.iter_mut().all(served));
    for mut other in connect(&outrigger, 20) {
        assert!(!served(&mut other));
    }
    assert!(kept.iter_mut().all(served), "those that are there go on");
    assert_eq!((outrigger.ops("/readyz").status, outrigger.ops("/metrics").status), (200, 200));
    assert_eq!(outrigger.metric("outrigger_connections_closed_early_total", "connections_max"), 20.0);
    let told = || outrigger.status()["events"].to_string();
    let full = "full: 5 connections are open, as many as connections.max allows";
    assert_eq!(told().matches(full).count(), 1, "{}", told());
    drop(kept);
    eventually("there is room again", || served(&mut Wire::connect(outrigger.web())).then_some(()));
    eventually("it is over", || told().contains("no longer full: ").then_some(()));
    // A second time is a second pair of events.
    let kept = connect(&outrigger, 5);
    assert!(!served(&mut Wire::connect(outrigger.web())));
    eventually("full again", || (told().matches(full).count() == 2).then_some(()));
    drop(kept);
    eventually("over again", || (told().matches("no longer full").count() == 2).then_some(()));
}

#[test]
fn with_few_descriptors_each_client_is_served_or_turned_away_and_ops_answers() {
    let (go, gate) = std::sync::mpsc::channel::<()>();
    let gate = std::sync::Mutex::new(gate);
    let app = RawApp::start(move |mut conn| {
        while conn.request().is_some() {
            // Ends when the test lets go.
            let _ = gate.lock().expect("lock").recv();
            conn.send(crate::support::app::OK);
        }
    });
    let outrigger = Launch::new(config(app.address(), "workers: 1\n")).through("ulimit -n 96; exec \"$@\"").start();
    let mut clients = connect(&outrigger, 60);
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n"); // to some of them the door is closed already
    }
    eventually("it is at its limit", || {
        (outrigger.metric("outrigger_connections_closed_early_total", "file_descriptors") >= 36.0).then_some(())
    });
    assert_eq!((outrigger.ops("/readyz").status, outrigger.ops("/metrics").status), (200, 200));
    drop(go);
    let served = clients.iter_mut().filter_map(|client| client.try_response("GET").ok());
    let statuses: Vec<u16> = served.map(|answer| answer.status).collect();
    assert_eq!(statuses, [200; 24]);
    assert!(!outrigger.stderr().contains("cannot accept"), "{}", outrigger.stderr());
}

#[test]
fn when_memory_is_short_fewer_connections_are_let_in_and_never_none() {
    let app = RawApp::fine();
    let config = config(app.address(), "");
    let outrigger = Launch::new(config).through("ulimit -m 8000000; exec \"$@\"").start();
    let pid = Pid::from_raw(i32::try_from(outrigger.id()).expect("an id"));
    let limit = |bytes: usize| {
        let wanted = Rlimit { current: Some(bytes as u64), maximum: Some(8_000_000 << 10) };
        prlimit(pid, Resource::Rss, wanted).expect("a limit");
    };
    let short = || outrigger.metric("outrigger_memory_short", "");
    let mut kept = connect(&outrigger, 40);
    assert!(kept.iter_mut().all(served));
    assert_eq!(short(), 0.0);
    limit(outrigger.memory());
    eventually("memory is short", || (short() == 1.0).then_some(()));
    // 40 are more than it keeps, so that no other is let in; nobody who is there is sent away.
    for mut other in connect(&outrigger, 10) {
        assert!(!served(&mut other));
    }
    assert!(kept.iter_mut().all(served));
    assert_eq!(outrigger.metric("outrigger_connections_closed_early_total", "reason=\"memory\""), 10.0);
    assert_eq!(outrigger.ops("/livez").status, 200);
    kept.truncate(2);
    eventually("those that left make room", || served(&mut Wire::connect(outrigger.web())).then_some(()));
    limit(4_000_000 << 10);
    eventually("memory is not short any more", || (short() == 0.0).then_some(()));
    let mut many = connect(&outrigger, 40);
    assert!(many.iter_mut().all(served));
    let told = outrigger.status()["events"].to_string();
    assert!(told.contains("connections until it is less") && told.contains("all are let in again"), "{told}");
}

/// Clients that send nothing, or half of a request, hold connections and no places; ops and everybody else go on.
#[test]
fn idle_and_slow_connections_cost_others_nothing() {
    let app = RawApp::fine();
    let outrigger = Outrigger::before(&app, "");
    let silent = connect(&outrigger, 300);
    let mut halves = connect(&outrigger, 100);
    for half in &mut halves {
        half.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nhalf");
    }
    for _ in 0..50 {
        assert_eq!(wire::get(outrigger.web(), "/").status, 200);
    }
    assert_eq!(outrigger.metric("outrigger_upstream_in_flight", "app"), 0.0, "no place is held by what has not come");
    assert_eq!(outrigger.ops("/readyz").status, 200);
    drop((silent, halves));
    outrigger.idle();
}
