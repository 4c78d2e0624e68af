//! Active health checks against servers of other people. Goal: a real gRPC server's verdict is the endpoint's, and what
//! is wrong is told in words an operator can act on. Method: grpcio in Python behind the real binary.
#![allow(clippy::disallowed_methods)]

mod support;

use std::process::Command;

use support::tools::{Running, python, script};
use support::{Outrigger, config};

/// A gRPC server whose health service says what `arguments` tell it to.
fn grpc_server(arguments: &[&str]) -> Option<Running> {
    let python = python(&["grpc"])?;
    Some(Running::start(Command::new(python).arg(script("health_service.py")).args(arguments)))
}

fn before(server: &Running, service: &str) -> Outrigger {
    let url = format!("http://127.0.0.1:{}", server.port());
    let check = format!("health_check: {{ grpc: {service}, interval: 100ms }}");
    Outrigger::run(config("", &format!("upstreams:\n  app: {{ endpoints: [\"{url}\"], {check} }}\n")))
}

fn verdict(outrigger: &Outrigger) -> (bool, String) {
    let decided = |status: &serde_json::Value| status["upstreams"][0]["endpoints"][0]["healthy"].is_boolean();
    let status = outrigger.status_until("a verdict", decided);
    let endpoint = &status["upstreams"][0]["endpoints"][0];
    (endpoint["healthy"] == true, endpoint["problem"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn a_real_grpc_server_is_checked() {
    let Some(server) = grpc_server(&[]) else { return };
    for service in ["shop.Cart", "\"\""] {
        let outrigger = before(&server, service);
        assert_eq!(verdict(&outrigger), (true, String::new()));
        assert_eq!(outrigger.ops("/readyz").status, 200);
    }
    let outrigger = before(&server, "shop.Basket");
    let (healthy, words) = verdict(&outrigger);
    assert!(!healthy && words.contains("does not know `shop.Basket`"), "{words}");
    assert_eq!(outrigger.ops("/readyz").status, 503);
}

#[test]
fn a_server_that_does_not_serve_is_unhealthy() {
    let Some(server) = grpc_server(&["not-serving"]) else { return };
    let (healthy, words) = verdict(&before(&server, "shop.Cart"));
    assert!(!healthy && words.contains("`shop.Cart` is NOT_SERVING"), "{words}");
}
