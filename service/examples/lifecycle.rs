//! The smallest process of Wess: an admin port and one task that works until it is told to stop.
//!
//! Tests send it signals. Its task finishes at once, or, with `--stubborn`, only when it is cut.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use prometheus_client::registry::Registry;
use wess_service::admin::{self, AdminOptions, Metrics};
use wess_service::lifecycle::{Exit, Failure, Lifecycle, Signals};
use wess_service::telemetry::TelemetryOptions;

const GRACE: Duration = Duration::from_secs(60);

#[derive(Parser)]
struct Options {
    #[command(flatten)]
    admin: AdminOptions,
    #[command(flatten)]
    telemetry: TelemetryOptions,
    #[arg(long)]
    stubborn: bool,
    #[arg(long)]
    panics: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<ExitCode> {
    let options = Options::parse();
    if let Err(error) = options.telemetry.init() {
        eprintln!("{error}");
        return Ok(Exit::Config.into());
    }
    let lifecycle = Lifecycle::default();
    let exit = lifecycle
        .run(Signals::install()?, GRACE, start(&options, &lifecycle))
        .await;
    Ok(exit.into())
}

async fn start(options: &Options, lifecycle: &Lifecycle) -> Result<(), Failure> {
    let address = admin::serve(
        &options.admin,
        Metrics::new(Arc::new(Registry::default())),
        lifecycle,
    )
    .await?;
    let end = if options.stubborn {
        lifecycle.cut.clone()
    } else {
        lifecycle.shutdown.clone()
    };
    let panics = options.panics;
    lifecycle.spawn("work", async move {
        assert!(!panics, "asked to panic");
        end.cancelled().await;
    });
    lifecycle
        .announce(&[("admin", &address)])
        .map_err(Failure::internal)
}
