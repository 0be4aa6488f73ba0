//! Calls with an idempotency key on an executor: looked up before they wait for a slot, written down before they are
//! answered.
//!
//! Bounds how many are looked up or written down at once: each holds a request to JetStream.

use tokio::sync::oneshot;
use wess_schemas::job::JobRecord;
use wess_schemas::{ErrorBody, ErrorCode};

use super::respond::Responder;
use super::steps::{Event, Pending, in_time, overloaded, stopping};
use super::turns::Executor;
use crate::endpoints::error_reply;
use crate::endpoints::invoke::Form;
use crate::queue::keyed::{CallKey, KeyedCalls, told};

/// Calls with keys in hand at once.
const MAX_IN_HAND: usize = 1024;

/// One executor's calls with keys.
pub struct Keyed {
    calls: KeyedCalls,
    in_hand: usize,
}

impl Keyed {
    /// None in hand.
    pub fn new(calls: KeyedCalls) -> Self {
        Self { calls, in_hand: 0 }
    }

    /// Whether every ending is written down and told.
    pub fn is_idle(&self) -> bool {
        self.in_hand == 0
    }
}

/// A call in the house, and what its key stands for.
pub struct LookedUp {
    pending: Box<Pending>,
    key: Box<CallKey>,
    known: Result<Option<JobRecord>, ErrorBody>,
}

/// An ending to be told.
pub struct Settled {
    responder: Responder,
    result: Result<JobRecord, ErrorBody>,
}

impl Executor {
    /// Looks the key of a call in the house up.
    pub(super) fn look_up(&mut self, pending: Box<Pending>) {
        if self.keyed.in_hand >= MAX_IN_HAND {
            return self.turn_away(pending, overloaded());
        }
        self.keyed.in_hand += 1;
        let (calls, cut) = (self.keyed.calls.clone(), self.cut.clone());
        self.errand(async move {
            let key = Box::new(CallKey::of(&pending.call));
            let known = in_time(cut, pending.call.expires(), calls.known(&key)).await;
            Event::LookedUp(Box::new(LookedUp { pending, key, known }))
        });
    }

    /// Runs a call whose key stands for nothing yet, or tells how it ended before.
    pub(super) fn on_looked_up(&mut self, looked_up: LookedUp) {
        let LookedUp {
            mut pending,
            key,
            known,
        } = looked_up;
        let result = match known {
            Ok(None) if self.should_leave(&pending) => {
                self.keyed.in_hand -= 1;
                self.slots.leave(pending.size_bytes);
                return self.turn_out(pending);
            }
            Ok(None) => {
                let (answer, answered) = oneshot::channel();
                let responder = std::mem::replace(&mut pending.responder, Responder::Step(answer));
                pending.origin = None;
                self.await_ending(key, responder, answered);
                return self.resolve(pending);
            }
            Ok(Some(record)) => Ok(record),
            Err(error) => Err(error),
        };
        self.slots.leave(pending.size_bytes);
        let responder = pending.responder;
        self.on_settled(Settled { responder, result });
    }

    /// Whoever takes it from the queue looks its key up again.
    fn should_leave(&self, pending: &Pending) -> bool {
        self.slots.is_full() && pending.origin.is_some() && self.may_spill()
    }

    fn await_ending(
        &mut self,
        key: Box<CallKey>,
        responder: Responder,
        answered: oneshot::Receiver<crate::call::CallResult>,
    ) {
        let (calls, cut) = (self.keyed.calls.clone(), self.cut.clone());
        let inline_bytes = self.client.max_payload() / 2;
        self.errand(async move {
            let ended = answered.await.unwrap_or_else(|_| Err(stopping()));
            let ending = calls.end_call(&key, ended, inline_bytes);
            let result = cut.run_until_cancelled(ending).await.unwrap_or_else(|| {
                let text = "the worker stopped before the call's ending was written down";
                Err(ErrorBody::new(ErrorCode::Internal, text).for_job(key.job_id().clone()))
            });
            Event::Settled(Box::new(Settled { responder, result }))
        });
    }

    pub(super) fn on_settled(&mut self, Settled { responder, result }: Settled) {
        self.keyed.in_hand -= 1;
        let form = responder.form();
        let reply = result.and_then(|ending| told(form.unwrap_or(Form::Json), ending));
        if let Some(form) = form {
            self.tally.answer(form, 0, reply.as_ref().err());
        }
        let sending = match (responder, reply) {
            (responder @ Responder::Queued(..), Err(error)) => {
                responder.answer(Err(error), 0, &self.common.worker)
            }
            (responder, reply) => responder.deliver(reply.unwrap_or_else(|error| error_reply(&error))),
        };
        self.send(sending);
    }
}
