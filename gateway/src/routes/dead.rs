//! Dead letters: reading them, sending them back, and deleting them. Each a question to a worker.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use serde::Deserialize;
use wess_schemas::JobId;
use wess_schemas::job::{DeadListRequest, DeadPurgeRequest};
use wess_schemas::subject::Endpoint;

use crate::admission::Room;
use crate::app::App;
use crate::extract::{InPath, InQuery, Trace};
use crate::problem::Problem;
use crate::routes::accepted;
use crate::workers::{Question, json};

/// `GET /v1/dead?after=&limit=`
pub async fn list(
    State(app): State<Arc<App>>,
    _room: Room,
    trace: Trace,
    InQuery(query): InQuery<DeadListRequest>,
) -> Result<Response, Problem> {
    ask(&app, Endpoint::DeadList, json(&query)?, trace).await
}

/// `GET /v1/dead/{id}`
pub async fn get(
    State(app): State<Arc<App>>,
    _room: Room,
    trace: Trace,
    InPath(job_id): InPath<JobId>,
) -> Result<Response, Problem> {
    ask(&app, Endpoint::DeadGet(job_id), Bytes::new(), trace).await
}

/// `POST /v1/dead/{id}/redrive`
pub async fn redrive(
    State(app): State<Arc<App>>,
    _room: Room,
    Trace(trace): Trace,
    InPath(job_id): InPath<JobId>,
) -> Result<Response, Problem> {
    let question = Question::record(Endpoint::DeadRedrive(job_id), Bytes::new(), trace);
    let reply = app.workers.ask(question).await?;
    accepted(&app, reply.payload).await
}

/// `DELETE /v1/dead/{id}`
pub async fn purge_one(
    State(app): State<Arc<App>>,
    _room: Room,
    trace: Trace,
    InPath(job_id): InPath<JobId>,
) -> Result<Response, Problem> {
    let request = DeadPurgeRequest {
        job_id: Some(job_id),
        all: false,
    };
    ask(&app, Endpoint::DeadPurge, json(&request)?, trace).await
}

/// Whether really every letter is meant.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PurgeQuery {
    #[serde(default)]
    all: bool,
}

/// `DELETE /v1/dead?all=true`
pub async fn purge_all(
    State(app): State<Arc<App>>,
    _room: Room,
    trace: Trace,
    InQuery(query): InQuery<PurgeQuery>,
) -> Result<Response, Problem> {
    if !query.all {
        return Err(Problem::invalid(
            "this deletes every dead letter, which all=true must say",
        ));
    }
    let request = DeadPurgeRequest {
        job_id: None,
        all: true,
    };
    ask(&app, Endpoint::DeadPurge, json(&request)?, trace).await
}

async fn ask(app: &App, endpoint: Endpoint, body: Bytes, Trace(trace): Trace) -> Result<Response, Problem> {
    let reply = app.workers.ask(Question::record(endpoint, body, trace)).await?;
    app.answer_record(reply.payload).await
}
