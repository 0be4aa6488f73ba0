//! Thousands of calls of every kind leave a worker as large as before.

use std::fs;

use async_nats::Message;
use futures_util::StreamExt;
use futures_util::stream;
use serde_json::json;
use wess_harness::{eventually, guest};
use wess_schemas::payload::PayloadRef;
use wess_schemas::{ErrorBody, ErrorCode, header};

use crate::rig::{Answered, Caller, Rig, nap, spin, wat};
use crate::support::assets;

/// Calls of one run.
const CALLS: usize = 4800;
/// Runs until the worker holds all that it will ever hold at once.
const WARM_UPS: usize = 1;
/// Equal runs after those.
const RUNS: usize = 3;
/// How much a worker may grow in one of them: less than 512 bytes for each call.
const MAX_GROWTH_BYTES: u64 = 512 * CALLS as u64;

/// What a process holds in memory of its own.
pub fn resident_bytes(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

fn open_files(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// What calls are made of.
const GUESTS: [&str; 12] = [
    "upper",
    "wordcount",
    "greet",
    "traps",
    "memory_bomb",
    "counter",
    "spin",
    "log_flood",
    "stderr_flood",
    "greeter",
    "messenger",
    "web",
];

/// Calls of every kind: good ones of every ABI, refused ones, trapped, stopped and starved ones, slow ones and those that
/// wait, large and chatty ones, and changes of the registry. Each ends as it must.
async fn call(rig: &Rig, upload: &PayloadRef, number: usize) {
    let caller = &rig.caller;
    let (expected, failure) = match number % 20 {
        0 => (None, caller.raw("upper", "hello").await.err()),
        1 => (None, caller.raw("add", "[2,3]").await.err()),
        2 => (None, caller.raw("wordcount", "hello big world").await.err()),
        3 => (None, caller.raw("greet", "Ada").await.err()),
        4 => {
            let metered = caller.ask("wess.invoke.add", &[(header::FUEL, "1000")], "[2,3]");
            (None, metered.await.err())
        }
        5 => (
            Some(ErrorCode::GuestTrapped),
            caller.raw("traps.unreachable", "").await.err(),
        ),
        6 => {
            let missing = format!("nobody{}", number % 97);
            (
                Some(ErrorCode::ModuleNotFound),
                caller.raw(&missing, "").await.err(),
            )
        }
        7 => (
            Some(ErrorCode::InvalidRequest),
            caller.ask("wess.invoke", &[], "{]").await.err(),
        ),
        8 => {
            let misfit = json!({"steps": ["upper", "add"], "input": "a"});
            (
                Some(ErrorCode::InvalidArguments),
                caller.chain(misfit).await.err(),
            )
        }
        9 => {
            let limits = json!({"memory_mb": 1});
            let bomb = json!({"module": "memory-bomb", "function": "grow_or_trap", "limits": limits});
            (Some(ErrorCode::MemoryExceeded), caller.invoke(bomb).await.err())
        }
        10 => (
            Some(ErrorCode::DeadlineExceeded),
            caller.invoke(spin(5)).await.err(),
        ),
        11 => (None, caller.raw("nap", "").await.err()),
        12 => {
            let limits = json!({"fuel": 1000});
            let starved = json!({"module": "spin", "function": "spin", "limits": limits});
            (Some(ErrorCode::OutOfFuel), caller.invoke(starved).await.err())
        }
        13 => (None, caller.raw("counter", "").await.err()),
        14 => {
            let text = b"hello".to_vec();
            (
                Some(ErrorCode::InvalidModule),
                caller.try_store("bad", text).await.err(),
            )
        }
        15 => (None, caller.raw("greeter.hello", "Ada").await.err()),
        16 => {
            let denied = json!({"module": "messenger", "function": "send", "args": ["a", [104], null, []]});
            (None, caller.invoke(denied).await.err())
        }
        17 => (None, caller.ask("wess.http.web", &[], "").await.err()),
        18 => {
            let trapped = caller.ask("wess.http.web", &[(header::HTTP_PATH, "/gather")], "");
            (Some(ErrorCode::GuestTrapped), trapped.await.err())
        }
        _ => rare_call(rig, upload, number / 20).await,
    };
    assert_eq!(
        failure.as_ref().map(ErrorBody::code),
        expected,
        "call {number}: {failure:?}"
    );
}

/// What takes a hundred times as much of the machine as other calls.
async fn rare_call(rig: &Rig, upload: &PayloadRef, number: usize) -> (Option<ErrorCode>, Option<ErrorBody>) {
    let caller = &rig.caller;
    match number % 11 {
        0 => (None, caller.invoke(json!({"module": "large"})).await.err()),
        1 => (None, caller.raw("log-flood", "").await.err()),
        2 => {
            let flood = json!({"module": "stderr-flood", "limits": {"timeout_ms": 10}});
            (
                Some(ErrorCode::DeadlineExceeded),
                caller.invoke(flood).await.err(),
            )
        }
        3 => (None, pass_through(caller, number).await.err()),
        4 => (None, caller.ask("$SRV.STATS.wess", &[], "").await.err()),
        5 => {
            rig.worker.metrics().await;
            (None, None)
        }
        6 => (None, caller.ask("wess.modules.list", &[], "").await.err()),
        7 => {
            let refused = caller.try_store("bad", guest("unknown_import")).await;
            (Some(ErrorCode::UnsupportedModule), refused.err())
        }
        8 => {
            let deep = caller.raw("traps.stack_overflow", "").await;
            (Some(ErrorCode::GuestTrapped), deep.err())
        }
        9 => {
            let stored = json!({"module": "wordcount", "input_ref": upload});
            (None, caller.invoke(stored).await.err())
        }
        _ => {
            let chain = json!({"steps": ["upper", "wordcount"], "input": "a"});
            (None, caller.chain(chain).await.err())
        }
    }
}

/// A module that is stored, called once and deleted.
async fn pass_through(caller: &Caller, number: usize) -> Answered<Message> {
    let name = format!("passing{number}");
    let text = format!("(module (func (export \"f\") (result i32) (i32.const {number})))");
    caller.try_store(&name, wat(&text)).await?;
    caller.raw(&name, "").await?;
    caller.ask(&format!("wess.modules.delete.{name}"), &[], "").await
}

/// Calls as many times as every run does, and says by how much the worker grew meanwhile.
async fn run(rig: &Rig, upload: &PayloadRef) -> u64 {
    let before = resident_bytes(rig.worker.process.pid());
    stream::iter(0..CALLS)
        .for_each_concurrent(32, |number| call(rig, upload, number))
        .await;
    rig.is_unharmed().await;
    resident_bytes(rig.worker.process.pid()).saturating_sub(before)
}

#[tokio::test]
async fn thousands_of_mixed_calls_leave_neither_memory_nor_files_behind() {
    let rig = Rig::with(&["--executors", "1", "--slots", "16"], &GUESTS).await;
    rig.caller.store("nap", nap(2)).await;
    let large = r#"(module (import "host" "set_output" (func $set (param i32 i32))) (memory (export "memory") 12)
        (func (export "process") (param i32 i32) (result i32) (call $set (i32.const 0) (i32.const 700000)) (i32.const 0)))"#;
    rig.caller.store("large", wat(large)).await;
    let upload = assets(&rig.nats)
        .await
        .payloads()
        .put(&guest("wordcount"))
        .await
        .unwrap();
    for _ in 0..WARM_UPS {
        run(&rig, &upload).await;
    }
    let files = open_files(rig.worker.process.pid());
    let mut grown = Vec::new();
    for _ in 0..RUNS {
        grown.push(run(&rig, &upload).await);
    }
    // What leaks, leaks in every run; what an allocator keeps for later, it keeps once.
    assert!(
        grown.iter().min() < Some(&MAX_GROWTH_BYTES),
        "equal runs grew the worker by {grown:?} bytes"
    );
    eventually("every file to be closed", async || {
        (open_files(rig.worker.process.pid()) <= files).then_some(())
    })
    .await;
}
