//! A nats-server of our own, with JetStream in our data folder: started, watched, started again, stopped.
//!
//! It never outlives this process, not even a killed one: see [`crate::child`].

use std::fs::{self, File};
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Signal;
use tokio::process::Child;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::launch::Settings;
use crate::child::signal;

/// How long it may take to listen: it reads what JetStream holds first.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How often is looked whether it listens.
const STEP: Duration = Duration::from_millis(10);
/// How long it may take to stop before it is killed.
const STOP_LIMIT: Duration = Duration::from_millis(1500);
/// Pauses before it is started again double from the first to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// One that ran this long had not failed to start: the pauses begin anew.
const SETTLED: Duration = Duration::from_secs(30);
/// After so many failures in a row there is no use in another try.
const MOST_FAILURES: u32 = 8;

/// It did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartFailed {
    /// Its folder cannot be made.
    #[error("cannot make the folder of the nats-server, {} (--data)", folder.display())]
    Folder {
        /// Which folder.
        folder: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Its folder has an owner.
    #[error("another process uses {} (--data)", folder.display())]
    InUse {
        /// Which folder.
        folder: PathBuf,
    },
    /// No process could be made.
    #[error("cannot start the nats-server")]
    Spawn(#[source] std::io::Error),
    /// It ended by itself.
    #[error("the nats-server ended at its start: {fault}{}", advice(fault))]
    Ended {
        /// What it logged last, or its status.
        fault: String,
    },
    /// It runs and does not listen.
    #[error("the nats-server did not listen within {START_LIMIT:?}")]
    Silent,
}

fn advice(fault: &str) -> &'static str {
    match fault.contains("address already in use") {
        true => " (use the one that runs there by --nats, or another port by --nats-listen)",
        false => "",
    }
}

/// A running nats-server. Killed when dropped.
#[derive(Debug)]
pub struct NatsServer {
    settings: Settings,
    lock: File,
    child: Child,
    started: Instant,
}

impl NatsServer {
    /// Starts it and waits until it listens.
    pub async fn start(settings: Settings) -> Result<Self, StartFailed> {
        let lock = settings.lock().await?;
        Self::start_on(settings, lock).await
    }

    async fn start_on(settings: Settings, lock: File) -> Result<Self, StartFailed> {
        let child = settings.spawn(&lock).map_err(StartFailed::Spawn)?;
        let mut server = Self {
            settings,
            lock,
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

    /// Watches it until `end`, then stops it. `Err` when it stays down.
    ///
    /// One that ends by itself is started again, on its port and with its store: workers and clients reconnect to it,
    /// so that callers notice a second or two, where ending with it would leave them with nobody.
    pub async fn keep(mut self, end: CancellationToken) -> Result<(), StartFailed> {
        let mut failures = 0;
        while end.run_until_cancelled(self.child.wait()).await.is_some() {
            let fault = self.settings.last_fault().unwrap_or_default();
            tracing::error!(
                pid = self.pid(),
                fault,
                "the nats-server ended: starting it again"
            );
            if self.started.elapsed() >= SETTLED {
                failures = 0;
            }
            let starting = end.run_until_cancelled(start_again(&self.settings, &self.lock, &mut failures));
            match starting.await {
                Some(started) => self = started?,
                None => return Ok(()),
            }
            tracing::info!(pid = self.pid(), "started the nats-server again");
        }
        self.stop().await;
        Ok(())
    }

    /// Stops it; kills it when that takes too long.
    pub async fn stop(mut self) {
        signal(self.pid(), Signal::TERM);
        if timeout(STOP_LIMIT, self.child.wait()).await.is_err() {
            tracing::warn!("the nats-server did not stop: killing it");
            let _ = self.child.kill().await;
        }
    }

    /// The ports file is written once it listens, and may be seen half written.
    async fn wait_for_port(&mut self) -> Result<u16, StartFailed> {
        let file = self.settings.ports_file(self.pid());
        let deadline = Instant::now() + START_LIMIT;
        while Instant::now() < deadline {
            if let Ok(Some(status)) = self.child.try_wait() {
                let fault = self.settings.last_fault().unwrap_or_else(|| status.to_string());
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
async fn start_again(
    settings: &Settings,
    lock: &File,
    failures: &mut u32,
) -> Result<NatsServer, StartFailed> {
    loop {
        sleep(
            FIRST_PAUSE
                .saturating_mul(1 << (*failures).min(16))
                .min(LONGEST_PAUSE),
        )
        .await;
        *failures += 1;
        let lock = lock.try_clone().map_err(StartFailed::Spawn)?;
        match NatsServer::start_on(settings.clone(), lock).await {
            Ok(server) => return Ok(server),
            Err(error) if *failures >= MOST_FAILURES => return Err(error),
            Err(error) => tracing::error!(%error, failures, "the nats-server does not start"),
        }
    }
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
}
