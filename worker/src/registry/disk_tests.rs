//! The local database: what it keeps, and how it heals.

use std::fs;

use super::*;

const WASM: &[u8] = b"\0asm\x01\0\0\0";

fn digest(bytes: &[u8]) -> Digest {
    Digest::from_bytes(Sha256::digest(bytes).into())
}

fn open(data: &Path) -> (Disk, RegistryStats) {
    let stats = RegistryStats::default();
    (Disk::open(data, (), stats.clone()), stats)
}

fn record(key: &str, revision: u64, value: Option<&str>) -> RawRecord {
    RawRecord {
        key: key.into(),
        revision,
        value: value.map(|value| Bytes::copy_from_slice(value.as_bytes())),
    }
}

/// Overwrites every file of the database whose name `which` accepts.
fn damage(data: &Path, which: impl Fn(&str) -> bool) {
    let mut damaged = 0;
    for entry in fs::read_dir(data.join(keys::FOLDER)).unwrap() {
        let path = entry.unwrap().path();
        if path
            .file_name()
            .and_then(|name| name.to_str())
            .is_some_and(&which)
        {
            let length = fs::metadata(&path).unwrap().len() as usize;
            fs::write(&path, vec![0x5a; length]).unwrap();
            damaged += 1;
        }
    }
    assert!(damaged > 0, "nothing to damage");
}

#[test]
fn bytes_and_catalog_outlive_the_process() {
    let data = tempfile::tempdir().unwrap();
    let (disk, _) = open(data.path());
    assert!(disk.keep_blob(digest(WASM), WASM));
    disk.save(
        3,
        &[
            record("default.a", 3, Some("{}")),
            record("default.b", 2, Some("[]")),
        ],
    );
    disk.save(4, &[record("default.b", 4, None)]);
    drop(disk);
    let (disk, stats) = open(data.path());
    assert_eq!(disk.blob(digest(WASM)).as_deref(), Some(WASM));
    assert_eq!(disk.catalog(), (4, vec![record("default.a", 3, Some("{}"))]));
    let blobs = disk.blobs();
    assert_eq!(
        (blobs.len(), blobs[0].bytes, blobs[0].item),
        (1, 8, Item::Blob(digest(WASM)))
    );
    assert_eq!((stats.disk_repairs.get(), stats.disk_failures.get()), (0, 0));
}

#[test]
fn a_replaced_catalog_has_nothing_of_the_one_before() {
    let data = tempfile::tempdir().unwrap();
    let (disk, _) = open(data.path());
    disk.save(9, &[record("default.a", 9, Some("{}"))]);
    disk.replace(2, &[record("default.b", 2, Some("{}"))]);
    assert_eq!(disk.catalog(), (2, vec![record("default.b", 2, Some("{}"))]));
}

#[test]
fn a_blob_that_is_not_its_digest_is_dropped_and_never_handed_out() {
    let data = tempfile::tempdir().unwrap();
    let (disk, stats) = open(data.path());
    assert!(disk.keep_blob(digest(b"other"), WASM));
    assert_eq!(disk.blob(digest(b"other")), None);
    assert_eq!((disk.blobs().len(), stats.disk_failures.get()), (0, 1));
}

#[test]
fn a_dropped_blob_gives_its_room_back() {
    let data = tempfile::tempdir().unwrap();
    let (disk, _) = open(data.path());
    let mut large = vec![0; 8 * 1024 * 1024];
    let mut word = 1u64;
    for chunk in large.chunks_mut(8) {
        // Xorshift: compressible bytes would not show.
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        chunk.copy_from_slice(&word.to_le_bytes());
    }
    let tables = || -> u64 {
        let entries = fs::read_dir(data.path().join(keys::FOLDER)).unwrap().flatten();
        let tables = entries.filter(|entry| {
            entry
                .path()
                .extension()
                .is_some_and(|extension| extension == "sst")
        });
        tables.map(|entry| entry.metadata().unwrap().len()).sum()
    };
    assert!(disk.keep_blob(digest(&large), &large));
    disk.0
        .attempt("flush", |db| Ok(db.flush_cf(column(db, BLOBS)?)?))
        .unwrap();
    assert!(tables() > 8_000_000);
    disk.forget_blob(digest(&large));
    // Files are unlinked on a thread of RocksDB's.
    let deadline = Instant::now() + Duration::from_secs(10);
    while tables() > 1_000_000 {
        assert!(Instant::now() < deadline, "{} bytes stay", tables());
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_database_that_cannot_be_opened_is_made_anew() {
    for broken in ["CURRENT", "MANIFEST"] {
        let data = tempfile::tempdir().unwrap();
        let (disk, _) = open(data.path());
        disk.keep_blob(digest(WASM), WASM);
        drop(disk);
        damage(data.path(), |name| name.starts_with(broken));
        let (disk, stats) = open(data.path());
        assert_eq!(
            (disk.blob(digest(WASM)), stats.disk_repairs.get()),
            (None, 1),
            "{broken}"
        );
        assert!(disk.keep_blob(digest(WASM), WASM), "{broken}");
        assert_eq!(disk.blob(digest(WASM)).as_deref(), Some(WASM), "{broken}");
    }
}

#[tokio::test]
async fn a_database_found_corrupt_while_it_runs_is_made_anew_and_says_so() {
    let data = tempfile::tempdir().unwrap();
    let (disk, _) = open(data.path());
    disk.keep_blob(digest(WASM), WASM);
    disk.0
        .attempt("flush", |db| Ok(db.flush_cf(column(db, BLOBS)?)?))
        .unwrap();
    drop(disk);
    damage(data.path(), |name| name.ends_with(".sst"));
    let (disk, stats) = open(data.path());
    assert_eq!(disk.blob(digest(WASM)), None);
    assert_eq!(stats.disk_repairs.get(), 1);
    assert!(disk.keep_blob(digest(WASM), WASM));
    assert_eq!(disk.blob(digest(WASM)).as_deref(), Some(WASM));
    if stats.disk_failures.get() > 0 {
        disk.reopened().await;
    }
}

#[test]
fn a_half_written_log_keeps_what_came_before() {
    let data = tempfile::tempdir().unwrap();
    let (disk, _) = open(data.path());
    disk.keep_blob(digest(WASM), WASM);
    disk.save(1, &[record("default.a", 1, Some("{}"))]);
    // A crash leaves the folder as it is now; the copy is what the next process finds.
    let copy = tempfile::tempdir().unwrap();
    let folder = copy.path().join(keys::FOLDER);
    fs::create_dir(&folder).unwrap();
    for entry in fs::read_dir(data.path().join(keys::FOLDER)).unwrap().flatten() {
        let bytes = fs::read(entry.path()).unwrap();
        let log = entry
            .path()
            .extension()
            .is_some_and(|extension| extension == "log")
            && !bytes.is_empty();
        let kept = if log { &bytes[..bytes.len() - 1] } else { &bytes };
        fs::write(folder.join(entry.file_name()), kept).unwrap();
    }
    let (disk, stats) = open(copy.path());
    assert_eq!(disk.blob(digest(WASM)).as_deref(), Some(WASM));
    assert_eq!(disk.catalog().1, []);
    assert_eq!(stats.disk_repairs.get(), 0);
}

#[test]
fn a_database_deleted_under_a_running_process_is_made_anew() {
    let data = tempfile::tempdir().unwrap();
    let (disk, stats) = open(data.path());
    fs::remove_dir_all(data.path().join(keys::FOLDER)).unwrap();
    let large = vec![0; 2 * WRITE_BUFFER_BYTES];
    // The files that are open still take some; the first new one cannot be made.
    let noticed = (0..100).any(|_| {
        disk.keep_blob(digest(&large), &large);
        stats.disk_repairs.get() > 0
    });
    assert!(noticed);
    assert!(disk.keep_blob(digest(WASM), WASM));
    assert!(data.path().join(keys::FOLDER).join("CURRENT").exists());
}

#[test]
fn without_any_disk_everything_is_a_miss_and_nothing_fails() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let (disk, _) = open(file.path());
    assert!(!disk.keep_blob(digest(WASM), WASM));
    assert_eq!(disk.blob(digest(WASM)), None);
    disk.save(1, &[record("default.a", 1, Some("{}"))]);
    assert_eq!(disk.catalog(), (0, Vec::new()));
    assert!(disk.blobs().is_empty());
}
