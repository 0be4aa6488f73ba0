//! Leaving subscriptions without losing what is on its way to them.
//!
//! async-nats forgets a draining subscription as soon as its connection wakes after the UNSUB was sent, not when the
//! server has confirmed it: what the server had sent before it knew would be thrown away. So nothing is drained here.
//! Invariant: a subscription is forgotten only after the server has answered what was sent behind its UNSUB.

use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Client, Message, Subscriber};
use futures_util::{FutureExt, StreamExt};
use tokio::task::coop::unconstrained;
use tokio::time::timeout;

/// After how many messages to unsubscribe. For the client: never, so that it goes on taking what comes. For the server: at
/// once, as it reads at most nine digits and takes a longer number for none.
const NEVER_HERE_AT_ONCE_THERE: u64 = 10_000_000_000;
/// How often to look whether the connection is still there.
const LOOK: Duration = Duration::from_millis(20);
/// How long a server may take to answer that still seems to be there.
const PATIENCE: Duration = Duration::from_secs(10);

/// Ends subscriptions of one connection, and gives every message that was sent to them and not taken yet. Nothing more
/// is on its way once this returns, unless the connection was lost: then that is lost as well.
pub async fn leave(client: &Client, subscriptions: Vec<Subscriber>) -> Vec<Message> {
    let mut subscriptions = subscriptions;
    for subscription in &mut subscriptions {
        // One that cannot be ended has ended already.
        let _ = subscription.unsubscribe_after(NEVER_HERE_AT_ONCE_THERE).await;
    }
    if timeout(PATIENCE, server_knows(client)).await.is_err() {
        tracing::warn!("the server does not say that it ended a subscription");
    }
    let mut delivered = Vec::new();
    for mut subscription in subscriptions {
        // Not counted by tokio's budget for one task: past it the subscription would look empty.
        while let Some(Some(message)) = unconstrained(subscription.next()).now_or_never() {
            delivered.push(message);
        }
    }
    delivered
}

/// Asks nobody for something: that there is nobody is said by the server itself, behind all that it sent before.
async fn server_knows(client: &Client) {
    let mut answer = Box::pin(client.request(client.new_inbox(), "".into()));
    while client.connection_state() == State::Connected {
        if timeout(LOOK, &mut answer).await.is_ok() {
            return;
        }
    }
}
