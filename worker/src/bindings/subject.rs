//! A bound subject: each message runs once, on whichever worker the queue group gives it to, and is nowhere kept.
//!
//! Holds a bounded number in hand. Past it messages are thrown away and counted: who asked is told, and nobody else can be.

use std::sync::Arc;
use std::time::Duration;

use async_nats::{Message, Subject, SubscribeError, Subscriber};
use futures_util::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wess_schemas::binding::Binding;
use wess_schemas::limits::DEFAULT_WAIT_MS;
use wess_schemas::subject::binding_group;
use wess_schemas::{ErrorBody, ErrorCode, JobId};
use wess_service::nats::leave;

use super::Host;
use super::run::{Delivered, ended};
use crate::call::{CallResult, Finished};
use crate::endpoints::invoke::{self, Form};
use crate::executor::Arrival;

/// Messages of one binding in hand at once, on one worker. What they hold together is bounded by the executors.
const MAX_IN_HAND: usize = 1024;

/// A subscription and what it runs.
pub(super) struct Bound {
    host: Arc<Host>,
    binding: Arc<Binding>,
    room: Arc<Semaphore>,
    tasks: TaskTracker,
}

/// A message, and what is held while it is in hand.
struct InHand {
    message: Message,
    reply: Option<Subject>,
    _room: OwnedSemaphorePermit,
}

/// Subscribes; the server knows once the connection was flushed.
pub(super) async fn subscribe(
    host: &Host,
    binding: &Binding,
    subject: &str,
) -> Result<Subscriber, SubscribeError> {
    let group = binding_group(&binding.name);
    host.connection
        .client
        .queue_subscribe(subject.to_owned(), group)
        .await
}

/// Takes messages until it is closed, then those that had been delivered; ends when every one has run.
pub(super) async fn serve(
    host: Arc<Host>,
    binding: Arc<Binding>,
    mut subscription: Subscriber,
    close: CancellationToken,
) {
    let _inside = host.under_way.token();
    let client = host.connection.client.clone();
    let bound = Arc::new(Bound {
        host,
        binding,
        room: Arc::new(Semaphore::new(MAX_IN_HAND)),
        tasks: TaskTracker::new(),
    });
    loop {
        tokio::select! {
            message = subscription.next() => match message {
                Some(message) => bound.take(message).await,
                None => break,
            },
            () = close.cancelled() => break,
        }
    }
    for message in leave(&client, vec![subscription]).await {
        bound.take(message).await;
    }
    bound.tasks.close();
    bound.tasks.wait().await;
    if tokio::time::timeout(Duration::from_secs(1), client.flush())
        .await
        .is_err()
    {
        tracing::warn!(binding = %bound.binding.name, "NATS is away: the last outputs may not have been sent");
    }
}

impl Bound {
    async fn take(self: &Arc<Self>, mut message: Message) {
        let name = &self.binding.name;
        let named = message.reply.take();
        let reply = named.filter(|reply| {
            let may = self.host.may_answer(&self.binding, reply);
            if !may {
                self.host.stats.unanswerable(name);
                tracing::warn!(binding = %name, %reply, "a message named a reply subject that nobody may reply to");
            }
            may
        });
        let Ok(room) = Arc::clone(&self.room).try_acquire_owned() else {
            self.host.stats.dropped(name);
            if let Some(reply) = reply {
                let full = Err(full());
                self.host.reply(Form::Raw, reply, full).await;
            }
            return;
        };
        let in_hand = InHand {
            message,
            reply,
            _room: room,
        };
        let bound = Arc::clone(self);
        let begun = self.begin(&in_hand.message);
        let task = async move { bound.finish(in_hand, begun).await };
        self.tasks
            .spawn(self.host.lifecycle.brief("a bound message", task));
    }

    fn delivered<'a>(&'a self, message: &'a Message) -> Delivered<'a> {
        Delivered {
            binding: &self.binding,
            subject: &message.subject,
            place: None,
            headers: message.headers.as_ref(),
            payload: &message.payload,
        }
    }

    /// Gives the call to an executor at once, and so in the order of the subject.
    fn begin(&self, message: &Message) -> Result<oneshot::Receiver<CallResult>, ErrorBody> {
        let wait = Duration::from_millis(DEFAULT_WAIT_MS);
        let job_id = JobId::generate();
        let call = self.delivered(message).call(job_id.clone(), wait);
        let call = call.map_err(|error| error.for_job(job_id.clone()))?;
        let (answer, answered) = oneshot::channel();
        let dispatched = self
            .host
            .executors
            .dispatch(Arrival::Step(Box::new(call), answer));
        dispatched.map_err(|error| error.for_job(job_id))?;
        Ok(answered)
    }

    async fn finish(&self, in_hand: InHand, begun: Result<oneshot::Receiver<CallResult>, ErrorBody>) {
        let InHand {
            message,
            reply,
            _room,
        } = in_hand;
        let cut = &self.host.lifecycle.cut;
        let result = match begun {
            Ok(answered) => cut
                .run_until_cancelled(ended(answered))
                .await
                .unwrap_or_else(|| Err(stopped())),
            Err(error) => Err(error),
        };
        let result = match (result, &self.binding.publish_to) {
            (Ok(finished), Some(target)) => {
                let delivered = self.delivered(&message);
                let outgoing = delivered.outgoing(target, None);
                match self.host.outputs.publish(outgoing, finished).await {
                    Ok(()) => return self.host.stats.ran(&self.binding.name),
                    Err(error) => Err(error),
                }
            }
            (result, _) => result,
        };
        self.count(&result);
        if let Some(reply) = reply {
            let form = invoke::raw_form(message.headers.as_ref());
            self.host.reply(form, reply, result).await;
        }
    }

    fn count(&self, result: &Result<Finished, ErrorBody>) {
        let (name, stats) = (&self.binding.name, &self.host.stats);
        let Err(error) = result else {
            return stats.ran(name);
        };
        match error.code() {
            ErrorCode::Overloaded | ErrorCode::Expired if !error.error.guest_ran => stats.dropped(name),
            code => {
                tracing::info!(binding = %name, %error, "a message of a binding failed");
                stats.failed(name, code);
            }
        }
    }
}

fn stopped() -> ErrorBody {
    ErrorBody::new(ErrorCode::Internal, "the worker stopped during the run")
}

fn full() -> ErrorBody {
    let text = "too many messages of this binding are in hand on this worker";
    ErrorBody::new(ErrorCode::Overloaded, text).with("retry_after_ms", 100)
}
