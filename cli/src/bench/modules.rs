//! Many modules in one worker: what a cached one costs in memory, and that a restart compiles nothing again.

use std::time::Instant;

use anyhow::{Context, ensure};
use async_nats::Client;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::Serialize;
use wess_schemas::subject::Endpoint;
use wess_schemas::{ModuleName, Reference};

use super::goals::Goal;
use super::metrics::Metrics;
use super::processes::Process;
use super::rig::Rig;
use super::usage::{KIB, MIB, Memory, memory};
use crate::output;
use crate::transport::{NewModule, Transport, over};

/// The guest that answers in upper case.
pub const UPPER: &str = include_str!("upper.wat");
/// How many are stored or called at once.
const AT_ONCE: usize = 16;
/// Of so many the memory of one that is ready is taken: a worker keeps more ready than these.
const MAX_READY: usize = 1000;
/// Calls of each of those, so that nearly every executor of a small machine has them.
pub const CALLS_OF_EACH: usize = 8;
/// Modules that are ready, once per executor.
pub const PREPARED: &str = "worker_prepared_modules";

/// What many modules cost, after a restart.
#[derive(Debug, Serialize)]
pub struct Cached {
    /// How many.
    pub modules: u64,
    /// What a stored module costs that was not called yet, in bytes.
    pub stored_bytes: u64,
    /// What a module costs on top once it was called, in bytes.
    pub cached_bytes: u64,
    /// From the worker's start to its `ready` line, in milliseconds.
    pub start_ms: u64,
    /// The first call after the restart, in microseconds.
    pub first_call_us: u64,
    /// Compilations while every module was called after the restart.
    pub compilations: u64,
}

impl Cached {
    /// For people.
    pub fn facts(&self) -> Vec<[String; 2]> {
        let count = self.modules;
        vec![
            [
                format!("each of {count} stored modules"),
                output::size(self.stored_bytes),
            ],
            [
                format!("each of {count} cached modules, on top"),
                output::size(self.cached_bytes),
            ],
            [
                format!("start with {count} modules"),
                format!("{} ms", self.start_ms),
            ],
            [
                "first call after a restart".into(),
                format!("{} µs", self.first_call_us),
            ],
            [
                format!("compilations in {count} calls after a restart"),
                self.compilations.to_string(),
            ],
        ]
    }
}

/// The benchmark's guest; `number` makes its bytes its own.
pub fn upper(number: u64) -> anyhow::Result<Vec<u8>> {
    let text = UPPER.replace("(memory ", &format!("(@custom \"number\" \"{number}\") (memory "));
    Ok(wat::parse_str(text)?)
}

/// The benchmark's guest, which turns so often in a loop before it answers.
pub fn spin(turns: u32) -> anyhow::Result<Vec<u8>> {
    const LOCALS: &str = "(local $end i32) (local $byte i32)";
    let spinning = format!(
        "{LOCALS} (local $turns i32) (local.set $turns (i32.const {turns}))
         (loop $turn (br_if $turn (local.tee $turns (i32.sub (local.get $turns) (i32.const 1)))))"
    );
    Ok(wat::parse_str(UPPER.replace(LOCALS, &spinning))?)
}

/// The benchmark's guest, stored under `name`; `number` makes its bytes its own.
pub async fn store(transport: &dyn Transport, name: ModuleName, number: u64) -> anyhow::Result<()> {
    store_wasm(transport, name.as_str(), upper(number)?.into()).await
}

/// Some guest, stored under `name`.
pub async fn store_wasm(transport: &dyn Transport, name: &str, wasm: Bytes) -> anyhow::Result<()> {
    let name = name.parse()?;
    let terms = Default::default();
    transport.store(NewModule { name, wasm, terms }).await?;
    Ok(())
}

/// Where a rig's worker takes raw calls of the module that has this name.
pub fn subject(rig: &Rig, name: &str) -> anyhow::Result<String> {
    let endpoint = Endpoint::InvokeRaw(Reference::Latest(name.parse()?), None);
    Ok(rig.subjects().endpoint(&endpoint))
}

fn name_of(number: u64) -> String {
    format!("tiny-{number}")
}

/// So many of the benchmark's guests, stored, and where each is called.
pub async fn store_many(rig: &Rig, transport: &dyn Transport, count: u64) -> anyhow::Result<Vec<String>> {
    let stores = stream::iter(1..=count)
        .map(|number| async move { store(transport, name_of(number).parse()?, number).await });
    stores.buffer_unordered(AT_ONCE).try_collect::<()>().await?;
    (1..=count).map(|number| subject(rig, &name_of(number))).collect()
}

/// Stores them, calls each, restarts the worker, and calls each again.
pub async fn measure(rig: Rig, count: u64) -> anyhow::Result<(Rig, Cached)> {
    let client = rig.connect().await?;
    let transport = over(client.clone(), rig.subjects());
    let empty = used(&rig.worker)?;
    let subjects = store_many(&rig, transport.as_ref(), count).await?;
    let stored = used(&rig.worker)?;
    call_each(&client, &subjects).await?;

    let (rig, start) = rig.restart_worker().await?;
    let start_ms = start.as_millis() as u64;
    let compiled = Metrics::read(&rig.worker).await?.compilations()?;
    let before = used(&rig.worker)?;
    let calling = Instant::now();
    call_each(&client, &subjects[..1]).await?;
    let first_call_us = calling.elapsed().as_micros() as u64;
    call_each(&client, &subjects).await?;
    let each = |more: Memory, less: Memory| more.resident_bytes.saturating_sub(less.resident_bytes) / count;
    let cached = Cached {
        modules: count,
        stored_bytes: each(stored, empty),
        cached_bytes: each(used(&rig.worker)?, before),
        start_ms,
        first_call_us,
        compilations: Metrics::read(&rig.worker).await?.compilations()? - compiled,
    };
    Ok((rig, cached))
}

/// More for each module that is ready, on all executors together, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Ready {
    /// All that is resident, mapped files included.
    pub resident_bytes: u64,
    /// What is the process's own.
    pub anonymous_bytes: u64,
    /// On how many executors each is, at the mean.
    pub on: f64,
}

/// Calls modules that are stored until nearly every executor has them ready. Not all, where they are very many. One is called
/// before: code of the worker's own that no call had needed yet is no module's memory.
pub async fn make_ready(rig: &Rig, client: &Client, subjects: &[String]) -> anyhow::Result<Ready> {
    let few = &subjects[..subjects.len().min(MAX_READY)];
    for _ in 0..CALLS_OF_EACH {
        call_each(client, &few[..1]).await?;
    }
    let before = used(&rig.worker)?;
    for _ in 0..CALLS_OF_EACH {
        call_each(client, few).await?;
    }
    let after = used(&rig.worker)?;
    let more = few.len().saturating_sub(1).max(1) as u64;
    let each = |of: fn(&Memory) -> u64| of(&after).saturating_sub(of(&before)) / more;
    let prepared = Metrics::read(&rig.worker).await?.number(PREPARED)?;
    Ok(Ready {
        resident_bytes: each(|memory| memory.resident_bytes),
        anonymous_bytes: each(|memory| memory.anonymous_bytes),
        on: prepared as f64 / few.len() as f64,
    })
}

/// What is wanted of a worker without modules, and of each that is ready.
pub fn goals(idle_bytes: u64, ready: &Ready) -> [Goal; 2] {
    let [idle, ready] = [idle_bytes, ready.resident_bytes].map(|bytes| bytes as f64);
    [
        Goal::at_most("resident without modules, MiB", 20.0, idle / MIB),
        Goal::at_most("each cached module, KiB", 32.0, ready / KIB),
    ]
}

/// A worker's memory now.
pub fn used(worker: &Process) -> anyhow::Result<Memory> {
    memory(worker.pid()).context("memory is read from /proc, which is not here")
}

/// One call of each, some at once.
pub async fn call_each(client: &Client, subjects: &[String]) -> anyhow::Result<()> {
    let calls = stream::iter(subjects).map(|subject| async move {
        let answer = client.request(subject.clone(), "hello".into()).await?;
        ensure!(
            answer.payload == "HELLO",
            "{subject} answered {:?}",
            answer.payload
        );
        Ok(())
    });
    calls.buffer_unordered(AT_ONCE).try_collect().await
}
