//! Reading, tagging and deleting module records: each a question to a worker, whose JSON goes back as it is.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use serde::Deserialize;
use wess_schemas::module::{ListRequest, TagRequest};
use wess_schemas::subject::Endpoint;
use wess_schemas::{ModuleName, Reference, Tag};

use crate::admission::Room;
use crate::app::App;
use crate::bodies;
use crate::config::Bounds;
use crate::extract::{InPath, InQuery, Trace};
use crate::problem::Problem;
use crate::workers::{Question, json};

/// `GET /v1/modules?prefix=&after=&limit=`
pub async fn list(
    State(app): State<Arc<App>>,
    _room: Room,
    trace: Trace,
    InQuery(query): InQuery<ListRequest>,
) -> Result<Response, Problem> {
    ask(&app, Endpoint::ModulesList, json(&query)?, trace).await
}

/// `GET /v1/modules/{ref}`
pub async fn get(
    State(app): State<Arc<App>>,
    _room: Room,
    trace: Trace,
    InPath(reference): InPath<Reference>,
) -> Result<Response, Problem> {
    ask(&app, Endpoint::ModulesGet(reference), Bytes::new(), trace).await
}

/// `DELETE /v1/modules/{ref}`
pub async fn delete(
    State(app): State<Arc<App>>,
    _room: Room,
    trace: Trace,
    InPath(reference): InPath<Reference>,
) -> Result<Response, Problem> {
    ask(&app, Endpoint::ModulesDelete(reference), Bytes::new(), trace).await
}

/// Which version a tag shall name, in the query or as the body.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TagTarget {
    version: Option<u32>,
}

/// `PUT /v1/modules/{name}/tags/{tag}`
pub async fn tag(
    State(app): State<Arc<App>>,
    _room: Room,
    trace: Trace,
    InPath((name, tag)): InPath<(ModuleName, Tag)>,
    InQuery(query): InQuery<TagTarget>,
    body: Body,
) -> Result<Response, Problem> {
    let version = match query.version {
        Some(version) => version,
        None => version_in(&app, body).await?,
    };
    let request = TagRequest {
        tag,
        version: Some(version),
    };
    ask(&app, Endpoint::ModulesTag(name), json(&request)?, trace).await
}

async fn version_in(app: &App, body: Body) -> Result<u32, Problem> {
    let limit = Bounds::SMALL_JSON_BYTES;
    let body = bodies::read(&app.admission, body, limit, app.bounds.body_timeout).await?;
    let target: TagTarget = bodies::json(&body)?;
    target
        .version
        .ok_or_else(|| Problem::invalid("the version that the tag shall name is missing"))
}

/// `DELETE /v1/modules/{name}/tags/{tag}`
pub async fn untag(
    State(app): State<Arc<App>>,
    _room: Room,
    trace: Trace,
    InPath((name, tag)): InPath<(ModuleName, Tag)>,
) -> Result<Response, Problem> {
    let request = TagRequest { tag, version: None };
    ask(&app, Endpoint::ModulesTag(name), json(&request)?, trace).await
}

async fn ask(app: &App, endpoint: Endpoint, body: Bytes, Trace(trace): Trace) -> Result<Response, Problem> {
    let reply = app.workers.ask(Question::record(endpoint, body, trace)).await?;
    app.answer_record(reply.payload).await
}
