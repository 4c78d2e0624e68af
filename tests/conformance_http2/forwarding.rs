//! What an HTTP/1 app sees of an HTTP/2 request, and the client of its answer.

use http::Request;

use crate::support::http2::{Client, request};
use crate::support::{Outrigger, RawApp};

fn with(fields: &[(&str, &str)]) -> Request<()> {
    let mut made = Request::builder().method("GET").uri("http://a.example:81/x?q=1");
    for (name, value) in fields {
        made = made.header(*name, *value);
    }
    made.body(()).expect("a request")
}

#[test]
fn the_authority_becomes_the_host() {
    let app = RawApp::fine();
    let outrigger = Outrigger::before(&app, "");
    let client = Client::connect(outrigger.web());
    let answer = client.ask(with(&[("x-list", "1"), ("x-list", "2")]), &[], None).expect("an answer");
    assert_eq!((answer.status(), answer.text().as_str()), (200, "ok"));
    let seen = app.only_request();
    assert_eq!((seen.method(), seen.target(), seen.version()), ("GET", "/x?q=1", "HTTP/1.1"));
    assert_eq!(seen.head.all("host"), ["a.example:81"]);
    assert_eq!(seen.head.all("x-list"), ["1", "2"]);
    assert!(seen.get("via").is_some_and(|via| via.starts_with("2")), "{:?}", seen.head.fields);
    assert!(!seen.head.chunked() && !seen.head.has("content-length"), "{:?}", seen.head.fields);
    assert!(seen.head.fields.iter().all(|(name, _)| !name.starts_with(':')), "{:?}", seen.head.fields);
}

#[test]
fn a_host_that_says_the_same_passes_and_another_is_refused() {
    let app = RawApp::fine();
    let outrigger = Outrigger::before(&app, "");
    let client = Client::connect(outrigger.web());
    assert_eq!(client.ask(with(&[("host", "A.example:81")]), &[], None).expect("an answer").status(), 200);
    assert_eq!(app.only_request().head.all("host").len(), 1);
    for host in ["b.example:81", "a.example", "", "a@b c"] {
        let answer = client.ask(with(&[("host", host)]), &[], None).expect("an answer");
        assert_eq!(answer.status(), 400, "{host:?}");
        assert!(answer.reason().starts_with("host_"), "{host:?}: {}", answer.text());
    }
    let twice = client.ask(with(&[("host", "a.example:81"), ("host", "a.example:81")]), &[], None);
    assert_eq!(twice.expect("an answer").status(), 400);
    assert_eq!(app.requests().len(), 1);
}

#[test]
fn split_cookies_are_joined() {
    let app = RawApp::fine();
    let outrigger = Outrigger::before(&app, "");
    let client = Client::connect(outrigger.web());
    client.ask(with(&[("cookie", "a=1"), ("cookie", "b=2; c=3"), ("cookie", "d=4")]), &[], None).expect("an answer");
    assert_eq!(app.only_request().head.all("cookie"), ["a=1; b=2; c=3; d=4"]);
}

#[test]
fn te_trailers_passes() {
    let app = RawApp::fine();
    let outrigger = Outrigger::before(&app, "");
    let client = Client::connect(outrigger.web());
    assert_eq!(client.ask(with(&[("te", "trailers")]), &[], None).expect("an answer").status(), 200);
    assert_eq!(app.only_request().get("te"), Some("trailers"));
}

#[test]
fn fields_of_the_apps_connection_do_not_reach_the_client() {
    let app = RawApp::answering(
        "HTTP/1.1 200 OK\r\nConnection: keep-alive, x-hop\r\nKeep-Alive: timeout=5\r\nX-Hop: 1\r\nX-Stays: 1\r\n\
         Transfer-Encoding: chunked\r\nUpgrade: h2c\r\nProxy-Connection: x\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    );
    let outrigger = Outrigger::before(&app, "");
    let client = Client::connect(outrigger.web());
    let answer = client.get("/");
    assert_eq!((answer.status(), answer.text().as_str()), (200, "ok"));
    assert!(answer.broken.is_none());
    for name in ["connection", "keep-alive", "x-hop", "transfer-encoding", "upgrade", "proxy-connection"] {
        assert_eq!(answer.get(name), None, "{name}");
    }
    assert_eq!(answer.get("x-stays"), Some("1"));
}

#[test]
fn methods_and_statuses_pass() {
    let app = RawApp::start(|mut conn| {
        while let Some(request) = conn.request() {
            let status = &request.target()[1..];
            let length = if ["204", "304"].contains(&status) { "" } else { "content-length: 2\r\n" };
            let bodiless = length.is_empty() || request.method() == "HEAD";
            let body = if bodiless { "" } else { "ok" };
            if !conn.send(format!("HTTP/1.1 {status} Reason\r\n{length}x-it: 1\r\n\r\n{body}")) {
                return;
            }
        }
    });
    let outrigger = Outrigger::before(&app, "");
    let client = Client::connect(outrigger.web());
    for (method, status, body) in [
        ("HEAD", 200, ""),
        ("GET", 204, ""),
        ("GET", 304, ""),
        ("PURGE", 299, "ok"),
        ("get", 500, "ok"),
        ("GET", 999, "ok"),
    ] {
        let answer = client.ask(request(method, &format!("/{status}")), &[], None).expect("an answer");
        assert_eq!(
            (answer.status(), answer.text().as_str(), answer.get("x-it")),
            (status, body, Some("1")),
            "{method}"
        );
        assert!(answer.broken.is_none(), "{method} {status}: {:?}", answer.broken);
    }
}

#[test]
fn connect_is_refused() {
    let app = RawApp::fine();
    let outrigger = Outrigger::before(&app, "");
    let client = Client::connect(outrigger.web());
    let connect = Request::builder().method("CONNECT").uri("a.example:443").body(()).expect("a request");
    let (response, _stream) = client.open(connect, false);
    let refused = match client.run(response) {
        Ok(response) => response.status() == 405,
        Err(problem) => problem.is_reset(),
    };
    assert!(refused && app.untouched());
    assert_eq!(client.get("/").status(), 200, "the connection lives on");
}

#[test]
fn a_hundred_streams_share_a_connection() {
    // The app answers the last request first.
    let app = RawApp::start(|mut conn| {
        while let Some(request) = conn.request() {
            let body = request.target().repeat(1000);
            if !conn.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())) {
                return;
            }
        }
    });
    let outrigger = Outrigger::before(&app, "");
    let client = Client::connect(outrigger.web());
    let asked: Vec<_> = (0..100).map(|number| client.open(request("GET", &format!("/{number}")), true).0).collect();
    for (number, response) in asked.into_iter().enumerate() {
        let answer = client.run(crate::support::http2::collect(response)).expect("an answer");
        assert_eq!(answer.text(), format!("/{number}").repeat(1000));
        assert!(answer.broken.is_none());
    }
}

#[test]
fn refusals_are_the_same_as_over_http_1() {
    let app = RawApp::fine();
    let outrigger = Outrigger::before(&app, "routes: [{ name: only, match: { path: /only, methods: [GET] } }]\n");
    let client = Client::connect(outrigger.web());
    for (method, path, status, reason) in [
        ("GET", "/none", 404, "route_not_found"),
        ("POST", "/only", 405, "method_not_allowed"),
        ("GET", "/%zz", 400, "path_invalid"),
    ] {
        let answer = client.ask(request(method, path), &[], None).expect("an answer");
        assert_eq!((answer.status(), answer.reason().as_str()), (status, reason), "{method} {path}");
        assert!(answer.get("content-type").is_some_and(|kind| kind.starts_with("application/problem+json")));
        assert!(answer.get("x-request-id").is_some());
        assert_eq!(answer.get("connection"), None);
    }
    assert!(app.untouched());
}

#[test]
fn grpc_calls_are_refused_in_grpc() {
    // A listener that was closed again: nobody is there.
    let gone = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = gone.local_addr().expect("its address");
    drop(gone);
    let config = crate::support::config(address, "retry: { attempts: 1 }\n");
    let outrigger = Outrigger::run(config);
    let client = Client::connect(outrigger.web());
    let call = Request::builder().method("POST").uri("http://a.example/pkg.Service/Method");
    let call = call.header("content-type", "application/grpc").header("te", "trailers").body(()).expect("a request");
    let answer = client.ask(call, &[0, 0, 0, 0, 0], None).expect("an answer");
    assert_eq!(answer.status(), 200);
    assert!(answer.get("content-type").is_some_and(|kind| kind.starts_with("application/grpc")));
    let status = answer.trailers.as_ref().and_then(|trailers| trailers.get("grpc-status"));
    let status = status.or_else(|| answer.head.headers.get("grpc-status"));
    assert_eq!(status.and_then(|status| status.to_str().ok()), Some("14"), "UNAVAILABLE");
}
