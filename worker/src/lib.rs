//! The worker: takes store and invoke jobs from NATS, runs guests in fresh sandboxes, answers on the reply subject.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod guest;
