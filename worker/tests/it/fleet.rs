//! Workers hear each other, and a change waits for those that beat.

use std::sync::Arc;

use tokio::sync::watch;
use wess_harness::{NatsServer, eventually};
use wess_schemas::WorkerId;
use wess_schemas::beat::WorkerBeat;
use wess_schemas::subject::Subjects;
use wess_service::lifecycle::Lifecycle;
use wess_worker::fleet::{Fleet, SlotCounts};

use crate::support::connect;

struct Member {
    fleet: Fleet,
    revision: watch::Sender<u64>,
    lifecycle: Lifecycle,
}

async fn member(server: &NatsServer) -> Member {
    let (connection, lifecycle) = (connect(server).await, Lifecycle::default());
    let revision = watch::Sender::new(0);
    let worker = WorkerId::generate();
    let subjects = Subjects::default();
    let fleet = Fleet::listen(worker, &subjects, &connection, revision.subscribe(), &lifecycle)
        .await
        .unwrap();
    fleet.beat(
        Arc::new(|| SlotCounts {
            busy: 1,
            total: 2,
            waiting: 3,
            answered: 4,
        }),
        &lifecycle,
    );
    Member {
        fleet,
        revision,
        lifecycle,
    }
}

#[tokio::test]
async fn a_change_has_spread_once_every_beating_worker_has_seen_it() {
    let server = NatsServer::start();
    let (one, two) = (member(&server).await, member(&server).await);
    eventually("both to hear each other", async || {
        (one.fleet.workers() == 2 && two.fleet.workers() == 2).then_some(())
    })
    .await;
    one.revision.send_replace(5);
    assert!(!one.fleet.propagated(5).await, "the other has not seen it");
    two.revision.send_replace(5);
    assert!(one.fleet.propagated(5).await);
    assert!(!one.fleet.propagated(6).await, "this one has not seen it");
}

#[tokio::test]
async fn a_worker_that_ended_is_not_waited_for_long() {
    let server = NatsServer::start();
    let (one, two) = (member(&server).await, member(&server).await);
    eventually("the other", async || (one.fleet.workers() == 2).then_some(())).await;
    two.lifecycle.closed.cancel();
    one.revision.send_replace(5);
    assert!(one.fleet.propagated(5).await);
    eventually("the other to be forgotten", async || {
        (one.fleet.workers() == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_draining_worker_says_so_and_holds_nobody_up() {
    let server = NatsServer::start();
    let (one, two) = (member(&server).await, member(&server).await);
    let mut beats = connect(&server)
        .await
        .client
        .subscribe("wess.worker.beat")
        .await
        .unwrap();
    two.lifecycle.shutdown.cancel();
    let draining = eventually("a draining beat", async || {
        let message = futures_util::StreamExt::next(&mut beats).await?;
        let beat: WorkerBeat = serde_json::from_slice(&message.payload).unwrap();
        beat.draining.then_some(beat)
    })
    .await;
    assert_eq!(
        (
            draining.slots_busy,
            draining.slots_total,
            draining.waiting,
            draining.calls_answered
        ),
        (1, 2, 3, 4)
    );
    one.revision.send_replace(5);
    assert!(one.fleet.propagated(5).await);
}

#[tokio::test]
async fn garbage_beats_are_ignored() {
    let server = NatsServer::start();
    let one = member(&server).await;
    let client = connect(&server).await.client;
    client.publish("wess.worker.beat", "{]".into()).await.unwrap();
    client.flush().await.unwrap();
    assert!(one.fleet.propagated(0).await);
    assert_eq!(one.fleet.workers(), 1);
}
