//! What a test of the whole worker stands on: a nats-server, workers as processes, and a client that asks them.
//!
//! Every reply is read as the contract says: a failure without its code, its headers and its promises fails the test.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use async_nats::{Client, ConnectOptions, HeaderMap, Message, Request, RequestErrorKind};
use bytes::Bytes;
use futures_util::future::join_all;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;
use wess_harness::{NatsServer, Process, binary, eventually, guest};
use wess_schemas::chain::ChainOutcome;
use wess_schemas::error_code::GuestRan;
use wess_schemas::module::Module;
use wess_schemas::{ErrorBody, ErrorCode, Outcome, header};

/// A caller's own patience: longer than anything that a worker is asked to do here.
const PATIENCE: Duration = Duration::from_secs(30);

/// A reply, or the failure that stands in its place.
pub type Answered<T> = Result<T, ErrorBody>;

/// One worker on a nats-server, with the module `add` stored.
pub struct Rig {
    pub worker: Worker,
    pub caller: Caller,
    pub nats: NatsServer,
}

impl Rig {
    /// A worker with default bounds, and these guests stored under their names.
    pub async fn start(guests: &[&str]) -> Self {
        Self::with(&[], guests).await
    }

    /// A worker with these flags.
    pub async fn with(flags: &[&str], guests: &[&str]) -> Self {
        Self::on(NatsServer::start(), flags, guests).await
    }

    /// A worker on a server that runs.
    pub async fn on(nats: NatsServer, flags: &[&str], guests: &[&str]) -> Self {
        let worker = Worker::start(&nats, flags);
        let caller = Caller::connect(&nats).await;
        caller.store_guests(&[&["add"], guests].concat()).await;
        Self { worker, caller, nats }
    }

    /// What must hold after every fault: the next good call is answered by the same worker, and nothing is held.
    pub async fn is_unharmed(&self) {
        let outcome = self.caller.invoke(add()).await.unwrap();
        assert_eq!(
            (outcome.results, outcome.worker.to_string()),
            (Some(vec![json!(5)]), self.worker.id())
        );
        self.worker.comes_to_rest().await;
    }
}

/// A worker's process and its data folder.
pub struct Worker {
    pub process: Process,
    data: Option<TempDir>,
}

impl Worker {
    /// Starts one on a folder of its own.
    pub fn start(nats: &NatsServer, flags: &[&str]) -> Self {
        let data = TempDir::with_prefix("wess-worker-").unwrap();
        let process = Process::start(&mut command(nats, data.path(), flags));
        Self {
            process,
            data: Some(data),
        }
    }

    /// Starts one on a folder that outlives it.
    pub fn start_in(data: &Path, nats: &NatsServer, flags: &[&str]) -> Self {
        Self::of(command(nats, data, flags))
    }

    /// One that a test starts in its own way.
    pub fn of(mut command: Command) -> Self {
        Self {
            process: Process::start(&mut command),
            data: None,
        }
    }

    /// Stops it in order; its data folder stays.
    pub fn stop(mut self) -> TempDir {
        assert_eq!(self.process.stop().code(), Some(0));
        self.data.take().unwrap()
    }

    /// Its name on the wire.
    pub fn id(&self) -> String {
        self.process.value("worker")
    }

    /// Waits until no guest runs, nobody waits and no guest memory is held.
    pub async fn comes_to_rest(&self) {
        eventually("the worker to hold nothing", async || {
            let page = self.metrics().await;
            let levels = [
                "wess_worker_slots_busy",
                "wess_worker_waiting",
                "wess_worker_guest_memory_bytes",
            ];
            levels.iter().all(|level| page.read(level) == 0).then_some(())
        })
        .await;
    }

    /// Waits until a metric has a value.
    pub async fn shows(&self, metric: &str, value: u64) {
        let what = format!("{metric} to be {value}");
        eventually(&what, async || (self.metric(metric).await == value).then_some(())).await;
    }

    /// One metric now.
    pub async fn metric(&self, name: &str) -> u64 {
        self.metrics().await.read(name)
    }

    /// All metrics now.
    pub async fn metrics(&self) -> Metrics {
        let (status, text) = self.page("/metrics").await;
        assert_eq!(status, 200, "{text}");
        Metrics(text)
    }

    /// A page of the admin port: its status and its body.
    pub async fn page(&self, path: &str) -> (u16, String) {
        get(&self.process.value("admin"), path).await
    }
}

/// A page of an HTTP server at `http://address:port`: its status and its body.
pub async fn get(server: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(server.trim_start_matches("http://"))
        .await
        .unwrap();
    stream
        .write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes())
        .await
        .unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).await.unwrap();
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}

/// A scrape.
pub struct Metrics(String);

impl Metrics {
    /// The value of one line: a metric's name, with its labels if it has any. One that is not there counts nothing.
    pub fn read(&self, name: &str) -> u64 {
        let value = self
            .0
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map_or(0, |value| value.parse::<f64>().unwrap() as u64)
    }
}

/// `wess-worker` on free ports.
pub fn command(nats: &NatsServer, data: &Path, flags: &[&str]) -> Command {
    let mut command = binary("wess-worker");
    command
        .env("WESS_ADMIN", "127.0.0.1:0")
        .args(["--nats", &nats.url(), "--data"])
        .arg(data)
        .args(flags);
    command
}

/// A client as anyone could write one.
#[derive(Clone)]
pub struct Caller {
    pub client: Client,
}

impl Caller {
    pub async fn connect(nats: &NatsServer) -> Self {
        Self::connect_with(ConnectOptions::new(), nats).await
    }

    /// One that a server asks for something first.
    pub async fn connect_with(options: ConnectOptions, nats: &NatsServer) -> Self {
        let options = options
            .request_timeout(Some(PATIENCE))
            .subscription_capacity(1 << 16);
        Self {
            client: options.connect(nats.url()).await.unwrap(),
        }
    }

    /// Waits until the server answers, whatever became of the connection; replies find this caller from then on.
    pub async fn is_back(&self) {
        eventually("the server to answer", async || {
            let attempt = self.client.request("$JS.API.INFO", "".into());
            let answered = tokio::time::timeout(Duration::from_secs(1), attempt).await;
            answered.ok()?.ok()
        })
        .await;
    }

    /// Sends a request and takes whatever comes back.
    pub async fn send(
        &self,
        subject: &str,
        headers: &[(&str, &str)],
        payload: impl Into<Bytes>,
    ) -> Result<Message, RequestErrorKind> {
        let request = Request::new()
            .headers(header_map(headers))
            .payload(payload.into());
        self.client
            .send_request(subject.to_owned(), request)
            .await
            .map_err(|error| error.kind())
    }

    /// Sends a request that somebody must answer.
    pub async fn ask(
        &self,
        subject: &str,
        headers: &[(&str, &str)],
        payload: impl Into<Bytes>,
    ) -> Answered<Message> {
        let reply = self.send(subject, headers, payload).await;
        read(reply.unwrap_or_else(|error| panic!("nobody answered {subject}: {error:?}")))
    }

    /// A request in JSON, answered in JSON.
    pub async fn ask_json<T: DeserializeOwned>(&self, subject: &str, body: &impl Serialize) -> Answered<T> {
        let reply = self.ask(subject, &[], serde_json::to_vec(body).unwrap()).await?;
        Ok(parse(&reply))
    }

    /// `wess.invoke` with an Invocation.
    pub async fn invoke(&self, invocation: Value) -> Answered<Outcome> {
        self.ask_json("wess.invoke", &invocation).await
    }

    /// As [`Caller::invoke`], under way while the test goes on.
    pub fn begin(&self, invocation: Value) -> JoinHandle<Answered<Outcome>> {
        let caller = self.clone();
        TaskTracker::new().spawn(async move { caller.invoke(invocation).await })
    }

    /// `wess.invoke.<ref>` with raw bytes.
    pub async fn raw(&self, target: &str, input: impl Into<Bytes>) -> Answered<Message> {
        self.ask(&format!("wess.invoke.{target}"), &[], input).await
    }

    /// `wess.chain`
    pub async fn chain(&self, request: Value) -> Answered<ChainOutcome> {
        self.ask_json("wess.chain", &request).await
    }

    /// `wess.store` with raw bytes, which must be taken.
    pub async fn store(&self, name: &str, wasm: Vec<u8>) -> Module {
        self.try_store(name, wasm)
            .await
            .unwrap_or_else(|error| panic!("{name} was not stored: {error}"))
    }

    /// `wess.store` with raw bytes.
    pub async fn try_store(&self, name: &str, wasm: Vec<u8>) -> Answered<Module> {
        let reply = self.ask("wess.store", &[(header::MODULE, name)], wasm).await?;
        Ok(parse(&reply))
    }

    /// Stores guests under their names, `_` becoming `-`.
    pub async fn store_guests(&self, guests: &[&str]) {
        join_all(
            guests
                .iter()
                .map(async |name| self.store(&name.replace('_', "-"), guest(name)).await),
        )
        .await;
    }
}

/// Every header of a list.
pub fn header_map(headers: &[(&str, &str)]) -> HeaderMap {
    headers
        .iter()
        .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
        .fold(
            HeaderMap::new(),
            |mut map, (name, value): (async_nats::HeaderName, async_nats::HeaderValue)| {
                map.insert(name, value);
                map
            },
        )
}

/// One header of a reply.
pub fn fact<'a>(reply: &'a Message, name: &str) -> Option<&'a str> {
    reply.headers.as_ref()?.get(name).map(|value| value.as_str())
}

/// A body in JSON.
pub fn parse<T: DeserializeOwned>(reply: &Message) -> T {
    serde_json::from_slice(&reply.payload)
        .unwrap_or_else(|error| panic!("{error} in {}", String::from_utf8_lossy(&reply.payload)))
}

/// Tells a failure by its header, and checks all that its code promises.
pub fn read(reply: Message) -> Answered<Message> {
    let Some(status) = fact(&reply, header::SERVICE_ERROR_CODE) else {
        return Ok(reply);
    };
    let error: ErrorBody = parse(&reply);
    let code = error.code();
    assert_eq!(status, code.http_status().to_string(), "{error}");
    assert_eq!(
        fact(&reply, header::SERVICE_ERROR),
        Some(&*header::header_line(&error.error.message))
    );
    assert!(!error.error.message.is_empty(), "{error:?}");
    let ran = if error.error.guest_ran {
        GuestRan::Yes
    } else {
        GuestRan::No
    };
    // The failed step of a chain says what is so of the whole chain.
    let promised =
        [ran, GuestRan::Maybe].contains(&code.guest_ran()) || error.error.detail.contains_key("failed_step");
    assert!(promised, "{error:?}");
    Err(error)
}

/// A failure of this code.
#[track_caller]
pub fn refused<T: std::fmt::Debug>(code: ErrorCode, answered: Answered<T>) -> ErrorBody {
    let error = answered.expect_err(code.as_str());
    assert_eq!(error.code(), code, "{error}");
    error
}

/// A failure of this code whose message names something.
#[track_caller]
pub fn refused_naming<T: std::fmt::Debug>(code: ErrorCode, named: &str, answered: Answered<T>) -> ErrorBody {
    let error = refused(code, answered);
    assert!(
        error.error.message.contains(named),
        "{named:?} is not named in {error}"
    );
    error
}

/// A guest in WebAssembly text.
pub fn wat(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap()
}

/// An invocation of a guest that computes until its timeout.
pub fn spin(timeout_ms: u64) -> Value {
    json!({"module": "spin", "function": "spin", "limits": {"timeout_ms": timeout_ms}})
}

/// An invocation that adds up to five at once.
pub fn add() -> Value {
    json!({"module": "add", "args": [2, 3]})
}

/// A command that sleeps for so long, then ends well.
pub fn nap(ms: u64) -> Vec<u8> {
    wat(&format!(
        r#"(module
          (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
          (memory (export "memory") 1)
          (func (export "_start")
            (i32.store (i32.const 16) (i32.const 1))
            (i64.store (i32.const 24) (i64.const {}))
            (drop (call $poll (i32.const 0) (i32.const 64) (i32.const 1) (i32.const 128)))))"#,
        ms * 1_000_000
    ))
}
