//! `wess bench --scenario socket`: single runs and chains of three over the Unix socket of a `wess up`, against a bare
//! axum echo in the same run.
//!
//! A B A B: what disturbs the machine disturbs all, so that the ratios hold where the figures move.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use futures_util::future::try_join_all;
use serde::Serialize;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use wess_schemas::seed::{LoadBinary, SeedRequest};

use super::cases::{Sample, median};
use super::modules::upper;
use super::processes::Process;
use super::report::{Table, sample_row};
use super::stream::{self, Framing, StreamLoad};
use crate::args::{BenchArgs, BenchAxumArgs};
use crate::child;
use crate::exit::Exit;
use crate::fault::Fault;
use crate::output;
use crate::up::find;

/// How many bytes each request carries.
const BYTES: usize = 64;
/// Steps of a chain.
const STEPS: usize = 3;
/// Connections, and requests in flight on each.
const SHAPES: [(usize, usize); 3] = [(50, 1), (4, 64), (1, 128)];

/// Everything that one run measured.
#[derive(Debug, Serialize)]
pub struct SocketReport {
    /// Processor cores of this machine.
    pub cores: usize,
    /// Each case.
    pub cases: Vec<SocketCase>,
}

/// One kind of request, in one shape.
#[derive(Debug, Clone, Serialize)]
pub struct SocketCase {
    /// Who answers, and what.
    pub what: &'static str,
    /// How many connections.
    pub connections: usize,
    /// Requests in flight on each.
    pub in_flight: usize,
    /// What it did.
    pub sample: Sample,
    /// Its rate as a part of the axum echo's on as many connections as that has: the median of the rounds' ratios.
    pub ratio: f64,
}

/// `wess bench-axum`, which [`measure`] starts.
pub async fn axum(args: BenchAxumArgs) -> anyhow::Result<()> {
    let listener = tokio::net::TcpListener::bind(args.listen).await?;
    output::text(&format!("ready http={}", listener.local_addr()?))?;
    Ok(wess_gateway::bare::serve(listener).await?)
}

/// What is measured: its processes, all in one temporary folder.
struct Rig {
    axum: Process,
    up: Process,
    socket: PathBuf,
    id: String,
    folder: TempDir,
}

impl Rig {
    async fn start(args: &BenchArgs) -> anyhow::Result<Self> {
        let folder = TempDir::with_prefix("wess-bench-").context("a temporary folder is needed")?;
        let binary = std::env::current_exe()?;
        let mut axum = child::command(&binary)?;
        axum.args(["bench-axum", "127.0.0.1:0"]);
        let axum = Process::start(axum, &folder.path().join("axum.log")).await?;
        let socket = folder.path().join("socket");
        let mut up = child::command(&binary)?;
        up.args(["up", "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        up.arg("--socket")
            .arg(&socket)
            .arg("--data")
            .arg(folder.path().join("data"));
        up.args(["--nats-listen", "127.0.0.1:0", "--nats-server"])
            .arg(find(args.nats_server.as_deref())?);
        if let Some(executors) = args.executors {
            up.args(["--executors", &executors.to_string()]);
        }
        let up = Process::start(up, &folder.path().join("up.log")).await?;
        let id = load(&socket, folder.path()).await?;
        Ok(Self {
            axum,
            up,
            socket,
            id,
            folder,
        })
    }

    async fn stop(self) -> anyhow::Result<()> {
        self.up.stop().await?;
        drop(self.axum);
        Ok(self.folder.close()?)
    }

    fn line(&self, kind: &str, mut payload: Value) -> Bytes {
        payload["input"] = String::from_utf8_lossy(&letters()).into();
        Bytes::from(json!({"type": kind, "payload": payload}).to_string() + "\n")
    }
}

/// Loads the benchmark's guest by way of the socket; its id.
async fn load(socket: &Path, folder: &Path) -> anyhow::Result<String> {
    let file = folder.join("upper.wasm");
    tokio::fs::write(&file, upper(0)?).await?;
    let path = file
        .into_os_string()
        .into_string()
        .ok()
        .context("the temporary folder is no text")?;
    let mut line = serde_json::to_vec(&SeedRequest::LoadBinary(LoadBinary { path }))?;
    line.push(b'\n');
    let mut stream = BufReader::new(UnixStream::connect(socket).await?);
    stream.write_all(&line).await?;
    let mut reply = String::new();
    stream.read_line(&mut reply).await?;
    let reply: Value = serde_json::from_str(&reply)?;
    let id = reply["data"]["binary_id"].as_str();
    Ok(id
        .with_context(|| format!("the guest was not loaded: {reply}"))?
        .into())
}

fn letters() -> Vec<u8> {
    (b'a'..=b'z').cycle().take(BYTES).collect()
}

/// Who answers a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Axum,
    Execute,
    Chain,
}

impl Who {
    fn name(self) -> &'static str {
        match self {
            Self::Axum => "axum echo",
            Self::Execute => "Execute",
            Self::Chain => "ExecuteChain of three",
        }
    }
}

/// Every case; the first is the measure of the others.
fn cases() -> Vec<(Who, (usize, usize))> {
    let of = |who| SHAPES.map(|shape| (who, shape));
    [
        vec![(Who::Axum, SHAPES[0])],
        of(Who::Execute).into(),
        of(Who::Chain).into(),
    ]
    .concat()
}

/// How many measurements there are in a round.
pub fn count() -> u64 {
    cases().len() as u64
}

/// Measures every case in every round; `done` is called after each.
pub async fn measure(args: &BenchArgs, mut done: impl FnMut()) -> anyhow::Result<SocketReport> {
    if args.nats.is_some() {
        let text = "--scenario socket measures within one process, and starts a nats-server of its own: --nats is for calls";
        return Err(Fault::local(Exit::Config, text).into());
    }
    let rig = Rig::start(args).await?;
    let cases = cases();
    let each = Duration::from_secs(args.seconds) / u32::try_from(args.rounds * count())?;
    let mut samples = vec![Vec::new(); cases.len()];
    for _ in 0..args.rounds {
        for ((who, shape), samples) in cases.iter().zip(&mut samples) {
            samples.push(sample(&rig, *who, *shape, each).await?);
            done();
        }
    }
    rig.stop().await?;
    let axum = samples[0].clone();
    let case = |((who, shape), samples): (&(Who, (usize, usize)), &Vec<Sample>)| {
        let ratios = samples
            .iter()
            .zip(&axum)
            .map(|(one, axum)| one.calls_per_s / axum.calls_per_s);
        SocketCase {
            what: who.name(),
            connections: shape.0,
            in_flight: shape.1,
            sample: Sample::median(samples),
            ratio: median(ratios),
        }
    };
    Ok(SocketReport {
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        cases: cases.iter().zip(&samples).map(case).collect(),
    })
}

async fn sample(
    rig: &Rig,
    who: Who,
    (connections, in_flight): (usize, usize),
    duration: Duration,
) -> anyhow::Result<Sample> {
    let load = |request, framing, expected| StreamLoad {
        request,
        framing,
        expected,
        in_flight,
        duration,
    };
    if who == Who::Axum {
        let address: SocketAddr = rig.axum.value("http")?.parse()?;
        let mut streams = stream::connect(address, connections).await?;
        let head = format!("POST / HTTP/1.1\r\nHost: {address}\r\nContent-Length: {BYTES}\r\n\r\n");
        let request = [head.as_bytes(), &letters()].concat().into();
        let load = load(request, Framing::Http, letters().into());
        return stream::sample(&mut streams, &load, &[rig.axum.pid()]).await;
    }
    let mut streams = try_join_all((0..connections).map(|_| UnixStream::connect(&rig.socket))).await?;
    let request = match who {
        Who::Chain => rig.line("ExecuteChain", json!({"binary_ids": vec![&rig.id; STEPS]})),
        Who::Axum | Who::Execute => rig.line("Execute", json!({"binary_id": rig.id})),
    };
    let output = String::from_utf8_lossy(&letters()).to_uppercase();
    let expected = format!("{{\"success\":true,\"data\":{{\"return_code\":0,\"output\":\"{output}\"").into();
    let load = load(request, Framing::Lines, expected);
    stream::sample(&mut streams, &load, &[rig.up.pid()]).await
}

impl Table<9> for SocketReport {
    const COLUMNS: [&str; 9] = [
        "what",
        "connections",
        "in flight on each",
        "answers/s",
        "of axum",
        "p50 µs",
        "p99 µs",
        "CPU µs: responder",
        "generator",
    ];

    fn rows(&self) -> Vec<[String; 9]> {
        let row = |case: &SocketCase| {
            let [rate, p50, p99, _, responder, generator] = sample_row(&case.sample);
            [
                case.what.into(),
                case.connections.to_string(),
                case.in_flight.to_string(),
                rate,
                format!("{:.2}", case.ratio),
                p50,
                p99,
                responder,
                generator,
            ]
        };
        self.cases.iter().map(row).collect()
    }
}
