//! Work that makes calls where it runs, each after the answer to the one before: the steps of a chain.
//!
//! Invariant: a series is in nobody's way: only the call that it waits for is in the house or holds a slot, and none starts once
//! grace is over.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use tokio::sync::oneshot;
use wess_schemas::{ErrorBody, ErrorCode, JobId};

use super::respond::{Holds, Responder};
use super::steps::{Event, Pending, given_up, overloaded, stopping};
use super::turns::Executor;
use crate::call::{Call, CallResult};
use crate::endpoints::stored_chain::ChainRun;
use crate::registry::Resolved;

/// Work for the executor that takes it.
pub type Series = Box<dyn FnOnce(Here) -> LocalBoxFuture<'static, ()> + Send>;

/// Series of one executor at once: each holds an input or an output.
const MAX_SERIES: usize = 1024;

type Next = (Box<Call>, Responder);

/// The executor that a series runs on.
#[derive(Clone, Default)]
pub struct Here(Rc<RefCell<VecDeque<Next>>>);

impl Here {
    /// Runs one call here.
    pub async fn run(&self, call: Box<Call>) -> CallResult {
        let (answer, answered) = oneshot::channel();
        self.0.borrow_mut().push_back((call, Responder::Step(answer)));
        answered.await.unwrap_or_else(|_| {
            Err(ErrorBody::new(
                ErrorCode::Internal,
                "the worker stopped during a step",
            ))
        })
    }

    /// Runs the first call of what came from the queue; `None` when it is to go back there.
    pub async fn run_first(&self, call: Box<Call>) -> Option<CallResult> {
        let (answer, answered) = oneshot::channel();
        self.0.borrow_mut().push_back((call, Responder::First(answer)));
        answered.await.ok()
    }

    /// The next call that a series made.
    pub(super) fn next(&self) -> Option<(Box<Call>, Responder)> {
        self.0.borrow_mut().pop_front()
    }
}

/// A stored chain that ran.
pub struct ChainEnded {
    responder: Responder,
    job_id: JobId,
    /// Nothing when it goes back to the queue.
    result: Option<CallResult>,
}

impl Executor {
    /// Begins a series.
    pub(super) fn take_series(&mut self, series: Series) {
        self.series += 1;
        let series = series(self.here.clone());
        self.errand(series.map(|()| Event::SeriesEnded));
    }

    /// A stored chain leaves the house: its steps are in it and hold slots, one after the other.
    pub(super) fn take_chain(&mut self, pending: Box<Pending>, module: Arc<Resolved>) {
        self.slots.leave(pending.size_bytes);
        self.turn_out_chain(pending, module);
    }

    /// Runs a stored chain, which is not in the house.
    pub(super) fn begin_chain(&mut self, pending: Box<Pending>, module: Arc<Resolved>) {
        let Pending {
            call, mut responder, ..
        } = *pending;
        let job_id = call.job_id.clone();
        let fitted = match self.series < MAX_SERIES {
            true => ChainRun::new(module, call, &self.common.policy),
            false => Err(overloaded()),
        };
        let run = match fitted {
            Ok(run) => run,
            Err(error) => return self.fail(responder, job_id, error),
        };
        self.series += 1;
        let (here, room) = (self.here.clone(), Arc::clone(&self.common.chain_room));
        let is_queued = responder.is_queued();
        self.errand(async move {
            let result = tokio::select! {
                biased;
                result = run.run(&here, &room, is_queued) => result,
                () = poll_fn(|context| responder.poll_given_up(context)) => Some(Err(given_up())),
            };
            Event::ChainEnded(Box::new(ChainEnded {
                responder,
                job_id,
                result,
            }))
        });
    }

    pub(super) fn on_chain_ended(&mut self, ended: ChainEnded) {
        let ChainEnded {
            responder,
            job_id,
            result,
        } = ended;
        match result {
            None => {
                self.series -= 1;
                responder.give_back();
            }
            Some(Ok(finished)) => self.answer(finished, responder, Holds::Series),
            Some(Err(error)) => {
                self.series -= 1;
                // The step that failed is among the counts.
                if let Some(form) = responder.form() {
                    self.tally.answer(form, 0, Some(&error));
                }
                let error = error.for_job(job_id);
                let sending = responder.answer(Err(error), usize::MAX, &self.common.worker);
                self.send(sending);
            }
        }
    }

    /// Takes a call that a series made.
    pub(super) fn take_step(&mut self, call: Box<Call>, responder: Responder) {
        if self.cut.is_cancelled() {
            return self.fail(responder, call.job_id, stopping());
        }
        self.take_call(Ok(*call), responder, None);
    }
}
