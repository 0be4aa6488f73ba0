//! What each route does: takes the request apart, asks a worker, puts the answer together.
//!
//! Holds no rule of the contract: workers decide, and say so by code.

pub mod chain;
pub mod health;
pub mod invoke;
pub mod modules;
pub mod openapi;
pub mod store;
pub mod wasm;

use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;

fn json_answer(body: Bytes) -> Response {
    ([(CONTENT_TYPE, "application/json")], body).into_response()
}
