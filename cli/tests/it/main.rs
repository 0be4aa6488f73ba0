//! The command `wess` as its users meet it: as a process, by what it prints and what it ends with.

#![allow(clippy::unwrap_used)]

mod bench;
mod bindings;
mod calls;
mod command_line;
mod http;
mod jobs;
mod jobs_run;
mod modules;
mod socket;
mod up;
mod web;
mod wess;
