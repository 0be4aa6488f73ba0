//! The registry while something is broken: JetStream, its records, its objects, or the local disk.

use std::fs;

use wess_harness::NatsServer;
use wess_schemas::ErrorCode;
use wess_worker::guest::Metering;
use wess_worker::registry::{FolderError, OpenError};

use crate::support::{Node, assets, digest_of, new_module, options, reference_of, wasm};

const WITHOUT_JETSTREAM: &str = "jetstream: false";

#[tokio::test]
async fn a_worker_starts_from_its_disk_while_jetstream_is_away_and_catches_up_when_it_is_back() {
    let mut server = NatsServer::start();
    let data = tempfile::tempdir().unwrap();
    let node = Node::start_in(&server, data.path()).await;
    let stored = node.store("hello", &wasm(1)).await;
    node.has_seen(stored.revision).await;
    node.stop().await;
    Node::start(&server).await.store("later", &wasm(2)).await;

    server.restart_with(WITHOUT_JETSTREAM);
    let node = Node::start_in(&server, data.path()).await;
    let found = node.registry.lookup(&reference_of("hello")).unwrap();
    assert!(node.registry.artifact(found.digest, Metering::Off).await.is_ok());
    assert!(
        node.registry.artifact(found.digest, Metering::Fuel).await.is_ok(),
        "compiled from the local bytes"
    );
    for unknown in ["later", "hello@9"] {
        let away = node.registry.resolve(&reference_of(unknown)).await.unwrap_err();
        assert_eq!(away.code(), ErrorCode::Unavailable);
    }
    let away = node
        .registry
        .store(new_module("new", &wasm(3)))
        .await
        .unwrap_err();
    assert_eq!(away.code(), ErrorCode::Unavailable);

    server.restart_with("");
    node.shows("later").await;
    assert!(node.registry.replayed(wess_harness::DEADLINE).await);
    assert!(node.store("new", &wasm(3)).await.stored);
}

#[tokio::test]
async fn a_killed_server_that_comes_back_is_followed_again() {
    let mut server = NatsServer::start();
    let (here, there) = (Node::start(&server).await, Node::start(&server).await);
    here.store("hello", &wasm(1)).await;
    there.shows("hello").await;
    server.kill();
    assert!(there.registry.lookup(&reference_of("hello")).is_some());
    server.restart();
    wess_harness::eventually("a store", async || {
        here.registry.store(new_module("hello", &wasm(2))).await.ok()
    })
    .await;
    there.shows("hello@2").await;
}

#[tokio::test]
async fn a_server_that_comes_back_empty_empties_the_catalog_and_takes_stores() {
    let mut server = NatsServer::start();
    let node = Node::start(&server).await;
    node.store("hello", &wasm(1)).await;
    server.kill();
    fs::remove_dir_all(server.store()).unwrap();
    server.restart();
    node.forgets("hello").await;
    assert_eq!(node.digest_of("hello").await, None);
    let stored = wess_harness::eventually("a store", async || {
        node.registry.store(new_module("hello", &wasm(2))).await.ok()
    });
    assert_eq!(stored.await.version, 1);
    node.shows("hello@1").await;
}

#[tokio::test]
async fn garbage_records_are_skipped_and_counted_and_the_rest_is_served() {
    let server = NatsServer::start();
    let node = Node::start(&server).await;
    node.store("hello", &wasm(1)).await;
    let modules = assets(&server).await.modules;
    for key in [
        "default.bad",
        "default.hello.v2",
        "nonsense",
        "default.hello.x",
        "other.tenant",
    ] {
        modules.put(key, "{]".into()).await.unwrap();
    }
    node.store("after", &wasm(2)).await;
    node.shows("after").await;
    node.has_seen(modules.stream.get_info().await.unwrap().state.last_sequence)
        .await;
    assert!(node.registry.stats().garbage_records.get() >= 4);
    let fresh = Node::start(&server).await;
    for node in [&node, &fresh] {
        assert_eq!(node.digest_of("hello").await, Some(digest_of(&wasm(1))));
        let unreadable = node.registry.resolve(&reference_of("bad")).await.unwrap_err();
        assert_eq!(
            (unreadable.code(), unreadable.error.guest_ran),
            (ErrorCode::Internal, false)
        );
    }
    assert_eq!(fresh.registry.modules(), 2);
}

#[tokio::test]
async fn other_bytes_under_a_digest_are_never_run() {
    let server = NatsServer::start();
    Node::start(&server).await.store("hello", &wasm(1)).await;
    let blobs = assets(&server).await.blobs;
    let digest = digest_of(&wasm(1));
    blobs
        .store
        .put(digest.to_string().as_str(), &mut wasm(2).as_slice())
        .await
        .unwrap();
    let fresh = Node::start(&server).await;
    let refused = fresh.registry.artifact(digest, Metering::Off).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::Unavailable);
    assert_eq!(fresh.registry.stats().compilations.get(), 0);
}

#[tokio::test]
async fn a_data_folder_in_use_is_refused_by_name() {
    let server = NatsServer::start();
    let data = tempfile::tempdir().unwrap();
    let _node = Node::start_in(&server, data.path()).await;
    let refused = Node::open(&server, &options(data.path())).await.err().unwrap();
    assert!(matches!(&refused, OpenError::Folder(FolderError::Locked(path)) if path == data.path()));
    assert!(
        refused.to_string().contains(data.path().to_str().unwrap()),
        "{refused}"
    );
}

#[tokio::test]
async fn local_copies_deleted_under_a_running_worker_change_nothing_for_callers() {
    let server = NatsServer::start();
    let data = tempfile::tempdir().unwrap();
    let node = Node::start_in(&server, data.path()).await;
    node.store("hello", &wasm(1)).await;
    fs::remove_dir_all(data.path()).unwrap();
    for number in 2..5 {
        node.store("hello", &wasm(number)).await;
        let digest = node.digest_of("hello").await.unwrap();
        assert_eq!(digest, digest_of(&wasm(number)));
        assert!(node.registry.artifact(digest, Metering::Fuel).await.is_ok());
    }
}

#[tokio::test]
async fn a_corrupt_local_database_is_made_anew_at_the_next_start() {
    let server = NatsServer::start();
    let data = tempfile::tempdir().unwrap();
    let node = Node::start_in(&server, data.path()).await;
    node.store("hello", &wasm(1)).await;
    node.stop().await;
    for entry in fs::read_dir(data.path().join("cache-v1")).unwrap().flatten() {
        fs::write(entry.path(), b"garbage").unwrap();
    }
    let node = Node::start_in(&server, data.path()).await;
    node.shows("hello").await;
    assert_eq!(node.registry.stats().disk_repairs.get(), 1);
    assert!(
        node.registry
            .artifact(digest_of(&wasm(1)), Metering::Off)
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn an_unknown_name_is_asked_of_the_leader_and_not_found() {
    let server = NatsServer::start();
    let node = Node::start(&server).await;
    node.store("hello", &wasm(1)).await;
    for (reference, text) in [
        ("nobody", "there is no module nobody"),
        ("hello@7", "hello has no version 7"),
        ("hello@stable", "hello has no tag stable"),
    ] {
        let missing = node.registry.resolve(&reference_of(reference)).await.unwrap_err();
        assert_eq!(
            (missing.code(), missing.error.message.as_str()),
            (ErrorCode::ModuleNotFound, text)
        );
    }
}
