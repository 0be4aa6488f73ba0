//! Wasm bytes in the object store `wess-blobs`, named by their digest, so that they never change.
//!
//! Bytes are bounded and verified before anything uses them; an object with missing chunks is stored again.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use async_nats::jetstream::object_store::{InfoErrorKind, ObjectInfo};
use bytes::Bytes;
use futures_util::TryStreamExt;
use wess_schemas::Digest;
use wess_schemas::error::ErrorBody;
use wess_schemas::error_code::ErrorCode;
use wess_schemas::subject::BLOBS_BUCKET;
use wess_service::objects::{self, Bucket, ObjectError, Stored};

use super::stats::RegistryStats;
use super::storage::Storage;

/// The object store of modules.
pub(super) struct Blobs {
    storage: Storage,
    stats: RegistryStats,
    /// Where bytes are kept while they come in.
    temporary: PathBuf,
    max_bytes: u64,
}

impl Blobs {
    pub(super) fn new(storage: Storage, stats: RegistryStats, temporary: PathBuf, max_bytes: u64) -> Self {
        Self {
            storage,
            stats,
            temporary,
            max_bytes,
        }
    }

    /// Stores bytes that have this digest, unless they are there whole. They are durable once this returns.
    pub(super) async fn put(&self, digest: Digest, bytes: &[u8]) -> Result<(), ErrorBody> {
        let blobs = self.storage.assets().await?.blobs;
        if let Some(info) = self.info(&blobs, digest).await?
            && info.size == bytes.len()
            && self.is_whole(&info).await?
        {
            return Ok(());
        }
        let stored = objects::put(&blobs, &digest.to_string(), bytes, self.max_bytes).await;
        stored.map(drop).map_err(|error| self.explain(&error))
    }

    /// Fetches bytes and verifies them.
    pub(super) async fn fetch(&self, digest: Digest) -> Result<Bytes, ErrorBody> {
        let blobs = self.storage.assets().await?.blobs;
        let not_stored = || {
            ErrorBody::new(
                ErrorCode::Unavailable,
                format!("the bytes of {digest} are not stored"),
            )
        };
        let size = self.info(&blobs, digest).await?.ok_or_else(not_stored)?.size as u64;
        if size > self.max_bytes {
            return Err(ErrorBody::new(
                ErrorCode::UnsupportedModule,
                format!("{digest} has {size} bytes, this worker takes {}", self.max_bytes),
            ));
        }
        self.stats.blobs_fetched.inc();
        let expected = Stored { digest, size };
        match self.fetch_to_disk(&blobs, expected).await {
            // Its own disk may be full; the call is still answered.
            Err(ObjectError::Copy { source, .. }) => {
                self.stats.disk_failures.inc();
                tracing::warn!(error = %source, "a module is fetched into memory: the local disk failed");
                self.fetch_to_memory(&blobs, expected).await
            }
            fetched => fetched,
        }
        .map_err(|error| self.explain(&error))
    }

    async fn fetch_to_disk(&self, blobs: &Bucket, expected: Stored) -> Result<Bytes, ObjectError> {
        let object = expected.digest.to_string();
        let failed = |source| ObjectError::Copy {
            object: object.clone(),
            source,
        };
        let folder = self.temporary.clone();
        let file = blocking(move || tempfile::tempfile_in(folder))
            .await
            .map_err(failed)?;
        let mut sink = tokio::fs::File::from_std(file.try_clone().map_err(failed)?);
        objects::copy(blobs, &object, expected, &mut sink).await?;
        tokio::io::AsyncWriteExt::flush(&mut sink).await.map_err(failed)?;
        blocking(move || read_all(file)).await.map_err(failed)
    }

    async fn fetch_to_memory(&self, blobs: &Bucket, expected: Stored) -> Result<Bytes, ObjectError> {
        let mut bytes = Vec::new();
        objects::copy(blobs, &expected.digest.to_string(), expected, &mut bytes).await?;
        Ok(bytes.into())
    }

    async fn info(&self, blobs: &Bucket, digest: Digest) -> Result<Option<ObjectInfo>, ErrorBody> {
        match blobs.store.info(digest.to_string()).await {
            Ok(info) => Ok(Some(info).filter(|info| !info.deleted)),
            Err(error) if error.kind() == InfoErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.away(&error)),
        }
    }

    /// Whether all chunks of an object are there: its metadata alone would still be found after they were lost.
    async fn is_whole(&self, info: &ObjectInfo) -> Result<bool, ErrorBody> {
        let away = |error: &dyn std::error::Error| self.away(error);
        let stream = self
            .storage
            .jetstream()
            .get_stream_no_info(format!("OBJ_{BLOBS_BUCKET}"))
            .await;
        let stream = stream.map_err(|error| away(&error))?;
        let chunks = format!("$O.{BLOBS_BUCKET}.C.{}", info.nuid);
        let subjects = stream
            .info_builder()
            .subjects(chunks)
            .fetch()
            .await
            .map_err(|error| away(&error))?;
        let counts: Vec<usize> = subjects
            .map_ok(|(_, count)| count)
            .try_collect()
            .await
            .map_err(|error| away(&error))?;
        Ok(counts.iter().sum::<usize>() == info.chunks)
    }

    fn explain(&self, error: &ObjectError) -> ErrorBody {
        let text = error.to_string();
        match error {
            ObjectError::TooLarge { .. } => ErrorBody::new(ErrorCode::PayloadTooLarge, text),
            ObjectError::Copy { .. } => ErrorBody::new(ErrorCode::Internal, text).before_guest(),
            ObjectError::NotFound { .. } | ObjectError::Mismatch { .. } => {
                tracing::error!(%error, "a stored module is damaged");
                ErrorBody::new(ErrorCode::Unavailable, text)
            }
            ObjectError::Unavailable { source, .. } => self.away(source.as_ref()),
        }
    }

    fn away(&self, error: &dyn std::error::Error) -> ErrorBody {
        tracing::warn!(%error, "the object store of modules did not answer");
        self.storage.forget();
        ErrorBody::new(
            ErrorCode::Unavailable,
            "the object store of modules did not answer",
        )
    }
}

async fn blocking<T: Send + 'static>(
    task: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> std::io::Result<T> {
    tokio::task::spawn_blocking(task).await?
}

fn read_all(mut file: File) -> std::io::Result<Bytes> {
    use std::io::{Seek, SeekFrom};
    let mut bytes = Vec::with_capacity(usize::try_from(file.seek(SeekFrom::End(0))?).unwrap_or_default());
    file.seek(SeekFrom::Start(0))?;
    file.read_to_end(&mut bytes)?;
    Ok(bytes.into())
}
