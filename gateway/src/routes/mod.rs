//! What each route does: takes the request apart, asks a worker, puts the answer together.
//!
//! Holds no rule of the contract: workers decide, and say so by code.

pub mod bindings;
pub mod chain;
pub mod dead;
pub mod health;
pub mod http;
pub mod invoke;
pub mod jobs;
pub mod modules;
pub mod openapi;
pub mod store;
pub mod wasm;

use axum::http::header::{CONTENT_TYPE, HeaderName, LOCATION};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Deserialize;
use wess_schemas::JobId;

use crate::app::App;
use crate::problem::Problem;
use crate::workers::unreadable;

/// What an answer in JSON says of itself.
pub const JSON: [(HeaderName, &str); 1] = [(CONTENT_TYPE, "application/json")];

/// An answer in JSON.
pub fn json_answer(body: Bytes) -> Response {
    (JSON, body).into_response()
}

/// The answer with the record of a job that is accepted, and where it is found from now on.
async fn accepted(app: &App, record: Bytes) -> Result<Response, Problem> {
    #[derive(Deserialize)]
    struct Accepted {
        job_id: JobId,
    }
    let Accepted { job_id } = serde_json::from_slice(&record).map_err(|error| unreadable(&error))?;
    let location = HeaderValue::try_from(format!("/v1/jobs/{job_id}"));
    let mut answer = app.answer_outcome(record).await?;
    *answer.status_mut() = StatusCode::ACCEPTED;
    if let Ok(location) = location {
        answer.headers_mut().insert(LOCATION, location);
    }
    Ok(answer)
}
