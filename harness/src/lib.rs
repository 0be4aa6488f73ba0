//! What tests of every crate need: a real nats-server, our own binaries as processes, guests, waiting for state.
//!
//! Panics instead of returning errors, saying what was waited for and what the process logged. Ends every process
//! that it started, by its id.

mod environment;
mod generated;
mod guests;
mod nats_cluster;
mod nats_server;
mod process;
mod proxy;
mod schema;
mod wait;

pub use environment::{number, wasmtime};
pub use generated::generated;
pub use guests::guest;
pub use nats_cluster::NatsCluster;
pub use nats_server::{NatsServer, NatsServerBuilder};
pub use process::{Process, Signal, binary};
pub use proxy::Proxy;
pub use schema::mismatch;
pub use wait::{DEADLINE, eventually};
