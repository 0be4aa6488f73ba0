//! Thousands of calls of every kind leave a worker as large as before.

use std::fs;

use futures_util::StreamExt;
use futures_util::stream;
use serde_json::json;
use wess_harness::eventually;
use wess_schemas::header;

use crate::rig::Rig;

/// How much a worker may grow: allocators keep some of what they were asked for at the busiest moment.
const MAX_GROWTH_BYTES: u64 = 16 << 20;

/// What a process holds in memory of its own.
fn resident_bytes(pid: u32) -> u64 {
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

/// Calls of every kind: good ones of every ABI, refused ones, trapped, stopped and starved ones.
async fn call(rig: &Rig, number: usize) {
    let caller = &rig.caller;
    let answered = match number % 10 {
        0 => caller.raw("upper", "hello").await.is_ok(),
        1 => caller.raw("add", "[2,3]").await.is_ok(),
        2 => caller.raw("wordcount", "hello big world").await.is_ok(),
        3 => caller.raw("greet", "Ada").await.is_ok(),
        4 => caller
            .ask("wess.invoke.add", &[(header::FUEL, "1000")], "[2,3]")
            .await
            .is_ok(),
        5 => caller.raw("traps.unreachable", "").await.is_err(),
        6 => caller.raw(&format!("nobody{}", number % 97), "").await.is_err(),
        7 => caller.ask("wess.invoke", &[], "{]").await.is_err(),
        8 => caller
            .chain(json!({"steps": ["upper", "add"], "input": "a"}))
            .await
            .is_err(),
        _ => {
            let limits = json!({"memory_mb": 1});
            caller
                .invoke(json!({"module": "memory-bomb", "function": "grow_or_trap", "limits": limits}))
                .await
                .is_err()
        }
    };
    assert!(answered, "call {number}");
}

async fn call_all(rig: &Rig, count: usize) {
    stream::iter(0..count)
        .for_each_concurrent(50, |number| call(rig, number))
        .await;
    rig.is_unharmed().await;
}

#[tokio::test]
async fn five_thousand_mixed_calls_leave_neither_memory_nor_files_behind() {
    let rig = Rig::start(&["upper", "wordcount", "greet", "traps", "memory_bomb"]).await;
    let pid = rig.worker.process.pid();
    call_all(&rig, 2000).await;
    let (memory, files) = (resident_bytes(pid), open_files(pid));
    call_all(&rig, 5000).await;
    let grown = resident_bytes(pid).saturating_sub(memory);
    assert!(grown < MAX_GROWTH_BYTES, "the worker grew by {grown} bytes");
    eventually("every file to be closed", async || {
        (open_files(pid) <= files).then_some(())
    })
    .await;
}
