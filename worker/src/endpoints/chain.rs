//! `wess.chain`: several calls in a row, each fed with the output of the one before.
//!
//! Invariant: all steps run on the executor that took the first, unless it is full.

use std::sync::Arc;
use std::time::Instant;

use async_nats::HeaderMap;
use bytes::Bytes;
use futures_util::FutureExt;
use serde::Serialize;
use tokio::sync::{Semaphore, SemaphorePermit, oneshot};
use tokio_util::task::TaskTracker;
use wess_schemas::chain::{ChainOutcome, ChainRequest, ChainStep};
use wess_schemas::header::CallHeaders;
use wess_schemas::invocation::{Input, check_wait, take_input};
use wess_schemas::job::JobOutcome;
use wess_schemas::limits::MAX_CHAIN_STEPS;
use wess_schemas::timestamp::Timestamp;
use wess_schemas::{ErrorBody, ErrorCode, Invocation, JobId, Limits, Outcome, WorkerId};
use wess_service::trace_context::TraceParent;

use super::invoke::{self, Form, Output};
use crate::call::{Call, Finished};
use crate::executor::{Arrival, Executors, Here};
use crate::guest::abi::typed;
use crate::queue::keyed::{CallKey, KeyedCalls};
use crate::registry::Storage;

/// What chains need.
#[derive(Clone)]
pub struct Chains {
    /// Where steps run.
    pub executors: Executors,
    /// Where outputs go that are too large for a message.
    pub storage: Storage,
    /// The endings of those that come with a key.
    pub keyed: KeyedCalls,
    /// This worker.
    pub worker: WorkerId,
    /// Held while a chain runs.
    pub under_way: TaskTracker,
    /// What chains hold together, in KiB.
    pub room: Arc<Semaphore>,
}

/// One run of a chain.
struct Run {
    job_id: JobId,
    trace: Option<TraceParent>,
    /// When its job was submitted, if it is one.
    accepted: Option<Timestamp>,
    /// What its reply may carry.
    inline_bytes: usize,
    /// Whether its large outputs are kept with the job.
    is_kept: bool,
}

/// What chains may hold together: their requests, and of each the output on its way to the next step, twice.
pub const MAX_CHAINS_KIB: usize = 256 << 10;

impl Chains {
    /// Runs a chain to its end, or to the step that failed. `inline_bytes` is what the reply may carry.
    pub async fn answer(
        &self,
        headers: &HeaderMap,
        payload: &[u8],
        inline_bytes: usize,
    ) -> Result<ChainOutcome, ErrorBody> {
        let asked =
            CallHeaders::read(|name| headers.get(name).map(|value| value.as_str())).map_err(invalid)?;
        check_headers(&asked)?;
        let trace = TraceParent::of(headers);
        if let Some(job_id) = asked.job_id {
            return self.answer_keyed(job_id, payload, trace, inline_bytes).await;
        }
        let (job_id, _under_way) = (JobId::generate(), self.under_way.token());
        let run = Run {
            job_id: job_id.clone(),
            trace,
            accepted: None,
            inline_bytes,
            is_kept: false,
        };
        let answered = match read(payload) {
            Ok(request) => self.run(request, run).await,
            Err(error) => Err(error),
        };
        answered.map_err(|error| error.for_job(job_id))
    }

    /// A chain with a key has one ending, however often it is sent.
    async fn answer_keyed(
        &self,
        job_id: JobId,
        payload: &[u8],
        trace: Option<TraceParent>,
        inline_bytes: usize,
    ) -> Result<ChainOutcome, ErrorBody> {
        let key = CallKey::of_chain(job_id.clone(), payload);
        let ending = match self.keyed.known(&key).await? {
            Some(known) => known,
            None => {
                let ran = self
                    .run_job(read(payload)?, &job_id, trace, None, inline_bytes)
                    .await;
                let ran = ran.map(JobOutcome::Chain);
                self.keyed
                    .end(&key, ran)
                    .await
                    .map_err(|error| error.for_job(job_id.clone()))?
            }
        };
        match (ending.outcome, ending.error) {
            (Some(JobOutcome::Chain(outcome)), _) => Ok(outcome),
            (_, Some(error)) => Err(ErrorBody {
                error,
                job_id: Some(job_id),
            }),
            _ => {
                Err(ErrorBody::new(ErrorCode::Conflict, "the key stands for another request").for_job(job_id))
            }
        }
    }

    /// Runs a job's chain. What is too large for its record is stored with the job.
    pub async fn run_job(
        &self,
        request: ChainRequest,
        job_id: &JobId,
        trace: Option<TraceParent>,
        accepted: Option<Timestamp>,
        inline_bytes: usize,
    ) -> Result<ChainOutcome, ErrorBody> {
        let _under_way = self.under_way.token();
        let run = Run {
            job_id: job_id.clone(),
            trace,
            accepted,
            inline_bytes,
            is_kept: true,
        };
        self.run(request, run).await
    }

    /// Refuses a chain that could not begin.
    pub fn check(request: &ChainRequest) -> Result<(), ErrorBody> {
        parse(request.clone()).map(drop)
    }

    async fn run(&self, request: ChainRequest, run: Run) -> Result<ChainOutcome, ErrorBody> {
        let (steps, input) = parse(request)?;
        let (mut answer, answered) = oneshot::channel();
        let chains = self.clone();
        let series = |here: Here| {
            async move {
                let _under_way = chains.under_way.token();
                let ended = tokio::select! {
                    biased;
                    ended = chains.run_steps(&here, steps, input, run) => ended,
                    // Nobody waits: the step under way goes with it.
                    () = answer.closed() => return,
                };
                // Who hung up just now gets nothing.
                drop(answer.send(ended));
            }
            .boxed_local()
        };
        self.executors.dispatch(Arrival::Series(Box::new(series)))?;
        answered.await.unwrap_or_else(|_| {
            Err(ErrorBody::new(
                ErrorCode::Internal,
                "the worker stopped during a step",
            ))
        })
    }

    async fn run_steps(
        &self,
        here: &Here,
        steps: Vec<Call>,
        mut input: Input,
        mut run: Run,
    ) -> Result<ChainOutcome, ErrorBody> {
        let _steps = self.hold(steps.iter().map(Call::size_bytes).sum())?;
        run.inline_bytes /= steps.len() + 1;
        let (mut done, mut _held) = (Vec::<Outcome>::with_capacity(steps.len()), None);
        for (at, mut step) in steps.into_iter().enumerate() {
            (step.job_id, step.trace, step.accepted) = (run.job_id.clone(), run.trace, run.accepted);
            match input {
                Input::Absent => {}
                Input::Bytes(bytes) => step.input.input = Some(Bytes::from(bytes)),
                Input::Stored(reference) => step.stored_input = Some(reference),
            }
            let recorded = match here.run(begun(step)).await {
                Ok(finished) => self.record(finished, &run).await,
                Err(error) => Err(error),
            };
            let (outcome, output) = recorded.map_err(|error| failed_at(at, &done, error))?;
            done.push(outcome);
            _held = Some(self.hold(2 * output.len()).map_err(|full| {
                let text = format!("the guest answered, but {}", full.error.message);
                failed_at(at, &done, ErrorBody::new(ErrorCode::Internal, text))
            })?);
            input = Input::Bytes(output);
        }
        Ok(outcome(done))
    }

    /// Room for so many bytes, if chains do not hold too much already.
    pub fn hold(&self, bytes: usize) -> Result<SemaphorePermit<'_>, ErrorBody> {
        hold(&self.room, bytes)
    }

    /// A step's outcome as the caller will see it, and its output for the next step.
    async fn record(&self, mut finished: Finished, run: &Run) -> Result<(Outcome, Vec<u8>), ErrorBody> {
        let next = finished.answer.results.as_deref().map(typed::raw_output);
        let Some(output) = invoke::take_output(Form::Json, &mut finished, run.inline_bytes) else {
            let outcome = invoke::outcome(finished, Output::Inline(None), &self.worker);
            return Ok((outcome, next.unwrap_or_default()));
        };
        let shown = if invoke::fits(Form::Json, &output, run.inline_bytes) {
            Output::Inline(Some(output.clone()))
        } else {
            let owner = run.is_kept.then_some(&run.job_id);
            Output::Stored(self.storage.put_output_of(owner, &output).await?)
        };
        let outcome = invoke::outcome(finished, shown, &self.worker);
        Ok((outcome, next.unwrap_or(output)))
    }
}

/// Room for so many bytes among what chains hold together.
pub(super) fn hold(room: &Semaphore, bytes: usize) -> Result<SemaphorePermit<'_>, ErrorBody> {
    let kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX);
    room.try_acquire_many(kib).map_err(|_| {
        ErrorBody::new(
            ErrorCode::Overloaded,
            "the chains on this worker hold as much as they may",
        )
    })
}

fn read(payload: &[u8]) -> Result<ChainRequest, ErrorBody> {
    serde_json::from_slice(payload).map_err(invalid)
}

/// What a header would say of one call stands in the steps of a chain.
fn check_headers(asked: &CallHeaders) -> Result<(), ErrorBody> {
    let for_one_call =
        asked.limits != Limits::default() || asked.wait_ms.is_some() || asked.input_ref.is_some();
    if for_one_call {
        return Err(invalid(
            "limits, wait and input of a chain stand in its body, not in headers",
        ));
    }
    Ok(())
}

/// Every step as a call without input, and the input of the first.
fn parse(request: ChainRequest) -> Result<(Vec<Call>, Input), ErrorBody> {
    if !(1..=MAX_CHAIN_STEPS).contains(&request.steps.len()) {
        return Err(invalid(format!(
            "a chain has 1 to {MAX_CHAIN_STEPS} steps, not {}",
            request.steps.len()
        )));
    }
    check_wait(request.wait_ms).map_err(invalid)?;
    let input = take_input(request.input, request.input_base64, request.input_ref).map_err(invoke::misfit)?;
    let wait_ms = request.wait_ms;
    let steps = request.steps.into_iter().enumerate();
    let calls = steps
        .map(|(at, step)| parse_step(at, step, wait_ms))
        .collect::<Result<_, _>>()?;
    Ok((calls, input))
}

/// A step as a call without input.
pub(super) fn parse_step(at: usize, step: ChainStep, wait_ms: Option<u64>) -> Result<Call, ErrorBody> {
    let mut invocation = Invocation::from(step);
    if invocation.input.is_some() || invocation.input_base64.is_some() || invocation.input_ref.is_some() {
        return Err(invalid(format!(
            "steps[{at}] has an input of its own; a step gets the output of the one before"
        )));
    }
    invocation.wait_ms = invocation.wait_ms.or(wait_ms);
    let call = invoke::from_invocation(invocation, Instant::now()).map_err(|mut error| {
        error.error.message = format!("steps[{at}]: {}", error.error.message);
        error
    })?;
    Ok(Call {
        is_step: true,
        ..call
    })
}

/// A step that begins now: it waits from here on.
pub(super) fn begun(mut step: Call) -> Box<Call> {
    step.arrived = Instant::now();
    Box::new(step)
}

/// The last step's answer is the chain's.
fn outcome(steps: Vec<Outcome>) -> ChainOutcome {
    let last = steps.last();
    ChainOutcome {
        output: last.and_then(|last| last.output.clone()),
        output_base64: last.and_then(|last| last.output_base64.clone()),
        output_ref: last.and_then(|last| last.output_ref.clone()),
        results: last.and_then(|last| last.results.clone()),
        steps,
    }
}

/// The error of a chain whose step failed after those that were done.
pub(super) fn failed_at(at: usize, done: &[impl Serialize], mut error: ErrorBody) -> ErrorBody {
    error.error.guest_ran |= at > 0;
    error.error.message = format!("steps[{at}]: {}", error.error.message);
    error
        .with("failed_step", at)
        .with("steps", serde_json::to_value(done).unwrap_or_default())
}

pub(super) fn invalid(why: impl std::fmt::Display) -> ErrorBody {
    ErrorBody::new(ErrorCode::InvalidRequest, why.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_chains_hold_is_bounded_and_given_back() {
        let room = Semaphore::new(2);
        let held = hold(&room, 1025).unwrap();
        assert_eq!(hold(&room, 1).unwrap_err().code(), ErrorCode::Overloaded);
        drop(held);
        assert!(hold(&room, 2049).is_err() && hold(&room, 2048).is_ok());
    }

    #[test]
    fn a_step_counts_what_its_arguments_take_and_not_their_text_alone() {
        let nested: ChainRequest = serde_json::from_value(
            serde_json::json!({"steps": [{"module": "a", "args": [vec![[0; 0]; 1000]]}]}),
        )
        .unwrap();
        let (steps, _) = parse(nested).unwrap();
        assert!(steps[0].size_bytes() > 1000 * size_of::<serde_json::Value>());
    }
}
