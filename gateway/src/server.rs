//! The connections of the HTTP port: bounded in patience, drained at shutdown, cut at the second signal.
//!
//! A client that goes away takes its request with it: the request's future is dropped.

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::OwnedSemaphorePermit;
use wess_service::lifecycle::Lifecycle;

use crate::config::ConnectionBounds;
use crate::hosts::{Hosted, Hosts};
use crate::listener::{Listener, Peer};
use crate::metrics::Metrics;
use crate::router::Routers;

/// Room for a request's head.
const MAX_HEAD_BYTES: usize = 32 * 1024;

/// A place where connections are served.
pub struct Site {
    /// Its thread's runtime.
    pub runtime: Handle,
    /// What it serves.
    pub routers: Routers,
}

/// Serves a listener's connections.
pub struct Server {
    listener: Listener,
    sites: Vec<Site>,
    hosts: Hosts,
    metrics: Metrics,
    lifecycle: Lifecycle,
    http: http1::Builder,
}

impl Server {
    /// Serves `listener` at `sites`, one at least, in turn; requests for `hosts` go to their modules.
    pub fn new(
        listener: Listener,
        sites: Vec<Site>,
        hosts: Hosts,
        bounds: ConnectionBounds,
        metrics: Metrics,
        lifecycle: Lifecycle,
    ) -> Self {
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(bounds.head_timeout)
            .max_buf_size(MAX_HEAD_BYTES);
        Self {
            listener,
            sites,
            hosts,
            metrics,
            lifecycle,
            http,
        }
    }

    /// Accepts until shutdown. The connections are tasks of the lifecycle, which waits for them.
    pub async fn run(self) {
        let shutdown = self.lifecycle.shutdown.clone();
        let mut sites = self.sites.iter().cycle();
        while let Some((stream, room)) = shutdown.run_until_cancelled(self.listener.accept()).await {
            let Some(site) = sites.next() else { return };
            // Its readiness is told by the runtime that it is served in.
            let _there = site.runtime.enter();
            match stream.into_std().and_then(TcpStream::from_std) {
                Ok(stream) => {
                    let connection = self.connection(stream, room, &site.routers);
                    self.lifecycle.spawn_brief("connection", connection);
                }
                Err(error) => tracing::warn!(%error, "cannot serve a connection"),
            }
        }
    }

    fn connection(
        &self,
        stream: TcpStream,
        room: OwnedSemaphorePermit,
        routers: &Routers,
    ) -> impl Future<Output = ()> + use<> {
        let counted = self.metrics.connection();
        let (shutdown, cut) = (self.lifecycle.shutdown.clone(), self.lifecycle.cut.clone());
        let peer = stream.peer_addr().ok().map(Peer);
        let own = TowerToHyperService::new(routers.own.clone());
        let hosted = TowerToHyperService::new(routers.hosted.clone());
        let hosts = self.hosts.clone();
        let service = service_fn(move |mut request: Request<Incoming>| {
            if let Some(peer) = peer {
                request.extensions_mut().insert(peer);
            }
            match hosts.module_for(&request) {
                Some(module) => {
                    request.extensions_mut().insert(Hosted(module));
                    hosted.call(request)
                }
                None => own.call(request),
            }
        });
        let connection = self.http.serve_connection(TokioIo::new(stream), service);
        async move {
            let _held = (counted, room);
            let mut connection = std::pin::pin!(connection);
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = shutdown.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    cut.run_until_cancelled(connection).await.unwrap_or(Ok(()))
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection ended");
            }
        }
    }
}
