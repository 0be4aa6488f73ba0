//! Keeps what a gateway needs of NATS there, and says on `/readyz` when it is not.
//!
//! Small calls go through without JetStream, so its absence is reported and repaired, never fatal.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use wess_service::assets::{AssetError, AssetOptions, ensure_assets};
use wess_service::nats::{Connection, ConnectionState};
use wess_service::payloads::Payloads;

use crate::app::App;
use crate::large::Stores;

/// When to try again what JetStream did not answer.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// Apart from a worker's, which may live in the same process on another connection.
const CONNECTION: &str = "gateway.nats";
const JETSTREAM: &str = "gateway.jetstream";

/// Looks after the assets of one gateway.
pub struct Upkeep {
    app: Arc<App>,
    connection: Connection,
    options: AssetOptions,
    /// The connect after which the assets were last seen.
    ensured: u64,
}

impl Upkeep {
    /// Looks after what `connection` reaches.
    pub fn new(app: Arc<App>, connection: Connection, options: AssetOptions) -> Self {
        Self {
            app,
            connection,
            options,
            ensured: 0,
        }
    }

    /// Follows the connection until shutdown: each reconnect may have reached a server that forgot.
    pub async fn run(mut self) {
        let shutdown = self.app.lifecycle.shutdown.clone();
        shutdown.run_until_cancelled(self.follow()).await;
    }

    async fn follow(&mut self) {
        loop {
            let settled = self.look().await;
            let change = self.connection.watch.changed();
            if !settled {
                // Whether it changed or not, it is time to try again.
                let _ = tokio::time::timeout(RETRY_INTERVAL, change).await;
            } else if change.await.is_none() {
                // Gone for good: only a process that is ending drops its connection.
                return std::future::pending().await;
            }
        }
    }

    /// Makes sure that the assets are there, once for each connect; gives whether there is nothing left to do.
    pub async fn look(&mut self) -> bool {
        let state = self.connection.watch.state();
        self.report(state);
        if state.connected && state.connects != self.ensured && self.ensure().await {
            self.ensured = state.connects;
        }
        !state.connected || state.connects == self.ensured
    }

    fn report(&self, state: ConnectionState) {
        let health = &self.app.lifecycle.health;
        if state.connected {
            health.well(CONNECTION);
        } else {
            health.unwell(CONNECTION, "not connected to NATS");
        }
    }

    async fn ensure(&self) -> bool {
        let health = &self.app.lifecycle.health;
        match self.open().await {
            Ok(stores) => {
                self.app.stores.store(Some(Arc::new(stores)));
                health.well(JETSTREAM);
                true
            }
            Err(error) => {
                let cause = error.source().map(ToString::to_string);
                tracing::warn!(%error, cause, "cannot use JetStream");
                health.unwell(JETSTREAM, error.to_string());
                false
            }
        }
    }

    async fn open(&self) -> Result<Stores, AssetError> {
        let jetstream = async_nats::jetstream::new(self.connection.client.clone());
        let assets = ensure_assets(&jetstream, &self.options).await?;
        Ok(Stores {
            payloads: Payloads::new(assets.payloads),
            blobs: assets.blobs,
        })
    }
}
