//! KEDA's external scaler: gRPC on a port of its own, which tells how much there is to do and pushes when that begins.
//!
//! Tells numbers only and takes no orders, so it asks nobody who they are. Bounded in connections and streams.

pub mod codec;
mod load;
mod methods;
pub mod wire;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use wess_service::lifecycle::{Failure, Lifecycle};

pub use load::LoadWatch;

use crate::listener::Listener;
use crate::scaler::methods::Methods;

/// KEDA has one operator and one metrics server, each with a connection for each trigger.
const MAX_CONNECTIONS: usize = 64;
/// Requests at once on one connection: a stream for each ScaledObject, and polls.
const MAX_STREAMS: u32 = 64;
/// How often a silent client is asked whether it is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// How long it may take to say so, and to acknowledge what it was sent.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a stop waits for clients to say goodbye. Answers are made at once: whoever takes longer does not listen.
const FAREWELL: Duration = Duration::from_secs(1);

/// The option of a gateway that tells KEDA.
#[derive(Debug, Clone, clap::Args)]
pub struct ScalerOptions {
    /// Where to serve KEDA's external scaler, gRPC without TLS; port 0 takes a free one. Not served unless given.
    // Named, as the admin option beside it has an `address` too.
    #[arg(id = "scaler", long = "scaler", env = "WESS_SCALER", value_name = "ADDR")]
    pub address: Option<SocketAddr>,
}

/// The port could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} (--scaler)")]
pub struct ScalerError {
    /// The address asked for.
    pub address: SocketAddr,
    source: std::io::Error,
}

impl From<ScalerError> for Failure {
    fn from(error: ScalerError) -> Self {
        Self::config(error)
    }
}

impl ScalerOptions {
    /// Opens the port if there is to be one, serves it until the lifecycle's shutdown, and returns the address it got.
    pub async fn serve(
        &self,
        load: LoadWatch,
        lifecycle: &Lifecycle,
    ) -> Result<Option<SocketAddr>, ScalerError> {
        let Some(address) = self.address else {
            return Ok(None);
        };
        let failed = |source| ScalerError { address, source };
        let listener = Listener::bind(address, MAX_CONNECTIONS, PATIENCE)
            .await
            .map_err(failed)?;
        let bound = listener.address().map_err(failed)?;
        let methods = Methods {
            load,
            shutdown: lifecycle.shutdown.clone(),
        };
        lifecycle.spawn("scaler listener", accept(listener, methods, lifecycle.clone()));
        Ok(Some(bound))
    }
}

async fn accept(listener: Listener, methods: Methods, lifecycle: Lifecycle) {
    let shutdown = lifecycle.shutdown.clone();
    while let Some((stream, room)) = shutdown.run_until_cancelled(listener.accept()).await {
        let connection = converse(stream, room, methods.clone(), lifecycle.clone());
        lifecycle.spawn_brief("scaler connection", connection);
    }
}

async fn converse(stream: TcpStream, room: OwnedSemaphorePermit, methods: Methods, lifecycle: Lifecycle) {
    let _room = room;
    let (shutdown, cut) = (lifecycle.shutdown.clone(), lifecycle.cut.clone());
    let service = service_fn(move |request| {
        let answer = methods.clone().answer(request);
        async { Ok::<_, Infallible>(answer.await) }
    });
    let connection = http2::Builder::new(Tracked(lifecycle))
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(PATIENCE)
        .max_concurrent_streams(MAX_STREAMS)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            let farewell = tokio::time::timeout(FAREWELL, cut.run_until_cancelled(connection));
            farewell.await.ok().flatten().unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a scaler connection ended");
    }
}

/// Requests of one connection as tasks that are joined.
#[derive(Clone)]
struct Tracked(Lifecycle);

impl<F> Executor<F> for Tracked
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, request: F) {
        self.0.spawn_brief("scaler request", async {
            request.await;
        });
    }
}
