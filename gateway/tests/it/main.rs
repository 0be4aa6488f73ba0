//! wess-gateway over real sockets and a real nats-server, one file per promise. Workers are a script.

#![allow(clippy::unwrap_used)]

mod auth;
mod bindings;
mod connections;
mod errors;
mod fleet;
mod from_zero;
mod front;
mod hosts;
mod http;
mod invoke;
mod jobs;
mod keda;
mod killed;
mod modules;
mod nats;
mod process;
mod scaler;
mod secured;
mod seed;
mod socket;
mod socket_clients;
mod socket_files;
mod support;
mod timers;
mod upload;
