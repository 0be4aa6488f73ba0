//! The processes that are measured: started with a clean environment, read for their `ready` line, stopped by id.

use std::fs::File;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use rustix::process::Signal;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use crate::child::signal;

/// How long one may take to be ready.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How long one may take to stop.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// A process that said that it is ready. Killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    ready: String,
    /// Held open, or its next line would end it.
    _stdout: BufReader<ChildStdout>,
}

impl Process {
    /// Starts one; what it logs goes to `log`. A shell's `RUST_BACKTRACE` or `WESS_…` would be measured as well.
    pub async fn start(mut command: Command, log: &Path) -> anyhow::Result<Self> {
        command
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(log)?);
        let mut child = command.spawn().context("cannot start a process")?;
        let mut stdout = BufReader::new(child.stdout.take().context("stdout is piped")?);
        let mut ready = String::new();
        let read = timeout(START_LIMIT, stdout.read_line(&mut ready)).await;
        if !matches!(read, Ok(Ok(_))) || !ready.starts_with("ready") {
            bail!(
                "a process did not get ready: {}",
                std::fs::read_to_string(log)?.trim()
            );
        }
        Ok(Self {
            child,
            ready,
            _stdout: stdout,
        })
    }

    /// Its id.
    pub fn pid(&self) -> u32 {
        self.child.id().unwrap_or_default()
    }

    /// The value of `key=…` in its ready line.
    pub fn value(&self, key: &str) -> anyhow::Result<&str> {
        let mut pairs = self
            .ready
            .split_whitespace()
            .filter_map(|word| word.split_once('='));
        pairs
            .find_map(|(found, value)| (found == key).then_some(value))
            .with_context(|| format!("no {key} in {}", self.ready))
    }

    /// Asks it to stop and waits for it.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        signal(self.pid(), Signal::TERM);
        let status = timeout(STOP_LIMIT, self.child.wait())
            .await
            .context("a process does not stop")??;
        ensure!(status.success(), "a process stopped with {status}");
        Ok(())
    }
}
