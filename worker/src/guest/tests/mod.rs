//! Every promise of this folder, held by real modules from their bytes to their ending; one file a promise.
//!
//! Here: compiling and loading what a test writes, calling it, and a host in memory that says what it was asked.

mod artifact;
mod blobstore;
mod command;
mod component;
mod deterministic;
mod differential;
mod effort;
mod epochs;
mod granted;
mod http;
mod limits;
mod memory_objects;
mod messaging;
mod outbound;
mod plugin;
mod refusals;
mod reuse;
mod schemas;
mod state_and_log;
mod traps;
mod typed;
mod upstream;
mod wasi;

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex};

use bytes::Bytes;
use futures_util::FutureExt;
use serde_json::{Value, json};
use wess_schemas::export::{self, Export};
use wess_schemas::limits::{EffectiveLimits, MIB};
use wess_schemas::module::ModuleVersion;
use wess_schemas::settings::Settings;
use wess_schemas::timestamp::Timestamp;
use wess_schemas::{Digest, ErrorBody, ErrorCode, Limits};

use super::abi::{CallInput, Callable, Plan};
use super::limits::MemoryBudget;
use super::*;
use crate::outbound::Outbound;
use crate::secrets::Secrets;

/// Guests at once in each engine of these tests.
const SLOTS: u32 = 2;

static COMPILER: LazyLock<Compiler> = LazyLock::new(|| Compiler::new().unwrap());
static TICKER: LazyLock<Ticker> = LazyLock::new(|| Ticker::start().unwrap());

/// A file in `guests/`.
fn guests(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../guests").join(path)
}

/// A module's bytes from a file in `guests/`.
fn wasm_of(path: &str) -> Vec<u8> {
    wat::parse_file(guests(path)).unwrap()
}

/// Assembles inline text.
fn wasm(wat: &str) -> Vec<u8> {
    wat::parse_str(wat).unwrap()
}

/// The text of a refusal as not WebAssembly.
fn invalid(bytes: &[u8]) -> String {
    match inspect(bytes) {
        Err(ModuleRefused::Invalid(text)) => text,
        other => panic!("not refused as invalid: {other:?}"),
    }
}

/// The text of a refusal of valid WebAssembly.
fn unsupported(bytes: &[u8]) -> String {
    match inspect(bytes) {
        Err(ModuleRefused::Unsupported(text)) => text,
        other => panic!("not refused as unsupported: {other:?}"),
    }
}

#[track_caller]
fn assert_names(text: &str, words: &[&str]) {
    assert!(
        words.iter().all(|word| text.contains(word)),
        "{words:?} are not all in {text:?}"
    );
}

/// A compiled file, as the registry would give it.
fn artifact(wasm: &[u8], metering: Metering) -> std::fs::File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&COMPILER.compile(wasm, metering).unwrap())
        .unwrap();
    file
}

/// A module loaded into an engine, and everything a run of it needs.
struct Guest {
    inspection: Inspection,
    prepared: Arc<Prepared>,
    limits: EffectiveLimits,
    host: Arc<MemoryHost>,
    budget: Arc<MemoryBudget>,
    fixed: Option<Fixed>,
}

impl Guest {
    fn load(wasm: &[u8], engines: &EnginePool, metering: Metering) -> Self {
        Self {
            inspection: inspect(wasm).unwrap(),
            prepared: Prepared::load(engines, metering, &artifact(wasm, metering)).unwrap(),
            limits: EffectiveLimits {
                timeout_ms: 10_000,
                memory_bytes: 64 * MIB,
                fuel: None,
                output_bytes: MIB,
            },
            host: Arc::default(),
            budget: MemoryBudget::new(1024 * MIB),
            fixed: None,
        }
    }

    fn new(wasm: &[u8]) -> Self {
        Self::load(wasm, &engines(), Metering::Off)
    }

    /// A module from a file in `guests/`.
    fn file(path: &str) -> Self {
        Self::new(&wasm_of(path))
    }

    fn wat(text: &str) -> Self {
        Self::new(&wasm(text))
    }

    /// The same, counting fuel.
    fn fueled(wasm: &[u8], fuel: u64) -> Self {
        let mut guest = Self::load(wasm, &engines(), Metering::Fuel);
        guest.limits.fuel = Some(fuel);
        guest
    }

    fn timeout_ms(mut self, timeout_ms: u64) -> Self {
        self.limits.timeout_ms = timeout_ms;
        self
    }

    fn memory_bytes(mut self, memory_bytes: u64) -> Self {
        self.limits.memory_bytes = memory_bytes;
        self
    }

    fn output_bytes(mut self, output_bytes: u64) -> Self {
        self.limits.output_bytes = output_bytes;
        self
    }

    fn budget(mut self, budget: &Arc<MemoryBudget>) -> Self {
        self.budget = Arc::clone(budget);
        self
    }

    /// What clients are told of one of its functions.
    fn export(&self, function: &str) -> Export {
        let version = ModuleVersion {
            version: 1,
            digest: Digest::from_bytes([1; 32]),
            size: 1,
            abi: self.inspection.abi,
            exports: self.inspection.exports.clone(),
            chain: None,
            component: self.inspection.component.clone(),
            limits: Limits::default(),
            settings: Settings::default(),
            created: Timestamp::now(),
        };
        let mut exports = export::describe(&version).into_iter();
        exports.find(|export| export.name == function).unwrap()
    }

    fn plan(&self, call: CallInput) -> Result<Plan, ErrorBody> {
        let component = self.inspection.component.clone().map(Arc::new);
        let callable = Callable {
            abi: self.inspection.abi,
            exports: &self.inspection.exports,
            component: component.as_ref(),
        };
        Plan::new(callable, "guest", call)
    }

    /// A run that has not been polled yet.
    fn start(&self, call: CallInput) -> impl Future<Output = Ending> + Send + use<> {
        self.start_in(None, call)
    }

    /// The same, in an instance that others may have.
    fn start_in(&self, reuse: Option<Reuse>, call: CallInput) -> impl Future<Output = Ending> + Send + use<> {
        let run = Run {
            plan: self.plan(call).unwrap(),
            limits: self.limits,
            host: self.host.clone(),
            budget: Arc::clone(&self.budget),
            fixed: self.fixed,
            reuse,
        };
        invoke(Arc::clone(&self.prepared), run)
    }

    /// Runs to the end, and asserts that nothing of the run is left.
    async fn run(&self, call: CallInput) -> Ending {
        let held = self.budget.used_bytes();
        let ending = self.start(call).await;
        assert_eq!(self.budget.used_bytes(), held, "a run kept some of the budget");
        ending
    }

    async fn answer(&self, call: CallInput) -> Answer {
        self.run(call).await.result.unwrap()
    }

    async fn results(&self, call: CallInput) -> Value {
        Value::Array(self.answer(call).await.results.unwrap())
    }

    /// The output and exit code of a plugin or command.
    async fn output(&self, call: CallInput) -> (String, i32) {
        let answer = self.answer(call).await;
        (
            String::from_utf8(answer.output.unwrap()).unwrap(),
            answer.exit_code.unwrap(),
        )
    }

    async fn fault(&self, call: CallInput) -> GuestFault {
        self.run(call).await.result.unwrap_err()
    }

    async fn code(&self, call: CallInput) -> ErrorCode {
        self.fault(call).await.to_error().code()
    }

    /// The word for a trap, and the frames it came through.
    async fn trap(&self, call: CallInput) -> (&'static str, Vec<String>) {
        match self.fault(call).await {
            GuestFault::Trapped { kind, backtrace, .. } => (kind, backtrace),
            other => panic!("not a trap but {other:?}"),
        }
    }
}

fn validator(schema: Option<Value>) -> jsonschema::Validator {
    jsonschema::draft202012::new(&schema.unwrap()).unwrap()
}

fn engines() -> EnginePool {
    EnginePool::new(SLOTS, TICKER.clone())
}

fn nothing() -> CallInput {
    CallInput::default()
}

fn input(bytes: impl Into<Bytes>) -> CallInput {
    CallInput {
        input: Some(bytes.into()),
        ..nothing()
    }
}

fn args(args: Value) -> CallInput {
    CallInput {
        args: Some(args.as_array().unwrap().clone()),
        ..nothing()
    }
}

fn function(name: &str) -> CallInput {
    named(name, nothing())
}

fn named(name: &str, call: CallInput) -> CallInput {
    CallInput {
        function: Some(name.parse().unwrap()),
        ..call
    }
}

fn with_env(mut call: CallInput, env: &[(&str, &str)]) -> CallInput {
    call.env = env
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .collect();
    call
}

/// Subject, headers and payload.
type Published = (String, Vec<(String, String)>, Bytes);

/// State and log in memory.
#[derive(Default)]
struct MemoryHost {
    state: Mutex<HashMap<Vec<u8>, Bytes>>,
    lines: Mutex<Vec<(LogStream, String)>>,
    settings: Settings,
    secrets: Secrets,
    outbound: Option<Arc<Outbound>>,
    published: Mutex<Vec<Published>>,
    objects: memory_objects::MemoryObjects,
    /// What every state call fails with.
    failing: Mutex<Option<StateError>>,
    /// Every state call waits until this is notified.
    waiting: Mutex<Option<Arc<tokio::sync::Notify>>>,
}

impl MemoryHost {
    fn lines(&self) -> Vec<(LogStream, String)> {
        self.lines.lock().unwrap().clone()
    }

    fn texts(&self) -> Vec<String> {
        self.lines().into_iter().map(|(_, text)| text).collect()
    }

    fn value(&self, key: &str) -> Option<Bytes> {
        self.state.lock().unwrap().get(key.as_bytes()).cloned()
    }

    async fn ready(&self) -> Result<(), StateError> {
        let waiting = self.waiting.lock().unwrap().clone();
        if let Some(waiting) = waiting {
            waiting.notified().await;
        }
        self.failing.lock().unwrap().map_or(Ok(()), Err)
    }
}

impl Host for MemoryHost {
    fn settings(&self) -> &Settings {
        &self.settings
    }

    fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    fn outbound(&self) -> Option<&Arc<Outbound>> {
        self.outbound.as_ref()
    }

    fn objects(&self) -> Option<Arc<dyn Objects>> {
        Some(Arc::new(self.objects.clone()))
    }

    fn increment_state<'a>(&'a self, key: &'a [u8], delta: u64) -> StateFuture<'a, u64> {
        async move {
            self.ready().await?;
            let mut state = self.state.lock().unwrap();
            let before = state
                .get(key)
                .map_or(Ok(0), |value| std::str::from_utf8(value).unwrap().parse());
            let sum = before.map_err(|_| StateError::NoNumber)? + delta;
            state.insert(key.to_vec(), sum.to_string().into());
            Ok(sum)
        }
        .boxed()
    }

    fn list_state(&self) -> StateFuture<'_, Vec<Vec<u8>>> {
        async move {
            self.ready().await?;
            let mut keys: Vec<_> = self.state.lock().unwrap().keys().cloned().collect();
            keys.sort_unstable();
            Ok(keys)
        }
        .boxed()
    }

    fn publish<'a>(
        &'a self,
        subject: &'a str,
        headers: &'a [(String, String)],
        payload: Bytes,
    ) -> StateFuture<'a, bool> {
        async move {
            self.ready().await?;
            let may = self.settings.grants.publish.contains(subject);
            if may {
                let published = (subject.to_owned(), headers.to_vec(), payload);
                self.published.lock().unwrap().push(published);
            }
            Ok(may)
        }
        .boxed()
    }

    fn log(&self, stream: LogStream, line: &str) {
        self.lines.lock().unwrap().push((stream, line.to_owned()));
    }

    fn get_state<'a>(&'a self, key: &'a [u8]) -> StateFuture<'a, Option<Bytes>> {
        async move {
            self.ready()
                .await
                .map(|()| self.state.lock().unwrap().get(key).cloned())
        }
        .boxed()
    }

    fn set_state<'a>(&'a self, key: &'a [u8], value: Bytes) -> StateFuture<'a, ()> {
        async move {
            self.ready()
                .await
                .map(|()| drop(self.state.lock().unwrap().insert(key.to_vec(), value)))
        }
        .boxed()
    }

    fn delete_state<'a>(&'a self, key: &'a [u8]) -> StateFuture<'a, ()> {
        async move {
            self.ready()
                .await
                .map(|()| drop(self.state.lock().unwrap().remove(key)))
        }
        .boxed()
    }
}
