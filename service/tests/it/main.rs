//! wess-service against a real nats-server and real signals, one file per promise.

#![allow(clippy::unwrap_used)]

mod admin;
mod assets;
mod bus;
mod connection;
mod credentials;
mod inboxes;
mod leave;
mod objects;
mod payloads;
mod signals;
mod support;
mod tls;
mod upkeep;
