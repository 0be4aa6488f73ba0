//! Synchronous calls that come with an idempotency key: answered from `wess-results` where their ending is known, and
//! written there when their guest has ended.
//!
//! Invariant: everybody who sends the same key with the same request is told the same ending. Only what a guest did is
//! an ending: a call that was refused may be sent again.

use sha2::{Digest as _, Sha256};
use wess_schemas::job::{JobKind, JobOutcome, JobRecord, JobState};
use wess_schemas::timestamp::Timestamp;
use wess_schemas::{Digest, ErrorBody, ErrorCode, JobId, Reference, WorkerId};
use wess_service::bus::Reply;

use super::ending::{Blame, Ran, blame};
use super::known::KnownJobs;
use super::records::RecordError;
use crate::call::{Call, CallResult};
use crate::endpoints::invoke::{self, Form, Output};
use crate::endpoints::json_reply;

/// How often a race for the record is looked at anew.
const MAX_RACES: usize = 4;

/// A key, and what it stands for.
#[derive(Debug, Clone)]
pub struct CallKey {
    job_id: JobId,
    kind: JobKind,
    module: Option<Reference>,
    digest: Digest,
    submitted: Timestamp,
}

impl CallKey {
    /// Of one call. The same request has the same digest in whichever form it was asked.
    pub fn of(call: &Call) -> Self {
        let input = match (&call.input.input, &call.stored_input) {
            (Some(bytes), _) => Some(sha256(bytes)),
            (None, Some(stored)) => Some(stored.digest),
            (None, None) => None,
        };
        // What was read from JSON and text always serializes.
        let request = serde_json::to_vec(&(
            &call.reference,
            &call.input.function,
            input,
            &call.input.args,
            &call.input.env,
            &call.limits,
        ));
        Self {
            job_id: call.job_id.clone(),
            kind: JobKind::Invoke,
            module: Some(call.reference.clone()),
            digest: sha256(&request.unwrap_or_default()),
            submitted: Timestamp::now(),
        }
    }

    /// Of a chain, by the body of its request.
    pub fn of_chain(job_id: JobId, body: &[u8]) -> Self {
        Self {
            job_id,
            kind: JobKind::Chain,
            module: None,
            digest: sha256(body),
            submitted: Timestamp::now(),
        }
    }

    /// The key.
    pub fn job_id(&self) -> &JobId {
        &self.job_id
    }

    /// The same key means the same request.
    fn same(&self, known: JobRecord) -> Result<JobRecord, ErrorBody> {
        if known.request_digest == self.digest && known.state.is_final() {
            return Ok(known);
        }
        let text = format!("the key {} stands for another request", self.job_id);
        Err(ErrorBody::new(ErrorCode::Conflict, text).for_job(self.job_id.clone()))
    }
}

fn sha256(bytes: &[u8]) -> Digest {
    Digest::from_bytes(Sha256::digest(bytes).into())
}

/// The endings of calls with keys. Cheap to clone.
#[derive(Clone)]
pub struct KeyedCalls {
    /// Keys and ids of jobs are of one kind.
    pub jobs: KnownJobs,
    /// This worker.
    pub worker: WorkerId,
}

impl KeyedCalls {
    /// How a call with this key ended; `conflict` if the key stands for another request, or for a job.
    pub async fn known(&self, key: &CallKey) -> Result<Option<JobRecord>, ErrorBody> {
        match self.jobs.find(&key.job_id).await? {
            Some(known) => key.same(known).map(Some),
            None => Ok(None),
        }
    }

    /// The ending of a call, written down unless there is one already: then that one. What was refused is not written.
    /// An output past `inline_bytes` is stored beside the record.
    pub async fn end_call(
        &self,
        key: &CallKey,
        ended: CallResult,
        inline_bytes: usize,
    ) -> Result<JobRecord, ErrorBody> {
        let ran = match ended {
            Ok(mut finished) => {
                let output = match invoke::take_output(Form::Json, &mut finished, inline_bytes) {
                    Some(bytes) if !invoke::fits(Form::Json, &bytes, inline_bytes) => {
                        let storage = &self.jobs.storage;
                        Output::Stored(storage.put_output_of(Some(&key.job_id), &bytes).await?)
                    }
                    output => Output::Inline(output),
                };
                let outcome = invoke::outcome(finished, output, &self.worker);
                Ok(JobOutcome::Invoke(Box::new(outcome)))
            }
            Err(error) => Err(error),
        };
        self.end(key, ran).await
    }

    /// As [`KeyedCalls::end_call`], of what needs no storing.
    pub async fn end(&self, key: &CallKey, ran: Ran) -> Result<JobRecord, ErrorBody> {
        let (state, outcome, error) = match ran {
            Ok(outcome) => (JobState::Succeeded, Some(outcome), None),
            Err(error) if blame(error.code()) == Blame::Guest => (JobState::Failed, None, Some(error.error)),
            Err(error) => return Err(error),
        };
        let now = Timestamp::now();
        let record = JobRecord {
            job_id: key.job_id.clone(),
            state,
            kind: key.kind,
            module: key.module.clone(),
            request_digest: key.digest,
            submitted: key.submitted,
            due: None,
            cron: None,
            started: None,
            finished: Some(now),
            attempts: 1,
            worker: Some(self.worker.clone()),
            outcome,
            error,
        };
        self.write(key, record).await.map_err(|mut error| {
            error.error.guest_ran = true;
            error.for_job(key.job_id.clone())
        })
    }

    async fn write(&self, key: &CallKey, record: JobRecord) -> Result<JobRecord, ErrorBody> {
        let mut revision = 0;
        for _ in 0..MAX_RACES {
            match self.jobs.records.write(&record, revision).await {
                Ok(_) => return Ok(record),
                Err(RecordError::Lost) => {}
                Err(RecordError::Away(away)) => {
                    let text = format!(
                        "the guest has ended, but that was not written down: {}",
                        away.error.message
                    );
                    return Err(ErrorBody::new(ErrorCode::Internal, text));
                }
            }
            let current = self.jobs.records.read(&key.job_id).await?;
            if let Some(known) = current.record {
                return key.same(known);
            }
            // A record that was deleted by hand left its mark.
            revision = current.revision;
        }
        Err(ErrorBody::new(
            ErrorCode::Conflict,
            "the record of this key keeps changing",
        ))
    }
}

/// What a caller is told of an ending, in the form that it asked in.
pub fn told(form: Form, ending: JobRecord) -> Result<Reply, ErrorBody> {
    match (ending.outcome, ending.error) {
        (Some(JobOutcome::Invoke(outcome)), _) => Ok(invoke::reply_of_outcome(form, *outcome)),
        (Some(outcome), _) => Ok(json_reply(&outcome)),
        (None, Some(error)) => Err(ErrorBody {
            error,
            job_id: Some(ending.job_id),
        }),
        (None, None) => {
            let text = "the record of this key says nothing of an outcome";
            Err(ErrorBody::new(ErrorCode::Cancelled, text).for_job(ending.job_id))
        }
    }
}
