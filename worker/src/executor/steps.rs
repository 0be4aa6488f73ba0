//! A call's way from its message to a guest: its module is found, its input fetched, its arguments and limits checked.
//!
//! Each step either goes on at once, or waits for something off this thread and comes back as an [`Event`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use tokio_util::sync::CancellationToken;
use wess_schemas::limits::{EffectiveLimits, MAX_INPUT_BYTES};
use wess_schemas::timestamp::Timestamp;
use wess_schemas::{ErrorBody, ErrorCode, JobId};
use wess_service::bus::Reply;
use wess_service::trace_context::TraceParent;

use super::keyed::{LookedUp, Settled};
use super::prepared::{Found, Loaded, load};
use super::respond::{Holds, Responder};
use super::series::ChainEnded;
use super::slots::Waits;
use super::spill::{Origin, Spilled};
use super::turns::Executor;
use crate::call::{Call, Finished};
use crate::endpoints::error_reply;
use crate::endpoints::invoke::{Form, Output, reply};
use crate::guest::abi::Plan;
use crate::guest::{Fixed, Needs, Prepared};
use crate::registry::Resolved;

/// A call in the house, and what it holds there.
pub struct Pending {
    pub call: Call,
    pub responder: Responder,
    /// How it was asked, if it may be handed over.
    pub origin: Option<Origin>,
    pub size_bytes: usize,
}

/// A call that fits its module.
pub struct Ticket {
    pub job_id: JobId,
    pub responder: Responder,
    /// How it was asked, if it may be handed over.
    pub origin: Option<Origin>,
    pub module: Arc<Resolved>,
    pub plan: Plan,
    pub limits: EffectiveLimits,
    /// How many calls its instance may serve, if that may be more than this one.
    pub reuse: Option<u32>,
    /// Its module, once that is ready.
    pub prepared: Option<Arc<Prepared>>,
    pub load_us: u64,
    pub arrived: Instant,
    pub trace: Option<TraceParent>,
    /// When it was accepted, where that was not here and now.
    pub accepted: Option<Timestamp>,
    expires: Instant,
    size_bytes: usize,
}

impl Ticket {
    /// What its guest has instead of the world, if its module is deterministic.
    pub fn fixed(&self) -> Option<Fixed> {
        let accepted = || {
            self.accepted
                .or_else(|| self.job_id.made_at())
                .unwrap_or_else(Timestamp::now)
        };
        let module = &self.module;
        (module.settings.deterministic).then(|| Fixed::new(&module.digest, &self.job_id, accepted()))
    }
}

impl Waits for Ticket {
    fn size_bytes(&self) -> usize {
        self.size_bytes
    }

    fn expires(&self) -> Instant {
        self.expires
    }

    fn arrived(&self) -> Instant {
        self.arrived
    }

    fn may_leave(&self) -> bool {
        self.origin.is_some()
    }
}

/// A call that does not fit its module.
struct Misfit {
    job_id: JobId,
    responder: Responder,
    error: ErrorBody,
}

/// Something that was waited for has come.
pub enum Event {
    Resolved(Box<Pending>, Result<Arc<Resolved>, ErrorBody>),
    Fetched(Box<Pending>, Result<Bytes, ErrorBody>),
    Loaded(Loaded),
    Stored(Box<Stored>),
    Spilled(Box<Spilled>),
    LookedUp(Box<LookedUp>),
    Settled(Box<Settled>),
    SeriesEnded,
    ChainEnded(Box<ChainEnded>),
}

/// A call whose output is too large for a message.
pub struct Stored {
    responder: Responder,
    holds: Holds,
    took_us: u64,
    result: Result<Reply, ErrorBody>,
}

/// Something that is waited for. Each belongs to a call in the house, with a slot, or on its way out, or is a series, of which
/// whoever sends them bounds the number.
pub type Errand = LocalBoxFuture<'static, Event>;

impl Executor {
    /// Into the house, if it has room.
    pub(super) fn let_in(&mut self, pending: Box<Pending>) {
        if !self.slots.enter(pending.size_bytes) {
            self.turn_out(pending)
        } else if pending.call.is_keyed {
            self.look_up(pending)
        } else {
            self.resolve(pending)
        }
    }

    /// The module, from the mirror if it is there.
    pub(super) fn resolve(&mut self, pending: Box<Pending>) {
        if let Some(module) = self.common.registry.lookup(&pending.call.reference) {
            return self.fetch(pending, module);
        }
        let (registry, cut) = (self.common.registry.clone(), self.cut.clone());
        self.errand(async move {
            let found = in_time(
                cut,
                pending.call.expires(),
                registry.resolve(&pending.call.reference),
            )
            .await;
            Event::Resolved(pending, found)
        });
    }

    /// The input, if it did not come along.
    pub(super) fn fetch(&mut self, mut pending: Box<Pending>, module: Arc<Resolved>) {
        let Some(stored) = pending.call.stored_input.take() else {
            return self.fit(pending, module);
        };
        // The bytes were let in with the call as its own only; now they are known, and must fit too.
        let more_bytes = stored.size as usize;
        self.slots.leave(pending.size_bytes);
        if !self.slots.enter(pending.size_bytes + more_bytes) {
            pending.call.stored_input = Some(stored);
            return self.turn_out(pending);
        }
        pending.size_bytes += more_bytes;
        let (storage, cut) = (self.storage.clone(), self.cut.clone());
        self.errand(async move {
            let fetched = in_time(
                cut,
                pending.call.expires(),
                storage.get_payload(&stored, MAX_INPUT_BYTES),
            )
            .await;
            Event::Fetched(pending, fetched)
        });
    }

    /// The call is checked against its module, and waits for that to be ready.
    pub(super) fn fit(&mut self, pending: Box<Pending>, module: Arc<Resolved>) {
        if module.chain.is_some() {
            return self.take_chain(pending, module);
        }
        let size_bytes = pending.size_bytes;
        match self.ticket(pending, module) {
            Ok(ticket) => self.prepare(ticket),
            Err(misfit) => {
                self.slots.leave(size_bytes);
                self.fail(misfit.responder, misfit.job_id, misfit.error);
            }
        }
    }

    fn ticket(&self, pending: Box<Pending>, module: Arc<Resolved>) -> Result<Box<Ticket>, Box<Misfit>> {
        let Pending {
            call,
            responder,
            origin,
            size_bytes,
        } = *pending;
        let (expires, job_id, mut input) = (call.expires(), call.job_id, call.input);
        let has_env = !input.env.is_empty();
        input.put_env(&module.settings.env);
        if !module.settings.secrets.is_empty() {
            let opened = module
                .secrets
                .open(&self.common.secrets, module.name.as_ref(), &module.settings);
            match opened {
                Ok(secrets) => input.put_env(secrets),
                Err(error) => {
                    let error = error.clone();
                    return Err(Box::new(Misfit {
                        job_id,
                        responder,
                        error,
                    }));
                }
            }
        }
        let argv0 = module.name.as_ref().map_or("guest", |name| name.as_str());
        let invalid = |why: wess_schemas::limits::LimitRefused| {
            ErrorBody::new(ErrorCode::InvalidRequest, why.to_string())
        };
        let limits = self
            .common
            .policy
            .resolve(&module.limits, &call.limits)
            .map_err(invalid);
        let planned = limits.and_then(|limits| {
            let plan = match call.http {
                Some(http) => Plan::serving(module.callable(), http, input.env),
                None => Plan::new(module.callable(), argv0, input),
            };
            plan.map(|plan| (plan, limits))
        });
        match planned {
            Err(error) => Err(Box::new(Misfit {
                job_id,
                responder,
                error,
            })),
            Ok((plan, limits)) => Ok(Box::new(Ticket {
                job_id,
                responder,
                origin,
                reuse: reuse(&module, &plan, has_env),
                module,
                plan,
                limits,
                prepared: None,
                load_us: 0,
                arrived: call.arrived,
                trace: call.trace,
                accepted: call.accepted,
                expires,
                size_bytes,
            })),
        }
    }

    pub(super) fn prepare(&mut self, ticket: Box<Ticket>) {
        let key = (ticket.module.digest, ticket.module.metering(ticket.limits.fuel));
        let is_component = ticket.module.is_component();
        match self.shelf.find(key, ticket) {
            Found::Ready(prepared, mut ticket) => {
                ticket.prepared = Some(prepared);
                self.slots.line_up(ticket);
            }
            Found::Waits => {}
            Found::StartLoad => {
                let (registry, engines) = (self.common.registry.clone(), Arc::clone(&self.engines));
                let metering = key.1;
                let needs = Needs {
                    metering,
                    is_component,
                };
                let may_be_here = !is_component && engines.is_ready(needs);
                let here = (may_be_here && self.shelf.may_load_here()).then(|| self.logs.clone());
                self.errand(load(registry, engines, (key.0, needs), here).map(Event::Loaded));
            }
        }
    }

    pub(super) fn on_event(&mut self, event: Event) {
        match event {
            Event::Resolved(pending, Ok(module)) => self.fetch(pending, module),
            Event::Resolved(pending, Err(error)) => self.turn_away(pending, error),
            Event::Fetched(mut pending, Ok(input)) => {
                pending.call.input.input = Some(input);
                self.resolve(pending);
            }
            Event::Fetched(pending, Err(error)) => self.turn_away(pending, error),
            Event::Loaded(loaded) => self.on_loaded(loaded),
            Event::Stored(stored) => self.on_stored(*stored),
            Event::Spilled(spilled) => self.on_spilled(*spilled),
            Event::LookedUp(looked_up) => self.on_looked_up(*looked_up),
            Event::Settled(settled) => self.on_settled(*settled),
            Event::SeriesEnded => self.series -= 1,
            Event::ChainEnded(ended) => self.on_chain_ended(*ended),
        }
    }

    fn on_loaded(&mut self, Loaded { key, result, load_us }: Loaded) {
        let (waiting, gone) = self.shelf.loaded(key, result.as_ref().ok());
        if let Some(gone) = gone {
            self.forget_instances(&gone);
        }
        for mut ticket in waiting {
            match &result {
                Ok(prepared) => {
                    ticket.prepared = Some(Arc::clone(prepared));
                    ticket.load_us = load_us;
                    self.slots.line_up(ticket);
                }
                Err(error) => {
                    self.slots.leave(ticket.size_bytes);
                    self.fail(ticket.responder, ticket.job_id, error.clone());
                }
            }
        }
        self.tally.prepared.set(self.shelf.len() as u64);
    }

    /// Refuses a call that is in the house.
    pub(super) fn turn_away(&mut self, pending: Box<Pending>, error: ErrorBody) {
        self.slots.leave(pending.size_bytes);
        self.refuse(pending, error);
    }

    /// Refuses a call that is not in the house.
    pub(super) fn refuse(&mut self, pending: Box<Pending>, error: ErrorBody) {
        self.fail(pending.responder, pending.call.job_id, error);
    }

    /// Stores an output that is too large for a message, then sends where it lies. The call keeps its slot meanwhile.
    pub(super) fn store_output(
        &mut self,
        finished: Finished,
        output: Vec<u8>,
        responder: Responder,
        holds: Holds,
    ) {
        let (storage, worker) = (self.storage.clone(), self.common.worker.clone());
        let form = responder.form().unwrap_or(Form::Json);
        self.errand(async move {
            let (job_id, stats) = (finished.job_id.clone(), &finished.stats);
            let took_us = stats.queue_us + stats.load_us + stats.run_us;
            let stored = storage.put_output(&output).await;
            let result = stored
                .map(|stored| reply(form, finished, Output::Stored(stored), &worker))
                .map_err(|error| error.for_job(job_id));
            Event::Stored(Box::new(Stored {
                responder,
                holds,
                took_us,
                result,
            }))
        });
    }

    fn on_stored(
        &mut self,
        Stored {
            responder,
            holds,
            took_us,
            result,
        }: Stored,
    ) {
        self.release(holds);
        let reply = match result {
            Ok(reply) => {
                self.succeed(responder.form(), took_us, holds);
                reply
            }
            Err(error) => {
                self.count_failure(responder.form(), &error);
                error_reply(&error)
            }
        };
        self.send(responder.deliver(reply));
    }

    /// Refuses who has waited long enough.
    pub(super) fn turn_expired_away(&mut self) {
        let now = Instant::now();
        self.return_queued();
        let lined_up = self.slots.take_expired(now);
        let loading = self.shelf.take_where(|ticket| ticket.expires() <= now);
        for ticket in loading {
            self.slots.leave(ticket.size_bytes());
            self.fail(ticket.responder, ticket.job_id, still_loading());
        }
        for ticket in lined_up {
            self.fail(ticket.responder, ticket.job_id, expired());
        }
    }

    pub(super) fn errand(&mut self, errand: impl Future<Output = Event> + 'static) {
        self.errands.push(errand.boxed_local());
    }
}

/// How many calls an instance may serve that is made for this one. One that has its caller's environment serves nobody else.
fn reuse(module: &Resolved, plan: &Plan, has_env: bool) -> Option<u32> {
    let isolation = module.settings.isolation?;
    plan.may_share_its_instance(has_env).then_some(isolation.reuse)
}

/// What a call waits for must come before its wait ends.
pub(super) async fn in_time<T>(
    cut: CancellationToken,
    expires: Instant,
    wait: impl Future<Output = Result<T, ErrorBody>>,
) -> Result<T, ErrorBody> {
    // Boxed: else each that it is handed on to takes room for it, and it is large.
    let timed = tokio::time::timeout_at(expires.into(), Box::pin(wait));
    match cut.run_until_cancelled(timed).await {
        Some(Ok(come)) => come,
        Some(Err(_)) => Err(expired()),
        None => Err(stopping()),
    }
}

/// Nobody is told: it is for the counts.
pub(super) fn given_up() -> ErrorBody {
    ErrorBody::new(ErrorCode::Cancelled, "nobody waits for the guest any more")
}

pub(super) fn stopping() -> ErrorBody {
    ErrorBody::new(ErrorCode::Unavailable, "the worker is stopping")
}

pub(crate) fn expired() -> ErrorBody {
    ErrorBody::new(
        ErrorCode::Expired,
        "the call waited as long as it may, and no slot came free",
    )
}

fn still_loading() -> ErrorBody {
    ErrorBody::new(
        ErrorCode::Expired,
        "the call waited as long as it may, and its module was still being compiled or loaded",
    )
}

pub(super) fn overloaded() -> ErrorBody {
    ErrorBody::new(
        ErrorCode::Overloaded,
        "all slots of this worker are busy, and there is no room to wait",
    )
    .with("retry_after_ms", RETRY_AFTER.as_millis() as u64)
}

/// A hint to callers: a full queue of short calls is gone by then.
const RETRY_AFTER: Duration = Duration::from_millis(100);
