//! Keeps a connected process fit for work: its connection shows on `/readyz`, and assets are ensured on each reconnect.
//!
//! A server that comes back may be an empty one; work is not lost by asking once more.

use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::Context;

use crate::assets::{AssetOptions, ensure_assets};
use crate::health::Health;
use crate::lifecycle::Lifecycle;
use crate::nats::{Connection, ConnectionWatch};

/// How long to wait before assets that could not be ensured are tried again.
const RETRY_DELAY: Duration = Duration::from_secs(1);
/// The reason on `/readyz` while there is no connection.
const NATS: &str = "nats";
/// The reason on `/readyz` while assets could not be ensured.
const ASSETS: &str = "assets";

/// Spawns the upkeep of one connection. To be called once assets were ensured for the first time.
pub fn spawn(lifecycle: &Lifecycle, connection: &Connection, options: AssetOptions) {
    let upkeep = Upkeep {
        health: lifecycle.health.clone(),
        watch: connection.watch.clone(),
        jetstream: jetstream::new(connection.client.clone()),
        options,
    };
    let shutdown = lifecycle.shutdown.clone();
    lifecycle.spawn("upkeep", async move {
        tokio::select! {
            () = shutdown.cancelled() => (),
            () = upkeep.run() => (),
        }
    });
}

struct Upkeep {
    health: Health,
    watch: ConnectionWatch,
    jetstream: Context,
    options: AssetOptions,
}

impl Upkeep {
    /// Ends only with the connection.
    async fn run(mut self) {
        let mut ensured = self.watch.state().connects;
        while let Some(state) = self.watch.changed().await {
            if !state.connected {
                self.health.unwell(NATS, "disconnected");
                continue;
            }
            self.health.well(NATS);
            if state.connects > ensured {
                self.ensure().await;
                ensured = state.connects;
            }
        }
    }

    /// Tries until it succeeds, or until there is no connection to try on.
    async fn ensure(&self) {
        while let Err(error) = ensure_assets(&self.jetstream, &self.options).await {
            tracing::warn!(%error, cause = std::error::Error::source(&error), "assets could not be ensured");
            self.health.unwell(ASSETS, error.to_string());
            if !self.watch.state().connected {
                return;
            }
            tokio::time::sleep(RETRY_DELAY).await;
        }
        self.health.well(ASSETS);
    }
}
