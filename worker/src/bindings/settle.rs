//! What becomes of one message of a bound stream: its guest runs, its output is published, and only then it is acknowledged.
//!
//! Invariant: a message leaves the binding only after its output went out, or after a letter holds it. Guests spend attempts;
//! our own faults do not.

use std::time::Duration;

use async_nats::jetstream::Message;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha2::{Digest as _, Sha256};
use tokio::sync::oneshot;
use wess_schemas::binding::Binding;
use wess_schemas::job::{DeadReason, JobKind, JobRecord, JobRequest, JobState};
use wess_schemas::limits::MAX_WAIT_MS;
use wess_schemas::timestamp::Timestamp;
use wess_schemas::{Digest, ErrorBody, ErrorCode, JobId};

use super::run::{Delivered, ended, succeeded};
use super::stream::Bound;
use crate::call::CallResult;
use crate::executor::Arrival;
use crate::queue::dead::Death;
use crate::queue::ending::{Blame, blame};
use crate::queue::records::Current;
use crate::queue::stored::{QueuedJob, digest_of};

/// Deliveries of one message before it is given up.
const MAX_DELIVERIES: i64 = 20;
/// How long to wait before JetStream is asked again to take a record or a letter.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest pause before a message is delivered again that we failed.
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// What the stream is told of a delivery.
pub(super) enum Verdict {
    /// It has ended.
    Done,
    /// It is delivered again, after a pause.
    Again(Duration),
    /// The same, and nothing else is worth trying meanwhile.
    Wait(Duration),
}

/// A message in hand.
pub(super) struct Delivery {
    pub(super) message: Message,
    /// The same at each delivery, and no other message's.
    id: JobId,
    sequence: u64,
    deliveries: i64,
    published: Timestamp,
}

/// How a message is given up.
struct End {
    reason: DeadReason,
    error: ErrorBody,
    attempts: u32,
}

impl Delivery {
    /// A message that does not say where it is from is nobody's.
    pub(super) fn read(binding: &Binding, message: Message) -> Option<Self> {
        let (sequence, deliveries, published) = match message.info() {
            Ok(info) => (info.stream_sequence, info.delivered, info.published),
            Err(error) => {
                tracing::error!(binding = %binding.name, %error, "a message does not say where it is from");
                return None;
            }
        };
        let place = (
            &binding.name,
            &binding.stream,
            sequence,
            published.unix_timestamp_nanos(),
        );
        let digest = Digest::from_bytes(Sha256::digest(format!("{place:?}")).into());
        let hex: String = digest
            .to_string()
            .chars()
            .skip("sha256:".len())
            .take(16)
            .collect();
        Some(Self {
            id: format!("bind-{sequence}-{hex}").parse().ok()?,
            message,
            sequence,
            deliveries,
            published: published.into(),
        })
    }
}

impl Bound {
    pub(super) async fn settle(&self, delivery: &Delivery) -> Verdict {
        let current = match delivery.deliveries {
            ..=1 => Current::default(),
            _ => match self.host.job_records.read(&delivery.id).await {
                Ok(current) => current,
                Err(_) => return again(delivery),
            },
        };
        let attempts = current.record.as_ref().map_or(0, |record| record.attempts);
        match current.ending().map(|record| record.state) {
            // Its letter may not have been stored before the worker went.
            Some(JobState::Dead) => {
                let record = current.record.as_ref();
                let error = record.and_then(|record| record.error.clone());
                let error = ErrorBody {
                    error: error.unwrap_or_else(|| too_many(delivery).error),
                    job_id: None,
                };
                let reason = match blame(error.code()) {
                    Blame::Guest => DeadReason::AttemptsExhausted,
                    Blame::Request => DeadReason::Refused,
                    Blame::Ours => DeadReason::TooManyDeliveries,
                };
                self.bury(
                    delivery,
                    &End {
                        reason,
                        error,
                        attempts,
                    },
                )
                .await;
                return Verdict::Done;
            }
            Some(_) => return Verdict::Done,
            None => {}
        }
        if delivery.deliveries > MAX_DELIVERIES {
            let (reason, error) = (DeadReason::TooManyDeliveries, too_many(delivery));
            return self
                .give_up(
                    delivery,
                    current,
                    End {
                        reason,
                        error,
                        attempts,
                    },
                )
                .await;
        }
        match self.run(delivery).await {
            Ok(()) => self.succeed(delivery, &current).await,
            Err(error) => self.fail(delivery, current, error).await,
        }
    }

    fn delivered<'a>(&'a self, delivery: &'a Delivery) -> Delivered<'a> {
        Delivered {
            binding: &self.binding,
            subject: &delivery.message.subject,
            place: Some((&self.stream, delivery.sequence)),
            headers: delivery.message.headers.as_ref(),
            payload: &delivery.message.payload,
        }
    }

    /// Runs the guest and publishes its output.
    async fn run(&self, delivery: &Delivery) -> Result<(), ErrorBody> {
        let delivered = self.delivered(delivery);
        // It waits in the line of an executor only until a slot is free; past that it is delivered again.
        let call = delivered.call(delivery.id.clone(), Duration::from_millis(MAX_WAIT_MS))?;
        let (answer, answered): (_, oneshot::Receiver<CallResult>) = oneshot::channel();
        self.host
            .executors
            .dispatch_to_idlest(Arrival::Step(Box::new(call), answer))?;
        let finished = succeeded(ended(answered).await)?;
        match &self.binding.publish_to {
            Some(target) => {
                let outgoing = delivered.outgoing(target, Some(&delivery.id));
                self.host.outputs.publish(outgoing, finished).await
            }
            None => Ok(()),
        }
    }

    async fn succeed(&self, delivery: &Delivery, current: &Current) -> Verdict {
        self.host.stats.ran(&self.binding.name);
        if current.record.is_some()
            && let Err(error) = self.host.job_records.delete(&delivery.id, current.revision).await
        {
            tracing::debug!(job_id = %delivery.id, %error, "the record of earlier attempts stays until it is too old");
        }
        Verdict::Done
    }

    async fn fail(&self, delivery: &Delivery, current: Current, error: ErrorBody) -> Verdict {
        self.host.stats.failed(&self.binding.name, error.code());
        let attempts = current.record.as_ref().map_or(0, |record| record.attempts);
        let gave_up = |reason, attempts| End {
            reason,
            error: error.clone(),
            attempts,
        };
        let most = self.binding.retry.as_ref().map_or(1, |retry| retry.max_attempts);
        match blame(error.code()) {
            Blame::Guest if attempts + 1 < most => self.note(delivery, current, error).await,
            Blame::Guest => {
                let end = gave_up(DeadReason::AttemptsExhausted, attempts + 1);
                self.give_up(delivery, current, end).await
            }
            // The module may come back, and then the message is as good as ever.
            Blame::Request
                if matches!(
                    error.code(),
                    ErrorCode::ModuleNotFound | ErrorCode::FunctionNotFound
                ) =>
            {
                Verdict::Wait(pause_before(delivery.deliveries + 1))
            }
            Blame::Request => {
                self.give_up(delivery, current, gave_up(DeadReason::Refused, attempts))
                    .await
            }
            Blame::Ours => {
                tracing::warn!(binding = %self.binding.name, job_id = %delivery.id, %error, deliveries = delivery.deliveries, "a message failed by our fault: it is delivered again");
                again(delivery)
            }
        }
    }

    /// Writes down that a guest has failed, and has the message come again.
    async fn note(&self, delivery: &Delivery, current: Current, error: ErrorBody) -> Verdict {
        let mut record = self.record(delivery, &current);
        record.attempts += 1;
        record.error = Some(error.error);
        let retry = self.binding.retry.as_ref();
        let pause_ms = retry.map_or(1000, |retry| retry.backoff_ms(record.attempts));
        match self.host.job_records.write(&record, current.revision).await {
            Ok(_) => Verdict::Again(Duration::from_millis(pause_ms.max(1))),
            Err(error) => {
                tracing::warn!(job_id = %delivery.id, %error, "an attempt was not written down, and is not counted");
                again(delivery)
            }
        }
    }

    /// The record comes first, as a job's does: whoever finds it without its letter makes up for that.
    async fn give_up(&self, delivery: &Delivery, current: Current, end: End) -> Verdict {
        let record = JobRecord {
            state: JobState::Dead,
            attempts: end.attempts,
            finished: Some(Timestamp::now()),
            error: Some(end.error.error.clone()),
            ..self.record(delivery, &current)
        };
        if let Err(error) = self.host.job_records.write(&record, current.revision).await {
            tracing::warn!(job_id = %delivery.id, %error, "the end of a message was not written down yet");
            return again(delivery);
        }
        tracing::warn!(binding = %self.binding.name, job_id = %delivery.id, error = %end.error, reason = end.reason.as_str(), "a message was given up");
        self.bury(delivery, &end).await;
        Verdict::Done
    }

    fn record(&self, delivery: &Delivery, current: &Current) -> JobRecord {
        let known = current.record.clone();
        let record = known.unwrap_or_else(|| self.job(delivery, self.request(delivery)).record());
        JobRecord {
            worker: Some(self.host.worker.clone()),
            ..record
        }
    }

    /// The run as a job would ask for it, with the message's body as its input.
    fn request(&self, delivery: &Delivery) -> JobRequest {
        let mut invocation = self.delivered(delivery).invocation();
        let body = &delivery.message.payload;
        match std::str::from_utf8(body) {
            Ok(text) => invocation.input = Some(text.into()),
            Err(_) => invocation.input_base64 = Some(BASE64.encode(body)),
        }
        JobRequest {
            job_id: Some(delivery.id.clone()),
            invoke: Some(Box::new(invocation)),
            retry: self.binding.retry.clone(),
            ..JobRequest::default()
        }
    }

    fn job(&self, delivery: &Delivery, request: JobRequest) -> QueuedJob {
        QueuedJob {
            job_id: delivery.id.clone(),
            kind: JobKind::Invoke,
            digest: digest_of(&self.request(delivery)),
            request,
            submitted: delivery.published,
            trace: self.delivered(delivery).trace(),
            origin: Some(self.delivered(delivery).origin()),
        }
    }

    /// Stores the letter, however long that takes: the delivery is kept meanwhile.
    async fn bury(&self, delivery: &Delivery, end: &End) {
        let death = Death {
            reason: end.reason,
            attempts: end.attempts,
            deliveries: u32::try_from(delivery.deliveries).unwrap_or(0),
            submitted: Some(delivery.published),
            error: Some(end.error.error.clone()),
        };
        while let Err(error) = self.try_to_bury(delivery, &death).await {
            tracing::warn!(job_id = %delivery.id, %error, "a dead letter was not stored yet");
            tokio::time::sleep(PAUSE).await;
        }
        self.host.stats.died(&self.binding.name);
    }

    async fn try_to_bury(&self, delivery: &Delivery, death: &Death) -> Result<(), ErrorBody> {
        let host = &self.host;
        let mut request = self.request(delivery);
        let size = serde_json::to_vec(&request).map_or(0, |body| body.len());
        if size > host.connection.client.max_payload() / 2
            && let Some(invocation) = &mut request.invoke
        {
            let storage = host.registry.storage();
            let body = &delivery.message.payload;
            invocation.input_ref = Some(storage.put_payload(Some(&delivery.id), body).await?);
            (invocation.input, invocation.input_base64) = (None, None);
        }
        let (headers, payload) = self.job(delivery, request).message();
        let stored = host
            .letters
            .put(&delivery.id, Some(&headers), payload, death)
            .await;
        stored.map_err(|error| ErrorBody::new(error.code(), error.to_string()))
    }
}

fn again(delivery: &Delivery) -> Verdict {
    Verdict::Again(pause_before(delivery.deliveries + 1))
}

fn too_many(delivery: &Delivery) -> ErrorBody {
    let text = format!(
        "delivered {} times without an end: it may crash its workers",
        delivery.deliveries - 1
    );
    ErrorBody::new(ErrorCode::Internal, text)
}

/// Doubling from half a second.
fn pause_before(delivery: i64) -> Duration {
    let doublings = delivery.saturating_sub(2).clamp(0, 16);
    Duration::from_millis(500 << doublings).min(MAX_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_minute_and_no_further() {
        let pauses = [1, 2, 3, 4, 20, i64::MAX].map(|delivery| pause_before(delivery).as_millis());
        assert_eq!(pauses, [500, 500, 1000, 2000, 60_000, 60_000]);
    }
}
