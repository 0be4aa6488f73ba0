//! What a worker tells the fleet of itself, every 250 ms and whenever its catalog has moved.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::WorkerId;

/// How often a worker beats.
pub const BEAT_INTERVAL: Duration = Duration::from_millis(250);
/// A worker that has been silent so long is not counted as alive.
pub const BEAT_EXPIRY: Duration = Duration::from_millis(750);

/// The body of `wess.worker.beat`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WorkerBeat {
    /// Who beats.
    pub worker: WorkerId,
    /// Guests running or suspended.
    pub slots_busy: u32,
    /// Guests that may.
    pub slots_total: u32,
    /// Calls waiting for a slot.
    pub waiting: u32,
    /// The newest revision of `wess-modules` that its catalog has applied.
    pub catalog_revision: u64,
    /// Whether it takes no new work.
    pub draining: bool,
    /// Calls that it has answered since it started, with results or with errors. Left out, it is 0.
    #[serde(default, skip_serializing_if = "is_none_yet")]
    pub calls_answered: u64,
}

fn is_none_yet(answered: &u64) -> bool {
    *answered == 0
}
