//! The choice among endpoints, seen from outside. Goal: a fast refuser is not taken for a fast server, an endpoint that
//! fails beside good ones is left out and comes back, and one bad endpoint costs no client anything. Method: the real
//! binary before raw apps that count what they are asked.
#![allow(clippy::disallowed_methods)]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use support::{Outrigger, RawApp, config, wire};

/// An app that answers everything with one status after a while, and counts.
struct Counting {
    app: RawApp,
    asked: Arc<AtomicU64>,
}

impl Counting {
    fn start(status: &'static str, after: Duration) -> Counting {
        let asked = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&asked);
        let app = RawApp::start(move |mut conn| {
            while conn.request().is_some() {
                counter.fetch_add(1, Ordering::SeqCst);
                thread::sleep(after); // the time of service
                conn.send(format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\nok"));
            }
        });
        Counting { app, asked }
    }

    fn address(&self) -> SocketAddr {
        self.app.address()
    }

    fn asked(&self) -> u64 {
        self.asked.load(Ordering::SeqCst)
    }
}

fn before(apps: &[&Counting], upstream: &str, extra: &str) -> Outrigger {
    let urls: Vec<String> = apps.iter().map(|app| format!("\"http://{}\"", app.address())).collect();
    let upstreams = format!("upstreams:\n  app: {{ endpoints: [{}], {upstream} }}\n", urls.join(", "));
    Outrigger::run(config("", &format!("{upstreams}{extra}")))
}

/// Statuses of `count` requests, four at a time.
fn load(to: SocketAddr, count: usize) -> Vec<u16> {
    let each = move |_| (0..count / 4).map(|_| wire::get(to, "/").status).collect::<Vec<u16>>();
    let threads: Vec<_> = (0..4).map(|number| thread::spawn(move || each(number))).collect();
    threads.into_iter().flat_map(|thread| thread.join().expect("a client")).collect()
}

#[test]
fn a_fast_refuser_gets_little() {
    let works = Counting::start("200 OK", Duration::from_millis(10));
    let refuses = Counting::start("429 Too Many Requests", Duration::ZERO);
    let outrigger = before(&[&works, &refuses], "balance: peak_ewma", "");
    let statuses = load(outrigger.web(), 400);
    // By requests in flight alone the refuser, always free, would get nearly all of them.
    assert!(refuses.asked() < 40, "the refuser was asked {} times of 400", refuses.asked());
    assert!(statuses.iter().filter(|status| **status == 200).count() > 360);
}

#[test]
fn the_other_policies_share_as_they_say() {
    let (one, other) = (Counting::start("200 OK", Duration::ZERO), Counting::start("200 OK", Duration::ZERO));
    let outrigger = before(&[&one, &other], "balance: round_robin", "");
    (0..40).for_each(|_| assert_eq!(wire::get(outrigger.web(), "/").status, 200));
    assert_eq!((one.asked(), other.asked()), (20, 20));
    let slow = Counting::start("200 OK", Duration::from_millis(40));
    let fast = Counting::start("200 OK", Duration::ZERO);
    let outrigger = before(&[&slow, &fast], "balance: least_request", "");
    load(outrigger.web(), 200);
    assert!(fast.asked() > slow.asked(), "fast {} slow {}", fast.asked(), slow.asked());
}

#[test]
fn who_fails_beside_good_ones_is_ejected_and_nobody_notices() {
    let good = [Counting::start("200 OK", Duration::ZERO), Counting::start("200 OK", Duration::ZERO)];
    let bad = Counting::start("502 Bad Gateway", Duration::ZERO);
    let upstream = "balance: round_robin, circuit_breaker: { mode: off }";
    let outrigger = before(&[&good[0], &bad, &good[1]], upstream, "");
    let statuses = load(outrigger.web(), 400);
    assert!(statuses.iter().all(|status| *status == 200), "retries go to another endpoint: {statuses:?}");
    let status = outrigger.status_until("an ejection", |status| {
        let endpoints = status["upstreams"][0]["endpoints"].as_array().expect("endpoints");
        endpoints.iter().map(|endpoint| endpoint["ejected"] == true).eq([false, true, false])
    });
    let events = status["events"].as_array().expect("events");
    let ejections: Vec<_> = events.iter().filter(|event| event["kind"] == "balance").collect();
    assert_eq!(ejections.len(), 1, "one event: {ejections:?}");
    assert!(ejections[0]["words"].as_str().is_some_and(|words| words.starts_with("ejected for 10s")));
    assert_eq!(outrigger.metric("outrigger_endpoint_ejected", &bad.address().to_string()), 1.0);
    let before = bad.asked();
    assert!(load(outrigger.web(), 100).iter().all(|status| *status == 200));
    assert_eq!(bad.asked(), before, "it is left alone");
}

#[test]
fn when_all_fail_alike_nobody_is_ejected() {
    let bad = [Counting::start("502 Bad Gateway", Duration::ZERO), Counting::start("502 Bad Gateway", Duration::ZERO)];
    let outrigger = before(&[&bad[0], &bad[1]], "circuit_breaker: { mode: off }", "");
    assert!(load(outrigger.web(), 200).iter().all(|status| *status == 502));
    assert_eq!(outrigger.metric("outrigger_endpoint_ejected", "app"), 0.0);
    assert!(bad.iter().all(|app| app.asked() > 0));
}
