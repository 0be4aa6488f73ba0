//! Across a real NATS: workers that answer, none at all, and a server that goes away.

use std::sync::Arc;

use futures_util::StreamExt;
use wess_harness::NatsServer;
use wess_schemas::ErrorCode;
use wess_service::bus::{Bus, NatsBus};

use crate::http::post;
use crate::support::{House, noise};

async fn bus(nats: &NatsServer) -> (async_nats::Client, Arc<dyn Bus>) {
    let client = async_nats::connect(nats.url()).await.unwrap();
    (client.clone(), Arc::new(NatsBus::new(client)))
}

#[tokio::test]
async fn a_call_crosses_nats_and_comes_back() {
    let nats = NatsServer::start();
    let (client, bus) = bus(&nats).await;
    let mut calls = client
        .queue_subscribe("wess.invoke.>", "wess".into())
        .await
        .unwrap();
    client.flush().await.unwrap();
    let house = House::start(bus).await;
    let worker = async {
        let call = calls.next().await.unwrap();
        let upper = call.payload.to_ascii_uppercase();
        client.publish(call.reply.unwrap(), upper.into()).await.unwrap();
    };
    let (answer, ()) = tokio::join!(post(house.address, "/v1/modules/upper/invoke", "hello"), worker);
    assert_eq!(answer.text(), "HELLO");
}

#[tokio::test]
async fn without_workers_the_answer_says_so() {
    let nats = NatsServer::start();
    let house = House::start(bus(&nats).await.1).await;
    let problem = post(house.address, "/v1/modules/upper/invoke", "")
        .await
        .problem();
    assert_eq!(
        (problem.status, problem.code, problem.retryable),
        (503, ErrorCode::NoWorkers, true)
    );
}

#[tokio::test]
async fn without_nats_the_answer_says_so_and_promises_that_nothing_ran() {
    let mut nats = NatsServer::start();
    let house = House::start(bus(&nats).await.1).await;
    nats.kill();
    let problem = post(house.address, "/v1/modules/upper/invoke", "")
        .await
        .problem();
    assert_eq!((problem.status, problem.guest_ran), (503, false));
    assert_eq!(problem.code, ErrorCode::Unavailable);
}

#[tokio::test]
async fn without_the_object_store_small_calls_go_through_and_large_ones_are_refused() {
    let nats = NatsServer::start();
    let (client, bus) = bus(&nats).await;
    let mut calls = client
        .queue_subscribe("wess.invoke.>", "wess".into())
        .await
        .unwrap();
    client.flush().await.unwrap();
    let mut house = House::start(bus).await;
    house.nats.kill();
    let worker = async {
        let call = calls.next().await.unwrap();
        client.publish(call.reply.unwrap(), "fine".into()).await.unwrap();
    };
    let (answer, ()) = tokio::join!(post(house.address, "/v1/modules/upper/invoke", "small"), worker);
    assert_eq!(answer.text(), "fine");
    let problem = post(house.address, "/v1/modules/upper/invoke", noise(1024 * 1024))
        .await
        .problem();
    assert_eq!((problem.status, problem.code), (503, ErrorCode::Unavailable));
}
