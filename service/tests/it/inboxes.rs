//! Inboxes of one connection under one subscription: each gets its own messages, in order, and hears when one was lost.

use async_nats::Client;
use wess_harness::{NatsServer, eventually};
use wess_service::http::inboxes::{Inbox, Inboxes};

use crate::support::{connect, http_get};

async fn rig() -> (NatsServer, Client, Inboxes) {
    let server = NatsServer::start();
    let (sender, receiver) = (connect(&server).await.client, connect(&server).await.client);
    (server, sender, Inboxes::new(receiver))
}

async fn send(client: &Client, inbox: &Inbox, texts: impl IntoIterator<Item = String>) {
    for text in texts {
        client
            .publish(inbox.subject().clone(), text.into())
            .await
            .unwrap();
    }
    client.flush().await.unwrap();
}

async fn subscriptions(server: &NatsServer) -> u64 {
    let (_, answer) = http_get(&server.monitor().to_string(), "/varz").await;
    let line = answer
        .lines()
        .find_map(|line| line.trim().strip_prefix("\"subscriptions\": "));
    line.unwrap().trim_end_matches(',').parse().unwrap()
}

/// The server says that nobody answers this only behind what it was told before.
async fn is_known(inboxes: &Inboxes) {
    let client = inboxes.client();
    let nobody = client.request(client.new_inbox(), "".into()).await;
    assert!(nobody.is_err(), "{nobody:?}");
}

#[tokio::test]
async fn each_inbox_gets_its_own_messages_in_order() {
    let (_server, client, inboxes) = rig().await;
    let (mut one, mut other) = (inboxes.open().await.unwrap(), inboxes.open().await.unwrap());
    is_known(&inboxes).await;
    assert_ne!(one.subject(), other.subject());
    send(&client, &one, (0..1000).map(|n| n.to_string())).await;
    send(&client, &other, ["for the other".into()]).await;
    for n in 0..1000 {
        assert_eq!(one.next().await.unwrap().payload, n.to_string());
    }
    assert_eq!(other.next().await.unwrap().payload, "for the other");
}

#[tokio::test]
async fn one_subscription_is_all_that_the_server_has_of_them() {
    let server = NatsServer::builder().config("http: \"127.0.0.1:-1\"").start();
    let inboxes = Inboxes::new(connect(&server).await.client);
    is_known(&inboxes).await;
    let none = subscriptions(&server).await;
    let many: Vec<Inbox> = futures_util::future::try_join_all((0..100).map(|_| inboxes.open()))
        .await
        .unwrap();
    is_known(&inboxes).await;
    let before = subscriptions(&server).await;
    assert_eq!(before, none + 1);
    drop(many);
    let _again = inboxes.open().await.unwrap();
    is_known(&inboxes).await;
    assert_eq!(subscriptions(&server).await, before);
}

#[tokio::test]
async fn one_that_is_dropped_takes_nothing_and_the_others_go_on() {
    let (_server, client, inboxes) = rig().await;
    let (gone, mut here) = (inboxes.open().await.unwrap(), inboxes.open().await.unwrap());
    is_known(&inboxes).await;
    let subject = gone.subject().clone();
    drop(gone);
    client.publish(subject, "to nobody".into()).await.unwrap();
    send(&client, &here, ["here".into()]).await;
    assert_eq!(here.next().await.unwrap().payload, "here");
}

#[tokio::test]
async fn one_that_lost_a_message_ends_behind_what_it_got() {
    const HELD: usize = 65_536;
    let (_server, client, inboxes) = rig().await;
    let (mut slow, mut other) = (inboxes.open().await.unwrap(), inboxes.open().await.unwrap());
    is_known(&inboxes).await;
    send(&client, &slow, (0..=HELD).map(|n| n.to_string())).await;
    // Behind all of it on the same connection.
    send(&client, &other, ["after".into()]).await;
    assert_eq!(other.next().await.unwrap().payload, "after");
    for n in 0..HELD {
        assert_eq!(slow.next().await.unwrap().payload, n.to_string());
    }
    assert!(slow.next().await.is_none());
}

#[tokio::test]
async fn they_end_with_their_connection() {
    let (_server, _client, inboxes) = rig().await;
    let mut inbox = inboxes.open().await.unwrap();
    inboxes.client().drain().await.unwrap();
    eventually("the inbox ends", async || {
        inbox.next().await.is_none().then_some(())
    })
    .await;
}
