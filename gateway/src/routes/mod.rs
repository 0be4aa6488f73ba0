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

use axum::http::header::{CONTENT_TYPE, HeaderName};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;

/// What an answer in JSON says of itself.
pub const JSON: [(HeaderName, &str); 1] = [(CONTENT_TYPE, "application/json")];

/// An answer in JSON.
pub fn json_answer(body: Bytes) -> Response {
    (JSON, body).into_response()
}
