//! Replies in the contract's form: JSON, and errors with the headers that the NATS Services API gives them.

use async_nats::{HeaderMap, HeaderName};
use serde::Serialize;
use wess_schemas::{ErrorBody, header};

use crate::bus::Reply;

/// A reply in JSON.
pub fn json_reply<T: Serialize>(body: &T) -> Reply {
    let mut headers = HeaderMap::new();
    headers.insert(HeaderName::from_static(header::CONTENT_TYPE), "application/json");
    // Most are outcomes of some hundred bytes: room for them at once, instead of each time that it doubles.
    const USUAL_BYTES: usize = 1024;
    let mut payload = Vec::with_capacity(USUAL_BYTES);
    // Messages of ours always serialize: no maps with other keys than text, no failing `Serialize`.
    if serde_json::to_writer(&mut payload, body).is_err() {
        payload.clear();
    }
    Reply {
        headers,
        payload: payload.into(),
    }
}

/// A refusal, with the headers that the NATS Services API gives errors.
pub fn error_reply(error: &ErrorBody) -> Reply {
    let mut reply = json_reply(error);
    reply
        .headers
        .insert(header::SERVICE_ERROR, header::header_line(&error.error.message));
    reply
        .headers
        .insert(header::SERVICE_ERROR_CODE, error.code().http_status().to_string());
    reply
}
