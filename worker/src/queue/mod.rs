//! Durable jobs on this worker: taken from `WESS_JOBS` when there is room, run, settled, or given up.

pub mod dead;
pub mod ending;
pub mod fetch;
pub mod records;
pub mod run;
pub mod serve;
pub mod settle;
pub mod stats;
pub mod stored;
pub mod sweep;
pub mod tell;
pub mod webhook;

use wess_schemas::{ErrorBody, ErrorCode};

/// What a caller is told whose request says something that cannot be.
pub fn bad_request(why: impl std::fmt::Display) -> ErrorBody {
    ErrorBody::new(ErrorCode::InvalidRequest, why.to_string())
}
