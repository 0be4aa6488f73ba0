//! Leaving subscriptions without losing what is on its way to them.
//!
//! async-nats forgets a draining subscription as soon as its connection wakes after the UNSUB was sent, not when the
//! server has confirmed it: what the server had sent before it knew would be thrown away. On the connection's own thread
//! nothing can wake it while that thread stands still.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use async_nats::Subscriber;

/// How long to stand still: more than NATS takes to hear that we leave, and for what it sent before to arrive.
pub const STANDSTILL: Duration = Duration::from_millis(150);

/// Drains subscriptions. To be called on the thread of the current-thread runtime that their connection lives on, which
/// stands still meanwhile; on another runtime, messages that are on their way may be lost.
///
/// What was delivered is still to be taken from them.
pub async fn leave(subscriptions: &mut [Subscriber]) {
    for subscription in subscriptions {
        if let Err(error) = subscription.drain().await {
            tracing::debug!(%error, "a subscription was already gone");
        }
    }
    let mut polled = false;
    // Behind the connection's task in the queue of tasks: it says UNSUB once, and does not wake again before we stand still.
    poll_fn(|context| {
        if std::mem::replace(&mut polled, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
    std::thread::sleep(STANDSTILL);
}
