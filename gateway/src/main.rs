//! The process `wess-gateway`: parse, start, wait, drain, exit code.

use std::fmt::Display;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use prometheus_client::registry::Registry;
use wess_gateway::config::{Cli, Config};
use wess_gateway::fleet::Fleet;
use wess_gateway::front::Front;
use wess_gateway::hosts::Hosts;
use wess_gateway::levels::Levels;
use wess_gateway::scaler::LoadWatch;
use wess_gateway::{Gateway, Metrics, backlog, places};
use wess_service::assets::ensure_assets;
use wess_service::lifecycle::{Exit, Failure, Lifecycle, Signals};
use wess_service::queue::timers;
use wess_service::{admin, upkeep};

/// A request allocates in many small pieces.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() {
                Exit::Config
            } else {
                Exit::Done
            }
            .into();
        }
    };
    let configured = cli.telemetry.init().and_then(|()| cli.validate());
    let config = match configured {
        Ok(config) => config,
        Err(error) => {
            eprintln!("{error}");
            return Exit::Config.into();
        }
    };
    let Ok(signals) = Signals::install() else {
        return Exit::Internal.into();
    };
    let (lifecycle, grace) = (Lifecycle::default(), Duration::from_secs(cli.grace_s));
    lifecycle
        .run(signals, grace, start(&cli, config, &lifecycle))
        .await
        .into()
}

async fn start(cli: &Cli, config: Config, lifecycle: &Lifecycle) -> Result<(), Failure> {
    let mut registry = Registry::default();
    let (metrics, levels) = (Metrics::register(&mut registry), Levels::register(&mut registry));
    config.nats.register(&mut registry);
    let admin = admin::serve(&cli.admin, admin::Metrics::new(Arc::new(registry)), lifecycle).await?;
    let connection = config.nats.connect("wess-gateway").await?;
    let jetstream = async_nats::jetstream::new(connection.client.clone());
    let assets = ensure_assets(&jetstream, &config.assets).await?;
    upkeep::spawn(lifecycle, &connection, config.assets.clone());
    let subjects = config.nats.subjects.clone();
    let fleet = Fleet::listen(&connection, &subjects, lifecycle).await;
    let (fleet, nobody) = (fleet.map_err(Failure::unavailable)?, Arc::default());
    timers::spawn(lifecycle, jetstream.clone(), &assets.queue, &subjects);
    let bindings = assets.bindings.clone();
    let backlog = backlog::follow(&connection, jetstream, subjects.clone(), bindings, lifecycle);
    levels.show(backlog.clone(), fleet.state());
    let load = LoadWatch::new(backlog, fleet.state());
    let hosts = Hosts::follow(
        &connection,
        assets.modules.clone(),
        &config.http.module_hosts,
        lifecycle,
    );
    let places = places::start(cli.threads(), &config.nats, &nobody, lifecycle).await?;
    let gateway = Gateway {
        http: config.http,
        hosts,
        places,
        subjects,
        assets,
        metrics: metrics.clone(),
    };
    let front = Front {
        nats: config.nats,
        client: connection.client,
        assets: config.assets,
        fleet,
        nobody,
        metrics,
    };
    front.start(lifecycle).await?;
    let http = gateway.start(lifecycle).await?;
    let scaler = cli.scaler.serve(load, lifecycle).await?;
    let mut facts: Vec<(&str, &dyn Display)> = vec![("http", &http), ("admin", &admin)];
    facts.extend(scaler.iter().map(|address| ("scaler", address as &dyn Display)));
    let socket = cli.http.socket.path();
    facts.extend(socket.iter().map(|path| ("socket", path as &dyn Display)));
    lifecycle.announce(&facts).map_err(Failure::internal)
}
