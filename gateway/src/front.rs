//! The gateway in the workers' place while none beats: it takes what is asked of them and queues it for the first one.
//!
//! Answers nothing itself but refusals. Invariant: what NATS handed over here is queued or refused, also while it leaves.

mod door;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use async_nats::jetstream::{self, Context};
use async_nats::{Client, Message, Subject};
use tokio::runtime::Handle;
use tokio::sync::{Mutex, Notify, Semaphore, watch};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use wess_schemas::subject::Subjects;
use wess_schemas::{ErrorBody, ErrorCode};
use wess_service::assets::AssetOptions;
use wess_service::lifecycle::Lifecycle;
use wess_service::nats::{ConnectFailed, NatsConfig};
use wess_service::queue::QueueError;
use wess_service::queue::assets::ensure_queue;
use wess_service::queue::calls::{self, QueuedCall};
use wess_service::queue::overdue::Overdue;
use wess_service::reply::error_reply;

use crate::fleet::{Fleet, FleetState};
use crate::front::door::Door;
use crate::metrics::Metrics;

/// Requests on their way into the queue at once, each up to [`UNIT_BYTES`]; a larger one counts as several. Together they
/// are no more than the queue holds.
const ROOM_UNITS: usize = 4096;
const UNIT_BYTES: usize = 16 * 1024;

/// What a front needs.
pub struct Front {
    /// How to reach NATS: requests come in by a connection of their own.
    pub nats: NatsConfig,
    /// The connection for all else.
    pub client: Client,
    /// How the queue is made where it is not there.
    pub assets: AssetOptions,
    /// The workers that beat.
    pub fleet: Fleet,
    /// Woken when a request of the gateway's own found nobody.
    pub nobody: Arc<Notify>,
    /// Where it counts.
    pub metrics: Metrics,
}

impl Front {
    /// Watches the workers from now on, until shutdown; then it leaves as it does for a worker.
    pub async fn start(self, lifecycle: &Lifecycle) -> Result<(), ConnectFailed> {
        let desk = Arc::new(Desk {
            jetstream: jetstream::new(self.client.clone()),
            client: self.client,
            subjects: self.nats.subjects.clone(),
            assets: self.assets,
            fleet: self.fleet.state(),
            nobody: self.nobody,
            metrics: self.metrics,
            lifecycle: lifecycle.clone(),
            runtime: Handle::current(),
            room: Arc::new(Semaphore::new(ROOM_UNITS)),
            repaired: Mutex::new(Instant::now()),
            overdue: Overdue::default(),
            tasks: TaskTracker::new(),
        });
        let over = Door::open(self.nats, desk.clone()).await?;
        lifecycle.spawn("answer the overdue", desk.clone().answer_overdue());
        lifecycle.spawn("front", async move {
            over.await;
            desk.finish().await;
        });
        Ok(())
    }
}

/// Where requests are queued or refused.
struct Desk {
    client: Client,
    jetstream: Context,
    subjects: Subjects,
    assets: AssetOptions,
    fleet: watch::Receiver<FleetState>,
    nobody: Arc<Notify>,
    metrics: Metrics,
    lifecycle: Lifecycle,
    /// Where the requests' tasks run.
    runtime: Handle,
    room: Arc<Semaphore>,
    /// When the queue was last made anew.
    repaired: Mutex<Instant>,
    overdue: Overdue,
    tasks: TaskTracker,
}

impl Desk {
    /// Waits until everything that was taken is queued or refused, and sent; nothing more may come.
    async fn finish(&self) {
        self.tasks.close();
        let all = async {
            self.tasks.wait().await;
            let _ = self.client.flush().await;
        };
        self.lifecycle.cut.run_until_cancelled(all).await;
    }

    /// Tells whoever waited for a call that no worker was given in time, until shutdown.
    async fn answer_overdue(self: Arc<Self>) {
        let shutdown = self.lifecycle.shutdown.clone();
        let answering = async {
            loop {
                for reply in self.overdue.take_out(&self.jetstream, &self.subjects).await {
                    self.ended(Some(reply), Err(calls::overdue())).await;
                }
            }
        };
        shutdown.run_until_cancelled(answering).await;
    }

    /// One whose reply would forge something is not even looked at.
    async fn take(self: &Arc<Self>, message: Message) {
        if let Some(reply) = &message.reply
            && !self.subjects.may_reply_to(reply)
        {
            self.metrics.forged_reply();
            return tracing::warn!(%reply, "a request named a reply subject that nobody may reply to");
        }
        let units = 1 + message.payload.len() / UNIT_BYTES;
        let units = u32::try_from(units.min(ROOM_UNITS)).unwrap_or(u32::MAX);
        let Ok(room) = self.room.clone().try_acquire_many_owned(units) else {
            return self.ended(message.reply, Err(full())).await;
        };
        let desk = self.clone();
        let task = self.lifecycle.brief("queue a request", async move {
            let _room = room;
            let reply = message.reply.clone();
            let queued = desk.queue(message).await;
            desk.ended(reply, queued).await;
        });
        self.tasks.spawn_on(task, &self.runtime);
    }

    async fn queue(&self, message: Message) -> Result<(), ErrorBody> {
        let headers = message.headers.unwrap_or_default();
        let (subject, payload) = (message.subject.into_string(), message.payload);
        let endpoint = self.subjects.parse(&subject);
        let endpoint =
            endpoint.map_err(|error| ErrorBody::new(ErrorCode::InvalidRequest, error.to_string()))?;
        let (wait, now_ms) = (calls::wait(&endpoint, &headers, &payload), now_ms());
        let deadline = Instant::now() + wait;
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        let call = QueuedCall {
            subject,
            headers,
            payload,
            reply: message.reply.clone(),
            deadline_ms: now_ms.saturating_add(wait_ms),
        };
        let number = self.store(call, now_ms).await;
        let number = number.map_err(|error| self.explain(&error))?;
        if let Some(reply) = message.reply {
            self.overdue.add(deadline, number, reply);
        }
        Ok(())
    }

    /// Where the stream is gone, which is in the memory of its server, it is made anew once.
    async fn store(&self, call: QueuedCall, now_ms: u64) -> Result<u64, QueueError> {
        let tried_at = Instant::now();
        let enqueue = |call: QueuedCall| call.enqueue(&self.jetstream, &self.subjects, now_ms);
        match enqueue(call.clone()).await {
            Err(QueueError::Unavailable { .. }) => {
                self.repair(tried_at).await;
                enqueue(call).await
            }
            stored => stored,
        }
    }

    /// Makes what is missing of the queue, unless somebody tried to since `failed_at`.
    async fn repair(&self, failed_at: Instant) {
        let mut repaired = self.repaired.lock().await;
        if *repaired <= failed_at {
            if let Err(error) = ensure_queue(&self.jetstream, &self.assets).await {
                tracing::warn!(%error, cause = std::error::Error::source(&error), "the queue cannot be made");
            }
            *repaired = Instant::now();
        }
    }

    fn explain(&self, error: &QueueError) -> ErrorBody {
        tracing::debug!(%error, cause = std::error::Error::source(error), "a request was not queued");
        calls::refusal(error)
    }

    async fn ended(&self, reply: Option<Subject>, queued: Result<(), ErrorBody>) {
        self.metrics
            .queued(queued.as_ref().map_err(ErrorBody::code).copied());
        if let (Err(error), Some(reply)) = (queued, reply) {
            self.refuse(reply, &error).await;
        }
    }

    async fn refuse(&self, to: Subject, error: &ErrorBody) {
        let reply = error_reply(error);
        let sent = self.client.publish_with_headers(to, reply.headers, reply.payload);
        if let Err(error) = sent.await {
            tracing::warn!(%error, "a refusal was not sent");
        }
    }
}

fn full() -> ErrorBody {
    let text = "no worker is there, and too many requests are on their way into the queue";
    ErrorBody::new(ErrorCode::Overloaded, text).with("retry_after_ms", 1000)
}

/// The wall clock, which deadlines of the queue are in: whoever takes a call from it may be another process.
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
