//! The subscriptions in the workers' place: opened when no worker beats, closed when one does.
//!
//! Invariant: no request is lost by closing. On a runtime and a connection of their own, so that no reply waits behind
//! requests.

use std::sync::Arc;

use async_nats::{Client, SubscribeError, Subscriber};
use futures_util::future::FutureExt;
use futures_util::stream::{StreamExt, select_all};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep_until};
use wess_schemas::beat::BEAT_EXPIRY;
use wess_schemas::subject::{Endpoint, QUEUE_GROUP};
use wess_service::nats::{ConnectFailed, NatsConfig, leave};

use super::Desk;
use crate::fleet::FleetState;

/// One gateway's way in for requests.
pub struct Door {
    runtime: Runtime,
    client: Client,
    desk: Arc<Desk>,
}

impl Door {
    /// Connects, and opens and closes on a thread of its own from then on. What is given ends when that has ended: after
    /// shutdown, unless it broke.
    pub async fn open(
        nats: NatsConfig,
        desk: Arc<Desk>,
    ) -> Result<impl Future<Output = ()> + use<>, ConnectFailed> {
        let (ready, is_ready) = oneshot::channel();
        let (over, is_over) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new().name("wess-front".into());
        let spawned = thread.spawn(move || {
            let _over = over;
            let Some(runtime) = runtime() else { return };
            let connected = runtime.block_on(nats.connect("wess-gateway front"));
            let connected = connected.map(|connection| connection.client);
            let client = connected.as_ref().ok().cloned();
            if let (Ok(()), Some(client)) = (ready.send(connected.map(drop)), client) {
                let door = Self {
                    runtime,
                    client,
                    desk,
                };
                door.open_and_close();
            }
        });
        if let Err(error) = spawned {
            tracing::error!(%error, "no thread for requests in the workers' place");
        }
        // Without an answer the thread is gone, which whoever waits for its end is told.
        is_ready.await.unwrap_or(Ok(()))?;
        Ok(is_over.map(drop))
    }

    fn open_and_close(self) {
        let (desk, runtime) = (&self.desk, &self.runtime);
        let shutdown = &desk.lifecycle.shutdown;
        let mut fleet = desk.fleet.clone();
        while let Some(until) = runtime.block_on(shutdown.run_until_cancelled(desk.needed(&mut fleet))) {
            let mut requests = match runtime.block_on(self.join()) {
                Ok(requests) => requests,
                Err(error) => return tracing::error!(%error, "cannot take requests in the workers' place"),
            };
            let _joined = desk.metrics.front();
            tracing::info!("no worker beats: requests are queued");
            runtime.block_on(desk.take_requests(&mut requests, &mut fleet, until));
            runtime.block_on(self.leave(requests));
            tracing::info!("requests are left to workers");
        }
    }

    async fn join(&self) -> Result<Vec<Subscriber>, SubscribeError> {
        let subjects = &self.desk.subjects;
        let mut requests = Vec::new();
        for subject in [
            subjects.endpoint(&Endpoint::Invoke),
            subjects.invoke_wildcard(),
            subjects.endpoint(&Endpoint::Chain),
            subjects.endpoint(&Endpoint::Store),
            subjects.modules_wildcard(),
            subjects.jobs_wildcard(),
            subjects.dead_wildcard(),
            subjects.bindings_wildcard(),
        ] {
            requests.push(self.client.queue_subscribe(subject, QUEUE_GROUP.into()).await?);
        }
        self.until_known().await?;
        Ok(requests)
    }

    /// Waits until the server knows what was subscribed to: it has then sent back what came after.
    async fn until_known(&self) -> Result<(), SubscribeError> {
        let inbox = self.client.new_inbox();
        let mut echo = self.client.subscribe(inbox.clone()).await?;
        if self.client.publish(inbox, "".into()).await.is_ok() {
            // A server that is away is told when it is back, as all subscriptions are.
            let _ = tokio::time::timeout(BEAT_EXPIRY, echo.next()).await;
        }
        Ok(())
    }

    async fn leave(&self, requests: Vec<Subscriber>) {
        for message in leave(&self.client, requests).await {
            self.desk.take(message).await;
        }
        // Whoever found nobody before this was about us, not about the workers that come now.
        let _ = self.desk.nobody.notified().now_or_never();
    }
}

impl Desk {
    /// Waits until nobody takes work. Gives until when to stay whatever beats say: where a request of our own found
    /// nobody, a worker that is gone still counts as alive.
    async fn needed(&self, fleet: &mut watch::Receiver<FleetState>) -> Option<Instant> {
        let silence = async {
            // Once nobody listens to beats any more the process ends.
            if fleet
                .wait_for(|state| state.known && state.taking == 0)
                .await
                .is_err()
            {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = silence => None,
            () = self.nobody.notified() => Some(Instant::now() + BEAT_EXPIRY),
        }
    }

    /// Takes requests until a worker takes work, or until shutdown.
    async fn take_requests(
        self: &Arc<Self>,
        requests: &mut [Subscriber],
        fleet: &mut watch::Receiver<FleetState>,
        mut until: Option<Instant>,
    ) {
        let mut messages = select_all(requests.iter_mut());
        while until.is_some() || fleet.borrow_and_update().taking == 0 {
            tokio::select! {
                message = messages.next() => match message {
                    Some(message) => self.take(message).await,
                    None => break,
                },
                changed = fleet.changed() => if changed.is_err() { break },
                () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => until = None,
                () = self.lifecycle.shutdown.cancelled() => break,
            }
        }
    }
}

fn runtime() -> Option<Runtime> {
    let runtime = Builder::new_current_thread().enable_all().build();
    runtime
        .inspect_err(|error| tracing::error!(%error, "no runtime for requests in the workers' place"))
        .ok()
}
