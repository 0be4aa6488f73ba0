//! NATS is there, but JetStream or something in it is not: guest state, stored modules, payloads. Calls that need it are
//! told, all others go on, and it is found again when it is back.

use async_nats::jetstream;
use serde_json::{Value, json};
use wess_harness::{eventually, guest};
use wess_schemas::ErrorCode;
use wess_schemas::payload::PayloadRef;

use crate::faults::{ATTEMPT, answers_again};
use crate::rig::{Rig, Worker, parse, refused, refused_naming, wat};
use crate::support::assets;

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
async fn a_worker_with_the_module_on_its_disk_answers_though_its_bytes_are_lost_and_a_store_brings_them_back()
{
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

/// Lets everybody connect and do everything, but asks in vain for what the object store of modules holds.
pub const MUTE_BLOBS: &str = r#"
    authorization { users: [{ user: anybody, password: "", permissions: { publish: { allow: ">", deny: [
        "$O.wess-blobs.>", "$JS.API.STREAM.MSG.GET.OBJ_wess-blobs", "$JS.API.DIRECT.GET.OBJ_wess-blobs.>",
        "$JS.API.CONSUMER.CREATE.OBJ_wess-blobs", "$JS.API.CONSUMER.CREATE.OBJ_wess-blobs.>" ] } } }] }
    no_auth_user: anybody"#;

#[tokio::test]
async fn a_worker_with_the_module_on_its_disk_answers_while_the_object_store_does_not() {
    let rig = Rig::start(&["upper"]).await;
    let (mut nats, caller) = (rig.nats, rig.caller);
    caller.raw("upper", "hello").await.unwrap();
    let data = rig.worker.stop();
    nats.restart_with(MUTE_BLOBS);
    caller.is_back().await;
    let worker = Worker::start_in(data.path(), &nats, &[]);
    assert_eq!(caller.raw("upper", "hello").await.unwrap().payload, "HELLO");
    assert_eq!(worker.metric("wess_worker_registry_blobs_fetched_total").await, 0);
    refused(
        ErrorCode::Unavailable,
        caller.try_store("new", guest("in_place")).await,
    );
    drop(worker);
    let empty = Worker::start(&nats, &[]);
    let error = refused(ErrorCode::Unavailable, caller.raw("upper", "hello").await);
    assert!(error.error.retryable && !error.error.guest_ran);
    let known: Value = parse(&caller.ask("wess.modules.get.upper", &[], "").await.unwrap());
    assert_eq!(known["version"], 1, "what is not in the object store is answered");
    nats.restart_with("");
    assert_eq!(answers_again(&caller, "upper", "hello").await, b"HELLO");
    assert_eq!(empty.metric("wess_worker_registry_blobs_fetched_total").await, 1);
    empty.comes_to_rest().await;
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

/// A plugin that answers with more than a message may carry.
const LARGE: &str = r#"(module (import "host" "set_output" (func $set (param i32 i32))) (memory (export "memory") 12)
    (func (export "process") (param i32 i32) (result i32)
      (memory.fill (i32.const 0) (i32.const 97) (i32.const 700000)) (call $set (i32.const 0) (i32.const 700000)) (i32.const 0)))"#;

/// A worker that knows where payloads are, an upload, and then no place for payloads.
async fn without_payloads() -> (Rig, PayloadRef) {
    let rig = Rig::with(&["--executors", "1"], &["upper", "wordcount"]).await;
    rig.caller.store("large", wat(LARGE)).await;
    let upload = assets(&rig.nats).await.payloads().put(&guest("add")).await;
    let upload = upload.unwrap();
    rig.caller
        .invoke(json!({"module": "wordcount", "input_ref": upload}))
        .await
        .unwrap();
    rig.caller.invoke(json!({"module": "large"})).await.unwrap();
    let stored = json!({"name": "uploaded", "digest": upload.digest, "object": upload.object});
    rig.caller.ask_json::<Value>("wess.store", &stored).await.unwrap();
    let jetstream = jetstream::new(rig.caller.client.clone());
    jetstream.delete_stream("OBJ_wess-payloads").await.unwrap();
    (rig, upload)
}

#[tokio::test]
async fn an_input_by_reference_without_a_place_for_payloads_is_unavailable_and_the_next_upload_is_found() {
    let (rig, upload) = without_payloads().await;
    let by_reference = json!({"module": "wordcount", "input_ref": upload});
    let error = refused(ErrorCode::Unavailable, rig.caller.invoke(by_reference).await);
    assert!(error.error.retryable && !error.error.guest_ran);
    let again = assets(&rig.nats).await.payloads().put(b"hello big world").await;
    let outcome = rig
        .caller
        .invoke(json!({"module": "wordcount", "input_ref": again.unwrap()}))
        .await;
    assert_eq!(outcome.unwrap().output.as_deref(), Some("0 3 15\n"));
    rig.is_unharmed().await;
}

#[tokio::test]
async fn an_output_without_a_place_for_payloads_is_internal_and_the_next_one_finds_a_place() {
    let (rig, _) = without_payloads().await;
    let large = json!({"module": "large"});
    let error = refused_naming(
        ErrorCode::Internal,
        "too large for a message",
        rig.caller.invoke(large.clone()).await,
    );
    assert!(error.error.guest_ran);
    assert_eq!(
        rig.caller.invoke(large).await.unwrap().output_ref.unwrap().size,
        700_000
    );
    rig.is_unharmed().await;
}

#[tokio::test]
async fn a_store_by_object_without_a_place_for_payloads_is_unavailable_and_the_next_upload_is_stored() {
    let (rig, upload) = without_payloads().await;
    let order = |name: &str, upload: &PayloadRef| json!({"name": name, "digest": upload.digest, "object": upload.object});
    let answered = rig
        .caller
        .ask_json::<Value>("wess.store", &order("lost", &upload))
        .await;
    assert!(refused(ErrorCode::Unavailable, answered).error.retryable);
    let again = assets(&rig.nats).await.payloads().put(&guest("upper")).await;
    let stored = rig
        .caller
        .ask_json::<Value>("wess.store", &order("found", &again.unwrap()))
        .await;
    assert_eq!(stored.unwrap()["version"], 1);
    assert_eq!(rig.caller.raw("found", "hello").await.unwrap().payload, "HELLO");
    rig.is_unharmed().await;
}

#[tokio::test]
async fn a_chain_whose_output_finds_no_place_for_payloads_is_told_that_its_guest_ran() {
    let (rig, _) = without_payloads().await;
    let chain = json!({"steps": ["large", "wordcount"]});
    let error = rig.caller.chain(chain.clone()).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Internal, "{error}");
    assert!(error.error.guest_ran, "{error:?}");
    let outcome = rig.caller.chain(chain).await.unwrap();
    assert_eq!(outcome.output.as_deref(), Some("0 1 700000\n"));
    rig.is_unharmed().await;
}
