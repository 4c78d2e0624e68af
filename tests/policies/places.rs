//! Places at the app: who waits, who goes first, and who is turned away.

use std::sync::mpsc::{Sender, channel};

use crate::support::app::OK;
use crate::support::{DEADLINE, Outrigger, RawApp, Wire, config, wire};

/// An app that answers each request when it is told to.
fn patient() -> (RawApp, Sender<()>) {
    let (go, wait) = channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let app = RawApp::start(move |mut conn| {
        while conn.request().is_some() {
            let _ = wait.lock().expect("lock").recv_timeout(DEADLINE);
            conn.send(OK);
        }
    });
    (app, go)
}

fn before(app: &RawApp, concurrency: &str) -> Outrigger {
    let text = format!(
        "upstreams: {{ app: {{ endpoints: [\"http://{}\"], concurrency: {{ {concurrency} }} }} }}\n\
         trusted_proxies: [127.0.0.1/32]\n\
         routes:\n  - {{ name: low, match: {{ path: /low }}, priority: sheddable }}\n  \
         - {{ name: rest, match: {{ path: \"/*\" }} }}\n",
        app.address()
    );
    Outrigger::run(config("", &text))
}

fn send(outrigger: &Outrigger, path: &str, fields: &str) -> Wire {
    let mut client = Wire::connect(outrigger.web());
    client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
    client
}

fn waiting(outrigger: &Outrigger, count: f64) {
    crate::support::eventually("they wait", || {
        (outrigger.metric("outrigger_queue_length", "app") == count).then_some(())
    });
}

#[test]
fn a_request_waits_for_its_place() {
    let (app, go) = patient();
    let outrigger = before(&app, "max: 1, queue: { wait_max: 20s }");
    let mut clients: Vec<Wire> = (0..3).map(|_| send(&outrigger, "/", "")).collect();
    waiting(&outrigger, 2.0);
    crate::support::eventually("one is at the app", || (app.requests().len() == 1).then_some(()));
    for _ in 0..3 {
        go.send(()).expect("the app waits");
    }
    for client in &mut clients {
        assert_eq!(client.response("GET").status, 200);
    }
    assert_eq!(outrigger.metric("outrigger_queue_waited_total", "app"), 2.0);
    outrigger.idle();
}

#[test]
fn what_matters_more_takes_the_room_of_what_matters_less() {
    let (app, go) = patient();
    let outrigger = before(&app, "max: 1, queue: { max: 1, wait_max: 20s }");
    let mut first = send(&outrigger, "/", "");
    app.wait_for_requests(1);
    let mut low = send(&outrigger, "/low", "");
    waiting(&outrigger, 1.0);
    // A trusted hop says that this one is critical.
    let mut critical = send(&outrigger, "/low", "X-Request-Priority: critical\r\n");
    let shed = low.response("GET");
    assert_eq!((shed.status, shed.reason().as_str()), (503, "shed"));
    assert!(shed.get("retry-after").is_some());
    let full = wire::get(outrigger.web(), "/low");
    assert_eq!((full.status, full.reason().as_str()), (503, "concurrency_limit"));
    for _ in 0..2 {
        go.send(()).expect("the app waits");
    }
    assert_eq!((first.response("GET").status, critical.response("GET").status), (200, 200));
    assert_eq!(outrigger.metric("outrigger_admission_refused_total", "sheddable"), 2.0);
    outrigger.idle();
}

#[test]
fn a_client_that_leaves_the_queue_leaves_no_trace() {
    let (app, go) = patient();
    let outrigger = before(&app, "max: 1, queue: { wait_max: 20s }");
    let mut first = send(&outrigger, "/", "");
    app.wait_for_requests(1);
    let gone = send(&outrigger, "/", "");
    waiting(&outrigger, 1.0);
    drop(gone);
    waiting(&outrigger, 0.0);
    go.send(()).expect("the app waits");
    assert_eq!(first.response("GET").status, 200);
    outrigger.idle();
    assert_eq!(app.requests().len(), 1);
}
