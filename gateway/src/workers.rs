//! Asking workers: a question goes out on its subject, and every way to fail comes back as a problem.
//!
//! Knows how long to wait for each kind of question; holds no connection of its own.

use std::sync::Arc;
use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use serde::Serialize;
use wess_schemas::header::{MSG_ID, SERVICE_ERROR, SERVICE_ERROR_CODE};
use wess_schemas::job::{DEFAULT_JOB_WAIT_MS, MAX_JOB_WAIT_MS};
use wess_schemas::limits::{DEFAULT_WAIT_MS, MAX_WAIT_MS};
use wess_schemas::store::STORE_TIMEOUT;
use wess_schemas::subject::{Endpoint, Subjects};
use wess_schemas::{ErrorBody, ErrorCode, JobId, Reference};
use wess_service::bus::{Bus, BusError, HttpRequest, Reply, Request};
use wess_service::http;
use wess_service::trace_context::TraceParent;

use crate::problem::Problem;

/// For what a call may take beside its wait and its run: a cold module is fetched and compiled first.
const CALL_MARGIN: Duration = Duration::from_secs(30);
/// For reading and writing records, of which a change waits up to a second for the fleet.
const RECORD_MARGIN: Duration = Duration::from_secs(15);
/// For what only reads and writes records: while no worker is there, it waits for one as a call does.
pub const RECORD_PATIENCE: Duration = RECORD_MARGIN.saturating_add(Duration::from_millis(DEFAULT_WAIT_MS));

/// No run is waited for longer, whatever a caller asks for.
const MAX_RUN_MS: u64 = 60 * 60 * 1000;

/// The way to workers.
pub struct Workers {
    bus: Arc<dyn Bus>,
    subjects: Subjects,
    usual_run_ms: u64,
}

/// What is asked.
#[derive(Debug)]
pub struct Question {
    endpoint: Endpoint,
    trace: Option<TraceParent>,
    headers: HeaderMap,
    payload: Bytes,
    patience: Duration,
}

/// An HTTP request for a module.
#[derive(Debug)]
pub struct HttpQuestion {
    /// Which module.
    pub reference: Reference,
    /// What the client asks for besides, as headers of the bus.
    pub facts: Vec<(&'static str, String)>,
    /// The trace that it belongs to.
    pub trace: TraceParent,
    /// How long to wait for the head.
    pub patience: Duration,
    /// The request.
    pub request: http::Request,
}

impl Question {
    /// A call that runs guests.
    pub fn call(endpoint: Endpoint, payload: Bytes, patience: Duration, trace: TraceParent) -> Self {
        Self {
            trace: Some(trace),
            ..Self::untraced(endpoint, payload, patience)
        }
    }

    /// A call that belongs to no trace.
    pub fn untraced(endpoint: Endpoint, payload: Bytes, patience: Duration) -> Self {
        Self {
            endpoint,
            trace: None,
            headers: HeaderMap::new(),
            payload,
            patience,
        }
    }

    /// To store a module.
    pub fn store(payload: Bytes, trace: TraceParent) -> Self {
        Self::call(Endpoint::Store, payload, STORE_TIMEOUT, trace)
    }

    /// Something about records.
    pub fn record(endpoint: Endpoint, payload: Bytes, trace: TraceParent) -> Self {
        Self::call(endpoint, payload, RECORD_PATIENCE, trace)
    }

    /// To wait for a job's end so long, after so long in the queue at most.
    pub fn wait(job_id: JobId, payload: Bytes, timeout_ms: Option<u64>, trace: TraceParent) -> Self {
        let timeout_ms = timeout_ms.unwrap_or(DEFAULT_JOB_WAIT_MS).min(MAX_JOB_WAIT_MS);
        let patience = 2 * Duration::from_millis(timeout_ms) + RECORD_MARGIN;
        Self::call(Endpoint::JobsWait(job_id), payload, patience, trace)
    }

    /// Adds a header. The value must be one line, as every value of an HTTP header is.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// Adds the caller's idempotency key.
    #[must_use]
    pub fn with_key(self, key: Option<JobId>) -> Self {
        match key {
            Some(key) => self.with_header(MSG_ID, key.as_str()),
            None => self,
        }
    }

    fn runs_guests(&self) -> bool {
        matches!(
            self.endpoint,
            Endpoint::Invoke
                | Endpoint::InvokeRaw(..)
                | Endpoint::Http(_)
                | Endpoint::Chain
                | Endpoint::JobsSubmit
                | Endpoint::DeadRedrive(_)
        )
    }
}

/// A body in JSON. The contract's types have no way to fail at that.
pub fn json(body: &impl Serialize) -> Result<Bytes, Problem> {
    let bytes = serde_json::to_vec(body);
    bytes
        .map(Bytes::from)
        .map_err(|error| Problem::new(ErrorCode::Internal, "cannot write JSON").because(&error))
}

impl Workers {
    /// Asks over `bus` on `subjects`. A run that states no timeout may take as long as `usual_run`.
    pub fn new(bus: Arc<dyn Bus>, subjects: Subjects, usual_run: Duration) -> Self {
        Self {
            bus,
            subjects,
            usual_run_ms: u64::try_from(usual_run.as_millis()).unwrap_or(MAX_RUN_MS),
        }
    }

    /// How long to wait for the reply to a call: never less than the worker takes to say that it is overdue.
    pub fn call_patience(&self, wait_ms: Option<u64>, timeout_ms: Option<u64>) -> Duration {
        let wait = wait_ms.unwrap_or(DEFAULT_WAIT_MS).min(MAX_WAIT_MS);
        let run = timeout_ms.unwrap_or(self.usual_run_ms).min(MAX_RUN_MS);
        Duration::from_millis(wait + run) + CALL_MARGIN
    }

    /// The largest payload that travels in a message; a larger one travels by reference.
    pub fn inline_bytes(&self) -> usize {
        self.bus.max_payload() / 2
    }

    /// Refuses what no message has room for.
    pub fn check_fits(&self, payload: &[u8]) -> Result<(), Problem> {
        let limit = self.bus.max_payload();
        if payload.len() > limit {
            return Err(unanswered(BusError::TooLarge { limit }, false));
        }
        Ok(())
    }

    /// Sends an HTTP request, and waits for the head of its response. Dropped, it cancels the guest.
    pub async fn exchange(&self, question: HttpQuestion) -> Result<http::Response, Problem> {
        let mut headers = HeaderMap::new();
        for (name, text) in question.facts {
            headers.insert(name, text);
        }
        let request = HttpRequest {
            subject: self.subjects.endpoint(&Endpoint::Http(question.reference)),
            trace: Some(question.trace),
            headers,
            request: question.request,
            timeout: question.patience,
        };
        let answer = self.bus.http(request).await;
        Ok(answer.map_err(|error| unanswered(error, true))??)
    }

    /// Asks, and waits for the reply. A refusal by the worker is an error like any other.
    pub async fn ask(&self, question: Question) -> Result<Reply, Problem> {
        let runs_guests = question.runs_guests();
        let request = Request {
            subject: self.subjects.endpoint(&question.endpoint),
            trace: question.trace,
            headers: question.headers,
            payload: question.payload,
            timeout: question.patience,
        };
        let reply = self
            .bus
            .request(request)
            .await
            .map_err(|error| unanswered(error, runs_guests))?;
        if reply.headers.get(SERVICE_ERROR_CODE).is_some() {
            Err(refusal(&reply))
        } else {
            Ok(reply)
        }
    }
}

fn unanswered(error: BusError, runs_guests: bool) -> Problem {
    let mut problem = Problem::new(error.code(), error.to_string()).because(&error);
    if error.leaves_unknown() {
        problem = problem.leaving_unknown();
    }
    if runs_guests {
        problem
    } else {
        problem.before_guest()
    }
}

fn refusal(reply: &Reply) -> Problem {
    match serde_json::from_slice::<ErrorBody>(&reply.payload) {
        Ok(body) => body.into(),
        Err(error) => {
            let said = reply
                .headers
                .get(SERVICE_ERROR)
                .map_or("nothing", |message| message.as_str());
            Problem::new(ErrorCode::Internal, format!("a worker failed, saying: {said}")).because(&error)
        }
    }
}

/// A reply that is not what the contract says.
pub fn unreadable(error: &serde_json::Error) -> Problem {
    Problem::new(ErrorCode::Internal, "a worker's reply could not be read").because(error)
}
