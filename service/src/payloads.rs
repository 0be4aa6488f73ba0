//! Payloads too large for a message: they travel as an object and a reference to it. Those of calls are forgotten within
//! the hour, those of jobs go with their job.
//!
//! A reference comes from a stranger: what it names is bounded by the reader and verified before it is handed out.

use async_nats::jetstream::Context;
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use uuid::Uuid;
use wess_schemas::JobId;
use wess_schemas::error_code::ErrorCode;
use wess_schemas::payload::{PayloadBucket, PayloadRef};
use wess_schemas::subject::{JOB_PAYLOADS_BUCKET, PAYLOADS_BUCKET};

use crate::objects::{self, Bucket, ObjectError, Stored};

/// The largest name of an object that is looked up; ours have 36 bytes.
const MAX_NAME_BYTES: usize = 128;

/// The object stores of payloads. Cheap to clone.
#[derive(Clone)]
pub struct Payloads {
    calls: Bucket,
    jobs: Bucket,
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
        let open = async |name| {
            let store = jetstream.get_object_store(name).await?;
            Ok::<_, async_nats::Error>(Bucket::new(jetstream, store, name).await?)
        };
        Ok(Self::new(
            open(PAYLOADS_BUCKET).await?,
            open(JOB_PAYLOADS_BUCKET).await?,
        ))
    }

    /// Payloads of calls and of jobs.
    pub fn new(calls: Bucket, jobs: Bucket) -> Self {
        Self { calls, jobs }
    }

    fn bucket(&self, bucket: PayloadBucket) -> &Bucket {
        match bucket {
            PayloadBucket::Calls => &self.calls,
            PayloadBucket::Jobs => &self.jobs,
        }
    }

    /// Stores a call's bytes under a new name.
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
        self.put_as(PayloadBucket::Calls, object, source, limit).await
    }

    /// Stores a job's bytes under a new name that begins with the job's id.
    pub async fn put_for_job(&self, job_id: &JobId, bytes: &[u8]) -> Result<PayloadRef, PayloadError> {
        let object = format!("{job_id}.{}", Uuid::new_v4().simple());
        self.put_as(PayloadBucket::Jobs, object, bytes, bytes.len() as u64)
            .await
    }

    async fn put_as(
        &self,
        bucket: PayloadBucket,
        object: String,
        source: impl AsyncRead + Unpin,
        limit: u64,
    ) -> Result<PayloadRef, PayloadError> {
        let Stored { digest, size } = objects::put(self.bucket(bucket), &object, source, limit).await?;
        Ok(PayloadRef {
            bucket,
            object,
            digest,
            size,
        })
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
        let PayloadRef {
            bucket,
            object,
            digest,
            size,
        } = reference;
        if *size > limit {
            return Err(PayloadError::TooLarge { size: *size, limit });
        }
        if object.is_empty() || object.len() > MAX_NAME_BYTES {
            return Err(PayloadError::InvalidName);
        }
        Ok(objects::copy(
            self.bucket(*bucket),
            object,
            Stored {
                digest: *digest,
                size: *size,
            },
            sink,
        )
        .await?)
    }

    /// Deletes a payload that was used. A failure is only logged: it is forgotten sooner or later anyway.
    pub async fn discard(&self, reference: &PayloadRef) {
        if let Err(error) = objects::delete(self.bucket(reference.bucket), &reference.object).await {
            tracing::debug!(object = reference.object, %error, "a used payload was not deleted");
        }
    }
}
