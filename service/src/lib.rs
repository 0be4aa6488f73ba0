//! What every process of Wess needs and no job knows: configuration, NATS, lifecycle, telemetry, the admin port.
//!
//! Knows neither Wasm nor what a subject does. Nothing here outlives the [`lifecycle::Lifecycle`] that it was given.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod admin;
pub mod assets;
pub mod bus;
pub mod config;
pub mod feed;
pub mod health;
pub mod http;
pub mod lifecycle;
pub mod nats;
pub mod objects;
pub mod payloads;
pub mod peers;
pub mod queue;
pub mod reply;
pub mod secrets;
pub mod telemetry;
pub mod trace_context;
pub mod upkeep;
