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
use wess_schemas::Tenant;
use wess_schemas::subject::{BLOBS_BUCKET, MODULES_BUCKET, PAYLOADS_BUCKET, state_bucket};

use crate::objects::Bucket;

/// Earlier revisions of a module record that NATS keeps.
const MODULES_HISTORY: i64 = 5;
/// How long a payload can be fetched.
const PAYLOADS_MAX_AGE: Duration = Duration::from_secs(60 * 60);

/// How assets are made, where they are not there yet.
#[derive(Debug, Clone, clap::Args)]
pub struct AssetOptions {
    /// On how many NATS servers each asset is kept, when this process is the one that makes it.
    #[arg(long, env = "WESS_REPLICAS", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=5))]
    pub replicas: u8,
}

impl Default for AssetOptions {
    fn default() -> Self {
        Self { replicas: 1 }
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
}

/// An asset is neither there nor can it be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot open or make the JetStream asset {asset}")]
pub struct AssetError {
    /// Its name.
    pub asset: String,
    source: async_nats::Error,
}

/// Opens every asset, making those that are missing.
pub async fn ensure_assets(jetstream: &Context, options: &AssetOptions) -> Result<Assets, AssetError> {
    let replicas = usize::from(options.replicas);
    let state = state_bucket(&Tenant::default());
    let (modules, blobs, payloads, state) = tokio::try_join!(
        ensure_kv(jetstream, MODULES_BUCKET, MODULES_HISTORY, replicas),
        ensure_objects(jetstream, BLOBS_BUCKET, Duration::ZERO, replicas),
        ensure_objects(jetstream, PAYLOADS_BUCKET, PAYLOADS_MAX_AGE, replicas),
        ensure_kv(jetstream, &state, 1, replicas),
    )?;
    Ok(Assets {
        modules,
        blobs,
        payloads,
        state,
    })
}

async fn ensure_kv(
    jetstream: &Context,
    asset: &str,
    history: i64,
    num_replicas: usize,
) -> Result<Store, AssetError> {
    let config = kv::Config {
        bucket: asset.into(),
        history,
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
    num_replicas: usize,
) -> Result<Bucket, AssetError> {
    let storage = StorageType::File;
    let config = object_store::Config {
        bucket: asset.into(),
        max_age,
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
        .map_err(|error| AssetError {
            asset: asset.into(),
            source: error.into(),
        })
}

/// Get, else make, else get what another process made meanwhile with other settings.
async fn ensure<T, G, C>(
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
trait ResultOf<T> {
    fn boxed(self) -> Result<T, async_nats::Error>;
}

impl<T, E: Into<async_nats::Error>> ResultOf<T> for Result<T, E> {
    fn boxed(self) -> Result<T, async_nats::Error> {
        self.map_err(Into::into)
    }
}
