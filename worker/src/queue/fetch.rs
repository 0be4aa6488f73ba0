//! Taking messages out of a queue: the permit first, the message second, so that none waits here that another worker
//! could run.
//!
//! A worker whose slots are all busy asks for one message a second all the same: calls cannot starve jobs.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::Message;
use async_nats::jetstream::consumer::PullConsumer;
use futures_util::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::fleet::CountSlots;

/// Messages asked for at once.
const BATCH: usize = 256;
/// What one batch may hold, in bytes.
const BATCH_BYTES: usize = 64 << 20;
/// How long one request waits at the server. A worker that stops lets its last one run out, so that nothing is sent to
/// nobody.
const EXPIRES: Duration = Duration::from_millis(500);
/// How long all slots may be busy before a message is asked for in spite of that.
const STARVED: Duration = Duration::from_secs(1);
/// How often busy slots are looked at.
const LOOK: Duration = Duration::from_millis(5);

/// What a queue may have under way on this worker.
#[derive(Clone)]
pub struct Pool {
    permits: Arc<Semaphore>,
    slots: CountSlots,
}

/// The right to one message, given back when dropped.
pub type Permit = OwnedSemaphorePermit;

impl Pool {
    /// So many messages at once, while the worker has free slots.
    pub fn new(size: usize, slots: CountSlots) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(size)),
            slots,
        }
    }

    /// Waits for a permit and a free slot, then takes as many permits as there are.
    async fn take(&self) -> Vec<Permit> {
        // The pool is never closed.
        let Ok(first) = Arc::clone(&self.permits).acquire_owned().await else {
            return Vec::new();
        };
        self.wait_for_slot().await;
        let free = {
            let slots = (self.slots)();
            slots.total.saturating_sub(slots.busy) as usize
        };
        let more = std::iter::from_fn(|| Arc::clone(&self.permits).try_acquire_owned().ok());
        std::iter::once(first)
            .chain(more.take(free.min(BATCH).saturating_sub(1)))
            .collect()
    }

    async fn wait_for_slot(&self) {
        let starved = Instant::now() + STARVED;
        loop {
            let slots = (self.slots)();
            if slots.busy < slots.total || Instant::now() >= starved {
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Asks for as many messages as there are permits, and hands each over with its own. Ends at `shutdown`, or when the
    /// queue cannot be asked.
    pub async fn serve(
        &self,
        consumer: &PullConsumer,
        shutdown: &CancellationToken,
        mut handle: impl FnMut(Message, Permit),
    ) -> Result<(), async_nats::Error> {
        while let Some(mut permits) = shutdown.run_until_cancelled(self.take()).await {
            let request = consumer
                .batch()
                .max_messages(permits.len())
                .max_bytes(BATCH_BYTES);
            let mut batch = request.expires(EXPIRES).messages().await?;
            while let Some(message) = batch.next().await {
                let message = message?;
                let Some(permit) = permits.pop() else { break };
                handle(message, permit);
            }
        }
        Ok(())
    }
}
