//! Where connections are served: threads with a runtime and a way to workers of their own, so that a request, its question
//! and the answer meet on one thread and wake no other.

use std::sync::Arc;

use tokio::runtime::{Builder, Handle};
use tokio::sync::{Notify, oneshot};
use wess_service::bus::{Bus, NatsBus};
use wess_service::lifecycle::{Failure, Lifecycle};
use wess_service::nats::NatsConfig;

/// One thread's runtime, and how it reaches workers.
#[derive(Clone)]
pub struct Place {
    /// Where a connection's task runs. It must live until the lifecycle is closed.
    pub runtime: Handle,
    /// The way to workers from there.
    pub bus: Arc<dyn Bus>,
}

impl Place {
    /// The runtime that this is called in.
    pub fn here(bus: Arc<dyn Bus>) -> Self {
        Self {
            runtime: Handle::current(),
            bus,
        }
    }
}

/// Starts so many threads, each with its own connection to NATS. They end when the lifecycle is closed. `nobody` is woken
/// when a request finds no worker.
pub async fn start(
    count: usize,
    nats: &NatsConfig,
    nobody: &Arc<Notify>,
    lifecycle: &Lifecycle,
) -> Result<Vec<Place>, Failure> {
    let mut places = Vec::with_capacity(count);
    for index in 0..count {
        let (nats, nobody, lifecycle) = (nats.clone(), Arc::clone(nobody), lifecycle.clone());
        let (ready, started) = oneshot::channel();
        let runtime = Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(1)
            .build()
            .map_err(Failure::internal)?;
        let serve = async move {
            let connected = nats.connect(&format!("wess-gateway-{index}")).await;
            let place = connected.map(|connection| {
                let bus = NatsBus::new(connection.client).telling(nobody);
                Place::here(Arc::new(bus))
            });
            let is_ready = place.is_ok();
            if ready.send(place).is_ok() && is_ready {
                lifecycle.closed.cancelled().await;
            }
        };
        std::thread::Builder::new()
            .name(format!("wess-http-{index}"))
            .spawn(move || runtime.block_on(serve))
            .map_err(Failure::internal)?;
        places.push(started.await.map_err(Failure::internal)??);
    }
    Ok(places)
}
