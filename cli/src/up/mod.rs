//! `wess up`: a nats-server, a worker and a gateway in one process, the gateway speaking to the worker directly.
//!
//! Stops in the order that loses nothing: calls finish, worker and gateway drain, then the nats-server goes.

mod find;
mod launch;
mod nats_server;
mod secrets;
mod welcome;

use std::process::ExitCode;
use std::sync::Arc;

use async_nats::jetstream;
use prometheus_client::registry::Registry;
use wess_gateway::config::HttpConfig;
use wess_gateway::fleet::Fleet;
use wess_gateway::hosts::Hosts;
use wess_gateway::levels::Levels;
use wess_gateway::places::Place;
use wess_gateway::{Gateway, Metrics, backlog};
use wess_service::assets::ensure_assets;
use wess_service::bus::Bus;
use wess_service::config::{ConfigError, Problems};
use wess_service::lifecycle::{Failure, Lifecycle, Signals};
use wess_service::nats::{DEFAULT_URL, NatsOptions};
use wess_service::telemetry::LogFormat;
use wess_service::{admin, upkeep};
use wess_worker::{Config, Worker};

pub use find::find;
pub use launch::Settings;
pub use nats_server::NatsServer;

use crate::args::UpArgs;
use crate::exit::Exit;
use crate::up::nats_server::StartFailed;
use crate::up::welcome::Addresses;

/// `wess up`.
pub fn run(args: UpArgs) -> ExitCode {
    match args.telemetry.init().and_then(|()| validate(&args)) {
        Ok(configs) => serve(&args, configs),
        Err(mistakes) => {
            eprintln!("error: {mistakes}");
            Exit::Config.into()
        }
    }
}

/// Every mistake of every part is told at once, before anything is opened.
fn validate(args: &UpArgs) -> Result<(Config, HttpConfig), ConfigError> {
    let mut problems = Problems::default();
    let mut options = args.worker.clone();
    options.registry.data = args.worker.registry.data.join("worker");
    if !args.nats.is_given() && !args.nats_listen.ip().is_loopback() {
        problems.add(
            "--nats-listen",
            "is not loopback, and this server asks for no credentials: give one by --nats",
        );
    }
    let worker = problems.take(options.validate(&args.nats));
    let http = problems.take(args.http_options.validate("--http", args.http));
    problems.finish()?;
    Ok(worker
        .zip(http)
        .expect("what could not be taken is a problem, and problems have returned"))
}

fn serve(args: &UpArgs, configs: (Config, HttpConfig)) -> ExitCode {
    let grace = configs.0.grace;
    // A request within this process passes through gateway and worker in one poll: more than a thread's usual stack where
    // nothing is optimised.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_stack_size(8 << 20)
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start a runtime: {error}");
            return Exit::Internal.into();
        }
    };
    runtime.block_on(async {
        let Ok(signals) = Signals::install() else {
            return Exit::Internal.into();
        };
        let lifecycle = Lifecycle::default();
        lifecycle
            .run(signals, grace, start(args, configs, &lifecycle))
            .await
            .into()
    })
}

async fn start(
    args: &UpArgs,
    (mut config, http): (Config, HttpConfig),
    lifecycle: &Lifecycle,
) -> Result<Worker, Failure> {
    let options = reach_nats(args, lifecycle).await?;
    config.nats = options.validate()?;
    if args.worker.secrets.file.is_none() && !args.nats.is_given() {
        config.secrets = secrets::keys_in(&args.worker.registry.data).map_err(Failure::config)?;
    }
    let mut registry = Registry::default();
    let (nats, assets) = (config.nats.clone(), config.assets.clone());
    let worker = Worker::start(config, lifecycle, &mut registry).await?;
    let connection = nats.connect("wess-gateway").await?;
    let jetstream = jetstream::new(connection.client.clone());
    let fleet = Fleet::listen(&connection, &nats.subjects, lifecycle)
        .await
        .map_err(Failure::unavailable)?;
    let made = ensure_assets(&jetstream, &assets).await?;
    let bindings = made.bindings.clone();
    let hosts = Hosts::follow(&connection, made.modules.clone(), &http.module_hosts, lifecycle);
    let gateway = Gateway {
        http,
        hosts,
        places: places(&worker),
        subjects: nats.subjects.clone(),
        assets: made,
        metrics: Metrics::register(&mut registry),
    };
    upkeep::spawn(lifecycle, &connection, assets);
    let backlog = backlog::follow(&connection, jetstream, nats.subjects, bindings, lifecycle);
    Levels::register(&mut registry).show(backlog, fleet.state());
    let http = gateway.start(lifecycle).await?;
    let admin = admin::serve(&args.admin, admin::Metrics::new(Arc::new(registry)), lifecycle).await?;
    let addresses = Addresses {
        http: format!("http://{http}"),
        admin: format!("http://{admin}"),
        nats: options.urls.unwrap_or_else(|| DEFAULT_URL.into()),
        socket: args.http_options.socket.path().map(|path| path.to_string()),
    };
    addresses.announce(lifecycle).map_err(Failure::internal)?;
    if args.telemetry.log_format == LogFormat::Human {
        eprint!("{}", addresses.what_to_try());
    }
    Ok(worker)
}

/// Connections are served on the executors' own threads.
fn places(worker: &Worker) -> Vec<Place> {
    let door: Arc<dyn Bus> = Arc::new(worker.door());
    let place = |runtime| Place {
        runtime,
        bus: Arc::clone(&door),
    };
    worker.runtimes().map(place).collect()
}

impl From<StartFailed> for Failure {
    fn from(error: StartFailed) -> Self {
        match error {
            StartFailed::Folder { .. } | StartFailed::InUse { .. } => Self::config(error),
            StartFailed::Spawn(_) | StartFailed::Ended { .. } | StartFailed::Silent => {
                Self::unavailable(error)
            }
        }
    }
}

/// The server that was named, else one of our own, which runs until all work is over.
async fn reach_nats(args: &UpArgs, lifecycle: &Lifecycle) -> Result<NatsOptions, Failure> {
    if args.nats.is_given() {
        return Ok(args.nats.clone());
    }
    let settings = Settings {
        binary: find(args.nats_server.as_deref()).map_err(Failure::config)?,
        folder: args.worker.registry.data.join("nats"),
        listen: args.nats_listen,
    };
    let server = NatsServer::start(settings).await?;
    let url = server.url();
    tracing::info!(url, pid = server.pid(), "started a nats-server");
    let closed = lifecycle.closed.clone();
    lifecycle.spawn_background("nats-server", async move {
        if let Err(error) = server.keep(closed).await {
            tracing::error!(%error, "the nats-server stays down");
        }
    });
    Ok(NatsOptions {
        urls: Some(url),
        ..args.nats.clone()
    })
}
