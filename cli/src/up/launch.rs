//! Making the process of a nats-server: its folder, its configuration, and the ties that bind it to ours.
//!
//! Two servers on one store would ruin it: the folder's lock is held by us and by the server's process, which has it
//! as its stdin, so that it is free only when both are gone.

use std::fs::{self, File, TryLockError};
use std::io;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use super::nats_server::StartFailed;
use crate::args::NatsServerArgs;
use crate::exit::Exit;

/// How long to wait for a folder whose last owner was killed: its server ends a moment later.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
/// How often is looked whether it is free.
const LOCK_STEP: Duration = Duration::from_millis(50);
/// How much of a log is kept before the next one is begun; the one before it is kept too.
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

impl Settings {
    /// Makes the folder where it is missing, and locks it.
    pub async fn lock(&self) -> Result<File, StartFailed> {
        let failed = |source| StartFailed::Folder {
            folder: self.folder.clone(),
            source,
        };
        fs::create_dir_all(&self.folder).map_err(failed)?;
        let file = File::create(self.folder.join("lock")).map_err(failed)?;
        let deadline = Instant::now() + LOCK_PATIENCE;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::Error(error)) => return Err(failed(error)),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => sleep(LOCK_STEP).await,
                Err(TryLockError::WouldBlock) => {
                    return Err(StartFailed::InUse {
                        folder: self.folder.clone(),
                    });
                }
            }
        }
    }

    /// Makes the process.
    pub fn spawn(&self, lock: &File) -> io::Result<Child> {
        let config = self.folder.join("server.conf");
        fs::write(&config, self.config())?;
        Command::new(std::env::current_exe()?)
            .args(["nats-server", "--parent", &std::process::id().to_string()])
            .arg(&self.binary)
            .arg(&config)
            .stdin(Stdio::from(lock.try_clone()?))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // A Ctrl-C on the terminal must reach it only through us, after everything has drained.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
    }

    /// JSON is one of the forms that a nats-server reads.
    fn config(&self) -> String {
        let port = match self.listen.port() {
            0 => -1,
            port => i32::from(port),
        };
        json!({
            "host": self.listen.ip(),
            "port": port,
            "ports_file_dir": self.folder,
            "jetstream": { "store_dir": self.folder.join("store") },
            "log_file": log_file(&self.folder),
            "logfile_size_limit": LOG_BYTES,
            "logfile_max_num": 2,
        })
        .to_string()
    }

    /// The last line of its log that tells of a fault: `[7] 2026/11/21 03:00:00.000000 [FTL] …`.
    pub fn last_fault(&self) -> Option<String> {
        let log = fs::read_to_string(log_file(&self.folder)).ok()?;
        let fault = log
            .lines()
            .rev()
            .find(|line| line.contains("[FTL] ") || line.contains("[ERR] "))?;
        Some(fault.rsplit_once("] ")?.1.to_owned())
    }
}

fn log_file(folder: &Path) -> PathBuf {
    folder.join("server.log")
}

/// The hidden command that [`Settings::spawn`] starts: asks the kernel to end this process with its parent, then
/// becomes the nats-server. Returns only when it could not.
pub fn become_nats_server(args: &NatsServerArgs) -> ExitCode {
    end_with_parent();
    // Had the parent ended before that was asked for, nobody would end this process.
    if rustix::process::getppid() != Pid::from_raw(args.parent) {
        return Exit::Unavailable.into();
    }
    // It names its ports file after itself, whatever its file is called.
    let mut server = std::process::Command::new(&args.binary);
    let error = server
        .arg0("nats-server")
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

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    fn settings(folder: &TempDir) -> Settings {
        Settings {
            binary: "x".into(),
            folder: folder.path().join("a/b"),
            listen: ([127, 0, 0, 1], 0).into(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_folder_has_one_owner_at_a_time() {
        let folder = TempDir::new().unwrap();
        let owner = settings(&folder).lock().await.unwrap();
        let refused = settings(&folder).lock().await.unwrap_err();
        assert!(refused.to_string().contains("another process"), "{refused}");
        let (waited, ()) = tokio::join!(
            async { settings(&folder).lock().await },
            async move { drop(owner) }
        );
        waited.unwrap();
    }

    #[test]
    fn the_last_fault_of_a_log_is_told_without_its_clock() {
        let folder = TempDir::new().unwrap();
        let settings = settings(&folder);
        assert_eq!(settings.last_fault(), None);
        fs::create_dir_all(&settings.folder).unwrap();
        let log = "[7] 2026/11/21 03:00:00.1 [INF] Starting\n[7] 2026/11/21 03:00:00.2 [FTL] Error listening on port\n[7] x [INF] bye\n";
        fs::write(log_file(&settings.folder), log).unwrap();
        assert_eq!(settings.last_fault().as_deref(), Some("Error listening on port"));
    }
}
