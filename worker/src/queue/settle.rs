//! What becomes of a job that was handed over: it is run, its outcome stored, everybody told, and only then acknowledged.
//! The only place that acks jobs.
//!
//! Invariant: a job leaves the queue only after a record, or a letter and a record, say how it ended. Whoever loses the
//! race for the record adopts the winner's.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_nats::Client;
use async_nats::jetstream::{AckKind, Message};
use tokio_util::sync::CancellationToken;
use wess_schemas::header::REQUEST_DIGEST;
use wess_schemas::job::{DeadReason, JobRecord, JobState};
use wess_schemas::subject::Subjects;
use wess_schemas::timestamp::Timestamp;
use wess_schemas::{ErrorBody, ErrorCode, JobId, WorkerId};
use wess_service::queue::assets::MAX_DELIVERIES;
use wess_service::trace_context::TraceParent;

use super::Clock;
use super::dead::{Death, Letters};
use super::ending::{Blame, Next, Ran, blame, next};
use super::fetch::Permit;
use super::records::{Current, RecordError, Records};
use super::run::Runner;
use super::stats::JobStats;
use super::stored::QueuedJob;
use super::tell::Teller;

/// How long a run may take before its job's record says that it runs.
const NOTED_AFTER: Duration = Duration::from_secs(1);
/// How long to wait before JetStream is asked again to take a record.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest pause before a job is delivered again that we failed.
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// Brings jobs to their end.
pub struct Settler {
    /// This worker.
    pub worker: WorkerId,
    /// Its subjects.
    pub subjects: Subjects,
    /// Its connection.
    pub client: Client,
    /// Jobs' records.
    pub records: Records,
    /// Dead letters.
    pub letters: Letters,
    /// What runs them.
    pub runner: Runner,
    /// Whoever wants to know.
    pub teller: Teller,
    /// How long we may be silent about a message.
    pub ack_wait: Duration,
    /// What the times in records are told by.
    pub clock: Clock,
    /// What is counted.
    pub stats: JobStats,
}

/// What the queue is told of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// It has ended.
    Done,
    /// It is delivered again, after a pause.
    Again(Duration),
}

/// A job in hand.
struct Delivery {
    message: Message,
    job_id: JobId,
    deliveries: u32,
    submitted: Timestamp,
    /// Its record says how it ended, and we know it.
    concluded: AtomicBool,
    permit: Mutex<Option<Permit>>,
}

impl Delivery {
    fn conclude(&self) {
        self.concluded.store(true, Ordering::Relaxed);
    }

    /// Whether a record is of the request that was handed over, and not of another one under the same key.
    fn is_of(&self, record: &JobRecord) -> bool {
        let headers = self.message.headers.as_ref();
        let digest = headers.and_then(|headers| headers.get(REQUEST_DIGEST));
        digest.is_none_or(|digest| digest.as_str() == record.request_digest.to_string())
    }

    fn is_concluded(&self) -> bool {
        self.concluded.load(Ordering::Relaxed)
    }

    /// Another job may run: what is left of this one is to tell of it.
    fn release(&self) {
        drop(self.permit.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

impl Settler {
    /// Sees to one message. At `cut` it is handed back.
    pub async fn process(&self, message: Message, permit: Permit, cut: &CancellationToken) {
        let Some(delivery) = self.delivery(message, permit) else {
            return;
        };
        let verdict = tokio::select! {
            biased;
            verdict = self.settle(&delivery) => verdict,
            verdict = self.keep(&delivery) => verdict,
            () = cut.cancelled() => {
                self.stats.handed_back.inc();
                Verdict::Again(Duration::ZERO)
            }
        };
        let ack = match verdict {
            Verdict::Done => AckKind::Ack,
            Verdict::Again(Duration::ZERO) => AckKind::Nak(None),
            Verdict::Again(pause) => AckKind::Nak(Some(pause)),
        };
        if let Err(error) = delivery.message.ack_with(ack).await {
            tracing::warn!(job_id = %delivery.job_id, %error, "a job could not be acknowledged: it comes again");
        }
    }

    fn delivery(&self, message: Message, permit: Permit) -> Option<Delivery> {
        let (deliveries, submitted) = match message.info() {
            Ok(info) => (
                u32::try_from(info.delivered).unwrap_or(u32::MAX),
                info.published.into(),
            ),
            Err(error) => {
                tracing::error!(%error, "a message of the queue of jobs does not say where it is from");
                return None;
            }
        };
        let Ok((_, _, job_id)) = self.subjects.parse_queued(&message.subject) else {
            tracing::error!(subject = %message.subject, "a message of the queue of jobs is none of ours");
            return None;
        };
        Some(Delivery {
            message,
            job_id,
            deliveries,
            submitted,
            concluded: AtomicBool::new(false),
            permit: Mutex::new(Some(permit)),
        })
    }

    /// Tells the queue that the job is still in hand, and looks whether somebody else has ended it meanwhile; returns
    /// only then.
    async fn keep(&self, delivery: &Delivery) -> Verdict {
        loop {
            tokio::time::sleep(self.ack_wait / 3).await;
            if let Err(error) = delivery.message.ack_with(AckKind::Progress).await {
                tracing::debug!(job_id = %delivery.job_id, %error, "the queue was not told that a job is in hand");
            }
            if delivery.is_concluded() {
                continue;
            }
            let current = self.records.read(&delivery.job_id).await.unwrap_or_default();
            match current.ending().filter(|ending| delivery.is_of(ending)) {
                Some(_) if delivery.is_concluded() => {}
                // Whoever stores an outcome tells of it. Of a cancelled job its next delivery does, if it has one.
                Some(ending) if ending.state == JobState::Cancelled => return Verdict::Again(Duration::ZERO),
                Some(_) => {
                    self.stats.adopted.inc();
                    return Verdict::Done;
                }
                None => {}
            }
        }
    }

    async fn settle(&self, delivery: &Delivery) -> Verdict {
        let (headers, payload) = (delivery.message.headers.as_ref(), &delivery.message.payload);
        let read = QueuedJob::read(delivery.job_id.clone(), headers, payload, delivery.submitted);
        let job = match read {
            Ok(job) => job,
            Err(error) => return self.give_up_unread(delivery, error).await,
        };
        let current = match self.what_is_known(&job, delivery).await {
            Ok(current) => current,
            Err(_) => return self.again(delivery),
        };
        if let Some(ending) = current.ending() {
            if !delivery.is_of(ending) {
                return self.give_up_key(delivery, ending).await;
            }
            self.stats.adopted.inc();
            delivery.conclude();
            self.bury_dead(&job, delivery, ending).await;
            self.tell(&job, delivery, ending).await;
            return Verdict::Done;
        }
        self.attempt(&job, delivery, current).await
    }

    /// The record, for a job that may have one. One that is handed over for the first time, under an id that we made, has
    /// none: were it cancelled its message would be gone, unless somebody is to be told.
    async fn what_is_known(&self, job: &QueuedJob, delivery: &Delivery) -> Result<Current, ErrorBody> {
        let request = &job.request;
        let has_none = request.job_id.is_none() && request.is_immediate() && !request.names_a_listener();
        if has_none && delivery.deliveries <= 1 {
            return Ok(Current::default());
        }
        self.records.read(&job.job_id).await
    }

    async fn attempt(&self, job: &QueuedJob, delivery: &Delivery, mut current: Current) -> Verdict {
        let mut record = current.record.clone().unwrap_or_else(|| job.record());
        record.started = Some((self.clock)());
        record.worker = Some(self.worker.clone());
        let ran = self.run(job, &mut record, &mut current).await;
        let ended = match &ran {
            Ok(_) => true,
            Err(error) => blame(error.code()) == Blame::Guest,
        };
        record.attempts += u32::from(ended);
        let is_last = i64::from(delivery.deliveries) >= MAX_DELIVERIES;
        match next(&ran, record.attempts, job.request.retry.as_ref()) {
            Next::Succeeded => {
                self.end(job, delivery, record, JobState::Succeeded, ran, current)
                    .await
            }
            Next::Failed if job.origin.is_none() => {
                self.end(job, delivery, record, JobState::Failed, ran, current)
                    .await
            }
            // A binding's message is nowhere but here: it becomes a letter again.
            Next::Failed | Next::Exhausted => {
                self.end(job, delivery, record, JobState::Dead, ran, current)
                    .await
            }
            Next::Retry(_) | Next::Redeliver if is_last => {
                self.end(job, delivery, record, JobState::Dead, ran, current)
                    .await
            }
            Next::Retry(pause_ms) => {
                record.state = JobState::Queued;
                record.error = ran.err().map(|error| error.error);
                self.stats.retried.inc();
                self.note(&record, &mut current).await;
                Verdict::Again(Duration::from_millis(pause_ms.max(1)))
            }
            Next::Redeliver => {
                if let Err(error) = ran {
                    tracing::warn!(job_id = %job.job_id, %error, deliveries = delivery.deliveries, "a job failed by our fault: it is delivered again");
                }
                self.again(delivery)
            }
        }
    }

    /// Runs the job; once that takes long, its record says so.
    async fn run(&self, job: &QueuedJob, record: &mut JobRecord, current: &mut Current) -> Ran {
        let inline_bytes = self.client.max_payload() / 2;
        let mut running = std::pin::pin!(self.runner.run(job, inline_bytes));
        if let Ok(ran) = tokio::time::timeout(NOTED_AFTER, running.as_mut()).await {
            return ran;
        }
        record.state = JobState::Running;
        let noting = async { self.note(record, current).await };
        let (ran, ()) = tokio::join!(running, noting);
        ran
    }

    /// Writes down how far a job has come. It is told for people's sake: a failure changes nothing.
    async fn note(&self, record: &JobRecord, current: &mut Current) {
        match self.records.write(record, current.revision).await {
            Ok(revision) => current.revision = revision,
            Err(error) => {
                tracing::debug!(job_id = %record.job_id, %error, "a job's progress was not recorded")
            }
        }
    }

    async fn end(
        &self,
        job: &QueuedJob,
        delivery: &Delivery,
        record: JobRecord,
        state: JobState,
        ran: Ran,
        current: Current,
    ) -> Verdict {
        let (outcome, error) = match ran {
            Ok(outcome) => (Some(outcome), None),
            Err(error) => (None, Some(error.error)),
        };
        let record = JobRecord {
            state,
            outcome,
            error,
            finished: Some((self.clock)()),
            ..record
        };
        let stored = self.conclude(delivery, record, current.revision).await;
        if !delivery.is_of(&stored) {
            return self.give_up_key(delivery, &stored).await;
        }
        self.bury_dead(job, delivery, &stored).await;
        self.log(&stored, delivery, job.trace);
        self.tell(job, delivery, &stored).await;
        Verdict::Done
    }

    async fn tell(&self, job: &QueuedJob, delivery: &Delivery, ending: &JobRecord) {
        let _room = self.teller.room(&job.request).await;
        delivery.release();
        self.teller.tell(&job.request, ending).await;
    }

    /// The letter of a job whose record says that it was given up. The record comes first, so that no letter lies beside
    /// another ending; whoever finds the one without the other makes up for it.
    async fn bury_dead(&self, job: &QueuedJob, delivery: &Delivery, ending: &JobRecord) {
        if ending.state != JobState::Dead {
            return;
        }
        let blame = ending.error.as_ref().map(|error| blame(error.code));
        let spent = match &job.request.retry {
            Some(retry) => ending.attempts >= retry.max_attempts,
            None => job.origin.is_some(),
        };
        let death = Death {
            reason: match blame {
                Some(Blame::Guest) if spent => DeadReason::AttemptsExhausted,
                Some(Blame::Request) if job.origin.is_some() => DeadReason::Refused,
                _ => DeadReason::TooManyDeliveries,
            },
            attempts: ending.attempts,
            deliveries: delivery.deliveries,
            submitted: Some(ending.submitted),
            error: ending.error.clone(),
        };
        self.bury(delivery, &death).await;
    }

    /// A call with this key came to its end before the job that was accepted under the same one.
    async fn give_up_key(&self, delivery: &Delivery, ending: &JobRecord) -> Verdict {
        let text = format!("the outcome under {} is that of another request", ending.job_id);
        let death = Death {
            reason: DeadReason::KeyTaken,
            attempts: 0,
            deliveries: delivery.deliveries,
            submitted: Some(delivery.submitted),
            error: Some(ErrorBody::new(ErrorCode::Conflict, text).error),
        };
        delivery.conclude();
        self.bury(delivery, &death).await;
        self.stats.ended(JobState::Dead);
        Verdict::Done
    }

    /// A message that nobody can read has no record that it could have.
    async fn give_up_unread(&self, delivery: &Delivery, error: ErrorBody) -> Verdict {
        tracing::error!(job_id = %delivery.job_id, %error, "a job cannot be read");
        let death = Death {
            reason: DeadReason::Unreadable,
            attempts: 0,
            deliveries: delivery.deliveries,
            submitted: Some(delivery.submitted),
            error: Some(error.error),
        };
        self.bury(delivery, &death).await;
        self.stats.ended(JobState::Dead);
        Verdict::Done
    }

    /// Stores the letter, however long that takes: the delivery is kept meanwhile.
    async fn bury(&self, delivery: &Delivery, death: &Death) {
        let message = &delivery.message;
        loop {
            let letter = self.letters.put(
                &delivery.job_id,
                message.headers.as_ref(),
                message.payload.clone(),
                death,
            );
            match letter.await {
                Ok(()) => return,
                Err(error) => {
                    tracing::warn!(job_id = %delivery.job_id, %error, "a dead letter was not stored yet");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Stores how a job ended, however long that takes, unless another ending is there already: then gives that.
    async fn conclude(&self, delivery: &Delivery, record: JobRecord, mut revision: u64) -> JobRecord {
        loop {
            match self.records.write(&record, revision).await {
                Ok(_) => {
                    delivery.conclude();
                    self.stats.ended(record.state);
                    return record;
                }
                Err(RecordError::Lost) => {}
                Err(RecordError::Away(error)) => {
                    tracing::warn!(job_id = %record.job_id, %error, "an outcome was not stored yet");
                    tokio::time::sleep(PAUSE).await;
                }
            }
            let Ok(current) = self.records.read(&record.job_id).await else {
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            if let Some(ending) = current.ending() {
                delivery.conclude();
                self.stats.adopted.inc();
                return ending.clone();
            }
            revision = current.revision;
        }
    }

    fn again(&self, delivery: &Delivery) -> Verdict {
        Verdict::Again(pause_before(delivery.deliveries + 1))
    }

    fn log(&self, record: &JobRecord, delivery: &Delivery, trace: Option<TraceParent>) {
        let took = |from: Option<Timestamp>, to: Option<Timestamp>| {
            from.zip(to)
                .map(|(from, to)| (to.instant() - from.instant()).whole_milliseconds() as i64)
        };
        tracing::info!(
            job_id = %record.job_id, trace_id = trace.map(TraceParent::trace_id), kind = ?record.kind, state = ?record.state,
            attempts = record.attempts, deliveries = delivery.deliveries,
            waited_ms = took(Some(record.submitted), record.started), ran_ms = took(record.started, record.finished),
            code = record.error.as_ref().map(|error| error.code.as_str()), "a job ended"
        );
    }
}

/// Doubling from half a second.
fn pause_before(delivery: u32) -> Duration {
    let doublings = delivery.saturating_sub(2).min(16);
    Duration::from_millis(500 << doublings).min(MAX_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_minute_and_no_further() {
        let pauses = [2, 3, 4, 20, u32::MAX].map(|delivery| pause_before(delivery).as_millis());
        assert_eq!(pauses, [500, 1000, 2000, 60_000, 60_000]);
    }
}
