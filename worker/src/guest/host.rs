//! What a guest may ask of us besides WASI: the imports of the module `host`, and what one run brings to answer them.
//!
//! Every pointer is the guest's claim and is checked against its memory; a wrong one is a trap, never a host error.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use wasmtime::{Caller, Engine, Extern, Linker, Memory};
use wasmtime_wasi::WasiView;
use wasmtime_wasi::p1::WasiP1Ctx;
use wess_schemas::limits::EffectiveLimits;
use wess_schemas::settings::{MAX_GRANT_BYTES, Settings};

use super::component::blobstore::Allowance;
use super::fixed::Fixed;
use super::http::HttpState;
use super::limits::GuestLimiter;
use super::log::{GuestLog, LogStream};
use super::objects::Objects;
use super::wasi;
use crate::outbound::Outbound;
use crate::secrets::Secrets;

/// Most bytes of one state key.
pub const MAX_STATE_KEY_BYTES: usize = 256;
/// Most bytes of one state value: it must fit into a message of a NATS server with default settings.
pub const MAX_STATE_VALUE_BYTES: usize = 512 << 10;

/// Why a guest's state could not be read or written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// State belongs to names.
    #[error("a module called by its digest has no state: call it by its name")]
    Nameless,
    /// State changes between one run and the next.
    #[error("a deterministic module has no state")]
    Deterministic,
    /// A value that is no number cannot be counted up.
    #[error("the value is no decimal number below 2^64, or would not be one any more")]
    NoNumber,
    /// More keys than a guest can be told of.
    #[error("the module has more keys than can be listed")]
    TooManyKeys,
    /// More than the NATS server takes.
    #[error("the message is larger than the NATS server takes")]
    MessageTooLarge,
    /// The state store could not be reached, or failed.
    #[error("guest state is unavailable")]
    Unavailable,
}

/// A state call under way.
pub type StateFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, StateError>> + Send + 'a>>;

/// What one run gets from the outside: its log, its module's settings and its module's state.
pub trait Host: Send + Sync {
    /// What the module's owner says of it.
    fn settings(&self) -> &Settings;
    /// What must not be seen in its log.
    fn secrets(&self) -> &Secrets;
    /// Takes one line, without waiting; lines past the run's bound never arrive here, nor does any secret.
    fn log(&self, stream: LogStream, line: &str);
    /// The value of a key, if there is one.
    fn get_state<'a>(&'a self, key: &'a [u8]) -> StateFuture<'a, Option<Bytes>>;
    /// Sets a key; answers once it is stored.
    fn set_state<'a>(&'a self, key: &'a [u8], value: Bytes) -> StateFuture<'a, ()>;
    /// Takes a key away, whether it was there or not.
    fn delete_state<'a>(&'a self, key: &'a [u8]) -> StateFuture<'a, ()>;
    /// Adds to a number in decimal text, 0 where there is none, by nobody's leave but its own; gives the sum.
    fn increment_state<'a>(&'a self, key: &'a [u8], delta: u64) -> StateFuture<'a, u64>;
    /// Every key, in order.
    fn list_state(&self) -> StateFuture<'_, Vec<Vec<u8>>>;
    /// Publishes to a subject, with headers that are fit for one; whether that is granted.
    fn publish<'a>(
        &'a self,
        subject: &'a str,
        headers: &'a [(String, String)],
        payload: Bytes,
    ) -> StateFuture<'a, bool>;
    /// The way to hosts that are granted, if there is one.
    fn outbound(&self) -> Option<&Arc<Outbound>>;
    /// The module's objects, if it can have any.
    fn objects(&self) -> Option<Arc<dyn Objects>>;
}

/// A fault of a guest's own making in a host call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum HostFault {
    #[error("{0}: the pointer or length lies outside the guest's memory")]
    OutOfBounds(&'static str),
    #[error("the module exports no memory for host calls to use")]
    NoMemory,
    #[error("{what} is {bytes} bytes, but may have at most {most}")]
    StateTooLarge {
        what: &'static str,
        bytes: usize,
        most: usize,
    },
    #[error("more than {most} {what}")]
    TooMany { what: &'static str, most: usize },
    #[error("the output is larger than {0} bytes")]
    OutputTooLarge(usize),
    #[error("the guest ran longer than {0} ms")]
    Deadline(u64),
}

/// Everything that belongs to one run, inside its store.
pub(super) struct GuestState {
    pub limiter: GuestLimiter,
    pub deadline: Instant,
    pub timeout_ms: u64,
    pub wasi: Option<WasiP1Ctx>,
    pub output: Option<Vec<u8>>,
    pub output_limit: usize,
    pub log: GuestLog,
    pub http: HttpState,
    /// What it sees of the world, if nothing else may make a difference.
    pub fixed: Option<Fixed>,
    /// How much of the host's memory is in messages that the guest has not sent.
    pub messages_bytes: usize,
    /// What the guest has of objects.
    pub blobs: Arc<Allowance>,
    host: Arc<dyn Host>,
    last_state: Bytes,
}

impl GuestState {
    /// What the run gets from outside.
    pub fn host(&self) -> Arc<dyn Host> {
        Arc::clone(&self.host)
    }

    pub fn new(
        limiter: GuestLimiter,
        deadline: Instant,
        limits: &EffectiveLimits,
        host: Arc<dyn Host>,
    ) -> Self {
        Self {
            limiter,
            deadline,
            timeout_ms: limits.timeout_ms,
            wasi: None,
            output: None,
            output_limit: usize::try_from(limits.output_bytes).unwrap_or(usize::MAX),
            log: GuestLog::new(Arc::clone(&host)),
            http: HttpState::new(Arc::clone(&host)),
            fixed: None,
            messages_bytes: 0,
            blobs: Arc::default(),
            host,
            last_state: Bytes::new(),
        }
    }

    /// The state of another run in the same instance: nothing of the last one is left but what the guest holds.
    pub fn renew(&mut self, deadline: Instant, limits: &EffectiveLimits, host: Arc<dyn Host>) {
        let limiter = self.limiter.hand_over(limits.memory_bytes);
        *self = Self::new(limiter, deadline, limits, host);
    }

    /// Lets go of all that belongs to the run alone: its log's last line goes out, its connections are closed.
    pub fn rest(&mut self) {
        self.wasi = None;
        self.output = None;
        self.http = HttpState::new(Arc::clone(&self.host));
        self.last_state = Bytes::new();
    }

    /// Whether the guest has handles of the host's, which the next run would not know.
    pub fn holds_resources(&mut self) -> bool {
        self.wasi.is_some() && !self.ctx().table.is_empty()
    }
}

type HostCaller<'a> = Caller<'a, GuestState>;
type Async<'a, T> = Box<dyn Future<Output = wasmtime::Result<T>> + Send + 'a>;

/// The imports every guest of an engine shares.
pub(super) fn linker(engine: &Engine) -> wasmtime::Result<Linker<GuestState>> {
    let mut linker = Linker::new(engine);
    linker.func_wrap("host", "log", log)?;
    linker.func_wrap("host", "set_output", set_output)?;
    linker.func_wrap_async(
        "host",
        "get_state",
        |caller: HostCaller<'_>, (key, key_len): (u32, u32)| {
            Box::new(get_state(caller, key, key_len)) as Async<'_, i32>
        },
    )?;
    linker.func_wrap("host", "read_state", read_state)?;
    linker.func_wrap_async(
        "host",
        "set_state",
        |caller: HostCaller<'_>, (key, key_len, value, value_len): (u32, u32, u32, u32)| {
            Box::new(set_state(caller, key, key_len, value, value_len)) as Async<'_, ()>
        },
    )?;
    linker.func_wrap_async(
        "host",
        "delete_state",
        |caller: HostCaller<'_>, (key, key_len): (u32, u32)| {
            Box::new(delete_state(caller, key, key_len)) as Async<'_, ()>
        },
    )?;
    linker.func_wrap_async(
        "host",
        "publish",
        |caller: HostCaller<'_>, (subject, subject_len, payload, payload_len): (u32, u32, u32, u32)| {
            Box::new(publish(caller, subject, subject_len, payload, payload_len)) as Async<'_, i32>
        },
    )?;
    wasi::link(&mut linker)?;
    Ok(linker)
}

fn log(mut caller: HostCaller<'_>, text: u32, len: u32) -> wasmtime::Result<()> {
    let memory = memory_of(&mut caller)?;
    let (bytes, state) = memory.data_and_store_mut(&mut caller);
    state.log.write(LogStream::Log, slice(bytes, text, len, "log")?);
    Ok(())
}

fn set_output(mut caller: HostCaller<'_>, output: u32, len: u32) -> wasmtime::Result<()> {
    let memory = memory_of(&mut caller)?;
    let (bytes, state) = memory.data_and_store_mut(&mut caller);
    let output = slice(bytes, output, len, "set_output")?;
    if output.len() > state.output_limit {
        return Err(HostFault::OutputTooLarge(state.output_limit).into());
    }
    state.output = Some(output.to_vec());
    Ok(())
}

async fn get_state(mut caller: HostCaller<'_>, key: u32, key_len: u32) -> wasmtime::Result<i32> {
    let key = state_key(&mut caller, key, key_len, "get_state")?;
    let host = Arc::clone(&caller.data().host);
    let value = host.get_state(&key).await?;
    let length = value
        .as_ref()
        .and_then(|value| i32::try_from(value.len()).ok())
        .unwrap_or(-1);
    caller.data_mut().last_state = value.unwrap_or_default();
    Ok(length)
}

fn read_state(mut caller: HostCaller<'_>, target: u32, capacity: u32) -> wasmtime::Result<u32> {
    let memory = memory_of(&mut caller)?;
    let (bytes, state) = memory.data_and_store_mut(&mut caller);
    let range = range(bytes.len(), target, capacity, "read_state")?;
    let target = &mut bytes[range];
    let length = state.last_state.len().min(target.len());
    target[..length].copy_from_slice(&state.last_state[..length]);
    Ok(length as u32)
}

async fn set_state(
    mut caller: HostCaller<'_>,
    key: u32,
    key_len: u32,
    value: u32,
    value_len: u32,
) -> wasmtime::Result<()> {
    let key = state_key(&mut caller, key, key_len, "set_state")?;
    let memory = memory_of(&mut caller)?;
    let value = slice(memory.data(&caller), value, value_len, "set_state")?;
    check_size("a state value", value.len(), MAX_STATE_VALUE_BYTES)?;
    let value = Bytes::copy_from_slice(value);
    let host = Arc::clone(&caller.data().host);
    Ok(host.set_state(&key, value).await?)
}

async fn delete_state(mut caller: HostCaller<'_>, key: u32, key_len: u32) -> wasmtime::Result<()> {
    let key = state_key(&mut caller, key, key_len, "delete_state")?;
    let host = Arc::clone(&caller.data().host);
    Ok(host.delete_state(&key).await?)
}

/// 0 once it is on its way, -1 where the subject is not granted.
async fn publish(
    mut caller: HostCaller<'_>,
    subject: u32,
    subject_len: u32,
    payload: u32,
    payload_len: u32,
) -> wasmtime::Result<i32> {
    let memory = memory_of(&mut caller)?;
    let bytes = memory.data(&caller);
    let subject = slice(bytes, subject, subject_len, "publish")?;
    let payload = slice(bytes, payload, payload_len, "publish")?;
    check_size("a subject", subject.len(), MAX_GRANT_BYTES)?;
    check_size("a message", payload.len(), MAX_STATE_VALUE_BYTES)?;
    let (subject, payload) = (
        String::from_utf8_lossy(subject).into_owned(),
        Bytes::copy_from_slice(payload),
    );
    let host = Arc::clone(&caller.data().host);
    let published = host.publish(&subject, &[], payload).await?;
    Ok(if published { 0 } else { -1 })
}

fn state_key(
    caller: &mut HostCaller<'_>,
    key: u32,
    len: u32,
    call: &'static str,
) -> wasmtime::Result<Vec<u8>> {
    let memory = memory_of(caller)?;
    let key = slice(memory.data(&caller), key, len, call)?;
    check_size("a state key", key.len(), MAX_STATE_KEY_BYTES)?;
    Ok(key.to_vec())
}

fn check_size(what: &'static str, bytes: usize, most: usize) -> Result<(), HostFault> {
    if bytes > most {
        Err(HostFault::StateTooLarge { what, bytes, most })
    } else {
        Ok(())
    }
}

fn memory_of(caller: &mut HostCaller<'_>) -> Result<Memory, HostFault> {
    caller
        .get_export("memory")
        .and_then(Extern::into_memory)
        .ok_or(HostFault::NoMemory)
}

/// The part of a memory of `size` bytes that a guest's pointer and length name.
fn range(size: usize, start: u32, len: u32, call: &'static str) -> Result<std::ops::Range<usize>, HostFault> {
    let start = start as usize;
    match start.checked_add(len as usize) {
        Some(end) if end <= size => Ok(start..end),
        _ => Err(HostFault::OutOfBounds(call)),
    }
}

/// The bytes that a guest's pointer and length name.
pub(super) fn slice<'a>(
    memory: &'a [u8],
    start: u32,
    len: u32,
    call: &'static str,
) -> Result<&'a [u8], HostFault> {
    Ok(&memory[range(memory.len(), start, len, call)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_may_reach_the_end_of_memory_and_not_past_it() {
        assert_eq!(range(10, 0, 10, "x").unwrap(), 0..10);
        assert_eq!(range(10, 10, 0, "x").unwrap(), 10..10);
        for (start, len) in [
            (10, 1),
            (11, 0),
            (0, 11),
            (u32::MAX, 1),
            (1, u32::MAX),
            (u32::MAX, u32::MAX),
        ] {
            assert_eq!(range(10, start, len, "x"), Err(HostFault::OutOfBounds("x")));
        }
    }
}
