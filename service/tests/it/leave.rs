//! Leaving a queue group: every message comes to one of its members, whenever one of them leaves.

use std::collections::BTreeSet;

use async_nats::{Client, Message, Subscriber};
use futures_util::StreamExt;
use wess_harness::NatsServer;
use wess_service::nats::leave;

const SENT: usize = 40_000;
const SUBJECT: &str = "work";

async fn member(server: &NatsServer) -> (Client, Subscriber) {
    let options = async_nats::ConnectOptions::new().subscription_capacity(SENT);
    let client = options.connect(server.url()).await.unwrap();
    let subscription = client.queue_subscribe(SUBJECT, "group".into()).await.unwrap();
    client.flush().await.unwrap();
    (client, subscription)
}

fn number(message: &Message) -> usize {
    std::str::from_utf8(&message.payload).unwrap().parse().unwrap()
}

/// Sends numbers while one of two members leaves after it took some of them, and gives what each was sent.
async fn one_of_two_leaves(taken: usize) -> (Vec<usize>, Vec<usize>) {
    let server = NatsServer::start();
    let (leaving_client, mut leaving) = member(&server).await;
    let (_client, mut staying) = member(&server).await;
    let sender = async_nats::connect(server.url()).await.unwrap();
    let sending = tokio_util::task::TaskTracker::new().spawn(async move {
        for number in 0..SENT {
            sender.publish(SUBJECT, number.to_string().into()).await.unwrap();
        }
        sender.flush().await.unwrap();
    });
    let mut left = Vec::new();
    while left.len() < taken {
        left.push(number(&leaving.next().await.unwrap()));
    }
    left.extend(leave(&leaving_client, vec![leaving]).await.iter().map(number));
    let mut stayed = Vec::new();
    while left.len() + stayed.len() < SENT {
        stayed.push(number(&staying.next().await.unwrap()));
    }
    sending.await.unwrap();
    (left, stayed)
}

fn every_number_once(left: &[usize], stayed: &[usize]) {
    let all: BTreeSet<_> = left.iter().chain(stayed).collect();
    assert_eq!((all.len(), left.len() + stayed.len()), (SENT, SENT));
}

#[tokio::test]
async fn nothing_is_lost_and_nothing_comes_twice_when_a_member_leaves() {
    for taken in [0, 1, 1000] {
        let (left, stayed) = one_of_two_leaves(taken).await;
        every_number_once(&left, &stayed);
        assert!(!stayed.is_empty(), "it left only when all was sent");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nor_on_a_runtime_with_threads() {
    let (left, stayed) = one_of_two_leaves(1000).await;
    every_number_once(&left, &stayed);
}

#[tokio::test]
async fn once_it_has_left_the_server_knows_of_nobody() {
    let server = NatsServer::start();
    let (client, subscription) = member(&server).await;
    assert!(leave(&client, vec![subscription]).await.is_empty());
    let other = async_nats::connect(server.url()).await.unwrap();
    let refused = other.request(SUBJECT, "".into()).await.unwrap_err();
    assert_eq!(refused.kind(), async_nats::RequestErrorKind::NoResponders);
}

#[tokio::test]
async fn a_connection_that_is_away_is_not_waited_for() {
    let mut server = NatsServer::start();
    let (client, subscription) = member(&server).await;
    client.publish(SUBJECT, "0".into()).await.unwrap();
    client.request(client.new_inbox(), "".into()).await.unwrap_err();
    server.kill();
    wess_harness::eventually("the loss to be noticed", async || {
        (client.connection_state() != async_nats::connection::State::Connected).then_some(())
    })
    .await;
    assert_eq!(
        leave(&client, vec![subscription]).await.len(),
        1,
        "what had come is given"
    );
}
