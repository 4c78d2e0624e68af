//! Rate limits from outside: composite keys, shadow mode, several limits on one route.

use crate::support::{Outrigger, RawApp, wire};

fn ask(outrigger: &Outrigger, path: &str, fields: &str) -> u16 {
    wire::ask(outrigger.web(), format!("GET {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n")).status
}

#[test]
fn a_composite_key_counts_each_combination() {
    let app = RawApp::fine();
    let extra = "rate_limits: { one: { key: [\"header:x-tenant\", \"cookie:sid\", route], rate: 1/h, burst: 1 } }\n\
        routes:\n\
        - { name: a, match: { path: /a }, rate_limits: [one] }\n\
        - { name: b, match: { path: /b }, rate_limits: [one] }\n";
    let outrigger = Outrigger::before(&app, extra);
    for (path, fields, status) in [
        ("/a", "X-Tenant: t\r\nCookie: x=y; sid=1\r\n", 200),
        ("/a", "X-Tenant: t\r\nCookie: sid=1\r\n", 429),
        ("/a", "X-Tenant: u\r\nCookie: sid=1\r\n", 200),
        ("/a", "X-Tenant: t\r\nCookie: sid=2\r\n", 200),
        ("/b", "X-Tenant: t\r\nCookie: sid=1\r\n", 200),
        ("/a", "", 200),
        ("/a", "", 429),
    ] {
        assert_eq!(ask(&outrigger, path, fields), status, "{path} {fields:?}");
    }
}

#[test]
fn shadow_refuses_nobody_and_names_who_would_have_been() {
    let app = RawApp::fine();
    let extra = "rate_limits: { tokens: { key: [\"header:authorization\"], rate: 1/h, burst: 2, mode: shadow } }\n\
        routes: [{ name: all, match: { path: \"/*\" }, rate_limits: [tokens] }]\n";
    let outrigger = Outrigger::before(&app, extra);
    for _ in 0..5 {
        let answer = wire::ask(outrigger.web(), "GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer s3cret\r\n\r\n");
        assert_eq!((answer.status, answer.get("ratelimit")), (200, None));
    }
    let status = outrigger.status();
    let limit = &status["rate_limits"][0];
    assert_eq!((&limit["mode"], &limit["allowed"], &limit["refused"]), (&"shadow".into(), &2.into(), &3.into()));
    assert_eq!(limit["refused_keys"][0]["count"], 3, "{limit}");
    let key = limit["refused_keys"][0]["key"].as_str().expect("a name");
    assert!(key.starts_with("authorization=~") && !key.contains("s3cret"), "{key}");
    assert_eq!(outrigger.metric("outrigger_rate_limit_decisions_total", "would_refuse"), 3.0);
}

#[test]
fn what_one_limit_refuses_costs_nothing_at_another() {
    let app = RawApp::fine();
    let extra = "rate_limits:\n  wide: { key: [client_ip], rate: 1/h, burst: 4, cost: 2 }\n  \
        tight: { key: [\"header:x-user\"], rate: 1/h, burst: 1 }\n\
        routes: [{ name: all, match: { path: \"/*\" }, rate_limits: [wide, tight] }]\n";
    let outrigger = Outrigger::before(&app, extra);
    assert_eq!(ask(&outrigger, "/", "X-User: a\r\n"), 200);
    for _ in 0..5 {
        assert_eq!(ask(&outrigger, "/", "X-User: a\r\n"), 429);
    }
    assert_eq!(ask(&outrigger, "/", "X-User: b\r\n"), 200, "the refused ones were not charged");
    assert_eq!(ask(&outrigger, "/", "X-User: c\r\n"), 429, "two requests of cost 2 are the burst of 4");
}
