//! The worker: takes store and invoke jobs from NATS, runs guests in fresh sandboxes, answers on the reply subject.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod bindings;
pub mod call;
pub mod config;
pub mod control;
pub mod door;
mod durable;
pub mod endpoints;
pub mod executor;
mod files;
pub mod fleet;
pub mod guest;
mod memory;
mod metrics;
mod objects;
pub mod outbound;
pub mod queue;
pub mod registry;
mod secrets;
pub mod worker;

pub use config::{Config, WorkerOptions};
pub use door::Door;
pub use worker::Worker;
