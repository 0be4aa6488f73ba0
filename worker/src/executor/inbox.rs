//! The subscriptions of one executor. It is emptied at every turn: what NATS delivers waits in the executor's own bounds.

use std::task::{Context, Poll};

use async_nats::{Client, Message, Subscriber};
use futures_util::StreamExt;
use wess_schemas::subject::{Endpoint, QUEUE_GROUP, Subjects};
use wess_service::nats::leave;

/// `wess.invoke` in all its forms.
pub struct Inbox {
    subscriptions: Vec<Subscriber>,
}

impl Inbox {
    /// Subscribes; once this returns the server knows.
    pub async fn open(client: &Client, subjects: &Subjects) -> Result<Self, async_nats::Error> {
        let mut subscriptions = Vec::new();
        for subject in [subjects.endpoint(&Endpoint::Invoke), subjects.invoke_wildcard()] {
            subscriptions.push(client.queue_subscribe(subject, QUEUE_GROUP.into()).await?);
        }
        client.flush().await?;
        Ok(Self { subscriptions })
    }

    /// The next message, if one is there; `Ready(None)` once every subscription has ended.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Message>> {
        let mut index = 0;
        while let Some(subscription) = self.subscriptions.get_mut(index) {
            match subscription.poll_next_unpin(context) {
                Poll::Ready(Some(message)) => return Poll::Ready(Some(message)),
                Poll::Ready(None) => drop(self.subscriptions.remove(index)),
                Poll::Pending => index += 1,
            }
        }
        if self.subscriptions.is_empty() {
            Poll::Ready(None)
        } else {
            Poll::Pending
        }
    }

    /// Whether every subscription has ended.
    pub fn is_drained(&self) -> bool {
        self.subscriptions.is_empty()
    }

    /// Takes nothing new; what was delivered, or is on its way, still comes.
    pub async fn drain(&mut self) {
        leave(&mut self.subscriptions).await;
    }
}
