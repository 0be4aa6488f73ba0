//! Taking messages out of a queue: the permit first, the message second, so that none waits here that another worker
//! could run.
//!
//! A worker whose slots are all busy asks for one message a second all the same: calls cannot starve jobs.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::consumer::PullConsumer;
use async_nats::jetstream::{Context, Message};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::pull::{Pull, PullError, Pulled};
use crate::executor::Executors;

/// Messages asked for at once.
const BATCH: usize = 256;
/// How long one request waits at the server. A worker that stops lets its last one run out.
const PATIENCE: Duration = Duration::from_millis(500);
/// How long all slots may be busy before a message is asked for in spite of that.
const STARVED: Duration = Duration::from_secs(1);

/// What a queue may have under way on this worker.
#[derive(Clone)]
pub struct Pool {
    permits: Arc<Semaphore>,
    executors: Option<Executors>,
}

/// The right to one message, given back when dropped.
pub type Permit = OwnedSemaphorePermit;

/// Why a queue is not served any more.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Nothing could be asked for.
    #[error(transparent)]
    Ask(#[from] PullError),
    /// The consumer or its server is gone.
    #[error("the queue or its server is gone")]
    Lost,
}

impl Pool {
    /// So many messages at once; of those that run guests, only while these executors have free slots.
    pub fn new(size: usize, executors: Option<Executors>) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(size)),
            executors,
        }
    }

    /// Waits for a permit and a free slot, then takes as many permits as there are.
    async fn take(&self) -> Vec<Permit> {
        // The semaphore is never closed.
        let Ok(first) = Arc::clone(&self.permits).acquire_owned().await else {
            return Vec::new();
        };
        let most = match &self.executors {
            Some(executors) => free_slots(executors).await.min(BATCH),
            None => BATCH,
        };
        let more = std::iter::from_fn(|| Arc::clone(&self.permits).try_acquire_owned().ok());
        std::iter::once(first)
            .chain(more.take(most.saturating_sub(1)))
            .collect()
    }

    /// Asks for as many messages as there are permits, and hands each over with its own. Ends at `shutdown`, or when the
    /// queue cannot be asked.
    pub async fn serve(
        &self,
        context: &Context,
        consumer: &PullConsumer,
        shutdown: &CancellationToken,
        mut handle: impl FnMut(Message, Permit),
    ) -> Result<(), ServeError> {
        let client = context.client();
        while let Some(mut permits) = shutdown.run_until_cancelled(self.take()).await {
            let most = permits.len();
            let mut pull = Pull::begin(&client, context.clone(), consumer, most, Some(PATIENCE)).await?;
            loop {
                match pull.next().await {
                    Pulled::Message(message) => match permits.pop() {
                        Some(permit) => handle(*message, permit),
                        None => break,
                    },
                    Pulled::Over => break,
                    Pulled::Lost => return Err(ServeError::Lost),
                }
            }
        }
        Ok(())
    }
}

/// How many slots are free, once any is or has not been for long.
async fn free_slots(executors: &Executors) -> usize {
    let mut changes = executors.room();
    let starved = Instant::now() + STARVED;
    loop {
        changes.mark_unchanged();
        let free = executors.free_slots();
        if free > 0 {
            return free;
        }
        tokio::select! {
            _ = changes.changed() => (),
            () = tokio::time::sleep_until(starved) => return 1,
        }
    }
}
