//! What schedules fire while no worker is there: the gateways move it to the jobs.

use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::{self, Context};
use async_nats::{Client, HeaderMap};
use futures_util::StreamExt;
use wess_harness::{NatsServer, Process, eventually};
use wess_schemas::JobId;
use wess_schemas::subject::Subjects;
use wess_service::queue::timers::{Schedule, schedule};

use crate::process::gateway;

const DELAY: Duration = Duration::from_millis(1100);

async fn put_off(jetstream: &Context, job_id: &str) {
    let job_id: JobId = job_id.parse().unwrap();
    let at = Schedule::In(DELAY);
    let body = "{}".into();
    schedule(
        jetstream,
        &Subjects::default(),
        &job_id,
        &at,
        HeaderMap::new(),
        body,
    )
    .await
    .unwrap();
}

/// The jobs that wait, in the order in which they came.
async fn jobs(client: &Client, count: usize) -> Vec<String> {
    let jetstream = jetstream::new(client.clone());
    eventually("the jobs", async || {
        let mut stream = jetstream.get_stream("WESS_JOBS").await.ok()?;
        let messages = stream.info().await.ok()?.state.messages;
        (messages >= count as u64).then_some(())
    })
    .await;
    let stream = jetstream.get_stream("WESS_JOBS").await.unwrap();
    let mut subjects: Vec<String> = stream
        .info_with_subjects("wess.queue.jobs.>")
        .await
        .unwrap()
        .map(|entry| entry.unwrap().0)
        .collect()
        .await;
    subjects.sort();
    subjects
}

async fn is_empty(client: &Client, stream: &str) {
    let jetstream = jetstream::new(client.clone());
    eventually("no schedule is left", async || {
        let mut stream = jetstream.get_stream(stream).await.ok()?;
        (stream.info().await.ok()?.state.messages == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_job_that_was_put_off_is_moved_once_by_two_gateways() {
    let nats = NatsServer::start();
    let _gateways = [(); 2].map(|()| Process::start(&mut gateway(&["--nats", &nats.url()])));
    let client = async_nats::connect(nats.url()).await.unwrap();
    let jetstream = jetstream::new(client.clone());
    let ids = ["a", "b", "c", "d"];
    for id in ids {
        put_off(&jetstream, id).await;
    }
    let expected = ids.map(|id| format!("wess.queue.jobs.default.{id}"));
    assert_eq!(jobs(&client, ids.len()).await, expected);
    is_empty(&client, "WESS_TIMERS").await;
    // As many went in: what was moved twice was refused.
    let mut stream = jetstream.get_stream("WESS_JOBS").await.unwrap();
    assert_eq!(stream.info().await.unwrap().state.last_sequence, ids.len() as u64);
}

#[tokio::test]
async fn a_gateway_moves_on_after_the_server_was_killed_and_after_the_stream_was_lost() {
    let mut nats = NatsServer::start();
    let gateway = Process::start(&mut gateway(&["--nats", &nats.url()]));
    let client = async_nats::connect(nats.url()).await.unwrap();
    let jetstream = jetstream::new(client.clone());
    put_off(&jetstream, "before").await;
    nats.restart();
    assert_eq!(jobs(&client, 1).await, ["wess.queue.jobs.default.before"]);
    // Gone with all that is in it; the next connection makes it anew.
    jetstream.delete_stream("WESS_TIMERS").await.unwrap();
    nats.restart();
    eventually("the stream", async || {
        let consumer = jetstream.get_consumer_from_stream::<pull::Config, _, _>("wess-timers", "WESS_TIMERS");
        let policy = consumer.await.ok()?.cached_info().config.ack_policy;
        (policy == AckPolicy::Explicit).then_some(())
    })
    .await;
    put_off(&jetstream, "later").await;
    let both = ["before", "later"].map(|id| format!("wess.queue.jobs.default.{id}"));
    assert_eq!(jobs(&client, 2).await, both);
    drop(gateway);
}
