//! The way to JetStream: its assets, opened when they are first needed and again after they were lost.
//!
//! A process may start and serve while JetStream is away, so having no assets is a state, not a failure to start.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use async_nats::Client;
use async_nats::connection::State;
use async_nats::jetstream::stream::Stream;
use async_nats::jetstream::{self, Context};
use bytes::Bytes;
use tokio::sync::Mutex;
use wess_schemas::error::ErrorBody;
use wess_schemas::error_code::ErrorCode;
use wess_schemas::payload::PayloadRef;
use wess_schemas::{JobId, Tenant};
use wess_service::assets::{AssetOptions, Assets, ensure_assets, ensure_guest_objects};
use wess_service::payloads::PayloadError;

/// Bounds one attempt to open all assets.
const ENSURE_TIMEOUT: Duration = Duration::from_secs(10);

/// Handles to all assets, when there are any. Cheap to clone.
#[derive(Clone)]
pub struct Storage(Arc<Inner>);

struct Inner {
    client: Client,
    jetstream: Context,
    options: AssetOptions,
    assets: RwLock<Option<Assets>>,
    /// When the last attempt to open them failed, and why.
    ensuring: Mutex<Option<(Instant, StorageAway)>>,
    /// What is below the object store of guests, once one of them has asked.
    objects: Mutex<Option<Stream<()>>>,
}

/// JetStream is away.
#[derive(Debug, Clone, thiserror::Error)]
#[error("JetStream is not available")]
pub struct StorageAway(#[source] Option<Arc<dyn std::error::Error + Send + Sync>>);

impl From<StorageAway> for ErrorBody {
    fn from(away: StorageAway) -> Self {
        Self::new(ErrorCode::Unavailable, away.to_string())
    }
}

impl Storage {
    /// Opens nothing yet.
    pub fn new(client: Client, options: AssetOptions) -> Self {
        let jetstream = jetstream::new(client.clone());
        Self(Arc::new(Inner {
            client,
            jetstream,
            options,
            assets: RwLock::default(),
            ensuring: Mutex::default(),
            objects: Mutex::default(),
        }))
    }

    /// The assets, opened or made now if they are not open. Fails at once without a connection.
    pub async fn assets(&self) -> Result<Assets, StorageAway> {
        if self.0.client.connection_state() != State::Connected {
            return Err(StorageAway(None));
        }
        match self.opened() {
            Some(assets) => Ok(assets),
            None => self.open().await,
        }
    }

    /// Makes the next to ask open the assets anew: one of them was not found.
    pub fn forget(&self) {
        *self.0.assets.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// What is below the object store of guests, which is made when the first of them asks. Fails at once without a connection.
    pub async fn objects(&self) -> Result<Stream<()>, StorageAway> {
        if self.0.client.connection_state() != State::Connected {
            return Err(StorageAway(None));
        }
        let mut objects = self.0.objects.lock().await;
        if let Some(objects) = &*objects {
            return Ok(objects.clone());
        }
        let tenant = Tenant::default();
        let made = ensure_guest_objects(&self.0.jetstream, &tenant, &self.0.options);
        let made = made.await.map_err(|error| StorageAway(Some(Arc::new(error))))?;
        Ok(objects.insert(made.stream().clone()).clone())
    }

    /// Makes the next guest that asks for objects look for their store anew.
    pub fn forget_objects(&self) {
        // Whoever holds it is looking.
        if let Ok(mut objects) = self.0.objects.try_lock() {
            *objects = None;
        }
    }

    /// Stores a payload that is too large for a message: a job's own, or a call's.
    pub async fn put_payload(&self, job_id: Option<&JobId>, bytes: &[u8]) -> Result<PayloadRef, ErrorBody> {
        let payloads = self.assets().await?.payloads();
        let stored = match job_id {
            Some(job_id) => payloads.put_for_job(job_id, bytes).await,
            None => payloads.put(bytes).await,
        };
        stored.map_err(|error| self.told(&error))
    }

    /// Copies a payload that a job was submitted with to where it is kept for as long as the job.
    pub async fn keep_for_job(
        &self,
        job_id: &JobId,
        stored: &PayloadRef,
        limit_bytes: u64,
    ) -> Result<PayloadRef, ErrorBody> {
        let bytes = self.get_payload(stored, limit_bytes).await?;
        self.put_payload(Some(job_id), &bytes).await
    }

    /// Deletes a payload that nothing refers to.
    pub async fn discard(&self, stored: &PayloadRef) {
        if let Ok(assets) = self.assets().await {
            assets.payloads().discard(stored).await;
        }
    }

    /// Stores a guest's output that is too large for a message. Without it the call has failed, though the guest ran.
    pub async fn put_output(&self, output: &[u8]) -> Result<PayloadRef, ErrorBody> {
        self.put_output_of(None, output).await
    }

    /// As [`Storage::put_output`], for a job where there is one.
    pub async fn put_output_of(
        &self,
        job_id: Option<&JobId>,
        output: &[u8],
    ) -> Result<PayloadRef, ErrorBody> {
        self.put_payload(job_id, output).await.map_err(|error| {
            tracing::warn!(%error, "an output could not be stored");
            let message =
                "the guest answered, but its output is too large for a message and could not be stored";
            ErrorBody::new(ErrorCode::Internal, message)
        })
    }

    /// Fetches a payload of at most `limit_bytes`, verified.
    pub async fn get_payload(&self, stored: &PayloadRef, limit_bytes: u64) -> Result<Bytes, ErrorBody> {
        let payloads = self.assets().await?.payloads();
        payloads
            .get(stored, limit_bytes)
            .await
            .map_err(|error| self.told(&error))
    }

    /// What a caller is told; a store that is away may be gone, and is looked for anew by the next to ask.
    fn told(&self, error: &PayloadError) -> ErrorBody {
        if error.code() == ErrorCode::Unavailable {
            let cause = std::error::Error::source(error).map(ToString::to_string);
            tracing::warn!(%error, cause, "the object store of payloads failed");
            self.forget();
        }
        ErrorBody::new(error.code(), error.to_string())
    }

    /// The connection.
    pub fn client(&self) -> &Client {
        &self.0.client
    }

    /// JetStream behind it.
    pub fn jetstream(&self) -> &Context {
        &self.0.jetstream
    }

    fn opened(&self) -> Option<Assets> {
        self.0
            .assets
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    async fn open(&self) -> Result<Assets, StorageAway> {
        let asked = Instant::now();
        let mut last_failure = self.0.ensuring.lock().await;
        if let Some(assets) = self.opened() {
            return Ok(assets);
        }
        // Who waited while another tried shares what came of it, instead of trying as long again.
        if let Some((failed, away)) = &*last_failure
            && *failed > asked
        {
            return Err(away.clone());
        }
        let ensured =
            tokio::time::timeout(ENSURE_TIMEOUT, ensure_assets(&self.0.jetstream, &self.0.options)).await;
        let assets = match ensured {
            Ok(Ok(assets)) => Ok(assets),
            Ok(Err(error)) => Err(StorageAway(Some(Arc::new(error)))),
            Err(elapsed) => Err(StorageAway(Some(Arc::new(elapsed)))),
        };
        let assets = assets.inspect_err(|away| *last_failure = Some((Instant::now(), away.clone())))?;
        *self.0.assets.write().unwrap_or_else(PoisonError::into_inner) = Some(assets.clone());
        Ok(assets)
    }
}
