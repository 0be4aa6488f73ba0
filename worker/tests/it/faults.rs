//! What a worker stands on goes away: another worker, the nats-server, JetStream, the object store. Callers are told,
//! the fleet goes on, and nothing that was stored is lost.

use std::time::Duration;

use async_nats::jetstream;
use serde_json::{Value, json};
use wess_harness::{NatsServer, Signal, eventually, guest};
use wess_schemas::ErrorCode;

use crate::rig::{Caller, Rig, Worker, add, parse, refused, refused_naming, spin, wat};

/// How long one attempt may wait for a reply that a lost connection took with it.
const ATTEMPT: Duration = Duration::from_secs(1);

/// Calls until it is answered again, as a caller would who knows that something was away.
pub async fn answers_again(caller: &Caller, target: &str, input: &'static str) -> Vec<u8> {
    eventually(&format!("{target} to be answered"), async || {
        let answered =
            tokio::time::timeout(ATTEMPT, caller.send(&format!("wess.invoke.{target}"), &[], input)).await;
        let reply = crate::rig::read(answered.ok()?.ok()?);
        reply.ok().map(|reply| reply.payload.to_vec())
    })
    .await
}

#[tokio::test]
async fn a_worker_killed_during_a_call_takes_no_other_call_with_it() {
    let nats = NatsServer::start();
    let workers = [Worker::start(&nats, &[]), Worker::start(&nats, &[])];
    let caller = Caller::connect(&nats).await;
    caller.store_guests(&["add", "spin"]).await;
    let spinner = caller.begin(spin(60_000));
    let lost = eventually("a worker to run the guest", async || {
        let busy = [
            workers[0].metric("wess_worker_slots_busy").await,
            workers[1].metric("wess_worker_slots_busy").await,
        ];
        busy.iter().position(|busy| *busy == 1)
    })
    .await;
    workers[lost].process.signal(Signal::KILL);
    let mut unanswered = 0;
    for _ in 0..50 {
        match tokio::time::timeout(ATTEMPT, caller.invoke(add())).await {
            Ok(answered) => assert_eq!(answered.unwrap().worker.to_string(), workers[1 - lost].id()),
            Err(_) => unanswered += 1,
        }
    }
    // Until the server has seen its two connections close, calls are still given to the dead.
    assert!(unanswered < 5, "{unanswered} of 50 calls were lost");
    assert!(!spinner.is_finished(), "nobody can answer for the dead");
    spinner.abort();
    let third = Worker::start(&nats, &[]);
    let answers =
        async || (caller.invoke(add()).await.unwrap().worker.to_string() == third.id()).then_some(());
    eventually("the new worker to take its part", answers).await;
}

#[tokio::test]
async fn a_frozen_worker_holds_up_its_own_calls_alone_and_answers_them_when_it_thaws() {
    let nats = NatsServer::start();
    let workers = [Worker::start(&nats, &[]), Worker::start(&nats, &[])];
    let caller = Caller::connect(&nats).await;
    caller.store_guests(&["add"]).await;
    workers[0].process.signal(Signal::STOP);
    let calls: Vec<_> = (0..50).map(|_| caller.begin(add())).collect();
    let answered = async || {
        let finished = calls.iter().filter(|call| call.is_finished()).count();
        (finished as u64 == workers[1].metric("wess_worker_calls_total{code=\"ok\"}").await && finished > 0)
            .then_some(finished)
    };
    let finished = eventually("the other worker to answer its part", answered).await;
    assert!(finished < calls.len(), "the frozen worker was given nothing");
    workers[0].process.signal(Signal::CONT);
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap().results, Some(vec![json!(5)]));
    }
}

#[tokio::test]
async fn a_call_in_a_queue_of_nobody_is_told_at_once() {
    let nats = NatsServer::start();
    let worker = Worker::start(&nats, &[]);
    let caller = Caller::connect(&nats).await;
    caller.store_guests(&["add"]).await;
    drop(worker);
    eventually("the server to see that nobody is there", async || {
        let answered = tokio::time::timeout(ATTEMPT, caller.send("wess.invoke.add", &[], "[2,3]")).await;
        matches!(answered, Ok(Err(async_nats::RequestErrorKind::NoResponders))).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_killed_server_that_comes_back_finds_its_workers_and_everything_stored() {
    let mut rig = Rig::start(&["upper", "counter"]).await;
    assert_eq!(rig.caller.raw("counter", "").await.unwrap().payload, "1");
    rig.nats.kill();
    eventually("the worker to say that it is not ready", async || {
        (rig.worker.page("/readyz").await.0 == 503).then_some(())
    })
    .await;
    assert_eq!(rig.worker.page("/livez").await.0, 200);
    rig.nats.restart();
    assert_eq!(answers_again(&rig.caller, "upper", "hello").await, b"HELLO");
    eventually("the worker to be ready", async || {
        (rig.worker.page("/readyz").await.0 == 200).then_some(())
    })
    .await;
    assert_eq!(answers_again(&rig.caller, "counter", "").await, b"2");
    let list: Value = parse(&rig.caller.ask("wess.modules.list", &[], "").await.unwrap());
    assert_eq!(list["modules"].as_array().unwrap().len(), 3);
    assert_eq!(rig.caller.store("upper", guest("in_place")).await.version, 2);
    assert_eq!(rig.caller.raw("upper", "hello").await.unwrap().payload, "olleh");
    rig.is_unharmed().await;
}

#[tokio::test]
async fn what_was_answered_as_stored_survives_a_crash_of_the_server_right_after() {
    let mut rig = Rig::start(&[]).await;
    let stored = rig.caller.store("upper", guest("upper")).await;
    rig.nats.kill();
    drop(rig.worker);
    rig.nats.restart();
    let fresh = Worker::start(&rig.nats, &[]);
    assert_eq!(answers_again(&rig.caller, "upper", "hello").await, b"HELLO");
    let module: wess_schemas::module::Module = rig
        .caller
        .ask_json("wess.modules.get.upper", &json!({}))
        .await
        .unwrap();
    assert_eq!(
        (module.digest, module.id, module.version),
        (stored.digest, stored.id, 1)
    );
    assert_eq!(fresh.metric("wess_worker_registry_blobs_fetched_total").await, 1);
}

#[tokio::test]
async fn a_frozen_server_that_thaws_finds_every_call_answered() {
    let rig = Rig::start(&["upper"]).await;
    rig.nats.freeze();
    let caught = rig.caller.begin(json!({"module": "upper", "input": "hello"}));
    assert_eq!(rig.worker.page("/livez").await.0, 200);
    assert!(!caught.is_finished());
    rig.nats.thaw();
    assert_eq!(caught.await.unwrap().unwrap().output.as_deref(), Some("HELLO"));
    rig.is_unharmed().await;
}

#[tokio::test]
async fn a_guest_that_waits_for_its_state_in_vain_ends_at_its_deadline() {
    let rig = Rig::start(&[]).await;
    // Sleeps for half a second, so that the server can be frozen between its call and its state.
    let patient = r#"(module
        (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
        (import "host" "get_state" (func $get_state (param i32 i32) (result i32)))
        (memory (export "memory") 1)
        (func (export "process") (param i32 i32) (result i32)
          (i32.store (i32.const 16) (i32.const 1))
          (i64.store (i32.const 24) (i64.const 500000000))
          (drop (call $poll (i32.const 0) (i32.const 64) (i32.const 1) (i32.const 128)))
          (call $get_state (i32.const 0) (i32.const 1))))"#;
    rig.caller.store("patient", wat(patient)).await;
    rig.caller.invoke(json!({"module": "patient"})).await.unwrap();
    let caught = rig
        .caller
        .begin(json!({"module": "patient", "limits": {"timeout_ms": 1500}}));
    rig.worker.shows("wess_worker_slots_busy", 1).await;
    rig.nats.freeze();
    rig.worker
        .shows("wess_worker_calls_total{code=\"deadline_exceeded\"}", 1)
        .await;
    rig.nats.thaw();
    refused_naming(ErrorCode::DeadlineExceeded, "1500 ms", caught.await.unwrap());
    rig.is_unharmed().await;
}

#[tokio::test]
async fn a_guest_whose_state_is_away_is_told_and_the_next_one_finds_it_again() {
    let rig = Rig::with(&["--executors", "1"], &["counter"]).await;
    assert_eq!(rig.caller.raw("counter", "").await.unwrap().payload, "1");
    let jetstream = jetstream::new(rig.caller.client.clone());
    jetstream.delete_stream("KV_wess-state-default").await.unwrap();
    refused(ErrorCode::Internal, rig.caller.raw("counter", "").await);
    assert_eq!(answers_again(&rig.caller, "counter", "").await, b"1");
    rig.is_unharmed().await;
}

#[tokio::test]
async fn a_worker_with_the_module_on_its_disk_answers_while_the_object_store_is_away() {
    let rig = Rig::start(&["upper"]).await;
    let (nats, caller) = (rig.nats, rig.caller);
    caller.raw("upper", "hello").await.unwrap();
    let data = rig.worker.stop();
    let jetstream = jetstream::new(caller.client.clone());
    jetstream.delete_stream("OBJ_wess-blobs").await.unwrap();
    let worker = Worker::start_in(data.path(), &nats, &[]);
    assert_eq!(caller.raw("upper", "hello").await.unwrap().payload, "HELLO");
    assert_eq!(worker.metric("wess_worker_registry_blobs_fetched_total").await, 0);
    drop(worker);
    let _empty = Worker::start(&nats, &[]);
    let error = refused(ErrorCode::Unavailable, caller.raw("upper", "hello").await);
    assert!(error.error.retryable && !error.error.guest_ran);
    let again = caller.store("upper", guest("upper")).await;
    assert_eq!((again.version, again.stored), (1, Some(false)));
    assert_eq!(
        caller.raw("upper", "hello").await.unwrap().payload,
        "HELLO",
        "a store brings lost bytes back"
    );
}

#[tokio::test]
async fn a_worker_starts_from_its_disk_while_jetstream_is_away() {
    let rig = Rig::start(&["upper", "counter"]).await;
    let (mut nats, caller) = (rig.nats, rig.caller);
    let data = rig.worker.stop();
    nats.restart_with("jetstream: false");
    let worker = Worker::start_in(data.path(), &nats, &[]);
    assert_eq!(answers_again(&caller, "upper", "hello").await, b"HELLO");
    let list: Value = parse(&caller.ask("wess.modules.list", &[], "").await.unwrap());
    assert_eq!(list["modules"].as_array().unwrap().len(), 3);
    refused(ErrorCode::Unavailable, caller.raw("nobody", "").await);
    refused(
        ErrorCode::Unavailable,
        caller.try_store("new", guest("add")).await,
    );
    refused(ErrorCode::Internal, caller.raw("counter", "").await);
    nats.restart_with("");
    assert_eq!(answers_again(&caller, "counter", "").await, b"1");
    let stored = eventually("a store", async || {
        let attempt = tokio::time::timeout(ATTEMPT, caller.try_store("new", guest("add"))).await;
        attempt.ok()?.ok()
    });
    assert_eq!(stored.await.version, 1);
    worker.comes_to_rest().await;
}
