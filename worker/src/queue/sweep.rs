//! Jobs that were delivered as often as they may be, and are in nobody's hands: the server says so by an advisory, and
//! leaves them in the stream. They become dead letters here.
//!
//! The advisories are kept in `WESS_DEAD` until they are seen to: a job that kills every worker that takes it ends there.

use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::RawMessageErrorKind;
use async_nats::jetstream::{AckKind, Message};
use serde::Deserialize;
use wess_schemas::error::Failure;
use wess_schemas::job::{DeadReason, JobRecord, JobState};
use wess_schemas::subject::JOBS_STREAM;
use wess_schemas::timestamp::Timestamp;
use wess_schemas::{ErrorBody, ErrorCode};

use super::Clock;
use super::dead::{Death, Letters, is_gone};
use super::records::{Current, Records};
use super::stats::JobStats;
use super::stored::QueuedJob;
use crate::registry::Storage;

/// Sees to advisories.
#[derive(Clone)]
pub struct Sweep {
    /// The way to the streams.
    pub storage: Storage,
    /// Where it puts what it finds.
    pub letters: Letters,
    /// Jobs' records.
    pub records: Records,
    /// What the times in records are told by.
    pub clock: Clock,
    /// What is counted.
    pub stats: JobStats,
    /// Whose subjects they are.
    pub subjects: wess_schemas::subject::Subjects,
}

/// What the server says, as far as it matters here.
#[derive(Debug, Deserialize)]
struct Advisory {
    stream_seq: u64,
    deliveries: u32,
}

impl Sweep {
    /// Sees to one advisory; one that cannot be seen to now comes again.
    pub async fn process(&self, message: Message) {
        let ack = match self.see_to(&message).await {
            Ok(()) => AckKind::Ack,
            Err(error) => {
                tracing::warn!(%error, "a job that was delivered too often could not be given up yet");
                AckKind::Nak(Some(std::time::Duration::from_secs(1)))
            }
        };
        if let Err(error) = message.ack_with(ack).await {
            tracing::debug!(%error, "an advisory was not acknowledged");
        }
    }

    async fn see_to(&self, message: &Message) -> Result<(), ErrorBody> {
        let sequence = message
            .info()
            .map_err(|error| unavailable(&error))?
            .stream_sequence;
        if let Ok(advisory) = serde_json::from_slice::<Advisory>(&message.payload) {
            self.give_up(&advisory).await?;
        }
        self.letters.delete(sequence).await
    }

    async fn give_up(&self, advisory: &Advisory) -> Result<(), ErrorBody> {
        let jetstream = self.storage.jetstream();
        let jobs = jetstream
            .get_stream_no_info(self.subjects.stream(JOBS_STREAM))
            .await
            .map_err(|error| unavailable(&error))?;
        let sequence = advisory.stream_seq;
        let message = match jobs.get_raw_message(sequence).await {
            Ok(message) => message,
            Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => return Ok(()),
            Err(error) => return Err(unavailable(&error)),
        };
        self.bury(message, advisory.deliveries).await?;
        match jobs.delete_message(sequence).await {
            Ok(_) => Ok(()),
            Err(error) if is_gone(&error) => Ok(()),
            Err(error) => Err(unavailable(&error)),
        }
    }

    /// The record comes first, as everywhere; a job that came to another end meanwhile has no letter.
    async fn bury(&self, message: StreamMessage, deliveries: u32) -> Result<(), ErrorBody> {
        let (_, _, job_id) = self
            .subjects
            .parse_queued(&message.subject)
            .map_err(|error| unavailable(&error))?;
        let submitted = Timestamp::from(message.time);
        let text = format!("delivered {deliveries} times without an end: it may crash its workers");
        let why = ErrorBody::new(ErrorCode::Internal, text).error;
        let current = self.records.read(&job_id).await?;
        match current.ending() {
            Some(ending) if ending.state != JobState::Dead => return Ok(()),
            Some(_) => {}
            None => {
                let (headers, payload) = (Some(&message.headers), &message.payload);
                if let Ok(job) = QueuedJob::read(job_id.clone(), headers, payload, submitted) {
                    self.write_down(&job, &current, &why).await?;
                    tracing::warn!(%job_id, deliveries, "a job was given up: delivered too often");
                }
            }
        }
        let death = Death {
            reason: DeadReason::TooManyDeliveries,
            attempts: current.record.as_ref().map_or(0, |record| record.attempts),
            deliveries,
            submitted: Some(submitted),
            error: Some(why),
        };
        let letter = self
            .letters
            .put(&job_id, Some(&message.headers), message.payload, &death);
        letter.await.map_err(|error| unavailable(&error))
    }

    async fn write_down(&self, job: &QueuedJob, current: &Current, why: &Failure) -> Result<(), ErrorBody> {
        let record = JobRecord {
            state: JobState::Dead,
            finished: Some((self.clock)()),
            error: Some(why.clone()),
            ..current.record.clone().unwrap_or_else(|| job.record())
        };
        let written = self.records.write(&record, current.revision).await;
        written.map_err(|error| unavailable(&error))?;
        self.stats.swept.inc();
        self.stats.ended(JobState::Dead);
        Ok(())
    }
}

fn unavailable(error: &dyn std::fmt::Display) -> ErrorBody {
    ErrorBody::new(ErrorCode::Unavailable, error.to_string())
}
