//! Waiting for state, never for time.

use std::time::Duration;

use tokio::time::Instant;

/// How long anything may take that a test waits for. Far above what it takes on a busy machine.
pub const DEADLINE: Duration = Duration::from_secs(30);
/// How often it is looked at.
pub(crate) const STEP: Duration = Duration::from_millis(10);

/// Looks until `probe` gives something; panics, naming `what`, at the deadline.
pub async fn eventually<T>(what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {DEADLINE:?} for {what}");
        tokio::time::sleep(STEP).await;
    }
}

/// As [`eventually`], without a runtime; gives nothing after `limit`.
pub(crate) fn eventually_blocking<T>(limit: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = std::time::Instant::now() + limit;
    while std::time::Instant::now() < deadline {
        if let Some(found) = probe() {
            return Some(found);
        }
        std::thread::sleep(STEP);
    }
    None
}
