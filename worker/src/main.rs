//! The process `wess-worker`: parse, start, wait, drain, exit code.

use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use prometheus_client::registry::Registry;
use wess_service::admin::{self, AdminOptions, Metrics};
use wess_service::lifecycle::{Exit, Failure, Lifecycle, Signals};
use wess_service::nats::NatsOptions;
use wess_service::telemetry::TelemetryOptions;
use wess_worker::{Config, Worker, WorkerOptions};

/// A call allocates in many small pieces; this takes a seventh less time over them than the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Takes store and invoke jobs from NATS and runs each in a fresh sandbox.
#[derive(Parser)]
#[command(name = "wess-worker", version)]
struct Options {
    #[command(flatten)]
    admin: AdminOptions,
    #[command(flatten)]
    worker: WorkerOptions,
    #[command(flatten)]
    nats: NatsOptions,
    #[command(flatten)]
    telemetry: TelemetryOptions,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<ExitCode> {
    let options = match Options::try_parse() {
        Ok(options) => options,
        Err(refused) => {
            refused.print()?;
            return Ok(if refused.use_stderr() {
                Exit::Config
            } else {
                Exit::Done
            }
            .into());
        }
    };
    let config = match options
        .telemetry
        .init()
        .and_then(|()| options.worker.validate(&options.nats))
    {
        Ok(config) => config,
        Err(mistakes) => {
            eprintln!("{mistakes}");
            return Ok(Exit::Config.into());
        }
    };
    let lifecycle = Lifecycle::default();
    let grace = config.grace;
    let exit = lifecycle
        .run(
            Signals::install()?,
            grace,
            start(config, &options.admin, &lifecycle),
        )
        .await;
    Ok(exit.into())
}

async fn start(config: Config, admin: &AdminOptions, lifecycle: &Lifecycle) -> Result<Worker, Failure> {
    let mut metrics = Registry::default();
    let worker = Worker::start(config, lifecycle, &mut metrics).await?;
    let address = admin::serve(admin, Metrics::new(Arc::new(metrics)), lifecycle).await?;
    lifecycle
        .announce(&[
            ("admin", &format_args!("http://{address}")),
            ("worker", worker.id()),
        ])
        .map_err(Failure::internal)?;
    Ok(worker)
}
