//! The queue's side of a worker: taking what waits in JetStream, and settling it.
//!
//! Invariant: a permit first, a message second, so that no more is taken than can be run.

mod hand;
mod pull;
pub mod shares;
pub mod spill;

/// The wall clock: milliseconds since 1970. A plain function, so that a test can give a worker another one.
pub type Clock = fn() -> u64;

/// The machine's own clock.
pub fn wall_clock() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
