//! Getting from a digest to compiled code: once for all who ask, from the nearest place that has it.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use futures_util::future::join_all;
use wess_harness::NatsServer;
use wess_schemas::ErrorCode;
use wess_worker::guest::Metering;
use wess_worker::registry::RegistryOptions;

use crate::support::{Node, digest_of, new_module, options, wasm};

/// The compiled files in a data folder.
fn artifacts(data: &Path) -> Vec<PathBuf> {
    let folders = fs::read_dir(data.join("artifacts")).unwrap().flatten();
    folders
        .flat_map(|folder| {
            fs::read_dir(folder.path())
                .unwrap()
                .flatten()
                .map(|file| file.path())
        })
        .collect()
}

/// A data folder of a stopped registry that had stored one module.
async fn stopped(server: &NatsServer) -> tempfile::TempDir {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start_in(server, data.path()).await;
    node.store("hello", &wasm(1)).await;
    node.stop().await;
    data
}

#[tokio::test]
async fn first_calls_at_once_load_once() {
    let server = NatsServer::start();
    Node::start(&server).await.store("hello", &wasm(1)).await;
    let fresh = Node::start(&server).await;
    let loads = join_all((0..50).map(|_| fresh.registry.artifact(digest_of(&wasm(1)), Metering::Off))).await;
    assert!(loads.into_iter().all(|artifact| artifact.is_ok()));
    let stats = fresh.registry.stats();
    assert_eq!((stats.blobs_fetched.get(), stats.compilations.get()), (1, 1));
    fresh
        .registry
        .artifact(digest_of(&wasm(1)), Metering::Fuel)
        .await
        .unwrap();
    assert_eq!((stats.blobs_fetched.get(), stats.compilations.get()), (1, 2));
}

#[tokio::test]
async fn a_load_is_answered_on_any_runtime() {
    let server = NatsServer::start();
    Node::start(&server).await.store("hello", &wasm(1)).await;
    let fresh = Node::start(&server).await;
    let registry = fresh.registry.clone();
    let elsewhere = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime
            .block_on(registry.artifact(digest_of(&wasm(1)), Metering::Off))
            .is_ok()
    });
    assert!(elsewhere.await.unwrap());
}

#[tokio::test]
async fn nothing_is_compiled_after_a_restart() {
    let server = NatsServer::start();
    let data = stopped(&server).await;
    let node = Node::start_in(&server, data.path()).await;
    node.registry
        .artifact(digest_of(&wasm(1)), Metering::Off)
        .await
        .unwrap();
    let stats = node.registry.stats();
    assert_eq!((stats.compilations.get(), stats.blobs_fetched.get()), (0, 0));
}

#[tokio::test]
async fn a_compiled_file_with_a_wrong_seal_is_compiled_again_from_the_local_bytes() {
    let server = NatsServer::start();
    let data = stopped(&server).await;
    let [path] = &artifacts(data.path())[..] else {
        panic!("one artifact")
    };
    let mut bytes = fs::read(path).unwrap();
    bytes[100] ^= 1;
    fs::remove_file(path).unwrap();
    fs::write(path, &bytes).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o400)).unwrap();
    let node = Node::start_in(&server, data.path()).await;
    node.registry
        .artifact(digest_of(&wasm(1)), Metering::Off)
        .await
        .unwrap();
    let stats = node.registry.stats();
    assert_eq!(
        (
            stats.seals_refused.get(),
            stats.compilations.get(),
            stats.blobs_fetched.get()
        ),
        (1, 1, 0)
    );
    assert_ne!(fs::read(path).unwrap(), bytes);
}

#[tokio::test]
async fn a_worker_with_an_empty_disk_gets_everything_from_jetstream() {
    let server = NatsServer::start();
    let data = stopped(&server).await;
    fs::remove_dir_all(data.path()).unwrap();
    let node = Node::start_in(&server, data.path()).await;
    node.shows("hello").await;
    node.registry
        .artifact(digest_of(&wasm(1)), Metering::Off)
        .await
        .unwrap();
    assert_eq!(node.registry.stats().blobs_fetched.get(), 1);
}

#[tokio::test]
async fn local_copies_stay_within_their_bound_and_every_module_still_loads() {
    let server = NatsServer::start();
    let data = tempfile::tempdir().unwrap();
    let small = RegistryOptions {
        disk_mb: 1,
        ..options(data.path())
    };
    let node = Node::open(&server, &small).await.unwrap();
    // Compiled, each is some 10 KiB at the least; with its data segment 300 KiB.
    let padded = |number: u32| {
        let text = format!(
            r#"(module (memory 5) (data (i32.const 0) "{}") (func (export "number") (result i32) i32.const {number}))"#,
            "x".repeat(150_000)
        );
        wat::parse_str(text).unwrap()
    };
    for number in 0..8 {
        node.store(&format!("m{number}"), &padded(number)).await;
        assert!(node.registry.disk_bytes() <= 1024 * 1024);
    }
    assert!(node.registry.stats().disk_evictions.get() > 0);
    node.stop().await;
    let node = Node::open(&server, &small).await.unwrap();
    for number in 0..8 {
        node.registry
            .artifact(digest_of(&padded(number)), Metering::Off)
            .await
            .unwrap();
        assert!(node.registry.disk_bytes() <= 1024 * 1024);
    }
    let files: u64 = artifacts(data.path())
        .iter()
        .map(|path| fs::metadata(path).unwrap().len())
        .sum();
    assert!(files <= 1024 * 1024, "{files} bytes of artifacts");
}

#[tokio::test]
async fn bytes_that_nobody_stored_cannot_be_loaded() {
    let server = NatsServer::start();
    let node = Node::start(&server).await;
    let missing = node
        .registry
        .artifact(digest_of(b"nothing"), Metering::Off)
        .await
        .unwrap_err();
    assert_eq!(missing.code(), ErrorCode::Unavailable);
    let larger = RegistryOptions {
        max_module_mb: 1,
        ..options(tempfile::tempdir().unwrap().path())
    };
    let strict = Node::open(&server, &larger).await.unwrap();
    let wide = wat::parse_str(format!(
        r#"(module (memory 20) (data (i32.const 0) "{}") (func (export "f")))"#,
        "x".repeat(1_100_000)
    ));
    let wide = wide.unwrap();
    node.registry.store(new_module("wide", &wide)).await.unwrap();
    let refused = strict
        .registry
        .artifact(digest_of(&wide), Metering::Off)
        .await
        .unwrap_err();
    assert_eq!(refused.code(), ErrorCode::UnsupportedModule);
}
