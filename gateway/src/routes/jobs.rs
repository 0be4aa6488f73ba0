//! Durable jobs: submitting them, and what became of them. Large inputs and outputs stand in the bodies, never as references.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::HeaderMap;
use axum::response::Response;
use bytes::Bytes;
use wess_schemas::JobId;
use wess_schemas::job::{JobListRequest, JobWaitRequest};
use wess_schemas::subject::Endpoint;

use crate::admission::Room;
use crate::app::App;
use crate::auth::{Grants, Scope};
use crate::bodies;
use crate::config::Bounds;
use crate::extract::{InPath, InQuery, Trace};
use crate::jobs::Job;
use crate::problem::Problem;
use crate::routes::accepted;
use crate::routes::invoke::idempotency_key;
use crate::workers::{Question, json};

/// `POST /v1/jobs`
pub async fn submit(
    State(app): State<Arc<App>>,
    _room: Room,
    Trace(trace): Trace,
    grants: Grants,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let (key, limit) = (idempotency_key(&headers)?, Bounds::JSON_BYTES);
    let body = bodies::read(&app.admission, body, limit, app.bounds.body_timeout).await?;
    let job: Job<'_> = bodies::json(&body)?;
    if job.stores() {
        grants.require(Scope::Store)?;
    }
    let (payload, uploaded) = app.fitted(&body, job).await?;
    drop(body);
    let question = Question::record(Endpoint::JobsSubmit, payload, trace).with_key(key);
    let reply = app.workers.ask(question).await;
    app.stores.settle(uploaded, &reply).await;
    accepted(&app, reply?.payload).await
}

/// `GET /v1/jobs?state=&kind=&module=&after=&limit=`
pub async fn list(
    State(app): State<Arc<App>>,
    _room: Room,
    Trace(trace): Trace,
    InQuery(query): InQuery<JobListRequest>,
) -> Result<Response, Problem> {
    let question = Question::record(Endpoint::JobsList, json(&query)?, trace);
    let reply = app.workers.ask(question).await?;
    app.answer_record(reply.payload).await
}

/// `GET /v1/jobs/{id}`
pub async fn get(
    State(app): State<Arc<App>>,
    _room: Room,
    Trace(trace): Trace,
    InPath(job_id): InPath<JobId>,
) -> Result<Response, Problem> {
    let question = Question::record(Endpoint::JobsGet(job_id), Bytes::new(), trace);
    record(&app, question).await
}

/// `GET /v1/jobs/{id}/wait?timeout_ms=`
pub async fn wait(
    State(app): State<Arc<App>>,
    _room: Room,
    Trace(trace): Trace,
    InPath(job_id): InPath<JobId>,
    InQuery(query): InQuery<JobWaitRequest>,
) -> Result<Response, Problem> {
    let question = Question::wait(job_id, json(&query)?, query.timeout_ms, trace);
    record(&app, question).await
}

/// `DELETE /v1/jobs/{id}`
pub async fn cancel(
    State(app): State<Arc<App>>,
    _room: Room,
    Trace(trace): Trace,
    InPath(job_id): InPath<JobId>,
) -> Result<Response, Problem> {
    let question = Question::record(Endpoint::JobsCancel(job_id), Bytes::new(), trace);
    record(&app, question).await
}

async fn record(app: &App, question: Question) -> Result<Response, Problem> {
    let reply = app.workers.ask(question).await?;
    let answer = app.answer_outcome(reply.payload).await;
    answer.map_err(Problem::before_guest)
}
