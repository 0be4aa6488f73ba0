//! Making the process of a nats-server: its folder, its configuration, and the ties that bind it to ours.
//!
//! Two servers on one store would ruin it: the folder's lock is held by us and by the server's process, which has it
//! as its stdin, so that it is free only when both are gone.

use std::fs::{self, File, TryLockError};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::json;
use tokio::process::Child;
use tokio::time::{Instant, sleep};

use super::nats_server::StartFailed;
use crate::child;

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
        child::command(&self.binary)?
            .arg("--config")
            .arg(&config)
            .stdin(Stdio::from(lock.try_clone()?))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // A Ctrl-C on the terminal must reach it only through us, after everything has drained.
            .process_group(0)
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

    /// Where a process of it says on which port it listens: it names that file after itself.
    pub fn ports_file(&self, pid: u32) -> PathBuf {
        let name = self.binary.file_name().unwrap_or_default().to_string_lossy();
        self.folder.join(format!("{name}_{pid}.ports"))
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
