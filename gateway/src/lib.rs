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
pub mod front;
pub mod hosts;
mod jobs;
mod large;
pub mod levels;
mod linger;
mod listener;
mod metrics;
pub mod problem;
mod router;
mod routes;
pub mod scaler;
mod server;
pub mod socket;
mod workers;

use std::net::SocketAddr;
use std::sync::Arc;

use wess_schemas::subject::Subjects;
use wess_service::assets::Assets;
use wess_service::bus::Bus;
use wess_service::lifecycle::{Failure, Lifecycle};

pub use metrics::Metrics;

use crate::admission::Admission;
use crate::app::App;
use crate::auth::Door;
use crate::config::HttpConfig;
use crate::hosts::Hosts;
use crate::large::Stores;
use crate::listener::Listener;
use crate::router::Sites;
use crate::server::Server;
use crate::socket::{SocketError, SocketFile, SocketServer};
use crate::workers::Workers;

/// What a gateway is made of.
pub struct Gateway {
    /// Its own options.
    pub http: HttpConfig,
    /// The way to workers, across NATS or in this process.
    pub bus: Arc<dyn Bus>,
    /// The subjects that workers listen on.
    pub subjects: Subjects,
    /// Where what is too large for a message lies, and the modules' bytes.
    pub assets: Assets,
    /// The hosts of modules.
    pub hosts: Hosts,
    /// Where it counts.
    pub metrics: Metrics,
}

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
        let app = Arc::new(self.into_app(lifecycle));
        if let Some(config) = socket {
            let file = SocketFile::open(&config.path).await?;
            let server = SocketServer::new(file, app.clone(), &config, connections.send_timeout);
            lifecycle.spawn("gateway socket", server.run());
        }
        if let Door::Tokens(tokens) = &app.door {
            lifecycle.spawn(
                "gateway tokens",
                tokens.clone().follow(lifecycle.shutdown.clone()),
            );
        }
        let server = Server::new(
            listener,
            Sites::new(app, hosts),
            connections,
            metrics,
            lifecycle.clone(),
        );
        lifecycle.spawn("gateway listener", server.run());
        Ok(address)
    }

    fn into_app(self, lifecycle: &Lifecycle) -> App {
        App {
            workers: Workers::new(self.bus, self.subjects, self.http.max_run),
            stores: Stores {
                payloads: self.assets.payloads(),
                blobs: self.assets.blobs,
            },
            admission: Admission::new(self.http.max_in_flight, self.http.max_buffered_mb),
            bounds: self.http.bounds,
            door: self.http.door,
            metrics: self.metrics,
            lifecycle: lifecycle.clone(),
        }
    }
}
