//! `wess bench --scenario http`: one component that serves HTTP, a fresh instance for each request, by Wess in one process
//! and through NATS, and by `wasmtime serve`; beside a bare axum echo.
//!
//! A B A B: what disturbs the machine disturbs all, so that the ratios hold where the figures move.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use serde::Serialize;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};
use tokio::time::timeout;
use wess_schemas::ModuleName;
use wess_schemas::subject::Subjects;

use super::cases::{Sample, median};
use super::processes::Process;
use super::report::{Table, sample_row};
use super::rig::Rig;
use super::stream::{self, Framing, StreamLoad};
use crate::args::BenchArgs;
use crate::child;
use crate::exit::Exit;
use crate::fault::Fault;
use crate::transport::{NewModule, over};
use crate::up::find;

/// What is served: `guests/languages/c/hello.c`.
const COMPONENT: &[u8] = include_bytes!("../../../guests/languages/built/c/hello.wasm");
/// What it answers to everything.
const GREETING: &[u8] = b"hello from ";
const CONNECTIONS: usize = 50;
/// How long `wasmtime serve` may take to compile the component and listen.
const START_LIMIT: Duration = Duration::from_secs(60);
/// What makes fresh instances cheapest there: pooled, with as much kept as a slot of ours keeps.
const BEST: &str = "pooling-allocator=y,pooling-memory-keep-resident=2097152,pooling-table-keep-resident=65536,pooling-async-stack-keep-resident=65536,pooling-pagemap-scan=auto";

/// Everything that one run measured.
#[derive(Debug, Serialize)]
pub struct HttpReport {
    /// Processor cores of this machine.
    pub cores: usize,
    /// Each server.
    pub cases: Vec<HttpCase>,
}

/// One server.
#[derive(Debug, Clone, Serialize)]
pub struct HttpCase {
    /// Who serves.
    pub what: &'static str,
    /// What it did.
    pub sample: Sample,
    /// Its rate as a multiple of that of `wasmtime serve` as it comes: the median of the rounds' ratios.
    pub of_serve: f64,
    /// The same of `wasmtime serve` at its best.
    pub of_best: f64,
    /// The same of the bare axum echo.
    pub of_axum: f64,
}

/// A server among those that are measured.
struct Server {
    what: &'static str,
    address: SocketAddr,
    request: Bytes,
    expected: Bytes,
    /// Processes whose time it costs.
    pids: Vec<u32>,
}

impl Server {
    fn component(what: &'static str, address: SocketAddr, path: &str, pids: Vec<u32>) -> Self {
        Self {
            what,
            address,
            request: format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").into(),
            expected: Bytes::from_static(GREETING),
            pids,
        }
    }
}

/// What is measured: its processes, all in one temporary folder.
struct Field {
    servers: Vec<Server>,
    up: Process,
    gateway: Process,
    rig: Rig,
    /// Killed when they are dropped.
    _others: (Process, [Wasmtime; 2]),
    folder: TempDir,
}

impl Field {
    async fn start(args: &BenchArgs) -> anyhow::Result<Self> {
        let folder = TempDir::with_prefix("wess-bench-").context("a temporary folder is needed")?;
        let binary = std::env::current_exe()?;
        let mut axum = child::command(&binary)?;
        axum.args(["bench-axum", "127.0.0.1:0"]);
        let axum = Process::start(axum, &folder.path().join("axum.log")).await?;
        let file = folder.path().join("hello.wasm");
        tokio::fs::write(&file, COMPONENT).await?;
        let serve = wasmtime(args, &file, &[]).await?;
        let best = wasmtime(args, &file, &["-O", BEST]).await?;

        let up = up(args, folder.path()).await?;
        store(up.value("nats")?, Subjects::default()).await?;
        let rig = Rig::start(args).await?;
        store(rig.url(), rig.subjects()).await?;
        let gateway = gateway(&rig, folder.path()).await?;

        let address = |process: &Process| -> anyhow::Result<SocketAddr> {
            let http = process.value("http")?;
            Ok(http.trim_start_matches("http://").parse()?)
        };
        let echo = Server {
            request: format!(
                "POST / HTTP/1.1\r\nHost: bench\r\nContent-Length: {}\r\n\r\n",
                GREETING.len()
            )
            .into_bytes()
            .into_iter()
            .chain(GREETING.iter().copied())
            .collect(),
            ..Server::component("axum echo", address(&axum)?, "/", vec![axum.pid()])
        };
        let through = [Some(rig.worker.pid()), Some(gateway.pid()), rig.nats_pid()];
        let path = format!("/v1/http/{NAME}/");
        let servers = vec![
            Server::component("wasmtime serve", serve.address, "/", serve.pids()),
            Server::component("wasmtime serve, best flags", best.address, "/", best.pids()),
            echo,
            Server::component("wess up", address(&up)?, &path, vec![up.pid()]),
            Server::component(
                "gateway, NATS, worker",
                address(&gateway)?,
                &path,
                through.into_iter().flatten().collect(),
            ),
        ];
        Ok(Self {
            servers,
            up,
            gateway,
            rig,
            _others: (axum, [serve, best]),
            folder,
        })
    }

    async fn stop(self) -> anyhow::Result<()> {
        self.gateway.stop().await?;
        self.up.stop().await?;
        self.rig.stop().await?;
        drop(self._others);
        Ok(self.folder.close()?)
    }
}

/// What the component is called.
const NAME: &str = "wess-bench-hello";

async fn store(url: &str, subjects: Subjects) -> anyhow::Result<()> {
    let client = async_nats::connect(url).await?;
    let name: ModuleName = NAME.parse()?;
    let module = NewModule {
        name,
        wasm: Bytes::from_static(COMPONENT),
        terms: Default::default(),
    };
    over(client, subjects).store(module).await?;
    Ok(())
}

async fn up(args: &BenchArgs, folder: &Path) -> anyhow::Result<Process> {
    let mut up = child::command(&std::env::current_exe()?)?;
    up.args(["up", "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    up.arg("--data").arg(folder.join("data"));
    up.args(["--nats-listen", "127.0.0.1:0", "--nats-server"])
        .arg(find(args.nats_server.as_deref())?);
    if let Some(executors) = args.executors {
        up.args(["--executors", &executors.to_string()]);
    }
    Process::start(up, &folder.join("up.log")).await
}

async fn gateway(rig: &Rig, folder: &Path) -> anyhow::Result<Process> {
    let binary = std::env::current_exe()?.with_file_name("wess-gateway");
    ensure!(
        binary.is_file(),
        "there is no {}, which is what is measured",
        binary.display()
    );
    let mut gateway = child::command(&binary)?;
    gateway.args(["--nats", rig.url(), "--prefix", &rig.prefix()]);
    gateway.args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    Process::start(gateway, &folder.join("gateway.log")).await
}

/// Starts `wasmtime serve` and waits until it says where it listens.
async fn wasmtime(args: &BenchArgs, file: &Path, flags: &[&str]) -> anyhow::Result<Wasmtime> {
    let missing = || {
        Fault::local(
            Exit::Config,
            "--scenario http needs Wasmtime's command line: --wasmtime FILE",
        )
    };
    let binary = args.wasmtime.as_ref().ok_or_else(missing)?;
    let mut command: Command = child::command(binary)?;
    command
        .args(["serve", "--addr", "127.0.0.1:0"])
        .args(flags)
        .arg(file)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = command.spawn().context("cannot start wasmtime")?;
    let stderr = child.stderr.take().context("stderr is piped")?;
    let mut lines = BufReader::new(stderr).lines();
    let listening = async {
        while let Some(line) = lines.next_line().await? {
            if let Some((_, url)) = line.split_once("http://") {
                return Ok(url.trim_end_matches('/').parse()?);
            }
        }
        anyhow::bail!("wasmtime serve ended")
    };
    let address = timeout(START_LIMIT, listening)
        .await
        .context("wasmtime serve does not listen")??;
    Ok(Wasmtime {
        child,
        address,
        _stderr: lines,
    })
}

/// `wasmtime serve`. Killed when it is dropped.
struct Wasmtime {
    child: Child,
    address: SocketAddr,
    /// Held open, or its next line would end it. This guest says nothing, so that it does not fill.
    _stderr: Lines<BufReader<ChildStderr>>,
}

impl Wasmtime {
    fn pids(&self) -> Vec<u32> {
        self.child.id().into_iter().collect()
    }
}

/// How many measurements there are in a round.
pub const COUNT: u64 = 5;

/// Measures every server in every round; `done` is called after each.
pub async fn measure(args: &BenchArgs, mut done: impl FnMut()) -> anyhow::Result<HttpReport> {
    if args.nats.is_some() {
        let text = "--scenario http starts nats-servers of its own: --nats is for calls";
        return Err(Fault::local(Exit::Config, text).into());
    }
    let field = Field::start(args).await?;
    let each = Duration::from_secs(args.seconds) / u32::try_from(args.rounds * COUNT)?;
    let mut samples = vec![Vec::new(); field.servers.len()];
    for _ in 0..args.rounds {
        for (server, samples) in field.servers.iter().zip(&mut samples) {
            let sample = sample(server, each).await;
            samples.push(sample.with_context(|| format!("{} failed", server.what))?);
            done();
        }
    }
    let [serve, best, axum] = [0, 1, 2].map(|at: usize| samples[at].clone());
    let case = |(server, samples): (&Server, &Vec<Sample>)| {
        let of = |measure: &[Sample]| {
            let pairs = samples.iter().zip(measure);
            median(pairs.map(|(one, measure)| one.calls_per_s / measure.calls_per_s))
        };
        HttpCase {
            what: server.what,
            sample: Sample::median(samples),
            of_serve: of(&serve),
            of_best: of(&best),
            of_axum: of(&axum),
        }
    };
    let report = HttpReport {
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        cases: field.servers.iter().zip(&samples).map(case).collect(),
    };
    field.stop().await?;
    Ok(report)
}

async fn sample(server: &Server, duration: Duration) -> anyhow::Result<Sample> {
    let mut streams = stream::connect(server.address, CONNECTIONS).await?;
    let load = StreamLoad {
        request: server.request.clone(),
        framing: Framing::Http,
        expected: server.expected.clone(),
        in_flight: 1,
        duration,
    };
    stream::sample(&mut streams, &load, &server.pids).await
}

impl Table<9> for HttpReport {
    const COLUMNS: [&str; 9] = [
        "what",
        "answers/s",
        "of serve",
        "of its best",
        "of axum",
        "p50 µs",
        "p99 µs",
        "CPU µs: responder",
        "generator",
    ];

    fn rows(&self) -> Vec<[String; 9]> {
        let row = |case: &HttpCase| {
            let [rate, p50, p99, _, responder, generator] = sample_row(&case.sample);
            let ratio = |ratio: f64| format!("{ratio:.2}");
            [
                case.what.into(),
                rate,
                ratio(case.of_serve),
                ratio(case.of_best),
                ratio(case.of_axum),
                p50,
                p99,
                responder,
                generator,
            ]
        };
        self.cases.iter().map(row).collect()
    }
}
