//! Dead letters in `WESS_DEAD`: jobs that were given up, each as it was submitted and with its reason in headers.
//!
//! Invariant: a job leaves the queue for here only after its letter is stored, and a letter leaves only after its job is
//! queued again or somebody purged it.

use async_nats::HeaderMap;
use async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE;
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::{LastRawMessageErrorKind, Stream};
use bytes::Bytes;
use wess_schemas::error::Failure;
use wess_schemas::header::{ATTEMPTS, DELIVERIES, LAST_ERROR, REASON, SUBMITTED, header_line};
use wess_schemas::job::{DeadLetter, DeadReason};
use wess_schemas::subject::{DEAD_STREAM, Queue, Subjects};
use wess_schemas::timestamp::Timestamp;
use wess_schemas::{ErrorBody, ErrorCode, JobId, Tenant};
use wess_service::queue::{QueueError, publish};

use crate::bindings::origin::Origin;
use crate::registry::Storage;

/// What is known of a job that is given up.
#[derive(Debug, Clone)]
pub struct Death {
    /// Why.
    pub reason: DeadReason,
    /// How often its guest ended.
    pub attempts: u32,
    /// How often NATS handed it over.
    pub deliveries: u32,
    /// When it was submitted.
    pub submitted: Option<Timestamp>,
    /// How the last run ended.
    pub error: Option<Failure>,
}

/// A letter and where it lies.
#[derive(Debug)]
pub struct Found {
    /// Its sequence number in the stream.
    pub sequence: u64,
    /// What it says.
    pub letter: DeadLetter,
    /// The job's message as it was.
    pub headers: HeaderMap,
    /// The job's body as it was.
    pub payload: Bytes,
}

/// The stream of dead letters. Cheap to clone.
#[derive(Clone)]
pub struct Letters {
    storage: Storage,
    subjects: Subjects,
}

impl Letters {
    /// Letters behind `storage`.
    pub fn new(storage: Storage, subjects: Subjects) -> Self {
        Self { storage, subjects }
    }

    /// Stores a letter, unless there is one for this job: then that one stands.
    pub async fn put(
        &self,
        job_id: &JobId,
        headers: Option<&HeaderMap>,
        payload: Bytes,
        death: &Death,
    ) -> Result<(), QueueError> {
        let mut headers = headers.cloned().unwrap_or_default();
        headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, "0");
        headers.insert(REASON, death.reason.as_str());
        headers.insert(ATTEMPTS, death.attempts.to_string());
        headers.insert(DELIVERIES, death.deliveries.to_string());
        if let Some(submitted) = death.submitted {
            headers.insert(SUBMITTED, submitted.to_string());
        }
        if let Some(error) = &death.error {
            headers.insert(LAST_ERROR, short(error));
        }
        let subject = self.subjects.queued(Queue::Dead, &Tenant::default(), job_id);
        match publish(self.storage.jetstream(), subject, headers, payload).await {
            Ok(_) | Err(QueueError::Duplicate) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// A job's letter.
    pub async fn get(&self, job_id: &JobId) -> Result<Found, ErrorBody> {
        let subject = self.subjects.queued(Queue::Dead, &Tenant::default(), job_id);
        match self
            .stream()
            .await?
            .get_last_raw_message_by_subject(&subject)
            .await
        {
            Ok(message) => Ok(found(job_id.clone(), message)),
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Err(not_found(job_id)),
            Err(error) => Err(self.unavailable(&error)),
        }
    }

    /// Deletes a letter, which somebody else may have done first.
    pub async fn delete(&self, sequence: u64) -> Result<(), ErrorBody> {
        let deleted = self.stream().await?.delete_message(sequence).await;
        match deleted {
            Ok(_) => Ok(()),
            Err(error) if is_gone(&error) => Ok(()),
            Err(error) => Err(self.unavailable(&error)),
        }
    }

    /// Deletes every letter, and says how many there were.
    pub async fn purge(&self) -> Result<u64, ErrorBody> {
        let every = self.subjects.queue_of(Queue::Dead, &Tenant::default());
        let purged = self.stream().await?.purge().filter(every).await;
        purged
            .map(|purged| purged.purged)
            .map_err(|error| self.unavailable(&error))
    }

    /// The stream, not asked for anything yet.
    pub async fn stream(&self) -> Result<Stream<()>, ErrorBody> {
        let stream = self
            .storage
            .jetstream()
            .get_stream_no_info(self.subjects.stream(DEAD_STREAM))
            .await;
        stream.map_err(|error| self.unavailable(&error))
    }

    fn unavailable(&self, error: &dyn std::fmt::Display) -> ErrorBody {
        tracing::warn!(%error, "the stream of dead letters did not answer");
        self.storage.forget();
        ErrorBody::new(
            ErrorCode::Unavailable,
            "the stream of dead letters did not answer",
        )
    }
}

/// Whether a message that was to be deleted is there no more.
pub fn is_gone(error: &(dyn std::error::Error + 'static)) -> bool {
    let said = std::iter::successors(Some(error), |error| error.source())
        .find_map(|error| error.downcast_ref::<async_nats::jetstream::Error>());
    said.is_some_and(|said| {
        said.error_code() == async_nats::jetstream::ErrorCode::NO_MESSAGE_FOUND
            || said.to_string().contains("no message found")
    })
}

fn not_found(job_id: &JobId) -> ErrorBody {
    ErrorBody::new(
        ErrorCode::JobNotFound,
        format!("there is no dead letter of job {job_id}"),
    )
}

/// What a stored message says. What it does not say counts as little as can be.
pub fn found(job_id: JobId, message: StreamMessage) -> Found {
    let StreamMessage {
        headers,
        payload,
        sequence,
        time,
        ..
    } = message;
    let text = |name: &str| headers.get(name).map(|value| value.as_str());
    let number = |name: &str| text(name).and_then(|text| text.parse().ok()).unwrap_or(0);
    let request = serde_json::from_slice(&payload).ok();
    let reason = text(REASON).and_then(|text| text.parse().ok());
    let origin = Origin::read(&headers);
    let letter = DeadLetter {
        job_id,
        reason: reason.unwrap_or(DeadReason::Unreadable),
        attempts: number(ATTEMPTS),
        deliveries: number(DELIVERIES),
        died: Timestamp::from(time),
        submitted: text(SUBMITTED).and_then(Timestamp::parse),
        binding: origin.as_ref().map(|origin| origin.binding.clone()),
        publish_to: origin.and_then(|origin| origin.publish_to),
        error: text(LAST_ERROR).and_then(|text| serde_json::from_str(text).ok()),
        request,
    };
    Found {
        sequence,
        letter,
        headers,
        payload,
    }
}

/// An error that fits into a header: its detail, a backtrace say, stays out.
fn short(error: &Failure) -> String {
    let short = Failure {
        message: header_line(&error.message),
        detail: serde_json::Map::new(),
        ..error.clone()
    };
    // A failure always serializes; JSON escapes what would end a header's line.
    serde_json::to_string(&short).unwrap_or_default()
}
