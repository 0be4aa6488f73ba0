//! The admin port: `/livez`, `/readyz` and `/metrics`, for kubelets and Prometheus.
//!
//! Holds no work: it answers until the process has drained, so that the drain can be watched.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;

use crate::health::Health;
use crate::lifecycle::Lifecycle;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The admin option of every server's command line.
#[derive(Debug, Clone, clap::Args)]
pub struct AdminOptions {
    /// Where to serve /livez, /readyz and /metrics; port 0 takes a free one.
    #[arg(
        long = "admin",
        env = "WESS_ADMIN",
        default_value = "127.0.0.1:9090",
        value_name = "ADDR"
    )]
    pub address: SocketAddr,
}

/// The admin port could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} (--admin)")]
pub struct AdminError {
    /// The address asked for.
    pub address: SocketAddr,
    source: std::io::Error,
}

impl From<AdminError> for crate::lifecycle::Failure {
    fn from(error: AdminError) -> Self {
        Self::config(error)
    }
}

/// What a scrape shows.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
}

impl Metrics {
    /// Shows what is registered.
    pub fn new(registry: Arc<Registry>) -> Self {
        Self { registry }
    }
}

/// Opens the port, serves it until the lifecycle is closed, and returns the address it got.
pub async fn serve(
    options: &AdminOptions,
    metrics: Metrics,
    lifecycle: &Lifecycle,
) -> Result<SocketAddr, AdminError> {
    let failed = |source| AdminError {
        address: options.address,
        source,
    };
    let listener = TcpListener::bind(options.address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let router = router(lifecycle.health.clone(), metrics);
    let closed = lifecycle.closed.clone();
    lifecycle.spawn_background("admin", async move {
        let server = axum::serve(listener, router).with_graceful_shutdown(closed.cancelled_owned());
        if let Err(error) = server.await {
            tracing::error!(%error, "the admin server ended");
        }
    });
    Ok(address)
}

fn router(health: Health, metrics: Metrics) -> Router {
    let readiness = Router::new().route("/readyz", get(ready)).with_state(health);
    let scrape = Router::new().route("/metrics", get(scrape)).with_state(metrics);
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .merge(readiness)
        .merge(scrape)
}

async fn ready(State(health): State<Health>) -> Response {
    let readiness = health.readiness();
    let status = if readiness.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(readiness)).into_response()
}

async fn scrape(State(metrics): State<Metrics>) -> Response {
    let mut text = String::new();
    match encode(&mut text, &metrics.registry) {
        Ok(()) => ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
