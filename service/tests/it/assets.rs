//! Every process ensures the assets at the same time; none of them changes what is there.

use std::time::Duration;

use async_nats::jetstream::kv;
use futures_util::future::try_join_all;
use wess_harness::NatsServer;
use wess_schemas::subject::MODULES_BUCKET;
use wess_service::assets::{AssetOptions, ensure_assets};
use wess_service::lifecycle::{Exit, Failure};

use crate::support::{assets, config, connect, jetstream};

#[tokio::test]
async fn many_processes_ensure_the_assets_at_once() {
    let server = NatsServer::start();
    let mut contexts = Vec::new();
    for _ in 0..8 {
        contexts.push(jetstream(&server).await);
    }
    let options = AssetOptions::default();
    try_join_all(contexts.iter().map(|context| ensure_assets(context, &options)))
        .await
        .unwrap();
}

#[tokio::test]
async fn assets_have_the_settings_that_the_contract_states() {
    let server = NatsServer::start();
    let assets = assets(&server).await;
    assert_eq!(assets.modules.status().await.unwrap().history(), 5);
    assert_eq!(assets.state.status().await.unwrap().history(), 1);
    let context = jetstream(&server).await;
    let max_age = async |stream| {
        context
            .get_stream(stream)
            .await
            .unwrap()
            .cached_info()
            .config
            .max_age
    };
    assert_eq!(max_age("OBJ_wess-payloads").await, Duration::from_secs(3600));
    assert_eq!(max_age("OBJ_wess-blobs").await, Duration::ZERO);
    assert_eq!(max_age("KV_wess-state-default").await, Duration::ZERO);
}

#[tokio::test]
async fn an_asset_that_its_operator_tuned_is_kept_as_it_is() {
    let server = NatsServer::start();
    let tuned = kv::Config {
        bucket: MODULES_BUCKET.into(),
        history: 9,
        ..Default::default()
    };
    jetstream(&server).await.create_key_value(tuned).await.unwrap();
    assert_eq!(assets(&server).await.modules.status().await.unwrap().history(), 9);
}

#[tokio::test]
async fn assets_survive_a_killed_server_and_are_made_again_in_an_empty_one() {
    let mut server = NatsServer::start();
    assets(&server)
        .await
        .modules
        .put("key", "value".into())
        .await
        .unwrap();
    server.restart();
    assert!(assets(&server).await.modules.get("key").await.unwrap().is_some());
    server.kill();
    std::fs::remove_dir_all(server.store()).unwrap();
    server.restart();
    assert!(assets(&server).await.modules.get("key").await.unwrap().is_none());
}

#[tokio::test]
async fn without_jetstream_the_error_names_an_asset_and_means_unavailable() {
    let account = "accounts { A: { users: [ { user: a, password: p } ] } }";
    let server = NatsServer::builder().config(account).start();
    let config = config(&[
        "--nats",
        &server.url(),
        "--nats-user",
        "a",
        "--nats-password",
        "p",
    ]);
    let context = async_nats::jetstream::new(config.connect("test").await.unwrap().client);
    let error = ensure_assets(&context, &AssetOptions::default())
        .await
        .err()
        .unwrap();
    assert!(error.asset.to_lowercase().starts_with("wess"), "{error}");
    assert_eq!(Failure::from(error).exit, Exit::Unavailable);
}

#[tokio::test]
async fn too_many_replicas_for_the_cluster_are_an_error() {
    let server = NatsServer::start();
    let context = async_nats::jetstream::new(connect(&server).await.client);
    assert!(
        ensure_assets(
            &context,
            &AssetOptions {
                replicas: 3,
                ..AssetOptions::default()
            }
        )
        .await
        .is_err()
    );
}
