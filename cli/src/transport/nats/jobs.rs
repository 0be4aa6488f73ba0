//! Jobs over NATS. What a record keeps by reference is read and stays: it goes with its job.

use std::time::Duration;

use bytes::Bytes;
use wess_schemas::JobId;
use wess_schemas::job::{
    DeadLetter, DeadList, DeadListRequest, DeadPurgeRequest, DeadPurged, JobList, JobListRequest, JobOutcome,
    JobRecord, JobRequest, JobWaitRequest,
};
use wess_schemas::payload::PayloadRef;
use wess_schemas::subject::Endpoint;
use wess_service::bus::BusError;

use super::{NOTHING, Nats, REGISTRY_TIMEOUT, message, read};
use crate::args::millis;
use crate::fault::Fault;
use crate::transport::{Answer, Jobs};

impl Nats {
    async fn submit(&self, job: JobRequest, input: Option<Bytes>) -> Result<JobRecord, Fault> {
        let placed = input.is_some();
        let job = match input {
            Some(input) => self.place(Some(input)).await?.into_job(job),
            None => job,
        };
        let reply = self
            .request(Endpoint::JobsSubmit, message(&job)?, REGISTRY_TIMEOUT)
            .await;
        // What was uploaded for it is copied before it is accepted.
        let uploaded = placed.then(|| input_ref(job)).flatten();
        if !reply.as_ref().is_err_and(BusError::leaves_unknown) {
            self.discard(uploaded).await;
        }
        self.whole(read(&reply?)?).await
    }

    async fn record(
        &self,
        endpoint: Endpoint,
        body: &impl serde::Serialize,
        timeout: Duration,
    ) -> Result<JobRecord, Fault> {
        self.whole(self.ask(endpoint, body, timeout).await?).await
    }

    /// A record with its outputs within.
    async fn whole(&self, mut record: JobRecord) -> Result<JobRecord, Fault> {
        match &mut record.outcome {
            Some(JobOutcome::Invoke(outcome)) => {
                self.fill(outcome).await?;
            }
            Some(JobOutcome::Chain(outcome)) => {
                self.fill_chain(outcome).await?;
            }
            Some(JobOutcome::Store(_)) | None => {}
        }
        Ok(record)
    }
}

fn input_ref(job: JobRequest) -> Option<PayloadRef> {
    let called = job.invoke.and_then(|call| call.input_ref);
    called.or_else(|| job.chain.and_then(|chain| chain.input_ref))
}

impl Jobs for Nats {
    fn submit(&self, job: JobRequest, input: Option<Bytes>) -> Answer<'_, JobRecord> {
        Box::pin(self.submit(job, input))
    }

    fn job(&self, job_id: JobId) -> Answer<'_, JobRecord> {
        Box::pin(self.record(Endpoint::JobsGet(job_id), &NOTHING, REGISTRY_TIMEOUT))
    }

    fn wait_job(&self, job_id: JobId, timeout: Duration) -> Answer<'_, JobRecord> {
        let request = JobWaitRequest {
            timeout_ms: Some(millis(timeout)),
        };
        Box::pin(async move {
            self.record(Endpoint::JobsWait(job_id), &request, timeout + REGISTRY_TIMEOUT)
                .await
        })
    }

    fn cancel(&self, job_id: JobId) -> Answer<'_, JobRecord> {
        Box::pin(self.record(Endpoint::JobsCancel(job_id), &NOTHING, REGISTRY_TIMEOUT))
    }

    fn jobs(&self, request: JobListRequest) -> Answer<'_, JobList> {
        Box::pin(async move { self.ask(Endpoint::JobsList, &request, REGISTRY_TIMEOUT).await })
    }

    fn dead_letters(&self, request: DeadListRequest) -> Answer<'_, DeadList> {
        Box::pin(async move { self.ask(Endpoint::DeadList, &request, REGISTRY_TIMEOUT).await })
    }

    fn dead_letter(&self, job_id: JobId) -> Answer<'_, DeadLetter> {
        Box::pin(self.ask(Endpoint::DeadGet(job_id), &NOTHING, REGISTRY_TIMEOUT))
    }

    fn redrive(&self, job_id: JobId) -> Answer<'_, JobRecord> {
        Box::pin(self.record(Endpoint::DeadRedrive(job_id), &NOTHING, REGISTRY_TIMEOUT))
    }

    fn purge(&self, request: DeadPurgeRequest) -> Answer<'_, DeadPurged> {
        Box::pin(async move { self.ask(Endpoint::DeadPurge, &request, REGISTRY_TIMEOUT).await })
    }
}
