//! The subscriptions of one executor. It is emptied at every turn: what NATS delivers waits in the executor's own bounds.

use std::collections::VecDeque;
use std::task::{Context, Poll};

use async_nats::{Client, Message, Subscriber};
use futures_util::StreamExt;
use wess_schemas::subject::{Endpoint, QUEUE_GROUP, Subjects};
use wess_service::nats::leave;

/// `wess.invoke` in all its forms, and `wess.http`.
pub struct Inbox {
    subscriptions: Vec<Subscriber>,
    /// What came while it left.
    last: VecDeque<Message>,
}

impl Inbox {
    /// Subscribes; once this returns the server knows.
    pub async fn open(client: &Client, subjects: &Subjects) -> Result<Self, async_nats::Error> {
        let mut subscriptions = Vec::new();
        let asked = [
            subjects.endpoint(&Endpoint::Invoke),
            subjects.invoke_wildcard(),
            subjects.http_wildcard(),
        ];
        for subject in asked {
            subscriptions.push(client.queue_subscribe(subject, QUEUE_GROUP.into()).await?);
        }
        client.flush().await?;
        Ok(Self {
            subscriptions,
            last: VecDeque::new(),
        })
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
            Poll::Ready(self.last.pop_front())
        } else {
            Poll::Pending
        }
    }

    /// Whether every subscription has ended, and all that came was taken.
    pub fn is_drained(&self) -> bool {
        self.subscriptions.is_empty() && self.last.is_empty()
    }

    /// Takes nothing new; what was delivered, or is on its way, is still to be taken.
    pub async fn drain(&mut self, client: &Client) {
        self.last = leave(client, std::mem::take(&mut self.subscriptions))
            .await
            .into();
    }
}
