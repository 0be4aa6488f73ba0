//! Jobs' records in `wess-results`: read by the leader, written by compare-and-set.
//!
//! Invariant: a record that says how a job ended is never overwritten, except by a redrive.

use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE;
use async_nats::jetstream::stream::LastRawMessageErrorKind;
use wess_schemas::job::JobRecord;
use wess_schemas::subject::result_key;
use wess_schemas::{ErrorBody, ErrorCode, JobId, Tenant};
use wess_service::queue::{QueueError, publish};

use crate::registry::Storage;

/// Bounds one read.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The bucket, record by record. Cheap to clone.
#[derive(Clone)]
pub struct Records {
    storage: Storage,
}

/// A record at its revision; 0 where there is none.
#[derive(Debug, Clone, Default)]
pub struct Current {
    /// What the next write must expect.
    pub revision: u64,
    /// The record.
    pub record: Option<JobRecord>,
}

impl Current {
    /// The record, if it says how the job ended.
    pub fn ending(&self) -> Option<&JobRecord> {
        self.record.as_ref().filter(|record| record.state.is_final())
    }
}

impl Records {
    /// Records behind `storage`.
    pub fn new(storage: Storage) -> Self {
        Self { storage }
    }

    /// A job's record, as its leader has it.
    pub async fn read(&self, job_id: &JobId) -> Result<Current, ErrorBody> {
        let results = self.storage.assets().await?.results;
        let subject = format!("{}{}", results.prefix, result_key(&Tenant::default(), job_id));
        let reading = results.stream.get_last_raw_message_by_subject(&subject);
        let message = match tokio::time::timeout(TIMEOUT, reading).await {
            Ok(Ok(message)) => message,
            Ok(Err(error)) if error.kind() == LastRawMessageErrorKind::NoMessageFound => {
                return Ok(Current::default());
            }
            Ok(Err(error)) => return Err(self.unavailable(&error)),
            Err(elapsed) => return Err(self.unavailable(&elapsed)),
        };
        // A deletion has no body, and what nobody can read is as good as none: the job is there to be run.
        let record = serde_json::from_slice(&message.payload).ok();
        Ok(Current {
            revision: message.sequence,
            record,
        })
    }

    /// Writes a record in place of the one at a revision; [`QueueError::Duplicate`] if that is not the last one any more.
    pub async fn write(&self, record: &JobRecord, expected: u64) -> Result<u64, RecordError> {
        let results = self
            .storage
            .assets()
            .await
            .map_err(|away| RecordError::Away(away.into()))?
            .results;
        let prefix = results.put_prefix.as_ref().unwrap_or(&results.prefix);
        let subject = format!("{prefix}{}", result_key(&Tenant::default(), &record.job_id));
        let mut headers = HeaderMap::new();
        headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, expected.to_string());
        // A record always serializes: it holds what was read from JSON, text and numbers.
        let body = serde_json::to_vec(record).unwrap_or_default();
        let written = publish(self.storage.jetstream(), subject, headers, body.into()).await;
        written.map_err(|error| match error {
            QueueError::Duplicate => RecordError::Lost,
            error => {
                self.storage.forget();
                RecordError::Away(ErrorBody::new(ErrorCode::Unavailable, error.to_string()))
            }
        })
    }

    /// Deletes a record at a revision, so that its id is free.
    pub async fn delete(&self, job_id: &JobId, expected: u64) -> Result<(), ErrorBody> {
        let results = self.storage.assets().await?.results;
        let key = result_key(&Tenant::default(), job_id);
        let deleted = results.delete_expect_revision(key, Some(expected)).await;
        deleted.map_err(|error| self.unavailable(&error))
    }

    fn unavailable(&self, error: &dyn std::fmt::Display) -> ErrorBody {
        tracing::warn!(%error, "the records of jobs cannot be read");
        self.storage.forget();
        ErrorBody::new(ErrorCode::Unavailable, "the records of jobs cannot be read")
    }
}

/// Why a record was not written, or may not have been.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Somebody else wrote first.
    #[error("somebody else changed the record first")]
    Lost,
    /// JetStream is away.
    #[error(transparent)]
    Away(ErrorBody),
}
