//! The executor's own loop. Each turn takes everything that has arrived, then runs guests for about a millisecond,
//! then writes the replies; so it sees a backlog while there is time to refuse it, and the socket is never forgotten.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use async_nats::{Client, Message, Subject};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::task::coop::unconstrained;
use tokio::time::{Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wess_schemas::outcome::RunStats;
use wess_schemas::subject::Endpoint;
use wess_schemas::{ErrorBody, ErrorCode, JobId};
use wess_service::bus::Reply;
use wess_service::http::inboxes::Inboxes;
use wess_service::lifecycle::Failure;
use wess_service::trace_context::TraceParent;

use super::host::{CallHost, Outside, publish_logs};
use super::idle::Idle;
use super::inbox::Inbox;
use super::keyed::Keyed;
use super::lanes::{Awaited, GuestEnd, GuestFuture, Polled, Resumed, SlowLane, Suspended, first_turn};
use super::pace::Pace;
use super::prepared::{self, Shelf};
use super::respond::{Holds, Responder};
use super::series::Here;
use super::slots::{Slots, Waits};
use super::spill::{Origin, Spills};
use super::steps::{Errand, Pending, Ticket, expired, given_up, overloaded};
use super::tally::Tally;
use super::{Arrival, Common, Moved};
use crate::call::{Call, Finished};
use crate::endpoints::http::Fresh;
use crate::endpoints::invoke::{self, Form};
use crate::guest::{Ending, EnginePool, Kept, MemoryBudget, Run};
use crate::objects::{ObjectStore, remove_discarded};
use crate::queue::keyed::KeyedCalls;
use crate::queue::known::KnownJobs;
use crate::registry::Storage;

/// How long a turn runs guests before it looks at what has arrived.
const TURN: Duration = Duration::from_millis(1);
/// How often the line is searched for calls that have waited long enough.
const SWEEP: Duration = Duration::from_millis(20);

/// A guest under way, and who waits for it.
pub struct Running {
    responder: Responder,
    trace: Option<TraceParent>,
    host: Arc<CallHost>,
    function: String,
    stats: RunStats,
}

impl Awaited for Running {
    fn poll_given_up(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.responder.poll_given_up(context)
    }
}

/// One executor, on its own thread.
pub struct Executor {
    pub(super) common: Arc<Common>,
    pub(super) tally: Arc<Tally>,
    /// Guest memory of the process, through a handle of this executor's own.
    budget: Arc<MemoryBudget>,
    pub(super) engines: Arc<EnginePool>,
    pub(super) shelf: Shelf<Box<Ticket>>,
    pub(super) slots: Slots<Box<Ticket>>,
    pub(super) pace: Pace,
    pub(super) idle: Arc<Idle<Box<Kept>>>,
    /// Whether every slot was held at the end of the last turn.
    was_full: bool,
    pub(super) spills: Spills,
    pub(super) keyed: Keyed,
    pub(super) storage: Storage,
    pub(super) errands: FuturesUnordered<Errand>,
    pub(super) here: Here,
    /// Series under way.
    pub(super) series: usize,
    pub(super) client: Client,
    pub(super) inbox: Inbox,
    pub(super) door: mpsc::Receiver<Arrival>,
    outside: Arc<Outside>,
    pub(super) suspended: FuturesUnordered<Suspended<Running>>,
    slow_lane: SlowLane<Running>,
    slow_ends: mpsc::UnboundedReceiver<(GuestEnd, Running)>,
    pub(super) outbox: VecDeque<(Subject, Reply)>,
    /// NATS went away and took no more replies, until it takes one again.
    pub(super) replies_stuck: bool,
    pub(super) logs: TaskTracker,
    /// Exchanges of bodies over NATS.
    pub(super) sessions: TaskTracker,
    /// Where they listen.
    pub(super) inboxes: Inboxes,
    /// Requests that came as messages in this turn, no more than the inbox held.
    pub(super) fresh: Vec<Fresh>,
    sweep: Interval,
    pub(super) draining: bool,
    pub(super) cut: CancellationToken,
}

impl Executor {
    /// Connects and subscribes.
    pub async fn open(
        index: usize,
        common: Arc<Common>,
        tally: Arc<Tally>,
        door: mpsc::Receiver<Arrival>,
        cut: CancellationToken,
    ) -> Result<Self, Failure> {
        let connection = common
            .nats
            .connect(&format!("wess-worker-{}-{index}", common.worker))
            .await?;
        let client = connection.client;
        let storage = Storage::new(client.clone(), common.assets.clone());
        let (slow_ended, slow_ends) = mpsc::unbounded_channel();
        let slow_lane = SlowLane::start(format!("wess-slow-{index}"), slow_ended, cut.clone())
            .map_err(Failure::internal)?;
        let (objects, discarded) = ObjectStore::new(storage.clone());
        let (outside, lines) = Outside::new(
            storage.clone(),
            Arc::clone(&tally),
            common.subjects.clone(),
            Arc::clone(&common.outbound),
            objects,
        );
        let idle = Idle::new(Arc::clone(&tally), &common.budget);
        let logs = TaskTracker::new();
        logs.spawn(publish_logs(client.clone(), common.subjects.clone(), lines));
        logs.spawn(remove_discarded(storage.clone(), discarded));
        let mut sweep = tokio::time::interval(SWEEP);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self {
            tally,
            budget: common.budget.handle(),
            engines: prepared::engines(&common).await,
            shelf: Shelf::new(common.max_prepared),
            slots: Slots::new(common.bounds),
            pace: Pace::default(),
            idle,
            was_full: false,
            spills: Spills::new(client.clone()),
            keyed: Keyed::new(KeyedCalls {
                jobs: KnownJobs::new(storage.clone(), common.subjects.clone()),
                worker: common.worker.clone(),
            }),
            storage,
            errands: FuturesUnordered::new(),
            here: Here::default(),
            series: 0,
            inbox: Inbox::open(&client, &common.subjects)
                .await
                .map_err(Failure::unavailable)?,
            client: client.clone(),
            door,
            outside,
            suspended: FuturesUnordered::new(),
            slow_lane,
            slow_ends,
            outbox: VecDeque::new(),
            replies_stuck: false,
            logs,
            sessions: TaskTracker::new(),
            inboxes: Inboxes::new(client.clone()),
            fresh: Vec::new(),
            sweep,
            draining: false,
            cut,
            common,
        })
    }

    /// Takes turns until `shutdown`, then finishes what it has taken.
    pub async fn run(mut self, shutdown: CancellationToken) {
        // A child: executors would take turns at their common token's lock.
        let shutdown = shutdown.child_token();
        let mut stopped = pin!(shutdown.cancelled());
        loop {
            tokio::select! {
                biased;
                () = &mut stopped => break,
                () = self.arrivals() => self.take_turn().await,
            }
        }
        self.drain().await;
        self.close().await;
    }

    /// Waits for anything to arrive, and takes it. Not counted by tokio's budget for one task: past it the subscription
    /// would look empty, fill up, and lose calls without a word.
    pub(super) fn arrivals(&mut self) -> impl Future<Output = ()> {
        unconstrained(poll_fn(|context| self.poll_arrivals(context)))
    }

    pub(super) async fn take_turn(&mut self) {
        self.start_guests();
        self.follow_fresh();
        self.tally.slots_busy.set(self.slots.busy() as u64);
        self.tally.waiting.set(self.slots.waiting() as u64);
        if self.was_full != self.slots.is_full() {
            self.was_full = self.slots.is_full();
            self.common.room.send_replace(());
        }
        self.move_line();
        self.spill_line();
        self.shelf.begin_turn();
        self.send_replies().await;
        if self.slots.can_start() {
            tokio::task::yield_now().await;
        }
    }

    /// Takes everything that has arrived; pending only if nothing has and nothing could start.
    fn poll_arrivals(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let mut any = self.slots.can_start();
        while let Poll::Ready(Some((end, running))) = self.slow_ends.poll_recv(context) {
            self.finish(end, running);
            any = true;
        }
        while let Poll::Ready(Some(resumed)) = self.suspended.poll_next_unpin(context) {
            match resumed {
                Resumed::Ended(end, running) => self.finish(end, running),
                Resumed::Overstayed(guest, running) => self.move_over(guest, running),
            }
            any = true;
        }
        while let Poll::Ready(Some(arrival)) = self.door.poll_recv(context) {
            self.take_arrival(arrival);
            any = true;
        }
        while !self.inbox.is_drained()
            && let Poll::Ready(message) = self.inbox.poll_next(context)
        {
            if let Some(message) = message {
                self.take_message(message);
            }
            any = true;
        }
        // After what begins errands: those find here what they need before the turn.
        while let Poll::Ready(Some(event)) = self.errands.poll_next_unpin(context) {
            self.on_event(event);
            any = true;
        }
        while let Some((call, waiting)) = self.here.next() {
            self.take_step(call, waiting);
            any = true;
        }
        if (self.slots.has_line() || self.shelf.has_waiting()) && self.sweep.poll_tick(context).is_ready() {
            self.turn_expired_away();
            any = true;
        }
        if any { Poll::Ready(()) } else { Poll::Pending }
    }

    fn take_message(&mut self, message: Message) {
        let arrived = Instant::now();
        let Message {
            subject,
            reply,
            payload,
            headers,
            ..
        } = message;
        if reply
            .as_ref()
            .is_some_and(|reply| !self.common.subjects.may_reply_to(reply))
        {
            self.tally.forged_replies.add(1);
            return tracing::warn!(%subject, "refused a call whose reply would forge a record");
        }
        let endpoint = match self.common.subjects.parse(&subject) {
            Ok(endpoint) => endpoint,
            Err(why) => {
                let error = ErrorBody::new(ErrorCode::InvalidRequest, why.to_string());
                return self.fail(Responder::Nats(Form::Raw, reply), JobId::generate(), error);
            }
        };
        if let Endpoint::Http(reference) = endpoint {
            return self.take_http(reference, headers, payload, reply);
        }
        let responder = Responder::Nats(invoke::form(&endpoint, headers.as_ref()), reply);
        let call = invoke::parse(endpoint, headers.as_ref(), payload.clone(), arrived);
        let origin = Origin::new(subject, headers, payload, &responder);
        self.take_call(call, responder, origin);
    }

    fn take_arrival(&mut self, arrival: Arrival) {
        match arrival {
            Arrival::Moved(Moved(ticket)) => self.take_moved(ticket),
            Arrival::Step(call, waiting) => self.take_call(Ok(*call), Responder::Step(waiting), None),
            Arrival::Series(series) => self.take_series(series),
            Arrival::Http(call, waiting) => self.take_call(Ok(*call), Responder::Http(waiting), None),
            Arrival::Queued(call, form, waiting) => {
                self.take_call(Ok(*call), Responder::Queued(form, waiting), None);
                // Whoever looks for the executor with most room must see this call.
                self.tally.waiting.set(self.slots.waiting() as u64);
            }
            Arrival::Message {
                endpoint,
                trace,
                headers,
                payload,
                reply,
            } => {
                let headers = Some(headers).filter(|headers| !headers.is_empty());
                let form = match invoke::form(&endpoint, headers.as_ref()) {
                    Form::Bare if trace.is_some() => Form::Traced,
                    form => form,
                };
                let call = invoke::parse(endpoint, headers.as_ref(), payload, Instant::now());
                let call = call.map(|call| Call {
                    trace: trace.or(call.trace),
                    ..call
                });
                self.take_call(call, Responder::Door(form, reply), None);
            }
        }
    }

    pub(super) fn take_call(
        &mut self,
        call: Result<Call, ErrorBody>,
        responder: Responder,
        origin: Option<Origin>,
    ) {
        let call = match call {
            Ok(call) => call,
            Err(error) => return self.fail(responder, JobId::generate(), error),
        };
        let kept_bytes = origin
            .as_ref()
            .map_or(0, |origin| origin.size_bytes(responder.form()));
        let size_bytes = call.size_bytes() + kept_bytes;
        let pending = Box::new(Pending {
            call,
            responder,
            origin,
            size_bytes,
        });
        if self.waits_elsewhere(&pending) {
            self.turn_out(pending)
        } else {
            self.let_in(pending)
        }
    }

    /// A call for which another executor had no slot.
    fn take_moved(&mut self, ticket: Box<Ticket>) {
        if self.slots.enter(ticket.size_bytes()) {
            self.prepare(ticket);
            // Whoever looks for the executor with most room must see this call.
            self.tally.waiting.set(self.slots.waiting() as u64);
        } else {
            self.fail(ticket.responder, ticket.job_id, overloaded());
        }
    }

    fn start_guests(&mut self) {
        let begun = Instant::now();
        self.pace.begin(begun);
        let (mut started, mut took) = (0, Duration::ZERO);
        while took < TURN
            && let Some(ticket) = self.slots.start()
        {
            started += u32::from(self.start(ticket));
            took = begun.elapsed();
        }
        self.pace.end(begun, took, started, self.slots.can_start());
    }

    /// Whether its guest began.
    fn start(&mut self, mut ticket: Box<Ticket>) -> bool {
        let now = Instant::now();
        let (Some(prepared), true) = (ticket.prepared.clone(), ticket.expires() > now) else {
            self.slots.release();
            self.fail(ticket.responder, ticket.job_id, expired());
            return false;
        };
        if ticket.responder.is_given_up() {
            self.slots.release();
            self.fail(ticket.responder, ticket.job_id, given_up());
            return false;
        }
        let waited_us = now.duration_since(ticket.arrived).as_micros() as u64;
        let stats = RunStats {
            queue_us: waited_us.saturating_sub(ticket.load_us),
            load_us: ticket.load_us,
            cold: ticket.load_us > 0,
            ..RunStats::default()
        };
        let fixed = ticket.fixed();
        let reuse = self.reuse(&ticket, &prepared);
        let host = Arc::new(CallHost {
            job_id: ticket.job_id,
            module: ticket.module,
            outside: Arc::clone(&self.outside),
        });
        let mut running = Running {
            responder: ticket.responder,
            trace: ticket.trace,
            host: Arc::clone(&host),
            function: ticket.plan.function().to_owned(),
            stats,
        };
        let run = Run {
            fixed,
            plan: ticket.plan,
            limits: ticket.limits,
            host,
            budget: Arc::clone(&self.budget),
            reuse,
        };
        match first_turn(GuestFuture::new(prepared, run)) {
            Polled::Ended(end) => self.finish(end, running),
            Polled::Overstayed(guest) => {
                running.responder.go_on();
                self.move_over(guest, running);
            }
            Polled::Waits(guest) => {
                running.responder.go_on();
                self.suspended.push(Suspended::new(guest, running));
            }
        }
        true
    }

    fn move_over(&mut self, guest: GuestFuture, running: Running) {
        self.tally.overstayed.add(1);
        self.slow_lane.take(guest, running);
    }

    /// A guest is no longer: its call is answered, and its slot is free unless the answer has to be stored first.
    pub(super) fn finish(&mut self, end: GuestEnd, running: Running) {
        let Running {
            responder,
            trace,
            host,
            function,
            mut stats,
        } = running;
        let result = match end {
            GuestEnd::Ended(Ending {
                result,
                run_us,
                fuel,
                memory_peak_bytes,
                kept,
            }) => {
                self.tally.ran(run_us);
                self.keep(&host.module, kept);
                (stats.run_us, stats.fuel, stats.memory_peak_bytes) = (run_us, fuel, Some(memory_peak_bytes));
                result.map_err(|fault| {
                    let (job_id, module) = (&host.job_id, host.module.digest);
                    let trace_id = trace.map(TraceParent::trace_id);
                    tracing::info!(%job_id, trace_id, %module, function, run_us, %fault, "a guest failed");
                    fault.to_error()
                })
            }
            GuestEnd::Panicked => Err(ErrorBody::new(
                ErrorCode::Internal,
                "the worker failed while the guest ran",
            )),
            GuestEnd::Cut => Err(ErrorBody::new(
                ErrorCode::Internal,
                "the worker stopped before the guest ended",
            )),
            GuestEnd::GivenUp => Err(given_up()),
        };
        // Its guest's hold has gone with the guest, unless that was kept.
        let CallHost { job_id, module, .. } = Arc::unwrap_or_clone(host);
        let answer = match result {
            Ok(answer) => answer,
            Err(error) => {
                self.slots.release();
                return self.fail(responder, job_id, error);
            }
        };
        self.tally.cold.add(u64::from(stats.cold));
        let finished = Finished {
            job_id,
            module,
            function,
            answer,
            stats,
            steps: Vec::new(),
        };
        self.answer(finished, responder, Holds::Slot);
    }
}
