//! More modules than a worker has room for: each call is answered by the module that it names, and what is kept stays small.

use std::hash::{BuildHasher, Hasher, RandomState};
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

/// A module that knows its number; every tenth is a component.
fn numbered(module: usize) -> Vec<u8> {
    let core = format!(r#"(func (export "number") (result i32) (i32.const {module}))"#);
    match module % 10 {
        0 => wat(&format!(
            r#"(component (core module $code {core}) (core instance $run (instantiate $code))
                (func (export "number") (result s32) (canon lift (core func $run "number"))))"#
        )),
        _ => wat(&format!("(module {core})")),
    }
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

/// Which modules are called: every one, then as many again as are left, in an order that the seed says.
fn order(seed: u64) -> Vec<usize> {
    let mut state = seed | 1;
    // xorshift64*, Vigna 2016.
    let mut random = move |below: usize| {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as usize % below
    };
    let mut order = Vec::new();
    while order.len() < CALLS {
        let mut round: Vec<usize> = (0..MODULES).collect();
        for at in (1..MODULES).rev() {
            round.swap(at, random(at + 1));
        }
        order.extend(round);
    }
    order.truncate(CALLS);
    order
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_modules_on_a_small_cache_each_answer_with_their_own_number() {
    let seed =
        wess_harness::number("WESS_SEED").unwrap_or_else(|| RandomState::new().build_hasher().finish());
    eprintln!("WESS_SEED={seed}");
    let (rig, _data) = small().await;
    let store = |module| {
        let caller = rig.caller.clone();
        async move { caller.store(&name(module), numbered(module)).await.digest }
    };
    let stored = stream::iter(0..MODULES).map(store).buffer_unordered(AT_ONCE);
    assert_eq!(stored.count().await, MODULES);

    let before = resident_bytes(rig.worker.process.pid());
    let call = |module| {
        let caller = rig.caller.clone();
        async move {
            let answer = caller
                .invoke(json!({"module": name(module), "wait_ms": 20_000}))
                .await;
            (module, answer.unwrap().results)
        }
    };
    let mut answers = stream::iter(order(seed)).map(call).buffer_unordered(AT_ONCE);
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
