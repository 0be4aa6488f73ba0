//! The worker against a real nats-server and real disks, one file per promise.

#![allow(clippy::unwrap_used)]

mod bindings;
mod bindings_streams;
mod calls;
mod chains;
mod components;
mod control;
mod discovery;
mod disk;
mod faults;
mod fleet;
mod forgery;
mod full_disk;
mod http;
mod job_clock;
mod job_faults;
mod jobs;
mod keyed;
mod large;
mod leaks;
mod lifecycle;
mod limits;
mod many_modules;
mod outbound;
mod overload;
mod propagation;
mod queued;
mod refusals;
mod registry_changes;
mod registry_faults;
mod registry_loads;
mod registry_store;
mod rig;
mod rolling;
mod secrets;
mod secured;
mod settings;
mod spill;
mod spill_taken;
mod state_and_logs;
mod storage_faults;
mod stored_chains;
mod support;
mod traces;
mod webhooks;
