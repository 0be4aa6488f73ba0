//! What this worker knows of modules, and the way to their bytes and compiled code.
//!
//! The truth lies in JetStream; everything here is a copy that may be deleted at any time. Looking up is lock-free,
//! loading is shared, and nothing that is answered as stored is anywhere but in JetStream first.

mod append;
mod artifacts;
mod blobs;
mod budget;
mod catalog;
mod compile;
mod disk;
mod flights;
mod folder;
mod follow;
mod gate;
mod keys;
mod listing;
mod publish;
mod record;
mod records;
mod resolve;
mod seal;
mod stats;
mod storage;
mod view;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use wess_schemas::limits::MIB;
use wess_service::assets::AssetOptions;
use wess_service::lifecycle::{Failure, Lifecycle};
use wess_service::nats::Connection;

pub use artifacts::Artifact;
pub use folder::FolderError;
pub use gate::{Gate, Pass};
pub use listing::Resolved;
pub use publish::{NewModule, Published, Removed, Terms, chain_of};
pub use stats::RegistryStats;
pub use storage::{Storage, StorageAway};

use artifacts::{ArtifactKey, Artifacts};
use blobs::Blobs;
use budget::Budget;
use catalog::Catalog;
use compile::CompileQueue;
use disk::Disk;
use flights::Flights;
use folder::DataFolder;
use follow::Follower;
use records::Records;

use crate::guest::{Compiler, Needs};

/// Lookups at the leader at once, and waiting. Each unknown name costs one.
const MAX_LOOKUPS: (usize, usize) = (64, 1024);
/// Modules being fetched and compiled at once, and waiting. Each of the former may hold a whole module in memory.
const MAX_COMPILES: (usize, usize) = (4, 64);

/// What the local disk may hold and what modules may be.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Registry")]
pub struct RegistryOptions {
    /// Folder for local copies; may be deleted while no worker runs.
    #[arg(long, env = "WESS_DATA", value_name = "DIR")]
    pub data: PathBuf,
    /// Most MiB of local copies; the least recently used go first.
    #[arg(long, env = "WESS_DISK_MB", default_value_t = 4096, value_parser = clap::value_parser!(u64).range(1..=1 << 30))]
    pub disk_mb: u64,
    /// Most MiB of Wasm in one module.
    #[arg(long, env = "WESS_MAX_MODULE_MB", default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=1024))]
    pub max_module_mb: u64,
}

impl RegistryOptions {
    /// Most bytes of Wasm in one module.
    pub fn max_module_bytes(&self) -> u64 {
        self.max_module_mb * MIB
    }
}

/// The registry of one worker. Cheap to clone.
#[derive(Clone)]
pub struct Registry(Arc<Inner>);

struct Inner {
    catalog: Arc<Catalog>,
    records: Records,
    blobs: Blobs,
    disk: Disk,
    artifacts: Arc<Artifacts>,
    budget: Budget,
    compiler: CompileQueue,
    loads: Flights<(ArtifactKey, bool), Artifact>,
    lookups: Gate,
    compiles: Gate,
    storage: Storage,
    stats: RegistryStats,
    replayed: watch::Receiver<bool>,
}

/// The registry cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The data folder cannot be used: see [`RegistryOptions::data`].
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The system gives no thread or no randomness.
    #[error("cannot start the registry")]
    System(#[from] std::io::Error),
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Folder(_) => Self::config(error),
            OpenError::System(_) => Self::internal(error),
        }
    }
}

impl Registry {
    /// Opens the local copies, shows the catalog that they hold, and begins to follow JetStream, which may be away.
    ///
    /// Must be called on the main runtime: loads run there, whoever asks for them.
    pub async fn open(
        options: &RegistryOptions,
        assets: AssetOptions,
        connection: &Connection,
        compiler: Compiler,
        lifecycle: &Lifecycle,
    ) -> Result<Self, OpenError> {
        let stats = RegistryStats::default();
        let local = Local::open(options.clone(), compiler.clone(), stats.clone()).await?;
        let storage = Storage::new(connection.client.clone(), assets);
        let temporary = options.data.clone();
        let (replay, replayed) = watch::channel(false);
        let registry = Self(Arc::new(Inner {
            catalog: Arc::new(Catalog::new()),
            records: Records::new(storage.clone(), stats.clone()),
            blobs: Blobs::new(
                storage.clone(),
                stats.clone(),
                temporary,
                options.max_module_bytes(),
            ),
            disk: local.disk,
            artifacts: Arc::new(local.artifacts),
            budget: local.budget,
            compiler: CompileQueue::start(compiler, stats.clone())?,
            loads: Flights::new("load", lifecycle),
            lookups: Gate::new("module lookups", MAX_LOOKUPS.0, MAX_LOOKUPS.1),
            compiles: Gate::new("module loads", MAX_COMPILES.0, MAX_COMPILES.1),
            storage,
            stats,
            replayed,
        }));
        registry.evict(local.excess).await;
        registry.follow(connection, replay, lifecycle).await;
        Ok(registry)
    }

    /// Waits for the first complete replay; `false` when there was none within `patience`, so that lookups are
    /// answered from the local disk for now.
    pub async fn replayed(&self, patience: Duration) -> bool {
        let mut replayed = self.0.replayed.clone();
        matches!(
            tokio::time::timeout(patience, replayed.wait_for(|replayed| *replayed)).await,
            Ok(Ok(_))
        )
    }

    /// The revision of the catalog, to be read or followed.
    pub fn revision(&self) -> watch::Receiver<u64> {
        self.0.catalog.revision()
    }

    /// How many modules the catalog lists.
    pub fn modules(&self) -> usize {
        self.0.catalog.len()
    }

    /// Which engines the calls of the modules need that the catalog lists.
    pub fn needs(&self) -> HashSet<Needs> {
        self.0.catalog.needs()
    }

    /// Bytes of local copies.
    pub fn disk_bytes(&self) -> u64 {
        self.0.budget.bytes()
    }

    /// What the registry counts.
    pub fn stats(&self) -> &RegistryStats {
        &self.0.stats
    }

    /// The JetStream assets, which may be away.
    pub fn storage(&self) -> &Storage {
        &self.0.storage
    }

    /// Follows through the drain, too: other workers wait for what this one has seen.
    async fn follow(&self, connection: &Connection, replayed: watch::Sender<bool>, lifecycle: &Lifecycle) {
        let follower = Follower {
            catalog: self.0.catalog.clone(),
            disk: self.0.disk.clone(),
            storage: self.0.storage.clone(),
            connection: connection.watch.clone(),
            stats: self.0.stats.clone(),
            replayed,
            saved: true,
        };
        follower.load_from_disk().await;
        let closed = lifecycle.closed.clone();
        lifecycle.spawn_background("catalog", async move {
            tokio::select! {
                () = closed.cancelled() => (),
                () = follower.run() => (),
            }
        });
    }
}

/// The local copies of one data folder.
struct Local {
    disk: Disk,
    artifacts: Artifacts,
    budget: Budget,
    /// What has to go, because the bound is lower than at the last start.
    excess: Vec<budget::Item>,
}

impl Local {
    async fn open(
        options: RegistryOptions,
        compiler: Compiler,
        stats: RegistryStats,
    ) -> Result<Self, OpenError> {
        let opening = tokio::task::spawn_blocking(move || {
            let folder = DataFolder::open(&options.data)?;
            let data = folder.path().to_owned();
            let disk = Disk::open(&data, folder, stats.clone());
            let artifacts = Artifacts::open(&data, |metering| compiler.compatibility(metering), stats)?;
            let found = [disk.blobs(), artifacts.files()].concat();
            let (budget, excess) = Budget::new(options.disk_mb * MIB, found);
            Ok(Self {
                disk,
                artifacts,
                budget,
                excess,
            })
        });
        opening.await.map_err(std::io::Error::from)?
    }
}
