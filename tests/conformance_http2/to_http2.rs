//! Apps that speak HTTP/2: streams and trailers both ways, resets, and HTTP/1 clients in front of them.

use bytes::Bytes;
use h2::Reason;
use http::{HeaderMap, HeaderValue, Request};

use crate::support::http2::{App, Client, answer, collect, read, request};
use crate::support::{BodyEnd, End, Outrigger, Wire, config, wire};

fn before(app: &App) -> Outrigger {
    let address = app.address;
    let upstreams = format!("upstreams: {{ app: {{ endpoints: [\"http://{address}\"], protocol: http2 }} }}\n");
    Outrigger::run(config(address, &upstreams))
}

/// Answers with what it saw: body, `x-check` trailer, and fields.
fn telling() -> App {
    App::start(|request, mut respond| async move {
        let (head, body) = request.into_parts();
        let (body, trailers) = read(body).await;
        let text = |map: &HeaderMap, name: &str| {
            map.get_all(name).iter().map(|value| value.to_str().unwrap_or("?").to_owned()).collect::<Vec<_>>().join("|")
        };
        let mut response = answer(200, &[("x-method", head.method.as_str()), ("x-uri", &head.uri.to_string())]);
        for (to, from) in [("x-host", "host"), ("x-cookie", "cookie"), ("x-te", "te"), ("x-connection", "connection")] {
            response.headers_mut().insert(to, HeaderValue::from_str(&text(&head.headers, from)).expect("a value"));
        }
        let check = trailers.as_ref().map(|trailers| text(trailers, "x-check")).unwrap_or_default();
        response.headers_mut().insert("x-saw-trailer", HeaderValue::from_str(&check).expect("a value"));
        let Ok(mut stream) = respond.send_response(response, false) else { return };
        let _ = stream.send_data(Bytes::from(body.unwrap_or_else(|problem| problem.to_string().into_bytes())), false);
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        let _ = stream.send_trailers(trailers);
    })
}

#[test]
fn requests_and_trailers_pass_from_http_2_to_http_2() {
    let app = telling();
    let outrigger = before(&app);
    let client = Client::connect(outrigger.web());
    let call = Request::builder().method("POST").uri("http://a.example/pkg.Service/Method");
    let call = call.header("content-type", "application/grpc").header("te", "trailers");
    let call = call.header("cookie", "a=1").header("cookie", "b=2").body(()).expect("a request");
    let mut trailers = HeaderMap::new();
    trailers.insert("x-check", HeaderValue::from_static("5"));
    let seen = client.ask(call, b"hello", Some(trailers)).expect("an answer");
    assert_eq!((seen.status(), seen.text().as_str()), (200, "hello"));
    assert!(seen.broken.is_none());
    assert_eq!(seen.get("x-te"), Some("trailers"));
    assert_eq!(seen.get("x-saw-trailer"), Some("5"));
    assert_eq!(seen.get("x-connection"), Some(""));
    assert_eq!(seen.get("x-uri"), Some("http://a.example/pkg.Service/Method"));
    assert!(seen.get("x-cookie").is_some_and(|cookie| cookie == "a=1|b=2" || cookie == "a=1; b=2"));
    let grpc = seen.trailers.as_ref().and_then(|trailers| trailers.get("grpc-status"));
    assert_eq!(grpc, Some(&HeaderValue::from_static("0")));
}

#[test]
fn http_1_requests_reach_an_http_2_app() {
    let app = telling();
    let outrigger = before(&app);
    let seen = wire::ask(
        outrigger.web(),
        "POST /x?q=1 HTTP/1.1\r\nHost: b.example\r\nConnection: keep-alive, x-hop\r\nX-Hop: 1\r\nTE: trailers\r\n\
         Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    );
    assert_eq!((seen.status, seen.text().as_str(), seen.end), (200, "hello", BodyEnd::Whole));
    assert_eq!(seen.get("x-uri"), Some("http://b.example/x?q=1"));
    assert_eq!(seen.get("x-connection"), Some(""));
    let seen = wire::ask(outrigger.web(), "GET / HTTP/1.0\r\nHost: b.example\r\n\r\n");
    assert_eq!((seen.status, seen.end), (200, BodyEnd::Close));
}

#[test]
fn a_reset_of_the_app_is_a_reset_of_the_client() {
    let app = App::start(|_request, mut respond| async move {
        let Ok(mut stream) = respond.send_response(answer(200, &[]), false) else { return };
        let _ = stream.send_data(Bytes::from_static(b"part"), false);
        // The bytes must be out before the reset.
        while stream.capacity() == 0 {
            tokio::task::yield_now().await;
            stream.reserve_capacity(1);
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        stream.send_reset(Reason::INTERNAL_ERROR);
    });
    let outrigger = before(&app);
    let client = Client::connect(outrigger.web());
    let seen = client.ask(request("GET", "/"), &[], None).expect("a head");
    assert_eq!(seen.status(), 200);
    assert!(seen.broken.is_some_and(|problem| problem.is_reset()), "ended as if whole");
    let mut client = Wire::connect(outrigger.web());
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let seen = client.response("GET");
    assert!(matches!(seen.end, BodyEnd::Cut | BodyEnd::Reset), "{:?}", seen.end);
    outrigger.idle();
}

#[test]
fn a_length_that_the_app_does_not_keep_is_never_whole() {
    let app = App::start(|_request, mut respond| async move {
        let Ok(mut stream) = respond.send_response(answer(200, &[("content-length", "100")]), false) else { return };
        let _ = stream.send_data(Bytes::from_static(b"part"), true);
    });
    let outrigger = before(&app);
    let client = Client::connect(outrigger.web());
    match client.ask(request("GET", "/"), &[], None) {
        Ok(seen) if seen.status() == 200 => assert!(seen.broken.is_some(), "ended as if whole"),
        Ok(seen) => assert_eq!(seen.status(), 502),
        Err(problem) => assert!(problem.is_reset(), "{problem}"),
    }
    let mut client = Wire::connect(outrigger.web());
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    match client.try_response("GET") {
        Ok(seen) => assert!(seen.status == 502 || matches!(seen.end, BodyEnd::Cut | BodyEnd::Reset), "{:?}", seen.end),
        Err(end) => assert_ne!(end, End::Deadline),
    }
}

#[test]
fn more_streams_than_one_connection_takes_do_not_wait() {
    // Each of the first 300 answers is held until all 300 requests are there.
    let (arrived, count) = (std::sync::Arc::new(tokio::sync::Semaphore::new(0)), 300);
    let app = App::start(move |_request, mut respond| {
        let arrived = std::sync::Arc::clone(&arrived);
        async move {
            arrived.add_permits(1);
            let all = arrived.acquire_many(count).await.expect("open");
            drop(all);
            if let Ok(mut stream) = respond.send_response(answer(200, &[]), false) {
                let _ = stream.send_data(Bytes::from_static(b"ok"), true);
            }
        }
    });
    let outrigger = before(&app);
    let clients: Vec<_> = (0..4).map(|_| Client::connect(outrigger.web())).collect();
    let mut asked = Vec::new();
    for client in &clients {
        asked.push((0..75).map(|_| client.open(request("GET", "/"), true).0).collect::<Vec<_>>());
    }
    for (client, asked) in clients.iter().zip(asked) {
        for response in asked {
            assert_eq!(client.run(collect(response)).expect("an answer").text(), "ok");
        }
    }
}
