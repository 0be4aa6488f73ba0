//! HTTP for Wess, and the seed protocol on a Unix socket: takes requests, asks workers over the bus, answers. Runs as
//! `wess-gateway` or inside `wess up`.
//!
//! Holds no state that a client could miss on another gateway, and no rule of the contract: workers decide.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod admission;
mod app;
mod auth;
pub mod backlog;
pub mod bare;
mod bodies;
mod calls;
pub mod config;
mod edge;
mod extract;
mod filled;
pub mod fleet;
mod follow;
pub mod front;
pub mod hosts;
mod jobs;
mod large;
pub mod levels;
mod linger;
mod listener;
mod metrics;
pub mod places;
pub mod problem;
mod router;
mod routes;
pub mod scaler;
mod server;
pub mod socket;
mod workers;

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::runtime::Handle;

use wess_schemas::subject::Subjects;
use wess_service::assets::Assets;
use wess_service::lifecycle::{Failure, Lifecycle};

pub use metrics::Metrics;

use crate::admission::Admission;
use crate::app::App;
use crate::auth::Door;
use crate::config::HttpConfig;
use crate::hosts::Hosts;
use crate::large::Stores;
use crate::listener::Listener;
use crate::places::Place;
use crate::router::Routers;
use crate::server::{Server, Site};
use crate::socket::{SocketError, SocketFile, SocketServer};
use crate::workers::Workers;

/// What a gateway is made of.
pub struct Gateway {
    /// Its own options.
    pub http: HttpConfig,
    /// Where connections are served, one at least, and the way to workers from there: across NATS or in this process.
    pub places: Vec<Place>,
    /// The subjects that workers listen on.
    pub subjects: Subjects,
    /// Where what is too large for a message lies, and the modules' bytes.
    pub assets: Assets,
    /// The hosts of modules.
    pub hosts: Hosts,
    /// Where it counts.
    pub metrics: Metrics,
}

/// What the requests of one place use, and the runtime that they are served in.
type Housed = (Handle, Arc<App>);

/// The port or the socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The port.
    #[error("cannot listen on {address} for HTTP")]
    Http {
        /// The address asked for.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
}

impl From<ListenError> for Failure {
    fn from(error: ListenError) -> Self {
        Self::config(error)
    }
}

impl Gateway {
    /// Opens the port, and the socket if there shall be one, serves them until the lifecycle's shutdown, and returns the
    /// address it got.
    pub async fn start(mut self, lifecycle: &Lifecycle) -> Result<SocketAddr, ListenError> {
        let (connections, metrics) = (self.http.connections, self.metrics.clone());
        let socket = self.http.socket.take();
        let (asked, hosts) = (self.http.listen, self.hosts.clone());
        let failed = |source| ListenError::Http {
            address: asked,
            source,
        };
        let listener = Listener::bind(asked, connections.max, connections.send_timeout)
            .await
            .map_err(failed)?;
        let address = listener.address().map_err(failed)?;
        if let Door::Tokens(tokens) = &self.http.door {
            lifecycle.spawn(
                "gateway tokens",
                tokens.clone().follow(lifecycle.shutdown.clone()),
            );
        }
        let apps = self.into_apps(lifecycle);
        if let Some((config, (_, app))) = socket.zip(apps.first()) {
            let file = SocketFile::open(&config.path).await?;
            let server = SocketServer::new(file, app.clone(), &config, connections.send_timeout);
            lifecycle.spawn("gateway socket", server.run());
        }
        let site = |(runtime, app)| Site {
            runtime,
            routers: Routers::new(app),
        };
        let sites = apps.into_iter().map(site).collect();
        let server = Server::new(listener, sites, hosts, connections, metrics, lifecycle.clone());
        lifecycle.spawn("gateway listener", server.run());
        Ok(address)
    }

    /// What the requests of each place use; all are admitted by one.
    fn into_apps(self, lifecycle: &Lifecycle) -> Vec<Housed> {
        let admission = Admission::new(self.http.max_in_flight, self.http.max_buffered_mb);
        let app = |place: Place| App {
            workers: Workers::new(place.bus, self.subjects.clone(), self.http.max_run),
            stores: Stores {
                payloads: self.assets.payloads(),
                blobs: self.assets.blobs.clone(),
            },
            admission: admission.clone(),
            bounds: self.http.bounds,
            door: self.http.door.clone(),
            metrics: self.metrics.clone(),
            lifecycle: lifecycle.clone(),
        };
        let housed = |place: Place| (place.runtime.clone(), Arc::new(app(place)));
        self.places.into_iter().map(housed).collect()
    }
}
