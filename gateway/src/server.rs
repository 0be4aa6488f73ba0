//! The listener and its connections: bounded in number and in patience, drained at shutdown, cut at the second signal.
//!
//! A client that goes away takes its request with it: the request's future is dropped.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wess_service::lifecycle::Lifecycle;

use crate::config::ConnectionBounds;
use crate::metrics::Metrics;

/// How long to leave the listener alone after it failed, mostly for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Room for a request's head.
const MAX_HEAD_BYTES: usize = 32 * 1024;

/// Serves a listener's connections.
pub struct Server {
    listener: TcpListener,
    router: Router,
    bounds: ConnectionBounds,
    metrics: Metrics,
    lifecycle: Lifecycle,
    room: Arc<Semaphore>,
    http: http1::Builder,
}

impl Server {
    /// Serves `router` on `listener`.
    pub fn new(
        listener: TcpListener,
        router: Router,
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
            router,
            bounds,
            metrics,
            lifecycle,
            room: Arc::new(Semaphore::new(bounds.max)),
            http,
        }
    }

    /// Accepts until shutdown. The connections are tasks of the lifecycle, which waits for them.
    pub async fn run(self) {
        let shutdown = self.lifecycle.shutdown.clone();
        while let Some((stream, room)) = shutdown.run_until_cancelled(self.accept()).await {
            let connection = self.connection(stream, room);
            self.lifecycle.spawn_brief("connection", connection);
        }
    }

    /// Waits for room first: a connection beyond the bound stays in the kernel's queue.
    async fn accept(&self) -> (TcpStream, OwnedSemaphorePermit) {
        loop {
            let room = self
                .room
                .clone()
                .acquire_owned()
                .await
                .expect("nobody closes the semaphore");
            match self
                .listener
                .accept()
                .await
                .and_then(|(stream, _)| self.prepare(stream))
            {
                Ok(stream) => return (stream, room),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Without `TCP_NODELAY`, an answer in two segments waits for the client's delayed acknowledgement: 40 ms.
    fn prepare(&self, stream: TcpStream) -> io::Result<TcpStream> {
        stream.set_nodelay(true)?;
        #[cfg(target_os = "linux")]
        SockRef::from(&stream).set_tcp_user_timeout(Some(self.bounds.send_timeout))?;
        Ok(stream)
    }

    fn connection(&self, stream: TcpStream, room: OwnedSemaphorePermit) -> impl Future<Output = ()> + use<> {
        let counted = self.metrics.connection();
        let (shutdown, cut) = (self.lifecycle.shutdown.clone(), self.lifecycle.cut.clone());
        let service = TowerToHyperService::new(self.router.clone());
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
