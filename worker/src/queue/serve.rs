//! Keeps taking from the queues for as long as the worker runs, whatever becomes of NATS meanwhile.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::Message;
use async_nats::jetstream::consumer::PullConsumer;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wess_schemas::subject::Subjects;
use wess_service::lifecycle::Lifecycle;
use wess_service::queue::assets::QueueAssets;
use wess_service::queue::timers::move_fired;

use super::fetch::{Permit, Pool};
use super::payload_sweep::{INTERVAL, PayloadSweep};
use super::settle::Settler;
use super::sweep::Sweep;
use crate::registry::Storage;

/// How long to wait before a queue that could not be asked is asked again.
const PAUSE: Duration = Duration::from_secs(1);

/// What takes from the queues.
pub struct Queues {
    /// The way to JetStream.
    pub storage: Storage,
    /// Whose subjects they are.
    pub subjects: Subjects,
    /// Its life.
    pub lifecycle: Lifecycle,
    /// Held while anything may still go to an executor.
    pub under_way: TaskTracker,
}

impl Queues {
    /// Takes jobs, and brings them to their end.
    pub fn serve_jobs(&self, pool: Pool, settler: Arc<Settler>) {
        let lifecycle = self.lifecycle.clone();
        let handle = move |message: Message, permit: Permit, tasks: &TaskTracker| {
            let (settler, cut) = (Arc::clone(&settler), lifecycle.cut.clone());
            let job = async move { Box::pin(settler.process(message, permit, &cut)).await };
            tasks.spawn(lifecycle.brief("a job", job));
        };
        self.serve("jobs", pool, |queue| Some(queue.jobs), handle);
    }

    /// Gives up jobs that were delivered too often.
    pub fn serve_sweep(&self, pool: Pool, sweep: Sweep) {
        let lifecycle = self.lifecycle.clone();
        let handle = move |message: Message, permit: Permit, tasks: &TaskTracker| {
            let sweep = sweep.clone();
            let job = async move {
                sweep.process(message).await;
                drop(permit);
            };
            tasks.spawn(lifecycle.brief("an advisory", job));
        };
        self.serve("sweep", pool, |queue| Some(queue.sweep), handle);
    }

    /// Sweeps payloads now and then.
    pub fn sweep_payloads(&self, sweep: PayloadSweep) {
        let shutdown = self.lifecycle.shutdown.clone();
        self.lifecycle.spawn("sweep payloads", async move {
            let mut ticks = tokio::time::interval(INTERVAL);
            while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
                let sweeping = Box::pin(sweep.sweep_now());
                match shutdown.run_until_cancelled(sweeping).await {
                    Some(Ok(0)) | None => {}
                    Some(Ok(swept)) => tracing::info!(swept, "payloads of jobs that are over were deleted"),
                    Some(Err(error)) => tracing::debug!(%error, "payloads of jobs were not swept"),
                }
            }
        });
    }

    /// Moves what schedules fire into the queue of jobs.
    pub fn serve_timers(&self) {
        let (storage, subjects) = (self.storage.clone(), self.subjects.clone());
        let shutdown = self.lifecycle.shutdown.clone();
        self.lifecycle.spawn("timers", async move {
            let Some(consumer) = open(&storage, &shutdown, |queue| queue.timers).await else {
                return shutdown.cancelled().await;
            };
            move_fired(storage.jetstream().clone(), consumer, subjects, shutdown).await;
        });
    }

    /// Takes from one queue until shutdown; ends once everything that was taken has been seen to.
    pub fn serve(
        &self,
        name: &'static str,
        pool: Pool,
        of: fn(QueueAssets) -> Option<PullConsumer>,
        mut handle: impl FnMut(Message, Permit, &TaskTracker) + Send + 'static,
    ) {
        let (storage, shutdown) = (self.storage.clone(), self.lifecycle.shutdown.clone());
        let inside = self.under_way.token();
        self.lifecycle.spawn(name, async move {
            let tasks = TaskTracker::new();
            while let Some(consumer) = open(&storage, &shutdown, of).await {
                let served = pool
                    .serve(storage.jetstream(), &consumer, &shutdown, |message, permit| {
                        handle(message, permit, &tasks)
                    })
                    .await;
                if let Err(error) = served {
                    tracing::warn!(queue = name, %error, "a queue cannot be asked");
                    storage.forget();
                    shutdown.run_until_cancelled(tokio::time::sleep(PAUSE)).await;
                }
            }
            tasks.close();
            tasks.wait().await;
            if tokio::time::timeout(PAUSE, storage.client().flush())
                .await
                .is_err()
            {
                tracing::warn!(
                    queue = name,
                    "NATS is away: the last acknowledgements may not have been sent"
                );
            }
            drop(inside);
        });
    }
}

/// The consumer, once JetStream has it; `None` at shutdown.
async fn open(
    storage: &Storage,
    shutdown: &CancellationToken,
    of: fn(QueueAssets) -> Option<PullConsumer>,
) -> Option<PullConsumer> {
    let opening = async {
        loop {
            match storage.assets().await {
                Ok(assets) => return of(assets.queue),
                Err(error) => tracing::debug!(%error, "the queues are away"),
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    shutdown.run_until_cancelled(opening).await.flatten()
}
