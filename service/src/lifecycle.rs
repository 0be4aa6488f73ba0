//! A process's life: start, run until told to stop or something breaks, drain, close, exit with a code.
//!
//! Every task is tracked and joined. A task that panics, or ends before it was asked to, stops the process with a
//! failure: nothing runs on half alive.

use std::fmt;
use std::future::Future;
use std::io::{self, Write};
use std::panic::AssertUnwindSafe;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::ConfigError;
use crate::health::{Health, Phase};

/// How long tasks may take to end once their grace was cut: they only have to notice.
const CUT_LIMIT: Duration = Duration::from_secs(2);

/// Exit codes, those of `sysexits.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exit {
    /// Stopped as asked, all work finished or handed back.
    Done = 0,
    /// The configuration or the data folder is wrong: a restart will not help.
    Config = 64,
    /// Something that it needs at start is away: a restart may help.
    Unavailable = 69,
    /// It broke, or ended without being asked to.
    Internal = 70,
    /// Stopped as asked, but its grace was cut and work was abandoned.
    Cut = 75,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a process could not start: the error, and the exit code that it means.
#[derive(Debug)]
pub struct Failure {
    /// The code to exit with.
    pub exit: Exit,
    /// What happened.
    pub error: Box<dyn std::error::Error + Send + Sync>,
}

impl Failure {
    /// The configuration or the data folder is wrong.
    pub fn config(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self {
            exit: Exit::Config,
            error: error.into(),
        }
    }

    /// Something needed is away.
    pub fn unavailable(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self {
            exit: Exit::Unavailable,
            error: error.into(),
        }
    }

    /// A fault of ours.
    pub fn internal(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self {
            exit: Exit::Internal,
            error: error.into(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.error)?;
        std::iter::successors(self.error.source(), |error| error.source())
            .try_for_each(|cause| write!(f, ": {cause}"))
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::config(error)
    }
}

impl From<crate::nats::ConnectFailed> for Failure {
    fn from(error: crate::nats::ConnectFailed) -> Self {
        Self::unavailable(error)
    }
}

impl From<crate::assets::AssetError> for Failure {
    fn from(error: crate::assets::AssetError) -> Self {
        Self::unavailable(error)
    }
}

/// SIGTERM and SIGINT, caught from the moment this is made.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Takes both signals away from their default, which is to kill the process.
    pub fn install() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Shared by all tasks of one process. Cheap to clone.
///
/// Three tokens are cancelled one after the other: `shutdown` (take nothing new, finish), `cut` (abandon what is
/// left, only if grace ends), `closed` (all work is over: the admin server may go).
#[derive(Debug, Clone, Default)]
pub struct Lifecycle {
    /// Cancelled when the process shall take nothing new and finish.
    pub shutdown: CancellationToken,
    /// Cancelled when what is still running shall be abandoned.
    pub cut: CancellationToken,
    /// Cancelled when all work is over.
    pub closed: CancellationToken,
    /// What `/readyz` says.
    pub health: Health,
    tasks: TaskTracker,
    background: TaskTracker,
    verdict: Arc<Mutex<Option<Exit>>>,
}

impl Lifecycle {
    /// Spawns a task that must run until `shutdown`: ending earlier, or panicking at any time, stops the process.
    pub fn spawn<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.tasks.spawn(self.essential(name, task));
    }

    /// Spawns a task that may end when it is done; only a panic stops the process.
    pub fn spawn_brief<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.tasks.spawn(self.brief(name, task));
    }

    /// Spawns a task that runs until `closed`, so that it can still tell of the drain. It holds no work.
    pub fn spawn_background<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (lifecycle, closed) = (self.clone(), self.closed.clone());
        self.background
            .spawn(async move { lifecycle.judge(name, &closed, task).await });
    }

    /// As [`Lifecycle::spawn`], for a runtime of the caller's: the drain waits until the future has ended.
    pub fn essential<F: Future<Output = ()>>(
        &self,
        name: &'static str,
        task: F,
    ) -> impl Future<Output = ()> + use<F> {
        let lifecycle = self.clone();
        self.tasks
            .track_future(async move { lifecycle.judge(name, &lifecycle.shutdown, task).await })
    }

    /// As [`Lifecycle::spawn_brief`], for a runtime of the caller's.
    pub fn brief<F: Future<Output = ()>>(
        &self,
        name: &'static str,
        task: F,
    ) -> impl Future<Output = ()> + use<F> {
        let lifecycle = self.clone();
        self.tasks.track_future(async move {
            if AssertUnwindSafe(task).catch_unwind().await.is_err() {
                lifecycle.fail(name, "panicked");
            }
        })
    }

    /// Asks the process to stop, for a reason that is no fault.
    pub fn stop(&self) {
        self.settle(Exit::Done);
    }

    /// Stops the process because `name` cannot go on.
    pub fn fail(&self, name: &'static str, reason: impl fmt::Display) {
        tracing::error!(task = name, %reason, "a task failed: stopping");
        self.settle(Exit::Internal);
    }

    /// Says that the process takes work: on `/readyz`, then by the line `ready key=value…` on stdout.
    ///
    /// Whoever starts processes waits for that line and reads addresses from it, above all those of port 0.
    pub fn announce(&self, facts: &[(&str, &dyn fmt::Display)]) -> io::Result<()> {
        self.health.enter(Phase::Ready);
        let pairs = facts
            .iter()
            .map(|(key, value)| format!(" {key}={value}"))
            .collect::<String>();
        let mut stdout = io::stdout().lock();
        writeln!(stdout, "ready{pairs}")?;
        stdout.flush()
    }

    /// Starts the process, runs it until it is told to stop or something fails, and drains it.
    ///
    /// `start` ends by [`Lifecycle::announce`] and gives what must live as long as the process: it is dropped after
    /// the drain, before the admin server goes. Work that is not over after `grace`, or at a second signal, is abandoned.
    pub async fn run<T>(
        &self,
        mut signals: Signals,
        grace: Duration,
        start: impl Future<Output = Result<T, Failure>>,
    ) -> Exit {
        let mut started = None;
        tokio::select! {
            signal = signals.next() => self.stop_by(signal),
            () = self.shutdown.cancelled() => (),
            result = start => match result {
                Ok(process) => started = Some(process),
                Err(failure) => self.fail_to_start(&failure),
            },
        }
        tokio::select! {
            () = self.shutdown.cancelled() => (),
            signal = signals.next() => self.stop_by(signal),
        }
        self.drain(&mut signals, grace).await;
        drop(started);
        self.close().await;
        self.exit()
    }

    async fn drain(&self, signals: &mut Signals, grace: Duration) {
        self.health.enter(Phase::Draining);
        self.tasks.close();
        tokio::select! {
            biased;
            () = self.tasks.wait() => return,
            () = tokio::time::sleep(grace) => tracing::warn!(tasks = self.tasks.len(), "grace is over: abandoning work"),
            signal = signals.next() => tracing::warn!(signal, tasks = self.tasks.len(), "grace is cut: abandoning work"),
        }
        self.settle(Exit::Cut);
        self.cut.cancel();
        if tokio::time::timeout(CUT_LIMIT, self.tasks.wait()).await.is_err() {
            tracing::error!(tasks = self.tasks.len(), "tasks did not end when they were cut");
        }
    }

    async fn close(&self) {
        self.closed.cancel();
        self.background.close();
        if tokio::time::timeout(CUT_LIMIT, self.background.wait())
            .await
            .is_err()
        {
            tracing::error!("background tasks did not end");
        }
    }

    fn stop_by(&self, signal: &'static str) {
        tracing::info!(signal, "stopping");
        self.stop();
    }

    fn fail_to_start(&self, failure: &Failure) {
        tracing::error!(error = %failure, "cannot start");
        self.settle(failure.exit);
    }

    async fn judge(&self, name: &'static str, end: &CancellationToken, task: impl Future<Output = ()>) {
        let ending = AssertUnwindSafe(task).catch_unwind().await;
        match ending {
            Err(_) => self.fail(name, "panicked"),
            Ok(()) if !end.is_cancelled() => self.fail(name, "ended without being asked to"),
            Ok(()) => (),
        }
    }

    /// The first fault wins; a fault outweighs a stop that was asked for.
    fn settle(&self, exit: Exit) {
        let mut verdict = self.verdict.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*verdict, None | Some(Exit::Done)) {
            *verdict = Some(exit);
        }
        drop(verdict);
        self.shutdown.cancel();
    }

    fn exit(&self) -> Exit {
        self.verdict
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .unwrap_or(Exit::Internal)
    }
}

#[cfg(test)]
mod tests;
