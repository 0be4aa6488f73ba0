//! More modules than a worker has room for: each call is answered by the module that it names, and what is kept stays small.

use std::process::Command;

use futures_util::{StreamExt, stream};
use serde_json::json;
use tempfile::TempDir;
use wess_harness::NatsServer;
use wess_schemas::ErrorCode;

use crate::leaks::resident_bytes;
use crate::rig::{Caller, Rig, Worker, command, refused, wat};

const MODULES: usize = 1000;
const CALLS: usize = 1500;
const AT_ONCE: usize = 32;
/// What the disk may hold, which is some tens of them.
const DISK_MB: u64 = 1;
/// Files that the process may have open, so that each of two executors keeps 128 of them ready.
const FILES: usize = 512;
/// What the process may grow by between the first call and the last.
const MOST_GROWTH_BYTES: u64 = 48 << 20;

fn name(module: usize) -> String {
    format!("numbered-{module}")
}

/// A module that knows its number.
fn numbered(module: usize) -> Vec<u8> {
    wat(&format!(
        r#"(module (func (export "number") (result i32) (i32.const {module})))"#
    ))
}

/// A worker that may open few files and keep little on disk.
async fn small() -> (Rig, TempDir) {
    let nats = NatsServer::start();
    let data = tempfile::tempdir().unwrap();
    let disk = DISK_MB.to_string();
    let worker = command(&nats, data.path(), &["--executors", "2", "--disk-mb", &disk]);
    let mut limited = Command::new("prlimit");
    limited
        .arg(format!("--nofile={FILES}"))
        .arg(worker.get_program())
        .args(worker.get_args());
    for (name, value) in worker.get_envs() {
        match value {
            Some(value) => limited.env(name, value),
            None => limited.env_remove(name),
        };
    }
    let worker = Worker::of(limited);
    let caller = Caller::connect(&nats).await;
    caller.store_guests(&["add"]).await;
    (Rig { worker, caller, nats }, data)
}

/// One of the numbers below `most`, in an order that looks like none; every number comes once in `most` calls.
fn shuffled(at: usize, most: usize) -> usize {
    const STEP: usize = 617;
    (at * STEP + at / most * 31) % most
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_modules_on_a_small_cache_each_answer_with_their_own_number() {
    let (rig, _data) = small().await;
    let store = |module| {
        let caller = rig.caller.clone();
        async move { caller.store(&name(module), numbered(module)).await.digest }
    };
    let stored = stream::iter(0..MODULES).map(store).buffer_unordered(AT_ONCE);
    assert_eq!(stored.count().await, MODULES);

    let before = resident_bytes(rig.worker.process.pid());
    let call = |at| {
        let (caller, module) = (rig.caller.clone(), shuffled(at, MODULES));
        async move {
            let answer = caller
                .invoke(json!({"module": name(module), "wait_ms": 20_000}))
                .await;
            (module, answer.unwrap().results)
        }
    };
    let mut answers = stream::iter(0..CALLS).map(call).buffer_unordered(AT_ONCE);
    while let Some((module, results)) = answers.next().await {
        assert_eq!(results, Some(vec![json!(module)]), "{}", name(module));
    }
    let metrics = rig.worker.metrics().await;
    assert!(metrics.read("wess_worker_registry_disk_evictions_total") > MODULES as u64);
    assert!(metrics.read("wess_worker_registry_compilations_total") > MODULES as u64);
    let after = resident_bytes(rig.worker.process.pid());
    assert!(
        after < before + MOST_GROWTH_BYTES,
        "{before} bytes grew to {after}"
    );
    let unknown = rig.caller.invoke(json!({"module": name(MODULES)})).await;
    refused(ErrorCode::ModuleNotFound, unknown);
    rig.is_unharmed().await;
}
