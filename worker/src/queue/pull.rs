//! One pull of a durable consumer: so many messages are asked for, and some of them come.
//!
//! Invariant: every message that the server gives to a pull is seen, unless the connection goes. So a pull is never
//! called off, as async-nats may drop what comes while it unsubscribes; it ends by itself, soon.

use std::pin::Pin;
use std::time::Duration;

use async_nats::jetstream::consumer::PullConsumer;
use async_nats::jetstream::consumer::pull::{BatchConfig, BatchRequestError};
use async_nats::jetstream::{self, Context};
use async_nats::{Client, StatusCode, SubscribeError, Subscriber};
use futures_util::StreamExt;
use tokio::time::Sleep;

/// How long the server may be late with saying that a pull is over.
const LATE: Duration = Duration::from_secs(2);

/// A pull under way.
pub struct Pull {
    subscriber: Subscriber,
    context: Context,
    left: usize,
    lost: Pin<Box<Sleep>>,
}

/// What came of waiting.
pub enum Pulled {
    /// A message.
    Message(Box<jetstream::Message>),
    /// Nothing more comes.
    Over,
    /// The consumer or its server is gone.
    Lost,
}

/// Why nothing could be asked for.
#[derive(Debug, thiserror::Error)]
#[error("messages could not be asked for")]
pub enum PullError {
    /// The connection takes no subscription.
    Subscribe(#[from] SubscribeError),
    /// The connection takes no request.
    Request(#[from] BatchRequestError),
}

impl Pull {
    /// Asks for at most `most` messages, waiting for the first ones as long as `patience`; without any, for those that
    /// are there.
    pub async fn begin(
        client: &Client,
        context: Context,
        consumer: &PullConsumer,
        most: usize,
        patience: Option<Duration>,
    ) -> Result<Self, PullError> {
        let inbox = client.new_inbox();
        let subscriber = client.subscribe(inbox.clone()).await?;
        let asked = BatchConfig {
            batch: most,
            expires: patience,
            no_wait: patience.is_none(),
            ..BatchConfig::default()
        };
        consumer.request_batch(asked, inbox.into()).await?;
        let lost = Box::pin(tokio::time::sleep(patience.unwrap_or_default() + LATE));
        Ok(Self {
            subscriber,
            context,
            left: most,
            lost,
        })
    }

    /// The next message, or why none comes. Loses nothing when it is dropped.
    pub async fn next(&mut self) -> Pulled {
        if self.left == 0 {
            return Pulled::Over;
        }
        let message = tokio::select! {
            biased;
            message = self.subscriber.next() => message,
            () = &mut self.lost => None,
        };
        let Some(message) = message else {
            return Pulled::Lost;
        };
        match message.status {
            None | Some(StatusCode::OK) => {
                self.left -= 1;
                let context = self.context.clone();
                Pulled::Message(Box::new(jetstream::Message { message, context }))
            }
            Some(StatusCode::TIMEOUT | StatusCode::NOT_FOUND) => Pulled::Over,
            Some(status) => {
                tracing::debug!(%status, description = message.description, "a pull was ended");
                Pulled::Lost
            }
        }
    }
}
