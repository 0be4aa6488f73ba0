//! A bound stream: taking its messages, a permit first, and giving each back settled.
//!
//! What is wrong with the stream or the module is waited out; the messages stay where they are.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::consumer::PullConsumer;
use async_nats::jetstream::{AckKind, Message};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wess_schemas::binding::Binding;

use super::settle::{Delivery, Verdict};
use super::{Host, fit};
use crate::queue::fetch::{Permit, Pool};

/// How long to wait before a stream that could not be asked, or a module that is not there, is looked for again.
const PAUSE: Duration = Duration::from_secs(1);
/// One binding may have this part of a worker's slots in hand, so that one stream leaves room for others and for calls.
const SHARE: usize = 4;

/// A stream that a binding takes messages from.
pub(super) struct Bound {
    pub(super) host: Arc<Host>,
    pub(super) binding: Arc<Binding>,
    pub(super) stream: String,
    revision: u64,
}

impl Bound {
    /// Nothing is asked for yet.
    pub(super) fn new(host: Arc<Host>, binding: Arc<Binding>, stream: &str, revision: u64) -> Self {
        Self {
            host,
            binding,
            stream: stream.into(),
            revision,
        }
    }

    /// Takes messages until it is closed; ends once everything that was taken is settled.
    pub(super) async fn serve(self, close: CancellationToken) {
        let bound = Arc::new(self);
        let host = &bound.host;
        let _inside = host.under_way.token();
        let most = (host.executors.slots() / SHARE).max(1);
        let pool = Pool::new(most, Some(host.executors.clone()));
        let tasks = TaskTracker::new();
        while let Some(Some(consumer)) = close.run_until_cancelled(bound.open()).await {
            let round = close.child_token();
            let handle = |message: Message, permit: Permit| {
                let (bound, round) = (Arc::clone(&bound), round.clone());
                let message = async move { Box::pin(bound.process(message, permit, &round)).await };
                tasks.spawn(host.lifecycle.brief("a bound message", message));
            };
            let storage = host.registry.storage();
            let served = pool.serve(storage.jetstream(), &consumer, &round, handle).await;
            if let Err(error) = served {
                tracing::debug!(binding = %bound.binding.name, %error, "a bound stream cannot be asked");
                close.run_until_cancelled(tokio::time::sleep(PAUSE)).await;
            }
        }
        tasks.close();
        tasks.wait().await;
        let flushing = host.connection.client.flush();
        if tokio::time::timeout(PAUSE, flushing).await.is_err() {
            tracing::warn!(binding = %bound.binding.name, "NATS is away: the last acknowledgements may not have been sent");
        }
    }

    /// The consumer, once the module takes messages and the stream is there; `None` when the binding is gone.
    async fn open(&self) -> Option<PullConsumer> {
        let mut told = false;
        loop {
            let opening = async {
                fit::check(&self.host.registry, &self.host.policy, &self.binding).await?;
                let consumers = &self.host.consumers;
                consumers.open(&self.binding, &self.stream, self.revision).await
            };
            match opening.await {
                Ok(consumer) => return consumer,
                Err(error) if told => tracing::debug!(binding = %self.binding.name, %error, "still waiting"),
                Err(error) => {
                    told = true;
                    tracing::warn!(binding = %self.binding.name, %error, "a bound stream waits");
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Sees to one message. At the end of grace it is handed back.
    async fn process(&self, message: Message, permit: Permit, round: &CancellationToken) {
        let Some(delivery) = Delivery::read(&self.binding, message) else {
            return;
        };
        let verdict = tokio::select! {
            biased;
            verdict = self.settle(&delivery) => verdict,
            never = self.keep(&delivery) => match never {},
            () = self.host.lifecycle.cut.cancelled() => Verdict::Again(Duration::ZERO),
        };
        let ack = match verdict {
            Verdict::Done => AckKind::Ack,
            Verdict::Again(Duration::ZERO) => AckKind::Nak(None),
            Verdict::Again(pause) => AckKind::Nak(Some(pause)),
            Verdict::Wait(pause) => {
                // The others would fail the same way: nothing more is asked for until the module is there.
                round.cancel();
                AckKind::Nak(Some(pause))
            }
        };
        if let Err(error) = delivery.message.ack_with(ack).await {
            tracing::warn!(binding = %self.binding.name, %error, "a message could not be acknowledged: it comes again");
        }
        drop(permit);
    }

    /// Tells the stream that a message is still in hand.
    async fn keep(&self, delivery: &Delivery) -> Infallible {
        loop {
            tokio::time::sleep(self.host.ack_wait / 3).await;
            if let Err(error) = delivery.message.ack_with(AckKind::Progress).await {
                tracing::debug!(binding = %self.binding.name, %error, "a stream was not told that a message is in hand");
            }
        }
    }
}
