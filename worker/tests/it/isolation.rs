//! Modules whose instances serve several calls: as many as their owner says, one after the other, and in nobody's way.

use futures_util::StreamExt;
use futures_util::future::join_all;
use serde_json::{Value, json};
use wess_schemas::{ErrorCode, Module, header};

use crate::rig::{Answered, Caller, Rig, fact, nap, refused, refused_naming, wat};
use crate::support::digest_of;

/// Counts its calls in its memory; `nap` does so after it has waited for so many milliseconds.
const COUNTER: &str = r#"(module
    (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
    (import "host" "log" (func $log (param i32 i32)))
    (memory (export "memory") 1)
    (global $calls (mut i32) (i32.const 0))
    (data (i32.const 256) "said")
    (func $count (export "count") (result i32)
        (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
        (global.get $calls))
    (func (export "nap") (param i64) (result i32)
        (i32.store (i32.const 16) (i32.const 1))
        (i64.store (i32.const 24) (i64.mul (local.get 0) (i64.const 1000000)))
        (drop (call $poll (i32.const 0) (i32.const 64) (i32.const 1) (i32.const 128)))
        (call $count))
    (func (export "grow") (param i32) (result i32) (memory.grow (local.get 0)))
    (func (export "say") (call $log (i32.const 256) (i32.const 4)))
    (func (export "trap") unreachable))"#;

/// One executor with two slots.
const TWO_SLOTS: [&str; 4] = ["--executors", "1", "--slots", "2"];

impl Caller {
    /// Stores a module whose instances serve so many calls.
    async fn store_reusing(&self, name: &str, wasm: Vec<u8>, reuse: u32) -> Answered<Module> {
        let settings = json!({"isolation": {"reuse": reuse}}).to_string();
        let headers = [(header::MODULE, name), (header::SETTINGS, &settings)];
        let reply = self.ask("wess.store", &headers, wasm).await?;
        Ok(crate::rig::parse(&reply))
    }

    async fn number(&self, module: &str, function: &str, args: Value) -> Value {
        let call = json!({"module": module, "function": function, "args": args});
        let results = self.invoke(call).await.unwrap().results;
        results.unwrap().pop().unwrap_or_default()
    }

    /// What a counter's instance has counted.
    async fn count(&self, module: &str) -> Value {
        self.number(module, "count", json!([])).await
    }

    async fn counts<const N: usize>(&self, module: &str) -> [Value; N] {
        let mut counts = [const { Value::Null }; N];
        for count in &mut counts {
            *count = self.count(module).await;
        }
        counts
    }
}

/// A worker with a counter whose instances serve so many calls.
async fn rig(flags: &[&str], reuse: u32) -> Rig {
    let rig = Rig::with(flags, &[]).await;
    rig.caller
        .store_reusing("counter", wat(COUNTER), reuse)
        .await
        .unwrap();
    rig
}

#[tokio::test]
async fn an_instance_serves_as_many_calls_as_its_module_says_and_by_default_one() {
    let rig = rig(&["--executors", "1"], 3).await;
    rig.caller.store("fresh", wat(COUNTER)).await;
    assert_eq!(rig.caller.counts("fresh").await, [1, 1, 1]);
    assert_eq!(rig.worker.metric("wess_worker_reused_instances_total").await, 0);
    assert_eq!(rig.caller.counts("counter").await, [1, 2, 3, 1, 2]);
    assert_eq!(rig.worker.metric("wess_worker_reused_instances_total").await, 3);
    assert_eq!(rig.worker.metric("wess_worker_idle_instances").await, 1);
    assert_eq!(rig.worker.metric("wess_worker_guest_memory_bytes").await, 65_536);
    let digest = &rig.caller.store("fresh", wat(COUNTER)).await.digest;
    assert_eq!(
        rig.caller.counts(&digest.to_string()).await,
        [1, 1],
        "a digest has no settings"
    );
    assert_eq!(rig.caller.count("counter").await, 3);
    rig.is_unharmed().await;
    rig.worker.stop();
}

#[tokio::test]
async fn what_cannot_be_called_twice_is_refused_when_it_is_stored() {
    let rig = Rig::start(&["upper"]).await;
    let command = rig.caller.store_reusing("nap", nap(1), 2).await;
    refused_naming(ErrorCode::InvalidRequest, "settings.isolation", command);
    for settings in [
        json!({"isolation": {"reuse": 1}}),
        json!({"isolation": {"reuse": 2}, "deterministic": true}),
        json!({"isolation": {"reuse": 2, "idle": 1}}),
    ] {
        let newest = rig.caller.store("upper", wess_harness::guest("upper")).await;
        let request = json!({"name": "upper", "digest": newest.digest, "settings": settings});
        let stored: Answered<Module> = rig.caller.ask_json("wess.store", &request).await;
        refused(ErrorCode::InvalidRequest, stored);
    }
    let module: Module = rig
        .caller
        .ask_json("wess.modules.get.upper", &json!({}))
        .await
        .unwrap();
    assert_eq!((module.versions.len(), module.settings.isolation), (1, None));
}

#[tokio::test]
async fn another_version_has_instances_of_its_own_and_takes_the_place_of_older_ones() {
    let rig = rig(&["--executors", "1"], 1000).await;
    assert_eq!(rig.caller.counts("counter").await, [1, 2]);
    let settings = json!({"isolation": {"reuse": 1000}, "env": {"A": "B"}});
    let digest = digest_of(&wat(COUNTER));
    let other = json!({"name": "counter", "digest": digest, "settings": settings});
    let other: Module = rig.caller.ask_json("wess.store", &other).await.unwrap();
    assert_eq!(other.version, 2);
    assert_eq!(rig.caller.counts("counter").await, [1, 2]);
    assert_eq!(rig.worker.metric("wess_worker_idle_instances").await, 1);
    assert_eq!(rig.caller.counts("counter@1").await, [1, 2], "a fresh one");
    assert_eq!(
        rig.caller.count("counter@2").await,
        3,
        "which takes no newer one's place"
    );
    rig.worker.shows("wess_worker_idle_instances", 2).await;
}

#[tokio::test]
async fn a_call_that_fails_takes_its_instance_along() {
    let rig = rig(&["--executors", "1"], 1000).await;
    for _ in 0..3 {
        assert_eq!(rig.caller.counts("counter").await, [1, 2]);
        refused(ErrorCode::GuestTrapped, rig.caller.raw("counter.trap", "").await);
        assert_eq!(rig.worker.metric("wess_worker_idle_instances").await, 0);
    }
    rig.is_unharmed().await;
}

#[tokio::test]
async fn two_calls_at_once_never_share_an_instance() {
    let rig = rig(&TWO_SLOTS, 1000).await;
    for turn in 1..=3 {
        let both = ["counter"; 2].map(|module| rig.caller.number(module, "nap", json!([200])));
        assert_eq!(join_all(both).await, [turn, turn]);
        rig.worker.shows("wess_worker_idle_instances", 2).await;
    }
}

#[tokio::test]
async fn instances_that_wait_keep_none_from_a_call_that_needs_a_fresh_one() {
    let rig = rig(&TWO_SLOTS, 1000).await;
    rig.caller.store("other", wat(COUNTER)).await;
    for _ in 0..3 {
        let both = ["counter"; 2].map(|module| rig.caller.number(module, "nap", json!([100])));
        join_all(both).await;
        rig.worker.shows("wess_worker_idle_instances", 2).await;
        // Every instance of the pool is taken by those that wait, and both slots ask for one.
        let both = ["other"; 2].map(|module| rig.caller.number(module, "nap", json!([100])));
        assert_eq!(join_all(both).await, [1, 1]);
        assert_eq!(rig.worker.metric("wess_worker_idle_instances").await, 0);
    }
    // One slot held, one instance that waits: it is the one that the other slot's call gets.
    assert_eq!(rig.caller.count("counter").await, 1);
    let held = rig
        .caller
        .begin(json!({"module": "other", "function": "nap", "args": [1000]}));
    rig.worker.shows("wess_worker_slots_busy", 1).await;
    assert_eq!(rig.caller.counts("counter").await, [2, 3]);
    assert!(!held.is_finished());
    held.await.unwrap().unwrap();
    rig.is_unharmed_but_for(65_536).await;
}

#[tokio::test]
async fn memory_that_is_short_is_taken_from_instances_that_wait() {
    let rig = rig(&["--executors", "1", "--memory-mb", "64"], 1000).await;
    let pages = 40 << 4;
    assert_eq!(rig.caller.number("counter", "grow", json!([pages])).await, 1);
    assert_eq!(rig.caller.number("counter", "grow", json!([0])).await, 1 + pages);
    rig.caller.store("other", wat(COUNTER)).await;
    assert_eq!(rig.caller.number("other", "grow", json!([pages])).await, 1);
    assert_eq!(rig.worker.metric("wess_worker_idle_instances").await, 0);
    rig.is_unharmed().await;
}

#[tokio::test]
async fn a_call_with_a_lower_limit_than_an_instance_holds_gets_a_fresh_one() {
    let rig = rig(&["--executors", "1"], 1000).await;
    assert_eq!(rig.caller.number("counter", "grow", json!([31])).await, 1);
    assert_eq!(rig.caller.count("counter").await, 1);
    let limited = json!({"module": "counter", "function": "count", "limits": {"memory_mb": 1}});
    let limited = rig.caller.invoke(limited).await.unwrap();
    assert_eq!(
        (limited.results, limited.stats.memory_peak_bytes),
        (Some(vec![json!(1)]), Some(65_536))
    );
}

#[tokio::test]
async fn lines_of_a_log_are_of_the_call_that_wrote_them() {
    let rig = rig(&["--executors", "1"], 1000).await;
    let mut lines = rig.caller.client.subscribe("wess.logs.counter").await.unwrap();
    rig.caller.client.flush().await.unwrap();
    for _ in 0..3 {
        let said = json!({"module": "counter", "function": "say"});
        let outcome = rig.caller.invoke(said).await.unwrap();
        let line = lines.next().await.unwrap();
        assert_eq!(fact(&line, header::JOB_ID), Some(outcome.job_id.as_str()));
    }
    assert_eq!(rig.worker.metric("wess_worker_reused_instances_total").await, 2);
}

#[tokio::test]
async fn a_worker_stops_with_instances_that_wait() {
    let rig = rig(&TWO_SLOTS, 1000).await;
    rig.caller.count("counter").await;
    let last = rig
        .caller
        .begin(json!({"module": "counter", "function": "nap", "args": [300]}));
    rig.worker.shows("wess_worker_slots_busy", 1).await;
    rig.worker.stop();
    assert_eq!(last.await.unwrap().unwrap().results, Some(vec![json!(2)]));
}

impl Rig {
    /// What must hold after every fault while instances wait that hold so much.
    async fn is_unharmed_but_for(&self, waiting_bytes: u64) {
        assert_eq!(self.caller.raw("add", "[2,3]").await.unwrap().payload, "5");
        self.worker.shows("wess_worker_slots_busy", 0).await;
        self.worker
            .shows("wess_worker_guest_memory_bytes", waiting_bytes)
            .await;
    }
}
