//! Where a job is found again by its id: in its record, or, while nothing has come of it, in the message that it waits as.

use std::time::Duration;

use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::LastRawMessageErrorKind;
use wess_schemas::header::REQUEST_DIGEST;
use wess_schemas::job::{JobRecord, JobRequest};
use wess_schemas::subject::{JOBS_STREAM, Queue, Subjects, TIMERS_STREAM};
use wess_schemas::timestamp::Timestamp;
use wess_schemas::{ErrorBody, ErrorCode, JobId, Tenant};
use wess_service::queue::timers::Schedule;

use super::records::Records;
use super::stored::QueuedJob;
use crate::registry::Storage;

/// Every job that there is. Cheap to clone.
#[derive(Clone)]
pub struct KnownJobs {
    /// Their records.
    pub records: Records,
    /// The way to JetStream.
    pub storage: Storage,
    /// Whose subjects they are.
    pub subjects: Subjects,
}

/// Where a job waits.
pub enum Waiting {
    /// For a worker.
    Queued(QueuedJob, u64),
    /// For its time.
    Scheduled(QueuedJob, u64),
}

impl KnownJobs {
    /// What lies behind `storage`.
    pub fn new(storage: Storage, subjects: Subjects) -> Self {
        Self {
            records: Records::new(storage.clone()),
            storage,
            subjects,
        }
    }

    /// A job's record, or what its message says where there is none yet.
    pub async fn find(&self, job_id: &JobId) -> Result<Option<JobRecord>, ErrorBody> {
        if let Some(record) = self.records.read(job_id).await?.record {
            return Ok(Some(record));
        }
        match self.waiting(job_id).await? {
            Some(Waiting::Queued(job, _) | Waiting::Scheduled(job, _)) => Ok(Some(pending(job))),
            // It may have been settled between the two questions.
            None => Ok(self.records.read(job_id).await?.record),
        }
    }

    /// The message that a job waits as.
    pub async fn waiting(&self, job_id: &JobId) -> Result<Option<Waiting>, ErrorBody> {
        if let Some(message) = self.message(JOBS_STREAM, Queue::Jobs, job_id).await? {
            let sequence = message.sequence;
            return Ok(read(job_id, message).map(|job| Waiting::Queued(job, sequence)));
        }
        let Some(message) = self.message(TIMERS_STREAM, Queue::At, job_id).await? else {
            return Ok(None);
        };
        let sequence = message.sequence;
        Ok(read(job_id, message).map(|job| Waiting::Scheduled(job, sequence)))
    }

    async fn message(
        &self,
        stream: &str,
        queue: Queue,
        job_id: &JobId,
    ) -> Result<Option<StreamMessage>, ErrorBody> {
        let subject = self.subjects.queued(queue, &Tenant::default(), job_id);
        let stream = self.subjects.stream(stream);
        let stream = self.storage.jetstream().get_stream_no_info(stream).await;
        let stream = stream.map_err(|error| self.unavailable(&error))?;
        match stream.get_last_raw_message_by_subject(&subject).await {
            Ok(message) => Ok(Some(message)),
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
            // A server that knows no schedules has no stream for them.
            Err(_) if queue == Queue::At && self.storage.assets().await?.queue.timers.is_none() => Ok(None),
            Err(error) => Err(self.unavailable(&error)),
        }
    }

    /// What a caller is told when JetStream does not answer.
    pub fn unavailable(&self, error: &dyn std::fmt::Display) -> ErrorBody {
        tracing::warn!(%error, "the queue of jobs did not answer");
        self.storage.forget();
        ErrorBody::new(ErrorCode::Unavailable, "the queue of jobs did not answer")
    }
}

/// The record of a job of which nothing has come yet.
pub fn pending(job: QueuedJob) -> JobRecord {
    let due = match when(&job.request) {
        Some(Schedule::In(_)) => job.request.delay_ms,
        Some(Schedule::Cron { .. }) | None => None,
    };
    let record = job.record();
    JobRecord {
        due: due
            .map(|delay_ms| Timestamp::from(record.submitted.instant() + Duration::from_millis(delay_ms))),
        ..record
    }
}

fn read(job_id: &JobId, message: StreamMessage) -> Option<QueuedJob> {
    let job = QueuedJob::read(
        job_id.clone(),
        Some(&message.headers),
        &message.payload,
        message.time.into(),
    );
    job.inspect_err(|error| {
        let digest = message.headers.get(REQUEST_DIGEST).map(|digest| digest.as_str());
        tracing::error!(%job_id, digest, %error, "a job cannot be read");
    })
    .ok()
}

/// When it starts, if not at once.
pub fn when(request: &JobRequest) -> Option<Schedule> {
    match (&request.cron, request.delay_ms) {
        (Some(pattern), _) => Some(Schedule::Cron {
            pattern: pattern.clone(),
            time_zone: request.time_zone.clone(),
        }),
        (None, Some(delay_ms)) if delay_ms > 0 => Some(Schedule::In(Duration::from_millis(delay_ms))),
        (None, _) => None,
    }
}
