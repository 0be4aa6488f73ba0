//! The bus over NATS: each way in which there can be no reply, told apart.

use std::time::{Duration, Instant};

use async_nats::{Client, HeaderMap};
use bytes::Bytes;
use futures_util::StreamExt;
use wess_harness::NatsServer;
use wess_schemas::ErrorCode;
use wess_service::bus::{Bus, BusError, NatsBus, Reply, Request};

use wess_service::trace_context::TraceParent;

use crate::support::connect;

const TIMEOUT: Duration = Duration::from_secs(20);

fn request(payload: impl Into<Bytes>, timeout: Duration) -> Request {
    let mut headers = HeaderMap::new();
    headers.insert("Wess-Fuel", "7");
    Request {
        subject: "wess.invoke".into(),
        trace: None,
        headers,
        payload: payload.into(),
        timeout,
    }
}

async fn ask(client: &Client, timeout: Duration) -> Result<Reply, BusError> {
    NatsBus::new(client.clone())
        .request(request("hello", timeout))
        .await
}

/// Answers with the request's own headers and body.
async fn echo(client: Client) {
    let mut subscription = client.subscribe("wess.invoke").await.unwrap();
    client.flush().await.unwrap();
    tokio::task::spawn_local(async move {
        while let Some(message) = subscription.next().await {
            let (reply, headers) = (message.reply.unwrap(), message.headers.unwrap_or_default());
            client
                .publish_with_headers(reply, headers, message.payload)
                .await
                .unwrap();
        }
    });
}

#[tokio::test(flavor = "local")]
async fn a_reply_has_its_headers_and_its_body() {
    let server = NatsServer::start();
    let client = connect(&server).await.client;
    echo(client.clone()).await;
    let reply = ask(&client, TIMEOUT).await.unwrap();
    assert_eq!(reply.payload, "hello");
    assert_eq!(reply.headers.get("Wess-Fuel").unwrap().as_str(), "7");
}

#[tokio::test(flavor = "local")]
async fn a_trace_travels_as_a_header() {
    let server = NatsServer::start();
    let client = connect(&server).await.client;
    echo(client.clone()).await;
    let trace = TraceParent::generate();
    let traced = Request {
        trace: Some(trace),
        ..request("hello", TIMEOUT)
    };
    let reply = NatsBus::new(client).request(traced).await.unwrap();
    assert_eq!(TraceParent::of(&reply.headers), Some(trace));
    assert!(reply.headers.get("Wess-Fuel").is_some());
}

#[tokio::test]
async fn no_workers_is_said_after_two_seconds() {
    let server = NatsServer::start();
    let client = connect(&server).await.client;
    let started = Instant::now();
    let error = ask(&client, TIMEOUT).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::NoWorkers);
    assert!(
        (1500..5000).contains(&started.elapsed().as_millis()),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test]
async fn the_callers_timeout_bounds_the_search_for_a_worker() {
    let server = NatsServer::start();
    let client = connect(&server).await.client;
    let started = Instant::now();
    let error = ask(&client, Duration::from_millis(100)).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::NoWorkers);
    assert!(
        started.elapsed() < Duration::from_secs(1),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test(flavor = "local")]
async fn a_worker_that_comes_meanwhile_answers() {
    let server = NatsServer::start();
    let (client, late) = (connect(&server).await.client, connect(&server).await.client);
    let (reply, ()) = tokio::join!(ask(&client, TIMEOUT), async {
        let sent = || {
            client
                .statistics()
                .out_messages
                .load(std::sync::atomic::Ordering::Relaxed)
        };
        wess_harness::eventually("the first try", async || (sent() > 1).then_some(())).await;
        echo(late).await;
    });
    assert_eq!(reply.unwrap().payload, "hello");
}

#[tokio::test]
async fn a_silent_worker_is_a_timeout_that_may_have_run_the_guest() {
    let server = NatsServer::start();
    let client = connect(&server).await.client;
    let _silent = client.subscribe("wess.invoke").await.unwrap();
    client.flush().await.unwrap();
    let error = ask(&client, Duration::from_millis(200)).await.unwrap_err();
    assert!(matches!(error, BusError::TimedOut { .. }), "{error}");
    assert_eq!(error.code(), ErrorCode::Internal);
}

#[tokio::test(flavor = "local")]
async fn the_largest_message_passes_and_one_byte_more_is_too_large() {
    let server = NatsServer::builder().config("max_payload: 4096").start();
    let client = connect(&server).await.client;
    echo(client.clone()).await;
    let bus = NatsBus::new(client);
    assert_eq!(bus.max_payload(), 4096);
    let of = |size| Request {
        headers: HeaderMap::new(),
        ..request(vec![0; size], TIMEOUT)
    };
    assert_eq!(bus.request(of(4096)).await.unwrap().payload.len(), 4096);
    let error = bus.request(of(4097)).await.unwrap_err();
    assert!(matches!(error, BusError::TooLarge { limit: 4096 }), "{error}");
    let with_headers = bus.request(request(vec![0; 4096], TIMEOUT)).await.unwrap_err();
    assert_eq!(with_headers.code(), ErrorCode::PayloadTooLarge);
}

#[tokio::test]
async fn a_lost_server_is_disconnected_and_not_a_timeout() {
    let mut server = NatsServer::start();
    let mut connection = connect(&server).await;
    server.kill();
    while connection.watch.state().connected {
        connection.watch.changed().await.unwrap();
    }
    let error = ask(&connection.client, TIMEOUT).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Unavailable);
}

#[tokio::test(flavor = "local")]
async fn a_server_that_comes_back_in_time_is_not_noticed() {
    let mut server = NatsServer::start();
    let mut connection = connect(&server).await;
    echo(connection.client.clone()).await;
    server.kill();
    while connection.watch.state().connected {
        connection.watch.changed().await.unwrap();
    }
    let (reply, ()) = tokio::join!(ask(&connection.client, TIMEOUT), async { server.restart() });
    assert_eq!(reply.unwrap().payload, "hello");
}

#[tokio::test]
async fn a_subject_that_is_none_is_refused_before_it_is_sent() {
    let server = NatsServer::start();
    let bus = NatsBus::new(connect(&server).await.client);
    for subject in ["", "a b", "a\r\nPUB x 0"] {
        let error = bus
            .request(Request {
                subject: subject.into(),
                ..request("", TIMEOUT)
            })
            .await
            .unwrap_err();
        assert_eq!(error.code(), ErrorCode::InvalidRequest, "{subject:?}");
    }
}
