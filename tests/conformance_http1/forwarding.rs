//! What a request and an answer look like on the other side: rows 8, 9, 12, 14, 24, 32–34, and the fields of RFC 9110
//! that a proxy writes.

use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::{Duration, SystemTime};

use crate::support::app::OK;
use crate::support::{BodyEnd, Outrigger, RawApp, Request, Wire, wire};

/// Sends one request through and returns what the app saw.
fn forwarded(extra: &str, request: &str) -> Request {
    let app = RawApp::fine();
    let outrigger = Outrigger::before(&app, extra);
    let answer = wire::ask(outrigger.web(), request);
    assert_eq!(answer.status, 200, "{}", answer.text());
    app.only_request()
}

#[test]
fn row_8_an_absolute_target_replaces_the_host() {
    let seen = forwarded("", "GET http://b.example:81/x?q=1 HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(seen.target(), "/x?q=1");
    assert_eq!(seen.head.all("host"), ["b.example:81"]);
    let seen = forwarded("", "GET http://b.example HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!((seen.target(), seen.get("host")), ("/", Some("b.example")));
    let seen = forwarded("", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(seen.target(), "*");
}

#[test]
fn row_9_paths_are_forwarded_as_received() {
    for target in
        ["//a/../%2e%2e/b", "/a//b", "/%41", "/a%2fb", "/a/./b/../c?d=../e", "/?", "/a;b=c", "/a|b", "/~a!$&'()*+,=:@"]
    {
        let seen = forwarded("", &format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(seen.target(), target);
    }
    assert_eq!(forwarded("", "GET /a#fragment HTTP/1.1\r\nHost: a\r\n\r\n").target(), "/a");
}

#[test]
fn row_9_ambiguous_paths_are_refused_where_a_prefix_could_be_fooled() {
    let app = RawApp::fine();
    let extra = "routes: [{ name: api, match: { path: \"/api/*\" } }, { name: open, match: { path: /open } }]\n";
    let outrigger = Outrigger::before(&app, extra);
    for target in [
        "/api/%2e%2e/admin",
        "/api/..%2fadmin",
        "/api/%2E%2e/open",
        "/api/a%00b",
        "/api/a%5cb",
        "/api/%zz",
        "/api/..%5copen",
    ] {
        let answer = wire::get(outrigger.web(), target);
        assert_eq!((answer.status, answer.reason().as_str()), (400, "path_invalid"), "{target}");
    }
    assert!(app.untouched(), "{:?}", app.requests());
    // Plain dot segments have one meaning: the route of the normalised path decides, and that path is what the app gets,
    // because an app that does not resolve them would be somewhere else than the route that judged the request.
    assert_eq!(wire::get(outrigger.web(), "/api/../admin").status, 404);
    assert!(app.untouched(), "{:?}", app.requests());
    assert_eq!(wire::get(outrigger.web(), "/api/x/../y").status, 200);
    assert_eq!(app.only_request().target(), "/api/y");
    assert_eq!(wire::get(outrigger.web(), "//elsewhere/../api//z?q=../r").status, 200);
    assert_eq!(app.wait_for_requests(2)[1].target(), "/api/z?q=../r");
    assert_eq!(wire::get(outrigger.web(), "/api//%7Ez").status, 200);
    assert_eq!(app.wait_for_requests(3)[2].target(), "/api//%7Ez", "without dot segments: as received");
}

#[test]
fn a_rewrite_cannot_be_stepped_around() {
    let app = RawApp::fine();
    let extra = "routes: [{ name: a, match: { path: \"/a/*\" }, rewrite: { prefix: /tenant-a/ } },\
                 { name: b, match: { path: \"/b/*\" }, rewrite: { prefix: /tenant-b/ } }]\n";
    let outrigger = Outrigger::before(&app, extra);
    for (number, (target, seen)) in [
        ("/a/x?y=/b/", "/tenant-a/x?y=/b/"),
        ("/a", "/tenant-a/"),
        ("/a/", "/tenant-a/"),
        ("/%61/x", "/tenant-a/x"),
        ("//a/x", "/tenant-a/x"),
        ("/./a/x", "/tenant-a/x"),
        ("/b/../a/x", "/tenant-a/x"),
        ("/tenant-b/../a/x", "/tenant-a/x"),
        ("/a/x//y%2Bz", "/tenant-a/x//y%2Bz"),
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(wire::get(outrigger.web(), target).status, 200, "{target}");
        assert_eq!(app.wait_for_requests(number + 1)[number].target(), seen, "{target}");
    }
}

#[test]
fn row_12_methods_are_case_sensitive_and_pass_as_they_are() {
    for method in ["get", "Get", "PROPFIND", "M-SEARCH", "X"] {
        let seen = forwarded("", &format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(seen.method(), method);
    }
}

#[test]
fn row_12_an_unknown_method_is_never_retried() {
    // The app takes the request and resets: GET may be tried again, `get` may not.
    for (method, most) in [("get", 1), ("POST", 1), ("GET", 3)] {
        let app = RawApp::start(|mut conn| {
            conn.request();
            conn.reset();
        });
        let outrigger = Outrigger::before(&app, "");
        let request = format!("{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
        let answer = wire::ask(outrigger.web(), request);
        assert_eq!(answer.status, 502, "{method}");
        assert_eq!(app.requests().len(), most, "{method}");
    }
}

#[test]
fn row_14_everything_connection_names_on_any_line_is_removed() {
    let seen = forwarded(
        "",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: x-one, Keep-Alive\r\nConnection: close, x-two\r\nConnection:  X-Three ,\
         \r\nX-One: 1\r\nX-Two: 2\r\nx-three: 3\r\nX-Four: 4\r\nKeep-Alive: timeout=5\r\nProxy-Connection: x\r\n\
         Proxy-Authorization: Basic eA==\r\nTE: gzip\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\n",
    );
    for name in ["x-one", "x-two", "x-three", "keep-alive", "proxy-connection", "proxy-authorization", "te", "upgrade"]
    {
        assert_eq!(seen.get(name), None, "{name}: {:?}", seen.head.fields);
    }
    assert_eq!(seen.get("x-four"), Some("4"));
    let connection = seen.get("connection").unwrap_or("keep-alive").to_ascii_lowercase();
    assert_eq!(connection, "keep-alive", "nothing of the client's Connection is left");
}

#[test]
fn row_14_fields_that_matter_cannot_be_named_away() {
    let seen = forwarded(
        "trusted_proxies: [127.0.0.1/32]\n",
        "POST / HTTP/1.1\r\nHost: a\r\nConnection: close, host, authorization, cookie, content-length, traceparent, \
         x-forwarded-for, forwarded, via\r\nAuthorization: Bearer t\r\nCookie: a=b\r\nContent-Length: 2\r\n\
         traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\nX-Forwarded-For: 10.1.1.1\r\n\r\nhi",
    );
    assert_eq!(seen.get("host"), Some("a"));
    assert_eq!(seen.get("authorization"), Some("Bearer t"));
    assert_eq!(seen.get("cookie"), Some("a=b"));
    assert_eq!(seen.body, b"hi");
    assert!(seen.get("traceparent").is_some_and(|value| value.contains("0af7651916cd43dd8448eb211c80319c")));
    assert!(seen.get("x-forwarded-for").is_some_and(|value| value.starts_with("10.1.1.1")), "{:?}", seen.head.fields);
}

#[test]
fn hop_fields_of_answers_are_removed() {
    let app = RawApp::answering(
        "HTTP/1.1 200 OK\r\nConnection: x-one\r\nConnection: keep-alive, x-two\r\nX-One: 1\r\nX-Two: 2\r\nX-Three: 3\r\n\
         Keep-Alive: timeout=5\r\nProxy-Authenticate: Basic\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\nok",
    );
    let outrigger = Outrigger::before(&app, "");
    let mut client = Wire::connect(outrigger.web());
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let answer = client.response("GET");
    for name in ["x-one", "x-two", "keep-alive", "proxy-authenticate", "upgrade"] {
        assert_eq!(answer.get(name), None, "{name}");
    }
    assert_eq!(answer.get("x-three"), Some("3"));
    assert!(answer.get("connection").is_none_or(|value| value.eq_ignore_ascii_case("keep-alive")));
}

#[test]
fn a_trailer_field_lets_every_trailer_through_and_none_lets_none() {
    for (trailer, passed) in [("Trailer: x-one\r\n", 2), ("", 0)] {
        let app = RawApp::fine();
        let outrigger = Outrigger::before(&app, "");
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\n{trailer}Transfer-Encoding: chunked\r\n\r\n");
        let body = "2\r\nhi\r\n0\r\nx-one: 1\r\nx-two: 2\r\n\r\n";
        assert_eq!(wire::ask(outrigger.web(), format!("{head}{body}")).status, 200);
        assert_eq!(app.only_request().trailers.len(), passed, "{trailer}");
    }
}

#[test]
fn row_24_trailers_pass_both_ways() {
    let app = RawApp::answering(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum, x-more\r\n\r\n2\r\nok\r\n0\r\nx-sum: 1\r\nx-more: 2\r\n\r\n",
    );
    let outrigger = Outrigger::before(&app, "");
    let mut client = Wire::connect(outrigger.web());
    client.send(
        "POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nTrailer: x-check\r\nTransfer-Encoding: chunked\r\n\r\n\
         5\r\nhello\r\n0\r\nx-check: 5\r\n\r\n",
    );
    let answer = client.response("POST");
    assert_eq!((answer.status, answer.end), (200, BodyEnd::Whole));
    let lower = |fields: &[(String, String)]| -> Vec<(String, String)> {
        fields.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone())).collect()
    };
    let own = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(lower(&answer.trailers), [own("x-sum", "1"), own("x-more", "2")]);
    assert!(answer.get("trailer").is_some_and(|names| names.contains("x-sum")));
    let seen = app.only_request();
    assert_eq!((seen.body.as_slice(), seen.end), (b"hello".as_slice(), BodyEnd::Whole));
    assert_eq!(lower(&seen.trailers), [own("x-check", "5")]);
    assert_eq!(seen.get("te"), Some("trailers"));
}

#[test]
fn row_24_te_keeps_exactly_trailers() {
    let seen = forwarded("", "GET / HTTP/1.1\r\nHost: a\r\nTE: gzip, trailers;q=0.5\r\nConnection: te\r\n\r\n");
    assert!(seen.get("te").is_none_or(|te| te == "trailers"), "{:?}", seen.head.fields);
    // A client that did not ask for trailers gets a whole body without them.
    let app = RawApp::answering(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n2\r\nok\r\n0\r\nx-sum: 1\r\n\r\n",
    );
    let outrigger = Outrigger::before(&app, "");
    let answer = wire::get(outrigger.web(), "/");
    assert_eq!((answer.status, answer.text().as_str(), answer.end), (200, "ok", BodyEnd::Whole));
}

#[test]
fn row_32_any_status_and_reason_pass() {
    for first in
        ["999 Blocked By Me", "299 ", "200 Sehr gut", "418 I'm a teapot", "511 Network Authentication Required"]
    {
        let app = RawApp::answering(format!("HTTP/1.1 {first}\r\ncontent-length: 2\r\n\r\nok"));
        let outrigger = Outrigger::before(&app, "");
        let answer = wire::get(outrigger.web(), "/");
        let expected = format!("HTTP/1.1 {first}");
        if first.ends_with(' ') {
            assert_eq!(answer.status, 299);
        } else {
            assert_eq!(answer.head.first, expected);
        }
        assert_eq!(answer.text(), "ok");
    }
}

#[test]
fn row_33_fields_keep_their_spelling_and_their_order() {
    let app = RawApp::answering(
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nSet-Cookie: a=1\r\nX-Case: MiXed\r\nSet-Cookie: b=2; Path=/\r\n\
         Set-Cookie: a=3\r\n\r\nok",
    );
    let outrigger = Outrigger::before(&app, "");
    let answer = wire::ask(
        outrigger.web(),
        "GET / HTTP/1.1\r\nHost: a\r\nX-List: one\r\nX-Other: MiXed\r\nX-List: two\r\nX-List: three, four\r\nX-Empty:\r\n\r\n",
    );
    assert_eq!(answer.head.all("set-cookie"), ["a=1", "b=2; Path=/", "a=3"]);
    assert_eq!(answer.get("x-case"), Some("MiXed"));
    let seen = app.only_request();
    assert_eq!(seen.head.all("x-list"), ["one", "two", "three, four"]);
    assert_eq!((seen.get("x-other"), seen.get("x-empty")), (Some("MiXed"), Some("")));
    // What nobody has changed comes as it was sent, on both ways; what is ours comes behind it.
    let names = |fields: &[(String, String)]| fields.iter().map(|field| field.0.clone()).collect::<Vec<_>>();
    let sent = ["Host", "X-List", "X-Other", "X-List", "X-List", "X-Empty"];
    assert_eq!(names(&seen.head.fields)[..sent.len()], sent);
    let answered = ["Content-Length", "Set-Cookie", "X-Case", "Set-Cookie", "Set-Cookie"];
    assert_eq!(names(&answer.head.fields)[..answered.len()], answered);
}

#[test]
fn values_with_high_bytes_pass() {
    let app = RawApp::answering(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx-high: \xc3\xa9\xff\r\n\r\nok");
    let outrigger = Outrigger::before(&app, "");
    let mut client = Wire::connect(outrigger.web());
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\nX-High: \xff\xc3\xa9\tb\r\n\r\n");
    let answer = client.response("GET");
    assert_eq!(answer.get("x-high"), Some("\u{c3}\u{a9}\u{ff}"));
    assert_eq!(app.only_request().get("x-high"), Some("\u{ff}\u{c3}\u{a9}\tb"));
}

#[test]
fn row_34_the_date_is_the_apps() {
    let app =
        RawApp::answering("HTTP/1.1 200 OK\r\nDate: Tue, 15 Nov 1994 08:12:31 GMT\r\nContent-Length: 2\r\n\r\nok");
    let outrigger = Outrigger::before(&app, "");
    assert_eq!(wire::get(outrigger.web(), "/").head.all("date"), ["Tue, 15 Nov 1994 08:12:31 GMT"]);
}

#[test]
fn row_34_an_answer_without_a_date_gets_one() {
    // RFC 9110 §6.6.1: the app's that are passed on, and our own.
    let app = RawApp::fine();
    let outrigger = Outrigger::before(&app, "");
    for (request, status) in [("GET / HTTP/1.1\r\nHost: a\r\n\r\n", 200), ("GET / HTTP/1.1\r\n\r\n", 400)] {
        let mut client = Wire::connect(outrigger.web());
        client.send(request);
        let answer = client.response("GET");
        assert_eq!((answer.status, answer.head.all("date").len()), (status, 1));
        let date = httpdate::parse_http_date(answer.get("date").expect("a date")).expect("an HTTP date");
        let off = SystemTime::now().duration_since(date).expect("not in the future");
        assert!(off < Duration::from_secs(60), "{off:?}");
    }
}

#[test]
fn options_and_trace_go_as_far_as_they_may() {
    let app = RawApp::fine();
    let outrigger = Outrigger::before(&app, "");
    for (method, left, status, then) in [
        ("OPTIONS", "2", 200, Some("1")),
        ("TRACE", "1", 200, Some("0")),
        ("OPTIONS", "0", 200, None),
        ("TRACE", "0", 405, None),
    ] {
        let before = app.requests().len();
        let mut client = Wire::connect(outrigger.web());
        client.send(format!("{method} /x HTTP/1.1\r\nHost: a\r\nMax-Forwards: {left}\r\n\r\n"));
        let answer = client.response(method);
        assert_eq!(answer.status, status, "{method} {left}");
        assert_eq!(answer.get("allow").is_some(), status == 405, "{method} {left}");
        let seen = app.requests().get(before).and_then(|request| request.get("max-forwards").map(str::to_owned));
        assert_eq!(seen.as_deref(), then, "{method} {left}");
    }
}

#[test]
fn a_request_is_told_to_have_begun_before_the_app_had_it() {
    // Goal: the time of a request that outlasts the worker's house-keeping is not that of the house-keeping.
    let (tell, told) = channel();
    let tell = Mutex::new(tell);
    let app = RawApp::start(move |mut conn| {
        while conn.request().is_some() {
            tell.lock().expect("lock").send(SystemTime::now()).expect("the test waits");
            std::thread::sleep(Duration::from_millis(500)); // several rounds of it
            conn.send(OK);
        }
    });
    let outrigger = Outrigger::before(&app, "");
    let answer = wire::get(outrigger.web(), "/");
    let began = outrigger.why(answer.get("x-request-id").expect("an id"))["started"].as_f64().expect("seconds");
    let had = told.recv().expect("a time").duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs_f64();
    // The clocks are read at different moments.
    assert!(began <= had + 0.05, "began {} s after the app had it", began - had);
}

#[test]
fn the_hop_is_written_down_and_spoofed_hops_are_not_believed() {
    let request = "GET / HTTP/1.1\r\nHost: shop.example:8080\r\nX-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\n\
         X-Forwarded-Host: evil.example\r\nForwarded: for=6.6.6.6;host=evil.example\r\nX-Request-Id: mine\r\n\r\n";
    let seen = forwarded("", request);
    assert_eq!(seen.head.all("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(seen.head.all("x-forwarded-proto"), ["http"]);
    assert_eq!(seen.head.all("x-forwarded-host"), ["shop.example:8080"]);
    let text = String::from_utf8_lossy(&seen.head.raw).into_owned();
    assert!(!text.contains("6.6.6.6") && !text.contains("evil"), "{text}");
    assert_eq!(seen.head.all("forwarded").len(), 1, "{text}");
    assert!(seen.get("forwarded").is_some_and(|value| value.contains("for=127.0.0.1")), "{text}");
    assert!(seen.get("via").is_some_and(|via| via.starts_with("1.1 ")), "{text}");
    assert_eq!(seen.head.all("host"), ["shop.example:8080"]);
    assert!(seen.get("x-request-id").is_some_and(|id| id != "mine"), "a stranger does not choose the request id");
}

#[test]
fn trusted_hops_are_believed() {
    let seen = forwarded(
        "trusted_proxies: [127.0.0.1/32]\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 6.6.6.6, 9.9.9.9\r\nX-Forwarded-Proto: https\r\n\
         X-Forwarded-Host: shop.example\r\nX-Request-Id: given-1\r\nVia: 1.1 edge\r\n\r\n",
    );
    let hops = seen.head.all("x-forwarded-for").join(", ");
    assert_eq!(hops, "6.6.6.6, 9.9.9.9, 127.0.0.1");
    assert_eq!(seen.get("x-forwarded-proto"), Some("https"));
    assert_eq!(seen.get("x-forwarded-host"), Some("shop.example"));
    assert_eq!(seen.get("x-request-id"), Some("given-1"));
    let via = seen.head.all("via").join(", ");
    assert!(via.starts_with("1.1 edge, 1.1 "), "{via}");
}

#[test]
fn two_parents_are_no_parent_and_lines_of_baggage_are_one_list() {
    let one = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n";
    let two = "traceparent: 00-5bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n";
    let most: Vec<String> = (0..60).map(|place| format!("k{place}=v")).collect();
    let baggage = format!("baggage: {0}\r\nbaggage: {0}\r\n", most.join(","));
    let seen = forwarded("", &format!("GET / HTTP/1.1\r\nHost: a\r\n{one}tracestate: a=b\r\n\r\n"));
    assert!(seen.get("traceparent").is_some_and(|value| value.contains("4bf92f3577b34da6a3ce929d0e0e4736")));
    assert_eq!(seen.get("tracestate"), Some("a=b"));
    let seen = forwarded("", &format!("GET / HTTP/1.1\r\nHost: a\r\n{one}{two}tracestate: a=b\r\n{baggage}\r\n"));
    let parents = seen.head.all("traceparent");
    assert!(parents.len() == 1 && !parents[0].contains("bf92f3577b34da6a3ce929d0e0e4736"), "{parents:?}");
    assert_eq!(seen.get("tracestate"), None, "it belonged to one of the two");
    assert_eq!(seen.get("baggage"), None, "120 members");
}

#[test]
fn a_loop_is_broken() {
    // Two listeners in front of each other (one in front of itself is refused by `check`): the request must come back
    // as 508, not run until something gives.
    let probes = [(); 2].map(|()| std::net::TcpListener::bind("127.0.0.1:0").expect("a port"));
    let [web, back] = probes.map(|probe| probe.local_addr().expect("its address").port());
    let ring = format!(
        "listeners: [{{ name: web, address: \"127.0.0.1:{web}\", upstream: there }}, \
         {{ name: back, address: \"127.0.0.1:{back}\", upstream: app }}]\n\
         upstreams: {{ there: {{ endpoints: [\"http://127.0.0.1:{back}\"] }}, app: {{ endpoints: [\"http://127.0.0.1:{web}\"] }} }}\n\
         routes: [{{ name: none, match: {{ path: /none }}, upstream: app }}]\n"
    );
    let outrigger = Outrigger::run(crate::support::config(format!("127.0.0.1:{web}"), &ring));
    let answer = wire::get(outrigger.web(), "/");
    assert_eq!((answer.status, answer.reason().as_str()), (508, "loop_detected"), "{}", answer.text());
    outrigger.idle();
}

#[test]
fn answers_to_head_have_no_body_and_keep_their_length() {
    let app = RawApp::start(|mut conn| {
        while let Some(request) = conn.request() {
            let head = "HTTP/1.1 200 OK\r\ncontent-length: 5000\r\netag: \"x\"\r\n\r\n";
            if request.method() == "HEAD" {
                conn.send(head)
            } else {
                conn.send(OK)
            };
        }
    });
    let outrigger = Outrigger::before(&app, "");
    let mut client = Wire::connect(outrigger.web());
    client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    let answer = client.response("HEAD");
    assert_eq!((answer.status, answer.get("content-length")), (200, Some("5000")));
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.response("GET").text(), "ok");
}
