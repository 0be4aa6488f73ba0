//! What can be asked about jobs and dead letters, whichever way.

use std::time::Duration;

use bytes::Bytes;
use wess_schemas::JobId;
use wess_schemas::job::{
    DeadLetter, DeadList, DeadListRequest, DeadPurgeRequest, DeadPurged, JobList, JobListRequest, JobRecord,
    JobRequest,
};

use super::{Answer, Payload};

/// The questions about jobs. A record that is answered alone has its outputs within, where the way can fetch them.
pub trait Jobs {
    /// Submits a job, with its input if that is not in it.
    fn submit(&self, job: JobRequest, input: Option<Bytes>) -> Answer<'_, JobRecord>;
    /// One job's record.
    fn job(&self, job_id: JobId) -> Answer<'_, JobRecord>;
    /// The same, once the job has ended or so much time has passed.
    fn wait_job(&self, job_id: JobId, timeout: Duration) -> Answer<'_, JobRecord>;
    /// Cancels a job.
    fn cancel(&self, job_id: JobId) -> Answer<'_, JobRecord>;
    /// One page of jobs.
    fn jobs(&self, request: JobListRequest) -> Answer<'_, JobList>;
    /// One page of dead letters.
    fn dead_letters(&self, request: DeadListRequest) -> Answer<'_, DeadList>;
    /// One dead letter.
    fn dead_letter(&self, job_id: JobId) -> Answer<'_, DeadLetter>;
    /// Submits a dead letter's job again.
    fn redrive(&self, job_id: JobId) -> Answer<'_, JobRecord>;
    /// Deletes one dead letter, or every one.
    fn purge(&self, request: DeadPurgeRequest) -> Answer<'_, DeadPurged>;
}

impl Payload {
    /// Puts it where a job has its input. A job that stores has none.
    pub(super) fn into_job(self, mut job: JobRequest) -> JobRequest {
        if let Some(call) = job.invoke.take() {
            job.invoke = Some(Box::new(self.into_invocation(*call)));
        } else if let Some(chain) = job.chain.take() {
            job.chain = Some(self.into_chain(chain));
        }
        job
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn with_input(job: Value) -> Value {
        let job = serde_json::from_value(job).unwrap();
        serde_json::to_value(Payload::inline(b"hello").into_job(job)).unwrap()
    }

    #[test]
    fn an_input_goes_to_the_call_or_the_first_step() {
        assert_eq!(
            with_input(json!({"invoke": {"module": "a"}, "job_id": "k"})),
            json!({"invoke": {"module": "a", "input": "hello"}, "job_id": "k"})
        );
        assert_eq!(
            with_input(json!({"chain": {"steps": ["a"]}})),
            json!({"chain": {"steps": ["a"], "input": "hello"}})
        );
    }
}
