//! The admin port answers from the start to the end of the drain.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use wess_service::admin::{AdminOptions, Metrics, serve};
use wess_service::health::Phase;
use wess_service::lifecycle::{Exit, Failure, Lifecycle, Signals};

use crate::support::http_get;

async fn start(metrics: Metrics, lifecycle: &Lifecycle) -> String {
    let address: SocketAddr = "127.0.0.1:0".parse().unwrap();
    serve(&AdminOptions { address }, metrics, lifecycle)
        .await
        .unwrap()
        .to_string()
}

fn no_metrics() -> Metrics {
    Metrics::new(Arc::new(Registry::default()))
}

#[tokio::test]
async fn readiness_follows_the_process_and_says_why_not() {
    let lifecycle = Lifecycle::default();
    let address = start(no_metrics(), &lifecycle).await;
    assert_eq!(http_get(&address, "/livez").await.0, 200);
    assert_eq!(http_get(&address, "/readyz").await.0, 503);
    lifecycle.health.enter(Phase::Ready);
    assert_eq!(http_get(&address, "/readyz").await.0, 200);
    lifecycle.health.unwell("nats", "disconnected");
    let (status, answer) = http_get(&address, "/readyz").await;
    assert_eq!(status, 503);
    assert!(
        answer.ends_with(r#"{"ready":false,"phase":"ready","reasons":{"nats":"disconnected"}}"#),
        "{answer}"
    );
}

#[tokio::test]
async fn it_answers_during_the_drain_and_ends_with_it() {
    let lifecycle = Lifecycle::default();
    let address = start(no_metrics(), &lifecycle).await;
    let (asked, shutdown) = (address.clone(), lifecycle.shutdown.clone());
    lifecycle.spawn("work", async move {
        shutdown.cancelled().await;
        let (status, answer) = http_get(&asked, "/readyz").await;
        assert!(status == 503 && answer.contains("draining"), "{answer}");
    });
    lifecycle.stop();
    let exit = lifecycle
        .run(Signals::install().unwrap(), Duration::from_secs(60), async {
            Ok(())
        })
        .await;
    assert_eq!(exit, Exit::Done);
    assert!(tokio::net::TcpStream::connect(&address).await.is_err());
}

#[tokio::test]
async fn a_scrape_shows_what_is_registered_now_and_is_open_metrics() {
    let lifecycle = Lifecycle::default();
    let (mut registry, slots) = (Registry::with_prefix("wess"), Gauge::<i64>::default());
    registry.register("slots", "Slots in use", slots.clone());
    let address = start(Metrics::new(Arc::new(registry)), &lifecycle).await;
    slots.set(2);
    let (status, answer) = http_get(&address, "/metrics").await;
    assert_eq!(status, 200);
    assert!(
        answer
            .to_lowercase()
            .contains("content-type: application/openmetrics-text; version=1.0.0"),
        "{answer}"
    );
    assert!(
        answer.contains("\nwess_slots 2\n") && answer.ends_with("# EOF\n"),
        "{answer}"
    );
}

#[tokio::test]
async fn a_taken_port_is_a_configuration_error_that_names_the_option() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    let error = serve(&AdminOptions { address }, no_metrics(), &Lifecycle::default())
        .await
        .unwrap_err();
    assert!(error.to_string().contains("--admin"), "{error}");
    assert_eq!(Failure::from(error).exit, Exit::Config);
}
