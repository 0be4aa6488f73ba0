//! What happens to a running process when its server goes and comes back.

use wess_harness::{NatsServer, eventually};
use wess_service::assets::AssetOptions;
use wess_service::health::Phase;
use wess_service::lifecycle::Lifecycle;
use wess_service::upkeep;

use crate::support::{assets, connect};

#[tokio::test]
async fn a_lost_server_shows_and_one_that_comes_back_empty_gets_its_assets_again() {
    let mut server = NatsServer::start();
    assets(&server).await;
    let connection = connect(&server).await;
    let lifecycle = Lifecycle::default();
    lifecycle.health.enter(Phase::Ready);
    upkeep::spawn(&lifecycle, &connection, AssetOptions::default());

    server.kill();
    let lost = async || lifecycle.health.readiness().reasons.get("nats").map(drop);
    eventually("the loss to show", lost).await;

    std::fs::remove_dir_all(server.store()).unwrap();
    server.restart();
    let jetstream = async_nats::jetstream::new(connection.client.clone());
    let bucket = async || jetstream.get_key_value("wess-modules").await.ok().map(drop);
    eventually("the assets", bucket).await;
    eventually("readiness", async || {
        lifecycle.health.readiness().ready.then_some(())
    })
    .await;
}
