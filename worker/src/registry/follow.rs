//! Keeps the catalog in step with `wess-modules`: a full replay at each (re)connect, then every change in order.
//!
//! A replay, because NATS may have come back with older, newer or other data; what it does not contain is gone.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use wess_service::feed::Feed;
use wess_service::nats::ConnectionWatch;

use super::catalog::Catalog;
use super::disk::Disk;
use super::record::{Change, RawRecord, parse};
use super::stats::RegistryStats;
use super::storage::Storage;

const FIRST_RETRY: Duration = Duration::from_millis(100);
const LONGEST_RETRY: Duration = Duration::from_secs(5);

/// What following needs.
pub(super) struct Follower {
    pub(super) catalog: Arc<Catalog>,
    pub(super) disk: Disk,
    pub(super) storage: Storage,
    pub(super) connection: ConnectionWatch,
    pub(super) stats: RegistryStats,
    /// Becomes true at the first complete replay.
    pub(super) replayed: watch::Sender<bool>,
    /// Whether the disk has taken every change so far.
    pub(super) saved: bool,
}

impl Follower {
    /// Shows what the local disk knows, until the first replay.
    pub(super) async fn load_from_disk(&self) {
        let saved = self.disk.run(Disk::catalog).await;
        let (revision, records) = saved.unwrap_or_default();
        let changes = records.iter().filter_map(|record| self.parse(record)).collect();
        self.catalog.replace(revision, changes);
        tracing::info!(
            modules = self.catalog.len(),
            revision,
            "read the catalog from the local disk"
        );
    }

    /// Follows for ever.
    pub(super) async fn run(mut self) {
        let mut retry = FIRST_RETRY;
        loop {
            let state = self.connection.state();
            match self.follow().await {
                Ok(()) => retry = FIRST_RETRY,
                Err(error) => {
                    if state.connected {
                        tracing::warn!(%error, "cannot follow the module records: trying again");
                    }
                    self.storage.forget();
                    self.wait(retry).await;
                    retry = (retry * 2).min(LONGEST_RETRY);
                }
            }
        }
    }

    /// A new connection is a reason to try at once.
    async fn wait(&mut self, retry: Duration) {
        tokio::select! {
            () = tokio::time::sleep(retry) => (),
            Some(_) = self.connection.changed() => (),
        }
    }

    /// Replays and follows one connection until it is replaced by another.
    async fn follow(&mut self) -> Result<(), async_nats::Error> {
        let connects = self.connection.state().connects;
        let modules = self.storage.assets().await?.modules;
        let client = self.storage.client();
        let mut feed = Feed::open(client, modules, ">", "catalog of a worker").await?;
        self.replay(&mut feed).await?;
        loop {
            tokio::select! {
                record = feed.next() => self.take(record?).await,
                state = self.connection.changed() => match state {
                    Some(state) if state.connects > connects => return Ok(()),
                    Some(_) => (),
                    None => return Err("the connection is gone for good".into()),
                },
                () = self.disk.reopened() => self.save_everything().await,
            }
        }
    }

    async fn replay(&mut self, feed: &mut Feed) -> Result<(), async_nats::Error> {
        let records = feed.replay().await?;
        // In the order of the stream, so that the last one is the newest.
        let revision = records.last().map_or(0, |record| record.revision);
        let changes = records.iter().filter_map(|record| self.parse(record)).collect();
        self.catalog.replace(revision, changes);
        self.save_everything().await;
        self.replayed.send_replace(true);
        tracing::debug!(
            modules = self.catalog.len(),
            revision,
            "replayed the module records"
        );
        Ok(())
    }

    /// Visible at once; counted as seen only when it is on disk, too, as far as the disk takes it.
    async fn take(&mut self, record: RawRecord) {
        let change = self.parse(&record);
        if let Some(change) = change.clone() {
            self.catalog.learn(change);
        }
        let revision = record.revision;
        if self.saved {
            let saved = self.disk.run(move |disk| disk.save(revision, &[record])).await;
            self.saved = saved == Some(true);
        } else {
            self.save_everything().await;
        }
        self.catalog.follow(revision, change);
    }

    async fn save_everything(&mut self) {
        let catalog = self.catalog.clone();
        let save = move |disk: &Disk| {
            let (revision, records) = catalog.snapshot();
            disk.replace(revision, &records)
        };
        self.saved = self.disk.run(save).await == Some(true);
    }

    fn parse(&self, record: &RawRecord) -> Option<Change> {
        let parsed = parse(record).inspect_err(|garbage| {
            self.stats.garbage_records.inc();
            let cause = std::error::Error::source(garbage);
            tracing::warn!(key = record.key, error = %garbage, cause, "skipping a module record");
        });
        parsed.ok()
    }
}
