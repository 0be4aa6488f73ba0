//! Bindings: a module runs for each message of a subject or of a stream. Kept in `wess-bindings`, followed by every worker.
//!
//! Invariant: NATS gives each message to one worker, by a queue group or a durable consumer of the binding's own name; no
//! two of ours agree on anything.

pub mod answer;
pub mod consumers;
pub mod fit;
mod follow;
pub mod mirror;
pub mod origin;
pub mod records;
pub mod run;
mod settle;
pub mod stats;
mod stream;
mod subject;

use std::sync::Arc;
use std::time::Duration;

use tokio_util::task::TaskTracker;
use wess_schemas::WorkerId;
use wess_schemas::limits::LimitPolicy;
use wess_schemas::subject::Subjects;
use wess_service::lifecycle::Lifecycle;
use wess_service::nats::Connection;

use crate::executor::Executors;
use crate::queue::dead::Letters;
use crate::queue::records::Records as JobRecords;
use crate::registry::Registry;
use answer::Outputs;
use consumers::Consumers;
use follow::Follower;
use mirror::Mirror;
use stats::BindingStats;

/// What running bindings needs of the worker.
pub struct Host {
    /// This worker.
    pub worker: WorkerId,
    /// Its subjects.
    pub subjects: Subjects,
    /// Its connection: outputs and acknowledgements go over the same one, in this order.
    pub connection: Connection,
    /// The way out for what guests answer.
    pub outputs: Outputs,
    /// Its modules.
    pub registry: Registry,
    /// What callers may ask.
    pub policy: LimitPolicy,
    /// Where guests run.
    pub executors: Executors,
    /// Records of messages whose guests failed.
    pub job_records: JobRecords,
    /// Where messages go that are given up.
    pub letters: Letters,
    /// Consumers of streams.
    pub consumers: Consumers,
    /// What is counted.
    pub stats: BindingStats,
    /// How long we may be silent about a message of a stream.
    pub ack_wait: Duration,
    /// Its life.
    pub lifecycle: Lifecycle,
    /// Held while anything may still go to an executor.
    pub under_way: TaskTracker,
}

impl Host {
    /// Follows the bindings, and runs what they say, until shutdown.
    pub fn serve(self, mirror: Mirror) {
        let host = Arc::new(self);
        let follower = Follower::new(Arc::clone(&host), mirror);
        let shutdown = host.lifecycle.shutdown.clone();
        host.lifecycle.spawn("bindings", async move {
            tokio::select! {
                () = shutdown.cancelled() => (),
                () = follower.run() => (),
            }
        });
    }
}
