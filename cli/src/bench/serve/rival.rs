//! `wasmtime serve` as a process that is measured: started, read for where it listens, killed when it is dropped.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};
use tokio::time::timeout;

use crate::args::BenchArgs;
use crate::child;
use crate::exit::Exit;
use crate::fault::Fault;

/// How long it may take to compile the component and listen.
const START_LIMIT: Duration = Duration::from_secs(60);
/// What makes fresh instances cheapest there: pooled, with as much kept as a slot of ours keeps.
const BEST: &str = "pooling-allocator=y,pooling-memory-keep-resident=2097152,pooling-table-keep-resident=65536,pooling-async-stack-keep-resident=65536,pooling-pagemap-scan=auto";
/// Requests that an instance serves where instances are reused; state then leaks from one to the next.
const REUSE: &str = "1000";

/// How it is told to serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flags {
    /// Nothing is said.
    None,
    /// A fresh instance for each request, as cheap as can be.
    Best,
    /// The same, but an instance serves many requests, one after the other.
    Reuse,
}

impl Flags {
    fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::None => &[],
            Self::Best => &["-O", BEST],
            Self::Reuse => &["-O", BEST, "--max-instance-reuse-count", REUSE],
        }
    }
}

/// `wasmtime serve`. Killed when it is dropped.
pub struct Wasmtime {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
    /// Held open, or its next line would end it. This guest says nothing, so that it does not fill.
    _stderr: Lines<BufReader<ChildStderr>>,
}

impl Wasmtime {
    /// Starts it with a component and waits until it says where it listens.
    pub async fn start(args: &BenchArgs, file: &Path, flags: Flags) -> anyhow::Result<Self> {
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
            .args(flags.arguments())
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
        Ok(Self {
            child,
            address,
            _stderr: lines,
        })
    }

    /// Its process.
    pub fn pids(&self) -> Vec<u32> {
        self.child.id().into_iter().collect()
    }
}
