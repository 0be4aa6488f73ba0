//! Bounded admission to costly work: so many at it, so many waiting, and whoever comes next is told at once.
//!
//! Nobody waits longer than [`PATIENCE`]; a refusal is always `overloaded`, never silence.

use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use wess_schemas::error::ErrorBody;
use wess_schemas::error_code::ErrorCode;

/// A caller that has waited so long has most likely gone.
const PATIENCE: Duration = Duration::from_secs(30);

/// Lets a bounded number work and a bounded number wait.
#[derive(Debug)]
pub struct Gate {
    what: &'static str,
    working: Semaphore,
    room: Semaphore,
}

/// The right to work, given back when dropped.
#[derive(Debug)]
#[must_use]
pub struct Pass<'a> {
    _working: SemaphorePermit<'a>,
    _room: SemaphorePermit<'a>,
}

impl Gate {
    /// A gate before `what`, a plural that its refusals name.
    pub fn new(what: &'static str, working: usize, waiting: usize) -> Self {
        Self {
            what,
            working: Semaphore::new(working),
            room: Semaphore::new(working + waiting),
        }
    }

    /// Waits for a pass, if there is room to wait.
    pub async fn enter(&self) -> Result<Pass<'_>, ErrorBody> {
        let room = self.room.try_acquire().map_err(|_| self.refusal())?;
        let working = tokio::time::timeout(PATIENCE, self.working.acquire()).await;
        match working {
            Ok(Ok(working)) => Ok(Pass {
                _working: working,
                _room: room,
            }),
            Ok(Err(_)) | Err(_) => Err(self.refusal()),
        }
    }

    fn refusal(&self) -> ErrorBody {
        ErrorBody::new(
            ErrorCode::Overloaded,
            format!("too many {} at once on this worker", self.what),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[tokio::test]
    async fn one_works_one_waits_and_the_third_is_refused_at_once() {
        let gate = Gate::new("stores", 1, 1);
        let working = gate.enter().await.unwrap();
        let mut waiting = Box::pin(gate.enter());
        assert!(waiting.as_mut().now_or_never().is_none());
        let refused = gate.enter().await.unwrap_err();
        assert_eq!(refused.code(), ErrorCode::Overloaded);
        assert!(refused.error.message.contains("stores"));
        drop(working);
        assert!(waiting.await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_past_patience() {
        let gate = Gate::new("stores", 1, 1);
        let _working = gate.enter().await.unwrap();
        assert_eq!(gate.enter().await.unwrap_err().code(), ErrorCode::Overloaded);
        assert!(
            gate.enter().now_or_never().is_none(),
            "the room of the one who gave up is free again"
        );
    }
}
