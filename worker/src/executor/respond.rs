//! Who waits for a call, and how the answer gets there.

use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_nats::Subject;
use async_nats::connection::State;
use futures_util::poll;
use tokio::sync::oneshot;
use wess_schemas::{ErrorBody, JobId, WorkerId};
use wess_service::bus::Reply;

use super::turns::Executor;
use crate::call::{CallResult, Finished, QueuedAnswer, QueuedResult};
use crate::endpoints::error_reply;
use crate::endpoints::http::{Asked, HttpWaiting};
use crate::endpoints::invoke::{self, Form, Output};

/// Who waits.
#[derive(Debug)]
pub enum Responder {
    /// A caller across NATS; without a reply subject nobody does.
    Nats(Form, Option<Subject>),
    /// A caller in this process, who sent a message.
    Door(Form, oneshot::Sender<Reply>),
    /// A job, or a chain in this process.
    Step(oneshot::Sender<CallResult>),
    /// A stored chain that came from the queue: until this first step runs it may be given back.
    First(oneshot::Sender<CallResult>),
    /// Who has a guest's response, or waits for it, and wants to know how the guest ended.
    Http(HttpWaiting),
    /// A call that waited in the queue, and who took it from there.
    Queued(Form, oneshot::Sender<QueuedResult>),
}

/// A reply on its way.
pub enum Sending {
    /// To be published.
    Publish(Subject, Reply),
    /// To be stored first, as it is too large for a message.
    Store(Box<Finished>, Vec<u8>, Responder),
    /// The response of a guest that has ended.
    Respond(Box<Asked>),
    /// Gone.
    Done,
}

impl Responder {
    /// Writes the reply, or says what must happen first. `inline_bytes` is what a message may carry.
    pub fn answer(self, result: CallResult, inline_bytes: usize, worker: &WorkerId) -> Sending {
        let (form, result) = match (self, result) {
            // Who no longer waits was cut with the process.
            (Self::Step(waiting) | Self::First(waiting), result) => {
                drop(waiting.send(result));
                return Sending::Done;
            }
            (Self::Http(waiting), result) => {
                let asked = waiting.end(result.map(drop));
                return asked.map_or(Sending::Done, |asked| Sending::Respond(Box::new(asked)));
            }
            (Self::Queued(_, waiting), result) => {
                drop(waiting.send(result.map(QueuedAnswer::Finished)));
                return Sending::Done;
            }
            (Self::Nats(_, None), _) => return Sending::Done,
            (responder, Err(error)) => return responder.deliver(error_reply(&error)),
            (responder @ Self::Door(form, _), Ok(finished)) => (responder, (form, finished, usize::MAX)),
            (responder @ Self::Nats(form, _), Ok(finished)) => (responder, (form, finished, inline_bytes)),
        };
        let (responder, (form, mut finished, inline_bytes)) = (form, result);
        let output = invoke::take_output(form, &mut finished, inline_bytes);
        match output {
            Some(output) if !invoke::fits(form, &output, inline_bytes) => {
                Sending::Store(Box::new(finished), output, responder)
            }
            output => responder.deliver(invoke::reply(form, finished, Output::Inline(output), worker)),
        }
    }

    /// Ready once nobody waits any more, where that can be known: who asked over NATS may still get the answer, and a
    /// call of somebody's own runs on.
    pub fn poll_given_up(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Step(waiting) | Self::First(waiting) => waiting.poll_closed(context),
            Self::Http(waiting) => waiting.poll_given_up(context),
            Self::Nats(..) | Self::Door(..) | Self::Queued(..) => Poll::Pending,
        }
    }

    /// Whether nobody waits any more, where that can be known.
    pub fn is_given_up(&mut self) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        self.poll_given_up(&mut context).is_ready()
    }

    /// The guest goes on past its first turn: what it may have said by then is passed on from now on as it comes.
    pub fn go_on(&mut self) {
        if let Self::Http(waiting) = self {
            waiting.go_on();
        }
    }

    /// Whether the call came from the queue.
    pub fn is_queued(&self) -> bool {
        matches!(self, Self::Queued(..) | Self::First(_))
    }

    /// Has a call from the queue taken elsewhere. A chain hears of it by hearing nothing.
    pub fn give_back(self) {
        if let Self::Queued(_, waiting) = self {
            drop(waiting.send(Ok(QueuedAnswer::Returned)));
        }
    }

    /// The form that the caller asked in; steps of chains have none.
    pub fn form(&self) -> Option<Form> {
        match self {
            Self::Nats(form, _) | Self::Door(form, _) | Self::Queued(form, _) => Some(*form),
            Self::Http(_) => Some(Form::Http),
            Self::Step(_) | Self::First(_) => None,
        }
    }

    /// Sends a reply that is ready.
    pub fn deliver(self, reply: Reply) -> Sending {
        match self {
            Self::Nats(_, Some(subject)) => Sending::Publish(subject, reply),
            Self::Door(_, waiting) => {
                // A caller that no longer waits has hung up.
                drop(waiting.send(reply));
                Sending::Done
            }
            Self::Queued(_, waiting) => {
                drop(waiting.send(Ok(QueuedAnswer::Reply(reply))));
                Sending::Done
            }
            Self::Nats(_, None) | Self::Step(_) | Self::First(_) | Self::Http(_) => Sending::Done,
        }
    }
}

/// How long the connection may take to have room for a reply.
const PUBLISH_PATIENCE: Duration = Duration::from_secs(1);

/// What a call still holds that is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holds {
    /// The slot of its guest.
    Slot,
    /// The place of a stored chain among the series: its guests were those of its steps.
    Series,
}

impl Executor {
    /// Answers a call whose guest answered. Its slot is free then unless the answer has to be stored first.
    pub(super) fn answer(&mut self, finished: Finished, responder: Responder, holds: Holds) {
        let stats = &finished.stats;
        let (form, took_us) = (responder.form(), stats.queue_us + stats.load_us + stats.run_us);
        let inline_bytes = self.client.max_payload() / 2;
        match responder.answer(Ok(finished), inline_bytes, &self.common.worker) {
            Sending::Store(finished, output, responder) => {
                self.store_output(*finished, output, responder, holds);
            }
            sending => {
                self.succeed(form, took_us, holds);
                self.release(holds);
                self.send(sending);
            }
        }
    }

    pub(super) fn succeed(&self, form: Option<Form>, took_us: u64, holds: Holds) {
        // The steps of a chain have been counted.
        self.tally.succeeded.add(u64::from(holds == Holds::Slot));
        if let Some(form) = form {
            self.tally.answer(form, took_us, None);
        }
    }

    /// Answers a call that has neither a slot nor a place in the house any more.
    pub(super) fn fail(&mut self, responder: Responder, job_id: JobId, error: ErrorBody) {
        self.count_failure(responder.form(), &error);
        tracing::debug!(%job_id, code = %error.code(), message = error.error.message, "a call was refused or failed");
        let sending = responder.answer(Err(error.for_job(job_id)), usize::MAX, &self.common.worker);
        self.send(sending);
    }

    pub(super) fn count_failure(&self, form: Option<Form>, error: &ErrorBody) {
        self.tally.fail(error.code());
        if let Some(form) = form {
            self.tally.answer(form, 0, Some(error));
        }
    }

    pub(super) fn send(&mut self, sending: Sending) {
        match sending {
            Sending::Publish(subject, reply) => self.outbox.push_back((subject, reply)),
            Sending::Respond(asked) => self.respond(*asked),
            Sending::Done | Sending::Store(..) => {}
        }
    }

    pub(super) fn release(&mut self, holds: Holds) {
        match holds {
            Holds::Slot => self.slots.release(),
            Holds::Series => self.series -= 1,
        }
    }

    /// Hands replies to the connection. While NATS is away it keeps some thousands for its return; what no longer fits is
    /// dropped, after one wait for room, so that calls from this process go on.
    pub(super) async fn send_replies(&mut self) {
        while let Some((subject, Reply { headers, payload })) = self.outbox.pop_front() {
            let mut publish = pin!(self.client.publish_with_headers(subject, headers, payload));
            let published = match poll!(publish.as_mut()) {
                Poll::Ready(published) => Some(published),
                Poll::Pending if self.replies_stuck && self.client.connection_state() != State::Connected => {
                    None
                }
                Poll::Pending => tokio::time::timeout(PUBLISH_PATIENCE, publish).await.ok(),
            };
            self.replies_stuck = published.is_none();
            match published {
                Some(Ok(())) => {}
                Some(Err(error)) => tracing::warn!(%error, "a reply was not published"),
                None => {
                    let dropped = self.outbox.len() + 1;
                    self.outbox.clear();
                    self.tally.replies_dropped.add(dropped as u64);
                    return tracing::error!(dropped, "NATS takes no more replies: dropped them");
                }
            }
        }
    }
}
