//! One run from a prepared module to its ending: a fresh store and instance, under limits, then dropped, unless its module
//! lets an instance serve several calls.
//!
//! A deadline has two arms: the epoch traps a guest that computes, a timer drops the future of one that waits.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use wasmtime::{Store, UpdateDeadline};
use wess_schemas::limits::EffectiveLimits;

use super::abi::Plan;
use super::artifact::{Code, Prepared};
use super::ending::{Answer, Ending, GuestFault};
use super::epoch::{FIRST_TICKS, NEXT_TICKS, forgiving_waits, note_overstay, take_wait};
use super::fixed::Fixed;
use super::host::{GuestState, Host, HostFault};
use super::kept::{Kept, Live, Past, Reuse};
use super::limits::{GuestLimiter, MemoryBudget};

/// Everything one run needs besides its module.
pub struct Run {
    /// What to call, with what.
    pub plan: Plan,
    /// What it sees of the world, if nothing else may make a difference.
    pub fixed: Option<Fixed>,
    /// What holds for it.
    pub limits: EffectiveLimits,
    /// Its log and state.
    pub host: Arc<dyn Host>,
    /// The process's guest memory.
    pub budget: Arc<MemoryBudget>,
    /// Whether its instance may serve other calls; `None` for one of its own.
    pub reuse: Option<Reuse>,
}

/// Runs a guest to its end. The future may be polled on any thread; its epoch ticks until it ends or is dropped.
///
/// It is moved to where it stays, with every call, and so is kept small: an `async fn` has its arguments twice, and so has
/// each that a future is handed on to.
#[expect(clippy::manual_async_fn, reason = "an async fn has its arguments twice")]
pub fn invoke(prepared: Arc<Prepared>, mut run: Run) -> impl Future<Output = Ending> + Send {
    async move {
        let _running = prepared.clock().enter();
        let started = Instant::now();
        let deadline = started + Duration::from_millis(run.limits.timeout_ms);
        let kept = run.reuse.as_mut().and_then(|reuse| reuse.kept.take());
        let (mut store, mut live, past) = match kept {
            Some(kept) => again(*kept, &run, deadline),
            None => (store(&prepared, &run, deadline), Live::default(), Past::default()),
        };
        arm(&mut store, &prepared, &run);
        let answered = {
            let called = pin!(call(run.plan, &mut store, &mut live, &prepared));
            before(deadline, forgiving_waits(called)).await
        };
        let result = answered.unwrap_or(Err(GuestFault::DeadlineExceeded(run.limits.timeout_ms)));
        let (result, fuel) = by_its_limits(result, &store, &run.limits);
        let memory_peak_bytes = store.data().limiter.peak_bytes();
        let run_us = started.elapsed().as_micros() as u64;
        let kept = match run.reuse {
            Some(reuse) if result.is_ok() => Kept::after(prepared, store, live, past, reuse.most),
            _ => None,
        };
        Ending {
            result,
            run_us,
            fuel,
            memory_peak_bytes,
            kept,
        }
    }
}

/// What a run came to by its limits, and the fuel that it used if that was counted.
fn by_its_limits(
    result: Result<Answer, GuestFault>,
    store: &Store<GuestState>,
    limits: &EffectiveLimits,
) -> (Result<Answer, GuestFault>, Option<u64>) {
    let refused = store.data().limiter.refused();
    let result = result.map_err(|fault| fault.after_refusal(refused));
    match limits.fuel.zip(store.get_fuel().ok()) {
        // The last instructions of a run are counted when they have run already.
        Some((given, 0)) => (result.and(Err(GuestFault::OutOfFuel)), Some(given)),
        Some((given, left)) => (result, Some(tank(given) - left)),
        None => (result, None),
    }
}

/// An instance that has served calls before, with nothing of them but what the guest holds.
fn again(kept: Kept, run: &Run, deadline: Instant) -> (Store<GuestState>, Live, Past) {
    let Kept {
        mut store,
        live,
        past,
        ..
    } = kept;
    let host = Arc::clone(&run.host);
    store.data_mut().renew(deadline, &run.limits, host);
    (store, live, past)
}

fn store(prepared: &Prepared, run: &Run, deadline: Instant) -> Store<GuestState> {
    let mut limiter = GuestLimiter::new(run.limits.memory_bytes, Arc::clone(&run.budget));
    if run.fixed.is_some() {
        limiter.hide_nothing();
    }
    let mut state = GuestState::new(limiter, deadline, &run.limits, Arc::clone(&run.host));
    state.fixed = run.fixed;
    let mut store = Store::new(prepared.engine(), state);
    store.limiter(|state| &mut state.limiter);
    store.epoch_deadline_callback(|context| {
        if Instant::now() >= context.data().deadline {
            return Err(HostFault::Deadline(context.data().timeout_ms).into());
        }
        if take_wait() {
            return Ok(UpdateDeadline::Continue(FIRST_TICKS));
        }
        note_overstay();
        Ok(UpdateDeadline::Yield(NEXT_TICKS))
    });
    store
}

/// Gives a run its ticks and its fuel.
fn arm(store: &mut Store<GuestState>, prepared: &Prepared, run: &Run) {
    store.set_epoch_deadline(FIRST_TICKS);
    if prepared.metering().counts() {
        let given = run.limits.fuel.unwrap_or(u64::MAX);
        store
            .set_fuel(tank(given))
            .expect("an engine made for fuel takes fuel");
    }
}

/// One more than is given: who has used all of it still has that one, who has none left used more.
fn tank(given: u64) -> u64 {
    given.saturating_add(1)
}

/// The larger of these are boxed: the room of the largest is moved with every call.
async fn call(
    plan: Plan,
    store: &mut Store<GuestState>,
    live: &mut Live,
    prepared: &Prepared,
) -> Result<Answer, GuestFault> {
    match (plan, prepared.code()) {
        (Plan::Typed(plan), Code::Module(module)) => plan.run(store, module, &mut live.module).await,
        (Plan::Plugin(plan), Code::Module(module)) => plan.run(store, module, &mut live.module).await,
        (Plan::Command(plan), code) => Box::pin(plan.run(store, code)).await,
        (Plan::Component(plan), Code::Component(component)) => {
            Box::pin(plan.run(store, component, &mut live.component)).await
        }
        (Plan::Http(plan), Code::Component(component)) => {
            Box::pin(plan.run(store, component, &mut live.component)).await
        }
        (Plan::Typed(_) | Plan::Plugin(_), Code::Component(_))
        | (Plan::Component(_) | Plan::Http(_), Code::Module(_)) => Err(GuestFault::Mismatch),
    }
}

/// The future's output, or `None` once the deadline has passed. Most calls never wait, and so never make a timer.
fn before<F: Future + Unpin>(deadline: Instant, mut future: F) -> impl Future<Output = Option<F::Output>> {
    let mut timer = None;
    poll_fn(move |context| {
        if let Poll::Ready(output) = Pin::new(&mut future).poll(context) {
            return Poll::Ready(Some(output));
        }
        let timer = timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline.into())));
        timer.as_mut().poll(context).map(|()| None)
    })
}
