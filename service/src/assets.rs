//! What lives in JetStream, and making sure that it is there. Every worker and gateway does so, at start and on each
//! reconnect, at the same time as others.
//!
//! Never changes an asset that exists: its operator may have tuned it.

use std::future::Future;
use std::time::Duration;

use async_nats::jetstream::Context;
use async_nats::jetstream::kv::{self, Store};
use async_nats::jetstream::object_store;
use async_nats::jetstream::stream::StorageType;
use futures_util::FutureExt;
use wess_schemas::Tenant;
use wess_schemas::subject::{
    BINDINGS_BUCKET, BLOBS_BUCKET, JOB_PAYLOADS_BUCKET, MODULES_BUCKET, PAYLOADS_BUCKET, RESULTS_BUCKET,
    Subjects, objects_bucket, state_bucket,
};

use crate::objects::Bucket;
use crate::payloads::Payloads;
use crate::queue::assets::{QueueAssets, ensure_queue};

/// Earlier revisions of a module record that NATS keeps.
const MODULES_HISTORY: i64 = 5;
/// How long a payload can be fetched.
const PAYLOADS_MAX_AGE: Duration = Duration::from_secs(60 * 60);
/// No age ends it.
const FOREVER: Duration = Duration::ZERO;
/// No size is too large for it.
const UNBOUNDED: i64 = -1;

/// How assets are made, where they are not there yet.
#[derive(Debug, Clone, clap::Args)]
pub struct AssetOptions {
    /// On how many NATS servers each asset is kept, when this process is the one that makes it.
    #[arg(long, env = "WESS_REPLICAS", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=5))]
    pub replicas: u8,
    /// How long the record of a job is kept once nothing changes it any more, in hours.
    #[arg(long, env = "WESS_RESULTS_HOURS", default_value_t = 24, value_name = "HOURS", value_parser = clap::value_parser!(u32).range(1..=8760))]
    pub results_hours: u32,
    /// Jobs that may wait at once; the next one is refused as queue_full.
    #[arg(long, env = "WESS_MAX_JOBS", default_value_t = 1_000_000, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
    pub max_jobs: i64,
    /// How long a worker may be silent about a job before another one gets it, in seconds.
    #[arg(long, env = "WESS_ACK_WAIT_S", default_value_t = 30, value_name = "S", value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub ack_wait_s: u32,
    /// Most MiB of guests' objects, when this process is the one that makes their store. NATS keeps so much free for it.
    #[arg(long, env = "WESS_OBJECTS_MB", value_name = "MB", value_parser = clap::value_parser!(u32).range(1..))]
    pub objects_mb: Option<u32>,
    /// The subjects that streams hold: those under `--prefix`. Not an option of its own.
    #[arg(skip)]
    pub subjects: Subjects,
}

impl AssetOptions {
    /// How long the record of a job is kept once nothing changes it any more.
    pub fn results_age(&self) -> Duration {
        Duration::from_secs(u64::from(self.results_hours) * 3600)
    }

    /// Most bytes of guests' objects.
    fn objects_bytes(&self) -> i64 {
        self.objects_mb.map_or(UNBOUNDED, |mb| i64::from(mb) << 20)
    }

    /// How long a worker may be silent about a message that it has.
    pub fn ack_wait(&self) -> Duration {
        Duration::from_secs(u64::from(self.ack_wait_s))
    }
}

impl Default for AssetOptions {
    fn default() -> Self {
        Self {
            replicas: 1,
            results_hours: 24,
            max_jobs: 1_000_000,
            ack_wait_s: 30,
            objects_mb: None,
            subjects: Subjects::default(),
        }
    }
}

/// Handles to all assets. Cheap to clone.
#[derive(Clone)]
pub struct Assets {
    /// Module records.
    pub modules: Store,
    /// Wasm bytes.
    pub blobs: Bucket,
    /// Uploads and large payloads.
    pub payloads: Bucket,
    /// Guest state of the default tenant.
    pub state: Store,
    /// Records of jobs.
    pub results: Store,
    /// Bindings.
    pub bindings: Store,
    /// Large payloads of jobs.
    pub job_payloads: Bucket,
    /// The queue's consumers.
    pub queue: QueueAssets,
}

impl Assets {
    /// The object stores of payloads.
    pub fn payloads(&self) -> Payloads {
        Payloads::new(self.payloads.clone(), self.job_payloads.clone())
    }
}

/// An asset is neither there nor can it be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot open or make the JetStream asset {asset}")]
pub struct AssetError {
    /// Its name.
    pub asset: String,
    source: async_nats::Error,
}

impl AssetError {
    pub(crate) fn new(asset: &str, source: impl Into<async_nats::Error>) -> Self {
        Self {
            asset: asset.into(),
            source: source.into(),
        }
    }
}

/// Opens every asset, making those that are missing.
pub async fn ensure_assets(jetstream: &Context, options: &AssetOptions) -> Result<Assets, AssetError> {
    let replicas = usize::from(options.replicas);
    let state = state_bucket(&Tenant::default());
    let results_age = options.results_age();
    // Each in a box: together they would not fit on the stacks of executors' threads.
    let (modules, blobs, payloads, state, results, bindings, job_payloads, queue) = tokio::try_join!(
        ensure_kv(jetstream, MODULES_BUCKET, MODULES_HISTORY, FOREVER, replicas).boxed(),
        ensure_objects(jetstream, BLOBS_BUCKET, FOREVER, UNBOUNDED, replicas).boxed(),
        ensure_objects(jetstream, PAYLOADS_BUCKET, PAYLOADS_MAX_AGE, UNBOUNDED, replicas).boxed(),
        ensure_kv(jetstream, &state, 1, FOREVER, replicas).boxed(),
        ensure_kv(jetstream, RESULTS_BUCKET, 1, results_age, replicas).boxed(),
        ensure_kv(jetstream, BINDINGS_BUCKET, 1, FOREVER, replicas).boxed(),
        ensure_objects(jetstream, JOB_PAYLOADS_BUCKET, FOREVER, UNBOUNDED, replicas).boxed(),
        ensure_queue(jetstream, options).boxed(),
    )?;
    Ok(Assets {
        modules,
        blobs,
        payloads,
        state,
        results,
        bindings,
        job_payloads,
        queue,
    })
}

/// Opens the object store of a tenant's guests, making it if it is missing. Not one of [`Assets`]: few fleets need one.
pub async fn ensure_guest_objects(
    jetstream: &Context,
    tenant: &Tenant,
    options: &AssetOptions,
) -> Result<Bucket, AssetError> {
    let (bucket, replicas) = (objects_bucket(tenant), usize::from(options.replicas));
    ensure_objects(jetstream, &bucket, FOREVER, options.objects_bytes(), replicas).await
}

async fn ensure_kv(
    jetstream: &Context,
    asset: &str,
    history: i64,
    max_age: Duration,
    num_replicas: usize,
) -> Result<Store, AssetError> {
    let config = kv::Config {
        bucket: asset.into(),
        history,
        max_age,
        storage: StorageType::File,
        num_replicas,
        ..Default::default()
    };
    ensure(
        asset,
        || jetstream.get_key_value(asset),
        || jetstream.create_key_value(config),
    )
    .await
}

async fn ensure_objects(
    jetstream: &Context,
    asset: &str,
    max_age: Duration,
    max_bytes: i64,
    num_replicas: usize,
) -> Result<Bucket, AssetError> {
    let storage = StorageType::File;
    let config = object_store::Config {
        bucket: asset.into(),
        max_age,
        max_bytes,
        storage,
        num_replicas,
        ..Default::default()
    };
    let store = ensure(
        asset,
        || jetstream.get_object_store(asset),
        || jetstream.create_object_store(config),
    )
    .await?;
    Bucket::new(jetstream, store, asset)
        .await
        .map_err(|error| AssetError::new(asset, error))
}

/// Get, else make, else get what another process made meanwhile with other settings.
pub(crate) async fn ensure<T, G, C>(
    asset: &str,
    get: impl Fn() -> G,
    create: impl FnOnce() -> C,
) -> Result<T, AssetError>
where
    G: Future<Output: ResultOf<T>>,
    C: Future<Output: ResultOf<T>>,
{
    if let Ok(found) = get().await.boxed() {
        return Ok(found);
    }
    match create().await.boxed() {
        Ok(created) => {
            tracing::info!(asset, "made a JetStream asset");
            Ok(created)
        }
        Err(source) => get().await.boxed().map_err(|_| AssetError {
            asset: asset.into(),
            source,
        }),
    }
}

/// A `Result` whose error can be boxed, whichever it is.
pub(crate) trait ResultOf<T> {
    fn boxed(self) -> Result<T, async_nats::Error>;
}

impl<T, E: Into<async_nats::Error>> ResultOf<T> for Result<T, E> {
    fn boxed(self) -> Result<T, async_nats::Error> {
        self.map_err(Into::into)
    }
}
