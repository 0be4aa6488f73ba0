//! One run of a job on this worker: its guest, its chain or its store, to an outcome that fits into a record.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use wess_schemas::invocation::Invocation;
use wess_schemas::job::{JobKind, JobOutcome};
use wess_schemas::limits::MAX_WAIT_MS;
use wess_schemas::payload::PayloadBucket;
use wess_schemas::subject::Subjects;
use wess_schemas::{ErrorBody, ErrorCode};

use super::ending::Ran;
use super::stored::QueuedJob;
use crate::bindings::answer::{Outgoing, Outputs};
use crate::bindings::origin::Origin;
use crate::bindings::run::succeeded;
use crate::call::{CallResult, Finished};
use crate::endpoints::chain::Chains;
use crate::endpoints::invoke::{self, Form, Output};
use crate::endpoints::store::StoreEndpoint;
use crate::executor::Arrival;

/// Runs jobs.
pub struct Runner {
    /// Where guests run, one or several.
    pub chains: Chains,
    /// What stores modules.
    pub store: Arc<StoreEndpoint>,
    /// Where outputs of bindings' messages go.
    pub outputs: Outputs,
    /// Which subjects are ours.
    pub subjects: Subjects,
}

impl Runner {
    /// Runs a job to its end. An output past `inline_bytes` is stored with the job.
    pub async fn run(&self, job: &QueuedJob, inline_bytes: usize) -> Ran {
        let request = job.request.clone();
        match (job.kind, request.invoke, request.chain, request.store) {
            (JobKind::Invoke, Some(invocation), ..) => self.invoke(job, *invocation, inline_bytes).await,
            (JobKind::Chain, _, Some(mut chain), _) => {
                chain.wait_ms = Some(MAX_WAIT_MS);
                let outcome = self
                    .chains
                    .run_job(chain, &job.job_id, job.trace, Some(job.submitted), inline_bytes)
                    .await;
                outcome.map(JobOutcome::Chain)
            }
            (JobKind::Store, _, _, Some(store)) => {
                let stored = self.store.store(store, PayloadBucket::Jobs).await;
                stored.map(|module| JobOutcome::Store(Box::new(module)))
            }
            _ => Err(ErrorBody::new(
                ErrorCode::InvalidRequest,
                "the job says nothing to do",
            )),
        }
    }

    async fn invoke(&self, job: &QueuedJob, invocation: Invocation, inline_bytes: usize) -> Ran {
        if let Some(origin) = &job.origin {
            origin.check(&self.subjects)?;
        }
        let mut call = invoke::from_invocation(invocation, Instant::now())?;
        call.job_id = job.job_id.clone();
        call.trace = job.trace;
        call.accepted = Some(job.submitted);
        // It waits in the line of an executor only until a slot is free; past that it is delivered again.
        call.wait = Duration::from_millis(MAX_WAIT_MS);
        let (answer, answered) = oneshot::channel();
        self.chains
            .executors
            .dispatch(Arrival::Step(Box::new(call), answer))?;
        let stopped = || ErrorBody::new(ErrorCode::Internal, "the worker stopped during the job");
        let finished = answered.await.map_err(|_| stopped())??;
        let finished = match &job.origin {
            Some(origin) => self.publish(job, origin, finished).await?,
            None => finished,
        };
        self.outcome(job, finished, inline_bytes).await
    }

    /// What was a binding's message ends as one: its output goes where the binding says before anything is written down.
    async fn publish(&self, job: &QueuedJob, origin: &Origin, finished: Finished) -> CallResult {
        let finished = succeeded(Ok(finished))?;
        if let Some(target) = &origin.publish_to {
            let outgoing = Outgoing {
                binding: &origin.binding,
                target,
                hops: origin.hops,
                trace: job.trace,
                once: Some(&job.job_id),
            };
            self.outputs.publish(outgoing, finished.clone()).await?;
        }
        Ok(finished)
    }

    async fn outcome(&self, job: &QueuedJob, mut finished: Finished, inline_bytes: usize) -> Ran {
        let output = match invoke::take_output(Form::Json, &mut finished, inline_bytes) {
            Some(bytes) if !invoke::fits(Form::Json, &bytes, inline_bytes) => Output::Stored(
                self.chains
                    .storage
                    .put_output_of(Some(&job.job_id), &bytes)
                    .await?,
            ),
            output => Output::Inline(output),
        };
        let outcome = invoke::outcome(finished, output, &self.chains.worker);
        Ok(JobOutcome::Invoke(Box::new(outcome)))
    }
}
