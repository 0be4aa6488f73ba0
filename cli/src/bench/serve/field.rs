//! Whom `--scenario http` asks: every server with its request and the answer that it must give, and their processes.
//!
//! The echo behind a gateway has a prefix and a gateway of its own, where it beats as a worker would.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, ensure};
use bytes::Bytes;
use tempfile::TempDir;
use wess_schemas::subject::{Endpoint, Prefix, Subjects};

use super::super::modules;
use super::super::processes::Process;
use super::super::rig::Rig;
use super::rival::{Flags, Wasmtime};
use crate::args::{BenchArgs, Peer, Place};
use crate::child;
use crate::exit::Exit;
use crate::fault::Fault;
use crate::transport::over;
use crate::up::find;

/// What is served: `guests/languages/c/hello.c`.
const COMPONENT: &[u8] = include_bytes!("../../../../guests/languages/built/c/hello.wasm");
/// What it answers to everything; what an echo and the plugin are sent.
const GREETING: &[u8] = b"hello from ";
/// What the component is called.
const HELLO: &str = "wess-bench-hello";
/// What the plugin is called, and the echo in its place.
const UPPER: &str = "wess-bench-upper";

/// A server among those that are measured.
pub struct Server {
    /// Who serves, in the report's words.
    pub what: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// One request.
    pub request: Bytes,
    /// What every answer has in it.
    pub expected: Bytes,
    /// Processes whose time it costs; none where they are not ours.
    pub pids: Vec<u32>,
}

impl Server {
    /// The component, which greets.
    fn component(what: &str, address: SocketAddr, path: &str, pids: Vec<u32>) -> Self {
        Self {
            what: what.into(),
            address,
            request: format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").into(),
            expected: Bytes::from_static(GREETING),
            pids,
        }
    }

    /// Somebody who is sent the greeting.
    fn sent(what: &str, address: SocketAddr, path: &str, pids: Vec<u32>) -> Self {
        let length = GREETING.len();
        let head = format!("POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {length}\r\n\r\n");
        Self {
            request: [head.as_bytes(), GREETING].concat().into(),
            ..Self::component(what, address, path, pids)
        }
    }

    /// The plugin, which answers in upper case.
    fn plugin(what: &str, address: SocketAddr, path: &str, pids: Vec<u32>) -> Self {
        Self {
            expected: GREETING.to_ascii_uppercase().into(),
            ..Self::sent(what, address, path, pids)
        }
    }

    async fn peer(peer: &Peer) -> anyhow::Result<Self> {
        let Place::Http { authority, path } = &peer.place else {
            let text = format!("--scenario http asks over HTTP: where is {}?", peer.name);
            return Err(Fault::local(Exit::Config, text).into());
        };
        let mut addresses = tokio::net::lookup_host(authority)
            .await
            .with_context(|| format!("{} is nowhere", peer.name))?;
        let address = addresses
            .next()
            .with_context(|| format!("{} has no address", peer.name))?;
        let pids = peer.pid.into_iter().collect();
        Ok(Self::component(&peer.name, address, path, pids))
    }
}

/// What is measured: its processes, all in temporary folders.
pub struct Field {
    /// Everybody, in the order of [`super::WHO`]; peers come last.
    pub servers: Vec<Server>,
    up: Process,
    gateways: [Process; 2],
    rig: Rig,
    /// Killed when they are dropped.
    _others: ([Process; 2], [Wasmtime; 3]),
    folder: TempDir,
}

impl Field {
    /// Starts everything.
    pub async fn start(args: &BenchArgs) -> anyhow::Result<Self> {
        let folder = TempDir::with_prefix("wess-bench-").context("a temporary folder is needed")?;
        let axum = axum(folder.path()).await?;
        let wasmtimes = wasmtimes(args, folder.path()).await?;
        let up = up(args, folder.path()).await?;
        store(up.value("nats")?, Subjects::default()).await?;
        let rig = Rig::start(args).await?;
        store(rig.url(), rig.subjects()).await?;
        let workers = gateway(rig.url(), &rig.prefix(), &folder.path().join("gateway.log")).await?;
        let (echo, echoes) = echo(&rig, folder.path()).await?;
        let gateways = [workers, echoes];
        let mut servers = servers(&rig, [&axum, &up, &echo], &gateways, &wasmtimes)?;
        for peer in &args.peers {
            servers.push(Server::peer(peer).await?);
        }
        Ok(Self {
            servers,
            up,
            gateways,
            rig,
            _others: ([axum, echo], wasmtimes),
            folder,
        })
    }

    /// Stops everything.
    pub async fn stop(self) -> anyhow::Result<()> {
        for gateway in self.gateways {
            gateway.stop().await?;
        }
        self.up.stop().await?;
        self.rig.stop().await?;
        drop(self._others);
        Ok(self.folder.close()?)
    }
}

fn servers(
    rig: &Rig,
    [axum, up, echo]: [&Process; 3],
    [workers, echoes]: &[Process; 2],
    wasmtimes: &[Wasmtime; 3],
) -> anyhow::Result<Vec<Server>> {
    let address = |process: &Process| -> anyhow::Result<SocketAddr> {
        let http = process.value("http")?;
        Ok(http.trim_start_matches("http://").parse()?)
    };
    let through = |gateway: &Process, responder: &Process| -> Vec<u32> {
        let pids = [Some(responder.pid()), Some(gateway.pid()), rig.nats_pid()];
        pids.into_iter().flatten().collect()
    };
    let [serve, best, reuse] = wasmtimes;
    let hello = format!("/v1/http/{HELLO}/");
    let upper = format!("/v1/modules/{UPPER}/invoke");
    let (up_at, workers_at, echoes_at) = (address(up)?, address(workers)?, address(echoes)?);
    let [a, b, c, d, e, f, g, h, i] = super::WHO;
    Ok(vec![
        Server::component(a, serve.address, "/", serve.pids()),
        Server::component(b, best.address, "/", best.pids()),
        Server::component(c, reuse.address, "/", reuse.pids()),
        Server::sent(d, address(axum)?, "/", vec![axum.pid()]),
        Server::component(e, up_at, &hello, vec![up.pid()]),
        Server::component(f, workers_at, &hello, through(workers, &rig.worker)),
        Server::sent(g, echoes_at, &upper, through(echoes, echo)),
        Server::plugin(h, workers_at, &upper, through(workers, &rig.worker)),
        Server::plugin(i, up_at, &upper, vec![up.pid()]),
    ])
}

async fn store(url: &str, subjects: Subjects) -> anyhow::Result<()> {
    let transport = over(async_nats::connect(url).await?, subjects);
    modules::store(transport.as_ref(), UPPER.parse()?, 0).await?;
    modules::store_wasm(transport.as_ref(), HELLO, Bytes::from_static(COMPONENT)).await
}

async fn axum(folder: &Path) -> anyhow::Result<Process> {
    let mut axum = child::command(&std::env::current_exe()?)?;
    axum.args(["bench-axum", "127.0.0.1:0"]);
    Process::start(axum, &folder.join("axum.log")).await
}

async fn wasmtimes(args: &BenchArgs, folder: &Path) -> anyhow::Result<[Wasmtime; 3]> {
    let file = folder.join("hello.wasm");
    tokio::fs::write(&file, COMPONENT).await?;
    Ok([
        Wasmtime::start(args, &file, Flags::None).await?,
        Wasmtime::start(args, &file, Flags::Best).await?,
        Wasmtime::start(args, &file, Flags::Reuse).await?,
    ])
}

/// An echo in a worker's place, and a gateway that knows of no other.
async fn echo(rig: &Rig, folder: &Path) -> anyhow::Result<(Process, Process)> {
    let prefix: Prefix = format!("{}-echo", rig.prefix()).parse()?;
    let module = Endpoint::InvokeRaw(UPPER.parse()?, None);
    let subject = Subjects::new(prefix.clone()).endpoint(&module);
    let mut echo = child::command(&std::env::current_exe()?)?;
    echo.args(["bench-echo", rig.url(), &subject]);
    echo.args(["--as-worker-of", &prefix.to_string()]);
    let echo = Process::start(echo, &folder.join("echo.log")).await?;
    let log = folder.join("echoes.log");
    let gateway = gateway(rig.url(), &prefix.to_string(), &log).await?;
    Ok((echo, gateway))
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

async fn gateway(url: &str, prefix: &str, log: &Path) -> anyhow::Result<Process> {
    let binary = std::env::current_exe()?.with_file_name("wess-gateway");
    ensure!(
        binary.is_file(),
        "there is no {}, which is what is measured",
        binary.display()
    );
    let mut gateway = child::command(&binary)?;
    gateway.args(["--nats", url, "--prefix", prefix]);
    gateway.args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    Process::start(gateway, log).await
}
