//! Stored chains: checked when they are stored, and run as a module is when they are called.
//!
//! Refuses a chain within a chain. Invariant: however many its steps, a call takes no longer than its wait and its timeout.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout_at;
use wess_schemas::chain::StoredChain;
use wess_schemas::limits::{LimitPolicy, Limits, MAX_CHAIN_STEPS};
use wess_schemas::outcome::{RunStats, StepRun};
use wess_schemas::{ErrorBody, ErrorCode, ModuleName, Reference};

use super::chain::{begun, failed_at, hold, invalid, parse_step};
use crate::call::{Call, CallResult, Finished};
use crate::executor::Here;
use crate::guest::abi::{Plan, typed};
use crate::registry::{Registry, Resolved, Terms};

/// Refuses a chain that could not run, as far as can be seen before it does. Which modules there are is not asked: a step
/// may name one that is stored later.
pub fn check(
    registry: &Registry,
    policy: &LimitPolicy,
    name: &ModuleName,
    chain: &StoredChain,
    terms: &Terms,
) -> Result<(), ErrorBody> {
    check_terms(terms)?;
    for (at, step) in calls(chain, None)?.into_iter().enumerate() {
        let refused = |why: String| invalid(format!("steps[{at}]: {why}"));
        policy
            .check(&step.limits)
            .map_err(|error| refused(error.to_string()))?;
        let known = registry.lookup(&step.reference);
        if step.reference.name() == Some(name) || known.is_some_and(|known| known.chain.is_some()) {
            return Err(refused(nested(&step.reference)));
        }
    }
    Ok(())
}

/// What holds for guests, a chain's steps bring with their modules.
fn check_terms(terms: &Terms) -> Result<(), ErrorBody> {
    if terms.limits.is_some_and(|limits| !limits.is_empty()) {
        return Err(invalid(
            "a chain has no limits of its own: they stand in its steps",
        ));
    }
    let mut settings = terms.settings.clone().unwrap_or_default();
    settings.description = None;
    match settings.is_empty() {
        true => Ok(()),
        false => Err(invalid(
            "a chain has no settings but a description: each step has those of its module",
        )),
    }
}

/// Whether a call fits what it names, before it runs.
pub fn check_call(module: &Arc<Resolved>, policy: &LimitPolicy, call: Call) -> Result<(), ErrorBody> {
    if module.chain.is_some() {
        return ChainRun::new(Arc::clone(module), call, policy).map(drop);
    }
    let limits = policy.resolve(&module.limits, &call.limits);
    limits.map_err(|refused| invalid(refused.to_string()))?;
    let argv0 = module.name.as_ref().map_or("guest", |name| name.as_str());
    Plan::new(module.callable(), argv0, call.input).map(drop)
}

/// Every step as a call without input, which waits for so long where it states nothing.
fn calls(chain: &StoredChain, wait_ms: Option<u64>) -> Result<Vec<Call>, ErrorBody> {
    if !(1..=MAX_CHAIN_STEPS).contains(&chain.steps.len()) {
        return Err(wrong_count(chain.steps.len()));
    }
    let steps = chain.steps.iter().cloned().enumerate();
    steps.map(|(at, step)| parse_step(at, step, wait_ms)).collect()
}

fn wrong_count(steps: usize) -> ErrorBody {
    invalid(format!("a chain has 1 to {MAX_CHAIN_STEPS} steps, not {steps}"))
}

fn nested(reference: &Reference) -> String {
    format!("{reference} is a chain, and a chain cannot be a step of one")
}

/// A call of a stored chain that fits it.
#[derive(Debug)]
pub struct ChainRun {
    module: Arc<Resolved>,
    first: Call,
    rest: Vec<Call>,
    ends: Instant,
    patience: Duration,
}

impl ChainRun {
    /// Fits a call to the chain that it names.
    pub fn new(module: Arc<Resolved>, call: Call, policy: &LimitPolicy) -> Result<Self, ErrorBody> {
        policy
            .check(&call.limits)
            .map_err(|refused| invalid(refused.to_string()))?;
        check_fits(&call)?;
        let wait_ms = u64::try_from(call.wait.as_millis()).ok();
        let steps = match &module.chain {
            Some(chain) => calls(chain, wait_ms)?,
            None => Vec::new(),
        };
        let mut steps = steps.into_iter().map(|step| under(&call, step));
        let mut first = steps.next().ok_or_else(|| wrong_count(0))?;
        let rest = steps.collect();
        first.input.input = call.input.input.clone();
        let timeout_ms = call.limits.timeout_ms.unwrap_or(policy.ceiling.timeout_ms);
        let patience = call.wait + Duration::from_millis(timeout_ms);
        Ok(Self {
            module,
            first,
            rest,
            ends: call.arrived + patience,
            patience,
        })
    }

    /// Runs every step where it is. What it holds counts against `room`. `None` when it came from the queue and goes back
    /// there, as no step has run.
    pub async fn run(self, here: &Here, room: &Semaphore, is_queued: bool) -> Option<CallResult> {
        let (ends, patience_ms) = (self.ends, self.patience.as_millis());
        let mut done = Vec::with_capacity(1 + self.rest.len());
        let ended = timeout_at(ends.into(), self.run_steps(here, room, is_queued, &mut done)).await;
        let late = || {
            let text =
                format!("the chain was not done within the {patience_ms} ms of its wait and its timeout");
            Some(Err(ErrorBody::new(ErrorCode::DeadlineExceeded, text)))
        };
        let ended = ended.unwrap_or_else(|_| late())?;
        Some(match ended {
            Ok(mut finished) => {
                (finished.stats, finished.steps) = (total(&done), done);
                Ok(finished)
            }
            Err(error) => Err(failed_at(done.len(), &done, error)),
        })
    }

    async fn run_steps(
        self,
        here: &Here,
        room: &Semaphore,
        is_queued: bool,
        done: &mut Vec<StepRun>,
    ) -> Option<CallResult> {
        let first = begun(self.first);
        let ran = match is_queued {
            true => here.run_first(first).await?,
            false => here.run(first).await,
        };
        let ended = match ran {
            Ok(finished) => run_rest(finished, self.rest, here, room, done).await,
            Err(error) => Err(error),
        };
        Some(ended.map(|finished| Finished {
            module: self.module,
            ..finished
        }))
    }
}

/// The last step's answer.
async fn run_rest(
    mut finished: Finished,
    rest: Vec<Call>,
    here: &Here,
    room: &Semaphore,
    done: &mut Vec<StepRun>,
) -> CallResult {
    let mut _held = None;
    for mut step in rest {
        done.push(run_of(&finished));
        let output = match &finished.answer.results {
            Some(results) => typed::raw_output(results),
            None => finished.answer.output.take().unwrap_or_default(),
        };
        _held = Some(held(room, output.len())?);
        step.input.input = Some(output.into());
        finished = here.run(begun(step)).await?;
    }
    done.push(run_of(&finished));
    Ok(finished)
}

/// Room for the output of a step that ran.
fn held(room: &Semaphore, bytes: usize) -> Result<SemaphorePermit<'_>, ErrorBody> {
    hold(room, bytes).map_err(|full| {
        let text = format!("the guest before it answered, but {}", full.error.message);
        ErrorBody::new(ErrorCode::Internal, text)
    })
}

/// What a chain cannot take that a module may.
fn check_fits(call: &Call) -> Result<(), ErrorBody> {
    let name = &call.reference;
    if call.is_step {
        return Err(invalid(nested(name)));
    }
    if call.http.is_some() {
        let text = format!("{name} is a chain, which does not serve HTTP requests");
        return Err(ErrorBody::new(ErrorCode::Unsupported, text));
    }
    if let Some(function) = &call.input.function {
        let text = format!("{name} is a chain, and has no function {function:?}");
        return Err(ErrorBody::new(ErrorCode::FunctionNotFound, text));
    }
    if call.input.args.is_some() {
        return Err(invalid(format!(
            "{name} is a chain, which takes an input: arguments stand in its steps"
        )));
    }
    Ok(())
}

/// A step, and what the call says that holds for each.
fn under(call: &Call, mut step: Call) -> Call {
    let env = call
        .input
        .env
        .iter()
        .map(|(name, value)| (name.clone(), value.clone()));
    for (name, value) in env {
        step.input.env.entry(name).or_insert(value);
    }
    Call {
        job_id: call.job_id.clone(),
        trace: call.trace,
        accepted: call.accepted,
        wait: step.wait.min(call.wait),
        limits: stated(step.limits, call.limits),
        ..step
    }
}

/// A step's limits, and where it states none the call's; its time is that of the whole.
fn stated(step: Limits, call: Limits) -> Limits {
    Limits {
        timeout_ms: step.timeout_ms,
        memory_mb: step.memory_mb.or(call.memory_mb),
        fuel: step.fuel.or(call.fuel),
        output_bytes: step.output_bytes.or(call.output_bytes),
    }
}

fn run_of(finished: &Finished) -> StepRun {
    StepRun {
        module: finished.module_run(),
        function: finished.function.clone(),
        exit_code: finished.answer.exit_code,
        stats: finished.stats,
    }
}

/// What the steps took together; of memory, the most of one.
fn total(steps: &[StepRun]) -> RunStats {
    let sum = |part: fn(&RunStats) -> u64| steps.iter().map(|step| part(&step.stats)).sum();
    let fuel: Vec<u64> = steps.iter().filter_map(|step| step.stats.fuel).collect();
    RunStats {
        queue_us: sum(|stats| stats.queue_us),
        load_us: sum(|stats| stats.load_us),
        run_us: sum(|stats| stats.run_us),
        fuel: (!fuel.is_empty()).then(|| fuel.iter().sum()),
        memory_peak_bytes: steps.iter().filter_map(|step| step.stats.memory_peak_bytes).max(),
        cold: steps.iter().any(|step| step.stats.cold),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steps_own_limits_come_before_the_calls() {
        let (step, call) = (
            Limits {
                memory_mb: Some(1),
                ..Limits::default()
            },
            Limits {
                timeout_ms: Some(9),
                memory_mb: Some(2),
                fuel: Some(3),
                ..Limits::default()
            },
        );
        let stated = stated(step, call);
        assert_eq!(
            (stated.timeout_ms, stated.memory_mb, stated.fuel),
            (None, Some(1), Some(3))
        );
    }

    #[test]
    fn a_chain_took_what_its_steps_took() {
        let step = |run_us, fuel, memory_peak_bytes, cold| StepRun {
            module: wess_schemas::outcome::ModuleRun {
                name: None,
                version: None,
                digest: wess_schemas::Digest::from_bytes([0; 32]),
            },
            function: "f".into(),
            exit_code: None,
            stats: RunStats {
                run_us,
                fuel,
                memory_peak_bytes,
                cold,
                ..RunStats::default()
            },
        };
        let steps = [step(1, None, Some(7), false), step(2, Some(5), Some(3), true)];
        let total = total(&steps);
        assert_eq!(
            (total.run_us, total.fuel, total.memory_peak_bytes, total.cold),
            (3, Some(5), Some(7), true)
        );
    }
}
