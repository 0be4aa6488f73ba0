//! Components with megabytes of code: one is compiled while others are answered, and its memory is given back; what would take
//! too long, or is larger than modules may be, is refused before anything is compiled.

use std::time::Duration;

use async_nats::Request;
use serde_json::json;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;
use wess_harness::eventually;
use wess_schemas::{ErrorCode, Module};

use crate::leaks::resident_bytes;
use crate::rig::{Answered, Rig, add, parse, read, refused, refused_naming};
use crate::support::assets;

const MIB: u64 = 1 << 20;
const COMPILATIONS: &str = "wess_worker_registry_compilations_total";

/// Steps of arithmetic in a function of 4 KiB, and their numbers, which are long to write and quick to compile.
const STEPS: usize = 150;
const FACTOR: i64 = 0x5851_f42d_4c95_7f2d;
const SUMMAND: i64 = 0x1405_7b7e_f767_814f;

/// How much a worker may hold while it compiles 20 MiB of code.
const MAX_COMPILING_BYTES: u64 = 512 * MIB;
/// How much more it may hold afterwards than before. It is some 70 MiB, where it was 160 in between.
const MAX_KEPT_BYTES: u64 = 96 * MIB;

/// A number in LEB128, of at most 32 bits.
fn number(mut value: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

/// A signed number in LEB128.
fn signed(mut value: i64) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = (value & 0x7f) as u8;
        value >>= 7;
        let is_last = value == if low & 0x40 == 0 { 0 } else { -1 };
        bytes.push(if is_last { low } else { low | 0x80 });
        if is_last {
            return bytes;
        }
    }
}

/// Bytes behind their length.
fn sized(bytes: &[u8]) -> Vec<u8> {
    [&number(bytes.len() as u32), bytes].concat()
}

fn section(id: u8, bytes: &[u8]) -> Vec<u8> {
    [&[id], &sized(bytes)[..]].concat()
}

/// A component whose only function, `f: func(x: s64) -> s64`, is the first of so many with this body.
fn component(functions: usize, body: &[u8]) -> Vec<u8> {
    let count = number(functions as u32);
    let code = sized(&[&[0], body, &[0x0b]].concat());
    let core = [
        &b"\0asm\x01\0\0\0"[..],
        &section(1, &[1, 0x60, 1, 0x7e, 1, 0x7e]),
        &section(3, &[&count[..], &vec![0; functions]].concat()),
        &section(7, b"\x01\x01f\0\0"),
        &section(10, &[count, code.repeat(functions)].concat()),
    ]
    .concat();
    [
        &b"\0asm\x0d\0\x01\0"[..],
        &section(1, &core),
        // Its instance, and the instance's function `f`.
        &section(2, &[1, 0, 0, 0]),
        &section(6, b"\x01\0\0\x01\0\x01f"),
        // From s64 to s64.
        &section(7, b"\x01\x40\x01\x01x\x78\0\x78"),
        &section(8, &[1, 0, 0, 0, 0, 0]),
        &section(11, b"\x01\0\x01f\x01\0\0"),
    ]
    .concat()
}

/// Multiplies by one number and adds another, so many times over.
fn arithmetic(times: usize) -> Vec<u8> {
    // local.get 0, i64.const, i64.mul, i64.const, i64.add, local.set 0
    let step = [
        &[0x20, 0, 0x42][..],
        &signed(FACTOR),
        &[0x7e, 0x42],
        &signed(SUMMAND),
        &[0x7c, 0x21, 0],
    ];
    [&step.concat().repeat(times)[..], &[0x20, 0]].concat()
}

/// Loops that do nothing, each of which is a place where control flow meets.
fn loops(count: usize) -> Vec<u8> {
    [&[0x03, 0x40, 0x0b].repeat(count)[..], &[0x20, 0]].concat()
}

/// Uploads a module, and begins to store it, for as long as that takes.
async fn begin_to_store(rig: &Rig, name: &str, wasm: &[u8]) -> JoinHandle<Answered<Module>> {
    let upload = assets(&rig.nats).await.payloads().put(wasm).await.unwrap();
    let order = json!({"name": name, "digest": upload.digest, "object": upload.object});
    let request = Request::new()
        .payload(order.to_string().into())
        .timeout(Some(Duration::from_secs(120)));
    let client = rig.caller.client.clone();
    TaskTracker::new().spawn(async move {
        let reply = client.send_request("wess.store", request).await.unwrap();
        read(reply).map(|reply| parse(&reply))
    })
}

/// The most that a process has ever held in memory, files that it has mapped included.
fn most_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

#[tokio::test]
async fn a_component_of_20_mib_is_compiled_while_others_are_answered_and_its_memory_is_given_back() {
    let rig = Rig::with(&["--executors", "1"], &[]).await;
    let wasm = component(5300, &arithmetic(STEPS));
    assert!(wasm.len() as u64 > 20 * MIB, "{} bytes", wasm.len());
    rig.is_unharmed().await;
    let (pid, compiled) = (rig.worker.process.pid(), rig.worker.metric(COMPILATIONS).await);
    let before = resident_bytes(pid);

    let storing = begin_to_store(&rig, "large", &wasm).await;
    rig.worker.shows(COMPILATIONS, compiled + 1).await;
    for _ in 0..50 {
        rig.caller.invoke(add()).await.unwrap();
    }
    // A small module is compiled meanwhile, too.
    rig.caller.store_guests(&["math"]).await;
    assert!(!storing.is_finished(), "compiling took no time");

    let stored = storing.await.unwrap().unwrap();
    assert_eq!(stored.size, wasm.len() as u64);
    let most = most_bytes(pid);
    assert!(most < MAX_COMPILING_BYTES, "the worker held {} MiB", most / MIB);
    let called = json!({"module": "large", "function": "f", "args": ["7"]});
    let results = rig.caller.invoke(called).await.unwrap().results;
    let expected = (0..STEPS).fold(7_i64, |x, _| x.wrapping_mul(FACTOR).wrapping_add(SUMMAND));
    assert_eq!(results, Some(vec![json!(expected.to_string())]));
    rig.is_unharmed().await;
    eventually("the compiler's memory to be given back", async || {
        (resident_bytes(pid) < before + MAX_KEPT_BYTES).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_component_that_would_take_too_long_to_compile_is_refused_uncompiled() {
    let rig = Rig::with(&["--executors", "1"], &[]).await;
    let compiled = rig.worker.metric(COMPILATIONS).await;
    // A second and a half each: one would be compiled, and all together take half an hour.
    let wasm = component(1400, &loops(5000));
    assert!(wasm.len() as u64 > 20 * MIB, "{} bytes", wasm.len());
    let stored = begin_to_store(&rig, "large", &wasm).await.await.unwrap();
    refused_naming(
        ErrorCode::UnsupportedModule,
        "together take too long to compile",
        stored,
    );
    assert_eq!(rig.worker.metric(COMPILATIONS).await, compiled);
    refused(
        ErrorCode::ModuleNotFound,
        rig.caller.invoke(json!({"module": "large", "args": ["7"]})).await,
    );
    rig.is_unharmed().await;
}

#[tokio::test]
async fn a_module_that_is_larger_than_the_operator_takes_is_refused_unread() {
    let rig = Rig::with(&["--max-module-mb", "1"], &[]).await;
    let compiled = rig.worker.metric(COMPILATIONS).await;
    let large = component(300, &arithmetic(STEPS));
    assert!(large.len() as u64 > MIB);
    let stored = begin_to_store(&rig, "large", &large).await.await.unwrap();
    refused_naming(ErrorCode::PayloadTooLarge, "at most 1 MiB", stored);
    // Its size is judged before its bytes are: these are none that could be stored.
    let zeros = vec![0; MIB as usize + 1];
    let stored = begin_to_store(&rig, "large", &zeros).await.await.unwrap();
    refused_naming(ErrorCode::PayloadTooLarge, "at most 1 MiB", stored);
    let stored = begin_to_store(&rig, "large", &zeros[1..]).await.await.unwrap();
    refused(ErrorCode::InvalidModule, stored);
    assert_eq!(rig.worker.metric(COMPILATIONS).await, compiled);
    rig.is_unharmed().await;
}
