//! Modules that serve HTTP, by clients that speak it: through `wess up`, and through a gateway, NATS and a worker.

use std::net::SocketAddr;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::unfold;
use reqwest::{Client, Method, StatusCode};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use wess_harness::eventually;

use crate::web::{WAYS, Way, Web};

/// The bytes of a large body.
const LARGE: usize = 50_000_000;

fn client() -> Client {
    // Whoever comes second finds it there.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::new()
}

impl Web {
    /// The next request has its response.
    async fn says_hello(&self) {
        let hello = client().get(self.url("/hello")).send().await.unwrap();
        assert_eq!(hello.text().await.unwrap(), "hello from wess\n");
    }
}

async fn problem(response: reqwest::Response) -> (u16, String) {
    assert_eq!(
        response.headers()["content-type"],
        "application/problem+json",
        "{response:?}"
    );
    let status = response.status().as_u16();
    let problem: Value = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
    assert_eq!(problem["status"], status);
    (status, problem["code"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn a_request_of_any_method_reaches_the_guest_and_its_response_the_client() {
    for way in WAYS {
        let web = Web::start(way);
        let hello = client().get(web.url("/hello")).send().await.unwrap();
        assert_eq!(hello.status(), StatusCode::OK, "{way:?}");
        assert_eq!(hello.headers()["content-type"], "text/plain; charset=utf-8");
        assert!(hello.headers().contains_key("x-request-id"));
        assert_eq!(hello.text().await.unwrap(), "hello from wess\n");
        for (below, seen) in [("/p%C3%A9/a?b=c&d", "/p%C3%A9/a?b=c&d"), ("/p//x/", "/p//x/")] {
            let response = client().get(web.url(below)).send().await.unwrap();
            assert_eq!(response.text().await.unwrap(), seen);
        }
        for short in ["", "/", "?q"] {
            let response = client().get(web.url(short)).send().await.unwrap();
            assert_eq!(response.text().await.unwrap(), "hello from wess\n", "{short:?}");
        }
        for method in ["PUT", "DELETE", "OPTIONS", "PATCH", "PROPFIND"] {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let request = client().request(method, web.url("/echo")).body("same");
            assert_eq!(request.send().await.unwrap().text().await.unwrap(), "same");
        }
        let head = client().head(web.url("/hello")).send().await.unwrap();
        assert_eq!(
            (head.status(), head.bytes().await.unwrap().len()),
            (StatusCode::OK, 0)
        );
        let empty = client().get(web.url("/xempty")).send().await.unwrap();
        assert_eq!(empty.status(), StatusCode::NO_CONTENT);
        // A guest's own error is its answer, not a problem of ours.
        let denied = client().get(web.url("/ward")).send().await.unwrap();
        assert_eq!(
            (denied.status().as_u16(), denied.headers().get("content-type")),
            (415, None)
        );
        web.is_at_rest().await;
    }
}

#[tokio::test]
async fn a_raw_call_is_told_what_its_answer_is_and_the_facts_if_it_asks() {
    for way in WAYS {
        let web = Web::start(way);
        let call = || client().post(web.at("/v1/modules/add/invoke/add")).body("[2,3]");
        let told = |response: &reqwest::Response| {
            let names = response.headers().keys().map(|name| name.as_str());
            names.filter(|name| name.starts_with("wess-")).count()
        };
        let plain = call().send().await.unwrap();
        assert_eq!(plain.headers()["content-type"], "application/json", "{way:?}");
        assert_eq!(told(&plain), 0, "{way:?}: {plain:?}");
        let asking = call().header("Wess-Facts", "all").send().await.unwrap();
        assert_eq!(asking.headers()["content-type"], "application/json", "{way:?}");
        assert!(told(&asking) >= 5, "{way:?}: {asking:?}");
        assert_eq!(plain.text().await.unwrap(), asking.text().await.unwrap());
    }
}

#[tokio::test]
async fn a_trace_reaches_the_workers_log_whatever_was_asked() {
    for way in WAYS {
        let web = Web::start(way);
        let chain = r#"{"steps":[{"module":"add","function":"add","args":[2,3],"limits":{"fuel":1}}]}"#;
        let requests = [
            client().get(web.url("/never")),
            client()
                .post(web.at("/v1/modules/add/invoke/add"))
                .header("Wess-Fuel", "1")
                .body("[2,3]"),
            client().post(web.at("/v1/chain")).body(chain),
        ];
        for (number, request) in (1..).zip(requests) {
            let trace_id = format!("{number:032x}");
            let trace = format!("00-{trace_id}-b7ad6b7169203331-01");
            let failed = request.header("traceparent", trace).send().await.unwrap();
            assert!(!failed.status().is_success(), "{way:?}: {failed:?}");
            eventually("the worker to log the trace", async || {
                let log = web.worker_log();
                let mut lines = log.lines().filter(|line| line.contains("a guest failed"));
                lines.any(|line| line.contains(&trace_id)).then_some(())
            })
            .await;
        }
    }
}

#[tokio::test]
async fn a_guest_without_a_response_is_a_problem_with_its_code() {
    for way in WAYS {
        let web = Web::start(way);
        for (path, expected) in [
            ("/never", (502, "guest_trapped")),
            ("/under", (502, "guest_trapped")),
            ("/refuse", (502, "guest_trapped")),
            ("/loop", (504, "deadline_exceeded")),
            ("/inform", (502, "guest_trapped")),
            ("/memory", (502, "memory_exceeded")),
            ("/gather", (502, "guest_trapped")),
        ] {
            let request = client().get(web.url(path)).header("Wess-Timeout-Ms", "200");
            let (status, code) = problem(request.send().await.unwrap()).await;
            assert_eq!((status, &code[..]), expected, "{way:?} {path}");
            web.says_hello().await;
        }
        let starved = client().get(web.url("/loop")).header("Wess-Fuel", "100000");
        let starved = problem(starved.send().await.unwrap()).await;
        assert_eq!(starved, (504, "out_of_fuel".into()), "{way:?}");
        web.says_hello().await;
        for (url, expected) in [
            (web.at("/v1/http/nobody/x"), (404, "module_not_found")),
            (web.at("/v1/http/add/x"), (501, "unsupported")),
            (web.at("/v1/http/NO"), (400, "invalid_request")),
        ] {
            let (status, code) = problem(client().get(url).send().await.unwrap()).await;
            assert_eq!((status, &code[..]), expected, "{way:?}");
        }
        let over = client().get(web.url("/hello")).header("Wess-Timeout-Ms", "x");
        assert_eq!(problem(over.send().await.unwrap()).await.0, 400);
        web.is_at_rest().await;
    }
}

#[tokio::test]
async fn a_response_that_is_not_complete_does_not_look_complete() {
    for way in WAYS {
        let web = Web::start(way);
        for path in ["/trap", "/done", "/short", "/over", "/kdrop", "/quiet"] {
            let request = client().get(web.url(path)).header("Wess-Timeout-Ms", "300");
            let response = match request.send().await {
                Ok(response) => response,
                // It broke off before the head was on its way.
                Err(error) => {
                    assert!(error.is_request(), "{way:?} {path}: {error}");
                    continue;
                }
            };
            if response.status() != StatusCode::OK {
                // Known before the head went out.
                assert_eq!(problem(response).await, (502, "guest_trapped".into()), "{path}");
                continue;
            }
            assert!(response.bytes().await.is_err(), "{way:?} {path} looked complete");
        }
        web.is_at_rest().await;
    }
}

#[tokio::test]
async fn a_trap_after_the_head_has_gone_breaks_the_body_off() {
    for way in WAYS {
        let web = Web::start(way);
        let response = client().get(web.url("/late")).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{way:?}");
        let mut pieces = response.bytes_stream();
        let mut came = Vec::new();
        let end = loop {
            match pieces.next().await {
                Some(Ok(piece)) => came.extend_from_slice(&piece),
                end => break end,
            }
        };
        assert!(matches!(end, Some(Err(_))), "{way:?}: the body looked complete");
        assert_eq!(came, b"hello", "{way:?}");
        web.says_hello().await;
        web.is_at_rest().await;
    }
}

#[tokio::test]
async fn a_body_where_none_may_be_goes_nowhere() {
    for way in WAYS {
        let web = Web::start(way);
        let cached = client().get(web.url("/cached")).send().await.unwrap();
        assert_eq!(cached.status(), StatusCode::NOT_MODIFIED, "{way:?}");
        assert_eq!(cached.bytes().await.unwrap(), "", "{way:?}");
        let head = client().head(web.url("/late")).send().await.unwrap();
        assert_eq!(head.status(), StatusCode::OK, "{way:?}");
        assert_eq!(head.bytes().await.unwrap(), "", "{way:?}");
        web.says_hello().await;
        web.is_at_rest().await;
    }
}

#[tokio::test]
async fn large_bodies_stream_both_ways_in_bounded_memory() {
    for way in WAYS {
        let web = Web::start(way);
        client().get(web.url("/hello")).send().await.unwrap();
        let before = web.peak_bytes();
        let pieces = unfold(0, async |at| {
            let piece: Vec<u8> = (at..(at + 64_000).min(LARGE)).map(byte_at).collect();
            (!piece.is_empty()).then(|| (Ok::<_, std::io::Error>(Bytes::from(piece)), at + 64_000))
        });
        let request = client()
            .post(web.url("/echo"))
            .header("Wess-Timeout-Ms", "60000")
            .body(reqwest::Body::wrap_stream(Box::pin(pieces)));
        let mut back = request.send().await.unwrap().bytes_stream();
        let mut at = 0;
        while let Some(piece) = back.next().await {
            for byte in piece.unwrap() {
                assert_eq!(byte, byte_at(at), "{way:?} at {at}");
                at += 1;
            }
        }
        assert_eq!(at, LARGE, "{way:?}");
        let grown = web.peak_bytes().saturating_sub(before);
        assert!(grown < 24_000_000, "{way:?}: {grown} bytes more");
        let big = client().get(web.url("/big")).header("Wess-Timeout-Ms", "60000");
        assert_eq!(big.send().await.unwrap().bytes().await.unwrap().len(), LARGE);
        web.is_at_rest().await;
    }
}

/// No two pieces are the same.
fn byte_at(at: usize) -> u8 {
    (at ^ (at >> 8) ^ (at >> 16)) as u8
}

/// A request by hand whose body goes on.
async fn talking(address: SocketAddr, path: &str, headers: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n{headers}\r\n3\r\none\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

/// Reads until these bytes have come.
async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut text = Vec::new();
    while !String::from_utf8_lossy(&text).ends_with(end) {
        let mut some = [0; 1024];
        let count = stream.read(&mut some).await.unwrap();
        assert!(count > 0, "ended after {:?}", String::from_utf8_lossy(&text));
        text.extend_from_slice(&some[..count]);
    }
    String::from_utf8(text).unwrap()
}

#[tokio::test]
async fn pieces_and_trailers_come_back_while_the_request_goes_on() {
    for way in WAYS {
        let web = Web::start(way);
        let headers = "te: trailers\r\ntrailer: x-sum\r\nconnection: x-hop\r\nx-hop: 1\r\nx-mine: 2\r\nauthorization: Basic YQ==\r\n";
        let mut stream = talking(web.address(), &web.path("/echo"), headers).await;
        let head = read_until(&mut stream, "one\r\n").await;
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        for line in [
            "x-mine: 2",
            "x-forwarded-for: 127.0.0.1",
            "x-forwarded-host: localhost",
            "x-forwarded-proto: http",
            "x-forwarded-prefix: /v1/http/web",
            "authorization: Basic YQ==",
        ] {
            assert!(head.contains(&format!("{line}\r\n")), "{line} is not in {head}");
        }
        assert!(!head.contains("x-hop") && !head.contains("\r\nte: "), "{head}");
        stream.write_all(b"3\r\ntwo\r\n").await.unwrap();
        assert!(read_until(&mut stream, "two\r\n").await.contains("two"));
        stream.write_all(b"0\r\nx-sum: 6\r\n\r\n").await.unwrap();
        let rest = read_until(&mut stream, "\r\n\r\n").await;
        assert_eq!(rest, "0\r\nx-sum: 6\r\n\r\n", "{way:?}");
        web.is_at_rest().await;
    }
}

#[tokio::test]
async fn a_client_that_goes_away_takes_its_guest_with_it() {
    for way in WAYS {
        let web = Web::start(way);
        // Once while the guest reads, once before there is a head.
        let mut reading = talking(web.address(), &web.path("/echo"), "wess-timeout-ms: 60000\r\n").await;
        read_until(&mut reading, "one\r\n").await;
        let silent = talking(web.address(), &web.path("/loop"), "wess-timeout-ms: 60000\r\n").await;
        eventually("two guests", async || {
            (web.metric("wess_worker_slots_busy").await == 2).then_some(())
        })
        .await;
        drop(reading);
        eventually("one guest less", async || {
            (web.metric("wess_worker_slots_busy").await == 1).then_some(())
        })
        .await;
        drop(silent);
        web.is_at_rest().await;
        let given_up = web.metric("wess_worker_calls_total{code=\"cancelled\"}").await;
        let trapped = web
            .metric("wess_worker_calls_total{code=\"guest_trapped\"}")
            .await;
        assert_eq!(given_up + trapped, 2, "{way:?}");
        assert!(given_up >= 1, "{way:?}");
    }
}

#[tokio::test]
async fn a_worker_that_is_lost_breaks_the_response_off() {
    let mut web = Web::start(Way::ThroughNats);
    let mut stream = talking(web.address(), &web.path("/echo"), "wess-timeout-ms: 60000\r\n").await;
    read_until(&mut stream, "one\r\n").await;
    web.kill_worker();
    let mut rest = Vec::new();
    // Sooner or later, and without the chunk that ends a body.
    let _ = stream.read_to_end(&mut rest).await;
    assert!(!rest.ends_with(b"0\r\n\r\n"));
}
