//! Large payloads of jobs go when nothing knows their job any more: neither a record, nor the queue, a schedule or a letter.
//!
//! Looks at what is older than any record can be, so that a payload is never ahead of its job.

use std::time::Duration;

use async_nats::jetstream::stream::LastRawMessageErrorKind;
use futures_util::StreamExt;
use time::OffsetDateTime;
use wess_schemas::subject::{DEAD_STREAM, JOBS_STREAM, Queue, Subjects, TIMERS_STREAM};
use wess_schemas::{ErrorBody, ErrorCode, JobId, Tenant};
use wess_service::queue::server_time;

use super::records::Records;
use crate::registry::Storage;

/// How often to look.
pub const INTERVAL: Duration = Duration::from_secs(3600);
/// How much older than a record a payload is that is looked at.
const MARGIN: Duration = Duration::from_secs(3600);

/// Sweeps `wess-job-payloads`.
pub struct PayloadSweep {
    /// The way to JetStream.
    pub storage: Storage,
    /// Jobs' records.
    pub records: Records,
    /// Whose subjects they are.
    pub subjects: Subjects,
    /// How long records are kept.
    pub results_age: Duration,
}

impl PayloadSweep {
    /// Deletes what nothing knows by now; gives how many objects. Ages are counted by the clock that gave them.
    pub async fn sweep_now(&self) -> Result<usize, ErrorBody> {
        let jobs = self.subjects.stream(JOBS_STREAM);
        let now = server_time(self.storage.jetstream(), &jobs).await;
        self.sweep(now.map_err(|error| away(&error))?).await
    }

    /// Deletes what nothing knows; gives how many objects.
    pub async fn sweep(&self, now: OffsetDateTime) -> Result<usize, ErrorBody> {
        let bucket = self.storage.assets().await?.job_payloads;
        let oldest = now - self.results_age - MARGIN;
        let mut objects = bucket.store.list().await.map_err(|error| away(&error))?;
        let mut swept = 0;
        while let Some(object) = objects.next().await {
            let object = object.map_err(|error| away(&error))?;
            let is_old = object.modified.is_some_and(|modified| modified < oldest);
            let job_id = object.name.split('.').next().and_then(|id| id.parse().ok());
            let Some(job_id) = job_id.filter(|_| is_old) else {
                continue;
            };
            if !self.is_known(&job_id).await? {
                bucket
                    .store
                    .delete(&object.name)
                    .await
                    .map_err(|error| away(&error))?;
                swept += 1;
            }
        }
        Ok(swept)
    }

    async fn is_known(&self, job_id: &JobId) -> Result<bool, ErrorBody> {
        if self.records.read(job_id).await?.record.is_some() {
            return Ok(true);
        }
        // What a schedule fires has the schedule's payload, and a name that begins with its own.
        for (stream, queue) in [
            (JOBS_STREAM, Queue::Jobs),
            (TIMERS_STREAM, Queue::At),
            (DEAD_STREAM, Queue::Dead),
        ] {
            let subject = self.subjects.queued(queue, &Tenant::default(), job_id);
            let stream = self
                .storage
                .jetstream()
                .get_stream_no_info(self.subjects.stream(stream))
                .await;
            let stream = stream.map_err(|error| away(&error))?;
            match stream.get_last_raw_message_by_subject(&subject).await {
                Ok(_) => return Ok(true),
                Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => {}
                Err(error) => return Err(away(&error)),
            }
        }
        Ok(false)
    }
}

fn away(error: &dyn std::fmt::Display) -> ErrorBody {
    ErrorBody::new(
        ErrorCode::Unavailable,
        format!("payloads of jobs could not be swept: {error}"),
    )
}
