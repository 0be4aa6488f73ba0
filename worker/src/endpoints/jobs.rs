//! `wess.jobs.*`: a job is checked, then stored, and from then on known by its record or its message.
//!
//! Invariant: what is accepted is in the stream or in a record; what is refused is in neither.

use std::time::Duration;

use async_nats::HeaderMap;
use futures_util::StreamExt;
use serde::de::DeserializeOwned;
use wess_schemas::header::CallHeaders;
use wess_schemas::job::{
    DEFAULT_JOB_WAIT_MS, JobRecord, JobRequest, JobState, JobWaitRequest, MAX_CRON_ID_BYTES, MAX_JOB_WAIT_MS,
};
use wess_schemas::subject::{JOBS_STREAM, Queue, TIMERS_STREAM};
use wess_schemas::{ErrorBody, ErrorCode, JobId, Tenant};
use wess_service::queue::timers::schedule;
use wess_service::queue::{QueueError, publish};
use wess_service::trace_context::TraceParent;

use super::admit::Admit;
use crate::queue::dead::is_gone;
use crate::queue::known::{KnownJobs, Waiting, pending, when};
use crate::queue::records::RecordError;
use crate::queue::stored::{QueuedJob, digest_of};
use crate::queue::{Clock, bad_request};

/// How often a race with the same key is looked at anew.
const MAX_RACES: usize = 8;
/// How often a wait looks at the record even though nobody has said that the job ended: what is published may get lost.
const LOOK: Duration = Duration::from_secs(2);

/// Submits jobs, and tells what became of them.
pub struct JobsEndpoint {
    /// What may become a job.
    pub admit: Admit,
    /// Where jobs are found again.
    pub known: KnownJobs,
    /// What the times in records are told by.
    pub clock: Clock,
}

impl JobsEndpoint {
    /// `wess.jobs.submit`
    pub async fn submit(&self, headers: &HeaderMap, payload: &[u8]) -> Result<JobRecord, ErrorBody> {
        let mut request: JobRequest = parse("a job", payload)?;
        let said =
            CallHeaders::read(|name| headers.get(name).map(|value| value.as_str())).map_err(bad_request)?;
        request.job_id = match (request.job_id, said.job_id) {
            (Some(_), Some(_)) => return Err(bad_request("job_id stands in the body and in a header")),
            (body, header) => body.or(header),
        };
        let kind = request.check().map_err(bad_request)?;
        let job_id = request.job_id.clone().unwrap_or_else(JobId::generate);
        let digest = digest_of(&request);
        if let Some(known) = self.before(&request, &job_id).await? {
            return same(known, &digest);
        }
        let admitted = self
            .admit
            .admit(&job_id, request)
            .await
            .map_err(|error| error.for_job(job_id.clone()))?;
        let job = QueuedJob {
            job_id: job_id.clone(),
            kind,
            request: admitted.request,
            digest,
            submitted: (self.clock)(),
            trace: TraceParent::of(headers),
            origin: None,
        };
        let accepted = self.accept(&job).await;
        if !matches!(&accepted, Ok(Accepted::Now(_))) {
            for payload in &admitted.copied {
                self.known.storage.discard(payload).await;
            }
        }
        match accepted.map_err(|error| error.for_job(job_id))? {
            Accepted::Now(record) | Accepted::Before(record) => Ok(*record),
        }
    }

    /// A job under a caller's key may be known already.
    async fn before(&self, request: &JobRequest, job_id: &JobId) -> Result<Option<JobRecord>, ErrorBody> {
        match request.job_id {
            Some(_) => self.known.find(job_id).await,
            None => Ok(None),
        }
    }

    async fn accept(&self, job: &QueuedJob) -> Result<Accepted, ErrorBody> {
        for _ in 0..MAX_RACES {
            match self.put(job).await {
                Ok(()) => return Ok(Accepted::Now(Box::new(pending(job.clone())))),
                Err(QueueError::Duplicate) => {}
                Err(error) => return Err(refused(&error)),
            }
            // Whoever was first may have come to its end meanwhile: then its record is there.
            if let Some(known) = self.known.find(&job.job_id).await? {
                return same(known, &job.digest).map(|record| Accepted::Before(Box::new(record)));
            }
        }
        Err(ErrorBody::new(
            ErrorCode::Conflict,
            "somebody else keeps submitting this key",
        ))
    }

    async fn put(&self, job: &QueuedJob) -> Result<(), QueueError> {
        let jetstream = self.known.storage.jetstream();
        let (headers, payload) = job.message();
        let stored = match when(&job.request) {
            None => {
                let subject = self
                    .known
                    .subjects
                    .queued(Queue::Jobs, &Tenant::default(), &job.job_id);
                publish(jetstream, subject, headers, payload).await
            }
            Some(at) => {
                schedule(
                    jetstream,
                    &self.known.subjects,
                    &job.job_id,
                    &at,
                    headers,
                    payload,
                )
                .await
            }
        };
        stored.map(drop)
    }

    /// `wess.jobs.get.<job id>`
    pub async fn get(&self, job_id: &JobId) -> Result<JobRecord, ErrorBody> {
        self.known.find(job_id).await?.ok_or_else(|| not_found(job_id))
    }

    /// `wess.jobs.wait.<job id>`: the record, once the job has ended or the wait has.
    pub async fn wait(&self, job_id: &JobId, payload: &[u8]) -> Result<JobRecord, ErrorBody> {
        let request: JobWaitRequest = parse_or_default("a wait", payload)?;
        let timeout_ms = request.timeout_ms.unwrap_or(DEFAULT_JOB_WAIT_MS);
        if timeout_ms > MAX_JOB_WAIT_MS {
            return Err(bad_request(format!(
                "timeout_ms is {timeout_ms}, but must be at most {MAX_JOB_WAIT_MS}"
            )));
        }
        let client = self.known.storage.client();
        let mut done = client
            .subscribe(self.known.subjects.done(job_id))
            .await
            .map_err(|error| self.known.unavailable(&error))?;
        client
            .flush()
            .await
            .map_err(|error| self.known.unavailable(&error))?;
        let deadline = tokio::time::Instant::now() + Duration::from_millis(timeout_ms);
        loop {
            let record = self.get(job_id).await?;
            if record.state.is_final() || tokio::time::Instant::now() >= deadline {
                return Ok(record);
            }
            let look = deadline.min(tokio::time::Instant::now() + LOOK);
            let _ = tokio::time::timeout_at(look, done.next()).await;
        }
    }

    /// `wess.jobs.cancel.<job id>`: the record, which says `cancelled` unless the job had ended before.
    pub async fn cancel(&self, job_id: &JobId) -> Result<JobRecord, ErrorBody> {
        for _ in 0..MAX_RACES {
            let current = self.known.records.read(job_id).await?;
            if let Some(ending) = current.ending() {
                return Ok(ending.clone());
            }
            let waiting = self.known.waiting(job_id).await?;
            let known = match (&current.record, &waiting) {
                (Some(record), _) => record.clone(),
                (None, Some(Waiting::Queued(job, _) | Waiting::Scheduled(job, _))) => pending(job.clone()),
                (None, None) if self.known.records.read(job_id).await?.record.is_some() => continue,
                (None, None) => return Err(not_found(job_id)),
            };
            let record = JobRecord {
                state: JobState::Cancelled,
                finished: Some((self.clock)()),
                due: None,
                ..known
            };
            match self.known.records.write(&record, current.revision).await {
                Ok(_) => {}
                Err(RecordError::Lost) => continue,
                Err(RecordError::Away(error)) => return Err(error),
            }
            self.take_away(waiting).await?;
            self.say(&record).await;
            return Ok(record);
        }
        Err(ErrorBody::new(
            ErrorCode::Conflict,
            "the job's record keeps changing",
        ))
    }

    /// Takes a cancelled job's message away. A worker that has it already finds the record; where the job names somebody
    /// who is to be told of its end, one must get it.
    async fn take_away(&self, waiting: Option<Waiting>) -> Result<(), ErrorBody> {
        let (stream, sequence) = match waiting {
            Some(Waiting::Queued(job, _)) if job.request.names_a_listener() => return Ok(()),
            Some(Waiting::Queued(_, sequence)) => (JOBS_STREAM, sequence),
            Some(Waiting::Scheduled(job, sequence)) => {
                if job.request.names_a_listener() {
                    self.queue_ended(&job).await;
                }
                (TIMERS_STREAM, sequence)
            }
            None => return Ok(()),
        };
        let stream = self.known.subjects.stream(stream);
        let stream = self.known.storage.jetstream().get_stream_no_info(stream).await;
        let stream = stream.map_err(|error| self.known.unavailable(&error))?;
        match stream.delete_message(sequence).await {
            Ok(_) => Ok(()),
            Err(error) if is_gone(&error) => Ok(()),
            Err(error) => Err(self.known.unavailable(&error)),
        }
    }

    /// Hands a job that has ended before its time to whoever tells of it. Without room for that its schedule goes all the
    /// same: it must not fire.
    async fn queue_ended(&self, job: &QueuedJob) {
        let (headers, payload) = job.message();
        let subject = self
            .known
            .subjects
            .queued(Queue::Jobs, &Tenant::default(), &job.job_id);
        match publish(self.known.storage.jetstream(), subject, headers, payload).await {
            Ok(_) | Err(QueueError::Duplicate) => {}
            Err(error) => {
                tracing::warn!(job_id = %job.job_id, %error, "nobody is told that a job was cancelled")
            }
        }
    }

    async fn say(&self, record: &JobRecord) {
        let body = serde_json::to_vec(record).unwrap_or_default();
        let said = self
            .known
            .storage
            .client()
            .publish(self.known.subjects.done(&record.job_id), body.into())
            .await;
        if let Err(error) = said {
            tracing::debug!(%error, "the end of a job was not published");
        }
    }
}

/// A job that is in the stream.
enum Accepted {
    /// By this request.
    Now(Box<JobRecord>),
    /// By an earlier one that said the same.
    Before(Box<JobRecord>),
}

/// The same key means the same job only with the same body.
fn same(known: JobRecord, digest: &wess_schemas::Digest) -> Result<JobRecord, ErrorBody> {
    if known.request_digest == *digest {
        return Ok(known);
    }
    let text = format!("there is a job {} with another body", known.job_id);
    Err(ErrorBody::new(ErrorCode::Conflict, text).for_job(known.job_id))
}

/// The id of a job with a schedule leaves room for the numbers of its firings; one of ours does.
const _: () = assert!(MAX_CRON_ID_BYTES >= 36);

fn refused(error: &QueueError) -> ErrorBody {
    if let Some(cause) = std::error::Error::source(error) {
        tracing::warn!(%error, %cause, "a job was not queued");
    }
    let text = match error {
        QueueError::TooLarge => {
            "the job is larger than a message; upload its input and refer to it by input_ref".into()
        }
        error => error.to_string(),
    };
    ErrorBody::new(error.code(), text).before_guest()
}

fn not_found(job_id: &JobId) -> ErrorBody {
    ErrorBody::new(ErrorCode::JobNotFound, format!("there is no job {job_id}")).for_job(job_id.clone())
}

/// A body in JSON.
pub fn parse<T: DeserializeOwned>(what: &str, payload: &[u8]) -> Result<T, ErrorBody> {
    serde_json::from_slice(payload)
        .map_err(|error| bad_request(format!("the body is not {what} in JSON: {error}")))
}

/// A body in JSON that may be empty.
pub fn parse_or_default<T: DeserializeOwned + Default>(what: &str, payload: &[u8]) -> Result<T, ErrorBody> {
    match payload.is_empty() {
        true => Ok(T::default()),
        false => parse(what, payload),
    }
}
