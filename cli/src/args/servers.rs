//! The flags of the commands that run for longer: `up`, `bench`, and the processes that those start.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use wess_gateway::config::HttpOptions;
use wess_schemas::subject::Prefix;
use wess_service::admin::AdminOptions;
use wess_service::nats::NatsOptions;
use wess_service::telemetry::TelemetryOptions;
use wess_worker::WorkerOptions;

use super::{Output, Peer};

/// `wess up`.
#[derive(Args)]
#[command(after_help = "\
Examples:
  wess up                                             everything on this machine, data in ./wess-data
  wess up --data /var/lib/wess --http 127.0.0.1:8000
  wess up --http 127.0.0.1:0 --admin 127.0.0.1:0 --nats-listen 127.0.0.1:0
  wess up --nats nats://nats.example:4222 --nats-creds wess.creds
  wess up --socket /run/wess.sock                     the seed protocol on a Unix socket as well
Prints one line on stdout when it can answer: ready http=URL admin=URL nats=URL, with socket=PATH if there is one
SIGTERM or Ctrl-C lets calls finish and stops everything; a second one cuts them short.")]
pub struct UpArgs {
    #[command(flatten)]
    pub admin: AdminOptions,
    /// Where to serve HTTP; port 0 takes a free one.
    #[arg(
        long,
        env = "WESS_HTTP",
        default_value = "127.0.0.1:8080",
        value_name = "ADDR",
        help_heading = "HTTP"
    )]
    pub http: SocketAddr,
    #[command(flatten)]
    pub http_options: HttpOptions,
    #[command(flatten)]
    pub worker: WorkerOptions,
    /// Where the nats-server that is started listens; port 0 takes a free one.
    #[arg(
        long,
        env = "WESS_NATS_LISTEN",
        default_value = "127.0.0.1:4222",
        value_name = "ADDR",
        help_heading = "NATS"
    )]
    pub nats_listen: SocketAddr,
    /// Which nats-server to start; else one is looked for on PATH and where scripts/setup installs it.
    #[arg(long, env = "WESS_NATS_SERVER", value_name = "FILE", help_heading = "NATS")]
    pub nats_server: Option<PathBuf>,
    #[command(flatten)]
    pub nats: NatsOptions,
    #[command(flatten)]
    pub telemetry: TelemetryOptions,
}

/// `wess bench`.
#[derive(Args)]
#[command(after_help = "\
Examples:
  wess bench
  wess bench --scenario socket                        the seed protocol of `wess up --socket`
  wess bench --scenario http                          a component that serves HTTP, beside `wasmtime serve`
  wess bench --scenario tail                          what short calls notice of guests that burn
  wess bench --scenario http --peer 'wash dev=http://127.0.0.1:8000/'
  wess bench --scenario cold                          first answers after a restart
  wess bench --scenario many --modules 10000
  wess bench --scenario overload --seconds 30
  wess bench --seconds 20 -o json > bench.json
  setsid sh -c 'echo -19 > /proc/self/autogroup; exec wess bench'     shielded from other work
It starts a nats-server, an echo and a worker of its own, in a temporary folder, and leaves nothing.
Each is measured in turn, several times; the medians are shown.")]
pub struct BenchArgs {
    /// What to measure.
    #[arg(long, value_enum, default_value_t, value_name = "WHAT")]
    pub scenario: Scenario,
    /// How long to measure calls in all, in seconds; starting, storing and restarting come on top.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(4..=3600))]
    pub seconds: u64,
    /// How often to measure each case.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(3..=99))]
    pub rounds: u64,
    /// How many modules to store; 1000 unless told, 50 for --scenario cold, 10000 for many.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub modules: Option<u64>,
    /// How many executors the worker has; one per core unless told.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pub executors: Option<u16>,
    /// Measure behind this server, which asks for no credentials; then no modules are stored in numbers.
    #[arg(long, value_name = "URL")]
    pub nats: Option<String>,
    /// Which nats-server to start.
    #[arg(long, env = "WESS_NATS_SERVER", value_name = "FILE")]
    pub nats_server: Option<PathBuf>,
    /// Wasmtime's command line, for --scenario http.
    #[arg(long, env = "WESS_WASMTIME", value_name = "FILE")]
    pub wasmtime: Option<PathBuf>,
    /// Measure this responder as well; with its process, what that takes too. May be given again. For calls it is a subject behind --nats, where it answers in
    /// upper case; for http a URL, where the same component answers.
    #[arg(long = "peer", value_name = "NAME=PLACE[@PID]")]
    pub peers: Vec<Peer>,
    /// For people, or for programs.
    #[arg(
        long,
        short,
        env = "WESS_OUTPUT",
        value_enum,
        default_value_t,
        value_name = "FORM"
    )]
    pub output: Output,
    /// Print the tables of docs/performance.md.
    #[arg(long, conflicts_with = "output")]
    pub markdown: bool,
}

impl BenchArgs {
    /// How many modules to store.
    pub fn modules(&self) -> u64 {
        self.modules.unwrap_or(match self.scenario {
            Scenario::Cold => 50,
            Scenario::Many => 10_000,
            _ => 1000,
        })
    }
}

/// What `wess bench` measures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// A worker behind NATS, against a bare echo there; then what many modules cost.
    #[default]
    Calls,
    /// The Unix socket of `wess up`, against a bare axum echo over TCP.
    Socket,
    /// A component that serves HTTP, against `wasmtime serve`; a plugin behind a gateway, against an echo there.
    Http,
    /// Kinds of guests and calls beside each other, and beside the bare echo.
    Guests,
    /// A guest that computes, on one executor and on two, whatever --executors says.
    Scaling,
    /// Short calls beside guests that burn for long.
    Tail,
    /// Instances that serve several calls, against fresh ones and the bare echo.
    Reuse,
    /// A module's first answer after the worker was started again, and a new one's, against its compilation.
    Cold,
    /// Thousands of modules: start, memory, and calls to any of them against calls to one.
    Many,
    /// Three times what a worker can do, offered without waiting for answers.
    Overload,
    /// What a worker holds: idle, for each small module, for each guest that waits, and over a million calls.
    Memory,
}

/// `wess child`.
#[derive(Args)]
pub struct ChildArgs {
    /// Whose end is ours.
    #[arg(long)]
    pub parent: i32,
    /// Which binary to become.
    pub binary: PathBuf,
    /// Its arguments.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub arguments: Vec<OsString>,
}

/// `wess bench-axum`.
#[derive(Args)]
pub struct BenchAxumArgs {
    /// Where.
    pub listen: SocketAddr,
}

/// `wess bench-echo`.
#[derive(Args)]
pub struct BenchEchoArgs {
    /// Where.
    pub nats: String,
    /// What to answer.
    pub subject: String,
    /// Stand in a worker's place, for gateways of this prefix.
    #[arg(long)]
    pub as_worker_of: Option<Prefix>,
}
