//! The command `wess`: parse, do, exit. Stores and calls modules over NATS or HTTP, starts Wess, measures it.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod args;
mod bench;
mod child;
mod commands;
mod exit;
mod fault;
mod input;
mod output;
mod settings;
mod transport;
mod up;

use std::process::ExitCode;

use clap::FromArgMatches;

use crate::args::{Cli, Command};

/// `up` runs guests, whose calls allocate in many small pieces: see docs/decisions.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let matches = args::grammar().get_matches();
    match Cli::from_arg_matches(&matches)
        .unwrap_or_else(|error| error.exit())
        .command
    {
        Command::Up(args) => up::run(*args),
        Command::Child(args) => child::become_it(&args),
        Command::Bench(args) => bench::run(args),
        Command::BenchEcho(args) => bench::echo(args),
        Command::BenchAxum(args) => bench::axum(args),
        Command::Completions(args) => commands::completions(&args),
        Command::Store(args) => commands::run(*args),
        Command::Configure(args) => commands::run(*args),
        Command::Invoke(args) => commands::run(args),
        Command::Chain(args) => commands::run(args),
        Command::Ls(args) => commands::run(args),
        Command::Describe(args) => commands::run(args),
        Command::Tag(args) => commands::run(args),
        Command::Rm(args) => commands::run(args),
        Command::Jobs(args) => commands::jobs(*args),
        Command::Dead(args) => commands::dead(args),
        Command::Bind(args) => commands::run(*args),
        Command::Bindings(args) => commands::run(args),
        Command::Unbind(args) => commands::run(args),
        Command::Seal(args) => commands::seal::run(*args),
    }
}
