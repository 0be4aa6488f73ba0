//! Payloads too large for a message: they travel as an object of `wess-payloads` and a reference to it.
//!
//! A reference comes from a stranger: what it names is bounded by the reader and verified before it is handed out.

use async_nats::jetstream::Context;
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use uuid::Uuid;
use wess_schemas::error_code::ErrorCode;
use wess_schemas::payload::PayloadRef;
use wess_schemas::subject::PAYLOADS_BUCKET;

use crate::objects::{self, Bucket, ObjectError, Stored};

/// The largest name of an object that is looked up; ours have 36 bytes.
const MAX_NAME_BYTES: usize = 128;

/// The object store of payloads. Cheap to clone.
#[derive(Clone)]
pub struct Payloads {
    bucket: Bucket,
}

/// Why a payload could not be stored or fetched.
#[derive(Debug, thiserror::Error)]
pub enum PayloadError {
    /// The reference names more bytes than its reader takes.
    #[error("the payload has {size} bytes, {limit} are allowed")]
    TooLarge {
        /// What the reference says.
        size: u64,
        /// What the reader takes.
        limit: u64,
    },
    /// The reference's name is none that an object can have.
    #[error("the payload reference has an invalid object name")]
    InvalidName,
    /// The object could not be stored or fetched.
    #[error(transparent)]
    Object(#[from] ObjectError),
}

impl PayloadError {
    /// The code that a caller is told.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::TooLarge { .. } | Self::Object(ObjectError::TooLarge { .. }) => ErrorCode::PayloadTooLarge,
            Self::InvalidName | Self::Object(ObjectError::NotFound { .. } | ObjectError::Mismatch { .. }) => {
                ErrorCode::InvalidRequest
            }
            Self::Object(ObjectError::Copy { .. }) => ErrorCode::Internal,
            Self::Object(ObjectError::Unavailable { .. }) => ErrorCode::Unavailable,
        }
    }
}

impl Payloads {
    /// The payloads of the server behind `jetstream`, which must be there.
    pub async fn open(jetstream: &Context) -> Result<Self, async_nats::Error> {
        let store = jetstream.get_object_store(PAYLOADS_BUCKET).await?;
        Ok(Self::new(Bucket::new(jetstream, store, PAYLOADS_BUCKET).await?))
    }

    /// Payloads in `bucket`.
    pub fn new(bucket: Bucket) -> Self {
        Self { bucket }
    }

    /// Stores bytes under a new name.
    pub async fn put(&self, bytes: &[u8]) -> Result<PayloadRef, PayloadError> {
        self.put_stream(bytes, bytes.len() as u64).await
    }

    /// Stores what `source` gives under a new name, at most `limit` bytes.
    pub async fn put_stream(
        &self,
        source: impl AsyncRead + Unpin,
        limit: u64,
    ) -> Result<PayloadRef, PayloadError> {
        let object = Uuid::new_v4().to_string();
        let Stored { digest, size } = objects::put(&self.bucket, &object, source, limit).await?;
        Ok(PayloadRef { object, digest, size })
    }

    /// Fetches a payload of at most `limit` bytes. What it returns has the reference's size and digest.
    pub async fn get(&self, reference: &PayloadRef, limit: u64) -> Result<Bytes, PayloadError> {
        let mut bytes = Vec::new();
        self.copy(reference, limit, &mut bytes).await?;
        // Readers count the bytes, not what growing left behind them.
        bytes.shrink_to_fit();
        Ok(bytes.into())
    }

    /// Copies a payload of at most `limit` bytes to `sink`. Only after `Ok` may they be used.
    pub async fn copy(
        &self,
        reference: &PayloadRef,
        limit: u64,
        sink: &mut (impl AsyncWrite + Unpin),
    ) -> Result<(), PayloadError> {
        let PayloadRef { object, digest, size } = reference;
        if *size > limit {
            return Err(PayloadError::TooLarge { size: *size, limit });
        }
        if object.is_empty() || object.len() > MAX_NAME_BYTES {
            return Err(PayloadError::InvalidName);
        }
        Ok(objects::copy(
            &self.bucket,
            object,
            Stored {
                digest: *digest,
                size: *size,
            },
            sink,
        )
        .await?)
    }

    /// Deletes a payload that was used. A failure is only logged: the store forgets it within the hour anyway.
    pub async fn discard(&self, reference: &PayloadRef) {
        if let Err(error) = objects::delete(&self.bucket, &reference.object).await {
            tracing::debug!(object = reference.object, %error, "a used payload was not deleted");
        }
    }
}
