//! Bindings: which messages run which module. Each a question to a worker, whose JSON goes back as it is.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use wess_schemas::BindingName;
use wess_schemas::subject::Endpoint;

use crate::admission::Room;
use crate::app::App;
use crate::bodies;
use crate::config::Bounds;
use crate::extract::{InPath, Trace};
use crate::problem::Problem;
use crate::workers::Question;

/// `GET /v1/bindings`
pub async fn list(State(app): State<Arc<App>>, _room: Room, trace: Trace) -> Result<Response, Problem> {
    ask(&app, Endpoint::BindingsList, Bytes::new(), trace).await
}

/// `GET /v1/bindings/{name}`
pub async fn get(
    State(app): State<Arc<App>>,
    _room: Room,
    trace: Trace,
    InPath(name): InPath<BindingName>,
) -> Result<Response, Problem> {
    ask(&app, Endpoint::BindingsGet(name), Bytes::new(), trace).await
}

/// `PUT /v1/bindings/{name}`
pub async fn put(
    State(app): State<Arc<App>>,
    _room: Room,
    trace: Trace,
    InPath(name): InPath<BindingName>,
    body: Body,
) -> Result<Response, Problem> {
    let limit = Bounds::SMALL_JSON_BYTES;
    let body = bodies::read(&app.admission, body, limit, app.bounds.body_timeout).await?;
    ask(&app, Endpoint::BindingsPut(name), body, trace).await
}

/// `DELETE /v1/bindings/{name}`
pub async fn delete(
    State(app): State<Arc<App>>,
    _room: Room,
    trace: Trace,
    InPath(name): InPath<BindingName>,
) -> Result<Response, Problem> {
    ask(&app, Endpoint::BindingsDelete(name), Bytes::new(), trace).await
}

async fn ask(app: &App, endpoint: Endpoint, body: Bytes, Trace(trace): Trace) -> Result<Response, Problem> {
    let reply = app.workers.ask(Question::record(endpoint, body, trace)).await?;
    app.answer_record(reply.payload).await
}
