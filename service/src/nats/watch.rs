//! What a connection is doing now, told by async-nats' events: connected or not, how often, and messages it dropped.
//!
//! Observes only: it decides nothing, and a lost observer loses no connection.

use async_nats::Event;
use prometheus_client::metrics::counter::Counter;
use tokio::sync::watch;

/// The connection at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ConnectionState {
    /// Whether a server is connected now.
    pub connected: bool,
    /// How many times a server was connected; 1 after the first.
    pub connects: u64,
}

/// Follows one connection. Each clone sees every reconnect once.
#[derive(Debug, Clone)]
pub struct ConnectionWatch {
    state: watch::Receiver<ConnectionState>,
    seen: u64,
}

impl ConnectionWatch {
    /// The connection now.
    pub fn state(&self) -> ConnectionState {
        *self.state.borrow()
    }

    /// Waits until the state is another one than when this was last called; `None` once the connection is gone for good.
    pub async fn changed(&mut self) -> Option<ConnectionState> {
        self.state.changed().await.ok()?;
        Some(*self.state.borrow_and_update())
    }

    /// Waits for a reconnect that this watch has not reported; `None` once the connection is gone for good.
    pub async fn reconnected(&mut self) -> Option<ConnectionState> {
        let seen = self.seen;
        let state = *self
            .state
            .wait_for(|state| state.connected && state.connects > seen)
            .await
            .ok()?;
        self.seen = state.connects;
        Some(state)
    }

    /// Waits for the first event of a connection that is being made.
    pub(super) async fn connected(&mut self) {
        self.reconnected().await;
    }
}

/// The end that async-nats feeds.
#[derive(Debug)]
pub(super) struct Observer {
    state: watch::Sender<ConnectionState>,
    slow_consumers: Counter,
}

/// A watch and what feeds it, which counts there the messages that were dropped because a subscription was full.
pub(super) fn channel(slow_consumers: Counter) -> (ConnectionWatch, Observer) {
    let (sender, receiver) = watch::channel(ConnectionState::default());
    let watch = ConnectionWatch {
        state: receiver,
        seen: 0,
    };
    (
        watch,
        Observer {
            state: sender,
            slow_consumers,
        },
    )
}

impl Observer {
    pub(super) fn observe(&self, event: &Event) {
        match event {
            Event::Connected => self.connected(),
            Event::Disconnected | Event::Closed => self.disconnected(event),
            Event::SlowConsumer(subscription) => self.dropped_a_message(*subscription),
            Event::Draining => tracing::debug!("draining the NATS connection"),
            Event::LameDuckMode | Event::ServerError(_) | Event::ClientError(_) => {
                tracing::warn!(%event, "NATS says");
            }
        }
    }

    fn connected(&self) {
        self.state.send_modify(|state| {
            *state = ConnectionState {
                connected: true,
                connects: state.connects + 1,
            }
        });
        tracing::info!(connects = self.state.borrow().connects, "connected to NATS");
    }

    fn disconnected(&self, event: &Event) {
        self.state.send_modify(|state| state.connected = false);
        tracing::warn!(%event, "no connection to NATS");
    }

    fn dropped_a_message(&self, subscription: u64) {
        self.slow_consumers.inc();
        tracing::error!(subscription, "a subscription was full: a message was dropped");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_reconnect_is_reported_once_even_when_it_came_before_the_question() {
        let (mut watch, observer) = channel(Counter::default());
        observer.observe(&Event::Connected);
        assert_eq!(
            watch.reconnected().await,
            Some(ConnectionState {
                connected: true,
                connects: 1
            })
        );
        observer.observe(&Event::Disconnected);
        assert!(!watch.state().connected);
        observer.observe(&Event::Connected);
        assert_eq!(watch.reconnected().await.map(|state| state.connects), Some(2));
        drop(observer);
        assert_eq!(watch.reconnected().await, None);
    }

    #[test]
    fn slow_consumers_are_counted() {
        let slow_consumers = Counter::default();
        let (watch, observer) = channel(slow_consumers.clone());
        observer.observe(&Event::SlowConsumer(3));
        observer.observe(&Event::SlowConsumer(3));
        assert_eq!(slow_consumers.get(), 2);
        assert_eq!(watch.state(), ConnectionState::default());
    }
}
