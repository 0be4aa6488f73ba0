//! Connections: kept alive, bounded, never held by slow clients for long, drained at the end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use wess_harness::{DEADLINE, eventually};
use wess_schemas::ErrorCode;

use crate::http::{get, head, post, read_one, read_to_end};
use crate::support::{House, Workers, noise, raw};

const CALL: &str = "/v1/modules/a/invoke";

fn call(body: &str) -> String {
    head("POST", CALL, &[("Content-Length", &body.len().to_string())]) + body
}

/// Workers that answer only when told to.
fn held() -> (Arc<Workers>, Arc<Notify>) {
    let release = Arc::new(Notify::new());
    let gate = release.clone();
    let workers = Workers::new(move |_| {
        let gate = gate.clone();
        async move {
            gate.notified().await;
            Ok(raw("done", &[]))
        }
        .boxed()
    });
    (workers, release)
}

async fn in_flight(house: &House, count: usize) {
    let wanted = format!("in_flight {count}\n");
    eventually(&wanted, async || house.metrics().contains(&wanted).then_some(())).await;
}

async fn is_closed(stream: &mut TcpStream) -> bool {
    let mut rest = Vec::new();
    tokio::time::timeout(DEADLINE, stream.read_to_end(&mut rest))
        .await
        .is_ok()
}

#[tokio::test]
async fn many_requests_share_a_connection_and_none_waits_for_an_acknowledgement() {
    let house = House::start(Workers::answering(|request| Ok(raw(request.payload, &[])))).await;
    let mut stream = TcpStream::connect(house.address).await.unwrap();
    let started = Instant::now();
    for round in 0..100 {
        let body = format!("round {round}");
        stream.write_all(call(&body).as_bytes()).await.unwrap();
        assert_eq!(read_one(&mut stream).await.text(), body);
    }
    // With Nagle's algorithm and delayed acknowledgements, 100 rounds take 4 s.
    assert!(
        started.elapsed() < Duration::from_secs(2),
        "{:?}",
        started.elapsed()
    );
    assert!(house.metrics().contains("http_connections 1"));
}

#[tokio::test]
async fn requests_sent_ahead_are_answered_in_order() {
    let house = House::start(Workers::answering(|request| Ok(raw(request.payload, &[])))).await;
    let mut stream = TcpStream::connect(house.address).await.unwrap();
    let ahead = call("one") + &call("two") + &head("GET", "/livez", &[("Connection", "close")]);
    stream.write_all(ahead.as_bytes()).await.unwrap();
    let mut answers = String::new();
    stream.read_to_string(&mut answers).await.unwrap();
    let order: Vec<_> = ["one", "two", "ok\n"]
        .iter()
        .map(|body| answers.find(body).unwrap())
        .collect();
    assert!(order.is_sorted(), "{answers}");
}

#[tokio::test]
async fn a_head_that_does_not_end_is_not_waited_for() {
    let house = House::with_options(Workers::none(), &["--http-head-timeout-s", "1"]).await;
    let mut stream = TcpStream::connect(house.address).await.unwrap();
    stream.write_all(b"GET /livez HTTP/1.1\r\n").await.unwrap();
    let dribble = async {
        // The client is never silent, and never done.
        while stream.write_all(b"X-A: b\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(DEADLINE, dribble)
        .await
        .expect("the connection was held open");
}

#[tokio::test]
async fn a_body_that_does_not_end_is_refused() {
    let house = House::with_options(Workers::none(), &["--http-body-timeout-s", "1"]).await;
    let mut stream = TcpStream::connect(house.address).await.unwrap();
    stream
        .write_all(head("POST", CALL, &[("Content-Length", "9")]).as_bytes())
        .await
        .unwrap();
    stream.write_all(b"x").await.unwrap();
    let answer = read_to_end(&mut stream).await;
    assert_eq!(
        (answer.status, answer.problem().code),
        (400, ErrorCode::InvalidRequest)
    );
}

#[tokio::test]
async fn a_client_that_sends_all_before_it_reads_still_learns_why_it_was_refused() {
    let house = House::start(Workers::none()).await;
    let mut stream = TcpStream::connect(house.address).await.unwrap();
    let too_large = vec![b'x'; 32 * 1024 * 1024];
    let length = too_large.len().to_string();
    let head_of_call = head("POST", CALL, &[("Content-Length", &length)]);
    stream.write_all(head_of_call.as_bytes()).await.unwrap();
    stream.write_all(&too_large).await.unwrap();
    assert_eq!(
        read_one(&mut stream).await.problem().code,
        ErrorCode::PayloadTooLarge
    );
    let next = head("GET", "/livez", &[]);
    stream.write_all(next.as_bytes()).await.unwrap();
    assert_eq!(read_one(&mut stream).await.status, 200);
}

#[tokio::test]
async fn what_a_refused_client_sends_is_not_read_for_ever() {
    let house = House::start(Workers::none()).await;
    let mut stream = TcpStream::connect(house.address).await.unwrap();
    let endless = head("POST", CALL, &[("Content-Length", "9000000000")]);
    stream.write_all(endless.as_bytes()).await.unwrap();
    let piece = vec![b'x'; 1024 * 1024];
    let sending = async { while stream.write_all(&piece).await.is_ok() {} };
    tokio::time::timeout(DEADLINE, sending)
        .await
        .expect("it was read for ever");
}

#[tokio::test]
async fn a_client_that_asked_before_it_sent_is_refused_without_being_told_to_go_on() {
    let house = House::start(Workers::none()).await;
    let mut stream = TcpStream::connect(house.address).await.unwrap();
    let question = [("Content-Length", "32000000"), ("Expect", "100-continue")];
    stream
        .write_all(head("POST", CALL, &question).as_bytes())
        .await
        .unwrap();
    let refused = tokio::time::timeout(DEADLINE, read_to_end(&mut stream))
        .await
        .expect("the connection was held open");
    assert_eq!(refused.problem().code, ErrorCode::PayloadTooLarge);
}

#[tokio::test]
async fn an_answer_that_is_not_taken_is_not_held() {
    let output = noise(8 * 1024 * 1024);
    let workers = Workers::answering(move |_| Ok(raw(output.clone(), &[])));
    let house = House::with_options(workers, &["--http-send-timeout-s", "1"]).await;
    let mut stream = TcpStream::connect(house.address).await.unwrap();
    stream.write_all(call("").as_bytes()).await.unwrap();
    eventually("the connection's end", async || {
        house.metrics().contains("http_connections 0").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_head_larger_than_its_bound_is_refused() {
    let house = House::start(Workers::none()).await;
    let mut stream = TcpStream::connect(house.address).await.unwrap();
    let large = "x".repeat(64 * 1024);
    let _ = stream
        .write_all(head("GET", "/livez", &[("X-Large", &large)]).as_bytes())
        .await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(
        answer.is_empty() || answer.starts_with(b"HTTP/1.1 431"),
        "{}",
        String::from_utf8_lossy(&answer)
    );
    assert_eq!(get(house.address, "/livez").await.status, 200);
}

#[tokio::test]
async fn past_the_bound_requests_are_refused_at_once_and_health_is_not() {
    let (workers, release) = held();
    let house = House::with_options(workers.clone(), &["--http-max-in-flight", "2"]).await;
    let calls = futures_util::future::join_all([(); 2].map(|()| post(house.address, CALL, "")));
    let beyond = async {
        eventually("two calls", async || (workers.times_asked() == 2).then_some(())).await;
        let answer = post(house.address, CALL, "").await;
        let problem = answer.problem();
        assert_eq!(
            (answer.status, problem.code, problem.guest_ran),
            (503, ErrorCode::Overloaded, false)
        );
        assert_eq!(answer.header("retry-after"), Some("1"));
        assert_eq!(get(house.address, "/livez").await.status, 200);
        release.notify_waiters();
    };
    let (answers, ()) = tokio::join!(calls, beyond);
    assert!(answers.iter().all(|answer| answer.text() == "done"));
    in_flight(&house, 0).await;
}

#[tokio::test]
async fn past_the_bound_connections_wait_their_turn() {
    let house = House::with_options(Workers::none(), &["--http-max-connections", "1"]).await;
    let mut first = TcpStream::connect(house.address).await.unwrap();
    first
        .write_all(head("GET", "/livez", &[]).as_bytes())
        .await
        .unwrap();
    assert_eq!(read_one(&mut first).await.status, 200);
    let mut second = TcpStream::connect(house.address).await.unwrap();
    second
        .write_all(head("GET", "/livez", &[]).as_bytes())
        .await
        .unwrap();
    first
        .write_all(head("GET", "/livez", &[("Connection", "close")]).as_bytes())
        .await
        .unwrap();
    assert_eq!(read_to_end(&mut first).await.status, 200);
    assert_eq!(read_one(&mut second).await.status, 200);
}

#[tokio::test]
async fn a_client_that_goes_away_takes_its_request_with_it() {
    let (workers, _release) = held();
    let house = House::start(workers.clone()).await;
    let mut stream = TcpStream::connect(house.address).await.unwrap();
    stream.write_all(call("").as_bytes()).await.unwrap();
    eventually("the call", async || (workers.times_asked() == 1).then_some(())).await;
    drop(stream);
    in_flight(&house, 0).await;
    assert!(
        house.metrics().contains(r#"status="gone"} 1"#),
        "{}",
        house.metrics()
    );
}

#[tokio::test]
async fn a_drain_finishes_what_is_in_flight_and_takes_nothing_new() {
    let (workers, release) = held();
    let house = House::start(workers.clone()).await;
    let mut busy = TcpStream::connect(house.address).await.unwrap();
    busy.write_all(call("").as_bytes()).await.unwrap();
    let mut idle = TcpStream::connect(house.address).await.unwrap();
    idle.write_all(head("GET", "/livez", &[]).as_bytes())
        .await
        .unwrap();
    read_one(&mut idle).await;
    eventually("the call", async || (workers.times_asked() == 1).then_some(())).await;

    house.lifecycle.stop();
    assert!(is_closed(&mut idle).await);
    eventually("the listener's end", async || {
        TcpStream::connect(house.address).await.err()
    })
    .await;
    release.notify_waiters();
    let answer = read_to_end(&mut busy).await;
    assert_eq!(
        (answer.text(), answer.header("connection")),
        ("done", Some("close"))
    );
}

#[tokio::test]
async fn a_cut_ends_what_is_still_in_flight() {
    let (workers, _release) = held();
    let house = House::start(workers.clone()).await;
    let mut busy = TcpStream::connect(house.address).await.unwrap();
    busy.write_all(call("").as_bytes()).await.unwrap();
    eventually("the call", async || (workers.times_asked() == 1).then_some(())).await;
    house.lifecycle.stop();
    house.lifecycle.cut.cancel();
    assert!(is_closed(&mut busy).await);
    in_flight(&house, 0).await;
}

#[tokio::test]
async fn requests_are_counted_by_route_method_and_class() {
    let house = House::start(Workers::answering(|_| Ok(raw("", &[])))).await;
    post(house.address, CALL, "").await;
    get(house.address, "/nothing/here").await;
    get(house.address, CALL).await;
    let metrics = house.metrics();
    for labels in [
        r#"{route="/v1/modules/{ref}/invoke",method="POST",status="2xx"} 1"#,
        r#"{route="none",method="GET",status="4xx"} 1"#,
        r#"{route="/v1/modules/{ref}/invoke",method="GET",status="4xx"} 1"#,
    ] {
        assert!(
            metrics.contains(&format!("wess_gateway_http_requests_total{labels}")),
            "{metrics}"
        );
    }
}
