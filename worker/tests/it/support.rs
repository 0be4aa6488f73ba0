//! Registries on a test's server, each with a life and a data folder of its own, and modules to put into them.

use std::path::{Path, PathBuf};

use clap::Parser;
use tempfile::TempDir;
use tokio_util::sync::DropGuard;
use wess_harness::NatsServer;
use wess_schemas::{Digest, Reference};
use wess_service::assets::{AssetOptions, Assets, ensure_assets};
use wess_service::lifecycle::Lifecycle;
use wess_service::nats::{Connection, NatsConfig, NatsOptions};
use wess_worker::guest::Compiler;
use wess_worker::registry::{NewModule, OpenError, Published, Registry, RegistryOptions};
use wess_worker::{Config, Worker, WorkerOptions};

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    nats: NatsOptions,
}

/// How to reach a server.
pub fn nats_config(server: &NatsServer) -> NatsConfig {
    Cli::try_parse_from(["test", "--nats", &server.url()])
        .unwrap()
        .nats
        .validate()
        .unwrap()
}

/// One connection to a server.
pub async fn connect(server: &NatsServer) -> Connection {
    nats_config(server).connect("test").await.unwrap()
}

/// The assets of a server.
pub async fn assets(server: &NatsServer) -> Assets {
    let jetstream = async_nats::jetstream::new(connect(server).await.client);
    ensure_assets(&jetstream, &AssetOptions::default()).await.unwrap()
}

/// A registry and what it lives on.
pub struct Node {
    pub registry: Registry,
    pub connection: Connection,
    data: PathBuf,
    _end: DropGuard,
    _folder: Option<TempDir>,
}

impl Node {
    /// A registry with an empty disk, in step with the server.
    pub async fn start(server: &NatsServer) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let node = Self::start_in(server, folder.path()).await;
        assert!(node.registry.replayed(wess_harness::DEADLINE).await);
        Self {
            _folder: Some(folder),
            ..node
        }
    }

    /// A registry on a folder; in step with the server only if JetStream is there.
    pub async fn start_in(server: &NatsServer, data: &Path) -> Self {
        Self::open(server, &options(data)).await.unwrap()
    }

    /// A registry that may not open.
    pub async fn open(server: &NatsServer, options: &RegistryOptions) -> Result<Self, OpenError> {
        let (connection, lifecycle) = (connect(server).await, Lifecycle::default());
        let compiler = Compiler::new().unwrap();
        let assets = AssetOptions::default();
        let registry = Registry::open(options, assets, &connection, compiler, &lifecycle).await?;
        let (data, _end) = (options.data.clone(), lifecycle.closed.clone().drop_guard());
        Ok(Self {
            registry,
            connection,
            data,
            _end,
            _folder: None,
        })
    }

    /// Stops it, and waits until its folder is free.
    pub async fn stop(self) {
        let lock = self.data.join("lock");
        drop(self);
        wess_harness::eventually("the data folder to be free", async || {
            let file = std::fs::File::open(&lock).unwrap();
            file.try_lock().ok()
        })
        .await;
    }

    /// Stores a module without limits.
    pub async fn store(&self, name: &str, wasm: &[u8]) -> Published {
        self.registry.store(new_module(name, wasm)).await.unwrap()
    }

    /// What a reference names right now, asking the leader if need be.
    pub async fn digest_of(&self, reference: &str) -> Option<Digest> {
        self.registry
            .resolve(&reference_of(reference))
            .await
            .ok()
            .map(|resolved| resolved.digest)
    }

    /// Waits until the catalog has followed the records up to a revision.
    pub async fn has_seen(&self, revision: u64) {
        let mut seen = self.registry.revision();
        let seen = seen.wait_for(|seen| *seen >= revision);
        tokio::time::timeout(wess_harness::DEADLINE, seen)
            .await
            .unwrap()
            .unwrap();
    }

    /// Waits until the catalog shows a reference, without asking the leader.
    pub async fn shows(&self, reference: &str) {
        let reference = reference_of(reference);
        let what = format!("the catalog to show {reference}");
        wess_harness::eventually(&what, async || self.registry.lookup(&reference)).await;
    }

    /// Waits until the catalog no longer shows a reference.
    pub async fn forgets(&self, reference: &str) {
        let reference = reference_of(reference);
        let what = format!("the catalog to forget {reference}");
        let gone = async || self.registry.lookup(&reference).is_none().then_some(());
        wess_harness::eventually(&what, gone).await;
    }
}

/// A whole worker with one executor, which ends with this.
pub struct Running {
    pub worker: Worker,
    pub client: async_nats::Client,
    pub lifecycle: Lifecycle,
    _end: (DropGuard, DropGuard),
    _data: TempDir,
}

impl Running {
    /// Starts it; it is subscribed when this returns.
    pub async fn start(server: &NatsServer) -> Self {
        Self::start_with(server, |_| {}).await
    }

    /// As [`Running::start`], with a configuration that no flag gives.
    pub async fn start_with(server: &NatsServer, change: impl FnOnce(&mut Config)) -> Self {
        let (data, lifecycle) = (tempfile::tempdir().unwrap(), Lifecycle::default());
        let args = [
            "--nats",
            &server.url(),
            "--data",
            data.path().to_str().unwrap(),
            "--executors",
            "1",
        ];
        let cli = WorkerCli::try_parse_from(["test"].into_iter().chain(args)).unwrap();
        let mut config = cli.worker.validate(&cli.nats).unwrap();
        change(&mut config);
        let mut metrics = prometheus_client::registry::Registry::default();
        let worker = Worker::start(config, &lifecycle, &mut metrics).await.unwrap();
        let _end = (
            lifecycle.shutdown.clone().drop_guard(),
            lifecycle.closed.clone().drop_guard(),
        );
        Self {
            worker,
            client: connect(server).await.client,
            lifecycle,
            _end,
            _data: data,
        }
    }

    /// Asks, and reads the reply as JSON.
    pub async fn ask(&self, subject: &str, payload: impl Into<bytes::Bytes>) -> serde_json::Value {
        let reply = self
            .client
            .request(subject.to_owned(), payload.into())
            .await
            .unwrap();
        serde_json::from_slice(&reply.payload).unwrap()
    }
}

#[derive(Parser)]
struct WorkerCli {
    #[command(flatten)]
    nats: NatsOptions,
    #[command(flatten)]
    worker: WorkerOptions,
}

/// The defaults on a folder.
pub fn options(data: &Path) -> RegistryOptions {
    RegistryOptions {
        data: data.into(),
        disk_mb: 4096,
        max_module_mb: 64,
    }
}

/// A module without limits.
pub fn new_module(name: &str, wasm: &[u8]) -> NewModule {
    NewModule {
        name: name.parse().unwrap(),
        wasm: wasm.to_vec().into(),
        terms: Default::default(),
    }
}

/// A typed module whose function gives a number, so that each number makes other bytes.
pub fn wasm(number: u32) -> Vec<u8> {
    wat::parse_str(format!(
        r#"(module (func (export "number") (result i32) i32.const {number}))"#
    ))
    .unwrap()
}

/// What the bytes are called.
pub fn digest_of(wasm: &[u8]) -> Digest {
    use sha2::Digest as _;
    Digest::from_bytes(sha2::Sha256::digest(wasm).into())
}

/// A reference.
pub fn reference_of(text: &str) -> Reference {
    text.parse().unwrap()
}
