//! What may become a job: everything that can be wrong with it now is refused now, and what it needs later is copied to
//! where it stays.

use std::sync::Arc;
use std::time::Instant;

use futures_util::future::try_join_all;
use tokio::sync::Semaphore;
use wess_schemas::invocation::{Input, take_input};
use wess_schemas::job::JobRequest;
use wess_schemas::limits::{LimitPolicy, MAX_INPUT_BYTES};
use wess_schemas::payload::PayloadRef;
use wess_schemas::store::StoreSource;
use wess_schemas::subject::Subjects;
use wess_schemas::{ErrorBody, ErrorCode, Invocation, JobId};

use super::chain::Chains;
use super::invoke;
use super::store::StoreEndpoint;
use super::stored_chain;
use crate::queue::bad_request;
use crate::queue::stored::payloads;
use crate::queue::webhook::Webhooks;
use crate::registry::{Registry, Storage};

/// Payloads copied at once: each is held in memory.
pub const MAX_COPIES: usize = 4;

/// Checks jobs.
pub struct Admit {
    /// Which modules there are.
    pub registry: Registry,
    /// What callers may ask.
    pub policy: LimitPolicy,
    /// What may be stored.
    pub store: Arc<StoreEndpoint>,
    /// Which URLs may be told.
    pub webhooks: Webhooks,
    /// Whose subjects they are.
    pub subjects: Subjects,
    /// The way to payloads.
    pub storage: Storage,
    /// Room for copies.
    pub copies: Arc<Semaphore>,
}

/// A job that may be queued.
pub struct Admitted {
    /// What it says, with what it needs where it stays.
    pub request: JobRequest,
    /// What was copied for it.
    pub copied: Vec<PayloadRef>,
}

impl Admit {
    /// Refuses what could not run, then copies what would not last as long as the job.
    pub async fn admit(&self, job_id: &JobId, mut request: JobRequest) -> Result<Admitted, ErrorBody> {
        if let Some(subject) = &request.reply_to
            && !self.subjects.may_reply_to(subject)
        {
            return Err(bad_request(format!(
                "reply_to {subject:?} is no subject that may be published to"
            )));
        }
        if let Some(url) = &request.webhook {
            self.webhooks.check(url)?;
        }
        if !request.is_immediate() && self.storage.assets().await?.queue.timers.is_none() {
            let text = "this NATS server knows no schedules, which delay_ms and cron need: 2.12 is the first that does";
            return Err(ErrorBody::new(ErrorCode::Unsupported, text));
        }
        self.check_calls(&request).await?;
        let upload = match &request.store {
            Some(store) => self.store.check(store).await?,
            None => None,
        };
        let mut copied = self.copy(job_id, &mut request, upload).await?;
        copied.extend(self.slim(job_id, &mut request).await?);
        Ok(Admitted { request, copied })
    }

    /// Each call's module is there, and the first takes what it is given.
    async fn check_calls(&self, request: &JobRequest) -> Result<(), ErrorBody> {
        if let Some(call) = &request.invoke {
            self.check_call(Invocation::clone(call), true).await?;
        }
        if let Some(chain) = &request.chain {
            Chains::check(chain)?;
            let steps = chain.steps.iter().cloned().map(Invocation::from);
            try_join_all(steps.map(|step| self.check_call(step, false))).await?;
        }
        Ok(())
    }

    async fn check_call(&self, invocation: Invocation, is_whole: bool) -> Result<(), ErrorBody> {
        let mut call = invoke::from_invocation(invocation, Instant::now())?;
        call.is_step = !is_whole;
        let module = self.registry.resolve(&call.reference).await?;
        match stored_chain::check_call(&module, &self.policy, call) {
            // A step's input is the output of the one before: without it, only its function is known.
            Err(error) if !is_whole && error.code() == ErrorCode::InvalidArguments => Ok(()),
            checked => checked,
        }
    }

    async fn copy(
        &self,
        job_id: &JobId,
        request: &mut JobRequest,
        upload: Option<PayloadRef>,
    ) -> Result<Vec<PayloadRef>, ErrorBody> {
        let mut copied = Vec::new();
        for payload in payloads(request) {
            *payload = self.copy_one(job_id, payload, MAX_INPUT_BYTES).await?;
            copied.push(payload.clone());
        }
        if let (Some(upload), Some(store)) = (upload, &mut request.store) {
            let copy = self.copy_one(job_id, &upload, self.store.max_bytes).await?;
            store.object = Some(copy.object.clone());
            copied.push(copy);
        }
        Ok(copied)
    }

    /// An input or a module that would not leave room in a message is stored beside the job: who asks inside this process
    /// may send more than NATS takes.
    async fn slim(&self, job_id: &JobId, request: &mut JobRequest) -> Result<Option<PayloadRef>, ErrorBody> {
        let size = serde_json::to_vec(request).map_or(0, |body| body.len());
        if size <= self.storage.client().max_payload() / 2 {
            return Ok(None);
        }
        let bytes = match (&mut request.invoke, &mut request.chain, &mut request.store) {
            (Some(call), ..) => call.check_and_take_input().map_err(invoke::misfit)?,
            (_, Some(chain), _) => take_input(
                chain.input.take(),
                chain.input_base64.take(),
                chain.input_ref.take(),
            )
            .map_err(invoke::misfit)?,
            (.., Some(store)) => match store.source().map_err(bad_request)? {
                StoreSource::Bytes(bytes) => Input::Bytes(bytes),
                StoreSource::Upload { .. } | StoreSource::Known(_) => Input::Absent,
            },
            _ => Input::Absent,
        };
        let stored = match bytes {
            Input::Bytes(bytes) => self.storage.put_payload(Some(job_id), &bytes).await?,
            Input::Stored(stored) => stored,
            Input::Absent => return Ok(None),
        };
        match (&mut request.invoke, &mut request.chain, &mut request.store) {
            (Some(call), ..) => call.input_ref = Some(stored.clone()),
            (_, Some(chain), _) => chain.input_ref = Some(stored.clone()),
            (.., Some(store)) => {
                store.wasm_base64 = None;
                (store.digest, store.object) = (Some(stored.digest), Some(stored.object.clone()));
            }
            _ => {}
        }
        Ok(Some(stored))
    }

    async fn copy_one(
        &self,
        job_id: &JobId,
        payload: &PayloadRef,
        most: u64,
    ) -> Result<PayloadRef, ErrorBody> {
        // The semaphore is never closed.
        let _room = self.copies.acquire().await;
        self.storage.keep_for_job(job_id, payload, most).await
    }
}
