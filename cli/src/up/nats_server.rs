//! A nats-server of our own, with JetStream in our data folder: started, watched, started again, stopped.
//!
//! It never outlives this process, not even a killed one: see [`become_nats_server`].

use std::fs;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::args::NatsServerArgs;
use crate::exit::Exit;

/// How long it may take to listen: it reads what JetStream holds first.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How often is looked whether it listens.
const STEP: Duration = Duration::from_millis(10);
/// How long it may take to stop before it is killed.
const STOP_LIMIT: Duration = Duration::from_millis(1500);
/// Pauses before it is started again double up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// One that ran this long had not failed to start: the pauses begin anew.
const SETTLED: Duration = Duration::from_secs(30);
/// After so many failures in a row there is no use in another try.
const MOST_FAILURES: u32 = 8;
/// How much of its log may be kept.
const LOG_BYTES: u64 = 16 * 1024 * 1024;

/// What to start.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Which binary.
    pub binary: PathBuf,
    /// Where it keeps everything.
    pub folder: PathBuf,
    /// Where clients connect; port 0 takes a free one, and keeps it.
    pub listen: SocketAddr,
}

/// It did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartFailed {
    /// Its folder or configuration cannot be made.
    #[error("cannot make the folder of the nats-server, {}", folder.display())]
    Folder {
        /// Which folder.
        folder: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// No process could be made.
    #[error("cannot start the nats-server")]
    Spawn(#[source] std::io::Error),
    /// It ended by itself.
    #[error("the nats-server ended at its start: {fault}")]
    Ended {
        /// What it logged last, or its status.
        fault: String,
    },
    /// It runs and does not listen.
    #[error("the nats-server did not listen within {START_LIMIT:?}")]
    Silent,
}

/// A running nats-server. Killed when dropped.
#[derive(Debug)]
pub struct NatsServer {
    settings: Settings,
    child: Child,
    started: Instant,
}

impl NatsServer {
    /// Starts it and waits until it listens.
    pub async fn start(settings: Settings) -> Result<Self, StartFailed> {
        configure(&settings).map_err(|source| StartFailed::Folder {
            folder: settings.folder.clone(),
            source,
        })?;
        let child = command(&settings).spawn().map_err(StartFailed::Spawn)?;
        let mut server = Self {
            settings,
            child,
            started: Instant::now(),
        };
        let port = server.wait_for_port().await?;
        server.settings.listen.set_port(port);
        Ok(server)
    }

    /// Where clients connect.
    pub fn url(&self) -> String {
        format!("nats://{}", self.settings.listen)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id().unwrap_or_default()
    }

    /// Watches it until `end`, then stops it. One that ends by itself is started again, on its port and with its
    /// store: clients reconnect, so that callers notice a second at most. `Err` when it stays down.
    pub async fn keep(mut self, end: CancellationToken) -> Result<(), StartFailed> {
        let mut failures = 0;
        loop {
            let status = tokio::select! {
                () = end.cancelled() => {
                    self.stop().await;
                    return Ok(());
                }
                status = self.child.wait() => status,
            };
            tracing::error!(
                status = status.map_or("unknown".into(), |status| status.to_string()),
                "nats-server ended: starting it again"
            );
            failures = if self.started.elapsed() < SETTLED {
                failures
            } else {
                0
            };
            self = tokio::select! {
                () = end.cancelled() => return Ok(()),
                restarted = start_again(self.settings.clone(), &mut failures) => restarted?,
            };
        }
    }

    /// Stops it; kills it when that takes too long.
    pub async fn stop(mut self) {
        signal(self.pid(), Signal::TERM);
        if timeout(STOP_LIMIT, self.child.wait()).await.is_err() {
            tracing::warn!("nats-server did not stop: killing it");
            let _ = self.child.kill().await;
        }
    }

    /// The ports file is written once it listens, and may be seen half written.
    async fn wait_for_port(&mut self) -> Result<u16, StartFailed> {
        let file = self
            .settings
            .folder
            .join(format!("nats-server_{}.ports", self.pid()));
        let deadline = Instant::now() + START_LIMIT;
        while Instant::now() < deadline {
            if let Ok(Some(status)) = self.child.try_wait() {
                let fault = last_fault(&self.settings.folder).unwrap_or_else(|| status.to_string());
                return Err(StartFailed::Ended { fault });
            }
            if let Some(port) = fs::read_to_string(&file).ok().as_deref().and_then(parse_port) {
                let _ = fs::remove_file(&file);
                return Ok(port);
            }
            sleep(STEP).await;
        }
        Err(StartFailed::Silent)
    }
}

/// Tries until it runs, or has failed too often in a row.
async fn start_again(settings: Settings, failures: &mut u32) -> Result<NatsServer, StartFailed> {
    loop {
        sleep((FIRST_PAUSE * 2u32.saturating_pow(*failures)).min(LONGEST_PAUSE)).await;
        *failures += 1;
        match NatsServer::start(settings.clone()).await {
            Ok(server) => return Ok(server),
            Err(error) if *failures >= MOST_FAILURES => return Err(error),
            Err(error) => tracing::error!(%error, failures, "nats-server does not start"),
        }
    }
}

fn configure(settings: &Settings) -> std::io::Result<()> {
    let folder = &settings.folder;
    fs::create_dir_all(folder)?;
    let port = match settings.listen.port() {
        0 => -1,
        port => i32::from(port),
    };
    // The server reads JSON as one of the forms of its configuration.
    let config = json!({
        "host": settings.listen.ip(),
        "port": port,
        "ports_file_dir": folder,
        "jetstream": { "store_dir": folder.join("store") },
        "log_file": log_file(folder),
        "logfile_size_limit": LOG_BYTES,
        "logfile_max_num": 2,
    });
    fs::write(config_file(folder), config.to_string())
}

/// Its own process group, so that a Ctrl-C on the terminal reaches it only through us, after everything has drained.
fn command(settings: &Settings) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap_or_else(|_| "wess".into()));
    command
        .args(["nats-server", "--parent", &std::process::id().to_string()])
        .arg(&settings.binary)
        .arg(config_file(&settings.folder))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .kill_on_drop(true);
    command
}

/// The hidden command that [`NatsServer`] starts: asks the kernel to end this process with its parent, then becomes
/// the nats-server. Returns only when it could not.
pub fn become_nats_server(args: &NatsServerArgs) -> std::process::ExitCode {
    end_with_parent();
    if rustix::process::getppid().map(Pid::as_raw_nonzero).map(i32::from) != Some(args.parent) {
        return Exit::Unavailable.into();
    }
    let error = std::process::Command::new(&args.binary)
        .arg("--config")
        .arg(&args.config)
        .exec();
    eprintln!("error: cannot run {}: {error}", args.binary.display());
    Exit::Unavailable.into()
}

/// Asks the kernel to end this process when its parent ends, however that ends.
pub fn end_with_parent() {
    #[cfg(target_os = "linux")]
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::TERM));
}

/// Sends a signal to a child of ours; one that has ended takes none.
pub fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

fn config_file(folder: &Path) -> PathBuf {
    folder.join("server.conf")
}

fn log_file(folder: &Path) -> PathBuf {
    folder.join("server.log")
}

/// The last line of its log that tells of a fault: `[7] 2026/11/21 03:00:00.000000 [FTL] …`.
fn last_fault(folder: &Path) -> Option<String> {
    let log = fs::read_to_string(log_file(folder)).ok()?;
    let fault = log
        .lines()
        .rev()
        .find(|line| line.contains("[FTL]") || line.contains("[ERR]"))?;
    fault
        .split_once("] ")
        .and_then(|(_, rest)| rest.split_once("] "))
        .map(|(_, message)| message.to_owned())
}

/// `{"nats":["nats://127.0.0.1:41233"],…}`
fn parse_port(ports: &str) -> Option<u16> {
    let ports: serde_json::Value = serde_json::from_str(ports).ok()?;
    ports["nats"][0].as_str()?.rsplit(':').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_half_written_ports_file_is_no_port() {
        let whole = r#"{"nats":["nats://127.0.0.1:41233"],"cluster":["nats://127.0.0.1:6222"]}"#;
        assert_eq!(parse_port(whole), Some(41233));
        assert!((0..whole.len()).all(|end| parse_port(&whole[..end]).is_none()));
    }

    #[test]
    fn the_last_fault_of_a_log_is_told_without_its_clock() {
        let folder = tempfile::TempDir::new().unwrap();
        assert_eq!(last_fault(folder.path()), None);
        let log = "[7] 2026/11/21 03:00:00.1 [INF] Starting\n[7] 2026/11/21 03:00:00.2 [FTL] Error listening on port\n[7] x [INF] bye\n";
        fs::write(log_file(folder.path()), log).unwrap();
        assert_eq!(
            last_fault(folder.path()).as_deref(),
            Some("Error listening on port")
        );
    }
}
