//! What a run measures with: a nats-server, an echo and a worker, each a process, all in one temporary folder.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use async_nats::{Client, Subject};
use bytes::Bytes;
use tempfile::TempDir;
use tokio::process::Command;
use wess_schemas::settings::SettingsChange;
use wess_schemas::subject::{
    CALLS_STREAM, DEAD_STREAM, Endpoint, JOBS_STREAM, Prefix, Subjects, TIMERS_STREAM,
};
use wess_schemas::{ModuleName, Reference};

use super::processes::Process;
use crate::args::BenchArgs;
use crate::child;
use crate::exit::Exit;
use crate::fault::Fault;
use crate::transport::{NewModule, over};
use crate::up::{NatsServer, Settings, find};

/// Where the echo listens.
pub const ECHO: &str = "wess-bench.echo";

/// All processes of a run. Whatever is still running when it is dropped is killed.
pub struct Rig {
    server: Option<NatsServer>,
    url: String,
    prefix: Prefix,
    executors: Option<u16>,
    /// The bare responder.
    pub echo: Process,
    /// Ours.
    pub worker: Process,
    /// Last, so that it goes after those who write into it.
    folder: TempDir,
}

impl Rig {
    /// Starts everything.
    pub async fn start(args: &BenchArgs) -> anyhow::Result<Self> {
        Self::start_with(args, args.executors).await
    }

    /// The same, with a worker of so many executors.
    pub async fn start_with(args: &BenchArgs, executors: Option<u16>) -> anyhow::Result<Self> {
        let folder = TempDir::with_prefix("wess-bench-").context("a temporary folder is needed")?;
        let server = match args.nats {
            Some(_) => None,
            None => Some(start_server(args.nats_server.as_deref(), folder.path()).await?),
        };
        let url = args
            .nats
            .clone()
            .or_else(|| server.as_ref().map(NatsServer::url))
            .unwrap_or_default();
        // Workers that are there already must not answer for ours.
        let prefix: Prefix = format!("wess-bench-{}", std::process::id()).parse()?;
        let echo = Process::start(echo(&url)?, &folder.path().join("echo.log")).await?;
        let worker = start_worker(folder.path(), &url, &prefix, executors).await?;
        Ok(Self {
            folder,
            server,
            url,
            prefix,
            executors,
            echo,
            worker,
        })
    }

    /// Whether the server is ours, so that what we leave in it goes with it.
    pub fn owns_server(&self) -> bool {
        self.server.is_some()
    }

    /// The server's process, when it is ours.
    pub fn nats_pid(&self) -> Option<u32> {
        self.server.as_ref().map(NatsServer::pid)
    }

    /// Where the server is.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where everything of the run is.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What stands before the subjects.
    pub fn prefix(&self) -> String {
        self.prefix.to_string()
    }

    /// What the worker listens on.
    pub fn subjects(&self) -> Subjects {
        Subjects::new(self.prefix.clone())
    }

    /// Stores a module; where it takes raw input.
    pub async fn store(
        &self,
        client: &Client,
        name: &str,
        wasm: Bytes,
        terms: SettingsChange,
    ) -> anyhow::Result<Subject> {
        store(client, self.subjects(), name, wasm, terms).await
    }

    /// A connection as bare as the echo's.
    pub async fn connect(&self) -> anyhow::Result<Client> {
        async_nats::connect(&self.url)
            .await
            .with_context(|| format!("cannot connect to {}", self.url))
    }

    /// Stops the worker and starts it again on the same folder; how long it took until it was ready.
    pub async fn restart_worker(self) -> anyhow::Result<(Self, Duration)> {
        self.worker.stop().await?;
        let starting = Instant::now();
        let worker = start_worker(self.folder.path(), &self.url, &self.prefix, self.executors).await?;
        Ok((Self { worker, ..self }, starting.elapsed()))
    }

    /// Stops everything in order.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.worker.stop().await?;
        drop(self.echo);
        match self.server {
            Some(server) => server.stop().await,
            None => delete_streams(&self.url, &Subjects::new(self.prefix)).await?,
        }
        Ok(self.folder.close()?)
    }
}

/// Refuses a scenario that leaves more in a server than it takes away.
pub fn needs_own_server(args: &BenchArgs, scenario: &str) -> anyhow::Result<()> {
    if args.nats.is_some() {
        let text = format!("--scenario {scenario} starts a nats-server of its own: --nats is for calls");
        return Err(Fault::local(Exit::Config, text).into());
    }
    Ok(())
}

/// Stores a module with the workers of these subjects; where it takes raw input.
pub async fn store(
    client: &Client,
    subjects: Subjects,
    name: &str,
    wasm: Bytes,
    terms: SettingsChange,
) -> anyhow::Result<Subject> {
    let name: ModuleName = name.parse()?;
    let endpoint = Endpoint::InvokeRaw(Reference::Latest(name.clone()), None);
    let subject = subjects.endpoint(&endpoint);
    let module = NewModule { name, wasm, terms };
    over(client.clone(), subjects).store(module).await?;
    Ok(subject.into())
}

/// Of what the worker made in a server that is not ours, its queue is its own.
async fn delete_streams(url: &str, subjects: &Subjects) -> anyhow::Result<()> {
    let jetstream = async_nats::jetstream::new(async_nats::connect(url).await?);
    for stream in [JOBS_STREAM, CALLS_STREAM, TIMERS_STREAM, DEAD_STREAM] {
        jetstream.delete_stream(subjects.stream(stream)).await?;
    }
    Ok(())
}

async fn start_server(named: Option<&Path>, folder: &Path) -> anyhow::Result<NatsServer> {
    let listen = ([127, 0, 0, 1], 0).into();
    Ok(NatsServer::start(Settings {
        binary: find(named)?,
        folder: folder.join("nats"),
        listen,
    })
    .await?)
}

fn echo(url: &str) -> anyhow::Result<Command> {
    let mut command = child::command(&std::env::current_exe()?)?;
    command.args(["bench-echo", url, ECHO]);
    Ok(command)
}

/// Starts a worker of these subjects, with its data and log in this folder.
pub async fn start_worker(
    folder: &Path,
    url: &str,
    prefix: &Prefix,
    executors: Option<u16>,
) -> anyhow::Result<Process> {
    let binary = std::env::current_exe()?.with_file_name("wess-worker");
    ensure!(
        binary.is_file(),
        "there is no {}, which is what is measured",
        binary.display()
    );
    let mut command = child::command(&binary)?;
    command.args([
        "--nats",
        url,
        "--prefix",
        &prefix.to_string(),
        "--admin",
        "127.0.0.1:0",
    ]);
    command.arg("--data").arg(folder.join("worker"));
    if let Some(executors) = executors {
        command.args(["--executors", &executors.to_string()]);
    }
    Process::start(command, &folder.join("worker.log")).await
}
