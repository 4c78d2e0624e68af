//! The ops and admin routers, asked as a client would ask them, without sockets.

use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::Router;
use axum::body::Body;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use outrigger::admin::{Board, Command, DrainAnswer, ReloadAnswer, admin_router, ops_router};
use outrigger::core::breaker::{Forced, Params, State};
use outrigger::plan::compile::compile;
use outrigger::proxy::Shared;
use outrigger::state::clock;
use outrigger::state::lifecycle::Stage;
use outrigger::state::states::States;
use outrigger::telemetry::Telemetry;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tower_service::Service;

const CONFIGURATION: &str = "
service: { name: shop }
upstreams:
  app: { endpoints: [\"http://127.0.0.1:1\"] }
  plain: { endpoints: [\"http://127.0.0.1:2\"], circuit_breaker: { mode: off } }
routes:
  - { name: plain, match: { path: \"/plain\" }, upstream: plain }
  - { name: everything, match: { path: \"/*\" }, upstream: app }
telemetry: { access_log: { to: off } }
";

fn shared() -> Arc<Shared> {
    let base = std::path::Path::new(".");
    let loaded = outrigger::config::load_text(CONFIGURATION, "test", base, &|_| None).unwrap();
    let telemetry = Telemetry::start(outrigger::app::options::telemetry(&loaded.settings), 1).unwrap();
    let states = Arc::new(States::default());
    let plan = compile(&loaded.settings, &loaded.hash, &states, &telemetry).unwrap();
    Arc::new(Shared { states, telemetry, plans: ArcSwap::from_pointee(plan) })
}

fn ops(shared: &Arc<Shared>) -> Router {
    ops_router(Arc::clone(shared))
}

/// An admin router and the other end of its commands.
fn admin(shared: &Arc<Shared>, token: Option<&str>) -> (Router, mpsc::Receiver<Command>) {
    let (sender, commands) = mpsc::channel(4);
    (admin_router(Arc::clone(shared), sender, token, Board::new(clock::now())), commands)
}

async fn send(router: &Router, request: Request<Body>) -> (StatusCode, http::HeaderMap, String) {
    let response = router.clone().call(request).await.unwrap();
    let (head, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    (head.status, head.headers, String::from_utf8(bytes.to_vec()).unwrap())
}

async fn get(router: &Router, path: &str) -> (StatusCode, Value) {
    let request = Request::get(path).header("host", "localhost:9901").body(Body::empty()).unwrap();
    let (status, _, text) = send(router, request).await;
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

async fn post(router: &Router, path: &str, body: &Value) -> (StatusCode, Value) {
    let request = Request::post(path).header("host", "localhost").header("content-type", "application/json");
    let (status, _, text) = send(router, request.body(Body::from(body.to_string())).unwrap()).await;
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

// Goal: whoever reads answers by program reads one form. Method: what axum itself refuses.
#[tokio::test]
async fn every_error_is_told_in_one_form() {
    let shared = shared();
    let (admin, _commands) = admin(&shared, None);
    let ask = |method: &str, path: &str, kind: &str, body: &str| {
        let request =
            Request::builder().method(method).uri(path).header("host", "localhost").header("content-type", kind);
        send(&admin, request.body(Body::from(body.to_owned())).unwrap())
    };
    for (status, words, asked) in [
        (400, "invalid digit", ask("POST", "/breaker/app/open?seconds=x", "text/plain", "").await),
        (400, "invalid digit", ask("GET", "/recent?limit=x", "text/plain", "").await),
        (415, "Content-Type", ask("POST", "/flag", "text/plain", "{}").await),
        (422, "missing field", ask("POST", "/flag", "application/json", "{}").await),
        (405, "method not allowed", ask("GET", "/reload", "text/plain", "").await),
        (404, "there is nothing here", ask("GET", "/nowhere", "text/plain", "").await),
    ] {
        let (found, fields, text) = asked;
        assert_eq!(found.as_u16(), status, "{text}");
        assert!(fields["content-type"] == "application/json" && fields["cache-control"] == "no-store", "{fields:?}");
        let told: Value = serde_json::from_str(&text).unwrap();
        assert!(told["error"].as_str().unwrap().contains(words), "{text}");
        assert_eq!(fields.contains_key("allow"), status == 405);
    }
}

#[tokio::test]
async fn probes_follow_the_stage_and_have_their_aliases() {
    let shared = shared();
    let ops = ops(&shared);
    for path in ["/readyz", "/ready", "/health", "/healthz", "/startupz"] {
        let (status, report) = get(&ops, path).await;
        assert_eq!((status, &report["ready"]), (StatusCode::SERVICE_UNAVAILABLE, &json!(false)), "{path}");
    }
    assert_eq!(get(&ops, "/livez").await.0, StatusCode::OK);
    shared.states.lifecycle.advance(Stage::Serving);
    shared.states.lifecycle.app_came_up();
    for path in ["/livez", "/readyz", "/ready", "/health", "/healthz", "/startupz"] {
        assert_eq!(get(&ops, path).await.0, StatusCode::OK, "{path}");
    }
    shared.states.lifecycle.advance(Stage::Delaying);
    assert_eq!(get(&ops, "/readyz").await.0, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(get(&ops, "/livez").await.0, StatusCode::OK, "a draining process must not be killed as dead");
}

#[tokio::test]
async fn the_ops_port_cannot_change_anything() {
    let ops = ops(&shared());
    let (status, _, _) = send(&ops, Request::post("/readyz").body(Body::empty()).unwrap()).await;
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(get(&ops, "/reload").await.0, StatusCode::NOT_FOUND);
    let (status, _, body) = send(&ops, Request::head("/livez").body(Body::empty()).unwrap()).await;
    assert_eq!((status, body.as_str()), (StatusCode::OK, ""));
}

// Goal: what Prometheus refuses (a family declared twice, a sample without its family) does not happen.
#[tokio::test]
async fn every_metric_family_is_declared_once() {
    let request = Request::get("/metrics").body(Body::empty()).unwrap();
    let (status, headers, text) = send(&ops(&shared()), request).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let mut families = std::collections::HashSet::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let name = rest.split(' ').next().unwrap();
            assert!(families.insert(name.to_owned()), "{name} is declared twice");
        } else if !line.starts_with('#') {
            let name = line.split(['{', ' ']).next().unwrap();
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
            let known = families.contains(name) || base.is_some_and(|base| families.contains(base));
            assert!(known, "{name} has no family");
        }
    }
    for name in ["outrigger_config_stale", "outrigger_ready", "outrigger_breaker_state", "outrigger_in_flight"] {
        assert!(families.contains(name), "{name}");
    }
}

#[tokio::test]
async fn status_tells_everything_and_why_an_endpoint_is_refused() {
    let shared = shared();
    let (admin, _commands) = admin(&shared, None);
    let plan = shared.plans.load_full();
    let endpoint = &plan.upstreams[0].endpoints[0];
    let fall = outrigger::core::health::Params { rise: 1, fall: 1 };
    let _ = endpoint.state.checked(Err("connection refused".to_owned()), &fall, clock::now()); // what changed is looked at below
    shared.states.reload.refused(vec!["timeouts.total: 0s".to_owned()]);
    let (status, value) = get(&admin, "/status").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(value["service"], "shop");
    assert_eq!(value["ready"], false);
    assert_eq!(value["config"]["hash"], json!(plan.hash));
    assert_eq!(value["config"]["stale"], true);
    assert_eq!(value["config"]["problems"], json!(["timeouts.total: 0s"]));
    assert_eq!(value["waiting_for"], json!(["app: connection refused"]));
    assert_eq!(value["upstreams"][0]["endpoints"][0]["healthy"], false);
    assert_eq!(value["upstreams"][0]["endpoints"][0]["problem"], "connection refused");
    assert_eq!(value["upstreams"][1]["endpoints"][0]["breaker"], "off");
    let routes: Vec<_> = value["routes"].as_array().unwrap().iter().map(|route| &route["name"]).collect();
    assert_eq!(routes, ["plain", "everything"]);
}

#[tokio::test]
async fn a_breaker_is_forced_and_given_back() {
    let shared = shared();
    let (admin, _commands) = admin(&shared, None);
    let plan = shared.plans.load_full();
    let state = &plan.upstreams[0].endpoints[0].state;
    let params: Params = plan.upstreams[0].breaker.unwrap().endpoint;
    let journal = &shared.states.journal;
    assert_eq!(post(&admin, "/breaker/app/open", &Value::Null).await.0, StatusCode::OK);
    assert!(state.breaker.admit(&params, journal, clock::now()).is_err(), "a forced breaker refuses");
    let (_, route) = &plan.upstreams[0].state.route_breakers()[0];
    assert!(route.admit(&params, journal, clock::now()).is_err(), "and so does that of its route");
    assert_eq!(get(&admin, "/status").await.1["upstreams"][0]["endpoints"][0]["breaker"], "forced_open");
    assert_eq!(post(&admin, "/breaker/app/auto", &Value::Null).await.0, StatusCode::OK);
    assert_eq!(state.breaker_state(clock::now()), State::Closed);
    // Nobody remembers a command for ever.
    assert_eq!(
        post(&admin, "/breaker/app/open?seconds=60&by=ann&why=its%20disk", &Value::Null).await.0,
        StatusCode::OK
    );
    assert_eq!(state.breaker_state(clock::now() + std::time::Duration::from_secs(59)), State::Forced(Forced::Open));
    assert_eq!(state.breaker_state(clock::now() + std::time::Duration::from_secs(61)), State::Closed);
    assert_eq!(post(&admin, "/breaker/app/auto", &Value::Null).await.0, StatusCode::OK);
    let events = shared.states.journal.recent(10);
    let told = |words: &str| events.iter().any(|event| event.subject == "app" && event.words == words);
    assert!(told("forced open for 60s by ann: its disk"), "{events:?}");
    assert!(told("left to judge by itself, by somebody at the admin port"), "{events:?}");

    let (status, answer) = post(&admin, "/breaker/nope/open", &Value::Null).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(answer["error"].as_str().unwrap().contains("there is app, plain"), "{answer}");
    assert_eq!(post(&admin, "/breaker/app/ajar", &Value::Null).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(post(&admin, "/breaker/plain/open", &Value::Null).await.0, StatusCode::CONFLICT);
    let request = Request::get("/breaker/app/open").header("host", "localhost").body(Body::empty()).unwrap();
    assert_eq!(send(&admin, request).await.0, StatusCode::METHOD_NOT_ALLOWED, "an image tag must not open it");
}

#[tokio::test]
async fn a_command_is_passed_on_and_its_answer_given() {
    let shared = shared();
    let (admin, mut commands) = admin(&shared, None);
    let app = tokio::spawn(async move {
        let mut seen = Vec::new();
        while let Some(command) = commands.recv().await {
            match command {
                Command::Reload { to, reply } => {
                    seen.push(format!("reload {to:?}"));
                    let bad = to.is_some();
                    let good = ReloadAnswer { hash: "abc".to_owned(), changed: true, ..ReloadAnswer::default() };
                    reply.send(if bad { Err(vec!["no".to_owned()]) } else { Ok(good) }).unwrap();
                }
                Command::Diff { name, base, text, reply } => {
                    seen.push(format!("diff {name} {base} {text}"));
                    reply.send(Err(vec!["bad file".to_owned()])).unwrap();
                }
                Command::Drain { reply } => {
                    seen.push("drain".to_owned());
                    let _ = reply.send(DrainAnswer { finished: 3, ..DrainAnswer::default() }); // not always awaited
                }
            }
        }
        seen
    });
    let (status, answer) = post(&admin, "/reload", &json!({})).await;
    assert_eq!((status, &answer["hash"]), (StatusCode::OK, &json!("abc")));
    let (status, answer) = post(&admin, "/reload", &json!({ "to": "def" })).await;
    assert_eq!((status, &answer["problems"]), (StatusCode::CONFLICT, &json!(["no"])));
    let question = json!({ "name": "a.yaml", "base": "/etc", "text": "x" });
    assert_eq!(post(&admin, "/diff", &question).await.0, StatusCode::CONFLICT);
    assert_eq!(post(&admin, "/drain", &json!({})).await.0, StatusCode::ACCEPTED);
    let (status, answer) = post(&admin, "/drain", &json!({ "wait": true })).await;
    assert_eq!((status, &answer["finished"]), (StatusCode::OK, &json!(3)));
    drop(admin);
    let seen = app.await.unwrap();
    assert_eq!(seen, ["reload None", "reload Some(\"def\")", "diff a.yaml /etc x", "drain", "drain"]);
}

#[tokio::test]
async fn an_ending_process_says_that_it_is_too_late() {
    let (admin, commands) = admin(&shared(), None);
    drop(commands);
    assert_eq!(post(&admin, "/reload", &json!({})).await.0, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(post(&admin, "/drain", &json!({})).await.0, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn pages_other_names_and_wrong_tokens_reach_nothing() {
    let shared = shared();
    let ask = |router: Router, headers: &[(&str, &str)]| {
        let request =
            headers.iter().fold(Request::post("/drain"), |request, (name, value)| request.header(*name, *value));
        async move { send(&router, request.body(Body::empty()).unwrap()).await.0 }
    };
    let (open, mut commands) = admin(&shared, None);
    assert_eq!(ask(open.clone(), &[("host", "evil.example")]).await, StatusCode::FORBIDDEN);
    let page = [("host", "localhost"), ("origin", "https://evil.example")];
    assert_eq!(ask(open.clone(), &page).await, StatusCode::FORBIDDEN);
    let (closed, mut guarded) = admin(&shared, Some("s3cret"));
    assert_eq!(ask(closed.clone(), &[("host", "localhost")]).await, StatusCode::UNAUTHORIZED);
    let wrong = [("host", "localhost"), ("authorization", "Bearer s3cre")];
    assert_eq!(ask(closed.clone(), &wrong).await, StatusCode::UNAUTHORIZED);
    assert!(commands.try_recv().is_err() && guarded.try_recv().is_err(), "no command got through");
    let right = [("host", "10.0.0.1:9901"), ("authorization", "Bearer s3cret")];
    assert_eq!(ask(closed, &right).await, StatusCode::ACCEPTED);
    assert!(matches!(guarded.try_recv(), Ok(Command::Drain { .. })));
}

#[tokio::test]
async fn a_request_that_is_not_remembered_is_not_found() {
    let (admin, _commands) = admin(&shared(), None);
    let (status, answer) = get(&admin, "/why/nope").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(answer["error"].as_str().unwrap().contains("no request with this id"), "{answer}");
    assert_eq!(get(&admin, "/recent").await.1["requests"], json!([]));
    assert_eq!(get(&admin, "/nothing").await.0, StatusCode::NOT_FOUND);
}
