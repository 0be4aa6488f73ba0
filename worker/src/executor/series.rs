//! Work that makes calls where it runs, each after the answer to the one before: the steps of a chain.
//!
//! Invariant: a series is in nobody's way: only the call that it waits for is in the house or holds a slot, and none starts once
//! grace is over.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use tokio::sync::oneshot;
use wess_schemas::{ErrorBody, ErrorCode};

use super::respond::Responder;
use super::steps::{Event, stopping};
use super::turns::Executor;
use crate::call::{Call, CallResult};

/// Work for the executor that takes it.
pub type Series = Box<dyn FnOnce(Here) -> LocalBoxFuture<'static, ()> + Send>;

type Next = (Box<Call>, oneshot::Sender<CallResult>);

/// The executor that a series runs on.
#[derive(Clone, Default)]
pub struct Here(Rc<RefCell<VecDeque<Next>>>);

impl Here {
    /// Runs one call here.
    pub async fn run(&self, call: Box<Call>) -> CallResult {
        let (answer, answered) = oneshot::channel();
        self.0.borrow_mut().push_back((call, answer));
        answered.await.unwrap_or_else(|_| {
            Err(ErrorBody::new(
                ErrorCode::Internal,
                "the worker stopped during a step",
            ))
        })
    }

    /// The next call that a series made.
    pub(super) fn next(&self) -> Option<(Box<Call>, oneshot::Sender<CallResult>)> {
        self.0.borrow_mut().pop_front()
    }
}

impl Executor {
    /// Begins a series.
    pub(super) fn take_series(&mut self, series: Series) {
        let series = series(self.here.clone());
        self.errand(series.map(|()| Event::SeriesEnded));
    }

    /// Takes a call that a series made.
    pub(super) fn take_step(&mut self, call: Box<Call>, waiting: oneshot::Sender<CallResult>) {
        if self.cut.is_cancelled() {
            return self.fail(Responder::Step(waiting), call.job_id, stopping());
        }
        self.take_call(Ok(*call), Responder::Step(waiting), None);
    }
}
