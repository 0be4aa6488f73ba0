//! Takes calls that wait in `WESS_CALLS`, as slots come free, and has them answered where their callers wait.
//!
//! Takes a permit first and a message second. A call taken from the queue is never spilled again; only what comes while
//! this worker is full and another is not, or while it stops, is put back.

use std::sync::Arc;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::jetstream;
use async_nats::jetstream::consumer::PullConsumer;
use futures_util::FutureExt;
use futures_util::future::pending;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry as Metrics;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wess_schemas::WorkerId;
use wess_schemas::subject::Subjects;
use wess_service::assets::AssetOptions;
use wess_service::lifecycle::Lifecycle;
use wess_service::nats::{Connection, ConnectionWatch};
use wess_service::queue::assets::ensure_queue;
use wess_service::queue::calls;
use wess_service::queue::overdue::Overdue;
use wess_service::reply::error_reply;

use super::Clock;
use super::pull::{Pull, Pulled};
use crate::control::{self, Control};
use crate::executor::Executors;
use crate::executor::tally::Tally;
use crate::fleet::Fleet;
use crate::registry::Storage;

/// Messages that one pull asks for: few, as slots may be taken before they come.
const MAX_PULL: usize = 16;
/// How long a pull waits at the server. Also how long a stop may have to wait for it, and for how long a worker that has
/// become full may still be given calls that it puts back.
const PATIENCE: Duration = Duration::from_millis(500);
/// In a fleet whose slots are never free a worker takes a call this often all the same: direct calls must not starve the
/// queue.
const AT_LEAST_EVERY: Duration = Duration::from_secs(1);
/// Bounds one attempt to open the queue.
const ENSURE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long to leave the server alone while the queue is not there.
const PAUSE: Duration = Duration::from_secs(1);
/// Requests from the queue at once that run no guest: about as many as the control plane serves.
const MAX_REQUESTS: usize = 256;
/// How long the last replies may take once grace was cut.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What taking calls needs.
pub struct CallQueueParts {
    /// This worker.
    pub worker: WorkerId,
    /// Every subject.
    pub subjects: Subjects,
    /// The connection of the main runtime.
    pub connection: Connection,
    /// Where large outputs go.
    pub storage: Storage,
    /// How the queue is made, should it be missing.
    pub assets: AssetOptions,
    /// Where guests run.
    pub executors: Executors,
    /// What answers everything else.
    pub control: Control,
    /// Who else could take a call.
    pub fleet: Fleet,
    /// Calls in hand at once.
    pub permits: usize,
    /// What deadlines are told by.
    pub clock: Clock,
    /// Held while calls from the queue may still come to executors.
    pub inside: TaskTracker,
    /// Calls in the queue that came from here.
    pub overdue: Overdue,
}

/// The worker's side of the queue of calls. Cheap to clone.
#[derive(Clone)]
pub struct CallQueue(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) parts: CallQueueParts,
    pub(super) jetstream: jetstream::Context,
    pub(super) stats: CallQueueStats,
    pub(super) requests: Arc<Semaphore>,
    permits: Arc<Semaphore>,
}

/// What it has counted.
#[derive(Debug, Clone, Default)]
pub struct CallQueueStats {
    /// Calls that never came to an executor, by code.
    pub(super) refused: Arc<Tally>,
    pub(super) taken: Counter,
    pub(super) expired: Counter,
    pub(super) handed_back: Counter,
}

impl CallQueueStats {
    /// Calls that never came to an executor, to be shown with those of executors.
    pub fn refused(&self) -> Arc<Tally> {
        Arc::clone(&self.refused)
    }

    /// Shows them in a scrape.
    pub fn register(&self, metrics: &mut Metrics) {
        for (name, help, counter) in [
            (
                "queued_calls_taken",
                "Calls and requests taken from the queue of calls",
                &self.taken,
            ),
            (
                "calls_expired_in_queue",
                "Calls whose wait had ended when they were taken from the queue",
                &self.expired,
            ),
            (
                "queued_calls_handed_back",
                "Calls put back into the queue for another worker",
                &self.handed_back,
            ),
        ] {
            metrics.register(name, help, counter.clone());
        }
    }
}

/// Permits to ask for so many messages.
struct Room {
    permits: Vec<OwnedSemaphorePermit>,
    /// No slot is free, but it is time to take a call.
    is_due: bool,
}

/// What a pull came to.
#[derive(Debug, PartialEq, Eq)]
enum Ended {
    /// Calls are in hand now, or nothing was there.
    Well,
    /// All that came had waited too long.
    Overdue,
    /// The queue is away.
    Away,
}

impl CallQueue {
    /// Takes nothing yet.
    pub fn new(parts: CallQueueParts) -> Self {
        Self(Arc::new(Inner {
            jetstream: jetstream::new(parts.connection.client.clone()),
            stats: CallQueueStats::default(),
            requests: Arc::new(Semaphore::new(MAX_REQUESTS)),
            permits: Arc::new(Semaphore::new(parts.permits)),
            parts,
        }))
    }

    /// What it counts.
    pub fn stats(&self) -> &CallQueueStats {
        &self.0.stats
    }

    /// Takes calls until the process stops.
    pub fn serve(&self, lifecycle: &Lifecycle) {
        let taker = Taker {
            queue: self.clone(),
            lifecycle: lifecycle.clone(),
            tasks: TaskTracker::new(),
        };
        lifecycle.spawn("take waiting calls", taker.serve());
        let (queue, end) = (self.clone(), lifecycle.shutdown.clone());
        lifecycle.spawn("answer the overdue", async move {
            end.run_until_cancelled(queue.answer_overdue()).await;
        });
    }

    /// Tells whoever waited for a call from here that no worker was given in time.
    async fn answer_overdue(&self) {
        let Inner {
            parts,
            jetstream,
            stats,
            ..
        } = &*self.0;
        loop {
            for reply in parts.overdue.take_out(jetstream, &parts.subjects).await {
                let error = calls::overdue();
                stats.expired.inc();
                stats.refused.fail_from_anywhere(error.code());
                control::send(&parts.connection.client, reply, error_reply(&error)).await;
            }
        }
    }
}

/// The loop that takes calls, and its calls in hand.
#[derive(Clone)]
pub(super) struct Taker {
    pub(super) queue: CallQueue,
    pub(super) lifecycle: Lifecycle,
    pub(super) tasks: TaskTracker,
}

impl Taker {
    async fn serve(self) {
        // A call that was taken still finds executors.
        let _inside = self.queue.0.parts.inside.token();
        let stop = self.lifecycle.shutdown.clone();
        self.take_until(&stop).await;
        let (cut, client) = (&self.lifecycle.cut, &self.queue.0.parts.connection.client);
        let rest = async {
            self.tasks.close();
            self.tasks.wait().await;
            if client.connection_state() == State::Connected
                && tokio::time::timeout(LAST_WORDS, client.flush()).await.is_err()
            {
                tracing::warn!("NATS is away: the last replies may not have been sent");
            }
        };
        let too_late = async {
            cut.cancelled().await;
            tokio::time::sleep(LAST_WORDS).await;
        };
        tokio::select! {
            () = rest => (),
            () = too_late => tracing::error!(calls = self.tasks.len(), "calls from the queue are left without an answer"),
        }
    }

    async fn take_until(&self, stop: &CancellationToken) {
        let mut watch = self.queue.0.parts.connection.watch.clone();
        let mut taken = Instant::now();
        while let Some(consumer) = stop.run_until_cancelled(self.consumer()).await {
            let opened = Instant::now();
            while let Some(room) = stop.run_until_cancelled(self.room(taken)).await {
                match self.pull(&consumer, room, stop, &mut watch).await {
                    Ended::Well => taken = Instant::now(),
                    Ended::Overdue => {}
                    Ended::Away => break,
                }
            }
            // Were it found each time and lost each time, this would ask without end.
            let pause = tokio::time::sleep_until(opened + PAUSE);
            stop.run_until_cancelled(pause).await;
        }
    }

    /// The queue's consumer, once there is one. Does not go by the handles that others have: with the queue gone, those
    /// to modules and state still hold.
    async fn consumer(&self) -> PullConsumer {
        let Inner { parts, jetstream, .. } = &*self.queue.0;
        loop {
            if parts.connection.watch.state().connected {
                let ensuring = ensure_queue(jetstream, &parts.assets);
                match tokio::time::timeout(ENSURE_TIMEOUT, ensuring).await {
                    Ok(Ok(queue)) => return queue.calls,
                    Ok(Err(error)) => tracing::warn!(%error, "the queue of calls is away"),
                    Err(_) => tracing::warn!("JetStream does not answer: the queue of calls is away"),
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Waits until a call may be taken: for a permit, then for a free slot, or for its time if nobody else has one.
    async fn room(&self, mut taken: Instant) -> Room {
        let Inner { parts, permits, .. } = &*self.queue.0;
        let mut changes = parts.executors.room();
        let Ok(first) = permits.clone().acquire_owned().await else {
            return pending().await;
        };
        loop {
            changes.mark_unchanged();
            let free = parts.executors.free_slots();
            if free > 0 {
                let more = (1..free.min(MAX_PULL)).map_while(|_| permits.clone().try_acquire_owned().ok());
                let permits = std::iter::once(first).chain(more).collect();
                return Room {
                    permits,
                    is_due: false,
                };
            }
            tokio::select! {
                _ = changes.changed() => (),
                () = tokio::time::sleep_until(taken + AT_LEAST_EVERY) => {
                    if !parts.fleet.others_have_room() {
                        return Room { permits: vec![first], is_due: true };
                    }
                    taken = Instant::now();
                }
            }
        }
    }

    /// Takes as many calls as there is room for, until the server says that no more come for now.
    async fn pull(
        &self,
        consumer: &PullConsumer,
        room: Room,
        stop: &CancellationToken,
        watch: &mut ConnectionWatch,
    ) -> Ended {
        let Inner { parts, jetstream, .. } = &*self.queue.0;
        let ack_wait = consumer.cached_info().config.ack_wait;
        let patience = (!room.is_due).then_some(PATIENCE);
        let (most, mut permits) = (room.permits.len(), room.permits);
        // What the connection did before now is no reason to give this pull up.
        while let Some(Some(_)) = watch.changed().now_or_never() {}
        let client = &parts.connection.client;
        let begun = Pull::begin(client, jetstream.clone(), consumer, most, patience).await;
        let mut pull = match begun {
            Ok(pull) => pull,
            Err(error) => {
                tracing::debug!(%error, "calls could not be asked for");
                return Ended::Away;
            }
        };
        let (mut kept, mut came) = (0, 0);
        loop {
            let pulled = tokio::select! {
                biased;
                pulled = pull.next() => pulled,
                _ = watch.changed() => Pulled::Lost,
            };
            match pulled {
                Pulled::Message(message) => {
                    let Some(permit) = permits.pop() else {
                        return Ended::Well;
                    };
                    let is_welcome = !stop.is_cancelled() && self.has_place();
                    came += 1;
                    kept += usize::from(self.take(*message, permit, ack_wait, is_welcome));
                }
                Pulled::Over if came > 0 && kept == 0 => return Ended::Overdue,
                Pulled::Over => return Ended::Well,
                Pulled::Lost => return Ended::Away,
            }
        }
    }

    /// Whether a call is as well off here as anywhere.
    fn has_place(&self) -> bool {
        let parts = &self.queue.0.parts;
        parts.executors.free_slots() > 0 || !parts.fleet.others_have_room()
    }
}
