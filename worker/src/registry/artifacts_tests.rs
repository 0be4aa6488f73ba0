//! Which compiled files are loaded, which are not, and what happens without a disk.

use std::os::unix::fs::{FileExt, MetadataExt, symlink};

use super::*;
use crate::guest::{Compiler, EnginePool, Prepared, Ticker};

const KEY: ArtifactKey = ArtifactKey {
    digest: Digest::from_bytes([1; 32]),
    metering: Metering::Off,
};
const OTHER: ArtifactKey = ArtifactKey {
    metering: Metering::Fuel,
    ..KEY
};

fn open(data: &Path) -> (Artifacts, RegistryStats) {
    let stats = RegistryStats::default();
    let compatibility = |metering: Metering| format!("compiler-{}", metering.as_str());
    (
        Artifacts::open(data, compatibility, stats.clone()).unwrap(),
        stats,
    )
}

fn content(artifact: &Artifact) -> Vec<u8> {
    let mut bytes = vec![0; artifact.size_bytes as usize];
    artifact.file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

/// A data folder with one artifact, and that artifact's file.
fn with_one() -> (tempfile::TempDir, PathBuf) {
    let data = tempfile::tempdir().unwrap();
    let (artifacts, _) = open(data.path());
    artifacts.keep(KEY, b"machine code", true).unwrap();
    let path = artifacts.path(&KEY);
    (data, path)
}

#[test]
fn a_kept_artifact_is_read_only_in_a_private_folder_and_outlives_the_process() {
    let (data, path) = with_one();
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o400, 0o700));
    assert_eq!(mode(&data.path().join(FOLDER)), 0o700);
    let (artifacts, stats) = open(data.path());
    assert!(artifacts.verified(&KEY).is_none());
    assert_eq!(content(&artifacts.at_hand(KEY).unwrap()), b"machine code");
    assert!(artifacts.verified(&KEY).is_some() && artifacts.at_hand(OTHER).is_none());
    assert_eq!(content(&artifacts.load(KEY).unwrap()), b"machine code");
    assert_eq!(content(&artifacts.verified(&KEY).unwrap()), b"machine code");
    assert!(artifacts.load(OTHER).is_none());
    assert_eq!(stats.seals_refused.get(), 0);
    let files = artifacts.files();
    assert_eq!(
        (files.len(), files[0].item, files[0].bytes),
        (1, Item::Artifact(KEY), 12 + SEAL_BYTES as u64)
    );
}

#[test]
fn a_file_with_another_seal_owner_length_or_mode_is_removed_and_never_loaded() {
    type Tamper = (&'static str, fn(&Path));
    let tamper: [Tamper; 6] = [
        ("changed code", |path| rewrite(path, |bytes| bytes[0] ^= 1)),
        ("changed seal", |path| {
            rewrite(path, |bytes| *bytes.last_mut().unwrap() ^= 1)
        }),
        ("cut", |path| rewrite(path, |bytes| bytes.truncate(20))),
        ("empty", |path| rewrite(path, Vec::clear)),
        ("grown", |path| rewrite(path, |bytes| bytes.push(0))),
        ("writable", |path| {
            fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap()
        }),
    ];
    for (what, tamper) in tamper {
        let (data, path) = with_one();
        tamper(&path);
        let (artifacts, stats) = open(data.path());
        assert!(artifacts.at_hand(KEY).is_none() && path.exists(), "{what}");
        assert!(artifacts.load(KEY).is_none(), "{what}");
        assert_eq!((stats.seals_refused.get(), path.exists()), (1, false), "{what}");
        artifacts.keep(KEY, b"machine code", true).unwrap();
        assert!(artifacts.load(KEY).is_some(), "{what}");
    }
}

fn rewrite(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
    fs::set_permissions(path, Permissions::from_mode(READ_ONLY)).unwrap();
}

#[test]
fn a_sealed_file_under_another_name_is_refused() {
    let (data, path) = with_one();
    let (artifacts, stats) = open(data.path());
    fs::rename(&path, artifacts.path(&OTHER)).unwrap();
    assert!(artifacts.at_hand(OTHER).is_none());
    assert!(artifacts.load(OTHER).is_none());
    assert_eq!(stats.seals_refused.get(), 1);
}

#[test]
fn a_link_is_not_followed() {
    let (data, path) = with_one();
    let elsewhere = data.path().join("elsewhere");
    fs::rename(&path, &elsewhere).unwrap();
    symlink(&elsewhere, &path).unwrap();
    let (artifacts, _) = open(data.path());
    assert!(artifacts.at_hand(KEY).is_none());
    assert!(artifacts.load(KEY).is_none());
    artifacts.keep(KEY, b"machine code", true).unwrap();
    assert!(fs::symlink_metadata(&path).unwrap().is_file());
}

#[test]
fn another_nodes_files_are_refused() {
    let (data, _) = with_one();
    fs::remove_file(data.path().join("node.key")).unwrap();
    let (artifacts, stats) = open(data.path());
    assert!(artifacts.load(KEY).is_none());
    assert_eq!(stats.seals_refused.get(), 1);
}

#[test]
fn a_start_removes_what_a_crash_and_other_compilers_left() {
    let (data, path) = with_one();
    let folder = path.parent().unwrap();
    let left = [
        folder.join(".half"),
        folder.join("name.plain"),
        data.path().join("artifacts/older-compiler"),
    ];
    fs::write(&left[0], b"half").unwrap();
    fs::write(&left[1], b"?").unwrap();
    fs::create_dir(&left[2]).unwrap();
    fs::write(left[2].join("file"), b"old").unwrap();
    let (artifacts, _) = open(data.path());
    assert_eq!(left.iter().filter(|left| left.exists()).count(), 0);
    assert!(artifacts.load(KEY).is_some());
}

#[test]
fn a_folder_deleted_under_a_running_process_is_made_again() {
    let (data, path) = with_one();
    let (artifacts, stats) = open(data.path());
    fs::remove_dir_all(data.path().join(FOLDER)).unwrap();
    artifacts.keep(KEY, b"machine code", true).unwrap();
    assert!(path.exists());
    assert_eq!(stats.memory_artifacts.get(), 0);
}

#[test]
fn without_a_disk_artifacts_live_in_memory_within_their_bound() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let (artifacts, stats) = open(file.path());
    let half = vec![7; MAX_MEMORY_BYTES as usize / 2];
    assert_eq!(content(&artifacts.keep(KEY, &half, true).unwrap()), half);
    artifacts.keep(OTHER, &half, true).unwrap();
    assert!(artifacts.verified(&KEY).is_some() && artifacts.verified(&OTHER).is_some());
    let third = ArtifactKey {
        digest: Digest::from_bytes([3; 32]),
        ..KEY
    };
    artifacts.keep(third, b"one more", true).unwrap();
    assert!(artifacts.verified(&KEY).is_none() && artifacts.verified(&third).is_some());
    assert_eq!(stats.memory_artifacts.get(), 3);
}

#[test]
fn what_the_disk_shall_not_keep_lives_in_memory_and_cannot_be_changed() {
    let data = tempfile::tempdir().unwrap();
    let (artifacts, _) = open(data.path());
    let artifact = artifacts.keep(KEY, b"machine code", false).unwrap();
    assert!(artifacts.files().is_empty());
    assert!(artifact.file.write_at(b"evil", 0).is_err());
    assert_eq!(content(&artifact), b"machine code");
}

#[test]
fn what_was_compiled_loads_with_its_seal_behind_it_from_disk_and_from_memory() {
    let data = tempfile::tempdir().unwrap();
    let compiler = Compiler::new().unwrap();
    let artifacts = Artifacts::open(
        data.path(),
        |metering| compiler.compatibility(metering),
        RegistryStats::default(),
    )
    .unwrap();
    let wasm = wat::parse_str(r#"(module (func (export "one") (result i32) i32.const 1))"#).unwrap();
    let engines = EnginePool::new(1, Ticker::start().unwrap());
    for on_disk in [true, false] {
        let compiled = compiler.compile(&wasm, KEY.metering).unwrap();
        let artifact = artifacts.keep(KEY, &compiled, on_disk).unwrap();
        assert_eq!(artifact.size_bytes, compiled.len() as u64);
        assert!(
            Prepared::load(&engines, KEY.metering, &artifact.file).is_ok(),
            "on disk: {on_disk}"
        );
    }
}

#[test]
fn what_is_small_and_in_memory_is_verified_at_once_and_what_is_large_or_damaged_is_left() {
    let (data, path) = with_one();
    let (artifacts, stats) = open(data.path());
    assert_eq!(content(&artifacts.at_once(KEY).unwrap()), b"machine code");
    assert!(artifacts.verified(&KEY).is_some() && artifacts.at_once(OTHER).is_none());
    for (bytes, is_small) in [(SMALL_BYTES, true), (SMALL_BYTES + 1, false)] {
        artifacts.keep(OTHER, &vec![7; bytes as usize], true).unwrap();
        let (again, _) = open(data.path());
        assert_eq!(again.at_once(OTHER).is_some(), is_small, "{bytes} bytes");
        // Who has verified it has not made it smaller.
        assert_eq!(artifacts.at_once(OTHER).is_some(), is_small, "{bytes} bytes");
    }
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    fs::write(&path, [b"code of others".as_slice(), &[0; SEAL_BYTES]].concat()).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(READ_ONLY)).unwrap();
    let (artifacts, _) = open(data.path());
    assert!(artifacts.at_once(KEY).is_none() && path.exists());
    assert_eq!(stats.seals_refused.get(), 0);
}
