//! One executor per core, nothing shared on the way from message to reply: its thread, runtime, NATS connection and
//! subscriptions, engines and prepared modules.

mod drain;
mod host;
mod http;
mod idle;
mod inbox;
mod keyed;
mod lanes;
mod pace;
mod prepared;
pub(crate) mod respond;
mod series;
mod slots;
mod spill;
mod steps;
pub mod tally;
mod turns;

use std::cell::Cell;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio_util::task::TaskTracker;
use wess_schemas::limits::LimitPolicy;
use wess_schemas::subject::{Endpoint, Subjects};
use wess_schemas::{ErrorBody, WorkerId};
use wess_service::assets::AssetOptions;
use wess_service::bus::Reply;
use wess_service::lifecycle::{Failure, Lifecycle};
use wess_service::nats::NatsConfig;
use wess_service::queue::overdue::Overdue;
use wess_service::secrets::OpeningKeys;
use wess_service::trace_context::TraceParent;

use crate::call::{Call, CallResult, QueuedResult};
use crate::endpoints::http::HttpWaiting;
use crate::endpoints::invoke::Form;
use crate::fleet::Fleet;
use crate::guest::{MemoryBudget, Ticker};
use crate::outbound::Outbound;
use crate::queue::Clock;
use crate::registry::Registry;
pub use series::{Here, Series};
pub use slots::Bounds;
pub(crate) use steps::expired;
use tally::Tally;

/// A connection of a gateway in this process is served here, down to the call, in one poll: more than a thread's usual stack
/// where nothing is optimised.
const STACK_BYTES: usize = 8 << 20;
/// Calls from this process that an executor has not looked at yet.
const DOOR_CALLS: usize = 1024;

/// How long an executor keeps the one thread that maps modules: cold calls are few, and should not have to start it.
const MAPPER_KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// What all executors of a process have in common.
pub struct Common {
    /// This worker.
    pub worker: WorkerId,
    /// Every subject.
    pub subjects: Subjects,
    /// Which modules there are.
    pub registry: Registry,
    /// What callers may ask.
    pub policy: LimitPolicy,
    /// What opens modules' secrets.
    pub secrets: OpeningKeys,
    /// Guest memory of the process.
    pub budget: Arc<MemoryBudget>,
    /// The clock of all engines.
    pub ticker: Ticker,
    /// Bounds of each executor.
    pub bounds: Bounds,
    /// Modules that each executor keeps ready.
    pub max_prepared: NonZeroUsize,
    /// How to reach NATS.
    pub nats: NatsConfig,
    /// How assets are made, should they be missing.
    pub assets: AssetOptions,
    /// Chains under way, and doors that are held: executors take what comes of them even when the process stops.
    pub inside: TaskTracker,
    /// Guests' way to hosts that they are granted.
    pub outbound: Arc<Outbound>,
    /// What chains hold together, in KiB.
    pub chain_room: Arc<Semaphore>,
    /// Who else could take a call.
    pub fleet: Fleet,
    /// What deadlines in the queue are told by.
    pub clock: Clock,
    /// Calls in the queue that came from here.
    pub overdue: Overdue,
    /// Told whenever an executor's last slot is taken, or its first one comes free.
    pub room: watch::Sender<()>,
    /// Every executor of the process, once all have started.
    pub executors: OnceLock<Executors>,
}

/// A call from this process.
pub enum Arrival {
    /// As a message, answered by a message.
    Message {
        /// What it asks for: one of the invoke endpoints.
        endpoint: Endpoint,
        /// The trace that it belongs to.
        trace: Option<TraceParent>,
        /// Its other headers.
        headers: HeaderMap,
        /// Its body.
        payload: Bytes,
        /// Where its reply goes.
        reply: oneshot::Sender<Reply>,
    },
    /// One call of a job, a binding or a series.
    Step(Box<Call>, oneshot::Sender<CallResult>),
    /// Several calls, one after the other.
    Series(Series),
    /// An HTTP request, and who is told how its guest ended.
    Http(Box<Call>, HttpWaiting),
    /// A call that found no slot with another executor.
    Moved(Moved),
    /// A call from the queue, and the form that it was asked in.
    Queued(Box<Call>, Form, oneshot::Sender<QueuedResult>),
}

/// A call on its way from one executor to another.
pub struct Moved(Box<steps::Ticket>);

/// A running executor, seen from outside.
#[derive(Clone)]
pub struct Executor {
    /// Its numbers.
    pub tally: Arc<Tally>,
    /// Its door for calls from this process.
    pub door: mpsc::Sender<Arrival>,
    /// Its thread's runtime.
    pub runtime: Handle,
}

thread_local! {
    /// The executor that runs on this thread.
    static HERE: Cell<Option<usize>> = const { Cell::new(None) };
}

impl Executor {
    /// Calls that it runs, keeps waiting, or has not looked at.
    fn load(&self) -> usize {
        let at_the_door = self.door.max_capacity() - self.door.capacity();
        at_the_door + self.tally.slots_busy.get() as usize + self.tally.waiting.get() as usize
    }
}

/// All executors of a process; calls from this process go to them in turn.
#[derive(Clone)]
pub struct Executors(Arc<Turnstile>);

struct Turnstile {
    executors: Vec<Executor>,
    next: AtomicUsize,
    slots: usize,
    room: watch::Receiver<()>,
}

impl Executors {
    /// These executors, at least one, each with so many slots. `room` is told when that may have become more or less.
    pub fn new(executors: Vec<Executor>, slots: usize, room: watch::Receiver<()>) -> Self {
        Self(Arc::new(Turnstile {
            executors,
            next: AtomicUsize::new(0),
            slots,
            room,
        }))
    }

    /// All slots.
    pub fn slots(&self) -> usize {
        self.0.executors.len() * self.0.slots
    }

    /// Slots that no guest holds, as of each executor's last turn.
    pub fn free_slots(&self) -> usize {
        let busy = |executor: &Executor| executor.tally.slots_busy.get() as usize;
        let free = |executor| self.0.slots.saturating_sub(busy(executor));
        self.0.executors.iter().map(free).sum()
    }

    /// Changes whenever an executor's last slot is taken, or its first one comes free.
    pub fn room(&self) -> watch::Receiver<()> {
        self.0.room.clone()
    }

    /// Hands a call to the executor that has least to do.
    pub fn dispatch_to_idlest(&self, arrival: Arrival) -> Result<(), ErrorBody> {
        let Turnstile { executors, next, .. } = &*self.0;
        let count = executors.len();
        let from = next.fetch_add(1, Ordering::Relaxed);
        let idlest = (0..count)
            .map(|step| from.wrapping_add(step) % count)
            .min_by_key(|at| executors[*at].load())
            .unwrap_or(0);
        executors[idlest]
            .door
            .try_send(arrival)
            .map_err(|refused| match refused {
                TrySendError::Full(_) => steps::overloaded(),
                TrySendError::Closed(_) => steps::stopping(),
            })
    }

    /// Hands a call that found no slot to another executor that has one; gives it back if none has.
    fn move_over(&self, ticket: Box<steps::Ticket>) -> Result<(), Box<steps::Ticket>> {
        let free = |executor: &&Executor| executor.load() < self.0.slots;
        let idlest = self
            .0
            .executors
            .iter()
            .filter(free)
            .min_by_key(|executor| executor.load());
        let Some(idlest) = idlest else { return Err(ticket) };
        match idlest.door.try_send(Arrival::Moved(Moved(ticket))) {
            Err(
                TrySendError::Full(Arrival::Moved(Moved(ticket)))
                | TrySendError::Closed(Arrival::Moved(Moved(ticket))),
            ) => Err(ticket),
            _ => Ok(()),
        }
    }

    /// Hands a call to the executor of this thread if that has a slot for it: nobody else is woken. Else to the next one.
    pub fn dispatch_here(&self, arrival: Arrival) -> Result<(), ErrorBody> {
        let here = HERE.get().and_then(|index| self.0.executors.get(index));
        match here.filter(|executor| executor.load() < self.0.slots) {
            None => self.dispatch(arrival),
            Some(executor) => match executor.door.try_send(arrival) {
                Ok(()) => Ok(()),
                Err(TrySendError::Full(arrival) | TrySendError::Closed(arrival)) => self.dispatch(arrival),
            },
        }
    }

    /// Every executor's runtime, for what is to run beside it.
    pub fn runtimes(&self) -> impl Iterator<Item = Handle> {
        self.0.executors.iter().map(|executor| executor.runtime.clone())
    }

    /// Hands a call to the next executor that has room at its door.
    pub fn dispatch(&self, mut arrival: Arrival) -> Result<(), ErrorBody> {
        let Turnstile { executors, next, .. } = &*self.0;
        let mut closed = 0;
        for _ in executors {
            let at = next.fetch_add(1, Ordering::Relaxed) % executors.len();
            arrival = match executors[at].door.try_send(arrival) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Full(arrival)) => arrival,
                Err(TrySendError::Closed(arrival)) => {
                    closed += 1;
                    arrival
                }
            };
        }
        Err(if closed == executors.len() {
            steps::stopping()
        } else {
            steps::overloaded()
        })
    }

    /// Every executor's numbers.
    pub fn tallies(&self) -> Vec<Arc<Tally>> {
        self.0
            .executors
            .iter()
            .map(|executor| Arc::clone(&executor.tally))
            .collect()
    }
}

/// Starts an executor on a thread of its own; it is subscribed when this returns.
pub async fn start(index: usize, common: Arc<Common>, lifecycle: &Lifecycle) -> Result<Executor, Failure> {
    let tally = Arc::new(Tally::default());
    let (door, arrivals) = mpsc::channel(DOOR_CALLS);
    let (ready, started) = oneshot::channel();
    // Look at the socket often: a turn of the executor's own task may take a millisecond.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .event_interval(7)
        .max_blocking_threads(1)
        .thread_keep_alive(MAPPER_KEPT)
        .thread_name(format!("wess-map-{index}"))
        .build()
        .map_err(Failure::internal)?;
    let executor = Executor {
        tally: Arc::clone(&tally),
        door,
        runtime: runtime.handle().clone(),
    };
    let lifecycle = lifecycle.clone();
    let serve = move || {
        HERE.set(Some(index));
        let (shutdown, cut) = (lifecycle.shutdown.clone(), lifecycle.cut.clone());
        let serving = async move {
            match turns::Executor::open(index, common, tally, arrivals, cut).await {
                Ok(executor) => {
                    // Whoever started us waits for this, or has failed meanwhile and stops the process.
                    drop(ready.send(Ok(())));
                    executor.run(shutdown).await;
                }
                Err(failure) => drop(ready.send(Err(failure))),
            }
        };
        runtime.block_on(lifecycle.brief("executor", serving));
    };
    std::thread::Builder::new()
        .name(format!("wess-exec-{index}"))
        .stack_size(STACK_BYTES)
        .spawn(serve)
        .map_err(Failure::internal)?;
    started.await.map_err(Failure::internal)??;
    Ok(executor)
}
