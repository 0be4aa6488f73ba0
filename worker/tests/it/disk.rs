//! A worker's data folder is a copy: it may be deleted, damaged, full or in use, and callers notice nothing but time.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;
use wess_harness::{NatsServer, Process, guest};
use wess_schemas::header;

use crate::rig::{Caller, Rig, Worker, command, fact, wat};

const COMPILATIONS: &str = "wess_worker_registry_compilations_total";
const FETCHED: &str = "wess_worker_registry_blobs_fetched_total";

/// Every file below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] })
        .collect()
}

/// Flips every byte of a file, keeping its mode.
fn damage(file: &Path) {
    let mode = fs::metadata(file).unwrap().permissions();
    fs::set_permissions(file, PermissionsExt::from_mode(0o600)).unwrap();
    let flipped: Vec<u8> = fs::read(file).unwrap().iter().map(|byte| !byte).collect();
    OpenOptions::new()
        .write(true)
        .open(file)
        .unwrap()
        .write_all_at(&flipped, 0)
        .unwrap();
    fs::set_permissions(file, mode).unwrap();
}

/// A rig whose worker was stopped after it had run `upper`.
async fn stopped() -> (NatsServer, Caller, tempfile::TempDir) {
    let rig = Rig::start(&["upper"]).await;
    assert_eq!(rig.caller.raw("upper", "hello").await.unwrap().payload, "HELLO");
    (rig.nats, rig.caller, rig.worker.stop())
}

#[tokio::test]
async fn nothing_is_compiled_or_fetched_after_a_restart_and_the_first_call_is_cold_but_quick() {
    let (nats, caller, data) = stopped().await;
    let worker = Worker::start_in(data.path(), &nats, &[]);
    let first = caller
        .invoke(json!({"module": "upper", "input": "hello"}))
        .await
        .unwrap();
    assert!(
        first.stats.cold && first.stats.load_us < 500_000,
        "{:?}",
        first.stats
    );
    let metrics = worker.metrics().await;
    assert_eq!((metrics.read(COMPILATIONS), metrics.read(FETCHED)), (0, 0));
}

#[tokio::test]
async fn a_deleted_cache_is_filled_again_from_the_object_store() {
    let (nats, caller, data) = stopped().await;
    fs::remove_dir_all(data.path()).unwrap();
    let worker = Worker::start_in(data.path(), &nats, &[]);
    assert_eq!(caller.raw("upper", "hello").await.unwrap().payload, "HELLO");
    let metrics = worker.metrics().await;
    assert_eq!((metrics.read(COMPILATIONS), metrics.read(FETCHED)), (1, 1));
    drop(worker);
    let worker = Worker::start_in(data.path(), &nats, &[]);
    assert_eq!(caller.raw("upper", "hello").await.unwrap().payload, "HELLO");
    assert_eq!(worker.metric(COMPILATIONS).await, 0, "it was kept");
}

#[tokio::test]
async fn a_damaged_cache_is_never_believed_and_heals() {
    let (nats, caller, data) = stopped().await;
    let mut damaged = 0;
    for folder in ["cache-v1", "artifacts"] {
        for file in files(&data.path().join(folder)) {
            damage(&file);
            damaged += 1;
        }
    }
    assert!(damaged > 4, "{damaged} files were damaged");
    let worker = Worker::start_in(data.path(), &nats, &[]);
    assert_eq!(caller.raw("upper", "hello").await.unwrap().payload, "HELLO");
    let metrics = worker.metrics().await;
    assert_eq!(metrics.read("wess_worker_registry_seals_refused_total"), 1);
    assert_eq!(metrics.read("wess_worker_registry_disk_repairs_total"), 1);
    assert_eq!((metrics.read(COMPILATIONS), metrics.read(FETCHED)), (1, 1));
    worker.comes_to_rest().await;
    drop(worker);
    let worker = Worker::start_in(data.path(), &nats, &[]);
    assert_eq!(caller.raw("upper", "hello").await.unwrap().payload, "HELLO");
    let metrics = worker.metrics().await;
    assert_eq!(
        (
            metrics.read(COMPILATIONS),
            metrics.read("wess_worker_registry_seals_refused_total")
        ),
        (0, 0)
    );
}

#[tokio::test]
async fn an_artifact_of_another_module_is_not_loaded_in_its_place() {
    let (nats, caller, data) = stopped().await;
    let artifact = files(&data.path().join("artifacts"));
    let [add, upper] = ["add", "upper"].map(|name| {
        let digest = crate::support::digest_of(&guest(name)).to_hex();
        artifact
            .iter()
            .find(|path| path.to_string_lossy().contains(&digest))
            .unwrap()
    });
    fs::remove_file(upper).unwrap();
    fs::copy(add, upper).unwrap();
    let worker = Worker::start_in(data.path(), &nats, &[]);
    assert_eq!(caller.raw("upper", "hello").await.unwrap().payload, "HELLO");
    assert_eq!(worker.metric("wess_worker_registry_seals_refused_total").await, 1);
}

/// A worker whose data folder is a file system of so many KiB, which nobody outside can see.
fn worker_on_a_small_disk(nats: &NatsServer, kib: usize) -> Worker {
    let possible = Command::new("unshare").args(["-rm", "true"]).output();
    let possible = possible.as_ref().is_ok_and(|output| output.status.success());
    assert!(
        possible,
        "this test needs `unshare -rm`: a user namespace, to mount a small disk in"
    );
    let folder = tempfile::tempdir().unwrap();
    let plain = command(nats, folder.path(), &[]);
    let mut command = Command::new("unshare");
    let mount = format!(
        "mount -t tmpfs -o size={kib}k tmpfs {} && exec \"$0\" \"$@\"",
        folder.path().display()
    );
    command
        .args(["-rm", "sh", "-c", &mount])
        .arg(plain.get_program())
        .args(plain.get_args());
    for (name, value) in plain.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    Worker::of(command)
}

#[tokio::test]
async fn a_full_disk_costs_time_and_no_call() {
    let nats = NatsServer::start();
    let worker = worker_on_a_small_disk(&nats, 1024);
    let caller = Caller::connect(&nats).await;
    for number in 0..8 {
        let padding = format!("{number}{}", "x".repeat(300_000));
        let text = format!(
            "(module (@custom \"padding\" \"{padding}\") (func (export \"f\") (result i32) (i32.const {number})))"
        );
        let module = caller.store(&format!("m{number}"), wat(&text)).await;
        assert_eq!((module.version, module.stored), (1, Some(true)));
    }
    for number in 0..8 {
        let reply = caller.raw(&format!("m{number}"), "").await.unwrap();
        assert_eq!(reply.payload, number.to_string());
        let metered = caller
            .ask(&format!("wess.invoke.m{number}"), &[(header::FUEL, "100")], "")
            .await
            .unwrap();
        assert_eq!(
            (&*metered.payload, fact(&metered, header::FUEL_USED).is_some()),
            (number.to_string().as_bytes(), true)
        );
    }
    assert!(
        worker.metric("wess_worker_registry_disk_failures_total").await > 0,
        "the disk was never full"
    );
    worker.comes_to_rest().await;
}

#[tokio::test]
async fn a_data_folder_in_use_is_refused_by_its_name() {
    let nats = NatsServer::start();
    let data = tempfile::tempdir().unwrap();
    let _first = Worker::start_in(data.path(), &nats, &[]);
    let mut second = Process::spawn(&mut command(&nats, data.path(), &[]));
    assert_eq!(second.wait_exit().code(), Some(64));
    assert!(
        second.stderr().contains(data.path().to_str().unwrap()),
        "{}",
        second.stderr()
    );
}
