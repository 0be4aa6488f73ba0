//! Whether this gateway lives, and whether it can answer. For balancers that see only this port.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use wess_schemas::ErrorCode;

use crate::app::App;
use crate::problem::Problem;

/// `GET /livez`
pub async fn live() -> &'static str {
    "ok\n"
}

/// `GET /readyz`
pub async fn ready(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let readiness = app.lifecycle.health.readiness();
    if readiness.ready {
        return Ok(Json(readiness).into_response());
    }
    let facts = serde_json::to_value(&readiness).unwrap_or_default();
    let problem = Problem::new(ErrorCode::Unavailable, "this gateway is not ready");
    Err(problem
        .with("phase", facts["phase"].clone())
        .with("reasons", facts["reasons"].clone()))
}
