//! What guests leave behind: state that all workers share, and lines on `wess.logs`.

use std::collections::BTreeSet;

use async_nats::Message;
use futures_util::StreamExt;
use serde_json::json;
use wess_harness::NatsServer;
use wess_schemas::{ErrorCode, header};

use crate::rig::{Caller, Rig, Worker, fact, refused, wat};

#[tokio::test]
async fn state_is_shared_by_all_workers_and_outlives_them() {
    let mut nats = NatsServer::start();
    let workers = [Worker::start(&nats, &[]), Worker::start(&nats, &[])];
    let caller = Caller::connect(&nats).await;
    caller.store_guests(&["counter"]).await;
    let (mut seen, mut count) = (BTreeSet::new(), 0);
    while seen.len() < workers.len() || count < 10 {
        let outcome = caller.invoke(json!({"module": "counter"})).await.unwrap();
        count += 1;
        assert_eq!(
            outcome.output,
            Some(count.to_string()),
            "after {} workers",
            seen.len()
        );
        seen.insert(outcome.worker.to_string());
    }
    drop(workers);
    nats.restart();
    let _fresh = Worker::start(&nats, &[]);
    let caller = Caller::connect(&nats).await;
    assert_eq!(
        caller.raw("counter", "").await.unwrap().payload,
        (count + 1).to_string()
    );
    assert_eq!(caller.raw("counter", "reset").await.unwrap().payload, "0");
    assert_eq!(caller.raw("counter", "").await.unwrap().payload, "1");
}

#[tokio::test]
async fn each_module_has_a_state_of_its_own_through_all_its_versions() {
    let rig = Rig::start(&["counter"]).await;
    let other = wess_harness::guest("counter");
    rig.caller.store("other", other).await;
    for count in ["1", "2"] {
        assert_eq!(rig.caller.raw("counter@1", "").await.unwrap().payload, count);
    }
    assert_eq!(rig.caller.raw("other", "").await.unwrap().payload, "1");
    let id = rig.caller.store("counter", wess_harness::guest("upper")).await.id;
    assert_eq!(rig.caller.raw("counter@1", "").await.unwrap().payload, "3");
    assert_eq!(rig.caller.raw("counter", "hello").await.unwrap().payload, "HELLO");
    let counter = rig.caller.store("counter", wess_harness::guest("counter")).await;
    assert_eq!(counter.id, id);
    assert_eq!(rig.caller.raw(&id.to_string(), "").await.unwrap().payload, "4");
    let by_digest = rig.caller.raw(&counter.digest.to_string(), "").await;
    let error = refused(ErrorCode::GuestTrapped, by_digest);
    assert_eq!(error.error.detail["trap"], "no_state");
    rig.is_unharmed().await;
}

#[tokio::test]
async fn state_keys_and_values_of_any_bytes_are_kept_as_they_are() {
    let rig = Rig::start(&[]).await;
    // Keeps its whole input under its whole input, then answers what it reads back.
    let echo = r#"(module
        (import "host" "set_state" (func $set (param i32 i32 i32 i32)))
        (import "host" "get_state" (func $get (param i32 i32) (result i32)))
        (import "host" "read_state" (func $read (param i32 i32) (result i32)))
        (import "host" "set_output" (func $output (param i32 i32)))
        (memory (export "memory") 2)
        (func (export "alloc") (param i32) (result i32) (i32.const 1024))
        (func (export "process") (param $at i32) (param $len i32) (result i32)
          (call $set (local.get $at) (local.get $len) (local.get $at) (local.get $len))
          (drop (call $get (local.get $at) (local.get $len)))
          (call $output (i32.const 65536) (call $read (i32.const 65536) (i32.const 65536)))
          (i32.const 0)))"#;
    rig.caller.store("echo", wat(echo)).await;
    for key in [
        &b"a"[..],
        b"a.b.>",
        b"*",
        b"$KV.x",
        "päron".as_bytes(),
        &[0, 0xff, b'\r', b'\n', b' '],
        &[b'k'; 256],
    ] {
        assert_eq!(rig.caller.raw("echo", key.to_vec()).await.unwrap().payload, key);
    }
    let error = refused(
        ErrorCode::GuestTrapped,
        rig.caller.raw("echo", vec![b'k'; 257]).await,
    );
    assert_eq!(error.error.detail["trap"], "state_too_large");
    rig.is_unharmed().await;
}

#[tokio::test]
async fn what_guests_log_is_published_with_its_module_version_job_and_stream() {
    let rig = Rig::start(&["greet", "cat"]).await;
    let mut lines = rig.caller.client.subscribe("wess.logs.>").await.unwrap();
    let facts = |line: &Message| {
        let fact = |name| fact(line, name).unwrap().to_owned();
        (
            fact(header::JOB_ID),
            fact(header::LOG_STREAM),
            fact(header::MODULE_VERSION),
        )
    };
    rig.caller
        .ask("wess.invoke.greet", &[(header::MSG_ID, "job-1")], "Ada")
        .await
        .unwrap();
    let line = lines.next().await.unwrap();
    assert_eq!(
        (line.subject.as_str(), &*line.payload),
        ("wess.logs.greet", &b"greeting Ada"[..])
    );
    assert_eq!(facts(&line), ("job-1".into(), "log".into(), "1".into()));
    rig.caller
        .ask("wess.invoke.cat", &[(header::MSG_ID, "job-2")], "hello")
        .await
        .unwrap();
    let line = lines.next().await.unwrap();
    assert_eq!(
        (line.subject.as_str(), &*line.payload),
        ("wess.logs.cat", &b"cat: 5 bytes"[..])
    );
    assert_eq!(facts(&line), ("job-2".into(), "stderr".into(), "1".into()));
    assert_eq!(rig.worker.metric("wess_worker_log_lines_dropped_total").await, 0);
}
