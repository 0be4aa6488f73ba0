//! A call inside the worker: what endpoints make of a message, and what executors make of a call.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body::Body as _;
use wess_schemas::limits::Limits;
use wess_schemas::outcome::{ModuleRun, RunStats, StepRun};
use wess_schemas::payload::PayloadRef;
use wess_schemas::timestamp::Timestamp;
use wess_schemas::{ErrorBody, JobId, Reference};
use wess_service::bus::Reply;
use wess_service::trace_context::TraceParent;

use crate::guest::Answer;
use crate::guest::abi::CallInput;
use crate::guest::abi::http::HttpExchange;
use crate::registry::Resolved;

/// A parsed request to run one guest.
#[derive(Debug)]
pub struct Call {
    /// Ours, or the caller's idempotency key.
    pub job_id: JobId,
    /// Whether that is a key, by which the call's ending is known again.
    pub is_keyed: bool,
    /// Which module.
    pub reference: Reference,
    /// What it gets.
    pub input: CallInput,
    /// Where its input lies, when it did not come along.
    pub stored_input: Option<PayloadRef>,
    /// The request, if it is one over HTTP; it has no other input then.
    pub http: Option<Box<HttpExchange>>,
    /// What the caller asks for.
    pub limits: Limits,
    /// Whether it is a step of a chain, which cannot be a chain itself.
    pub is_step: bool,
    /// How long it may wait for a slot.
    pub wait: Duration,
    /// Which trace it belongs to, when the caller said so.
    pub trace: Option<TraceParent>,
    /// When it was accepted, if that is known otherwise than by its id or its arrival.
    pub accepted: Option<Timestamp>,
    /// When it arrived.
    pub arrived: Instant,
}

impl Call {
    /// When it has waited long enough. Even a call that may not wait gets the moment that a free slot takes.
    pub fn expires(&self) -> Instant {
        const LEAST_WAIT: Duration = Duration::from_millis(20);
        self.arrived + self.wait.max(LEAST_WAIT)
    }

    /// What it holds in memory, about.
    pub fn size_bytes(&self) -> usize {
        const OVERHEAD_BYTES: usize = 1024;
        let body = self
            .http
            .as_ref()
            .map(|http| http.request.body().size_hint().lower());
        let body_bytes = usize::try_from(body.unwrap_or(0)).unwrap_or(usize::MAX);
        OVERHEAD_BYTES.saturating_add(body_bytes) + self.input.size_bytes()
    }
}

/// A call whose guest answered.
#[derive(Debug, Clone)]
pub struct Finished {
    /// Which call.
    pub job_id: JobId,
    /// What ran.
    pub module: Arc<Resolved>,
    /// Which export.
    pub function: String,
    /// What the guest answered.
    pub answer: Answer,
    /// What it cost.
    pub stats: RunStats,
    /// What its steps did, if a chain ran.
    pub steps: Vec<StepRun>,
}

impl Finished {
    /// Which module, version and bytes ran.
    pub fn module_run(&self) -> ModuleRun {
        let module = &self.module;
        ModuleRun {
            name: module.name.clone(),
            version: module.version,
            digest: module.digest,
        }
    }
}

/// How a call ended.
pub type CallResult = Result<Finished, ErrorBody>;

/// What whoever took a call from the queue sends to its caller.
#[derive(Debug)]
pub enum QueuedAnswer {
    /// A guest's answer, which may be too large for a message.
    Finished(Finished),
    /// A reply that is ready.
    Reply(Reply),
    /// None yet: it found no slot here, and another worker has one.
    Returned,
}

/// How a call from the queue ended.
pub type QueuedResult = Result<QueuedAnswer, ErrorBody>;
