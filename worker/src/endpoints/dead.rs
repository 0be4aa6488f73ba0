//! `wess.dead.*`: jobs that were given up, read, submitted again, or thrown away.

use async_nats::HeaderMap;
use wess_schemas::header::REQUEST_DIGEST;
use wess_schemas::job::{DeadLetter, DeadList, DeadPurgeRequest, DeadPurged, JobRecord, JobState};
use wess_schemas::subject::{Queue, Subjects};
use wess_schemas::timestamp::Timestamp;
use wess_schemas::{ErrorBody, ErrorCode, JobId, Tenant};
use wess_service::queue::{QueueError, publish};
use wess_service::trace_context::TraceParent;

use super::job_list;
use super::jobs::parse;
use crate::bindings::origin::Origin;
use crate::queue::bad_request;
use crate::queue::dead::{Found, Letters};
use crate::queue::records::{RecordError, Records};
use crate::queue::stored::QueuedJob;
use crate::registry::Storage;

/// Dead letters, as clients see them.
pub struct DeadEndpoint {
    /// The letters.
    pub letters: Letters,
    /// Jobs' records.
    pub records: Records,
    /// The way to JetStream.
    pub storage: Storage,
    /// Whose subjects they are.
    pub subjects: Subjects,
}

impl DeadEndpoint {
    /// `wess.dead.list`
    pub async fn list(&self, payload: &[u8]) -> Result<DeadList, ErrorBody> {
        job_list::letters(&self.letters, &self.subjects, payload).await
    }

    /// `wess.dead.get.<job id>`
    pub async fn get(&self, job_id: &JobId) -> Result<DeadLetter, ErrorBody> {
        Ok(self.letters.get(job_id).await?.letter)
    }

    /// `wess.dead.redrive.<job id>`: the job is queued again, its attempts counted anew, and its letter goes.
    ///
    /// The record says so first: a crash at any point leaves the letter, and a second redrive does the rest.
    pub async fn redrive(&self, job_id: &JobId) -> Result<JobRecord, ErrorBody> {
        let Found {
            sequence,
            headers,
            payload,
            ..
        } = self.letters.get(job_id).await?;
        let job = QueuedJob::read(job_id.clone(), Some(&headers), &payload, Timestamp::now())?;
        let record = job.record();
        let current = self.records.read(job_id).await?;
        let waits = |record: &JobRecord| record.state == JobState::Queued;
        if !current.record.as_ref().is_some_and(waits) {
            match self.records.write(&record, current.revision).await {
                Ok(_) => {}
                Err(RecordError::Lost) => {
                    let text = "somebody else is redriving this job";
                    return Err(ErrorBody::new(ErrorCode::Conflict, text).for_job(job_id.clone()));
                }
                Err(RecordError::Away(error)) => return Err(error),
            }
        }
        let subject = self.subjects.queued(Queue::Jobs, &Tenant::default(), job_id);
        match publish(self.storage.jetstream(), subject, of_job(&headers), payload).await {
            Ok(_) | Err(QueueError::Duplicate) => {}
            Err(error) => return Err(ErrorBody::new(error.code(), error.to_string()).before_guest()),
        }
        self.letters.delete(sequence).await?;
        Ok(record)
    }

    /// `wess.dead.purge`
    pub async fn purge(&self, payload: &[u8]) -> Result<DeadPurged, ErrorBody> {
        let request: DeadPurgeRequest = parse("a purge", payload)?;
        match (request.job_id, request.all) {
            (Some(job_id), false) => {
                let found = self.letters.get(&job_id).await?;
                self.letters.delete(found.sequence).await?;
                Ok(DeadPurged { purged: 1 })
            }
            (None, true) => Ok(DeadPurged {
                purged: self.letters.purge().await?,
            }),
            _ => Err(bad_request("a purge names one job_id, or says \"all\": true")),
        }
    }
}

/// The headers that the job had before it became a letter.
fn of_job(letter: &HeaderMap) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if let Some(digest) = letter.get(REQUEST_DIGEST) {
        headers.insert(REQUEST_DIGEST, digest.clone());
    }
    if let Some(trace) = TraceParent::of(letter) {
        trace.write(&mut headers);
    }
    if let Some(origin) = Origin::read(letter) {
        origin.write(&mut headers);
    }
    headers
}
