//! JetStream without room: what is refused is refused with its code, what was accepted stays, and goes on once there is room.

use std::time::Duration;

use async_nats::jetstream::consumer::PullConsumer;
use async_nats::jetstream::{AckKind, stream};
use futures_util::StreamExt;
use serde_json::json;
use wess_harness::{Signal, eventually, guest};
use wess_schemas::ErrorCode;
use wess_schemas::job::{JobRecord, JobState};

use crate::faults::answers_again;
use crate::job_faults::{IMPATIENT, all_settled, end_in_time, unsettled};
use crate::rig::{Caller, Rig, Worker, nap, refused};

/// What the worker logs each time that it tries in vain.
const OUTCOME_WAITS: &str = "an outcome was not stored yet";
const FIRING_WAITS: &str = "a job that is due cannot be queued yet";

/// Waits until a worker has logged something so often.
async fn has_said(worker: &Worker, what: &str, times: usize) {
    let label = format!("{what:?}, {times} times");
    eventually(&label, async || {
        (worker.process.stderr().matches(what).count() >= times).then_some(())
    })
    .await;
}

/// Gives a stream another bound on its bytes; -1 is none.
async fn set_max_bytes(caller: &Caller, name: &str, max_bytes: i64) {
    let jetstream = caller.jetstream();
    let config = jetstream
        .get_stream(name)
        .await
        .unwrap()
        .cached_info()
        .config
        .clone();
    let changed = stream::Config { max_bytes, ..config };
    jetstream.update_stream(changed).await.unwrap();
}

/// Takes what room the server has.
async fn fill(caller: &Caller) {
    let jetstream = caller.jetstream();
    let filler = stream::Config {
        name: "FILLER".into(),
        subjects: vec!["filler".into()],
        ..stream::Config::default()
    };
    jetstream.create_stream(filler).await.unwrap();
    loop {
        let chunk = vec![b'x'; 64 * 1024];
        let sent = jetstream.publish("filler", chunk.into()).await.unwrap();
        if sent.await.is_err() {
            return;
        }
    }
}

fn job(id: &str, module: &str) -> serde_json::Value {
    json!({"job_id": id, "invoke": {"module": module}})
}

#[tokio::test]
async fn a_full_store_refuses_the_next_job_and_loses_none_that_was_accepted() {
    const HELD: [&str; 3] = ["a", "b", "c"];
    let mut rig = Rig::with(&IMPATIENT, &["upper"]).await;
    rig.caller.store("nap", nap(1500)).await;
    let store = rig.nats.store();
    let bounded = format!(
        "jetstream {{ store_dir: \"{}\", max_file_store: 4MB }}",
        store.display()
    );
    rig.nats.restart_with(&bounded);
    rig.caller.is_back().await;
    answers_again(&rig.caller, "upper", "hello").await;
    let ran = "wess_worker_calls_total{code=\"ok\"}";
    let before = rig.worker.metric(ran).await;
    for id in HELD {
        rig.caller.submit(job(id, "nap")).await.unwrap();
    }
    fill(&rig.caller).await;

    let full = refused(ErrorCode::QueueFull, rig.caller.submit(job("d", "nap")).await);
    assert!(full.error.retryable && !full.error.guest_ran);
    let later = json!({"job_id": "e", "invoke": {"module": "nap"}, "delay_ms": 1000});
    refused(ErrorCode::QueueFull, rig.caller.submit(later).await);
    for id in ["d", "e"] {
        refused(ErrorCode::JobNotFound, rig.caller.record(id).await);
    }
    let stored = rig.caller.try_store("new", guest("in_place")).await;
    refused(ErrorCode::Unavailable, stored);
    // Their guests end, and nobody can write down how: another second of silence would give them to somebody else.
    rig.worker.shows(ran, before + HELD.len() as u64).await;
    has_said(&rig.worker, OUTCOME_WAITS, 3 * HELD.len()).await;
    assert_eq!(unsettled(&rig.caller).await, HELD.len() as u64);
    for id in HELD {
        assert!(!rig.caller.record(id).await.unwrap().state.is_final());
    }
    assert_eq!(
        rig.caller.raw("upper", "hello").await.unwrap().payload,
        "HELLO",
        "calls need no room"
    );

    rig.caller.jetstream().delete_stream("FILLER").await.unwrap();
    for id in HELD {
        let record = rig.caller.end_of(id).await;
        assert_eq!((record.state, record.attempts), (JobState::Succeeded, 1));
    }
    assert_eq!(rig.worker.metric(ran).await, before + HELD.len() as u64 + 1);
    assert_eq!(rig.caller.job(job("d", "upper")).await.state, JobState::Succeeded);
    all_settled(&rig.caller).await;
    rig.is_unharmed().await;
}

#[tokio::test]
async fn a_disk_that_takes_no_more_loses_no_job_that_was_accepted_before() {
    const HELD: [&str; 3] = ["a", "b", "c"];
    let mut rig = Rig::with(&IMPATIENT, &["upper"]).await;
    rig.caller.store("nap", nap(1500)).await;
    for id in HELD {
        rig.caller.submit(job(id, "nap")).await.unwrap();
    }
    rig.nats.fail_writes();
    // The server says nothing at all: whether it was kept, nobody knows.
    let unknown = refused(ErrorCode::Internal, rig.caller.submit(job("d", "upper")).await);
    assert!(unknown.error.retryable && !unknown.error.guest_ran);
    has_said(&rig.worker, OUTCOME_WAITS, HELD.len()).await;
    let stored = rig.caller.try_store("new", guest("in_place")).await;
    refused(ErrorCode::Unavailable, stored);
    assert_eq!(unsettled(&rig.caller).await, HELD.len() as u64);
    assert_eq!(
        rig.caller.raw("upper", "hello").await.unwrap().payload,
        "HELLO",
        "calls need no disk"
    );
    // There is room again; a stream whose write failed takes nothing until its server is started anew.
    rig.nats.restart();
    rig.caller.is_back().await;
    for id in HELD {
        let record = end_in_time(&rig.caller, id).await;
        assert_eq!((record.state, record.attempts), (JobState::Succeeded, 1));
    }
    rig.caller.submit(job("d", "upper")).await.unwrap();
    assert_eq!(rig.caller.end_of("d").await.state, JobState::Succeeded);
    all_settled(&rig.caller).await;
    rig.is_unharmed().await;
}

#[tokio::test]
async fn a_job_leaves_its_queue_only_once_there_is_room_for_its_outcome() {
    let rig = Rig::with(&IMPATIENT, &["upper"]).await;
    let mut done = rig.caller.client.subscribe("wess.done.>").await.unwrap();
    set_max_bytes(&rig.caller, "KV_wess-results", 1).await;
    rig.caller.submit(job("a", "upper")).await.unwrap();
    has_said(&rig.worker, OUTCOME_WAITS, 3).await;
    assert_eq!(unsettled(&rig.caller).await, 1);
    assert_eq!(rig.caller.record("a").await.unwrap().state, JobState::Queued);
    let cancelled = rig
        .caller
        .ask_json::<JobRecord>("wess.jobs.cancel.a", &json!({}))
        .await;
    refused(ErrorCode::Unavailable, cancelled);
    // Nor does it go with the worker that has it.
    let Rig { worker, caller, nats } = rig;
    worker.process.signal(Signal::KILL);
    let other = Worker::start(&nats, &IMPATIENT);
    has_said(&other, OUTCOME_WAITS, 2).await;
    set_max_bytes(&caller, "KV_wess-results", -1).await;
    let record = caller.end_of("a").await;
    assert_eq!(
        (record.state, record.worker.as_ref().unwrap().to_string()),
        (JobState::Succeeded, other.id())
    );
    all_settled(&caller).await;
    let told: JobRecord = crate::rig::parse(&done.next().await.unwrap());
    assert_eq!(told, record);
    caller.client.flush().await.unwrap();
    assert!(futures_util::FutureExt::now_or_never(done.next()).is_none());
}

#[tokio::test]
async fn what_falls_due_while_the_queue_is_full_is_queued_once_there_is_room() {
    let rig = Rig::start(&["upper"]).await;
    let later = json!({"job_id": "later", "invoke": {"module": "upper"}, "delay_ms": 1000});
    rig.caller.submit(later).await.unwrap();
    set_max_bytes(&rig.caller, "WESS_JOBS", 1).await;
    refused(ErrorCode::QueueFull, rig.caller.submit(job("now", "upper")).await);
    has_said(&rig.worker, FIRING_WAITS, 2).await;
    set_max_bytes(&rig.caller, "WESS_JOBS", -1).await;
    for id in ["later", "now"] {
        if id == "now" {
            rig.caller.submit(job(id, "upper")).await.unwrap();
        }
        eventually("the job to end", async || {
            let record = rig.caller.record(id).await.ok()?;
            (record.state == JobState::Succeeded).then_some(())
        })
        .await;
    }
    all_settled(&rig.caller).await;
}

#[tokio::test]
async fn what_fell_due_is_never_given_up_however_often_it_could_not_be_queued() {
    let Rig { worker, caller, nats } = Rig::start(&["upper"]).await;
    let later = json!({"job_id": "later", "invoke": {"module": "upper"}, "delay_ms": 2000});
    caller.submit(later).await.unwrap();
    worker.stop();
    let consumer: PullConsumer = caller
        .jetstream()
        .get_consumer_from_stream("wess-timers", "WESS_TIMERS")
        .await
        .unwrap();
    // More often than a job may be delivered.
    for delivery in 1..=25 {
        let request = consumer.batch().max_messages(1).expires(Duration::from_secs(10));
        let mut batch = request.messages().await.unwrap();
        let message = batch.next().await.unwrap().unwrap();
        assert_eq!(message.info().unwrap().delivered, delivery);
        message.ack_with(AckKind::Nak(None)).await.unwrap();
    }
    let _worker = Worker::start(&nats, &[]);
    eventually("the job to end", async || {
        let record = caller.record("later").await.ok()?;
        (record.state == JobState::Succeeded).then_some(())
    })
    .await;
}
