//! The queue's side of a worker: taking what waits in JetStream, and settling it. Durable jobs, and synchronous calls that
//! found no slot.
//!
//! Invariant: a permit first, a message second, so that no more is taken than can be run.

pub mod dead;
pub mod ending;
pub mod fetch;
mod hand;
pub mod keyed;
pub mod known;
pub mod payload_sweep;
mod pull;
pub mod records;
pub mod run;
pub mod serve;
pub mod settle;
pub mod shares;
pub mod spill;
pub mod stats;
pub mod stored;
pub mod sweep;
pub mod tell;
pub mod webhook;

use wess_schemas::timestamp::Timestamp;
use wess_schemas::{ErrorBody, ErrorCode};

/// The wall clock. A plain function, so that a test can give a worker another one. It may jump: of jobs it says only what
/// is shown, when they began and ended; what becomes of them goes by NATS's clock.
pub type Clock = fn() -> Timestamp;

/// What a caller is told whose request says something that cannot be.
pub fn bad_request(why: impl std::fmt::Display) -> ErrorBody {
    ErrorBody::new(ErrorCode::InvalidRequest, why.to_string())
}
